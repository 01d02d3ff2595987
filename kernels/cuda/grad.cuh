/* A linear's output gradient as int8, for aligned rows of whole chunks that a block holds. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_GRAD_CUH
#define ARB_KERNELS_CUDA_GRAD_CUH

#include "kernels/cuda/gradient.cuh"

#define ARB_GRAD_THREADS 384 /* most of a block */

/* A chunk as it lies in memory. */
template <typename T>
struct arb_chunk_raw;
template <>
struct arb_chunk_raw<uint16_t> {
  uint4 w;
  __device__ __forceinline__ void load(const uint16_t *p) { w = arb_load_last(reinterpret_cast<const uint4 *>(p)); }
  __device__ __forceinline__ float value(int j) const {
    const uint32_t v[4] = {w.x, w.y, w.z, w.w};
    return arb_word_half(v, j);
  }
};
template <>
struct arb_chunk_raw<float> {
  float4 a, b;
  __device__ __forceinline__ void load(const float *p) {
    a = arb_load_last(reinterpret_cast<const float4 *>(p)), b = arb_load_last(reinterpret_cast<const float4 *>(p + 4));
  }
  __device__ __forceinline__ float value(int j) const {
    const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    return v[j];
  }
};

/* A thread a chunk, ROWS neighbouring rows between two meetings of the block, which loads the next ones before it works on
 * these. A grain has at least ROWS rows. */
template <int ROWS, typename T, int RESIDENT>
static __global__ void __launch_bounds__(ARB_GRAD_THREADS, RESIDENT)
    grad_rows_kernel(const __grid_constant__ arb_gradient a, int m, const T *__restrict__ g_in, int64_t ldg) {
  __shared__ uint32_t part[2][ROWS][32]; /* [parity of the round][row][warp] */
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int at = (int)threadIdx.x * ARB_CHUNK;
  const bool mine = at < a.n;
  const uint32_t step = a.step->step;
  const arb_philox_key key = arb_philox_key_of(a.step->seed, ARB_DRAW_DX);
  const int stride = (int)gridDim.x * ROWS, first = (int)blockIdx.x * ROWS;
  const int64_t from = arb_row_down(first, m);
  g_in += from * ldg + at;
  int8_t *out = a.hq + from * a.n + at;
  float *scale = a.sh + from;
  float gain[ARB_CHUNK] = {};
  arb_chunk_raw<T> raw[ROWS];
  auto load = [&](int turn) {
#pragma unroll
    for (int k = 0; k < ROWS; k++)
      if (mine && turn + k < m) raw[k].load(g_in - k * ldg);
    g_in -= (int64_t)stride * ldg;
  };
  load(first);
  if (mine) arb_chunk_gains<true>(a.e, at, a.n, gain);
  arb_row_walk place = arb_walk_from(a, from < 0 ? 0 : from, stride);
  int parity = 0;
  for (int turn = first; turn < m; turn += stride, parity ^= 1) {
    float h[ROWS][ARB_CHUNK];
    uint32_t bits[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; k++)
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) h[k][j] = raw[k].value(j) * gain[j];
    load(turn + stride);
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
      bits[k] = __reduce_max_sync(ARB_CUDA_FULL, mine && turn + k < m ? arb_bits_of_f32(arb_chunk_most(h[k])) : 0u);
      if (lane == 0) part[parity][k][warp] = bits[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
      bits[k] = __reduce_max_sync(ARB_CUDA_FULL, lane < warps ? part[parity][k][lane] : 0u);
      if (!mine || turn + k >= m) continue;
      if (at == 0) arb_gradient_scale_to(a, scale - k, bits[k]);
      const float unit = arb_gradient_unit(bits[k]);
      const arb_row_walk p = arb_walk_beside(a, place, k);
      uint2 b = make_uint2(0, 0);
      if (unit != 0.0f)
        b = arb_round8(
            h[k], unit,
            arb_philox(key, arb_gradient_counter(a, p.position) + threadIdx.x, a.tensor, step, arb_walk_grain(a, p)));
      *reinterpret_cast<uint2 *>(out - (int64_t)k * a.n) = b;
    }
    out -= (int64_t)stride * a.n, scale -= stride;
    arb_walk_on(a, place);
  }
}

#endif
