/* The CPU backend: the host slots with row operations, draws and products of the best level that the chip has, over a pool of
 * threads. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/pool.h"
#include "kernels/host/host.h"

typedef struct {
  arb_pool *pool;
  const arb_gemm_kernels *gemm;
} cpu;

typedef struct {
  arb_host_task task;
  void *arg;
  int64_t total, chunk;
} pool_walk;

static void pool_task(void *arg, int task, int worker) {
  const pool_walk *w = arg;
  const int64_t begin = task * w->chunk;
  w->task(w->arg, begin, begin + w->chunk < w->total ? begin + w->chunk : w->total, worker);
}

static void run(arb_host *host, int64_t total, int64_t chunk, arb_host_task task, void *arg) {
  if (total <= 0) return;
  pool_walk w = {task, arg, total, chunk};
  arb_pool_run(((cpu *)host->own)->pool, pool_task, &w, (int)((total + chunk - 1) / chunk));
}

static arb_status scratch(arb_host *host, int64_t m, const arb_stack *w, void **out) {
  return arb_host_work(host, arb_gemm_scratch_bytes(m, w->k, w->n, host->workers), out);
}

static arb_status product_forward(arb_backend *be, int64_t m, const int8_t *q, const float *s, const arb_stack *w,
                                  uint16_t *y) {
  cpu *c = arb_host_of(be)->own;
  void *work;
  ARB_TRY(scratch(arb_host_of(be), m, w, &work));
  c->gemm->forward(c->pool, m, w->k, w->n, q, s, w->code, w->e, y, work);
  return ARB_OK;
}

static arb_status product_dx(arb_backend *be, int64_t m, const int8_t *hq, const float *sh, const arb_stack *w, uint16_t *dx) {
  cpu *c = arb_host_of(be)->own;
  void *work;
  ARB_TRY(scratch(arb_host_of(be), m, w, &work));
  c->gemm->dx(c->pool, m, w->k, w->n, hq, sh, w->code, dx, work);
  return ARB_OK;
}

static arb_status product_dw(arb_backend *be, const arb_host_dw *d) {
  cpu *c = arb_host_of(be)->own;
  const arb_stack *w = d->w;
  void *work;
  ARB_REQUIRE(d->rows <= ARB_GEMM_MAX_ROWS, ARB_ERR_ARG, "dW: %lld rows in one use, at most %d", (long long)d->rows,
              ARB_GEMM_MAX_ROWS);
  ARB_TRY(scratch(arb_host_of(be), d->rows, w, &work));
  const arb_gemm_votes v = {.key = arb_philox_key_of(be->seed, ARB_DRAW_VOTE),
                            .tensor = w->id,
                            .step = be->step,
                            .grain = d->grain,
                            .vmax = d->vmax,
                            .cexp = d->cexp,
                            .p = w->p,
                            .votes = w->votes,
                            .groups = w->groups};
  c->gemm->dw(c->pool, d->rows, w->k, w->n, d->tq, d->q, NULL, &v, work);
  return ARB_OK;
}

static void close_cpu(arb_host *host) {
  cpu *c = host->own;
  if (c) arb_pool_destroy(&c->pool);
  free(c);
}

static const arb_row_table *rows_of(const char *level) {
#if defined(__x86_64__)
  if (strcmp(level, "avx512") == 0) return &arb_row_table_avx512;
  if (strcmp(level, "avx2") == 0) return &arb_row_table_avx2;
#endif
  (void)level;
  return &arb_row_table_plain;
}

arb_status arb_backend_cpu_create(int threads, const char *isa, arb_backend **out) {
  const arb_gemm_kernels *gemm = arb_gemm_pick(isa);
  ARB_REQUIRE(gemm, ARB_ERR_UNSUPPORTED,
              "this processor or build has no instruction set level '%s' (auto, scalar, avx2, avx512)", isa);
  ARB_REQUIRE(threads >= 1, ARB_ERR_ARG, "%d threads", threads);
  arb_backend *be = calloc(1, sizeof *be);
  arb_host *host = calloc(1, sizeof *host);
  cpu *own = calloc(1, sizeof *own);
  arb_row_scratch *rows = calloc((size_t)threads, sizeof *rows);
  arb_status st = be && host && own && rows ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK) st = arb_pool_create(threads, &own->pool);
  if (st != ARB_OK) {
    free(be);
    free(host);
    free(own);
    free(rows);
    return st;
  }
  own->gemm = gemm;
  *host = (arb_host){.rows = rows_of(gemm->name),
                     .draws = gemm->draws,
                     .workers = threads,
                     .run = run,
                     .scratch = rows,
                     .product_forward = product_forward,
                     .product_dx = product_dx,
                     .product_dw = product_dw,
                     .close = close_cpu,
                     .own = own};
  be->ops.name = strcmp(gemm->name, "avx512") == 0 ? "cpu (avx512)"
                 : strcmp(gemm->name, "avx2") == 0 ? "cpu (avx2)"
                                                   : "cpu (scalar)";
  be->kind = ARB_BACKEND_CPU;
  arb_host_fill(be, host);
  *out = be;
  return ARB_OK;
}
