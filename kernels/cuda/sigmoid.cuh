/* The sigmoid of kernels/common/math.h on the device, three ways with the same bits: by its polynomial for any float, by a
 * cheaper form of it for several floats at once, and from a table in shared memory for bf16 arguments, of which the ones that
 * matter are few. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_SIGMOID_CUH
#define ARB_KERNELS_CUDA_SIGMOID_CUH

#include "kernels/common/math.h"
#include "kernels/cuda/context.h"

/* 1 / d, correctly rounded, for 1 <= d <= 2: the chip's approximation and a Newton step, without the cases of a division.
 * Checked against the division for every such d (tests/gpu/test_sigmoid_cuda.cu). */
static __device__ __forceinline__ float arb_reciprocal_1_2(float d) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
  return arb_fmaf(r, arb_fmaf(-d, r, 1.0f), r);
}

/* The end of arb_sigmoidf from e = e^-|x|. */
static __device__ __forceinline__ float arb_sigmoid_of_exp(float x, float e) {
  const float n = x < 0.0f ? e : 1.0f;
  const float d = 1.0f + e;
  const float c = e - (d - 1.0f);
  const float inv = arb_reciprocal_1_2(d);
  const float q = n * inv;
  const float rem = arb_fmaf(-q, c, arb_fmaf(-q, d, n));
  return arb_fmaf(rem, inv, q);
}

/* arb_sigmoidf of any float. */
static __device__ __forceinline__ float arb_sigmoid(float x) {
  const float y = arb_sigmoid_of_exp(x, arb_exp_core_(fmaxf(-arb_fabsf(x), -104.0f))); /* a NaN is clamped too */
  return x == x ? y : arb_f32_of_bits(ARB_F32_NAN_BITS);
}

/* arb_expf of -87 <= x <= 0: the result is normal, so that one addition to the exponent scales it. */
#define ARB_EXP_NEAR (-87.0f)
static __device__ __forceinline__ float arb_exp_near(float x) {
  const float t = arb_fmaf(x, 0x1.715476p0f, 0x1.8p23f);
  const float k = t - 0x1.8p23f;
  float r = arb_fmaf(k, -0x1.62e4p-1f, x);
  r = arb_fmaf(k, -0x1.7f7d1cp-20f, r);
  float q = 0x1.6ac74ep-10f;
  q = arb_fmaf(q, r, 0x1.123dep-7f);
  q = arb_fmaf(q, r, 0x1.555858p-5f);
  q = arb_fmaf(q, r, 0x1.55548cp-3f);
  q = arb_fmaf(q, r, 0x1.fffffcp-2f);
  q = arb_fmaf(q, r, 1.0f);
  q = arb_fmaf(q, r, 1.0f);
  return arb_f32_of_bits(arb_bits_of_f32(q) + (arb_bits_of_f32(t) << 23));
}

/* arb_sigmoidf of x >= -87; e^-|x| of a larger magnitude is too small to matter. */
static __device__ __forceinline__ float arb_sigmoid_near(float x) {
  return arb_sigmoid_of_exp(x, arb_exp_near(fmaxf(-arb_fabsf(x), ARB_EXP_NEAR)));
}

/* arb_sigmoidf of N floats. */
template <int N>
static __device__ __forceinline__ void arb_sigmoids(const float *x, float *y) {
  float least = x[0];
#pragma unroll
  for (int j = 1; j < N; j++) asm("min.NaN.f32 %0, %1, %2;" : "=f"(least) : "f"(least), "f"(x[j]));
#pragma unroll
  for (int j = 0; j < N; j++) y[j] = arb_sigmoid_near(x[j]);
  if (least >= ARB_EXP_NEAR) return;
#pragma unroll
  for (int j = 0; j < N; j++)
    if (!(x[j] >= ARB_EXP_NEAR)) y[j] = arb_sigmoid(x[j]);
}

/* The table: sigmoid(z) at byte 4 i, sigmoid(-z) at byte 2^15 + 4 i, z the bf16 of bits FIRST + i. Below FIRST and above LAST,
 * infinity included, the function is constant in bf16 steps (checked for every bf16 by the same test). */
#define ARB_SIGMOID_FIRST 0x3300
#define ARB_SIGMOID_LAST 0x42d0
#define ARB_SIGMOID_COUNT (ARB_SIGMOID_LAST - ARB_SIGMOID_FIRST + 1)
#define ARB_SIGMOID_BYTES (32768 + (4 * ARB_SIGMOID_COUNT + 15) / 16 * 16)

/* By the whole block; the caller synchronises. */
static __device__ __forceinline__ void arb_sigmoid_fill(char *table) {
  for (int i = (int)threadIdx.x; i < ARB_SIGMOID_COUNT; i += (int)blockDim.x) {
    const float z = arb_f32_of_bits((uint32_t)(ARB_SIGMOID_FIRST + i) << 16);
    *reinterpret_cast<float *>(table + 4 * i) = arb_sigmoid(z);
    *reinterpret_cast<float *>(table + 32768 + 4 * i) = arb_sigmoid(-z);
  }
}

/* Of the two bf16 in w; a NaN counts as an infinity. */
static __device__ __forceinline__ void arb_sigmoid_pair(const char *table, uint32_t w, float y[2]) {
  const uint32_t i = __viaddmin_s16x2_relu(w & 0x7fff7fffu, (0x10000u - ARB_SIGMOID_FIRST) * 0x10001u,
                                           (uint32_t)(ARB_SIGMOID_COUNT - 1) * 0x10001u);
  const uint32_t at = 4 * i | (w & 0x80008000u);
  y[0] = *reinterpret_cast<const float *>(table + (at & 0xffffu));
  y[1] = *reinterpret_cast<const float *>(table + (at >> 16));
}

/* Of the eight bf16 in w. NANS: a NaN has a NaN; without, where the caller multiplies by the argument too, an infinity's. */
template <bool NANS>
static __device__ __forceinline__ void arb_sigmoid_eight(const char *table, const uint32_t w[4], float y[8]) {
  uint32_t nans = 0;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    arb_sigmoid_pair(table, w[j], y + 2 * j);
    if (NANS) nans |= (w[j] & 0x7fff7fffu) + 0x007f007fu;
  }
  if (NANS && (nans & 0x80008000u) != 0)
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const uint32_t z = (j & 1) ? w[j / 2] & 0xffff0000u : w[j / 2] << 16;
      if ((z & 0x7fffffffu) > ARB_F32_INF_BITS) y[j] = arb_f32_of_bits(ARB_F32_NAN_BITS);
    }
}

#endif
