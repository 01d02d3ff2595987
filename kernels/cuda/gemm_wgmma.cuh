/* op      forward and dx on Hopper: acc[m][cols] = A[m][depth] . B[cols][depth], A int8, B trits of the workspace, both
 *         K-major; out = bf16((acc * scale[m]) * gain[cols]), the gains of dx being 1, which changes no bit
 * shapes  tiles of 128 x BN; any m, cols, depth (bulk copies fill the tails with zeros, stores are masked)
 * layout  depth in chunks of 128 bytes, swizzled, STAGES deep; rows of B are stored permuted (gemm_prep.cuh,
 *         permuted_row32) so that a thread holds 8 neighbouring columns and a quad stores whole sectors without a shuffle
 * work    2 m cols depth operations; persistent blocks of one producer warp and two consumer warpgroups of 64 x BN each;
 *         a cluster of two blocks shares B by multicast
 * bytes   A once per group of column tiles, B from L2, the output once
 * determinism  int32 sums, one fixed float expression per output
 * source  PTX ISA, "Asynchronous warpgroup level matrix instructions" */
#ifndef ARB_KERNELS_CUDA_GEMM_WGMMA_CUH
#define ARB_KERNELS_CUDA_GEMM_WGMMA_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace arb_wgmma {

constexpr int BM = 128, BK = 128;
/* Two consumer warpgroups; then a warpgroup that gives up its registers, or one more warp where two blocks share them. */
constexpr int threads(int blocks) { return blocks == 1 ? 384 : 288; }

struct args {
  int32_t m, cols, depth;
  int32_t m_tiles, col_tiles, group; /* m_tiles in clusters; column tiles walked together */
  const float *scale;                /* [m] */
  const float *gain;                 /* [cols] */
  uint16_t *out;                     /* [m][cols] bf16 */
};

template <int BN, int STAGES>
constexpr int shared_bytes() {
  return STAGES * (BM + BN) * BK + 16 * BN + 16 * STAGES + 1024;
}

#if ARB_HAVE_WGMMA
using namespace arb_ptx;

struct place {
  int32_t m, col;
};
/* Tile t: column tiles in groups, so that what a wave of blocks reads stays in L2. */
__device__ __forceinline__ place place_of(const args &g, int32_t t) {
  const int32_t per_group = g.group * g.m_tiles;
  const int32_t which = t / per_group, rest = t - which * per_group;
  const int32_t left = g.col_tiles - which * g.group, width = left < g.group ? left : g.group;
  place p;
  p.m = rest / width;
  p.col = which * g.group + (rest - p.m * width);
  return p;
}

__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

__device__ __forceinline__ bool finite(float x) { return arb_fabsf(x) < arb_f32_of_bits(ARB_F32_INF_BITS); }

/* Any width, any scale: one element at a time, away from the straight path. */
template <int WIDTH, int N>
__device__ __forceinline__ void store_slowly(const args &g, int32_t row, int32_t col0, int t4, const int32_t (&acc)[N],
                                             float s0, float s1) {
#pragma unroll
  for (int j = 0; j < WIDTH / 2; j++) { /* j: 8-column block, row half, column of two */
    const int block = j / 4, h = j / 2 % 2, b = j % 2;
    const int32_t col = col0 + 8 * block / 32 * 32 + 8 * t4 + 2 * (block % 4) + b;
    if (row + 8 * h >= g.m || col >= g.cols) continue;
    const float y = (float)acc[j] * (h ? s1 : s0);
    g.out[(int64_t)(row + 8 * h) * g.cols + col] = arb_bf16_of_f32(y * g.gain[col]);
  }
}

/* What the epilogue of a tile needs, asked for before its products: the thread's two row scales and its share of the columns'
 * gains, which put() leaves in shared memory for the warpgroup. Two buffers by turns: whoever writes one has seen the barrier
 * that everybody reached after reading it. */
template <int BN>
struct ahead {
  float s0, s1, gain[BN / 128];
  __device__ __forceinline__ void get(const args &g, int32_t row, int32_t col0, int id) {
    s0 = row < g.m ? g.scale[row] : 0.0f;
    s1 = row + 8 < g.m ? g.scale[row + 8] : 0.0f;
#pragma unroll
    for (int i = 0; i < BN / 128; i++) gain[i] = col0 + 128 * i + id < g.cols ? g.gain[col0 + 128 * i + id] : 0.0f;
  }
  __device__ __forceinline__ void put(float *gains, int id, int barrier) const {
#pragma unroll
    for (int i = 0; i < BN / 128; i++) gains[128 * i + id] = gain[i];
    asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory");
  }
};

/* A warpgroup's 64 x WIDTH sums to memory. The thread's rows are `row` and row + 8; its columns in each 32 are neighbours
 * because rows of B were permuted. A finite row scale gives no NaN, so the hardware's rounding to bf16 is the contract's. */
