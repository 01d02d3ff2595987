/* Gradient rows brought to one power of two a grain, and operands of dW turned so that their rows (the depth of dW) lie
 * innermost. kernels/common/scale.h defines the rescaling. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_RESCALE_CUH
#define ARB_KERNELS_CUDA_RESCALE_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gradient.cuh"

/* One block a grain: cexp[grain] and ratio[rows]; s NULL: 1. */
static __global__ void __launch_bounds__(1024)
    arb_ratio_kernel(int32_t rows, const float *__restrict__ sh, const float *__restrict__ s, int32_t *cexp,
                     int32_t *__restrict__ ratio, int *nonfinite) {
  __shared__ uint32_t part[32];
  const int64_t row0 = (int64_t)blockIdx.x * rows;
  uint32_t most = 0;
  for (int i = (int)threadIdx.x; i < rows; i += (int)blockDim.x) {
    const float weight = s ? sh[row0 + i] * s[row0 + i] : sh[row0 + i];
    most = max(most, arb_bits_of_f32(weight));
  }
  most = __reduce_max_sync(ARB_CUDA_FULL, most);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = most;
  __syncthreads();
  most = __reduce_max_sync(ARB_CUDA_FULL, (threadIdx.x & 31) < blockDim.x / 32 ? part[threadIdx.x & 31] : 0u);
  const bool finite = most < ARB_F32_INF_BITS;
  const int c = finite ? arb_rows_exponent(arb_f32_of_bits(most)) : ARB_NO_SCALE;
  if (threadIdx.x == 0) {
    cexp[blockIdx.x] = c;
    if (!finite) *nonfinite = 1;
  }
  for (int i = (int)threadIdx.x; i < rows; i += (int)blockDim.x) {
    const float weight = s ? sh[row0 + i] * s[row0 + i] : sh[row0 + i];
    ratio[row0 + i] = arb_row_ratio(weight, c);
  }
}

/* tq = SR(hq * ratio / 2^16); a thread a chunk. V: whole chunks at multiples of 8 bytes. */
template <bool V>
static __global__ void arb_rescale_rows_kernel(const __grid_constant__ arb_gradient a, int64_t chunks,
                                               const int8_t *__restrict__ hq, const int32_t *__restrict__ ratio,
                                               int8_t *__restrict__ tq) {
  const uint32_t per_row = (uint32_t)(a.n + 7) / 8;
  const arb_philox_key key = arb_philox_key_of(a.step->seed, ARB_DRAW_DW);
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < chunks; i += (int64_t)gridDim.x * blockDim.x) {
    const int64_t row = i / per_row;
    const int at = ARB_CHUNK * (int)(i - row * per_row);
    const arb_row_place p = arb_place_of(a, row);
    const arb_philox_block r = arb_gradient_draws(a, key, a.step->step, p.grain, p.position, at);
    const int64_t from = row * a.n + at;
    if (V) {
      const uint2 q = *reinterpret_cast<const uint2 *>(hq + from);
      *reinterpret_cast<uint2 *>(tq + from) =
          make_uint2(arb_rescale4(q.x, ratio[row], r.v[0], r.v[1]), arb_rescale4(q.y, ratio[row], r.v[2], r.v[3]));
    } else {
      for (int j = 0; j < ARB_CHUNK && at + j < a.n; j++)
        tq[from + j] = (int8_t)arb_rescale(hq[from + j], ratio[row], arb_half_of(r, j));
    }
  }
}

#endif
