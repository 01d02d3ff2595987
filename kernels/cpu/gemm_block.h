/* What an instruction-set level contributes to the matrix products: packing, three tiles and the votes. Loops, blocking and
 * threads are shared (gemm_block.c). A tile is mr rows by nr columns of int32 sums.
 *
 * Packed panels put `step` consecutive elements of the reduction side by side:
 *   B panel [reduction / step][nr][step], one for each nr columns of the product
 *   A panel [reduction / step][mr][step], one for each mr rows (dw only: forward and dx read rows where they lie).
 * The reduction is padded to a multiple of step; the padding of A is zero, that of B any value.
 * A level may store B with an offset (trit + 1, q + 128); the tile starts its sums from `start`, which takes it back. */
#ifndef ARB_KERNELS_CPU_GEMM_BLOCK_H
#define ARB_KERNELS_CPU_GEMM_BLOCK_H

#include <stddef.h>

#include "kernels/cpu/gemm.h"

#define ARB_GEMM_B_COLUMNS 64 /* columns that one pack_columns or pack_dw_b call takes; a multiple of every nr */
#define ARB_GEMM_A_COLUMNS 48 /* columns that one pack_dw_a call takes; a multiple of every mr */
#define ARB_GEMM_MAX_MR 16

typedef struct {
  int mr, nr;
  int step;             /* forward and dx; B elements are bytes */
  int dw_step, dw_size; /* dw: step and bytes of a packed element */

  /* panel = trits of `rows` <= nr rows of codes (the columns of the product), reduction along k. */
  void (*pack_rows)(const uint8_t *code, int64_t ld, int rows, int64_t k, void *panel);
  /* Trits of `columns` columns, reduction down the rows: columns / nr panels (rounded up), panel_bytes apart. */
  void (*pack_columns)(const uint8_t *code, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes);
  /* start[r] for forward and dx, mr rows. */
  void (*row_start)(const int8_t *a, int64_t lda, int64_t k, int32_t *start);
  /* The tile's first `rows` x `columns` sums go out, dx with column scales of 1. `groups` = padded reduction / step; ldo in
   * elements. */
  void (*forward)(const int8_t *a, int64_t lda, const void *b, int64_t groups, const int32_t *start, int rows, int columns,
                  const float *row_scale, const float *column_scale, uint16_t *out, int64_t ldo);

  void (*pack_dw_b)(const int8_t *q, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes);
  /* Always fills ARB_GEMM_A_COLUMNS columns (zero past `columns`) and start[ARB_GEMM_A_COLUMNS]. */
  void (*pack_dw_a)(const int8_t *tq, int64_t ld, int64_t rows, int columns, void *panels, size_t panel_bytes, int32_t *start);
  /* c[mr][ldc] = (accumulate ? c : 0) + start + A B, whole tile. */
  void (*dw)(const void *a, const void *b, int64_t groups, const int32_t *start, int32_t *c, int64_t ldc, int accumulate);

  /* votes[count] += SR(clamp((float)d * scale, -vmax, vmax)). */
  void (*votes)(const int32_t *d, int64_t count, float scale, float vmax, const uint16_t *draws, int8_t *votes);
  arb_draws_fn draws;
} arb_gemm_level;

extern const arb_gemm_level arb_gemm_level_scalar, arb_gemm_level_avx2, arb_gemm_level_avx512;

void arb_gemm_block_forward(const arb_gemm_level *level, arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *q,
                            const float *s, const uint8_t *code, const int8_t *e, uint16_t *y, void *scratch);
void arb_gemm_block_dx(const arb_gemm_level *level, arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *hq,
                       const float *sh, const uint8_t *code, uint16_t *dx, void *scratch);
void arb_gemm_block_dw(const arb_gemm_level *level, arb_pool *pool, int64_t rows, int64_t k, int64_t n, const int8_t *tq,
                       const int8_t *q, int32_t *d, const arb_gemm_votes *v, void *scratch);

#endif
