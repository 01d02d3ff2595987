/* op      dW votes on Hopper: D[n][k] = sum over a grain's rows of tq[row][n] q[row][k], cast as votes in the epilogue
 * shapes  tiles of 128 (n) x BN (k), one unit of work = one tile of one grain; any rows, n, k
 * layout  both operands lie with the depth (rows) outermost, wgmma wants it innermost. Chunks of 128 rows arrive swizzled;
 *         consumers turn A into register fragments with transposing ldmatrix; one warpgroup turns B into a second ring of
 *         swizzled tiles (ldmatrix.trans, byte permute, stmatrix). Within 16 rows the depth is permuted alike on both sides,
 *         which a sum does not see: fragment byte 4 t + {0,1,2,3} is row {2t, 2t+1, 8+2t, 9+2t}. Columns of B are permuted
 *         within 16 so that a thread ends with 4 neighbouring ones; its two accumulator rows are neighbours too.
 * work    2 rows n k operations; warpgroups: producer, one or two transposers, two consumers of 64 x BN
 * bytes   tq once per column tile, q once per row tile (a cluster of two column tiles shares tq), votes read and written
 *         once a block and tile
 * determinism  int32 sums, votes are integers: added in registers over a block's grains, then over blocks (join)
 * source  own; PTX ISA, "Register fragments and shared memory matrix layouts" */
#ifndef ARB_KERNELS_CUDA_GEMM_WGMMA_DW_CUH
#define ARB_KERNELS_CUDA_GEMM_WGMMA_DW_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace arb_wgmma_dw {

constexpr int BM = 128, BK = 128;
/* Narrow tiles leave registers for a second transposing warpgroup. */
__host__ __device__ constexpr int transposers(int bn) { return bn == 128 ? 2 : 1; }
__host__ __device__ constexpr int threads(int bn) { return 128 * (3 + transposers(bn)); }

struct args {
  int32_t row_tiles, col_tiles; /* of n and k; col_tiles counts tiles of a whole cluster */
  int32_t units;                /* row_tiles * col_tiles * grains */
  int32_t blocks;               /* clusters */
  uint32_t *parts;              /* [blocks in the grid][2][BN / 16][2][256] votes of tiles that several blocks share */
  arb_vote_args v;
};

template <int BN, int SA, int SB, int ST>
constexpr int shared_bytes() {
  return SA * BM * BK + (SB + ST) * BN * BK + 16 * (SA + SB + ST) + 1024;
}

#if ARB_HAVE_WGMMA
using namespace arb_ptx;

