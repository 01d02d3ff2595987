/* Logarithms, exponentials and averages in integers only: the update statistics R, C and M are log2 of mean squares in
 * Q15.16 (int32), so that no backend can round them differently (docs/arithmetic.md, "The update"). */
#ifndef ARB_KERNELS_COMMON_FIXED_H
#define ARB_KERNELS_COMMON_FIXED_H

#include "kernels/common/bits.h"

#define ARB_Q16_NONE INT32_MIN       /* never seen */
#define ARB_Q16_FLOOR (-300 * 65536) /* unused rows decay down to here */

/* floor(log2(x) * 2^16) to within one unit, x > 0, by repeated squaring of a 32-bit mantissa. */
ARB_HD int32_t arb_ilog2(uint64_t x) {
  int k = 63;
  while (!(x >> k)) k--;
  uint64_t m = k >= 31 ? x >> (k - 31) : x << (31 - k); /* Q1.31 in [1, 2) */
  int32_t frac = 0;
  for (int i = 0; i < 16; i++) {
    m = (m * m) >> 31; /* Q1.31 in [1, 4) */
    const int bit = (int)(m >> 32);
    m >>= bit;
    frac = (frac << 1) | bit;
  }
  return (int32_t)(((uint32_t)k << 16) + (uint32_t)frac);
}

/* 2^(-d / 2^17) in Q31 for 0 <= d < 2^17, by products of 2^(-1/2), 2^(-1/4), ... (each rounded constant, truncated). */
ARB_HD uint32_t arb_iexp2_fraction(uint32_t d) {
  const uint32_t root[17] = {0xB504F334u, 0xD744FCCBu, 0xEAC0C6E8u, 0xF5257D15u, 0xFA83B2DBu, 0xFD3E0C0Du,
                             0xFE9E115Cu, 0xFF4ECB59u, 0xFFA75652u, 0xFFD3A752u, 0xFFE9D2B3u, 0xFFF4E91Cu,
                             0xFFFA747Fu, 0xFFFD3A3Bu, 0xFFFE9D1Du, 0xFFFF4E8Eu, 0xFFFFA747u};
  uint64_t m = (uint64_t)1 << 31;
  for (int i = 0; i < 17; i++)
    if (d & (0x10000u >> i)) m = (m * root[i]) >> 32;
  return (uint32_t)m;
}

/* 2^(x / 2^17) as a float, the exponent clamped to +-30 octaves. x is a difference of Q15.16 logs, so x/2^17 is half of it. */
ARB_HD float arb_exp2_half(int64_t x) {
  const int64_t limit = (int64_t)30 << 17;
  x = x > limit ? limit : (x < -limit ? -limit : x);
  const int64_t up = (x + 131071) >> 17; /* ceil */
  const uint32_t d = (uint32_t)(up * 131072 - x);
  return (float)arb_iexp2_fraction(d) * arb_pow2i((int)up - 31);
}

/* log2((2^a + 2^b) / 2) in Q15.16; NONE means no value yet. */
ARB_HD int32_t arb_ema(int32_t a, int32_t b) {
  if (a == ARB_Q16_NONE) return b;
  if (b == ARB_Q16_NONE) return a;
  const int32_t hi = a > b ? a : b, lo = a > b ? b : a;
  const int64_t d = (int64_t)hi - lo;
  if (d >= (int64_t)31 << 16) return hi - 65536;
  const uint32_t whole = (uint32_t)(d >> 16), part = (uint32_t)(d & 65535) << 1;
  const uint64_t t = (uint64_t)arb_iexp2_fraction(part) >> whole; /* 2^-d in Q31 */
  return hi + arb_ilog2(((uint64_t)1 << 31) + t) - (32 << 16);
}

/* A statistic's next value: the average with the new mean square, or one octave less when this step brought none. */
ARB_HD int32_t arb_stat_next(int32_t old, int seen, int32_t now) {
  if (seen) return arb_ema(old, now);
  if (old == ARB_Q16_NONE) return old;
  return old - 65536 < ARB_Q16_FLOOR ? ARB_Q16_FLOOR : old - 65536;
}

/* The row exponent's step: the largest d in [-4, 4] with 32 S >= K V^2 Ga 4^d, -4 if none. S > 0; 8-bit votes (all products
 * stay below 2^63 for K < 2^24). */
ARB_HD int arb_p_step(uint64_t s, uint64_t k, uint64_t v, uint64_t grains) {
  const uint64_t lhs = s << 13, rhs = (k * v * v * grains) << 8; /* both sides times 2^8, so that 4^-4 stays whole */
  int d = 4;
  while (d > -4 && lhs < (d >= 0 ? rhs << (2 * d) : rhs >> (-2 * d))) d--;
  return d;
}

#endif
