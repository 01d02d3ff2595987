/* Flags: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
 *
 * vpdpbusd multiplies u8 by s8 in groups of four: B is trit + 1 or q + 128 as u8, A stays s8 and is broadcast four bytes at a
 * time. 12 x 32 tile: 24 accumulators, 2 of B and 1 of A are 27 of the 32 registers. */
#include "kernels/cpu/gemm_block.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/common/scale.h"
#include "kernels/common/trit.h"

#define MR 12
#define NR 32

static inline __mmask64 first64(int64_t n) { return n >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1; }
static inline __mmask16 first16(int n) { return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }
static inline __m512i load(const void *p) { return _mm512_loadu_si512(p); }
static inline void store(void *p, __m512i x) { _mm512_storeu_si512(p, x); }

/* State byte -> trit + 1. */
static inline __m512i trits(__m512i code) {
  const __m512i one = _mm512_set1_epi8(1);
  const __m512i above = _mm512_maskz_mov_epi8(_mm512_cmpge_epu8_mask(code, _mm512_set1_epi8(ARB_CODES_PER_TRIT)), one);
  return _mm512_mask_add_epi8(above, _mm512_cmpge_epu8_mask(code, _mm512_set1_epi8((char)(2 * ARB_CODES_PER_TRIT))), above,
                              one);
}

/* r[i] = dwords i of 16 rows, from 16 rows of 16 dwords. */
static inline void transpose16(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]); /* column 0 of lanes, rows i .. i + 3 */
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512i lo = _mm512_shuffle_i32x4(r[c], r[c + 4], 0x88), hi = _mm512_shuffle_i32x4(r[c], r[c + 4], 0xdd);
    const __m512i lo2 = _mm512_shuffle_i32x4(r[c + 8], r[c + 12], 0x88), hi2 = _mm512_shuffle_i32x4(r[c + 8], r[c + 12], 0xdd);
    t[c] = _mm512_shuffle_i32x4(lo, lo2, 0x88);
    t[c + 8] = _mm512_shuffle_i32x4(lo, lo2, 0xdd);
    t[c + 4] = _mm512_shuffle_i32x4(hi, hi2, 0x88);
    t[c + 12] = _mm512_shuffle_i32x4(hi, hi2, 0xdd);
  }
  memcpy(r, t, sizeof t);
}

static void pack_rows(const uint8_t *code, int64_t ld, int rows, int64_t k, void *panel) {
  for (int64_t k0 = 0; k0 < k; k0 += 64) {
    const __mmask64 in = first64(k - k0);
    const int groups = (int)((k - k0 < 64 ? k - k0 + 3 : 64) / 4);
    uint8_t *out = (uint8_t *)panel + k0 * NR;
    for (int half = 0; half < NR; half += 16) {
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++)
        r[i] = half + i < rows ? trits(_mm512_maskz_loadu_epi8(in, code + (half + i) * ld + k0)) : _mm512_setzero_si512();
      transpose16(r);
      if (groups == 16) {
#pragma GCC unroll 16
        for (int g = 0; g < 16; g++) store(out + g * NR * 4 + half * 4, r[g]);
      } else {
        for (int g = 0; g < groups; g++) store(out + g * NR * 4 + half * 4, r[g]);
      }
    }
  }
}

/* Four rows of 64 bytes -> o[i] = columns 16 i .. 16 i + 15, the four rows of a column side by side. */
static inline void interleave(const __m512i r[4], __m512i o[4]) {
  const __m512i a0 = _mm512_unpacklo_epi8(r[0], r[1]), a1 = _mm512_unpackhi_epi8(r[0], r[1]);
  const __m512i b0 = _mm512_unpacklo_epi8(r[2], r[3]), b1 = _mm512_unpackhi_epi8(r[2], r[3]);
  const __m512i u0 = _mm512_unpacklo_epi16(a0, b0), u1 = _mm512_unpackhi_epi16(a0, b0);
  const __m512i u2 = _mm512_unpacklo_epi16(a1, b1), u3 = _mm512_unpackhi_epi16(a1, b1);
  const __m512i v0 = _mm512_shuffle_i32x4(u0, u1, 0x88), v1 = _mm512_shuffle_i32x4(u0, u1, 0xdd);
  const __m512i v2 = _mm512_shuffle_i32x4(u2, u3, 0x88), v3 = _mm512_shuffle_i32x4(u2, u3, 0xdd);
  /* v0 = u0.0 u0.2 u1.0 u1.2, v1 = u0.1 u0.3 u1.1 u1.3 (lane numbers), v2 and v3 the same of u2, u3 */
  o[0] = _mm512_shuffle_i32x4(v0, v2, 0x88);
  o[1] = _mm512_shuffle_i32x4(v1, v3, 0x88);
  o[2] = _mm512_shuffle_i32x4(v0, v2, 0xdd);
  o[3] = _mm512_shuffle_i32x4(v1, v3, 0xdd);
}

