/* op      forward and dx on Hopper at small depth: B stays in shared memory while A streams past
 * shapes  depth <= 512; column tiles of 256 (the last one of 128 where that is enough), rows in units of 64; k a multiple of
 *         16, columns a multiple of 8
 * layout  B up to 128 KB in chunks of 128 deep, A through a ring of 64 x 128 byte stages, 4 KB of output a warp on its way out;
 *         all in rows of 128 bytes, swizzled. State bytes come as they lie and are made trits in place; for dx they are turned
 *         on the way, since wgmma wants the depth innermost
 * work    2 m cols depth operations. Two consumer warpgroups take turns: each multiplies a whole unit, 64 x 256 x depth, while
 *         the other one stores; blocks get equal shares of (column tile, rows) in that order and change B at most a few times
 * bytes   state bytes once a block and column tile, A once per column tile (both from L2), the output once, in whole lines
 * determinism  int32 sums, one fixed float expression per output
 * source  own; the turn-taking is CUTLASS's "ping-pong" schedule */
#ifndef ARB_KERNELS_CUDA_GEMM_WGMMA_STILL_CUH
#define ARB_KERNELS_CUDA_GEMM_WGMMA_STILL_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gemm_lines.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace arb_wgmma_still {

constexpr int ROWS = 64, BN = 256, BK = 128, CHUNKS = 4, STAGES = 8, THREADS = 384;
constexpr int A_BYTES = ROWS * BK, B_BYTES = BN * BK, OUT_BYTES = 8 * arb_lines::WARP_BYTES;
constexpr int SHARED = CHUNKS * B_BYTES + OUT_BYTES + STAGES * A_BYTES + 4 * BN + 8 * (2 * STAGES + CHUNKS + 1) + 1024;

struct args {
  int32_t m, cols, depth;
  int32_t m_tiles, col_tiles; /* units of 64 rows, column tiles */
  const float *scale;         /* [m] */
  const int8_t *e;            /* [cols], forward alone */
};

/* What a unit costs: one of 128 columns takes as much of A as one of 256, which keeps it from being twice as fast. */
constexpr int WIDE = 4, NARROW = 3;
__host__ __device__ __forceinline__ int32_t cost_of(const args &g, int32_t tile) {
  return g.cols - tile * BN > BN / 2 ? WIDE : NARROW;
}

#if ARB_HAVE_WGMMA
using namespace arb_ptx;

/* Units [low, high) of a column tile that fall to a block whose share of all costs is [first, last). */
struct span {
  int32_t low, high;
};
__device__ __forceinline__ span span_of(const args &g, int32_t tile, int32_t first, int32_t last) {
  const int32_t cost = cost_of(g, tile), begin = WIDE * tile * g.m_tiles;
  const int32_t a = first > begin ? (first - begin + cost - 1) / cost : 0;
  const int32_t b = last > begin ? (last - begin + cost - 1) / cost : 0;
  span s;
  s.low = a < g.m_tiles ? a : g.m_tiles;
  s.high = b < g.m_tiles ? b : g.m_tiles;
  return s;
}

/* Where a block's share begins: where a column tile does if that is near, so that no block changes B for a little of it. */
__device__ __forceinline__ int32_t share(const args &g, uint32_t block) {
  const int64_t all = (int64_t)g.m_tiles * (WIDE * (g.col_tiles - 1) + cost_of(g, g.col_tiles - 1));
  if (block == gridDim.x) return (int32_t)all;
  const int32_t at = (int32_t)(all * block / gridDim.x), near = (int32_t)(all / gridDim.x / 8), tile = WIDE * g.m_tiles;
  const int32_t over = at % tile;
  return over <= near ? at - over : tile - over <= near ? at - over + tile : at;
}

/* A chunk of B, state bytes -> trits in place, by 256 threads. */
__device__ __forceinline__ void make_trits(uint32_t chunk, int id) {
#pragma unroll
  for (int i = 0; i < B_BYTES / 4096; i++) {
    uint32_t w[4];
    load_shared(w, chunk + 4096 * i + 16 * id);
#pragma unroll
    for (int j = 0; j < 4; j++) w[j] = arb_trits4(w[j]);
    store_shared(chunk + 4096 * i + 16 * id, w);
  }
}

