/* op      forward and dx on Hopper: acc[m][cols] = A[m][depth] . B[cols][depth], A int8, B trits of the workspace, both K-major
 * shapes  tiles of 128 x BN; any m, cols, depth (bulk copies fill the tails with zeros, stores are masked)
 * layout  depth in chunks of 128 bytes, swizzled, STAGES deep; rows of B are stored permuted (gemm_prep.cuh, arb_permuted_row)
 *         so that an accumulator quad holds 8 neighbouring columns and stores whole sectors without a shuffle
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

constexpr int BM = 128, BK = 128, THREADS = 384;

struct args {
  int32_t m, cols, depth;
  int32_t m_tiles, col_tiles, group; /* m_tiles in clusters; column tiles walked together */
  const float *scale;                /* [m] */
  const float *gain;                 /* [cols], forward */
  void *out;                         /* [m][cols] bf16 or fp32 */
};

template <int BN, int STAGES> constexpr int shared_bytes() { return STAGES * (BM + BN) * BK + 16 * STAGES + 1024; }

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

/* Eight neighbouring columns of one row. Forward: a finite row scale gives no NaN, so the hardware's rounding is the contract's. */
template <bool FORWARD>
__device__ __forceinline__ void store8(const args &g, int32_t row, int32_t col, const int32_t (&acc)[8], float scale, const float (&gain)[8]) {
  if (row >= g.m || col >= g.cols) return;
  const int64_t at = (int64_t)row * g.cols + col;
  float y[8];
#pragma unroll
  for (int i = 0; i < 8; i++) y[i] = FORWARD ? ((float)acc[i] * scale) * gain[i] : (float)acc[i] * scale;
  if (FORWARD) {
    uint16_t *out = static_cast<uint16_t *>(g.out) + at;
    if ((g.cols & 7) == 0 && arb_fabsf(scale) < arb_f32_of_bits(ARB_F32_INF_BITS)) {
      *reinterpret_cast<uint4 *>(out) =
          make_uint4(pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]), pack_bf16(y[4], y[5]), pack_bf16(y[6], y[7]));
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (col + i < g.cols) out[i] = arb_bf16_of_f32(y[i]);
  } else {
    float *out = static_cast<float *>(g.out) + at;
    if ((g.cols & 7) == 0) {
      reinterpret_cast<float4 *>(out)[0] = make_float4(y[0], y[1], y[2], y[3]);
      reinterpret_cast<float4 *>(out)[1] = make_float4(y[4], y[5], y[6], y[7]);
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (col + i < g.cols) out[i] = y[i];
  }
}
#endif

template <bool FORWARD, int BN, int STAGES, int CLUSTER, int BLOCKS>
__global__ void
#if ARB_HAVE_WGMMA || !defined(__CUDA_ARCH__)
__launch_bounds__(THREADS, BLOCKS)
#else
__launch_bounds__(32)
#endif
kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const args g) {
#if ARB_HAVE_WGMMA
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + 1023u) & ~1023u;
  constexpr uint32_t A_BYTES = BM * BK, B_BYTES = BN * BK, STAGE = A_BYTES + B_BYTES;
  const uint32_t full = base + STAGES * STAGE, empty = full + 8 * STAGES;
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
  if (CLUSTER > 1) cluster_sync();
  else __syncthreads();
  const int32_t tiles = g.m_tiles * g.col_tiles, step = (int32_t)gridDim.x / CLUSTER, start = (int32_t)blockIdx.x / CLUSTER;
  const int32_t chunks = (g.depth + BK - 1) / BK;
  wait_previous();
  if (role == 0) {
    if (BLOCKS == 1) registers_shrink<40>();
    else registers_shrink<24>();
    if (threadIdx.x == 0) {
      uint32_t stage = 0, phase = 1;
      for (int32_t t = start; t < tiles; t += step) {
        const place p = place_of(g, t);
        const int32_t row = (p.m * CLUSTER + (int32_t)rank) * BM, col = p.col * BN;
        for (int32_t c = 0; c < chunks; c++) {
          const uint32_t bar = full + 8 * stage, a = base + stage * STAGE, b = a + A_BYTES;
          if (CLUSTER > 1) barrier_wait_cluster(empty + 8 * stage, phase);
          else barrier_wait(empty + 8 * stage, phase);
          barrier_expect(bar, STAGE);
          load_2d(a, &map_a, bar, c * BK, row);
          if (CLUSTER > 1)
            load_2d_multicast(b + rank * (B_BYTES / CLUSTER), &map_b, bar, c * BK, col + (int32_t)rank * (BN / CLUSTER),
                              (uint16_t)((1 << CLUSTER) - 1));
          else load_2d(b, &map_b, bar, c * BK, col);
          if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
          }
        }
      }
    }
  } else {
    if (BLOCKS == 1) registers_grow<232>();
    else registers_grow<112>();
    const int wg = role - 1, quad = lane / 4, t4 = lane % 4;
    uint32_t stage = 0, phase = 0;
    int32_t acc[BN / 2];
    for (int32_t t = start; t < tiles; t += step) {
      const place p = place_of(g, t);
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
            if (CLUSTER > 1) barrier_arrive_at(empty + 8 * previous, lane);
            else barrier_arrive(empty + 8 * previous);
          }
        }
        previous = stage;
        if (++stage == STAGES) {
          stage = 0;
          phase ^= 1;
        }
      }
      mma_wait<0>();
      if (lane < CLUSTER) {
        if (CLUSTER > 1) barrier_arrive_at(empty + 8 * previous, lane);
        else barrier_arrive(empty + 8 * previous);
      }
      const int32_t row = (p.m * CLUSTER + (int32_t)rank) * BM + wg * 64 + (warp % 4) * 16 + quad;
      const float s0 = row < g.m ? g.scale[row] : 0.0f, s1 = row + 8 < g.m ? g.scale[row + 8] : 0.0f;
#pragma unroll
      for (int i = 0; i < BN / 32; i++) {
        const int32_t col = p.col * BN + 32 * i + 8 * t4;
        float gain[8];
        if (FORWARD && col < g.cols) {
          const float4 u = reinterpret_cast<const float4 *>(g.gain + col)[0], v = reinterpret_cast<const float4 *>(g.gain + col)[1];
          gain[0] = u.x, gain[1] = u.y, gain[2] = u.z, gain[3] = u.w, gain[4] = v.x, gain[5] = v.y, gain[6] = v.z, gain[7] = v.w;
        }
        int32_t x[8];
#pragma unroll
        for (int j = 0; j < 8; j++) x[j] = acc[16 * i + 4 * (j / 2) + j % 2];
        store8<FORWARD>(g, row, col, x, s0, gain);
#pragma unroll
        for (int j = 0; j < 8; j++) x[j] = acc[16 * i + 4 * (j / 2) + 2 + j % 2];
        store8<FORWARD>(g, row + 8, col, x, s1, gain);
      }
    }
  }
  if (CLUSTER > 1) cluster_sync(); /* no block leaves while another may still signal it */
#else
  (void)map_a, (void)map_b, (void)g;
#endif
}

} // namespace arb_wgmma

#endif
