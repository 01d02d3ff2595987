/* Work between warps without a barrier of all: barriers in shared memory that count arrivals and bytes (mbarriers), and rows
 * that come to shared memory while other warps work. From compute capability 9 one lane has a row copied; before, a warp
 * copies 16 bytes a lane. Addresses are of the shared window (arb_shared_at). Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_ASYNC_CUH
#define ARB_KERNELS_CUDA_ASYNC_CUH

#include "kernels/cuda/device.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define ARB_ROWS_ARRIVALS 32 /* at the barrier of arb_rows_aside, a call */
#else
#define ARB_ROWS_ARRIVALS 1
#endif

static __device__ __forceinline__ void arb_bar_init(uint32_t bar, int count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
/* By the thread that began them, before rows are asked for. */
static __device__ __forceinline__ void arb_bars_begun() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
static __device__ __forceinline__ void arb_bar_arrive(uint32_t bar) {
  asm volatile("{.reg .b64 s; mbarrier.arrive.shared.b64 s, [%0];}" ::"r"(bar) : "memory");
}
/* Until the phase of this parity is over; given a limit, in nanoseconds, a warp sleeps instead of asking again and again. */
static __device__ __forceinline__ void arb_bar_wait(uint32_t bar, uint32_t parity) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared.b64 p, [%0], %1, 1000000;\n@!p bra again;\n}" ::"r"(bar),
      "r"(parity)
      : "memory");
#else
  asm volatile("{.reg .pred p;\nagain:\nmbarrier.test_wait.parity.shared.b64 p, [%0], %1;\n@!p bra again;\n}" ::"r"(bar),
               "r"(parity)
               : "memory");
#endif
}

/* Three rows of `bytes` that are not read again to `to` and `plane` and 2 `plane` bytes further, by a warp; all multiples of
 * 16. When they are there the barrier has had ARB_ROWS_ARRIVALS arrivals. */
static __device__ __forceinline__ void arb_rows_aside(uint32_t bar, uint32_t to, uint32_t plane, const char *a, const char *b,
                                                      const char *c, uint32_t bytes) {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  const char *from[3] = {a, b, c};
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  uint32_t elected;
  asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}" : "=r"(elected));
  if (elected) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(bar), "r"(3 * bytes) : "memory");
#pragma unroll
    for (int i = 0; i < 3; i++)
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
              to + i * plane),
          "l"(__cvta_generic_to_global(from[i])), "r"(bytes), "r"(bar), "l"(policy)
          : "memory");
  }
  __syncwarp();
#else
  for (uint32_t k = 16 * (threadIdx.x & 31); k < bytes; k += 512)
    for (int i = 0; i < 3; i++)
      asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to + i * plane + k),
                   "l"(__cvta_generic_to_global(from[i] + k)), "l"(policy)
                   : "memory");
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
#endif
}

/* Shared memory at an address: the compiler neither keeps nor moves these. */
static __device__ __forceinline__ float arb_shared_float(uint32_t at) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
  return v;
}
static __device__ __forceinline__ float2 arb_shared_pair(uint32_t at) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at) : "memory");
  return v;
}
static __device__ __forceinline__ void arb_shared_words(uint32_t at, uint32_t w[4]) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
               : "r"(at)
               : "memory");
}
static __device__ __forceinline__ void arb_to_shared(uint32_t at, uint32_t v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}
static __device__ __forceinline__ void arb_to_shared(uint32_t at, float2 v) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(v.x), "f"(v.y) : "memory");
}
static __device__ __forceinline__ void arb_to_shared(uint32_t at, const float v[4]) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(at), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
}

/* x, alike in all lanes, in a register (of the warp's own, where there are some) for good: a compiler that sees where a value
 * comes from makes it again in every turn of a loop. */
static __device__ __forceinline__ uint32_t arb_kept(uint32_t x) { return __shfl_sync(ARB_CUDA_FULL, x, 0); }
/* A pointer that offsets are added to last. */
template <typename T>
static __device__ __forceinline__ T *arb_kept_at(T *p) {
  uint64_t r;
  asm volatile("mov.b64 %0, %1;" : "=l"(r) : "l"(p));
  return reinterpret_cast<T *>(r);
}

#endif
