/* Flags: -mavx2 -mfma
 *
 * Forward and dx: vpmaddubsw multiplies u8 (trit + 1) by s8 and adds pairs into int16; those stay in int16 lanes for up to 64
 * groups of four. Bound: a lane adds two products a group, |2 * 127 + 2 * 127| = 508, and 64 * 508 = 32512 < 32768.
 * dW: both operands as int16, vpmaddwd into int32: q + 128 with tq would overflow the pairs of vpmaddubsw.
 * 6 x 16 tile: 12 accumulators, 2 of B, 1 of A and 1 product are the 16 registers. */
#include "kernels/cpu/gemm_block.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/common/scale.h"
#include "kernels/common/trit.h"

#define MR 6
#define NR 16
#define INT16_GROUPS 64

static inline __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline __m128i load128(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline void store(void *p, __m256i x) { _mm256_storeu_si256((__m256i *)p, x); }
static inline void store128(void *p, __m128i x) { _mm_storeu_si128((__m128i *)p, x); }

/* State byte -> trit + 1: saturating subtraction leaves something exactly where the code is above. */
static inline __m256i trits(__m256i code) {
  const __m256i one = _mm256_set1_epi8(1);
  const __m256i a = _mm256_min_epu8(_mm256_subs_epu8(code, _mm256_set1_epi8(ARB_CODES_PER_TRIT - 1)), one);
  const __m256i b = _mm256_min_epu8(_mm256_subs_epu8(code, _mm256_set1_epi8((char)(2 * ARB_CODES_PER_TRIT - 1))), one);
  return _mm256_add_epi8(a, b);
}
static inline __m128i trits128(__m128i code) { return _mm256_castsi256_si128(trits(_mm256_castsi128_si256(code))); }

/* r[i] = dwords i of 8 rows, from 8 rows of 8 dwords. */
static inline void transpose8(__m256i r[8]) {
  __m256i t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    r[c] = _mm256_permute2x128_si256(u[c], u[c + 4], 0x20);
    r[c + 4] = _mm256_permute2x128_si256(u[c], u[c + 4], 0x31);
  }
}

static void pack_rows(const uint8_t *code, int64_t ld, int rows, int64_t k, void *panel) {
  for (int64_t k0 = 0; k0 < k; k0 += 32) {
    const int64_t in = k - k0 < 32 ? k - k0 : 32;
    const int groups = (int)((in + 3) / 4);
    uint8_t *out = (uint8_t *)panel + k0 * NR;
    for (int half = 0; half < NR; half += 8) {
      __m256i r[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) {
        const uint8_t *from = code + (half + i) * ld + k0;
        if (half + i < rows && in == 32) {
          r[i] = trits(load(from));
        } else {
          uint8_t part[32] = {0};
          if (half + i < rows) memcpy(part, from, (size_t)in);
          r[i] = trits(load(part));
        }
      }
      transpose8(r);
      for (int g = 0; g < groups; g++) store(out + g * NR * 4 + half * 4, r[g]);
    }
  }
}

/* Up to `count` bytes, zeros after. */
static inline __m128i load_part(const void *p, int count) {
  if (count >= 16) return load128(p);
  uint8_t part[16] = {0};
  if (count > 0) memcpy(part, p, (size_t)count);
  return load128(part);
}

static void pack_columns(const uint8_t *code, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes) {
  for (int c0 = 0; c0 < columns; c0 += NR) {
    uint8_t *out = (uint8_t *)panels + (size_t)(c0 / NR) * panel_bytes;
    for (int64_t i = 0; i < rows; i += 4, out += NR * 4) {
      __m128i r[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++)
        r[j] = i + j < rows ? trits128(load_part(code + (i + j) * ld + c0, columns - c0)) : _mm_setzero_si128();
      const __m128i a0 = _mm_unpacklo_epi8(r[0], r[1]), a1 = _mm_unpackhi_epi8(r[0], r[1]);
      const __m128i b0 = _mm_unpacklo_epi8(r[2], r[3]), b1 = _mm_unpackhi_epi8(r[2], r[3]);
      store128(out, _mm_unpacklo_epi16(a0, b0));
      store128(out + 16, _mm_unpackhi_epi16(a0, b0));
      store128(out + 32, _mm_unpacklo_epi16(a1, b1));
      store128(out + 48, _mm_unpackhi_epi16(a1, b1));
    }
  }
}

