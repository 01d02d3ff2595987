/* TEMPORARY name: gradient rows of whole chunks, one chunk a thread, ROWS rows between two meetings of the block. */
#ifndef ARB_KERNELS_CUDA_GRAD_CUH
#define ARB_KERNELS_CUDA_GRAD_CUH

#include "kernels/cuda/gradient.cuh"

#define ARB_GRAD_MOST_THREADS 384

/* A chunk as it lies in memory. */
template <typename T>
struct arb_chunk_raw;
template <>
struct arb_chunk_raw<uint16_t> {
  uint4 w;
  __device__ __forceinline__ void load(const uint16_t *p) { w = *reinterpret_cast<const uint4 *>(p); }
  __device__ __forceinline__ float value(int j) const {
    const uint32_t v[4] = {w.x, w.y, w.z, w.w};
    return arb_f32_of_bits((j & 1) ? v[j / 2] & 0xffff0000u : v[j / 2] << 16);
  }
};
template <>
struct arb_chunk_raw<float> {
  float4 a, b;
  __device__ __forceinline__ void load(const float *p) {
    a = *reinterpret_cast<const float4 *>(p), b = *reinterpret_cast<const float4 *>(p + 4);
  }
  __device__ __forceinline__ float value(int j) const {
    const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    return v[j];
  }
};

/* Blocks (x, grain); block x takes positions x, x + gridDim.x, ... of the grain. */
template <int ROWS, typename T, int MOST, int RESIDENT>
static __global__ void __launch_bounds__(MOST, RESIDENT)
    grad_rows_kernel(const __grid_constant__ arb_gradient a, const T *__restrict__ g_in, int64_t ldg) {
  __shared__ uint32_t part[2][ROWS][32]; /* [parity of the round][row][warp] */
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int at = (int)threadIdx.x * ARB_CHUNK;
  const bool mine = at < a.n;
  const uint32_t step = a.step->step, grain = (uint32_t)(a.first + (int32_t)blockIdx.y * a.stride), rows = a.rows_per_grain;
  const arb_philox_key key = arb_philox_key_of(a.step->seed, ARB_DRAW_DX);
  const uint32_t stride = gridDim.x;
  g_in += (int64_t)blockIdx.y * rows * ldg + at;
  int8_t *out = a.hq + (int64_t)blockIdx.y * rows * a.n + at;
  float gain[ARB_CHUNK] = {};
  arb_chunk_raw<T> raw[ROWS];
  auto load = [&](uint32_t position) {
#pragma unroll
    for (int k = 0; k < ROWS; k++)
      if (mine && position + k * stride < rows) raw[k].load(g_in + (int64_t)(position + k * stride) * ldg);
  };
  load(blockIdx.x);
  if (mine) arb_chunk_gains<true>(a.e, at, a.n, gain);
  int parity = 0;
  for (uint32_t position = blockIdx.x; position < rows; position += ROWS * stride, parity ^= 1) {
    float h[ROWS][ARB_CHUNK];
    uint32_t bits[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; k++)
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) h[k][j] = raw[k].value(j) * gain[j];
    load(position + ROWS * stride);
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
      bits[k] =
          __reduce_max_sync(ARB_CUDA_FULL, mine && position + k * stride < rows ? arb_bits_of_f32(arb_chunk_most(h[k])) : 0u);
      if (lane == 0) part[parity][k][warp] = bits[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
      const uint32_t p = position + k * stride;
      bits[k] = __reduce_max_sync(ARB_CUDA_FULL, lane < warps ? part[parity][k][lane] : 0u);
      if (!mine || p >= rows) continue;
      if (at == 0) arb_gradient_scale(a, (int64_t)blockIdx.y * rows + p, bits[k]);
      const float unit = arb_gradient_unit(bits[k]);
      uint2 b = make_uint2(0, 0);
      if (unit != 0.0f)
        b = arb_round8(h[k], unit, arb_philox(key, arb_gradient_counter(a, p) + threadIdx.x, a.tensor, step, grain));
      *reinterpret_cast<uint2 *>(out + (int64_t)p * a.n) = b;
    }
  }
}

#endif
