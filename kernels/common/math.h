/* The transcendental functions of the training step: the same bits on the CPU, under any vector width, and on a GPU.
 *
 * Only + - * /, sqrt and fused multiply-add with one rounding each, integer operations on bit patterns and selects; no
 * table, no branch, no loop, no libm. A fused operation happens where arb_fmaf is written and nowhere else: compile with
 * contraction off. A plain loop over arb_expf, arb_logf, arb_sigmoidf or arb_tanhf is vectorised by the compiler.
 *
 * Every coefficient list is our own fit: minimise the largest error of the function, relative to the function (a linear
 * program, or Remez exchange, over Chebyshev points in 40-digit arithmetic), round the lowest coefficient to float, fit
 * the others again, and so on upwards. "Fit error" is the relative error of the rounded polynomial in exact arithmetic.
 * "Max error" is in units in the last place of the result, measured over all 2^32 inputs against MPFR (tools/ulp).
 * Neighbouring inputs may step backwards by one unit in exp, sigmoid and erf; the others are monotone without exception.
 * Subnormal inputs and results are kept. A NaN result is always 0x7fc00000, so NaNs compare equal across backends too. */
#ifndef ARB_KERNELS_COMMON_MATH_H
#define ARB_KERNELS_COMMON_MATH_H

#include "kernels/common/bits.h"

/* 1.5 * 2^23: adding it rounds |x| < 2^22 to an integer, ties to even, left in the low bits of the sum. */
#define ARB_RINT_MAGIC_ 0x1.8p23f

/* |a| with the sign of b. */
ARB_HD float arb_copysignf(float a, float b) {
  return arb_f32_of_bits((arb_bits_of_f32(a) & 0x7fffffffu) | (arb_bits_of_f32(b) & 0x80000000u));
}

/* e^x for -104 <= x <= 89: e^x = 2^k e^r, k = rint(x / ln 2), |r| <= ln(2)/2 * (1 + 2^-16). ln 2 in two floats, the upper of
 * 15 bits: x - k * upper is exact, a multiple of 2^-25 below 1/2 (k = 0 or |x| > 0.34), and only the lower one rounds.
 * e^r = 1 + r + r^2 q(r), degree 4 in q, fit error 2^-28.2. 2^k as two powers of about half the exponent: the first
 * product is exact, the second rounds once, into the subnormals or to infinity as the value demands. */
ARB_HD float arb_exp_core_(float x) {
  float t = arb_fmaf(x, 0x1.715476p0f, ARB_RINT_MAGIC_);
  float k = t - ARB_RINT_MAGIC_;
  int32_t e = (int32_t)(arb_bits_of_f32(t) - 0x4b400000u); /* the integer k */
  int32_t e1 = e >> 1;
  float r = arb_fmaf(k, -0x1.62e4p-1f, x);
  r = arb_fmaf(k, -0x1.7f7d1cp-20f, r);
  float q = 0x1.6ac74ep-10f;
  q = arb_fmaf(q, r, 0x1.123dep-7f);
  q = arb_fmaf(q, r, 0x1.555858p-5f);
  q = arb_fmaf(q, r, 0x1.55548cp-3f);
  q = arb_fmaf(q, r, 0x1.fffffcp-2f);
  q = arb_fmaf(q, r, 1.0f);
  q = arb_fmaf(q, r, 1.0f);
  return q * arb_pow2i(e1) * arb_pow2i(e - e1);
}

/* e^x. Infinity above 88.72, 0 below -103.97. Max error 0.90 ulp. */
ARB_HD float arb_expf(float x) {
  float c = x > -104.0f ? x : -104.0f; /* a NaN is clamped too */
  float y = arb_exp_core_(c < 89.0f ? c : 89.0f);
  return x == x ? y : arb_f32_of_bits(ARB_F32_NAN_BITS);
}

/* log x. -inf for both zeros, NaN below zero. x = 2^e m with 2/3 <= m < 4/3 (0x3f2aaaab is 2/3; the difference of bit
 * patterns splits off the exponent), f = m - 1 exact, log x = e ln 2 + f + f^2 q(f), degree 8 in q, fit
 * error 2^-27.7; subnormals are scaled by 2^23 first. Max error 0.94 ulp. */
