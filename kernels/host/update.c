/* Start, update and digest of a stack on host memory. */
#include <string.h>

#include "kernels/common/fixed.h"
#include "kernels/common/init.h"
#include "kernels/host/host.h"

/* ---- fresh state ---- */

typedef struct {
  const arb_stack *w;
  uint64_t seed;
} init_args;

static void init_task(void *arg, int64_t begin, int64_t end, int worker) {
  (void)worker;
  const init_args *a = arg;
  const arb_stack *w = a->w;
  for (int64_t n = begin; n < end; n++) {
    int64_t nnz = 0;
    for (int64_t k = 0; k < w->k; k++) {
      const uint8_t code = arb_init_code(arb_init_normal(a->seed, w->id, (w->first + n) * arb_pad8(w->k) + k));
      w->code[n * w->k + k] = code;
      nnz += arb_code_trit(code) != 0;
    }
    w->e[n] = arb_init_exponent(nnz);
    w->p[n] = 0;
    w->r[n] = ARB_Q16_NONE;
  }
}

static arb_status init_stack(arb_backend *be, const arb_stack *w) {
  init_args a = {w, be->seed};
  for (int64_t i = 0; i < w->members * w->k; i++) w->c[i] = ARB_Q16_NONE;
  for (int m = 0; m < w->members; m++) w->m[m] = ARB_Q16_NONE;
  arb_host_run(arb_host_of(be), ARB_HOST_INIT, w->n, 8, init_task, &a);
  return ARB_OK;
}

/* ---- update ---- */

typedef struct {
  arb_host *host;
  const arb_update_args *args;
  int member;
} update_walk;

static void vote_rows_task(void *arg, int64_t begin, int64_t end, int worker) {
  (void)worker;
  const update_walk *u = arg;
  u->host->rows->vote_rows(u->args, begin, end);
}

static arb_status vote_rows(arb_backend *be, const arb_stack *w, const arb_update_work *work) {
  const arb_update_args a = {.w = w, .work = work};
  update_walk u = {arb_host_of(be), &a, 0};
  arb_host_run(u.host, ARB_HOST_VOTE_ROWS, w->n, 32, vote_rows_task, &u);
  for (int m = 0; m < w->members; m++) {
    work->top[m] = INT32_MIN;
    work->low[m] = INT32_MAX;
    for (int64_t n = w->begin[m]; n < w->begin[m + 1]; n++) {
      if (work->s[n] == 0) continue;
      work->top[m] = w->p[n] > work->top[m] ? w->p[n] : work->top[m];
      work->low[m] = w->p[n] < work->low[m] ? w->p[n] : work->low[m];
    }
  }
  return ARB_OK;
}

static void vote_columns_task(void *arg, int64_t begin, int64_t end, int worker) {
  (void)worker;
  const update_walk *u = arg;
  u->host->rows->vote_columns(u->args, u->member, begin, end);
}

static arb_status vote_columns(arb_backend *be, const arb_stack *w, const arb_update_work *work) {
  const arb_update_args a = {.w = w, .work = work};
  for (int m = 0; m < w->members; m++) {
    update_walk u = {arb_host_of(be), &a, m};
    arb_host_run(u.host, ARB_HOST_VOTE_COLUMNS, w->k, 128, vote_columns_task, &u);
    uint64_t sum = 0;
    for (int64_t n = w->begin[m]; n < w->begin[m + 1]; n++) {
      if (work->s[n] == 0) continue;
      const int shift = 2 * (work->top[m] - w->p[n]);
      if (shift < 64) sum += (work->s[n] << 8) >> shift;
    }
    work->msum[m] = sum;
  }
  return ARB_OK;
}

static void update_task(void *arg, int64_t begin, int64_t end, int worker) {
  const update_walk *u = arg;
  u->host->rows->update_rows(u->args, begin, end, &u->host->scratch[worker]);
}

static arb_status update(arb_backend *be, const arb_stack *w, const arb_update_work *work, int64_t grains, int vmax,
                         int64_t *flips) {
  if (grains == 0 || be->nonfinite) return ARB_OK;
  arb_host *host = arb_host_of(be);
  void *memory;
  ARB_TRY(arb_host_reserve(host, w->k));
  ARB_TRY(arb_host_work(host, (size_t)(w->members * w->k) * sizeof(float), &memory));
  float *column = memory;
  for (int m = 0; m < w->members; m++) {
    const int64_t rows = arb_stack_member_rows(w, m);
    const int seen = work->top[m] != INT32_MIN;
    const int32_t unit = seen ? work->top[m] * 2 * 65536 : 0;
    w->m[m] = arb_stat_next(
        w->m[m], seen && work->msum[m],
        seen && work->msum[m] ? arb_ilog2(work->msum[m]) - (8 << 16) + unit - arb_ilog2((uint64_t)rows * (uint64_t)w->k) : 0);
    for (int64_t k = 0; k < w->k; k++) {
      const uint64_t sum = work->csum[m * w->k + k];
      int32_t *c = &w->c[m * w->k + k];
      const int32_t now = sum ? arb_ilog2(sum) - (16 << 16) + unit - arb_ilog2((uint64_t)rows) : 0;
      *c = arb_stat_next(*c, sum != 0, now);
      const int known = *c != ARB_Q16_NONE && w->m[m] != ARB_Q16_NONE;
      column[m * w->k + k] = known ? arb_exp2_half((int64_t)w->m[m] - *c) : 1.0f;
    }
  }
  const arb_update_args a = {.env = arb_host_env(be, NULL),
                             .w = w,
                             .work = work,
                             .column = column,
                             .eta_units = be->eta_units,
                             .grains = grains,
                             .vmax = vmax,
                             .flips = flips};
  update_walk u = {host, &a, 0};
  arb_host_run(host, ARB_HOST_UPDATE, w->n, 16, update_task, &u);
  return ARB_OK;
}

/* ---- identity ---- */

static arb_status digest(arb_backend *be, uint64_t array, const void *data, int64_t rows, int64_t row_bytes, int64_t first_row,
                         arb_u128 *out) {
  (void)be;
  const int64_t words = (row_bytes + 7) / 8;
  arb_u128 sum = {0, 0};
  for (int64_t r = 0; r < rows; r++) {
    const unsigned char *row = (const unsigned char *)data + r * row_bytes;
    for (int64_t i = 0; i < words; i++) {
      uint64_t word = 0;
      const int64_t left = row_bytes - i * 8;
      memcpy(&word, row + i * 8, left < 8 ? (size_t)left : 8);
      sum = arb_u128_add(sum, arb_mix128(array, (uint64_t)((first_row + r) * words + i), word));
    }
  }
  *out = sum;
  return ARB_OK;
}

void arb_host_fill_update(arb_ops *ops) {
  ops->init_stack = init_stack;
  ops->vote_rows = vote_rows;
  ops->vote_columns = vote_columns;
  ops->update = update;
  ops->digest = digest;
}
