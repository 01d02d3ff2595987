/* Flags: -mavx2 */

#include "kernels/cpu/draws.h"

#include <immintrin.h>
#include <string.h>

/* As draws_avx512.c on 4 lanes. Two sets in flight: eight registers of counters leave room for products. */
#define SETS 2

typedef struct {
  __m256i c0[SETS], c1[SETS], c2[SETS], c3[SETS];
} counters;

static inline __m256i both(uint32_t x) { return _mm256_set1_epi64x((long long)x); }
static inline __m256i xor3(__m256i a, __m256i b, __m256i c) { return _mm256_xor_si256(_mm256_xor_si256(a, c), b); }

static inline void rounds(counters *c, arb_philox_key key) {
  const __m256i m0 = both(ARB_PHILOX_M0), m1 = both(ARB_PHILOX_M1);
#pragma GCC unroll 7
  for (int r = 0; r < ARB_PHILOX_ROUNDS; r++) {
    const __m256i k0 = both(key.k0), k1 = both(key.k1);
#pragma GCC unroll 2
    for (int i = 0; i < SETS; i++) {
      const __m256i p0 = _mm256_mul_epu32(c->c0[i], m0), p1 = _mm256_mul_epu32(c->c2[i], m1);
      c->c0[i] = xor3(_mm256_srli_epi64(p1, 32), c->c1[i], k0);
      c->c1[i] = p1;
      c->c2[i] = xor3(_mm256_srli_epi64(p0, 32), c->c3[i], k1);
      c->c3[i] = p0;
    }
    key.k0 += ARB_PHILOX_W0;
    key.k1 += ARB_PHILOX_W1;
  }
}

static inline void store(const counters *c, int i, uint16_t *out) {
  const __m256i lo = _mm256_blend_epi32(c->c0[i], _mm256_slli_epi64(c->c1[i], 32), 0xAA);
  const __m256i hi = _mm256_blend_epi32(c->c2[i], _mm256_slli_epi64(c->c3[i], 32), 0xAA);
  const __m256i even = _mm256_unpacklo_epi64(lo, hi), odd = _mm256_unpackhi_epi64(lo, hi); /* blocks 0 2 and 1 3 */
  _mm256_storeu_si256((__m256i *)(void *)out, _mm256_permute2x128_si256(even, odd, 0x20));
  _mm256_storeu_si256((__m256i *)(void *)(out + 16), _mm256_permute2x128_si256(even, odd, 0x31));
}

void arb_draws_avx2(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                    uint16_t *out) {
  const __m256i lanes = _mm256_set_epi64x(3, 2, 1, 0);
  int64_t left = arb_pad8(count);
  uint32_t block = (uint32_t)(first / 8);
  while (left > 0) {
    counters c;
#pragma GCC unroll 2
    for (int i = 0; i < SETS; i++) {
      c.c0[i] = _mm256_add_epi64(both(block + 4u * (uint32_t)i), lanes);
      c.c1[i] = both(tensor);
      c.c2[i] = both(step);
      c.c3[i] = both(grain);
    }
    rounds(&c, key);
    if (left >= 32 * SETS) {
#pragma GCC unroll 2
      for (int i = 0; i < SETS; i++) store(&c, i, out + 32 * i);
    } else {
      uint16_t tail[32 * SETS];
#pragma GCC unroll 2
      for (int i = 0; i < SETS; i++) store(&c, i, tail + 32 * i);
      memcpy(out, tail, (size_t)left * sizeof *out);
    }
    left -= 32 * SETS;
    out += 32 * SETS;
    block += 4 * SETS;
  }
}
