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

/* Copies 16 bytes to shared memory while the thread goes on; they are its own to read once arb_copies_wait<N> says that all but
 * the last N batches have come. */
static __device__ __forceinline__ void arb_copy_aside(void *shared, const void *from) {
  asm volatile(
      "{.reg .b64 p; createpolicy.fractional.L2::evict_first.b64 p, 1.0; "
      "cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, p;}" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
      "l"(__cvta_generic_to_global(from))
      : "memory");
}
static __device__ __forceinline__ void arb_copies_sent() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
static __device__ __forceinline__ void arb_copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
/* 16 bytes of shared memory, read again rather than kept in registers. */
static __device__ __forceinline__ uint4 arb_read_again(const uint4 *shared) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"((uint32_t)__cvta_generic_to_shared(shared))
               : "memory");
  return v;
}

/* Stores of what is read much later. */
static __device__ __forceinline__ void arb_store_later(float *to, float a, float b, float c, float d) {
  __stcs(reinterpret_cast<float4 *>(to), make_float4(a, b, c, d));
}
static __device__ __forceinline__ void arb_store_later(uint4 *to, uint4 v) { __stcs(to, v); }

#endif
