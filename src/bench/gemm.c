#include "src/bench/gemm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/gemm.h"
#include "src/bench/blas.h"

#define PEER "libopenblas.so.0"
#define REPETITIONS 15
#define REST_MS 150 /* idle OpenBLAS threads yield in a loop for 2^28 ticks */

typedef enum { FORWARD, DX, DW, DW_VOTES, FORMS } form;
static const char *const form_names[FORMS] = {"forward", "dx", "dW", "dW+votes"};

/* Everything one shape needs, random and alive at once. The float copies hold the same numbers as the integers. */
typedef struct {
  arb_bench_shape shape;
  int8_t *q, *h, *e, *p, *votes;
  uint8_t *code;
  float *s;
  uint16_t *y, *dx;
  int32_t *d;
  void *scratch;
  float *fq, *fh, *ft, *fout; /* the peer's; NULL without one */
} workload;

typedef struct {
  const arb_gemm_kernels *kernels;
  arb_pool *pool;
  arb_blas *blas; /* NULL: none */
  int repetitions, rest_ms;
} bench;

static uint64_t random_state = 0x9E3779B97F4A7C15u;
static uint32_t next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)(random_state >> 32);
}
static int8_t random_value(void) { return (int8_t)((int)(next_random() % 255) - 127); }

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static void rest(int ms) {
  const struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};
  nanosleep(&t, NULL);
}

