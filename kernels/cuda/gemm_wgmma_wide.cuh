/* op      forward and dx on Hopper, deep and wide: the products of gemm_wgmma.cuh in tiles of 128 x 256, stored in whole lines
 * shapes  any m and depth, columns a multiple of 8
 * layout  A and B as there, but rows of B in their own order; 4 KB of output a warp on its way out (gemm_lines.cuh)
 * work    2 m cols depth operations; persistent blocks of one producer warp and two consumer warpgroups of 64 x 256 each. The
 *         second one runs a chunk behind the first, so that each has the tensor cores for itself while the other one stores
 * bytes   as gemm_wgmma.cuh, where a cluster of two blocks shares B too
 * determinism  int32 sums, one fixed float expression per output
 * source  own */
#ifndef ARB_KERNELS_CUDA_GEMM_WGMMA_WIDE_CUH
#define ARB_KERNELS_CUDA_GEMM_WGMMA_WIDE_CUH

#include "kernels/cuda/gemm_lines.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace arb_wgmma_wide {

/* LEAD: chunks that the first warpgroup begins ahead, of STAGES that both read. More would leave loads less time than they
 * take. */
constexpr int BM = arb_wgmma::BM, BN = 256, BK = arb_wgmma::BK, STAGES = 4, LEAD = 1, THREADS = 384;
constexpr int A_BYTES = BM * BK, B_BYTES = BN * BK, STAGE = A_BYTES + B_BYTES, OUT_BYTES = 8 * arb_lines::WARP_BYTES;
constexpr int SHARED = STAGES * STAGE + OUT_BYTES + 2 * 4 * BN + 16 * STAGES;
static_assert(SHARED <= 227 * 1024, "no room to round the base up: it is declared at a multiple of 1024");

template <bool FORWARD, int CLUSTER>
__global__ void
#if ARB_HAVE_WGMMA || !defined(__CUDA_ARCH__)
__launch_bounds__(THREADS, 1)
#else
__launch_bounds__(32)
#endif
    kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
           const __grid_constant__ CUtensorMap map_out, const arb_wgmma::args g) {
#if ARB_HAVE_WGMMA
  using namespace arb_ptx;
  extern __shared__ __align__(1024) uint8_t swizzled[];
  const uint32_t base = shared_address(swizzled), out = base + STAGES * STAGE, gains_at = out + OUT_BYTES;
  const uint32_t full = gains_at + 2 * 4 * BN, empty = full + 8 * STAGES;
  const uint32_t rank = CLUSTER > 1 ? cluster_rank() : 0;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, role = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    prefetch(&map_a);
    prefetch(&map_b);
    prefetch(&map_out);
    for (int s = 0; s < STAGES; s++) barrier_init(full + 8 * s, 1), barrier_init(empty + 8 * s, 8 * CLUSTER);
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
    registers_shrink<40>();
    if (threadIdx.x == 256) {
      uint32_t stage = 0, phase = 1;
      for (int32_t t = start; t < tiles; t += step) {
        const arb_wgmma::place p = arb_wgmma::place_of(g, t);
        const int32_t row = (p.m * CLUSTER + (int32_t)rank) * BM, col = p.col * BN + (int32_t)rank * (BN / CLUSTER);
        for (int32_t c = 0; c < chunks; c++) {
          const uint32_t bar = full + 8 * stage, a = base + stage * STAGE, b = a + A_BYTES + rank * (B_BYTES / CLUSTER);
          barrier_wait(empty + 8 * stage, phase);
          barrier_expect(bar, STAGE);
          load_2d(a, &map_a, bar, c * BK, row);
          if (CLUSTER > 1)
            load_2d_multicast(b, &map_b, bar, c * BK, col, (uint16_t)((1 << CLUSTER) - 1));
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
    registers_grow<232>();
    const int id = (int)threadIdx.x % 128;
    auto release = [&](uint32_t stage) {
      if (lane >= CLUSTER) return;
      if (CLUSTER > 1)
        barrier_arrive_at(empty + 8 * stage, (uint32_t)lane);
      else
        barrier_arrive(empty + 8 * stage);
    };
    uint32_t stage = 0, phase = 0;
    int32_t acc[BN / 2];
    int32_t gains_of = -1; /* the column tile whose gains lie in shared memory; each warpgroup has its own */
    float *const gains = reinterpret_cast<float *>(swizzled + (gains_at - base)) + role * BN;
    const uint32_t lane_gains = gains_at + 4 * BN * role + 16 * (lane % 4);
    if (role == 1 && chunks > LEAD) barrier_wait(full + 8 * LEAD, 0); /* this stage is not loaded anew before it is read */
    for (int32_t t = start; t < tiles; t += step) {
      const arb_wgmma::place p = arb_wgmma::place_of(g, t);
      const int32_t row0 = (p.m * CLUSTER + (int32_t)rank) * BM + warp * arb_lines::ROWS, row = row0 + lane / 4;
      const int32_t col0 = p.col * BN;
      const float s0 = row < g.m ? g.scale[row] : 0.0f, s1 = row + 8 < g.m ? g.scale[row + 8] : 0.0f;
      float gain[BN / 128];
      if (FORWARD && p.col != gains_of) {
#pragma unroll
        for (int i = 0; i < BN / 128; i++) {
          const int32_t col = col0 + arb_lines::gain_col(128 * i + id);
          gain[i] = col < g.cols ? g.gain[col] : 0.0f;
        }
      }
      uint32_t previous = 0;
      for (int32_t c = 0; c < chunks; c++) {
        barrier_wait(full + 8 * stage, phase);
        const uint32_t at = base + stage * STAGE;
        const uint64_t a = descriptor(at + role * (A_BYTES / 2)), b = descriptor(at + A_BYTES);
        mma_fence();
#pragma unroll
        for (int k = 0; k < BK / 32; k++) mma_ss(acc, a + 2 * k, b + 2 * k, c > 0 || k > 0);
        mma_commit();
        mma_wait<1>();
        if (c > 0) release(previous);
        previous = stage;
        if (++stage == STAGES) {
          stage = 0;
          phase ^= 1;
        }
      }
      mma_wait<0>();
      registers_held(acc);
      release(previous);
      if (FORWARD && p.col != gains_of) {
        gains_of = p.col;
        asm volatile("bar.sync %0, 128;" ::"r"(1 + role) : "memory"); /* all four warps have read those of the tile before */
#pragma unroll
        for (int i = 0; i < BN / 128; i++) gains[128 * i + id] = gain[i];
        asm volatile("bar.sync %0, 128;" ::"r"(1 + role) : "memory");
      }
      arb_lines::store<BN, FORWARD>(&map_out, out + warp * arb_lines::WARP_BYTES, lane_gains, row0, col0, lane, acc, s0, s1);
    }
    if (lane == 0) stores_done();
  }
  if (CLUSTER > 1) cluster_sync(); /* no block leaves while another may still signal it */
#else
  (void)map_a, (void)map_b, (void)map_out, (void)g;
#endif
}

}  // namespace arb_wgmma_wide

#endif