ARB_HD float arb_logf(float x) {
  int subnormal = x < 0x1p-126f;
  float s = subnormal ? x * 0x1p23f : x;
  uint32_t u = arb_bits_of_f32(s);
  uint32_t d = (u - 0x3f2aaaabu) & 0xff800000u;
  float e = (float)((int32_t)d >> 23) - (subnormal ? 23.0f : 0.0f);
  float f = arb_f32_of_bits(u - d) - 1.0f;
  float q = -0x1.07c86p-3f;
  q = arb_fmaf(q, f, 0x1.1e67a2p-3f);
  q = arb_fmaf(q, f, -0x1.f33302p-4f);
  q = arb_fmaf(q, f, 0x1.1ed66p-3f);
  q = arb_fmaf(q, f, -0x1.559c44p-3f);
  q = arb_fmaf(q, f, 0x1.99d044p-3f);
  q = arb_fmaf(q, f, -0x1.fffefcp-3f);
  q = arb_fmaf(q, f, 0x1.555506p-2f);
  q = arb_fmaf(q, f, -0.5f);
  float y = arb_fmaf(e, 0x1.62e43p-1f, arb_fmaf(f * f, q, f));
  y = x < arb_f32_of_bits(ARB_F32_INF_BITS) ? y : x; /* +inf (and NaN) */
  y = x == 0.0f ? -arb_f32_of_bits(ARB_F32_INF_BITS) : y;
  return x >= 0.0f ? y : arb_f32_of_bits(ARB_F32_NAN_BITS);
}

/* 1 / (1 + e^-x) as n / (1 + e), e = e^-|x|, n = 1 for x >= 0 and e below: no cancellation, no overflow. The sum 1 + e is
 * kept as d + c (its rounding error c is exact because e <= 1), and one correction step with the exact remainder
 * n - q (d + c) leaves about the error of e and the last rounding. Max error 1.48 ulp. */
ARB_HD float arb_sigmoidf(float x) {
  float a = arb_fabsf(x);
  float e = arb_exp_core_(a < 104.0f ? -a : -104.0f);
  float n = x < 0.0f ? e : 1.0f;
  float d = 1.0f + e;
  float c = e - (d - 1.0f);
  float inv = arb_divf(1.0f, d);
  float q = n * inv;
  float rem = arb_fmaf(-q, c, arb_fmaf(-q, d, n));
  float y = arb_fmaf(rem, inv, q);
  return x == x ? y : arb_f32_of_bits(ARB_F32_NAN_BITS);
}

/* tanh x. Below 0.625: x + x^3 q(x^2), degree 5 in q, fit error 2^-32.4. Above: 1 - 2 / (e^(2|x|) + 1), less than
 * 1/2 subtracted from 1; 1 from 10 on. Max error 1.37 ulp. */
ARB_HD float arb_tanhf(float x) {
  float a = arb_fabsf(x);
  float e = arb_exp_core_(a < 10.0f ? a + a : 20.0f);
  float big = 1.0f - arb_divf(2.0f, e + 1.0f);
  float s = a < 1.0f ? a * a : 1.0f;
  float q = 0x1.1a2816p-9f;
  q = arb_fmaf(q, s, -0x1.0c5edp-7f);
  q = arb_fmaf(q, s, 0x1.63a55p-6f);
  q = arb_fmaf(q, s, -0x1.b9f188p-5f);
  q = arb_fmaf(q, s, 0x1.11107ap-3f);
  q = arb_fmaf(q, s, -0x1.555554p-2f);
  float y = arb_copysignf(a < 0.625f ? arb_fmaf(q * s, a, a) : big, x);
  return x == x ? y : arb_f32_of_bits(ARB_F32_NAN_BITS);
}

/* erf x. Below 0.921875: x + x q(x^2), degree 6 in q, fit error 2^-30. Above: 1 - e^p(|x|), p fitted to log(erfc) with
 * weight erfc / erf up to 3.93, degree 7, fit error 2^-33; 1 from there on. Max error 1.08 ulp. */
