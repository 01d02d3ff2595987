/* Rounding to int8, and four bytes of a word at once: shorter forms, for GPUs, of what trit.h, scale.h and philox.h define.
 * Hosts compile them for tests/kernels/test_words.c, which holds each to its definition, so a machine without a GPU judges
 * them. */
#ifndef ARB_KERNELS_COMMON_WORDS_H
#define ARB_KERNELS_COMMON_WORDS_H

#include "kernels/common/philox.h"
#include "kernels/common/scale.h"
#include "kernels/common/trit.h"

#define ARB_RINT 0x1.8p23f /* adding it leaves the nearest integer in the low bits of the sum, |x| < 2^22 */

#ifdef __CUDA_ARCH__
#define ARB_UNROLL _Pragma("unroll")
#else
#define ARB_UNROLL
#endif

/* Byte j of the result is byte s of b:a, s = the low 3 bits of the selector's digit j; bit 3 spreads its sign. */
ARB_HD uint32_t arb_byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDA_ARCH__
  uint32_t out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selector)); /* __byte_perm ignores bit 3 */
  return out;
#else
  const uint64_t from = (uint64_t)b << 32 | a;
  uint32_t out = 0;
  for (int j = 0; j < 4; j++) {
    const uint32_t digit = selector >> (4 * j) & 15u, byte = (uint32_t)(from >> (8 * (digit & 7u))) & 255u;
    out |= (digit & 8u ? (byte >> 7) * 255u : byte) << (8 * j);
  }
  return out;
#endif
}

/* a + b rounded towards minus infinity; on hosts for finite sums above zero, and where a + b and its error do not overflow. */
ARB_HD float arb_add_down(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rd(a, b);
#else
  const float sum = a + b, part = sum - a, error = (a - (sum - part)) + (b - part);
  return error < 0.0f ? arb_f32_of_bits(arb_bits_of_f32(sum) - 1u) : sum;
#endif
}

/* ---- state bytes ---- */

/* Trits of two state bytes that lie in the low halves of 16 bits each: (3 c + 2) / 256 - 1 in the high halves, as int8. A carry
 * out of the lower one adds 1 to the upper 3 c + 2, which changes no trit; 255 is illegal. */
ARB_HD uint32_t arb_trit_pair(uint32_t c) { return c * 3u + 0xff02ff02u; }
/* The first and third of four state bytes for arb_trit_pair, and the second and fourth. */
ARB_HD uint32_t arb_even_bytes(uint32_t c) { return c & 0x00ff00ffu; }
ARB_HD uint32_t arb_odd_bytes(uint32_t c) { return arb_byte_perm(c, 0, 0x4341); }

/* Trits of four state bytes. */
ARB_HD uint32_t arb_trits4(uint32_t c) {
  return arb_byte_perm(arb_trit_pair(arb_even_bytes(c)), arb_trit_pair(arb_odd_bytes(c)), 0x7351);
}

/* 4x4 bytes: row[i] holds bytes i0 i1 i2 i3; out[j] = 0j 1j 2j 3j. */
ARB_HD void arb_transpose4(uint32_t r[4]) {
  const uint32_t a = arb_byte_perm(r[0], r[1], 0x5140), b = arb_byte_perm(r[2], r[3], 0x5140);
  const uint32_t c = arb_byte_perm(r[0], r[1], 0x7362), d = arb_byte_perm(r[2], r[3], 0x7362);
  r[0] = arb_byte_perm(a, b, 0x5410);
  r[1] = arb_byte_perm(a, b, 0x7632);
  r[2] = arb_byte_perm(c, d, 0x5410);
  r[3] = arb_byte_perm(c, d, 0x7632);
}

/* ---- rounding ---- */

/* Four low bytes in one word, first lowest. */
ARB_HD uint32_t arb_pack4(const uint32_t b[4]) {
  return arb_byte_perm(arb_byte_perm(b[0], b[1], 0x0040), arb_byte_perm(b[2], b[3], 0x0040), 0x5410);
}

/* Bits 16 .. 23 of four words in one, first lowest. */
ARB_HD uint32_t arb_pack4_high(const uint32_t b[4]) {
  return arb_byte_perm(arb_byte_perm(b[0], b[1], 0x0062), arb_byte_perm(b[2], b[3], 0x0062), 0x5410);
}

/* Low byte: the nearest integer of x, |x| <= 127 (arb_rint_small and a conversion). */
ARB_HD uint32_t arb_round_byte(float x) { return arb_bits_of_f32(x + ARB_RINT); }

/* (draw + 1/2) 2^-16, read off a mantissa, for the lower or the upper draw of a pair. */
ARB_HD float arb_draw_unit(uint32_t pair, int upper) {
  return arb_f32_of_bits(((upper ? pair >> 9 : pair << 7) & 0x7fff80u) | 0x3f800040u) - 1.0f;
}