static inline void load_rows(const void *p, int64_t ld, int64_t rows, __mmask64 in, __m512i r[4]) {
  const uint8_t *b = p;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) r[i] = i < rows ? _mm512_maskz_loadu_epi8(in, b + i * ld) : _mm512_setzero_si512();
}

static inline void store_panels(const __m512i o[4], int columns, uint8_t *out, size_t panel_bytes) {
  store(out, o[0]);
  store(out + 64, o[1]);
  if (columns > NR) {
    store(out + panel_bytes, o[2]);
    store(out + panel_bytes + 64, o[3]);
  }
}

static void pack_columns(const uint8_t *code, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes) {
  const __mmask64 in = first64(columns);
  uint8_t *out = panels;
  for (int64_t i = 0; i < rows; i += 4, out += NR * 4) {
    __m512i r[4], o[4];
    load_rows(code + i * ld, ld, rows - i, in, r);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) r[j] = trits(r[j]);
    interleave(r, o);
    store_panels(o, columns, out, panel_bytes);
  }
}

static void pack_dw_b(const int8_t *q, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes) {
  const __mmask64 in = first64(columns);
  const __m512i bias = _mm512_set1_epi8((char)0x80);
  uint8_t *out = panels;
  for (int64_t i = 0; i < rows; i += 4, out += NR * 4) {
    __m512i r[4], o[4];
    load_rows(q + i * ld, ld, rows - i, in, r);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) r[j] = _mm512_xor_si512(r[j], bias);
    interleave(r, o);
    store_panels(o, columns, out, panel_bytes);
  }
}

static void pack_dw_a(const int8_t *tq, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes,
                      int32_t *start) {
  const __mmask64 in = first64(columns);
  const __m512i one = _mm512_set1_epi8(1);
  __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0;
  uint8_t *out = panels;
  for (int64_t i = 0; i < rows; i += 4, out += MR * 4) {
    __m512i r[4], o[4];
    load_rows(tq + i * ld, ld, rows - i, in, r);
    interleave(r, o);
    s0 = _mm512_dpbusd_epi32(s0, one, o[0]);
    s1 = _mm512_dpbusd_epi32(s1, one, o[1]);
    s2 = _mm512_dpbusd_epi32(s2, one, o[2]);
    _mm512_mask_storeu_epi32(out, 0xfff, o[0]);
    _mm512_mask_storeu_epi32(out + panel_bytes, 0xfff, _mm512_alignr_epi32(o[1], o[0], 12));
    _mm512_mask_storeu_epi32(out + 2 * panel_bytes, 0xfff, _mm512_alignr_epi32(o[2], o[1], 8));
    _mm512_mask_storeu_epi32(out + 3 * panel_bytes, 0xfff, _mm512_alignr_epi32(o[2], o[2], 4));
  }
  const __m512i zero = _mm512_setzero_si512(); /* start = -128 * sum of a column of A */
  store(start, _mm512_sub_epi32(zero, _mm512_slli_epi32(s0, 7)));
  store(start + 16, _mm512_sub_epi32(zero, _mm512_slli_epi32(s1, 7)));
  store(start + 32, _mm512_sub_epi32(zero, _mm512_slli_epi32(s2, 7)));
}

static void row_start(const int8_t *a, int64_t lda, int64_t k, int32_t *start) {
  const __m512i one = _mm512_set1_epi8(1);
  for (int r = 0; r < MR; r++, a += lda) {
    __m512i sum = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + 64 <= k; i += 64) sum = _mm512_dpbusd_epi32(sum, one, load(a + i));
    if (i < k) sum = _mm512_dpbusd_epi32(sum, one, _mm512_maskz_loadu_epi8(first64(k - i), a + i));
    start[r] = -_mm512_reduce_add_epi32(sum);
  }
}

static inline __m512i broadcast4(const int8_t *p) {
  int32_t x;
  memcpy(&x, p, sizeof x);
  return _mm512_set1_epi32(x);
}

