/* op      dW votes on Hopper from turned operands, for grains of few rows and rows that gemm_wgmma_direct.cuh does not take:
 *         D[n][k] = sum over a grain's rows of tq[row][n] q[row][k], cast as votes in the epilogue
 * shapes  tiles of 128 (n) x BN (k), a cluster of CM x CN blocks works on as many neighbouring tiles; one unit of work = one
 *         cluster's tiles of one grain; any rows, n, k
 * layout  both operands were turned (gemm_turn.cuh): the depth, a grain's rows, lies innermost, in chunks of 128 bytes,
 *         swizzled. Rows of both are permuted within 16, so that a thread ends with two neighbouring rows n and 4 neighbouring
 *         columns k.
 * work    2 rows n k operations; a producer warp and two consumer warpgroups of 64 x BN; where two blocks share a
 *         multiprocessor, one casts votes while the other multiplies
 * bytes   from L2 tq once per CN column tiles, q once per CM row tiles: a block loads its share of each operand and multicasts
 *         it to the blocks of its row, or column, of the cluster; votes read and written once a block and tile
 * determinism  int32 sums, votes are integers: added in registers over a block's grains, then over blocks (join)
 * source  own; PTX ISA, "Asynchronous warpgroup level matrix instructions" */
#ifndef ARB_KERNELS_CUDA_GEMM_WGMMA_DW_CUH
#define ARB_KERNELS_CUDA_GEMM_WGMMA_DW_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace arb_wgmma_dw {

constexpr int BM = 128, BK = 128;
constexpr int threads(int blocks) { return blocks == 1 ? 384 : 288; }

struct args {
  int32_t row_tiles, col_tiles; /* of n and k, counted in clusters */
  int32_t units;                /* row_tiles * col_tiles * grains */
  int32_t clusters;
  uint32_t *parts; /* [blocks][2][BN / 16][2][256] votes of tiles that several blocks share */
  arb_vote_args v;
};

template <int BN, int STAGES>
constexpr int shared_bytes() {
  return STAGES * (BM + BN) * BK + 16 * STAGES + 1024;
}

#if ARB_HAVE_WGMMA
using namespace arb_ptx;

/* Where consumer thread `id` (0 .. 255) has its votes: two neighbouring rows, four columns in each 16. */
__device__ __forceinline__ int32_t row_in_tile(int id) { return id / 128 * 64 + (id / 32 % 4) * 16 + 2 * (id % 32 / 4); }

/* g.votes += votes, all of a thread's words at once: reads first, since one after the other would wait for memory each time. */
template <int BN>
__device__ __forceinline__ void add_tile(const arb_vote_args &v, int32_t row, int32_t col0, int id,
                                         const uint32_t (&votes)[BN / 16][2]) {
  const int32_t n = (int32_t)v.n, k = (int32_t)v.k, first = col0 + 4 * (id % 4);
  int8_t *const at[2] = {v.votes + arb_votes_at(v.groups, row, k) + first,
                         v.votes + arb_votes_at(v.groups, row + 1, k) + first};
  if ((k & 3) == 0 && ((uintptr_t)v.votes & 3) == 0 && (v.groups.stride & 3) == 0) {
    uint32_t old[BN / 16][2];
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int i = 0; i < BN / 16; i++)
        if (row + h < n && first + 16 * i < k) old[i][h] = *reinterpret_cast<const uint32_t *>(at[h] + 16 * i);
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int i = 0; i < BN / 16; i++)
        if (row + h < n && first + 16 * i < k) *reinterpret_cast<uint32_t *>(at[h] + 16 * i) = __vadd4(old[i][h], votes[i][h]);
    return;
  }
#pragma unroll
  for (int h = 0; h < 2; h++)
#pragma unroll
    for (int i = 0; i < BN / 16; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (row + h < n && first + 16 * i + j < k) {
          int8_t *one = at[h] + 16 * i + j;
          *one = (int8_t)(*one + (int8_t)(votes[i][h] >> (8 * j)));
        }
}
#endif

