/* The three matrix products of a ternary linear on the CPU, straight from the state bytes. All levels give the same bits.
 *
 * Shapes: m rows of activations, n outputs, k inputs, all row-major and contiguous; code [n][k] holds state bytes
 * (kernels/common/trit.h), T its trits. Every value of q, hq and tq lies in [-127, 127]. m, n, k >= 1; k and n < 2^24.
 * scratch: arb_gemm_scratch_bytes(...) bytes of any alignment, content unspecified before and after. Nothing is allocated. */
#ifndef ARB_KERNELS_CPU_GEMM_H
#define ARB_KERNELS_CPU_GEMM_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/common/philox.h"
#include "kernels/common/votes.h"
#include "kernels/cpu/draws.h"
#include "kernels/cpu/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ARB_GEMM_MAX_ROWS 131072 /* rows of one dw call: 131072 * 127 * 127 < 2^31 */

/* Where a product D goes as votes:
 *   votes[n][k] += SR(clamp((float)D * arb_vote_scale(cexp - p[n]), -vmax, vmax))
 * with the draw of element n * pad8(K) + k. */
typedef struct {
  arb_philox_key key; /* of ARB_DRAW_VOTE */
  uint32_t tensor, step, grain;
  int vmax; /* 1 .. 127 */
  int32_t cexp;
  const int8_t *p; /* [n] */
  int8_t *votes;   /* [n][k] */
  arb_vote_groups groups;
} arb_gemm_votes;

typedef struct {
  const char *name; /* "scalar", "avx2", "avx512" */
  /* y[m][n] = bf16(((float)sum_k q[m][k] * T[n][k] * s[m]) * 2^(e[n] / 8)) */
  void (*forward)(arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *q, const float *s, const uint8_t *code,
                  const int8_t *e, uint16_t *y, void *scratch);
  /* dx[m][k] = bf16((float)sum_n hq[m][n] * T[n][k] * sh[m]) */
  void (*dx)(arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *hq, const float *sh, const uint8_t *code,
             uint16_t *dx, void *scratch);
  /* D[n][k] = sum over rows of tq[row][n] * q[row][k], 1 <= rows <= ARB_GEMM_MAX_ROWS. Stored in d unless NULL, cast as votes
   * unless v is NULL. tq and q point at the first of the rows. */
  void (*dw)(arb_pool *pool, int64_t rows, int64_t k, int64_t n, const int8_t *tq, const int8_t *q, int32_t *d,
             const arb_gemm_votes *v, void *scratch);
  arb_draws_fn draws;
} arb_gemm_kernels;

/* isa: "auto" (the highest that the chip and the build have), "scalar", "avx2", "avx512". NULL for a level that is missing or
 * a name that is none. */
const arb_gemm_kernels *arb_gemm_pick(const char *isa);

/* Enough for every form and level at this k and n, up to m rows and up to this many threads. */
size_t arb_gemm_scratch_bytes(int64_t m, int64_t k, int64_t n, int threads);

#ifdef __cplusplus
}
#endif
#endif
