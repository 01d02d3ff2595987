/* op      dW votes on Hopper: D[n][k] = sum over a grain's rows of tq[row][n] q[row][k], cast as votes in the epilogue
 * shapes  tiles of 128 (n) x BN (k), one unit of work = one tile of one grain; any rows, n, k
 * layout  both operands lie with the depth (rows) outermost, wgmma wants it innermost. Chunks of 128 rows arrive swizzled;
 *         consumers turn A into register fragments with transposing ldmatrix; one warpgroup turns B into a second ring of
 *         swizzled tiles (ldmatrix.trans, byte permute, stmatrix). Within 16 rows the depth is permuted alike on both sides,
 *         which a sum does not see: fragment byte 4 t + {0,1,2,3} is row {2t, 2t+1, 8+2t, 9+2t}. Columns of B are permuted
 *         within 16 so that a thread ends with 4 neighbouring ones; its two accumulator rows are neighbours too.
 * work    2 rows n k operations; 512 threads: producer, transposer, two consumer warpgroups of 64 x BN
 * bytes   tq once per column tile, q once per row tile (a cluster of two column tiles shares tq), votes read and written
 *         once a block and tile
 * determinism  int32 sums, votes are integers: added in registers over a block's grains, by compare-and-swap between blocks
 * source  own; PTX ISA, "Register fragments and shared memory matrix layouts" */
#ifndef ARB_KERNELS_CUDA_GEMM_WGMMA_DW_CUH
#define ARB_KERNELS_CUDA_GEMM_WGMMA_DW_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace arb_wgmma_dw {

constexpr int BM = 128, BK = 128, THREADS = 512;

struct args {
  int32_t row_tiles, col_tiles; /* of n and k; col_tiles counts tiles of a whole cluster */
  int32_t units;                /* row_tiles * col_tiles * grains */
  arb_vote_args v;
};

template <int BN, int SA, int SB, int ST> constexpr int shared_bytes() {
  return SA * BM * BK + (SB + ST) * BN * BK + 16 * (SA + SB + ST) + 1024;
}

#if ARB_HAVE_WGMMA
using namespace arb_ptx;

/* A position in a ring of stages and the parity of its current round. */
template <int STAGES> struct ring {
  uint32_t stage, phase;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

/* votes[0..3] += word's bytes; at most `count` of them. */
__device__ __forceinline__ void add_votes(int8_t *votes, uint32_t word, int count, bool whole, bool alone) {
  if (whole) {
    uint32_t *p = reinterpret_cast<uint32_t *>(votes);
    uint32_t seen = *reinterpret_cast<volatile uint32_t *>(p);
    if (alone) {
      *p = __vadd4(seen, word);
      return;
    }
    if (word == 0) return;
    for (;;) {
      const uint32_t was = atomicCAS(p, seen, __vadd4(seen, word));
      if (was == seen) return;
      seen = was;
    }
  }
  for (int i = 0; i < count; i++) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(votes + i);
    uint32_t *p = reinterpret_cast<uint32_t *>(at & ~(uintptr_t)3);
    const uint32_t add = ((word >> (8 * i)) & 0xffu) << (8 * (at & 3));
    uint32_t seen = *reinterpret_cast<volatile uint32_t *>(p);
    if (add == 0) continue;
    for (;;) {
      const uint32_t was = atomicCAS(p, seen, __vadd4(seen, add));
      if (was == seen) break;
      seen = was;
    }
  }
}
#endif