/* The same for dx, [128 n][256 k] -> [256 k][128 n]; a warpgroup has 128 columns k, which lie in the same 16 KB before and
 * after. Matrices of 8 rows n x 16 bytes come transposed as pairs of bytes: a thread gets (n, k) (n, k + 1) (n + 1, k)
 * (n + 1, k + 1) with n = 2 t of its matrix. Two matrices with the rows of 16 n dealt out such that both have all remainders of
 * 8, hence all banks, and that a thread's rows are four neighbours, whose trits are then a word for k and one for k + 1. */
__device__ __forceinline__ void make_trits_turned(uint32_t half, int id, int barrier) {
  const int warp = id / 32, lane = id % 32, r = lane % 8, t = r / 2, swapped = t >= 2;
  const int n = 4 * t + (r & 1) + ((lane / 8 & 1) ^ swapped) * 2; /* this lane's row for the loads, of 16 */
  const uint32_t order = lane % 4 < 2 ? 0x7531 : 0x3175;
  uint32_t w[8][4];
#pragma unroll
  for (int i = 0; i < 8; i++) { /* 16 rows n, then chunks of 16 k, two a load */
    const int row = 16 * i + n, piece = 2 * warp + lane / 16;
    load_matrices_transposed(w[i], half + 128 * row + 16 * (piece ^ (row & 7)));
  }
  asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory");
#pragma unroll
  for (int i = 0; i < 8; i++) {
    uint32_t out[4];
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const uint32_t a = w[i][2 * j], b = w[i][2 * j + 1];
      out[2 * j] = __byte_perm(arb_trit_pair(arb_even_bytes(a)), arb_trit_pair(arb_even_bytes(b)), order);
      out[2 * j + 1] = __byte_perm(arb_trit_pair(arb_odd_bytes(a)), arb_trit_pair(arb_odd_bytes(b)), order);
    }
    const int row = 16 * (2 * warp + lane / 16) + 2 * r + (lane / 8 & 1); /* this lane's row for the store, a k */
    store_matrices(half + 128 * row + 16 * (i ^ (row & 7)), out);
  }
}

/* A unit's products. The groups end where the products are issued, without a branch between: else the compiler ends them with
 * an empty product of another type, for which the tensor cores run dry. */