/* 16 columns of two rows as int16 pairs. */
static inline void pair(const int8_t *x, int64_t ld, int64_t rows, int columns, __m256i o[2]) {
  const __m128i r0 = load_part(x, columns), r1 = rows > 1 ? load_part(x + ld, columns) : _mm_setzero_si128();
  o[0] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(r0, r1));
  o[1] = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(r0, r1));
}

static void pack_dw_b(const int8_t *q, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes) {
  for (int c0 = 0; c0 < columns; c0 += NR) {
    uint8_t *out = (uint8_t *)panels + (size_t)(c0 / NR) * panel_bytes;
    for (int64_t i = 0; i < rows; i += 2, out += NR * 4) {
      __m256i o[2];
      pair(q + i * ld + c0, ld, rows - i, columns - c0, o);
      store(out, o[0]);
      store(out + 32, o[1]);
    }
  }
}

static void pack_dw_a(const int8_t *tq, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes,
                      int32_t *start) {
  uint8_t *out = panels;
  for (int64_t i = 0; i < rows; i += 2, out += MR * 4) {
    uint8_t row[ARB_GEMM_A_COLUMNS * 4];
    for (int c0 = 0; c0 < ARB_GEMM_A_COLUMNS; c0 += 16) {
      __m256i o[2];
      pair(tq + i * ld + c0, ld, rows - i, columns - c0, o);
      store(row + c0 * 4, o[0]);
      store(row + c0 * 4 + 32, o[1]);
    }
    for (int p = 0; p < ARB_GEMM_A_COLUMNS / MR; p++) memcpy(out + (size_t)p * panel_bytes, row + p * MR * 4, MR * 4);
  }
  memset(start, 0, ARB_GEMM_A_COLUMNS * sizeof *start);
}

static void row_start(const int8_t *a, int64_t lda, int64_t k, int32_t *start) {
  const __m256i one = _mm256_set1_epi8(1), pairs = _mm256_set1_epi16(1);
  for (int r = 0; r < MR; r++, a += lda) {
    __m256i sum = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 32 <= k; i += 32) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(one, load(a + i)), pairs));
    int32_t lanes[8], total = 0;
    store(lanes, sum);
    for (int j = 0; j < 8; j++) total += lanes[j];
    for (; i < k; i++) total += a[i];
    start[r] = -total;
  }
}

static inline __m256i broadcast4(const int8_t *p) {
  int32_t x;
  memcpy(&x, p, sizeof x);
  return _mm256_set1_epi32(x);
}

/* __m256i is four 64-bit lanes to gcc, and accumulators of that type change type in every step, which costs it the registers:
 * the loop below then runs from the stack. */
typedef short lanes16 __attribute__((vector_size(32)));

/* sums[MR][NR] += A B over at most INT16_GROUPS groups. Rows of A lie lda apart. Not inlined, to leave all registers to it. */
static __attribute__((noinline)) void multiply_some(const int8_t *a, int64_t lda, const uint8_t *b, int64_t groups,
                                                    int32_t sums[MR][NR]) {
  const int8_t *a3 = a + 3 * lda;
  lanes16 acc[MR][2];
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++) acc[r][0] = acc[r][1] = (lanes16)_mm256_setzero_si256();
  for (; groups > 0; groups--) {
    const __m256i b0 = load(b), b1 = load(b + 32);
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++) {
      const __m256i x = broadcast4((r < 3 ? a : a3) + (r % 3) * lda);
      acc[r][0] += (lanes16)_mm256_maddubs_epi16(b0, x);
      acc[r][1] += (lanes16)_mm256_maddubs_epi16(b1, x);
    }
    a += 4;
    a3 += 4;
    b += NR * 4;
  }
  const __m256i pairs = _mm256_set1_epi16(1);
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++) {
    store(&sums[r][0], _mm256_add_epi32(load(&sums[r][0]), _mm256_madd_epi16((__m256i)acc[r][0], pairs)));
    store(&sums[r][8], _mm256_add_epi32(load(&sums[r][8]), _mm256_madd_epi16((__m256i)acc[r][1], pairs)));
  }
}

/* sums[MR][NR] = start + A B. */
static void multiply(const int8_t *a, int64_t lda, const uint8_t *b, int64_t groups, const int32_t *start,
                     int32_t sums[MR][NR]) {
  for (int r = 0; r < MR; r++) {
    store(&sums[r][0], _mm256_set1_epi32(start[r]));
    store(&sums[r][8], _mm256_set1_epi32(start[r]));
  }
  for (int64_t g = 0; g < groups; g += INT16_GROUPS)
    multiply_some(a + 4 * g, lda, b + g * NR * 4, groups - g < INT16_GROUPS ? groups - g : INT16_GROUPS, sums);
}

