/* Portable level: plain loops of fixed length that a compiler may vectorise. Flags: -O3 helps. */
#include "kernels/common/scale.h"
#include "kernels/common/trit.h"
#include "kernels/cpu/gemm_block.h"

#define MR 4
#define NR 16

static void pack_rows(const uint8_t *code, int64_t ld, int rows, int64_t k, void *panel) {
  int8_t *out = panel;
  for (int64_t i = 0; i < k; i++)
    for (int c = 0; c < NR; c++) out[i * NR + c] = (int8_t)(c < rows ? arb_code_trit(code[c * ld + i]) : 0);
}

static void pack_columns(const uint8_t *code, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes) {
  for (int c0 = 0; c0 < columns; c0 += NR) {
    int8_t *out = (int8_t *)panels + (size_t)(c0 / NR) * panel_bytes;
    for (int64_t i = 0; i < rows; i++)
      for (int c = 0; c < NR; c++) out[i * NR + c] = (int8_t)(c0 + c < columns ? arb_code_trit(code[i * ld + c0 + c]) : 0);
  }
}

static void row_start(const int8_t *a, int64_t lda, int64_t k, int32_t *start) {
  (void)a, (void)lda, (void)k;
  for (int r = 0; r < MR; r++) start[r] = 0;
}

/* Row r of A at a + r * row, its next element `next` on. */
static inline void multiply(const int8_t *a, int64_t row, int64_t next, const int8_t *b, int64_t groups, int32_t acc[MR][NR]) {
  for (int64_t i = 0; i < groups; i++, b += NR, a += next)
    for (int r = 0; r < MR; r++) {
      const int32_t x = a[r * row];
      for (int c = 0; c < NR; c++) acc[r][c] += x * b[c];
    }
}

static void forward(const int8_t *a, int64_t lda, const void *b, int64_t groups, const int32_t *start, int rows, int columns,
                    const float *row_scale, const float *column_scale, uint16_t *out, int64_t ldo) {
  (void)start;
  int32_t acc[MR][NR] = {0};
  multiply(a, lda, 1, b, groups, acc);
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++) out[r * ldo + c] = arb_bf16_of_f32(((float)acc[r][c] * row_scale[r]) * column_scale[c]);
}

static void pack(const int8_t *x, int64_t ld, int64_t rows, int columns, int filled, int width, int8_t *panels,
                 size_t panel_bytes) {
  for (int c0 = 0; c0 < filled; c0 += width) {
    int8_t *out = panels + (size_t)(c0 / width) * panel_bytes;
    for (int64_t i = 0; i < rows; i++)
      for (int c = 0; c < width; c++) out[i * width + c] = (int8_t)(c0 + c < columns ? x[i * ld + c0 + c] : 0);
  }
}

static void pack_dw_b(const int8_t *q, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes) {
  pack(q, ld, rows, columns, columns, NR, panels, panel_bytes);
}

static void pack_dw_a(const int8_t *tq, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes,
                      int32_t *start) {
  pack(tq, ld, rows, columns, ARB_GEMM_A_COLUMNS, MR, panels, panel_bytes);
  for (int c = 0; c < ARB_GEMM_A_COLUMNS; c++) start[c] = 0;
}

static void dw(const void *a, const void *b, int64_t groups, const int32_t *start, int32_t *c, int64_t ldc, int accumulate) {
  (void)start;
  int32_t acc[MR][NR] = {0};
  multiply(a, 1, MR, b, groups, acc);
  for (int r = 0; r < MR; r++)
    for (int i = 0; i < NR; i++) c[r * ldc + i] = acc[r][i] + (accumulate ? c[r * ldc + i] : 0);
}

static void cast_votes(const int32_t *d, int64_t count, float scale, float vmax, const uint16_t *draws, int8_t *votes) {
  for (int64_t i = 0; i < count; i++) {
    const float x = arb_fmaxf(arb_fminf((float)d[i] * scale, vmax), -vmax);
    votes[i] = (int8_t)(votes[i] + (int)arb_stochastic_round(x, draws[i]));
  }
}

const arb_gemm_level arb_gemm_level_scalar = {
    .mr = MR,
    .nr = NR,
    .step = 1,
    .dw_step = 1,
    .dw_size = 1,
    .pack_rows = pack_rows,
    .pack_columns = pack_columns,
    .row_start = row_start,
    .forward = forward,
    .pack_dw_b = pack_dw_b,
    .pack_dw_a = pack_dw_a,
    .dw = dw,
    .votes = cast_votes,
    .draws = arb_draws_scalar,
};
