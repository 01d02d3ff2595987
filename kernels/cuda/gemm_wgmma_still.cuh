/* op      forward and dx on Hopper at small depth: B stays in shared memory while A streams past
 * shapes  depth <= 512; column tiles of 256 (the last one of 128 where that is enough), rows in units of 64
 * layout  as gemm_wgmma.cuh; B up to 128 KB, A through a ring of 64 x 128 byte stages
 * work    2 m cols depth operations. Two consumer warpgroups take turns: each multiplies a whole unit, 64 x 256 x depth, while
 *         the other one stores; blocks get equal shares of (column tile, rows) in that order and change B at most a few times
 * bytes   B once a block, A once per column tile (from L2), the output once
 * determinism  int32 sums, one fixed float expression per output
 * source  own; the turn-taking is CUTLASS's "ping-pong" schedule */
#ifndef ARB_KERNELS_CUDA_GEMM_WGMMA_STILL_CUH
#define ARB_KERNELS_CUDA_GEMM_WGMMA_STILL_CUH

#include "kernels/cuda/gemm_wgmma.cuh"

namespace arb_wgmma_still {

constexpr int ROWS = 64, BN = 256, BK = 128, CHUNKS = 4, STAGES = 11, THREADS = 384;
constexpr int SHARED = CHUNKS * BN * BK + STAGES * ROWS * BK + 16 * BN + 8 * (2 * STAGES + CHUNKS + 1) + 1024;

/* Work is counted in 64 x 128 pieces. g.m_tiles: units of 64 rows; g.col_tiles: column tiles. */
__host__ __device__ __forceinline__ int32_t pieces_of_tile(const arb_wgmma::args &g, int32_t tile) {
  return g.cols - tile * BN > BN / 2 ? 2 : 1;
}

#if ARB_HAVE_WGMMA
using namespace arb_ptx;

/* Units [low, high) of a column tile that fall to a block with pieces [first, last). */
struct span {
  int32_t low, high;
};
__device__ __forceinline__ span span_of(const arb_wgmma::args &g, int32_t tile, int32_t first, int32_t last) {
  const int32_t cost = pieces_of_tile(g, tile), begin = 2 * tile * g.m_tiles;
  const int32_t a = first > begin ? (first - begin + cost - 1) / cost : 0;
  const int32_t b = last > begin ? (last - begin + cost - 1) / cost : 0;
  span s;
  s.low = a < g.m_tiles ? a : g.m_tiles;
  s.high = b < g.m_tiles ? b : g.m_tiles;
  return s;
}
#endif

static __global__ void
#if ARB_HAVE_WGMMA || !defined(__CUDA_ARCH__)
__launch_bounds__(THREADS, 1)
#else
__launch_bounds__(32)
#endif
    kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const arb_wgmma::args g) {
#if ARB_HAVE_WGMMA
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + 1023u) & ~1023u;
  constexpr uint32_t A_BYTES = ROWS * BK, B_BYTES = BN * BK;
  const uint32_t ring = base + CHUNKS * B_BYTES, gains_at = ring + STAGES * A_BYTES, full = gains_at + 16 * BN,
                 empty = full + 8 * STAGES;
  const uint32_t b_full = empty + 8 * STAGES, b_empty = b_full + 8 * CHUNKS;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, role = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    prefetch(&map_a);
    prefetch(&map_b);
    for (int s = 0; s < STAGES; s++) barrier_init(full + 8 * s, 1), barrier_init(empty + 8 * s, 4);
    for (int c = 0; c < CHUNKS; c++) barrier_init(b_full + 8 * c, 1);
    barrier_init(b_empty, 8);
    barriers_visible();
  }
  __syncthreads();
  const int64_t pieces = (int64_t)g.m_tiles * (2 * (g.col_tiles - 1) + pieces_of_tile(g, g.col_tiles - 1));
  const int32_t first = (int32_t)(pieces * blockIdx.x / gridDim.x), last = (int32_t)(pieces * (blockIdx.x + 1) / gridDim.x);
  const int32_t tile0 = first / (2 * g.m_tiles), chunks = (g.depth + BK - 1) / BK;
  arb_next_may_start();
  arb_previous_done();
  if (role == 2) {
    registers_shrink<40>();
    if (threadIdx.x == 256) {
      uint32_t stage = 0, phase = 1, epoch = 0;
      for (int32_t tile = tile0; tile < g.col_tiles; tile++) {
        const span s = span_of(g, tile, first, last);
        if (s.low >= s.high) continue;
        barrier_wait(b_empty, (epoch & 1) ^ 1);
        epoch++;
        for (int32_t u = s.low; u < s.high; u++)
          for (int32_t c = 0; c < chunks; c++) {
            if (u == s.low) {
              barrier_expect(b_full + 8 * c, B_BYTES);
              load_2d(base + c * B_BYTES, &map_b, b_full + 8 * c, c * BK, tile * BN);
            }
            barrier_wait(empty + 8 * stage, phase);
            barrier_expect(full + 8 * stage, A_BYTES);
            load_2d(ring + stage * A_BYTES, &map_a, full + 8 * stage, c * BK, u * ROWS);
            if (++stage == STAGES) {
              stage = 0;
              phase ^= 1;
            }
          }
      }
    }
  } else {
    registers_grow<232>();
    const int quad = lane / 4, t4 = lane % 4;
    int32_t total = 0, sequence = 0;
    for (int32_t tile = tile0; tile < g.col_tiles; tile++) {
      const span s = span_of(g, tile, first, last);
      total += s.high - s.low;
    }
    uint32_t stage = 0, phase = 0, epoch = 0, turn = 0;
    int32_t acc[BN / 2];
    arb_wgmma::ahead<BN> next;
    float *const gains = reinterpret_cast<float *>(raw + (gains_at - shared_address(raw))) + 2 * BN * role;
    if (role == 1 && total > 0) turn_give(1);
    for (int32_t tile = tile0; tile < g.col_tiles; tile++) {
      const span s = span_of(g, tile, first, last);
      if (s.low >= s.high) continue;
      for (int32_t c = 0; c < chunks; c++) barrier_wait(b_full + 8 * c, epoch & 1);
      const bool wide = pieces_of_tile(g, tile) == 2;
      for (int32_t u = s.low; u < s.high; u++, sequence++) {
        if ((sequence & 1) != role) { /* the other warpgroup's */
          stage += (uint32_t)chunks;
          if (stage >= STAGES) {
            stage -= STAGES;
            phase ^= 1;
          }
          continue;
        }
        const int32_t row = u * ROWS + (warp % 4) * 16 + quad;
        next.get(g, row, tile * BN, (int)threadIdx.x % 128);
        turn_wait(1 + role);
        uint32_t previous = 0;
        for (int32_t c = 0; c < chunks; c++) {
          barrier_wait(full + 8 * stage, phase);
          const uint64_t a = descriptor(ring + stage * A_BYTES), b = descriptor(base + c * B_BYTES);
          mma_fence();
          if (wide) {
#pragma unroll
            for (int k = 0; k < BK / 32; k++) mma_ss(acc, a + 2 * k, b + 2 * k, c > 0 || k > 0);
          } else {
#pragma unroll
            for (int k = 0; k < BK / 32; k++)
              mma_ss(reinterpret_cast<int32_t(&)[64]>(acc), a + 2 * k, b + 2 * k, c > 0 || k > 0);
          }
          mma_commit();
          mma_wait<1>();
          if (c > 0 && lane == 0) barrier_arrive(empty + 8 * previous);
          previous = stage;
          if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
          }
        }
        if (sequence + 1 < total) turn_give(2 - role);
        mma_wait<0>();
        registers_held(acc);
        if (lane == 0) barrier_arrive(empty + 8 * previous);
        float *const mine = gains + BN * (turn++ & 1);
        next.put(mine, (int)threadIdx.x % 128, 3 + role);
        if (wide)
          arb_wgmma::store_tile<BN>(g, row, tile * BN, t4, acc, next.s0, next.s1, mine);
        else
          arb_wgmma::store_tile<BN / 2>(g, row, tile * BN, t4, acc, next.s0, next.s1, mine);
      }
      epoch++;
      if (lane == 0) barrier_arrive(b_empty);
    }
  }
#else
  (void)map_a, (void)map_b, (void)g;
#endif
}

}  // namespace arb_wgmma_still

#endif
