/* The one-byte weight: a trit T in {-1, 0, +1} and its accumulator A, an int8 position on the latent line where one trit
 * step is ARB_UNITS units. T follows A with a hysteresis of one whole step (docs/arithmetic.md, "The state byte").
 *
 *   code = 85 * (T + 1) + (A - Amin(T)),  Amin = -84, -42, 0,  0 <= A - Amin <= 84;  code 255 is illegal.
 *
 * This header is the only place that knows the encoding. Shared by every backend. */
#ifndef ARB_KERNELS_COMMON_TRIT_H
#define ARB_KERNELS_COMMON_TRIT_H

#include "kernels/common/bits.h"

#define ARB_UNITS 42          /* accumulator units in one trit step; the largest |dA| that lands on a legal pair */
#define ARB_CODES_PER_TRIT 85 /* accumulator positions of one trit value */
#define ARB_CODE_ILLEGAL 255
#define ARB_TRITS_PER_BYTE 5 /* 3^5 = 243 */

ARB_HD int arb_code_trit(uint8_t code) { return (code >= 170) - (code < 85); }

ARB_HD int arb_code_accumulator(uint8_t code) {
  const int t = arb_code_trit(code);
  return (int)code - ARB_CODES_PER_TRIT * (t + 1) + (ARB_UNITS * t - ARB_UNITS);
}

/* T in {-1,0,1} and A legal for T. */
ARB_HD uint8_t arb_code_make(int t, int a) { return (uint8_t)(ARB_CODES_PER_TRIT * (t + 1) + a - (ARB_UNITS * t - ARB_UNITS)); }

/* Moves A by da, |da| <= 42, saturates at +-84 and lets T follow. */
ARB_HD uint8_t arb_code_move(uint8_t code, int da) {
  int t = arb_code_trit(code);
  int a = arb_code_accumulator(code) + da;
  a = a > 2 * ARB_UNITS ? 2 * ARB_UNITS : a;
  a = a < -2 * ARB_UNITS ? -2 * ARB_UNITS : a;
  /* leaves -1 when A > 0, 0 when A > 42 or A < -42, +1 when A < 0: i.e. when A leaves [42T - 42, 42T + 42] */
  t += (a > ARB_UNITS * t + ARB_UNITS) - (a < ARB_UNITS * t - ARB_UNITS);
  return arb_code_make(t, a);
}

/* Packed trits, what ranks send each other: digit i of a byte, T + 1, counts 3^i. A row begins on a byte; digits past its end
 * are 0. Derived from codes and never saved. */
ARB_HD int64_t arb_packed_bytes(int64_t k) { return (k + ARB_TRITS_PER_BYTE - 1) / ARB_TRITS_PER_BYTE; }

ARB_HD uint8_t arb_trits_pack(const uint8_t *code, int count) {
  int sum = 0;
  for (int i = count - 1; i >= 0; i--) sum = sum * 3 + arb_code_trit(code[i]) + 1;
  return (uint8_t)sum;
}

/* The code with trit i of a byte and A = 0, which every trit allows. */
ARB_HD uint8_t arb_trits_code(uint8_t packed, int i) {
  int digits = packed;
  for (; i > 0; i--) digits /= 3;
  return arb_code_make(digits % 3 - 1, 0);
}

#endif
