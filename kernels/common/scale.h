/* Powers of two as floats: row exponents in eighths of an octave, and exact integer powers for gradient scales. */
#ifndef ARB_KERNELS_COMMON_SCALE_H
#define ARB_KERNELS_COMMON_SCALE_H

#include "kernels/common/bits.h"

#define ARB_TINY 0x1p-100f  /* rows whose largest magnitude is below this quantise to zero with scale zero */
#define ARB_NO_SCALE 0x7fff /* dW exponent of a use that contributes nothing */

/* 2^(e/8), e an int8 row exponent: ldexp of one of eight correctly rounded constants, put together from bits. */
ARB_HD float arb_pow2_eighths(int e) {
  const uint32_t mantissa[8] = {0x000000u, 0x0b95c2u, 0x1837f0u, 0x25fed7u, 0x3504f3u, 0x45672au, 0x5744fdu, 0x6ac0c7u};
  return arb_f32_of_bits(((uint32_t)((e >> 3) + 127) << 23) | mantissa[e & 7]);
}

/* The smallest integer c with a <= 127 * 2^c, or ARB_NO_SCALE for a < 2^-100. a is finite and >= 0. */
ARB_HD int arb_dw_exponent(float a) {
  if (!(a >= ARB_TINY)) return ARB_NO_SCALE;
  const uint32_t bits = arb_bits_of_f32(a);
  const int e = (int)(bits >> 23) - 127;
  return (bits & 0x7fffffu) <= 0x7e0000u ? e - 6 : e - 5; /* 127 = 1.984375 * 2^6 and 0x7e0000 is that mantissa */
}

/* 2^e, 0 below -126, 2^96 above 96: the factor that turns a product D into vote units. */
ARB_HD float arb_vote_scale(int e) { return e < -126 ? 0.0f : arb_pow2i(e > 96 ? 96 : e); }

#endif
