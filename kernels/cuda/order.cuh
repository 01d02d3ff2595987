/* Where row kernels begin, and what they tell the cache. A product writes its rows upwards and what it wrote last is still in
 * the second level of cache: a row kernel walks downwards, so that it begins there and leaves the rows that the next product
 * begins with. What is touched for the last time, or not again for long, is marked as the first to go. Private to
 * kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_ORDER_CUH
#define ARB_KERNELS_CUDA_ORDER_CUH

#include <cuda_runtime.h>
#include <stdint.h>

/* TEMPORARY: for measuring. */
#ifndef ARB_ROWS_UP
#define ARB_ROWS_UP 0
#endif
#ifndef ARB_NO_HINTS
#define ARB_NO_HINTS 0
#endif

/* The row that is worked on where an upward walk would be at `row` of m. */
template <typename I>
static __device__ __forceinline__ I arb_row_down(I row, I m) {
  return ARB_ROWS_UP ? row : m - 1 - row;
}

/* Loads of what no kernel reads soon. Volatile: they stay behind arb_previous_done. */
#if ARB_NO_HINTS
#define ARB_LOAD_ "ld.global"
#define ARB_STORE_ "st.global"
#else
#define ARB_LOAD_ "ld.global.cs"
#define ARB_STORE_ "st.global.cs"
#endif
static __device__ __forceinline__ uint4 arb_load_last(const uint4 *p) {
  uint4 v;
  asm volatile(ARB_LOAD_ ".v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(p)));
  return v;
}
static __device__ __forceinline__ uint2 arb_load_last(const uint2 *p) {
  uint2 v;
  asm volatile(ARB_LOAD_ ".v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(__cvta_generic_to_global(p)));
  return v;
}
static __device__ __forceinline__ uint32_t arb_load_last(const uint32_t *p) {
  uint32_t v;
  asm volatile(ARB_LOAD_ ".u32 %0, [%1];" : "=r"(v) : "l"(__cvta_generic_to_global(p)));
  return v;
}
static __device__ __forceinline__ uint16_t arb_load_last(const uint16_t *p) {
  uint16_t v;
  asm volatile(ARB_LOAD_ ".u16 %0, [%1];" : "=h"(v) : "l"(__cvta_generic_to_global(p)));
  return v;
}
static __device__ __forceinline__ float4 arb_load_last(const float4 *p) {
  float4 v;
  asm volatile(ARB_LOAD_ ".v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(__cvta_generic_to_global(p)));
  return v;
}
static __device__ __forceinline__ float2 arb_load_last(const float2 *p) {
  float2 v;
  asm volatile(ARB_LOAD_ ".v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(__cvta_generic_to_global(p)));
  return v;
}
static __device__ __forceinline__ float arb_load_last(const float *p) {
  float v;
  asm volatile(ARB_LOAD_ ".f32 %0, [%1];" : "=f"(v) : "l"(__cvta_generic_to_global(p)));
  return v;
}

/* Stores of what is read much later. */
static __device__ __forceinline__ void arb_store_later(float *to, float a, float b, float c, float d) {
  asm volatile(ARB_STORE_ ".v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(a), "f"(b), "f"(c), "f"(d)
               : "memory");
}
static __device__ __forceinline__ void arb_store_later(uint4 *to, uint4 v) {
  asm volatile(ARB_STORE_ ".v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}

#endif