/* A position in a ring of stages and the parity of its current round. */
template <int STAGES>
struct ring {
  uint32_t stage, phase;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

/* votes[0 .. count) += the word's bytes. */
__device__ __forceinline__ void add_votes(int8_t *votes, uint32_t word, int count, bool whole) {
  if (whole) {
    uint32_t *p = reinterpret_cast<uint32_t *>(votes);
    *p = __vadd4(*p, word);
    return;
  }
  for (int i = 0; i < count && i < 4; i++) votes[i] = (int8_t)(votes[i] + (int8_t)(word >> (8 * i)));
}

/* Where consumer thread `id` (0 .. 255) has its votes: two neighbouring rows, four columns in each 16. */
__device__ __forceinline__ int32_t row_in_tile(int id) { return id / 128 * 64 + (id / 32 % 4) * 16 + 2 * (id % 32 / 4); }

template <int BN>
__device__ __forceinline__ void add_tile(const arb_vote_args &v, int32_t row, int32_t col0, int id,
                                         const uint32_t (&votes)[BN / 16][2]) {
  const int32_t n = (int32_t)v.n, k = (int32_t)v.k;
  const bool whole = (k & 3) == 0 && ((uintptr_t)v.votes & 3) == 0;
#pragma unroll
  for (int h = 0; h < 2; h++)
#pragma unroll
    for (int i = 0; i < BN / 16; i++) {
      const int32_t col = col0 + 16 * i + 4 * (id % 4);
      if (row + h < n && col < k) add_votes(v.votes + (int64_t)(row + h) * k + col, votes[i][h], k - col, whole);
    }
}
#endif

/* First unit of a block's share. */
__host__ __device__ __forceinline__ int32_t share(int32_t units, int32_t block, int32_t blocks) {
  return (int32_t)((int64_t)units * block / blocks);
}

template <int BN, int SA, int SB, int ST, int CLUSTER>
__global__ void
#if ARB_HAVE_WGMMA || !defined(__CUDA_ARCH__)
__launch_bounds__(threads(BN), 1)
#else
__launch_bounds__(32)
#endif
    kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const args g) {
#if ARB_HAVE_WGMMA
  extern __shared__ uint8_t raw[];
  constexpr int TURNERS = transposers(BN);
  const uint32_t base = (shared_address(raw) + 1023u) & ~1023u;
  constexpr uint32_t A_BYTES = BM * BK, B_BYTES = BN * BK, SLAB = 128 * BK;
  const uint32_t ring_a = base, ring_b = ring_a + SA * A_BYTES, ring_t = ring_b + SB * B_BYTES;
  const uint32_t full_a = ring_t + ST * B_BYTES, empty_a = full_a + 8 * SA, full_b = empty_a + 8 * SA,
                 empty_b = full_b + 8 * SB;
  const uint32_t full_t = empty_b + 8 * SB, empty_t = full_t + 8 * ST;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, role = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);
  const uint32_t rank = CLUSTER > 1 ? cluster_rank() : 0;
  if (threadIdx.x == 0) {
    prefetch(&map_a);
    prefetch(&map_b);
    for (int s = 0; s < SA; s++) barrier_init(full_a + 8 * s, 1), barrier_init(empty_a + 8 * s, 8 * CLUSTER);
    for (int s = 0; s < SB; s++) barrier_init(full_b + 8 * s, 1), barrier_init(empty_b + 8 * s, 4);
    for (int s = 0; s < ST; s++) barrier_init(full_t + 8 * s, 4), barrier_init(empty_t + 8 * s, 8);
    barriers_visible();
  }
  if (CLUSTER > 1)
    cluster_sync();
  else
    __syncthreads();
  const int32_t block = (int32_t)blockIdx.x / CLUSTER;
  const int32_t first = share(g.units, block, g.blocks), last = share(g.units, block + 1, g.blocks);
  launch_next();
  const int32_t chunks = (int32_t)((g.v.rows_per_grain + BK - 1) / BK);
  if (role == 0) {
    registers_shrink<32>();
    if (threadIdx.x == 0) {
      ring<SA> a = {0, 1};
      ring<SB> b = {0, 1};
      for (int32_t u = first; u < last; u++) {
        const int32_t grain = u % g.v.grains, tile = u / g.v.grains;
        const int32_t row = tile / g.col_tiles * BM, col = (tile % g.col_tiles * CLUSTER + (int32_t)rank) * BN;
        for (int32_t c = 0; c < chunks; c++) {
          const uint32_t to_a = ring_a + a.stage * A_BYTES, bar_a = full_a + 8 * a.stage;
          barrier_wait(empty_a + 8 * a.stage, a.phase);
          barrier_expect(bar_a, A_BYTES);
          if (CLUSTER > 1) /* rows of the chunk are shared out */
            load_3d_multicast(to_a + rank * (A_BYTES / CLUSTER), &map_a, bar_a, row, c * BK + (int32_t)rank * (BK / CLUSTER),
                              grain, (uint16_t)((1 << CLUSTER) - 1));
          else
            load_3d(to_a, &map_a, bar_a, row, c * BK, grain);
          a.next();
          const uint32_t to_b = ring_b + b.stage * B_BYTES, bar_b = full_b + 8 * b.stage;
          barrier_wait(empty_b + 8 * b.stage, b.phase);
          barrier_expect(bar_b, B_BYTES);
#pragma unroll
          for (int i = 0; i < BN / 128; i++) load_3d(to_b + i * SLAB, &map_b, bar_b, col + 128 * i, c * BK, grain);
          b.next();
        }
      }
    }
  } else if (role <= TURNERS) {
    if (TURNERS == 1)
      registers_shrink<64>();
    else
      registers_shrink<56>();
    ring<SB> b = {0, 0};
    ring<ST> t = {0, 1};
    if (role == 2) b.next(), t.next(); /* two of them take every other chunk */
    /* This warp turns rows 32 w .. 32 w + 31 of the chunk: from[c] is the address of column group c, 16 bytes of one row. */
    const uint32_t from = (uint32_t)((32 * (warp % 4) + lane) * 128 + ((lane & 7) << 4));
    const uint32_t piece = (uint32_t)(2 * (warp % 4) + (lane >> 4));
    const uint32_t to = (uint32_t)((8 * ((lane >> 3) & 1) + (lane & 7)) * 128) + ((piece ^ (lane & 7)) << 4);
    const int64_t all = (int64_t)(last - first) * chunks;
    for (int64_t i = role - 1; i < all; i += TURNERS) {
      barrier_wait(full_b + 8 * b.stage, b.phase);
      barrier_wait(empty_t + 8 * t.stage, t.phase);
      const uint32_t source = ring_b + b.stage * B_BYTES + from, target = ring_t + t.stage * B_BYTES + to;
#pragma unroll
      for (int half = 0; half < BN / 128; half++) { /* eight loads in flight before the first store */
        uint32_t r[8][4];
#pragma unroll
        for (int c = 0; c < 8; c++) load_matrices_transposed(r[c], (source + half * SLAB) ^ (c << 4));
#pragma unroll
        for (int c = 0; c < 8; c++) {
          uint32_t x[4];
          x[0] = __byte_perm(r[c][0], r[c][1], 0x6420);
          x[1] = __byte_perm(r[c][0], r[c][1], 0x7531);
          x[2] = __byte_perm(r[c][2], r[c][3], 0x6420);
          x[3] = __byte_perm(r[c][2], r[c][3], 0x7531);
          store_matrices(target + (half * 8 + c) * 16 * 128, x);
        }
      }
      fence_async();
      __syncwarp();
      if (lane == 0) {
        barrier_arrive(empty_b + 8 * b.stage);
        barrier_arrive(full_t + 8 * t.stage);
      }
      for (int j = 0; j < TURNERS; j++) b.next(), t.next();
    }
  } else {
    if (TURNERS == 1)
      registers_grow<208>();
    else
      registers_grow<160>();
    const int wg = role - 1 - TURNERS, t4 = lane % 4;
    ring<SA> a = {0, 0};
    ring<ST> t = {0, 0};
    const uint32_t from = (uint32_t)(lane * 128) + (uint32_t)(((wg * 4 + warp % 4) ^ (lane & 7)) << 4);
    int32_t acc[BN / 128][64]; /* a 256-wide instruction would not fit the registers a thread starts with */
    uint32_t fragment[2][4][4] = {};
    uint32_t votes[BN / 16][2];
    uint32_t previous = 0, loaded = 0;
    auto load = [&](uint32_t(&f)[4][4]) {
      loaded = a.stage;
      barrier_wait(full_a + 8 * a.stage, a.phase);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        uint32_t r[4];
        load_matrices_transposed(r, ring_a + a.stage * A_BYTES + from + i * 32 * 128);
        f[i][0] = __byte_perm(r[0], r[1], 0x6420);
        f[i][1] = __byte_perm(r[0], r[1], 0x7531);
        f[i][2] = __byte_perm(r[2], r[3], 0x6420);
        f[i][3] = __byte_perm(r[2], r[3], 0x7531);
      }
      a.next();
    };
    auto multiply = [&](uint32_t(&f)[4][4], uint32_t(&other)[4][4], bool add) {
      barrier_wait(full_t + 8 * t.stage, t.phase);
      const uint64_t b = descriptor(ring_t + t.stage * B_BYTES);
      mma_fence();
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < BN / 128; j++) mma_rs(acc[j], f[i], b + 2 * i + j * (SLAB / 16), add || i > 0);
      mma_commit();
      mma_wait<1>(); /* so the other fragment's products are done */
      registers_held(other);
      /* Issued, so the fragments had arrived in registers; given back any sooner, their stage could be overwritten first. */
      if (lane < CLUSTER) {
        if (CLUSTER > 1)
          barrier_arrive_at(empty_a + 8 * loaded, lane);
        else
          barrier_arrive(empty_a + 8 * loaded);
      }
      if (add && lane == 0) barrier_arrive(empty_t + 8 * previous);
      previous = t.stage;
      t.next();
    };
    const arb_philox_key key = arb_philox_key_of(g.v.step->seed, ARB_DRAW_VOTE);
    const uint32_t step = g.v.step->step;
    const int32_t n_rows = (int32_t)g.v.n;
    const int64_t blocks_per_row = arb_pad8(g.v.k) / 8;
    const int id = (int)threadIdx.x - 128 * (1 + TURNERS);
    int32_t begun = first; /* first unit whose votes are in registers */
    for (int32_t u = first; u < last; u++) {
      const int32_t grain = u % g.v.grains, tile = u / g.v.grains;
      int32_t c = 0;
      for (; c + 1 < chunks; c += 2) {
        load(fragment[0]);
        multiply(fragment[0], fragment[1], c > 0);
        load(fragment[1]);
        multiply(fragment[1], fragment[0], true);
      }
      if (c < chunks) {
        load(fragment[0]);
        multiply(fragment[0], fragment[1], c > 0);
      }
      mma_wait<0>();
#pragma unroll
      for (int j = 0; j < BN / 128; j++) registers_held(acc[j]);
      registers_held(fragment[0]);
      registers_held(fragment[1]);
      if (lane == 0) barrier_arrive(empty_t + 8 * previous);
      const int32_t row = tile / g.col_tiles * BM + row_in_tile(id);
      const int32_t col0 = (tile % g.col_tiles * CLUSTER + (int32_t)rank) * BN;
      const float s0 = row < n_rows ? arb_row_vote_scale(g.v, grain, row) : 0.0f;
      const float s1 = row + 1 < n_rows ? arb_row_vote_scale(g.v, grain, row + 1) : 0.0f;
      const uint32_t number = (uint32_t)(g.v.first + grain * g.v.stride);
      const bool fresh = u == begun, odd = t4 & 1;
      /* even threads draw for the first row, odd ones for the second, then they swap the halves of their blocks */
      uint64_t draw_block = (uint64_t)((row + (odd ? 1 : 0)) * blocks_per_row) + (uint64_t)(col0 / 8 + t4 / 2);
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
          const int32_t *d = acc[i / 8] + 8 * (i % 8) + 2 * h;
          const int v0 = arb_vote(d[0], s, g.v.vmax, d0 & 0xffffu), v1 = arb_vote(d[4], s, g.v.vmax, d0 >> 16);
          const int v2 = arb_vote(d[1], s, g.v.vmax, d1 & 0xffffu), v3 = arb_vote(d[5], s, g.v.vmax, d1 >> 16);
          const uint32_t word = __byte_perm(__byte_perm((uint32_t)v0, (uint32_t)v1, 0x0040),
                                            __byte_perm((uint32_t)v2, (uint32_t)v3, 0x0040), 0x5410);
          votes[i][h] = fresh ? word : __vadd4(votes[i][h], word);
        }
      }
      if (u + 1 == last || grain + 1 == g.v.grains) {
        if (u + 1 - begun == g.v.grains)
          add_tile<BN>(g.v, row, col0, id, votes);
        else {
          uint32_t *part = g.parts + (int64_t)(2 * (int)blockIdx.x + (begun != first)) * (BN * 32) + id;
#pragma unroll
          for (int i = 0; i < BN / 16; i++) part[(2 * i) * 256] = votes[i][0], part[(2 * i + 1) * 256] = votes[i][1];
        }
        begun = u + 1;
      }
    }
  }
  if (CLUSTER > 1) cluster_sync();
