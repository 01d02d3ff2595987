/* Row operations of the host backends: each works on rows [begin, end) of a batch and may run on any thread.
 *
 * The sources in this folder are the definition of these operations. They are compiled once per instruction-set level
 * (plain, avx2, avx512) with loops that the compiler can vectorise; since nothing in them may be reassociated or contracted,
 * every level gives the same bits. kernels/ref takes the plain level. */
#ifndef ARB_KERNELS_ROWS_ROWS_H
#define ARB_KERNELS_ROWS_ROWS_H

#include "kernels/backend.h"

/* out[count padded to 8] = draws of elements first...; see kernels/common/philox.h. */
typedef void (*arb_draws_fn)(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                             uint16_t *out);

/* One thread's work rows, each as wide as the widest row of the call. */
typedef struct {
  float *a, *b, *c;
  uint16_t *draws;
} arb_row_scratch;

/* What all row operations of a call share. */
typedef struct {
  arb_rows rows;
  uint64_t seed;
  uint32_t step;
  arb_draws_fn draws;
  int *nonfinite; /* set, never cleared; atomically */
} arb_row_env;

typedef struct {
  arb_row_env env;
  int64_t width, ldz, lddz, context;
  int64_t span;       /* rows of features in a window */
  const int8_t *q_in; /* features */
  const float *x_in;  /* or h, g */
  const uint16_t *y;  /* or zf, u, logits */
  const uint16_t *y2; /* or zc, zg, v */
  const uint16_t *dy; /* or dh */
  const float *bias;
  const float *gain;        /* [width] 2^(e/8) of the norm */
  const float *gain_w;      /* [w->n] 2^(e/8) of the stack whose gradient rows go out as (q, s) */
  float *x_out;             /* or g */
  uint16_t *y_out, *y_out2; /* dh, dzg; dzf, dzc; g of the input's norm */
  int8_t *q;
  float *s, *inv;
  const float *s_in, *inv_in;
  const int8_t *hq;
  const int32_t *ratio; /* [rows], arb_row_ratio */
  const arb_stack *w;
  int use, accumulate;
  const int32_t *targets;
  float weight;
  int64_t *loss, *count;
} arb_row_args;

typedef void (*arb_row_op)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp);
/* Recurrences: lanes [begin, end) of (sequence, block of ARB_SCAN_CHANNELS channels). */
#define ARB_SCAN_CHANNELS 64

/* Arguments of the update's operations; rows [begin, end) of the stack. */
typedef struct {
  arb_row_env env;
  const arb_stack *w;
  const arb_update_work *work;
  const float *column; /* [members][k] 2^((M - C) / 2) */
  float eta_units;
  int64_t grains;
  int vmax;
  int64_t *flips;
} arb_update_args;

typedef struct {
  const char *level;
  arb_row_op add_norm_quant, window_norm_quant, gate_norm_quant, glu_norm_quant, xent;
  arb_row_op grad_quant, rescale, norm_backward, input_norm_backward, gate_norm_backward, glu_norm_backward;
  arb_row_op mlgru_forward, mlgru_backward; /* over scan lanes, not rows */
  void (*vote_rows)(const arb_update_args *a, int64_t begin, int64_t end);
  void (*vote_columns)(const arb_update_args *a, int member, int64_t begin, int64_t end); /* columns [begin, end) */
  void (*update_rows)(const arb_update_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp);
  /* votes[length] += SR(clamp(x, -vmax, vmax)), draws r. */
  void (*vote_row)(const float *x, int64_t length, int vmax, const uint16_t *r, int8_t *votes);
} arb_row_table;

extern const arb_row_table arb_row_table_plain;
extern const arb_row_table arb_row_table_avx2; /* only in builds for x86-64 */
extern const arb_row_table arb_row_table_avx512;

/* Plain draws. */
void arb_draws_plain(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                     uint16_t *out);

#endif