template <int WIDTH, int N>
__device__ __forceinline__ void store_tile(const args &g, int32_t row, int32_t col0, int t4, const int32_t (&acc)[N], float s0,
                                           float s1, const float *gains) {
  const bool in0 = row < g.m, in1 = row + 8 < g.m;
  if ((g.cols & 7) != 0 || !(finite(s0) && finite(s1))) {
    store_slowly<WIDTH>(g, row, col0, t4, acc, s0, s1);
    return;
  }
  const int32_t col = col0 + 8 * t4;
  uint16_t *out0 = g.out + (int64_t)row * g.cols + col, *out1 = out0 + 8 * (int64_t)g.cols;
  const float4 *gain = reinterpret_cast<const float4 *>(gains + 8 * t4);
#pragma unroll
  for (int i = 0; i < WIDTH / 32; i++) {
    if (col + 32 * i >= g.cols) break;
    const float4 u = gain[8 * i], v = gain[8 * i + 1];
    const int32_t *a = acc + 16 * i;
    const uint4 y0 = make_uint4(pack_bf16(((float)a[0] * s0) * u.x, ((float)a[1] * s0) * u.y),
                                pack_bf16(((float)a[4] * s0) * u.z, ((float)a[5] * s0) * u.w),
                                pack_bf16(((float)a[8] * s0) * v.x, ((float)a[9] * s0) * v.y),
                                pack_bf16(((float)a[12] * s0) * v.z, ((float)a[13] * s0) * v.w));
    const uint4 y1 = make_uint4(pack_bf16(((float)a[2] * s1) * u.x, ((float)a[3] * s1) * u.y),
                                pack_bf16(((float)a[6] * s1) * u.z, ((float)a[7] * s1) * u.w),
                                pack_bf16(((float)a[10] * s1) * v.x, ((float)a[11] * s1) * v.y),
                                pack_bf16(((float)a[14] * s1) * v.z, ((float)a[15] * s1) * v.w));
    if (in0) *reinterpret_cast<uint4 *>(out0 + 32 * i) = y0;
    if (in1) *reinterpret_cast<uint4 *>(out1 + 32 * i) = y1;
  }
}
#endif

template <int BN, int STAGES, int CLUSTER, int BLOCKS>
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
  const uint32_t gains_at = base + STAGES * STAGE, full = gains_at + 16 * BN, empty = full + 8 * STAGES;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, role = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);
  const uint32_t rank = CLUSTER > 1 ? cluster_rank() : 0;
  if (threadIdx.x == 0) {
    prefetch(&map_a);
    prefetch(&map_b);
    for (int s = 0; s < STAGES; s++) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, 8 * CLUSTER);
    }
    barriers_visible();
  }
  if (CLUSTER > 1)
    cluster_sync();
  else
    __syncthreads();
  const int32_t tiles = g.m_tiles * g.col_tiles, step = (int32_t)gridDim.x / CLUSTER, start = (int32_t)blockIdx.x / CLUSTER;
  const int32_t chunks = (g.depth + BK - 1) / BK;
  arb_next_may_start();
  arb_previous_done();
  if (role == 2) {
    if (BLOCKS == 1) registers_shrink<40>();
    if (threadIdx.x == 256) {
      uint32_t stage = 0, phase = 1;
      for (int32_t t = start; t < tiles; t += step) {
        const place p = place_of(g, t);
        const int32_t row = (p.m * CLUSTER + (int32_t)rank) * BM, col = p.col * BN;
        for (int32_t c = 0; c < chunks; c++) {
          const uint32_t bar = full + 8 * stage, a = base + stage * STAGE, b = a + A_BYTES;
          barrier_wait(empty + 8 * stage, phase);
          barrier_expect(bar, STAGE);
          load_2d(a, &map_a, bar, c * BK, row);
          if (CLUSTER > 1)
            load_2d_multicast(b + rank * (B_BYTES / CLUSTER), &map_b, bar, c * BK, col + (int32_t)rank * (BN / CLUSTER),
                              (uint16_t)((1 << CLUSTER) - 1));
          else
            load_2d(b, &map_b, bar, c * BK, col);
          if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
          }
        }
      }
    }
  } else {
    if (BLOCKS == 1) registers_grow<232>();
    const int wg = role, quad = lane / 4, t4 = lane % 4;
    uint32_t stage = 0, phase = 0, turn = 0;
    int32_t acc[BN / 2];
    ahead<BN> next;
    float *const gains = reinterpret_cast<float *>(raw + (gains_at - shared_address(raw))) + 2 * BN * wg;
    for (int32_t t = start; t < tiles; t += step) {
      const place p = place_of(g, t);
      const int32_t row = (p.m * CLUSTER + (int32_t)rank) * BM + wg * 64 + (warp % 4) * 16 + quad;
      next.get(g, row, p.col * BN, (int)threadIdx.x % 128);
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
          if (lane < CLUSTER) {
            if (CLUSTER > 1)
              barrier_arrive_at(empty + 8 * previous, lane);
            else
              barrier_arrive(empty + 8 * previous);
          }
        }
        previous = stage;
        if (++stage == STAGES) {
          stage = 0;
          phase ^= 1;
        }
      }
      mma_wait<0>();
      registers_held(acc);
      if (lane < CLUSTER) {
        if (CLUSTER > 1)
          barrier_arrive_at(empty + 8 * previous, lane);
        else
          barrier_arrive(empty + 8 * previous);
      }
      float *const mine = gains + BN * (turn++ & 1);
      next.put(mine, (int)threadIdx.x % 128, 3 + wg);
      store_tile<BN>(g, row, p.col * BN, t4, acc, next.s0, next.s1, mine);
    }
  }
  if (CLUSTER > 1) cluster_sync(); /* no block leaves while another may still signal it */
#else
  (void)map_a, (void)map_b, (void)g;
#endif
}

}  // namespace arb_wgmma

#endif