static void workload_free(workload *w) {
  void *const all[] = {w->q,  w->h, w->e,       w->p,  w->votes, w->code, w->s,   w->y,
                       w->dx, w->d, w->scratch, w->fq, w->fh,    w->ft,   w->fout};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

/* Line-aligned, so that both sides start from the same footing. */
static void *room(int64_t count, size_t size) {
  const size_t bytes = ((size_t)count * size + 255) & ~(size_t)255;
  return aligned_alloc(256, bytes);
}

static arb_status workload_make(workload *w, const arb_bench_shape *shape, int threads, int peer) {
  const int64_t m = shape->m, k = shape->k, n = shape->n;
  *w = (workload){.shape = *shape};
  w->q = room(m * k, 1);
  w->h = room(m * n, 1);
  w->e = room(n, 1);
  w->p = room(n, 1);
  w->votes = room(n * k, 1);
  w->code = room(n * k, 1);
  w->s = room(m, sizeof(float));
  w->y = room(m * n, sizeof(uint16_t));
  w->dx = room(m * k, sizeof(uint16_t));
  w->d = room(n * k, sizeof(int32_t));
  w->scratch = room((int64_t)arb_gemm_scratch_bytes(m, k, n, threads), 1);
  const int64_t mk = m * k, mn = m * n, nk = n * k, most = mk > mn ? (mk > nk ? mk : nk) : (mn > nk ? mn : nk);
  if (peer) {
    w->fq = room(mk, sizeof(float));
    w->fh = room(mn, sizeof(float));
    w->ft = room(nk, sizeof(float));
    w->fout = room(most, sizeof(float));
  }
  if (!w->q || !w->h || !w->e || !w->p || !w->votes || !w->code || !w->s || !w->y || !w->dx || !w->d || !w->scratch ||
      (peer && (!w->fq || !w->fh || !w->ft || !w->fout))) {
    workload_free(w);
    return ARB_FAIL(ARB_ERR_NOMEM, "no memory for a product of %lld x %lld x %lld", (long long)m, (long long)k, (long long)n);
  }
  for (int64_t i = 0; i < mk; i++) w->q[i] = random_value();
  for (int64_t i = 0; i < mn; i++) w->h[i] = random_value();
  for (int64_t i = 0; i < nk; i++) w->code[i] = (uint8_t)(next_random() % 255);
  for (int64_t i = 0; i < m; i++) w->s[i] = 1.0f / (float)(1 + next_random() % 1000);
  for (int64_t i = 0; i < n; i++) w->e[i] = (int8_t)(next_random() % 32);
  for (int64_t i = 0; i < n; i++) w->p[i] = (int8_t)(next_random() % 3);
  memset(w->votes, 0, (size_t)nk);
  if (peer) {
    for (int64_t i = 0; i < mk; i++) w->fq[i] = (float)w->q[i];
    for (int64_t i = 0; i < mn; i++) w->fh[i] = (float)w->h[i];
    for (int64_t i = 0; i < nk; i++) w->ft[i] = (float)((w->code[i] >= 170) - (w->code[i] < 85));
    memset(w->fout, 0, (size_t)most * sizeof(float));
  }
  return ARB_OK;
}

static void run_ours(const bench *b, workload *w, form f) {
  const int64_t m = w->shape.m, k = w->shape.k, n = w->shape.n;
  const arb_gemm_votes votes = {
      .key = arb_philox_key_of(1, ARB_DRAW_VOTE), .vmax = 15, .cexp = -16, .p = w->p, .votes = w->votes};
  if (f == FORWARD) b->kernels->forward(b->pool, m, k, n, w->q, w->s, w->code, w->e, w->y, w->scratch);
  if (f == DX) b->kernels->dx(b->pool, m, k, n, w->h, w->s, w->code, w->dx, w->scratch);
  if (f == DW) b->kernels->dw(b->pool, m, k, n, w->h, w->q, w->d, NULL, w->scratch);
  if (f == DW_VOTES) b->kernels->dw(b->pool, m, k, n, w->h, w->q, NULL, &votes, w->scratch);
}

static void run_peer(const bench *b, workload *w, form f) {
  const int64_t m = w->shape.m, k = w->shape.k, n = w->shape.n;
  if (f == FORWARD) arb_blas_sgemm(b->blas, 0, 1, m, n, k, w->fq, w->ft, w->fout);
  if (f == DX) arb_blas_sgemm(b->blas, 0, 0, m, k, n, w->fh, w->ft, w->fout);
  if (f == DW || f == DW_VOTES) arb_blas_sgemm(b->blas, 1, 0, n, k, m, w->fh, w->fq, w->fout);
}

/* Rests, warms up once, then times one run. */
static double time_run(const bench *b, workload *w, form f, void (*run)(const bench *, workload *, form)) {
  rest(b->rest_ms);
  run(b, w, f);
  const double t = now_s();
  run(b, w, f);
  return now_s() - t;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(double *x, int count) {
  qsort(x, (size_t)count, sizeof *x, by_value);
  return count % 2 ? x[count / 2] : 0.5 * (x[count / 2 - 1] + x[count / 2]);
}

/* samples: [3][repetitions] of ours, peer and ratio. */
static void measure(FILE *out, const bench *b, workload *w, form f, double *samples) {
  const int count = b->repetitions;
  double *ours = samples, *peer = samples + count, *ratio = samples + 2 * count;
  const double gop = 2e-9 * (double)w->shape.m * (double)w->shape.k * (double)w->shape.n;
  for (int i = 0; i < count; i++) {
    ours[i] = gop / time_run(b, w, f, run_ours);
    if (b->blas == NULL) continue;
    peer[i] = gop / time_run(b, w, f, run_peer);
    ratio[i] = ours[i] / peer[i];
  }
  const double mid = median(ours, count);
  char shape[64];
  snprintf(shape, sizeof shape, "%lldx%lldx%lld", (long long)w->shape.m, (long long)w->shape.k, (long long)w->shape.n);
  fprintf(out, "%-9s %-18s %-8s %7.1f (%6.1f - %6.1f)", form_names[f], shape, b->kernels->name, mid, ours[0], ours[count - 1]);
  if (b->blas != NULL) {
    const double peer_mid = median(peer, count), ratio_mid = median(ratio, count);
    fprintf(out, " %7.1f (%6.1f - %6.1f) %6.2f (%.2f - %.2f)", peer_mid, peer[0], peer[count - 1], ratio_mid, ratio[0],
            ratio[count - 1]);
  }
  fprintf(out, "\n");
  fflush(out);
}

arb_status arb_bench_gemm(FILE *out, const arb_bench_options *o) {
  static const arb_bench_shape usual[] = {{4096, 512, 1408}, {4096, 1408, 512}};
  const arb_bench_shape *shapes = o->shapes != NULL ? o->shapes : usual;
  const int shape_count = o->shapes != NULL ? o->shape_count : (int)(sizeof usual / sizeof usual[0]);
  const char *isa = o->isa != NULL ? o->isa : "auto", *library = o->peer != NULL ? o->peer : PEER;
  bench b = {.repetitions = o->repetitions > 0 ? o->repetitions : REPETITIONS,
             .rest_ms = o->rest_ms > 0 ? o->rest_ms : REST_MS};
  b.kernels = arb_gemm_pick(isa);
  ARB_REQUIRE(b.kernels != NULL, ARB_ERR_UNSUPPORTED, "this machine has no '%s' kernels", isa);
  for (int i = 0; i < shape_count; i++)
    ARB_REQUIRE(shapes[i].m >= 1 && shapes[i].m <= ARB_GEMM_MAX_ROWS && shapes[i].k >= 1 && shapes[i].n >= 1, ARB_ERR_CONFIG,
                "shape %d: m, k and n must be at least 1, m at most %d", i, ARB_GEMM_MAX_ROWS);
  ARB_TRY(arb_pool_create(o->threads, &b.pool));

  arb_status st = ARB_OK;
  double *samples = malloc(3 * (size_t)b.repetitions * sizeof *samples);
  if (samples == NULL) {
    arb_pool_destroy(&b.pool);
    return ARB_FAIL(ARB_ERR_NOMEM, "no memory for %d samples", b.repetitions);
  }
  if (library[0] != '\0' && arb_blas_open(library, o->threads, &b.blas) != ARB_OK) arb_fail_clear();
  fprintf(out, "kernels %s, %d threads, %d repetitions; peer %s\n", b.kernels->name, o->threads, b.repetitions,
          b.blas != NULL ? arb_blas_name(b.blas) : "absent");
  fprintf(out, "%-9s %-18s %-8s %-25s%s\n", "form", "m x k x n", "kernel", "GOP/s median (min - max)",
          b.blas != NULL ? " sgemm GFLOP/s             ratio (min - max)" : "");
  for (int i = 0; i < shape_count && st == ARB_OK; i++) {
    workload w;
    st = workload_make(&w, &shapes[i], o->threads, b.blas != NULL);
    if (st != ARB_OK) break;
    for (int f = 0; f < FORMS; f++) measure(out, &b, &w, (form)f, samples);
    workload_free(&w);
  }
  free(samples);
  arb_blas_close(&b.blas);
  arb_pool_destroy(&b.pool);
  return st;
}