/* acc += A B over `groups` groups of four. Row r of A at a + r * row, its next group `next` bytes on. Four pointers with two
 * offsets each address the twelve rows. */
static inline __attribute__((always_inline)) void multiply(const int8_t *a, ptrdiff_t row, ptrdiff_t next, const uint8_t *b,
                                                           int64_t groups, __m512i acc[MR][2]) {
  const int8_t *p[4] = {a, a + 3 * row, a + 6 * row, a + 9 * row};
  for (; groups > 0; groups--) {
    const __m512i b0 = load(b), b1 = load(b + 64);
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) {
      const __m512i x = broadcast4(p[r / 3] + (r % 3) * row);
      acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], b0, x);
      acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], b1, x);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) p[i] += next;
    b += NR * 4;
  }
}

/* arb_bf16_of_f32 of 16 floats. */
static inline __m256i bf16(__m512 x) {
  const __m512i u = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(ARB_BF16_NAN_BITS)));
}

static void forward(const int8_t *a, int64_t lda, const void *b, int64_t groups, const int32_t *start, int rows, int columns,
                    const float *row_scale, const float *column_scale, uint16_t *out, int64_t ldo) {
  __m512i acc[MR][2];
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) acc[r][0] = acc[r][1] = _mm512_set1_epi32(start[r]);
  multiply(a, lda, 4, b, groups, acc);
  const __m512 c0 = _mm512_loadu_ps(column_scale), c1 = _mm512_loadu_ps(column_scale + 16);
  const __mmask16 in0 = first16(columns), in1 = first16(columns - 16);
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) {
    if (r >= rows) break;
    const __m512 s = _mm512_set1_ps(row_scale[r]);
    const __m512 y0 = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][0]), s), c0);
    const __m512 y1 = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][1]), s), c1);
    _mm256_mask_storeu_epi16(out + r * ldo, in0, bf16(y0));
    _mm256_mask_storeu_epi16(out + r * ldo + 16, in1, bf16(y1));
  }
}

static void dw(const void *a, const void *b, int64_t groups, const int32_t *start, int32_t *c, int64_t ldc, int accumulate) {
  __m512i acc[MR][2];
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) acc[r][0] = acc[r][1] = _mm512_set1_epi32(start[r]);
  multiply(a, 4, MR * 4, b, groups, acc);
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) {
    int32_t *o = c + r * ldc;
    if (accumulate) {
      acc[r][0] = _mm512_add_epi32(acc[r][0], load(o));
      acc[r][1] = _mm512_add_epi32(acc[r][1], load(o + 16));
    }
    store(o, acc[r][0]);
    store(o + 16, acc[r][1]);
  }
}

static void cast_votes(const int32_t *d, int64_t count, float scale, float vmax, const uint16_t *draws, int8_t *votes) {
  const __m512 s = _mm512_set1_ps(scale), hi = _mm512_set1_ps(vmax), lo = _mm512_set1_ps(-vmax), one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 in = first16((int)(count - i < 16 ? count - i : 16));
    __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(in, d + i)), s);
    x = _mm512_max_ps(_mm512_min_ps(x, hi), lo);
    const __m512 f = _mm512_floor_ps(x);
    const __m512 r = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(in, draws + i)));
    const __m512 cut = _mm512_mul_ps(_mm512_add_ps(r, _mm512_set1_ps(0.5f)), _mm512_set1_ps(0x1p-16f));
    const __mmask16 up = _mm512_cmp_ps_mask(cut, _mm512_sub_ps(x, f), _CMP_LT_OQ);
    const __m512i v = _mm512_cvttps_epi32(_mm512_mask_add_ps(f, up, f, one));
    const __m128i old = _mm_maskz_loadu_epi8(in, votes + i);
    _mm_mask_storeu_epi8(votes + i, in, _mm_add_epi8(old, _mm512_cvtepi32_epi8(v)));
  }
}

const arb_gemm_level arb_gemm_level_avx512 = {
    .mr = MR,
    .nr = NR,
    .step = 4,
    .dw_step = 4,
    .dw_size = 1,
    .pack_rows = pack_rows,
    .pack_columns = pack_columns,
    .row_start = row_start,
    .forward = forward,
    .pack_dw_b = pack_dw_b,
    .pack_dw_a = pack_dw_a,
    .dw = dw,
    .votes = cast_votes,
    .draws = arb_draws_avx512,
};