template <int WIDTH, typename F>
__device__ __forceinline__ void multiply(int32_t (&acc)[WIDTH / 2], uint32_t ring, uint32_t b0, uint32_t full, uint32_t empty,
                                         int32_t chunks, uint32_t &stage, uint32_t &phase, int lane, F issued) {
  uint32_t previous = 0;
  for (int32_t c = 0; c < chunks; c++) {
    barrier_wait(full + 8 * stage, phase);
    const uint64_t a = descriptor(ring + stage * A_BYTES), b = descriptor(b0 + c * B_BYTES);
    mma_fence();
#pragma unroll
    for (int k = 0; k < BK / 32; k++) mma_ss(acc, a + 2 * k, b + 2 * k, c > 0 || k > 0);
    mma_commit();
    mma_wait<1>();
    if (c > 0 && lane == 0) barrier_arrive(empty + 8 * previous);
    previous = stage;
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
  issued();
  mma_wait<0>();
  registers_held(acc);
  if (lane == 0) barrier_arrive(empty + 8 * previous);
}
#endif

template <bool FORWARD>
__global__ void
#if ARB_HAVE_WGMMA || !defined(__CUDA_ARCH__)
__launch_bounds__(THREADS, 1)
#else
__launch_bounds__(32)
#endif
    kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
           const __grid_constant__ CUtensorMap map_out, const args g) {
#if ARB_HAVE_WGMMA
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + 1023u) & ~1023u;
  const uint32_t out = base + CHUNKS * B_BYTES, ring = out + OUT_BYTES, gains_at = ring + STAGES * A_BYTES;
  const uint32_t full = gains_at + 4 * BN, empty = full + 8 * STAGES, b_full = empty + 8 * STAGES,
                 b_empty = b_full + 8 * CHUNKS;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, role = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    prefetch(&map_a);
    prefetch(&map_b);
    prefetch(&map_out);
    for (int s = 0; s < STAGES; s++) barrier_init(full + 8 * s, 1), barrier_init(empty + 8 * s, 4);
    for (int c = 0; c < CHUNKS; c++) barrier_init(b_full + 8 * c, 1);
    barrier_init(b_empty, 8);
    barriers_visible();
  }
  __syncthreads();
  const int32_t first = share(g, blockIdx.x), last = share(g, blockIdx.x + 1);
  const int32_t tile0 = first / (WIDE * g.m_tiles), chunks = (g.depth + BK - 1) / BK;
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
        for (int32_t c = 0; c < chunks; c++) {
          const uint32_t to = base + c * B_BYTES, bar = b_full + 8 * c;
          barrier_expect(bar, B_BYTES);
          if (FORWARD) {
            load_2d(to, &map_b, bar, c * BK, tile * BN);
          } else {
            load_2d(to, &map_b, bar, tile * BN, c * BK);
            load_2d(to + B_BYTES / 2, &map_b, bar, tile * BN + BN / 2, c * BK);
          }
        }
        for (int32_t u = s.low; u < s.high; u++)
          for (int32_t c = 0; c < chunks; c++) {
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
    const int quad = lane / 4, id = (int)threadIdx.x;
    int32_t total = 0, sequence = 0;
    for (int32_t tile = tile0; tile < g.col_tiles; tile++) {
      const span s = span_of(g, tile, first, last);
      total += s.high - s.low;
    }
    uint32_t stage = 0, phase = 0, epoch = 0;
    int32_t acc[BN / 2];
    float *const gains = reinterpret_cast<float *>(raw + (gains_at - shared_address(raw)));
    if (role == 1 && total > 0) turn_give(1);
    for (int32_t tile = tile0; tile < g.col_tiles; tile++) {
      const span s = span_of(g, tile, first, last);
      if (s.low >= s.high) continue;
      if (FORWARD) {
        if (epoch > 0) consumers_sync(); /* all have done with the gains of the tile before */
        const int32_t col = tile * BN + arb_lines::gain_col(id);
        gains[id] = col < g.cols ? arb_pow2_eighths(g.e[col]) : 0.0f;
      }
      for (int32_t c = 0; c < chunks; c++) {
        barrier_wait(b_full + 8 * c, epoch & 1);
        if (FORWARD)
          make_trits(base + c * B_BYTES, id);
        else
          make_trits_turned(base + c * B_BYTES + role * (B_BYTES / 2), id % 128, 4 + role);
      }
      fence_async();
      consumers_sync();
      const bool wide = cost_of(g, tile) == WIDE;
      for (int32_t u = s.low; u < s.high; u++, sequence++) {
        if ((sequence & 1) != role) { /* the other warpgroup's */
          stage += (uint32_t)chunks;
          if (stage >= STAGES) {
            stage -= STAGES;
            phase ^= 1;
          }
          continue;
        }
        const int32_t row0 = u * ROWS + (warp % 4) * arb_lines::ROWS, row = row0 + quad;
        const float s0 = row < g.m ? g.scale[row] : 0.0f, s1 = row + 8 < g.m ? g.scale[row + 8] : 0.0f;
        turn_wait(1 + role);
        auto &narrow = reinterpret_cast<int32_t(&)[BN / 4]>(acc);
        auto issued = [&] {
          if (sequence + 1 < total) turn_give(2 - role);
        };
        if (wide)
          multiply<BN>(acc, ring, base, full, empty, chunks, stage, phase, lane, issued);
        else
          multiply<BN / 2>(narrow, ring, base, full, empty, chunks, stage, phase, lane, issued);
        const uint32_t mine = out + warp * arb_lines::WARP_BYTES;
        if (wide)
          arb_lines::store<BN, FORWARD>(&map_out, mine, gains_at + 16 * (lane % 4), row0, tile * BN, lane, acc, s0, s1);
        else
          arb_lines::store<BN / 2, FORWARD>(&map_out, mine, gains_at + 16 * (lane % 4), row0, tile * BN, lane, narrow, s0, s1);
      }
      epoch++;
      if (lane == 0) barrier_arrive(b_empty);
    }
    if (lane == 0) stores_done();
  }
#else
  (void)map_a, (void)map_b, (void)map_out, (void)g;
#endif
}

}  // namespace arb_wgmma_still

#endif
