/* What the kernel tests share: random samples, an own Philox, and the rounding rules of the arithmetic page written out
 * without the product's helpers. */
#ifndef ARB_TESTS_KERNELS_SAMPLES_H
#define ARB_TESTS_KERNELS_SAMPLES_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

__extension__ typedef unsigned __int128 wide_unsigned;
__extension__ typedef __int128 wide_signed;

static uint64_t sample_state = 88172645463325252u;

static inline uint64_t sample_u64(void) {
  sample_state ^= sample_state << 13;
  sample_state ^= sample_state >> 7;
  sample_state ^= sample_state << 17;
  return sample_state * 0x2545F4914F6CDD1Du;
}
static inline uint32_t sample_u32(void) { return (uint32_t)(sample_u64() >> 32); }
/* 0 .. n - 1 */
static inline int64_t sample_below(int64_t n) { return (int64_t)(sample_u64() >> 11) % n; }
static inline int64_t sample_between(int64_t low, int64_t high) { return low + sample_below(high - low + 1); }
static inline double sample_unit(void) { return ((double)(sample_u64() >> 11) + 0.5) * 0x1p-53; }
static inline float sample_normal(double deviation) {
  return (float)(deviation * sqrt(-2.0 * log(sample_unit())) * cos(6.283185307179586 * sample_unit()));
}

/* Philox4x32 of any number of rounds, after Salmon et al. 2011, section 4. */
typedef struct {
  uint32_t v[4];
} words4;
static inline words4 sample_philox(int rounds, words4 c, uint32_t k0, uint32_t k1) {
  for (int r = 0; r < rounds; r++) {
    const uint64_t a = c.v[0] * UINT64_C(0xD2511F53), b = c.v[2] * UINT64_C(0xCD9E8D57);
    const words4 next = {{(uint32_t)(b >> 32) ^ c.v[1] ^ k0, (uint32_t)(b & 0xffffffffu), (uint32_t)(a >> 32) ^ c.v[3] ^ k1,
                          (uint32_t)(a & 0xffffffffu)}};
    c = next;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/* The 16-bit draw of a logical element. purpose: its number in the list of the arithmetic page. */
static inline uint16_t sample_draw(uint64_t seed, int purpose, uint32_t tensor, uint32_t step, uint32_t grain,
                                   int64_t element) {
  const uint64_t key = seed ^ ((uint64_t)purpose << 56);
  const words4 counter = {{(uint32_t)(element / 8), tensor, step, grain}};
  const words4 block = sample_philox(7, counter, (uint32_t)key, (uint32_t)(key >> 32));
  const int half = (int)(element % 8);
  return (uint16_t)(half % 2 ? block.v[half / 2] >> 16 : block.v[half / 2] & 0xffffu);
}

static inline int64_t sample_pad8(int64_t n) { return n % 8 ? n + 8 - n % 8 : n; }

/* Stochastic rounding of a float as an integer; the remainder is rounded to float like everything in a step. */
static inline int64_t sample_round(float x, uint16_t r) {
  const float f = floorf(x), d = x - f;
  return (int64_t)f + (((double)r + 0.5) / 65536.0 < (double)d);
}

static inline double sample_clamp(double x, double limit) { return x < -limit ? -limit : x > limit ? limit : x; }

/* 2^(e/8) rounded to float: what the eight constants of the page are. */
static inline float sample_gain(int e) { return (float)exp2((double)e / 8.0); }

static inline double sample_bf16(uint16_t h) {
  const uint32_t bits = (uint32_t)h << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return (double)x;
}

/* The bf16 value nearest to a finite float, ties to even, by real arithmetic on its step. */
static inline double sample_nearest_bf16(float x) {
  int e;
  if (x == 0.0f) return (double)x;
  (void)frexp((double)x, &e); /* |x| in [2^(e-1), 2^e): 8 bits of significand */
  const double step = ldexp(1.0, e - 8 < -133 ? -133 : e - 8);
  return rint((double)x / step) * step;
}
static inline uint16_t sample_to_bf16(float x) {
  const float y = (float)sample_nearest_bf16(x);
  uint32_t bits;
  memcpy(&bits, &y, sizeof bits);
  return (uint16_t)(bits >> 16);
}

/* Trit and accumulator of a state byte by the table of legal pairs. */
static inline int sample_trit(uint8_t code) { return code < 85 ? -1 : code < 170 ? 0 : 1; }
static inline int sample_accumulator(uint8_t code) { return code < 85 ? code - 84 : code < 170 ? code - 127 : code - 170; }

/* Where a move ends: saturate, then at most one transition. */
static inline uint8_t sample_moved(uint8_t code, int da) {
  int t = sample_trit(code), a = sample_accumulator(code) + da;
  a = a > 84 ? 84 : a < -84 ? -84 : a;
  if (t == -1 && a > 0)
    t = 0;
  else if (t == 1 && a < 0)
    t = 0;
  else if (t == 0 && a > 42)
    t = 1;
  else if (t == 0 && a < -42)
    t = -1;
  return (uint8_t)(t == -1 ? a + 84 : t == 0 ? a + 127 : a + 170);
}

static inline void *sample_alloc(size_t bytes) {
  void *p = calloc(bytes ? bytes : 1, 1);
  assert_non_null(p);
  return p;
}

/* |got - want| <= bound, NaN fails. */
#define assert_near(got, want, bound)                                                                                   \
  do {                                                                                                                  \
    const double got_ = (double)(got), want_ = (double)(want), bound_ = (double)(bound);                                \
    if (!(fabs(got_ - want_) <= bound_)) fail_msg("%s = %.17g, expected %.17g within %.3g", #got, got_, want_, bound_); \
  } while (0)

#endif