#else
  (void)map_a, (void)map_b, (void)g;
#endif
}

/* Adds up the parts of the tiles that several blocks shared; one block a tile, a thread where the consumer's was. */
template <int BN, int CLUSTER>
__global__ void __launch_bounds__(256) join(const args g) {
#if ARB_HAVE_WGMMA
  wait_previous();
  const int32_t tile = (int32_t)blockIdx.x / CLUSTER, rank = (int32_t)blockIdx.x % CLUSTER, id = (int32_t)threadIdx.x;
  const int32_t begin = tile * g.v.grains, end = begin + g.v.grains;
  int32_t block = (int32_t)((int64_t)begin * g.blocks / g.units);
  while (share(g.units, block + 1, g.blocks) <= begin) block++;
  if (share(g.units, block + 1, g.blocks) >= end) return; /* that block had the whole tile */
  uint32_t votes[BN / 16][2] = {};
  for (; block < g.blocks && share(g.units, block, g.blocks) < end; block++) {
    const int which = share(g.units, block, g.blocks) / g.v.grains != tile;
    const uint32_t *part = g.parts + (int64_t)(2 * (block * CLUSTER + rank) + which) * (BN * 32) + id;
#pragma unroll
    for (int i = 0; i < BN / 16; i++) {
      votes[i][0] = __vadd4(votes[i][0], part[(2 * i) * 256]);
      votes[i][1] = __vadd4(votes[i][1], part[(2 * i + 1) * 256]);
    }
  }
  add_tile<BN>(g.v, tile / g.col_tiles * BM + row_in_tile(id), (tile % g.col_tiles * CLUSTER + rank) * BN, id, votes);
#else
  (void)g;
#endif
}

}  // namespace arb_wgmma_dw

#endif