ARB_HD float arb_erff(float x) {
  float a = arb_fabsf(x);
  float b = a < 3.93f ? a : 3.93f;
  float p = -0x1.62511ep-16f;
  p = arb_fmaf(p, b, 0x1.c7d64ap-12f);
  p = arb_fmaf(p, b, -0x1.116f6cp-8f);
  p = arb_fmaf(p, b, 0x1.9b9c36p-6f);
  p = arb_fmaf(p, b, -0x1.bb894cp-4f);
  p = arb_fmaf(p, b, -0x1.44456cp-1f);
  p = arb_fmaf(p, b, -0x1.21280cp0f);
  p = arb_fmaf(p, b, 0x1.6f633ep-13f);
  float big = 1.0f - arb_exp_core_(p);
  float s = a < 1.0f ? a * a : 1.0f;
  float q = 0x1.4f562ep-14f;
  q = arb_fmaf(q, s, -0x1.a606c2p-11f);
  q = arb_fmaf(q, s, 0x1.5449e4p-8f);
  q = arb_fmaf(q, s, -0x1.b80118p-6f);
  q = arb_fmaf(q, s, 0x1.ce2d64p-4f);
  q = arb_fmaf(q, s, -0x1.81274p-2f);
  q = arb_fmaf(q, s, 0x1.06eba8p-3f);
  float y = arb_copysignf(a < 0.921875f ? arb_fmaf(q, a, a) : big, x);
  return x == x ? y : arb_f32_of_bits(ARB_F32_NAN_BITS);
}

/* cos x for |x| <= 2^15; NaN beyond, on purpose: a larger angle is a caller's mistake here and a float has lost its phase.
 * k = rint(x * 2/pi), x - k pi/2 = r + l with pi/2 in three floats of 24 bits (75 bits): the first product cancels exactly
 * (both are multiples of 2^-24 and the difference is below 1), the second is split into product and error by fma and added
 * by Knuth's two-sum, the third joins the low part. Near a zero of cos the pair keeps the whole relative precision.
 * sin r = r + r^3 q, fit error 2^-28.0; cos r = 1 - r^2/2 + r^4 q, fit error 2^-33; the low part to first order.
 * Max error 1.15 ulp. */
ARB_HD float arb_cosf(float x) {
  int in = arb_fabsf(x) <= 0x1p15f;
  float v = in ? x : 0.0f;
  float t = arb_fmaf(v, 0x1.45f306p-1f, ARB_RINT_MAGIC_);
  float k = t - ARB_RINT_MAGIC_;
  uint32_t quadrant = arb_bits_of_f32(t); /* its two low bits: 0x4b400000 is a multiple of 4 */
  float hi = arb_fmaf(k, -0x1.921fb6p0f, v);
  float p = k * 0x1.777a5cp-25f;
  float pe = arb_fmaf(k, 0x1.777a5cp-25f, -p);
  float r = hi + p;
  float z = r - hi;
  float l = (hi - (r - z)) + (p - z);
  l = arb_fmaf(k, 0x1.ee59dap-50f, l + pe);
  float s = r * r;
  float q = -0x1.9955b6p-13f;
  q = arb_fmaf(q, s, 0x1.11077cp-7f);
  q = arb_fmaf(q, s, -0x1.555546p-3f);
  float sine = r + arb_fmaf(s * r, q, l);
  float w = 0x1.99e80cp-16f;
  w = arb_fmaf(w, s, -0x1.6c0c28p-10f);
  w = arb_fmaf(w, s, 0x1.55554ap-5f);
  float cosine = 1.0f + arb_fmaf(s, arb_fmaf(w, s, -0.5f), -(r * l));
  float y = (quadrant & 1u) != 0u ? sine : cosine;
  uint32_t sign = ((quadrant + 1u) & 2u) << 30; /* quadrants 1 and 2 are negative */
  y = arb_f32_of_bits(arb_bits_of_f32(y) ^ sign);
  return in ? y : arb_f32_of_bits(ARB_F32_NAN_BITS);
}

/* 1 / sqrt(x): the correctly rounded root, then the correctly rounded quotient, as the norm writes it. +-inf for +-0.
 * Max error 1.50 ulp. */
ARB_HD float arb_rsqrtf(float x) {
  float y = arb_divf(1.0f, arb_sqrtf(x));
  return y == y ? y : arb_f32_of_bits(ARB_F32_NAN_BITS);
}

#undef ARB_RINT_MAGIC_

#endif
