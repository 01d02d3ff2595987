/* Votes, statistics and the update of state bytes, on rows of one stack (docs/arithmetic.md, "Votes" and "The update").
 * Statistics: Adafactor's factored second moment (Shazeer & Stern 2018, arXiv:1804.04235) without momentum, in integers. */
#include "kernels/common/fixed.h"
#include "kernels/rows/rows_impl.h"

static int member_of(const arb_stack *w, int64_t row) {
  int m = 0;
  while (row >= w->begin[m + 1]) m++;
  return m;
}

static void vote_rows(const arb_update_args *a, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; n++) {
    const int8_t *v = a->w->votes + n * a->w->k;
    uint64_t sum = 0;
    for (int64_t k0 = 0; k0 < a->w->k; k0 += 65536) { /* 65536 * 127^2 < 2^30: 32-bit sums inside a block */
      const int64_t k1 = k0 + 65536 < a->w->k ? k0 + 65536 : a->w->k;
      uint32_t part = 0;
      for (int64_t k = k0; k < k1; k++) part += (uint32_t)((int32_t)v[k] * v[k]);
      sum += part;
    }
    a->work->s[n] = sum;
  }
}

static void vote_columns(const arb_update_args *a, int member, int64_t begin, int64_t end) {
  const arb_stack *w = a->w;
  uint64_t *csum = a->work->csum + member * w->k;
  const int32_t top = a->work->top[member];
  for (int64_t k = begin; k < end; k++) csum[k] = 0;
  for (int64_t n = w->begin[member]; n < w->begin[member + 1]; n++) {
    if (a->work->s[n] == 0) continue;
    const int shift = 2 * (top - w->p[n]);
    if (shift > 31) continue; /* v^2 << 16 is below 2^30 */
    const int8_t *v = w->votes + n * w->k;
    for (int64_t k = begin; k < end; k++) csum[k] += ((uint32_t)((int32_t)v[k] * v[k]) << 16) >> shift;
  }
}

/* code[k] moves by SR(step * clamp((v * row) * column, -4, 4)), |step * 4| < 42; exactly 0 where v = 0. */
static void move_row(const int8_t *restrict v, float row, const float *restrict column, float step, const uint16_t *restrict r,
                     int64_t length, uint8_t *restrict code, int32_t *flips, int32_t *saturated) {
  int32_t f = 0, s = 0;
  for (int64_t k = 0; k < length; k++) {
    const float u = arb_clamp(((float)v[k] * row) * column[k], 4.0f);
    const int da = (int)arb_stochastic_round(step * u, r[k]);
    const uint8_t next = arb_code_move(code[k], da);
    f += arb_code_trit(next) != arb_code_trit(code[k]);
    s += (next == 0) | (next == 254);
    code[k] = next;
  }
  *flips = f;
  *saturated = s;
}

static void update_rows(const arb_update_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const arb_stack *w = a->w;
  const arb_philox_key key = arb_philox_key_of(a->env.seed, ARB_DRAW_UPDATE);
  const int32_t log_k = arb_ilog2((uint64_t)w->k);
  int64_t flips = 0, saturated = 0;
  for (int64_t n = begin; n < end; n++) {
    const int m = member_of(w, n);
    const uint64_t s = a->work->s[n];
    const int p = w->p[n];
    const int32_t now = s ? arb_ilog2(s) - log_k + p * 2 * 65536 : 0;
    w->r[n] = arb_stat_next(w->r[n], s != 0, now);
    if (s != 0) {
      const float row = arb_exp2_half((int64_t)p * 2 * 65536 - w->r[n]);
      const float *column = a->column + m * w->k;
      const int8_t *v = w->votes + n * w->k;
      uint8_t *code = w->code + n * w->k;
      a->env.draws(key, w->id, a->env.step, 0, (w->first + n) * arb_pad8(w->k), w->k, tmp->draws);
      int32_t row_flips, row_saturated;
      move_row(v, row, column, -a->eta_units, tmp->draws, w->k, code, &row_flips, &row_saturated);
      flips += row_flips;
      saturated += row_saturated;
    }
    int next_p;
    if (s != 0) {
      next_p = p + arb_p_step(s, (uint64_t)w->k, (uint64_t)a->vmax, (uint64_t)a->grains);
    } else {
      const int floor_p = a->work->low[m] == INT32_MAX ? -120 : a->work->low[m] - 8;
      next_p = p - 4 < floor_p ? floor_p : p - 4;
    }
    next_p = next_p > 120 ? 120 : next_p;
    w->p[n] = (int8_t)(next_p < -120 ? -120 : next_p);
  }
  __atomic_fetch_add(&a->flips[0], flips, __ATOMIC_RELAXED);
  __atomic_fetch_add(&a->flips[1], saturated, __ATOMIC_RELAXED);
}

static void vote_row(const float *restrict x, int64_t length, int vmax, const uint16_t *restrict r, int8_t *restrict votes) {
  const float limit = (float)vmax;
  for (int64_t i = 0; i < length; i++)
    votes[i] = (int8_t)(votes[i] + (int32_t)arb_stochastic_round(arb_clamp(x[i], limit), r[i]));
}

const arb_row_table ARB_AT_LEVEL(arb_row_table) = {
    .level = ARB_LEVEL_NAME,
    .add_norm_quant = ARB_AT_LEVEL(arb_row_add_norm_quant),
    .window_norm_quant = ARB_AT_LEVEL(arb_row_window_norm_quant),
    .gate_norm_quant = ARB_AT_LEVEL(arb_row_gate_norm_quant),
    .glu_norm_quant = ARB_AT_LEVEL(arb_row_glu_norm_quant),
    .xent = ARB_AT_LEVEL(arb_row_xent),
    .mlgru_forward = ARB_AT_LEVEL(arb_row_mlgru_forward),
    .grad_quant = ARB_AT_LEVEL(arb_row_grad_quant),
    .rescale = ARB_AT_LEVEL(arb_row_rescale),
    .norm_backward = ARB_AT_LEVEL(arb_row_norm_backward),
    .input_norm_backward = ARB_AT_LEVEL(arb_row_input_norm_backward),
    .gate_norm_backward = ARB_AT_LEVEL(arb_row_gate_norm_backward),
    .glu_norm_backward = ARB_AT_LEVEL(arb_row_glu_norm_backward),
    .mlgru_backward = ARB_AT_LEVEL(arb_row_mlgru_backward),
    .vote_rows = vote_rows,
    .vote_columns = vote_columns,
    .update_rows = update_rows,
    .vote_row = vote_row,
};
