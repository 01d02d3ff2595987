/* Float bit patterns, bf16 and the few IEEE operations the shared functions are built on. Host and device give the same bits.
   Every operation here is exact or correctly rounded, so it has one result; NaN results are the canonical one, because the
   payload of a computed NaN differs between x86 and a GPU. */
#ifndef ARB_KERNELS_COMMON_BITS_H
#define ARB_KERNELS_COMMON_BITS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define ARB_HD static __host__ __device__ __forceinline__
#else
#define ARB_HD static inline
#endif

#define ARB_F32_NAN_BITS 0x7fc00000u
#define ARB_F32_INF_BITS 0x7f800000u
#define ARB_BF16_NAN_BITS 0x7fc0u

ARB_HD uint32_t arb_bits_of_f32(float x) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(x);
#else
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
#endif
}

ARB_HD float arb_f32_of_bits(uint32_t u) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(u);
#else
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
#endif
}

/* One rounding each, whatever the compiler flags of a device build are. */
ARB_HD float arb_fmaf(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return fmaf(a, b, c);
#endif
}

ARB_HD float arb_sqrtf(float x) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(x);
#else
  return sqrtf(x);
#endif
}

ARB_HD float arb_divf(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

/* Nearest integer, ties to even; keeps the sign of zero. */
ARB_HD float arb_rintf(float x) { return rintf(x); }
ARB_HD float arb_floorf(float x) { return floorf(x); }

/* |x| by the sign bit: exact for every pattern. */
ARB_HD float arb_fabsf(float x) { return arb_f32_of_bits(arb_bits_of_f32(x) & 0x7fffffffu); }

/* a > b ? a : b, so the second operand wins for a NaN and for zeros of both signs (fmaxf leaves the latter open). */
ARB_HD float arb_fmaxf(float a, float b) { return a > b ? a : b; }
ARB_HD float arb_fminf(float a, float b) { return a < b ? a : b; }

/* 2^e exactly, -126 <= e <= 127. */
ARB_HD float arb_pow2i(int32_t e) { return arb_f32_of_bits((uint32_t)(e + 127) << 23); }

/* bf16 (the high half of a float), nearest even; subnormals kept, overflow to infinity, any NaN to 0x7fc0.
   Adding 0x7fff plus the lowest kept bit carries exactly when the dropped half rounds up. */
ARB_HD uint16_t arb_bf16_of_f32(float x) {
  uint32_t u = arb_bits_of_f32(x);
  uint32_t r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (uint16_t)((u & 0x7fffffffu) > ARB_F32_INF_BITS ? ARB_BF16_NAN_BITS : r);
}

ARB_HD float arb_f32_of_bf16(uint16_t h) { return arb_f32_of_bits((uint32_t)h << 16); }

#endif
