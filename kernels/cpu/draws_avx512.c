/* Flags: -mavx512f */

#include "kernels/cpu/draws.h"

#include <immintrin.h>
#include <string.h>

/* One counter word of 8 blocks sits in the low halves of 8 64-bit lanes. vpmuludq reads low halves only, so the high halves
 * may hold anything and a round is two multiplications, two shifts and two three-way xors. */
#define SETS 4 /* independent vectors in flight, to cover the latency of the multiplications */

typedef struct {
  __m512i c0[SETS], c1[SETS], c2[SETS], c3[SETS];
} counters;

static inline __m512i both(uint32_t x) { return _mm512_set1_epi64((long long)x); }
static inline __m512i xor3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }

static inline void rounds(counters *c, arb_philox_key key) {
  const __m512i m0 = both(ARB_PHILOX_M0), m1 = both(ARB_PHILOX_M1);
#pragma GCC unroll 7
  for (int r = 0; r < ARB_PHILOX_ROUNDS; r++) {
    const __m512i k0 = both(key.k0), k1 = both(key.k1);
#pragma GCC unroll 4
    for (int i = 0; i < SETS; i++) {
      const __m512i p0 = _mm512_mul_epu32(c->c0[i], m0), p1 = _mm512_mul_epu32(c->c2[i], m1);
      c->c0[i] = xor3(_mm512_srli_epi64(p1, 32), c->c1[i], k0);
      c->c1[i] = p1;
      c->c2[i] = xor3(_mm512_srli_epi64(p0, 32), c->c3[i], k1);
      c->c3[i] = p0;
    }
    key.k0 += ARB_PHILOX_W0;
    key.k1 += ARB_PHILOX_W1;
  }
}

/* Blocks 8i .. 8i + 7 of a set as 64 draws: words 0 and 1 of a block in one lane, 2 and 3 in another, then pairs of lanes. */
static inline void store(const counters *c, int i, uint16_t *out) {
  const __m512i lo = _mm512_mask_shuffle_epi32(c->c0[i], 0xAAAA, c->c1[i], _MM_PERM_CCAA);
  const __m512i hi = _mm512_mask_shuffle_epi32(c->c2[i], 0xAAAA, c->c3[i], _MM_PERM_CCAA);
  const __m512i first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(lo, first, hi));
  _mm512_storeu_si512(out + 32, _mm512_permutex2var_epi64(lo, second, hi));
}

void arb_draws_avx512(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                      uint16_t *out) {
  const __m512i lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
  int64_t left = arb_pad8(count);
  uint32_t block = (uint32_t)(first / 8);
  while (left > 0) {
    counters c;
#pragma GCC unroll 4
    for (int i = 0; i < SETS; i++) {
      /* 32-bit wrap of the counter happens in the low half; the carry above it is ignored */
      c.c0[i] = _mm512_add_epi64(both(block + 8u * (uint32_t)i), lanes);
      c.c1[i] = both(tensor);
      c.c2[i] = both(step);
      c.c3[i] = both(grain);
    }
    rounds(&c, key);
    if (left >= 64 * SETS) {
#pragma GCC unroll 4
      for (int i = 0; i < SETS; i++) store(&c, i, out + 64 * i);
    } else {
      uint16_t tail[64 * SETS];
#pragma GCC unroll 4
      for (int i = 0; i < SETS; i++) store(&c, i, tail + 64 * i);
      memcpy(out, tail, (size_t)left * sizeof *out);
    }
    left -= 64 * SETS;
    out += 64 * SETS;
    block += 8 * SETS;
  }
}
