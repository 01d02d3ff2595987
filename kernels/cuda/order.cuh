/* Where row kernels begin, and what they tell the cache. A product writes its rows upwards and what it wrote last is still in
 * the second level of cache: a row kernel walks downwards, so that it begins there and leaves the rows that the next product
 * begins with. What is touched for the last time, or not again for long, is marked as the first to go. Private to
 * kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_ORDER_CUH
#define ARB_KERNELS_CUDA_ORDER_CUH

#include <cuda_runtime.h>
#include <stdint.h>

/* The row that is worked on where an upward walk would be at `row` of m. */
template <typename I>
static __device__ __forceinline__ I arb_row_down(I row, I m) {
  return m - 1 - row;
}

/* Loads of what no kernel reads soon. */
template <typename T>
static __device__ __forceinline__ T arb_load_last(const T *p) {
  return __ldcs(p);
}

/* Stores of what is read much later. */
static __device__ __forceinline__ void arb_store_later(float *to, float a, float b, float c, float d) {
  __stcs(reinterpret_cast<float4 *>(to), make_float4(a, b, c, d));
}
static __device__ __forceinline__ void arb_store_later(uint4 *to, uint4 v) { __stcs(to, v); }

#endif
