/* The reference backend: one thread, plain C, the definition of every operation. Products are the three loops below; row
 * operations are kernels/rows compiled for the plain level. */
#include <stdlib.h>

#include "kernels/common/scale.h"
#include "kernels/common/trit.h"
#include "kernels/host/host.h"

static void run(arb_host *host, int64_t total, int64_t chunk, arb_host_task task, void *arg) {
  (void)host;
  for (int64_t i = 0; i < total; i += chunk) task(arg, i, i + chunk < total ? i + chunk : total, 0);
}

static void expand(const uint8_t *code, int64_t count, int8_t *trits) {
  for (int64_t i = 0; i < count; i++) trits[i] = (int8_t)arb_code_trit(code[i]);
}

/* to[columns][rows] = from[rows][columns]; dot products over contiguous memory are what compilers vectorise best. */
static void transpose(const int8_t *from, int64_t rows, int64_t columns, int8_t *to) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) to[c * rows + r] = from[r * columns + c];
}

static int32_t dot(const int8_t *a, const int8_t *b, int64_t length) {
  int32_t sum = 0;
  for (int64_t i = 0; i < length; i++) sum += a[i] * b[i];
  return sum;
}

/* y[m][n] = bf16(((float)sum_k q[m][k] T[n][k] * s[m]) * 2^(e[n]/8)) */
static arb_status product_forward(arb_backend *be, int64_t m, const int8_t *q, const float *s, const arb_stack *w,
                                  uint16_t *y) {
  void *work;
  ARB_TRY(arb_host_work(arb_host_of(be), (size_t)w->k, &work));
  int8_t *t = work;
  for (int64_t n = 0; n < w->n; n++) {
    expand(w->code + n * w->k, w->k, t);
    const float gain = arb_pow2_eighths(w->e[n]);
    for (int64_t i = 0; i < m; i++) {
      const int32_t acc = dot(q + i * w->k, t, w->k);
      y[i * w->n + n] = arb_bf16_of_f32(((float)acc * s[i]) * gain);
    }
  }
  return ARB_OK;
}

/* dx[m][k] = bf16((float)sum_n hq[m][n] T[n][k] * sh[m]) */
static arb_status product_dx(arb_backend *be, int64_t m, const int8_t *hq, const float *sh, const arb_stack *w, uint16_t *dx) {
  void *work;
  ARB_TRY(arb_host_work(arb_host_of(be), (size_t)(2 * w->n * w->k), &work));
  int8_t *t = work, *columns = t + w->n * w->k;
  expand(w->code, w->n * w->k, t);
  transpose(t, w->n, w->k, columns);
  for (int64_t i = 0; i < m; i++)
    for (int64_t k = 0; k < w->k; k++)
      dx[i * w->k + k] = arb_bf16_of_f32((float)dot(hq + i * w->n, columns + k * w->n, w->n) * sh[i]);
  return ARB_OK;
}

/* D[n][k] = sum_m tq[m][n] q[m][k]; votes += SR(clamp((float)D * 2^(c - p[n]), -vmax, vmax)) */
static arb_status product_dw(arb_backend *be, const arb_host_dw *d) {
  const arb_stack *w = d->w;
  arb_host *host = arb_host_of(be);
  void *work;
  ARB_REQUIRE(d->rows <= 131072, ARB_ERR_ARG, "dW: %lld rows in one use, at most 131072", (long long)d->rows);
  ARB_TRY(arb_host_reserve(host, w->k));
  ARB_TRY(arb_host_work(host, (size_t)(d->rows * (w->n + w->k)), &work));
  int8_t *tq = work, *q = tq + d->rows * w->n;
  transpose(d->tq, d->rows, w->n, tq);
  transpose(d->q, d->rows, w->k, q);
  arb_row_scratch *tmp = host->scratch;
  const arb_philox_key key = arb_philox_key_of(be->seed, ARB_DRAW_VOTE);
  for (int64_t n = 0; n < w->n; n++) {
    const float scale = arb_vote_scale(d->cexp - w->p[n]);
    for (int64_t k = 0; k < w->k; k++) tmp->a[k] = (float)dot(tq + n * d->rows, q + k * d->rows, d->rows) * scale;
    host->draws(key, w->id, be->step, d->grain, n * arb_pad8(w->k), w->k, tmp->draws);
    host->rows->vote_row(tmp->a, w->k, d->vmax, tmp->draws, w->votes + arb_votes_at(w->groups, n, w->k));
  }
  return ARB_OK;
}

arb_status arb_backend_ref_create(arb_backend **out) {
  arb_backend *be = calloc(1, sizeof *be);
  arb_host *host = calloc(1, sizeof *host);
  arb_row_scratch *scratch = calloc(1, sizeof *scratch);
  if (!be || !host || !scratch) {
    free(be);
    free(host);
    free(scratch);
    return ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  }
  *host = (arb_host){.rows = &arb_row_table_plain,
                     .draws = arb_draws_plain,
                     .workers = 1,
                     .run = run,
                     .scratch = scratch,
                     .product_forward = product_forward,
                     .product_dx = product_dx,
                     .product_dw = product_dw};
  be->ops.name = "ref";
  be->kind = ARB_BACKEND_REF;
  arb_host_fill(be, host);
  *out = be;
  return ARB_OK;
}
