/* Powers of two as floats: row exponents in eighths of an octave, and exact integer powers for gradient scales. */
#ifndef ARB_KERNELS_COMMON_SCALE_H
#define ARB_KERNELS_COMMON_SCALE_H

#include "kernels/common/philox.h" /* arb_rint_small */

#define ARB_TINY 0x1p-100f  /* rows whose largest magnitude is below this quantise to zero with scale zero */
#define ARB_NO_SCALE 0x7fff /* exponent of rows that contribute nothing */

/* 2^(e/8), e an int8 row exponent: ldexp of one of eight correctly rounded constants, put together from bits. */
ARB_HD float arb_pow2_eighths(int e) {
  const uint32_t mantissa[8] = {0x000000u, 0x0b95c2u, 0x1837f0u, 0x25fed7u, 0x3504f3u, 0x45672au, 0x5744fdu, 0x6ac0c7u};
  return arb_f32_of_bits(((uint32_t)((e >> 3) + 127) << 23) | mantissa[e & 7]);
}

/* Rows of int8 that are summed with their own scales, weight[m] * hq[m][n], brought to one power of two: c = the smallest
 * integer with every weight <= 2^c, tq = SR(hq * weight * 2^-c). In integers: the weight is rounded to 2^(c-16), the rest is
 * exact. `most` = the largest weight, finite and >= 0; below 2^-100 the rows contribute nothing: ARB_NO_SCALE. */
ARB_HD int arb_rows_exponent(float most) {
  if (!(most >= ARB_TINY)) return ARB_NO_SCALE;
  const uint32_t bits = arb_bits_of_f32(most);
  const int e = (int)(bits >> 23) - 127;
  return (bits & 0x7fffffu) == 0 ? e : e + 1;
}

/* A row's weight in units of 2^(c-16), 0 <= ratio <= 65536. */
ARB_HD int32_t arb_row_ratio(float weight, int c) {
  return c == ARB_NO_SCALE ? 0 : (int32_t)arb_rint_small(weight * arb_pow2i(16 - c));
}

/* SR(q * ratio / 65536) with 16 random bits. */
ARB_HD int32_t arb_rescale(int32_t q, int32_t ratio, uint32_t draw) { return (q * ratio + (int32_t)draw) >> 16; }

/* 2^e, 0 below -126, 2^96 above 96: the factor that turns a product D into vote units. */
ARB_HD float arb_vote_scale(int e) { return e < -126 ? 0.0f : arb_pow2i(e > 96 ? 96 : e); }

#endif
