/* The one order in which a row of floats is summed: 32 lanes from +0, lane j adds elements j, j+32, j+64, ... in order, then
 * lanes combine by xor 16, 8, 4, 2, 1. The same order on a warp, on AVX-512 and in plain C (docs/arithmetic.md, "Row sums").
 * Host C only: GPU backends write the same order with warp shuffles. */
#ifndef ARB_KERNELS_COMMON_REDUCE_H
#define ARB_KERNELS_COMMON_REDUCE_H

#include <string.h>

#include "kernels/common/bits.h"

#define ARB_LANES 32

/* Vector types of gcc and clang, lowered to whatever the target has; unaligned loads go through memcpy. */
typedef float arb_f32x16 __attribute__((vector_size(64)));

static inline float arb_lanes_combine(float lane[ARB_LANES]) {
  for (int o = ARB_LANES / 2; o > 0; o /= 2)
    for (int j = 0; j < o; j++) lane[j] += lane[j + o];
  return lane[0];
}

/* sum of a[i] * b[i] */
static inline float arb_row_dot(const float *a, const float *b, int64_t length) {
  float lane[ARB_LANES];
  arb_f32x16 s0 = {0}, s1 = {0}, x, y;
  int64_t i = 0;
  for (; i + ARB_LANES <= length; i += ARB_LANES) {
    memcpy(&x, a + i, sizeof x);
    memcpy(&y, b + i, sizeof y);
    s0 += x * y;
    memcpy(&x, a + i + 16, sizeof x);
    memcpy(&y, b + i + 16, sizeof y);
    s1 += x * y;
  }
  memcpy(lane, &s0, sizeof s0);
  memcpy(lane + 16, &s1, sizeof s1);
  for (int j = 0; i + j < length; j++) lane[j] += a[i + j] * b[i + j];
  return arb_lanes_combine(lane);
}

/* sum of a[i] */
static inline float arb_row_sum(const float *a, int64_t length) {
  float lane[ARB_LANES];
  arb_f32x16 s0 = {0}, s1 = {0}, x;
  int64_t i = 0;
  for (; i + ARB_LANES <= length; i += ARB_LANES) {
    memcpy(&x, a + i, sizeof x);
    s0 += x;
    memcpy(&x, a + i + 16, sizeof x);
    s1 += x;
  }
  memcpy(lane, &s0, sizeof s0);
  memcpy(lane + 16, &s1, sizeof s1);
  for (int j = 0; i + j < length; j++) lane[j] += a[i + j];
  return arb_lanes_combine(lane);
}

/* Bits of max |a[i]|; 0x7f800000 or more when a value is not finite. Exact in any order. */
static inline uint32_t arb_row_max_bits(const float *a, int64_t length) {
  uint32_t m = 0;
  for (int64_t i = 0; i < length; i++) {
    const uint32_t b = arb_bits_of_f32(a[i]) & 0x7fffffffu;
    m = b > m ? b : m;
  }
  return m;
}

#endif