/* Low byte: arb_stochastic_round(x, a draw) for |x| < 2^22, unit = arb_draw_unit. Added downwards, the constant leaves
 * floor(x), whose low bits are an integer's; the rest is the definition's own difference, rounded alike. */
ARB_HD uint32_t arb_stochastic_byte(float x, float unit) {
  const float t = arb_add_down(x, ARB_RINT), rest = x - (t - ARB_RINT);
  return arb_bits_of_f32(t) + (unit < rest ? 1u : 0u);
}

/* A vote in the low byte; what lies above it is of no meaning. No NaN comes here: d * scale is finite. */
ARB_HD uint32_t arb_vote_byte(int32_t d, float scale, float vmax, float unit) {
  return arb_stochastic_byte(fminf(fmaxf((float)d * scale, -vmax), vmax), unit);
}

/* Four elements of a gradient row in a word, arb_round_gradient of h * (unit 2^-15): the sum with the constant leaves the
 * nearest integer of h * unit in its low bits (a finite row stays within 127 * 2^15, the bound that the definition clamps to);
 * twice that and the draw carry into bits 16 to 23, and the constant into their highest. */
ARB_HD uint32_t arb_round4(const float *h, float unit, uint32_t draws01, uint32_t draws23) {
  uint32_t b[4];
  ARB_UNROLL
  for (int j = 0; j < 4; j++) {
    const uint32_t pair = j < 2 ? draws01 : draws23;
    b[j] = arb_bits_of_f32(h[j] * unit + ARB_RINT) * 2 + ((j & 1) ? pair >> 16 : pair & 0xffffu);
  }
  return arb_pack4_high(b) ^ 0x80808080u;
}

/* c + x0 b0 + x1 b1: the halves of x as numbers without sign, the lowest bytes of b with theirs. On a GPU such dot products
 * and operations on bits run side by side. */
ARB_HD uint32_t arb_dot2(uint32_t x, uint32_t b, uint32_t c) {
#ifdef __CUDA_ARCH__
  uint32_t out;
  asm("dp2a.lo.u32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(x), "r"(b), "r"(c));
  return out;
#else
  const int32_t b0 = (int8_t)b, b1 = (int8_t)(b >> 8);
  return c + (x & 0xffffu) * (uint32_t)b0 + (x >> 16) * (uint32_t)b1;
#endif
}

/* arb_rescale of element j of a word, with the lower draw of a pair for even j, the upper one for odd j: bits 16 .. 23. */
ARB_HD uint32_t arb_rescale_word(uint32_t q, int j, int32_t ratio, uint32_t pair) {
  const int32_t value = (int32_t)arb_byte_perm(q, 0, 0x8880u + 0x1111u * (uint32_t)j);
  return arb_dot2(pair, (j & 1) ? 0x100u : 1u, (uint32_t)(value * ratio));
}

/* arb_rescale of the four elements in a word, draws j .. j + 3 of a block (j = 0 or 4). */
ARB_HD uint32_t arb_rescale4(uint32_t q, int32_t ratio, uint32_t draws01, uint32_t draws23) {
  uint32_t b[4];
  ARB_UNROLL
  for (int j = 0; j < 4; j++) b[j] = arb_rescale_word(q, j, ratio, j < 2 ? draws01 : draws23);
  return arb_pack4_high(b);
}

/* A vote in bits 16 .. 23, arb_stochastic_round of the clamped d * scale, mostly by operations that leave those on bits alone.
 * With r the draw and f the floor of x, r + 1/2 < 2^16 (x - f) just when r < t - 2^16 f, t = ceil(2^16 x - 1/2); so the vote
 * is (t + 65535 - r) >> 16. Rounding upwards crosses no integer. Below zero the definition's own x - f rounds: there x goes
 * through 1 + x first (elsewhere below zero that is exact; where 2^100 x is above -1 the result is 0 either way). */
ARB_HD uint32_t arb_vote_bits(int32_t d, float scale, float vmax, uint32_t pair, int upper) {
  float x = fminf(fmaxf((float)d * scale, -vmax), vmax);
#ifdef __CUDA_ARCH__
  float lift;
  asm("mul.rn.sat.f32 %0, %1, %2;" : "=f"(lift) : "f"(x), "f"(-0x1p100f));
  x = __fsub_rn(__fadd_rn(x, lift), lift);
  const int32_t t = __float2int_ru(__fmaf_ru(x, 65536.0f, 65534.5f));
#else
  const float lift = x * -0x1p100f < 0.0f ? 0.0f : x * -0x1p100f > 1.0f ? 1.0f : x * -0x1p100f, sum = x + lift;
  x = sum - lift;
  const double y = (double)x * 65536.0 + 65534.5;
  const int32_t t = (int32_t)y + ((double)(int32_t)y < y);
#endif
  return arb_dot2(pair, upper ? 0xff00u : 0xffu, (uint32_t)t);
}

#endif