/* arb_bf16_of_f32 of 8 floats, in the low halves of 32-bit lanes. */
static inline __m256i bf16(__m256 x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(ARB_BF16_NAN_BITS), nan);
}

static void forward(const int8_t *a, int64_t lda, const void *b, int64_t groups, const int32_t *start, int rows, int columns,
                    const float *row_scale, const float *column_scale, uint16_t *out, int64_t ldo) {
  int32_t sums[MR][NR];
  multiply(a, lda, b, groups, start, sums);
  const __m256 c0 = _mm256_loadu_ps(column_scale), c1 = _mm256_loadu_ps(column_scale + 8);
  for (int r = 0; r < rows; r++, out += ldo) {
    const __m256 s = _mm256_set1_ps(row_scale[r]);
    const __m256i y0 = bf16(_mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(load(&sums[r][0])), s), c0));
    const __m256i y1 = bf16(_mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(load(&sums[r][8])), s), c1));
    const __m256i y = _mm256_permute4x64_epi64(_mm256_packus_epi32(y0, y1), 0xd8);
    if (columns == NR) {
      store(out, y);
    } else {
      uint16_t part[NR];
      store(part, y);
      memcpy(out, part, (size_t)columns * sizeof *out);
    }
  }
}

static void dw(const void *a, const void *b, int64_t groups, const int32_t *start, int32_t *c, int64_t ldc, int accumulate) {
  (void)start;
  const int8_t *pa = a;
  const uint8_t *pb = b;
  __m256i acc[MR][2];
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
  for (; groups > 0; groups--) {
    const __m256i b0 = load(pb), b1 = load(pb + 32);
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++) {
      const __m256i x = broadcast4(pa + 4 * r);
      acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(b0, x));
      acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(b1, x));
    }
    pa += MR * 4;
    pb += NR * 4;
  }
#pragma GCC unroll 6
  for (int r = 0; r < MR; r++) {
    int32_t *o = c + r * ldc;
    if (accumulate) {
      acc[r][0] = _mm256_add_epi32(acc[r][0], load(o));
      acc[r][1] = _mm256_add_epi32(acc[r][1], load(o + 8));
    }
    store(o, acc[r][0]);
    store(o + 8, acc[r][1]);
  }
}

static void cast_votes(const int32_t *d, int64_t count, float scale, float vmax, const uint16_t *draws, int8_t *votes) {
  const __m256 s = _mm256_set1_ps(scale), hi = _mm256_set1_ps(vmax), lo = _mm256_set1_ps(-vmax), one = _mm256_set1_ps(1.0f);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    __m256 x = _mm256_mul_ps(_mm256_cvtepi32_ps(load(d + i)), s);
    x = _mm256_max_ps(_mm256_min_ps(x, hi), lo);
    const __m256 f = _mm256_floor_ps(x);
    const __m256 r = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(load128(draws + i)));
    const __m256 cut = _mm256_mul_ps(_mm256_add_ps(r, _mm256_set1_ps(0.5f)), _mm256_set1_ps(0x1p-16f));
    const __m256 up = _mm256_and_ps(_mm256_cmp_ps(cut, _mm256_sub_ps(x, f), _CMP_LT_OQ), one);
    const __m256i v = _mm256_cvttps_epi32(_mm256_add_ps(f, up));
    const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i old = _mm_loadl_epi64((const __m128i *)(const void *)(votes + i));
    _mm_storel_epi64((__m128i *)(void *)(votes + i), _mm_add_epi8(old, _mm_packs_epi16(w, w)));
  }
  for (; i < count; i++) {
    const float x = arb_fmaxf(arb_fminf((float)d[i] * scale, vmax), -vmax);
    votes[i] = (int8_t)(votes[i] + (int)arb_stochastic_round(x, draws[i]));
  }
}

const arb_gemm_level arb_gemm_level_avx2 = {
    .mr = MR,
    .nr = NR,
    .step = 4,
    .dw_step = 2,
    .dw_size = 2,
    .pack_rows = pack_rows,
    .pack_columns = pack_columns,
    .row_start = row_start,
    .forward = forward,
    .pack_dw_b = pack_dw_b,
    .pack_dw_a = pack_dw_a,
    .dw = dw,
    .votes = cast_votes,
    .draws = arb_draws_avx2,
};