template <int BN, int STAGES, int BLOCKS, int CM, int CN>
__global__ void
#if ARB_HAVE_WGMMA || !defined(__CUDA_ARCH__)
__launch_bounds__(threads(BLOCKS), BLOCKS)
#else
__launch_bounds__(32)
#endif
    kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const args g) {
#if ARB_HAVE_WGMMA
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + 1023u) & ~1023u;
  constexpr uint32_t A_BYTES = BM * BK, B_BYTES = BN * BK, STAGE = A_BYTES + B_BYTES;
  const uint32_t full = base + STAGES * STAGE, empty = full + 8 * STAGES;
  constexpr int CLUSTER = CM * CN, SHARERS = CM + CN - 1; /* blocks that a block sends to, itself among them */
  const int lane = threadIdx.x % 32, role = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);
  const int rank = CLUSTER > 1 ? (int)cluster_rank() : 0, rank_m = rank / CN, rank_n = rank % CN;
  if (threadIdx.x == 0) {
    prefetch(&map_a);
    prefetch(&map_b);
    for (int s = 0; s < STAGES; s++) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, 8 * SHARERS);
    }
    barriers_visible();
  }
  if (CLUSTER > 1)
    cluster_sync();
  else
    __syncthreads();
  const int32_t own = (int32_t)blockIdx.x, cluster = own / CLUSTER;
  const int32_t first = arb_share(g.units, cluster, g.clusters), last = arb_share(g.units, cluster + 1, g.clusters);
  const int32_t chunks = (int32_t)((g.v.rows_per_grain + BK - 1) / BK);
  arb_next_may_start();
  arb_previous_done();
  if (role == 2) {
    if (BLOCKS == 1) registers_shrink<40>();
    if (threadIdx.x == 256) {
      /* this block's shares of its tiles, and who else wants them: ranks of its row have the same tile of A, of its column of B
       */
      constexpr uint32_t A_SHARE = A_BYTES / CN, B_SHARE = B_BYTES / CM;
      uint16_t to_row = 0, to_column = 0;
      for (int i = 0; i < CN; i++) to_row = (uint16_t)(to_row | 1u << (rank_m * CN + i));
      for (int i = 0; i < CM; i++) to_column = (uint16_t)(to_column | 1u << (i * CN + rank_n));
      uint32_t stage = 0, phase = 1;
      for (int32_t u = first; u < last; u++) {
        const int32_t grain = u % g.v.grains, tile = u / g.v.grains;
        const int32_t row = (tile / g.col_tiles * CM + rank_m) * BM + rank_n * (BM / CN),
                      col = (tile % g.col_tiles * CN + rank_n) * BN + rank_m * (BN / CM);
        for (int32_t c = 0; c < chunks; c++) {
          const uint32_t bar = full + 8 * stage, a = base + stage * STAGE;
          barrier_wait(empty + 8 * stage, phase);
          barrier_expect(bar, STAGE);
          const uint32_t a_share = a + rank_n * A_SHARE, b_share = a + A_BYTES + rank_m * B_SHARE;
          if (CN > 1)
            load_3d_multicast(a_share, &map_a, bar, 0, row, grain * chunks + c, to_row);
          else
            load_3d(a_share, &map_a, bar, 0, row, grain * chunks + c);
          if (CM > 1)
            load_3d_multicast(b_share, &map_b, bar, 0, col, grain * chunks + c, to_column);
          else
            load_3d(b_share, &map_b, bar, 0, col, grain * chunks + c);
          if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
          }
        }
      }
    }
  } else {
    if (BLOCKS == 1) registers_grow<232>();
    const int wg = role, t4 = lane % 4, id = (int)threadIdx.x;
    /* whose barrier this lane tells that the warp is done with a stage: the ranks of its row, then the others of its column */
    const int sharer = lane < CN ? rank_m * CN + lane : (lane - CN < rank_m ? lane - CN : lane - CN + 1) * CN + rank_n;
    auto release = [&](uint32_t stage) {
      if (lane >= SHARERS) return;
      if (CLUSTER > 1)
        barrier_arrive_at(empty + 8 * stage, (uint32_t)sharer);
      else
        barrier_arrive(empty + 8 * stage);
    };
    uint32_t stage = 0, phase = 0;
    int32_t acc[BN / 2];
    uint32_t votes[BN / 16][2];
    const arb_philox_key key = arb_philox_key_of(g.v.step->seed, ARB_DRAW_VOTE);
    const uint32_t step = g.v.step->step;
    const int32_t n_rows = (int32_t)g.v.n;
    const int64_t blocks_per_row = arb_pad8(g.v.k) / 8;
    int32_t begun = first; /* first unit whose votes are in registers */
    for (int32_t u = first; u < last; u++) {
      const int32_t grain = u % g.v.grains, tile = u / g.v.grains;
      const int32_t row = (tile / g.col_tiles * CM + rank_m) * BM + row_in_tile(id),
                    col0 = (tile % g.col_tiles * CN + rank_n) * BN;
      const float s0 = row < n_rows ? arb_row_vote_scale(g.v, grain, row) : 0.0f;
      const float s1 = row + 1 < n_rows ? arb_row_vote_scale(g.v, grain, row + 1) : 0.0f;
      uint32_t previous = 0;
      for (int32_t c = 0; c < chunks; c++) {
        const uint32_t at = base + stage * STAGE;
        barrier_wait(full + 8 * stage, phase);
        const uint64_t a = descriptor(at + wg * 64 * BK), b = descriptor(at + A_BYTES);
        mma_fence();
#pragma unroll
        for (int k = 0; k < BK / 32; k++) mma_ss(acc, a + 2 * k, b + 2 * k, c > 0 || k > 0);
        mma_commit();
        if (c > 0) {
          mma_wait<1>();
          release(previous);
        }
        previous = stage;
        if (++stage == STAGES) {
          stage = 0;
          phase ^= 1;
        }
      }
      mma_wait<0>();
      registers_held(acc);
      release(previous);
      const uint32_t number = (uint32_t)(g.v.first + grain * g.v.stride);
      const bool fresh = u == begun, odd = t4 & 1;
      /* even threads draw for the first row, odd ones for the second, then they swap the halves of their blocks */
      const uint64_t draw_block = (uint64_t)((row + (odd ? 1 : 0)) * blocks_per_row) + (uint64_t)(col0 / 8 + t4 / 2);
#pragma unroll
      for (int i = 0; i < BN / 16; i++) {
        const arb_philox_block r = arb_philox(key, (uint32_t)(draw_block + 2 * i), g.v.tensor, step, number);
        const uint32_t x0 = __shfl_xor_sync(0xffffffffu, odd ? r.v[0] : r.v[2], 1);
        const uint32_t x1 = __shfl_xor_sync(0xffffffffu, odd ? r.v[1] : r.v[3], 1);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const uint32_t d0 = h ? (odd ? r.v[2] : x0) : (odd ? x0 : r.v[0]);
          const uint32_t d1 = h ? (odd ? r.v[3] : x1) : (odd ? x1 : r.v[1]);
          const float s = h ? s1 : s0;
          const int32_t *d = acc + 8 * i + 2 * h;
          const uint32_t v0 = arb_vote_byte(d[0], s, g.v.vmax, arb_draw_unit(d0, 0)),
                         v1 = arb_vote_byte(d[1], s, g.v.vmax, arb_draw_unit(d0, 1)),
                         v2 = arb_vote_byte(d[4], s, g.v.vmax, arb_draw_unit(d1, 0)),
                         v3 = arb_vote_byte(d[5], s, g.v.vmax, arb_draw_unit(d1, 1));
          const uint32_t word = __byte_perm(__byte_perm(v0, v1, 0x0040), __byte_perm(v2, v3, 0x0040), 0x5410);
          votes[i][h] = fresh ? word : __vadd4(votes[i][h], word);
        }
      }
      if (u + 1 == last || grain + 1 == g.v.grains) {
        if (u + 1 - begun == g.v.grains)
          add_tile<BN>(g.v, row, col0, id, votes);
        else {
          uint32_t *part = g.parts + (int64_t)(2 * own + (begun != first)) * (BN * 32) + id;
#pragma unroll
          for (int i = 0; i < BN / 16; i++) part[(2 * i) * 256] = votes[i][0], part[(2 * i + 1) * 256] = votes[i][1];
        }
        begun = u + 1;
      }
    }
  }
  if (CLUSTER > 1) cluster_sync(); /* no block leaves while another may still signal it */