template <int BN, int SA, int SB, int ST, int CLUSTER>
__global__ void
#if ARB_HAVE_WGMMA || !defined(__CUDA_ARCH__)
__launch_bounds__(THREADS, 1)
#else
__launch_bounds__(32)
#endif
kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const args g) {
#if ARB_HAVE_WGMMA
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + 1023u) & ~1023u;
  constexpr uint32_t A_BYTES = BM * BK, B_BYTES = BN * BK, SLAB = 128 * BK;
  const uint32_t ring_a = base, ring_b = ring_a + SA * A_BYTES, ring_t = ring_b + SB * B_BYTES;
  const uint32_t full_a = ring_t + ST * B_BYTES, empty_a = full_a + 8 * SA, full_b = empty_a + 8 * SA, empty_b = full_b + 8 * SB;
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
  if (CLUSTER > 1) cluster_sync();
  else __syncthreads();
  const int32_t blocks = (int32_t)gridDim.x / CLUSTER, block = (int32_t)blockIdx.x / CLUSTER;
  const int32_t first = (int32_t)((int64_t)g.units * block / blocks), last = (int32_t)((int64_t)g.units * (block + 1) / blocks);
  const int32_t chunks = (int32_t)((g.v.rows_per_grain + BK - 1) / BK);
  if (role == 0) {
    registers_shrink<40>();
    if (threadIdx.x == 0) {
      ring<SA> a = {0, 1};
      ring<SB> b = {0, 1};
      for (int32_t u = first; u < last; u++) {
        const int32_t grain = u % g.v.grains, tile = u / g.v.grains;
        const int32_t row = tile / g.col_tiles * BM, col = (tile % g.col_tiles * CLUSTER + (int32_t)rank) * BN;
        for (int32_t c = 0; c < chunks; c++) {
          const uint32_t to_a = ring_a + a.stage * A_BYTES, bar_a = full_a + 8 * a.stage;
          if (CLUSTER > 1) barrier_wait_cluster(empty_a + 8 * a.stage, a.phase);
          else barrier_wait(empty_a + 8 * a.stage, a.phase);
          barrier_expect(bar_a, A_BYTES);
          if (CLUSTER > 1) /* rows of the chunk are shared out */
            load_3d_multicast(to_a + rank * (A_BYTES / CLUSTER), &map_a, bar_a, row, c * BK + (int32_t)rank * (BK / CLUSTER), grain,
                              (uint16_t)((1 << CLUSTER) - 1));
          else load_3d(to_a, &map_a, bar_a, row, c * BK, grain);
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
  } else if (role == 1) {
    registers_shrink<40>();
    ring<SB> b = {0, 0};
    ring<ST> t = {0, 1};
    /* This warp turns rows 32 w .. 32 w + 31 of the chunk: from[c] is the address of column group c, 16 bytes of one row. */
    const uint32_t from = (uint32_t)((32 * (warp % 4) + lane) * 128 + ((lane & 7) << 4));
    const uint32_t piece = (uint32_t)(2 * (warp % 4) + (lane >> 4));
    const uint32_t to = (uint32_t)((8 * ((lane >> 3) & 1) + (lane & 7)) * 128) + ((piece ^ (lane & 7)) << 4);
    for (int64_t i = (int64_t)(last - first) * chunks; i > 0; i--) {
      barrier_wait(full_b + 8 * b.stage, b.phase);
      barrier_wait(empty_t + 8 * t.stage, t.phase);
      const uint32_t source = ring_b + b.stage * B_BYTES + from, target = ring_t + t.stage * B_BYTES + to;
#pragma unroll 4
      for (int c = 0; c < BN / 16; c++) {
        uint32_t r[4], x[4];
        load_matrices_transposed(r, (source + (c / 8) * SLAB) ^ ((c % 8) << 4));
        x[0] = __byte_perm(r[0], r[1], 0x6420);
        x[1] = __byte_perm(r[0], r[1], 0x7531);
        x[2] = __byte_perm(r[2], r[3], 0x6420);
        x[3] = __byte_perm(r[2], r[3], 0x7531);
        store_matrices(target + c * 16 * 128, x);
      }
      fence_async();
      __syncwarp();
      if (lane == 0) {
        barrier_arrive(empty_b + 8 * b.stage);
        barrier_arrive(full_t + 8 * t.stage);
      }
      b.next();
      t.next();
    }
  } else {
    registers_grow<216>();
    const int wg = role - 2, quad = lane / 4, t4 = lane % 4;
    ring<SA> a = {0, 0};
    ring<ST> t = {0, 0};
    const uint32_t from = (uint32_t)(lane * 128) + (uint32_t)(((wg * 4 + warp % 4) ^ (lane & 7)) << 4);
    int32_t acc[BN / 2];
    uint32_t fragment[2][4][4];
    uint32_t votes[BN / 16][2];
    uint32_t previous = 0;
    auto load = [&](uint32_t(&f)[4][4]) {
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
      __syncwarp();
      if (lane < CLUSTER) {
        if (CLUSTER > 1) barrier_arrive_at(empty_a + 8 * a.stage, lane);
        else barrier_arrive(empty_a + 8 * a.stage);
      }
      a.next();
    };
    auto multiply = [&](uint32_t(&f)[4][4], bool add) {
      barrier_wait(full_t + 8 * t.stage, t.phase);
      const uint64_t b = descriptor(ring_t + t.stage * B_BYTES);
      mma_fence();
#pragma unroll
      for (int i = 0; i < 4; i++) mma_rs(acc, f[i], b + 2 * i, add || i > 0);
      mma_commit();
      mma_wait<1>(); /* so the other fragment's products are done */
      if (add && lane == 0) barrier_arrive(empty_t + 8 * previous);
      previous = t.stage;
      t.next();
    };
    const arb_philox_key key = arb_philox_key_of(g.v.step->seed, ARB_DRAW_VOTE);
    const uint32_t step = g.v.step->step;
    const int32_t n_rows = (int32_t)g.v.n, n_cols = (int32_t)g.v.k;
    const int64_t blocks_per_row = arb_pad8(g.v.k) / 8;
    const bool whole = (n_cols & 3) == 0 && ((uintptr_t)g.v.votes & 3) == 0;
    int32_t begun = first; /* first unit whose votes are in registers */
    for (int32_t u = first; u < last; u++) {
      const int32_t grain = u % g.v.grains, tile = u / g.v.grains;
      int32_t c = 0;
      for (; c + 1 < chunks; c += 2) {
        load(fragment[0]);
        multiply(fragment[0], c > 0);
        load(fragment[1]);
        multiply(fragment[1], true);
      }
      if (c < chunks) {
        load(fragment[0]);
        multiply(fragment[0], c > 0);
      }
      mma_wait<0>();
      if (lane == 0) barrier_arrive(empty_t + 8 * previous);
      const int32_t row = tile / g.col_tiles * BM + wg * 64 + (warp % 4) * 16 + 2 * quad;
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
          const int32_t *d = acc + 8 * i + 2 * h;
          const int v0 = arb_vote(d[0], s, g.v.vmax, d0 & 0xffffu), v1 = arb_vote(d[4], s, g.v.vmax, d0 >> 16);
          const int v2 = arb_vote(d[1], s, g.v.vmax, d1 & 0xffffu), v3 = arb_vote(d[5], s, g.v.vmax, d1 >> 16);
          const uint32_t word = __byte_perm(__byte_perm((uint32_t)v0, (uint32_t)v1, 0x0040),
                                            __byte_perm((uint32_t)v2, (uint32_t)v3, 0x0040), 0x5410);
          votes[i][h] = fresh ? word : __vadd4(votes[i][h], word);
        }
      }
      if (u + 1 == last || grain + 1 == g.v.grains) {
        const bool alone = u + 1 - begun == g.v.grains;
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
          for (int i = 0; i < BN / 16; i++) {
            const int32_t col = col0 + 16 * i + 4 * t4;
            if (row + h < n_rows && col < n_cols)
              add_votes(g.v.votes + (int64_t)(row + h) * n_cols + col, votes[i][h], n_cols - col < 4 ? n_cols - col : 4, whole, alone);
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

} // namespace arb_wgmma_dw

#endif