#else
  (void)map_a, (void)map_b, (void)g;
#endif
}

/* Adds up the parts of the tiles that several clusters shared; one block a tile, a thread where the consumer's was. */
template <int BN, int CM, int CN>
__global__ void __launch_bounds__(256) join(const args g) {
#if ARB_HAVE_WGMMA
  arb_previous_done();
  constexpr int CLUSTER = CM * CN;
  const int32_t tile = (int32_t)blockIdx.x / CLUSTER, rank = (int32_t)blockIdx.x % CLUSTER, id = (int32_t)threadIdx.x;
  const int32_t begin = tile * g.v.grains, end = begin + g.v.grains;
  int32_t cluster = arb_share_of(g.units, begin, g.clusters);
  if (arb_share(g.units, cluster + 1, g.clusters) >= end) return; /* that cluster had the whole tile */
  uint32_t votes[BN / 16][2] = {};
  for (; cluster < g.clusters && arb_share(g.units, cluster, g.clusters) < end; cluster++) {
    const int which = arb_share(g.units, cluster, g.clusters) / g.v.grains != tile;
    const uint32_t *part = g.parts + (int64_t)(2 * (cluster * CLUSTER + rank) + which) * (BN * 32) + id;
#pragma unroll
    for (int i = 0; i < BN / 16; i++) {
      votes[i][0] = __vadd4(votes[i][0], part[(2 * i) * 256]);
      votes[i][1] = __vadd4(votes[i][1], part[(2 * i + 1) * 256]);
    }
  }
  add_tile<BN>(g.v, (tile / g.col_tiles * CM + rank / CN) * BM + row_in_tile(id), (tile % g.col_tiles * CN + rank % CN) * BN,
               id, votes);
#else
  (void)g;
#endif
}

}  // namespace arb_wgmma_dw

#endif
