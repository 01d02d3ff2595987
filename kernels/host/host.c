#include "kernels/host/host.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/common/scale.h"
#include "src/base/arena.h"

void *arb_host_aligned_alloc(size_t bytes) {
  const size_t padded = (bytes + ARB_ARENA_ALIGN - 1) / ARB_ARENA_ALIGN * ARB_ARENA_ALIGN;
  return aligned_alloc(ARB_ARENA_ALIGN, padded ? padded : ARB_ARENA_ALIGN);
}

arb_status arb_host_work(arb_host *host, size_t bytes, void **out) {
  if (bytes > host->work_bytes) {
    free(host->work);
    host->work = arb_host_aligned_alloc(bytes);
    host->work_bytes = host->work ? bytes : 0;
    ARB_REQUIRE(host->work, ARB_ERR_NOMEM, "%zu bytes of kernel work memory", bytes);
  }
  *out = host->work;
  return ARB_OK;
}

/* Rows start on cache lines whatever the width. */
static int64_t scratch_row(int64_t width) { return arb_pad8(width) + 64; }

size_t arb_host_scratch_bytes(int64_t width) { return (size_t)scratch_row(width) * 4 * sizeof(float); }

arb_status arb_host_reserve(arb_host *host, int64_t width) {
  const size_t bytes = arb_host_scratch_bytes(width);
  width = scratch_row(width);
  if (width <= host->scratch_width) return ARB_OK;
  host->scratch_width = 0;
  for (int i = 0; i < host->workers; i++) {
    arb_row_scratch *t = &host->scratch[i];
    free(t->a);
    t->a = arb_host_aligned_alloc(bytes);
    ARB_REQUIRE(t->a, ARB_ERR_NOMEM, "%zu bytes of row scratch", bytes);
    t->b = t->a + width;
    t->c = t->b + width;
    t->draws = (uint16_t *)(t->c + width);
  }
  host->scratch_width = width;
  return ARB_OK;
}

arb_row_env arb_host_env(arb_backend *be, const arb_rows *r) {
  arb_host *host = arb_host_of(be);
  arb_row_env env = {.seed = be->seed, .step = be->step, .draws = host->draws, .nonfinite = &be->nonfinite};
  if (r) env.rows = *r;
  return env;
}

/* ---- measurement ---- */

double arb_host_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void arb_host_count(arb_host *host, arb_host_op op, double start) {
  host->seconds[op] += arb_host_clock() - start;
  host->calls[op]++;
}

void arb_host_run(arb_host *host, arb_host_op op, int64_t total, int64_t chunk, arb_host_task task, void *arg) {
  const double start = arb_host_clock();
  host->run(host, total, chunk, task, arg);
  arb_host_count(host, op, start);
}

static arb_status host_profile(arb_backend *be, int index, int reset, const char **name, double *seconds, int64_t *calls) {
  static const char *const names[ARB_HOST__COUNT] = {"linear_forward",
                                                     "linear_dx",
                                                     "linear_dw_vote",
                                                     "embed_forward",
                                                     "add_norm_quant",
                                                     "window_norm_quant",
                                                     "gather_rows",
                                                     "mlgru_forward",
                                                     "gate_norm_quant",
                                                     "glu_norm_quant",
                                                     "xent",
                                                     "grad_quant",
                                                     "rescale",
                                                     "embed_dw",
                                                     "vote_join",
                                                     "norm_backward",
                                                     "input_norm_backward",
                                                     "gate_norm_backward",
                                                     "mlgru_backward",
                                                     "glu_norm_backward",
                                                     "vote_rows",
                                                     "vote_columns",
                                                     "update",
                                                     "init_stack",
                                                     "pack_trits",
                                                     "unpack_trits"};
  arb_host *host = arb_host_of(be);
  if (reset) {
    memset(host->seconds, 0, sizeof host->seconds);
    memset(host->calls, 0, sizeof host->calls);
    return ARB_OK;
  }
  if (index < 0 || index >= ARB_HOST__COUNT) return ARB_ERR_ARG;
  *name = names[index];
  *seconds = host->seconds[index];
  *calls = host->calls[index];
  return ARB_OK;
}

/* ---- memory and control ---- */

static arb_status host_alloc(arb_backend *be, size_t bytes, void **out) {
  *out = arb_host_aligned_alloc(bytes);
  ARB_REQUIRE(*out, ARB_ERR_NOMEM, "out of host memory: %zu bytes asked for", bytes);
  be->allocated += bytes;
  return ARB_OK;
}

static arb_status host_reserve(arb_backend *be, size_t work_bytes, int64_t row_width) {
  void *work;
  ARB_TRY(arb_host_work(arb_host_of(be), work_bytes, &work));
  return arb_host_reserve(arb_host_of(be), row_width);
}

static size_t host_held(const arb_backend *be) {
  const arb_host *host = be->ctx;
  return host->work_bytes + (size_t)host->workers * (size_t)host->scratch_width * 4 * sizeof(float);
}

/* Pages that hold caches count as in use here, so `available` is a lower bound. */
static arb_status host_memory(arb_backend *be, size_t *available, size_t *total) {
  (void)be;
  const long page = sysconf(_SC_PAGESIZE), pages = sysconf(_SC_PHYS_PAGES), idle = sysconf(_SC_AVPHYS_PAGES);
  ARB_REQUIRE(page > 0 && pages > 0 && idle >= 0, ARB_ERR_IO, "this system does not tell the size of its memory");
  *available = (size_t)idle * (size_t)page;
  *total = (size_t)pages * (size_t)page;
  return ARB_OK;
}

static void host_free(arb_backend *be, void *ptr) {
  (void)be;
  free(ptr);
}

static arb_status host_copy(arb_backend *be, void *dst, const void *src, size_t bytes) {
  (void)be;
  if (bytes) memcpy(dst, src, bytes);
  return ARB_OK;
}

static arb_status host_set(arb_backend *be, void *dst, int byte, size_t bytes) {
  (void)be;
  if (bytes) memset(dst, byte, bytes);
  return ARB_OK;
}

static arb_status host_sync(arb_backend *be) {
  (void)be;
  return ARB_OK;
}

static arb_status host_begin_step(arb_backend *be, uint64_t seed, uint32_t step, float eta_units) {
  be->seed = seed;
  be->step = step;
  be->eta_units = eta_units;
  return ARB_OK;
}

static arb_status host_take_nonfinite(arb_backend *be, int *flag) {
  *flag = be->nonfinite;
  be->nonfinite = 0;
  return ARB_OK;
}

static arb_status host_post(arb_backend *be, const int64_t *src, int words) {
  arb_host *host = arb_host_of(be);
  memcpy(host->posted, src, (size_t)words * sizeof *src);
  host->posted[ARB_POST_WORDS] = be->nonfinite;
  host->posted_words = words;
  be->nonfinite = 0;
  return ARB_OK;
}

static arb_status host_collect(arb_backend *be, int64_t *out, int *flag) {
  const arb_host *host = arb_host_of(be);
  memcpy(out, host->posted, (size_t)host->posted_words * sizeof *out);
  *flag = (int)host->posted[ARB_POST_WORDS];
  return ARB_OK;
}

static void host_destroy(arb_backend *be) {
  arb_host *host = arb_host_of(be);
  if (!host) return;
  if (host->close) host->close(host);
  for (int i = 0; host->scratch && i < host->workers; i++) free(host->scratch[i].a);
  free(host->scratch);
  free(host->work);
  free(host);
}

static arb_status host_draws(arb_backend *be, arb_draw_purpose purpose, uint32_t tensor, uint32_t grain, int64_t first,
                             int64_t count, uint16_t *out) {
  ARB_REQUIRE(first % 8 == 0, ARB_ERR_ARG, "draws: first element %lld is not a multiple of 8", (long long)first);
  arb_host_of(be)->draws(arb_philox_key_of(be->seed, purpose), tensor, be->step, grain, first, count, out);
  return ARB_OK;
}

/* ---- walks over rows ---- */

typedef struct {
  arb_host *host;
  arb_row_op op;
  const arb_row_args *args;
} row_walk;

static void row_walk_task(void *arg, int64_t begin, int64_t end, int worker) {
  const row_walk *w = arg;
  w->op(w->args, begin, end, &w->host->scratch[worker]);
}

static arb_status walk(arb_backend *be, arb_host_op which, arb_row_op op, const arb_row_args *args, int64_t total,
                       int64_t chunk, int64_t width) {
  arb_host *host = arb_host_of(be);
  ARB_TRY(arb_host_reserve(host, width));
  row_walk w = {host, op, args};
  arb_host_run(host, which, total, chunk, row_walk_task, &w);
  return ARB_OK;
}

/* 2^(e/8) for a whole row, and for the rows of a stack (NULL: none), in the shared work memory. */
static arb_status gains_pair(arb_backend *be, const int8_t *e, int64_t width, const arb_stack *w, const float **out,
                             const float **out_w) {
  const int64_t n = w ? w->n : 0;
  void *work = NULL;
  ARB_TRY(arb_host_work(arb_host_of(be), (size_t)(width + n) * sizeof(float), &work));
  float *g = work;
  for (int64_t i = 0; i < width; i++) g[i] = arb_pow2_eighths(e[i]);
  for (int64_t i = 0; i < n; i++) g[width + i] = arb_pow2_eighths(w->e[i]);
  *out = g;
  if (out_w) *out_w = g + width;
  return ARB_OK;
}

static arb_status gains(arb_backend *be, const int8_t *e, int64_t width, const float **out) {
  return gains_pair(be, e, width, NULL, out, NULL);
}

/* Rows a task takes: about 64 KiB of fp32, so that a task is worth its hand-out and its rows stay in cache. */
static int64_t row_chunk(int64_t width) { return 16384 / width + 1; }

static arb_status add_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const float *x_in, const uint16_t *y,
                                 float *x_out, const int8_t *e, int8_t *q, float *s, float *inv) {
  const float *gain;
  ARB_TRY(gains(be, e, width, &gain));
  const arb_row_args a = {.env = arb_host_env(be, r),
                          .width = width,
                          .x_in = x_in,
                          .y = y,
                          .x_out = x_out,
                          .gain = gain,
                          .q = q,
                          .s = s,
                          .inv = inv};
  return walk(be, ARB_HOST_ADD_NORM_QUANT, arb_host_of(be)->rows->add_norm_quant, &a, arb_rows_count(r), row_chunk(width),
              width);
}

static arb_status window_norm_quant(arb_backend *be, const arb_rows *r, int64_t windows, int64_t span, int64_t width,
                                    const int8_t *q_in, const float *s_in, const int8_t *e, int8_t *q, float *s) {
  const int64_t wide = span * width;
  const float *gain;
  ARB_TRY(gains(be, e, wide, &gain));
  const arb_row_args a = {.env = arb_host_env(be, r),
                          .width = wide,
                          .context = windows,
                          .span = span,
                          .q_in = q_in,
                          .s_in = s_in,
                          .gain = gain,
                          .q = q,
                          .s = s};
  return walk(be, ARB_HOST_WINDOW_NORM_QUANT, arb_host_of(be)->rows->window_norm_quant, &a, arb_rows_count(r), row_chunk(wide),
              wide);
}

typedef struct {
  const unsigned char *in;
  const int32_t *index;
  unsigned char *out;
  size_t row_bytes;
} gather;

static void gather_task(void *arg, int64_t begin, int64_t end, int worker) {
  (void)worker;
  const gather *g = arg;
  for (int64_t i = begin; i < end; i++) {
    unsigned char *to = g->out + (size_t)i * g->row_bytes;
    if (g->index[i] < 0)
      memset(to, 0, g->row_bytes);
    else
      memcpy(to, g->in + (size_t)g->index[i] * g->row_bytes, g->row_bytes);
  }
}

static arb_status gather_rows(arb_backend *be, int64_t count, int64_t row_bytes, const void *in, const int32_t *index,
                              void *out) {
  gather g = {in, index, out, (size_t)row_bytes};
  arb_host_run(arb_host_of(be), ARB_HOST_GATHER_ROWS, count, 4 * row_chunk(row_bytes), gather_task, &g);
  return ARB_OK;
}

static arb_status linear_forward(arb_backend *be, const arb_rows *r, const int8_t *q, const float *s, const arb_stack *w,
                                 uint16_t *y) {
  const double start = arb_host_clock();
  const arb_status st = arb_host_of(be)->product_forward(be, arb_rows_count(r), q, s, w, y);
  arb_host_count(arb_host_of(be), ARB_HOST_FORWARD, start);
  return st;
}

static int64_t scan_lanes(const arb_rows *r, int64_t context, int64_t width) {
  return arb_rows_count(r) / context * ((width + ARB_SCAN_CHANNELS - 1) / ARB_SCAN_CHANNELS);
}

static arb_status mlgru_forward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                const uint16_t *zc, int64_t ldz, const float *bias, float *h) {
  const arb_row_args a = {
      .env = arb_host_env(be, r), .width = width, .context = context, .y = zf, .y2 = zc, .ldz = ldz, .bias = bias, .x_out = h};
  return walk(be, ARB_HOST_MLGRU_FORWARD, arb_host_of(be)->rows->mlgru_forward, &a, scan_lanes(r, context, width), 1, width);
}

static arb_status gate_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                  int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv) {
  const float *gain;
  ARB_TRY(gains(be, e, width, &gain));
  const arb_row_args a = {
      .env = arb_host_env(be, r), .width = width, .x_in = h, .y2 = zg, .ldz = ldz, .gain = gain, .q = q, .s = s, .inv = inv};
  return walk(be, ARB_HOST_GATE_NORM_QUANT, arb_host_of(be)->rows->gate_norm_quant, &a, arb_rows_count(r), row_chunk(width),
              width);
}

static arb_status glu_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                                 int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv) {
  const float *gain;
  ARB_TRY(gains(be, e, width, &gain));
  const arb_row_args a = {
      .env = arb_host_env(be, r), .width = width, .y = u, .y2 = v, .ldz = ldz, .gain = gain, .q = q, .s = s, .inv = inv};
  return walk(be, ARB_HOST_GLU_NORM_QUANT, arb_host_of(be)->rows->glu_norm_quant, &a, arb_rows_count(r), row_chunk(width),
              width);
}

static arb_status xent(arb_backend *be, const arb_rows *r, const uint16_t *logits, const int32_t *targets, float weight,
                       const arb_stack *w, int8_t *hq, float *sh, int64_t *loss, int64_t *count) {
  const float *gain;
  ARB_TRY(gains(be, w->e, w->n, &gain));
  const arb_row_args a = {.env = arb_host_env(be, r),
                          .width = w->n,
                          .y = logits,
                          .targets = targets,
                          .weight = weight,
                          .w = w,
                          .gain_w = gain,
                          .q = hq,
                          .s = sh,
                          .loss = loss,
                          .count = count};
  return walk(be, ARB_HOST_XENT, arb_host_of(be)->rows->xent, &a, arb_rows_count(r), row_chunk(w->n), w->n);
}

static arb_status grad_quant(arb_backend *be, const arb_rows *r, const float *g, const uint16_t *g_bf16, int64_t ldg,
                             const arb_stack *w, int use, int8_t *hq, float *sh) {
  const float *gain;
  ARB_TRY(gains(be, w->e, w->n, &gain));
  const arb_row_args a = {
      .env = arb_host_env(be, r), .x_in = g, .y = g_bf16, .ldz = ldg, .w = w, .gain_w = gain, .use = use, .q = hq, .s = sh};
  return walk(be, ARB_HOST_GRAD_QUANT, arb_host_of(be)->rows->grad_quant, &a, arb_rows_count(r), row_chunk(w->n), w->n);
}

arb_status arb_host_rescale(arb_backend *be, const arb_rows *r, const arb_stack *w, int use, const int8_t *hq, const float *sh,
                            const float *s, int32_t *cexp, int8_t **tq) {
  arb_host *host = arb_host_of(be);
  const int64_t m = arb_rows_count(r);
  void *memory;
  const size_t slot = arb_host_slot_bytes(be, m, r->rows_per_grain, w); /* the product that follows takes its share in front */
  ARB_TRY(arb_host_work(host, slot + arb_host_rescale_bytes(m, w->n), &memory));
  int32_t *ratio = (int32_t *)((unsigned char *)memory + slot);
  *tq = (int8_t *)(ratio + m);
  for (int32_t g = 0; g < r->grains; g++) {
    const int64_t begin = g * r->rows_per_grain, end = begin + r->rows_per_grain;
    uint32_t most = 0; /* magnitudes order as their bits do */
    for (int64_t i = begin; i < end; i++) {
      const uint32_t bits = arb_bits_of_f32(s ? sh[i] * s[i] : sh[i]);
      most = bits > most ? bits : most;
    }
    if (most >= 0x7f800000u) be->nonfinite = 1;
    cexp[g] = most >= 0x7f800000u ? ARB_NO_SCALE : arb_rows_exponent(arb_f32_of_bits(most));
    for (int64_t i = begin; i < end; i++) ratio[i] = arb_row_ratio(s ? sh[i] * s[i] : sh[i], cexp[g]);
  }
  const arb_row_args a = {.env = arb_host_env(be, r), .w = w, .use = use, .hq = hq, .ratio = ratio, .q = *tq};
  return walk(be, ARB_HOST_RESCALE, host->rows->rescale, &a, m, row_chunk(w->n), w->n);
}

static arb_status linear_dx(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const arb_stack *w,
                            uint16_t *dx) {
  const double start = arb_host_clock();
  const arb_status st = arb_host_of(be)->product_dx(be, arb_rows_count(r), hq, sh, w, dx);
  arb_host_count(arb_host_of(be), ARB_HOST_DX, start);
  return st;
}

static arb_status linear_dw_vote(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const int8_t *q,
                                 const float *s, int vmax, const arb_stack *w) {
  int32_t cexp[ARB_MAX_GRAINS];
  int8_t *tq;
  ARB_REQUIRE(w->uses == 1 && r->grains <= ARB_MAX_GRAINS, ARB_ERR_ARG, "dW: %d uses, %d grains", w->uses, r->grains);
  ARB_TRY(arb_host_rescale(be, r, w, 0, hq, sh, s, cexp, &tq));
  for (int32_t g = 0; g < r->grains; g++) {
    if (cexp[g] == ARB_NO_SCALE) continue;
    const int64_t row0 = g * r->rows_per_grain;
    const arb_host_dw d = {.w = w,
                           .tq = tq + row0 * w->n,
                           .q = q + row0 * w->k,
                           .rows = r->rows_per_grain,
                           .cexp = cexp[g],
                           .vmax = vmax,
                           .grain = (uint32_t)(r->first + g * r->stride)};
    const double start = arb_host_clock();
    ARB_TRY(arb_host_of(be)->product_dw(be, &d));
    arb_host_count(arb_host_of(be), ARB_HOST_DW_VOTE, start);
  }
  return ARB_OK;
}

static arb_status norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const float *x, const float *inv,
                                const int8_t *e, const uint16_t *dy, int accumulate, float *g, const arb_stack *below,
                                int8_t *hq, float *sh) {
  const float *gain, *gain_w;
  ARB_REQUIRE(!below || below->n == width, ARB_ERR_ARG, "norm_backward: a gradient of %lld columns for a stack of %lld",
              (long long)width, (long long)(below ? below->n : 0));
  ARB_TRY(gains_pair(be, e, width, below, &gain, &gain_w));
  const arb_row_args a = {.env = arb_host_env(be, r),
                          .width = width,
                          .x_in = x,
                          .inv_in = inv,
                          .gain = gain,
                          .dy = dy,
                          .accumulate = accumulate,
                          .x_out = g,
                          .w = below,
                          .gain_w = gain_w,
                          .q = below ? hq : NULL,
                          .s = sh};
  return walk(be, ARB_HOST_NORM_BACKWARD, arb_host_of(be)->rows->norm_backward, &a, arb_rows_count(r), row_chunk(width), width);
}

static arb_status input_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *x, const float *inv,
                                      const int8_t *e, const uint16_t *dy, uint16_t *g) {
  const float *gain;
  ARB_TRY(gains(be, e, width, &gain));
  const arb_row_args a = {
      .env = arb_host_env(be, r), .width = width, .y = x, .inv_in = inv, .gain = gain, .dy = dy, .y_out = g};
  return walk(be, ARB_HOST_INPUT_NORM_BACKWARD, arb_host_of(be)->rows->input_norm_backward, &a, arb_rows_count(r),
              row_chunk(width), width);
}

static arb_status gate_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                     int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy, uint16_t *dh,
                                     uint16_t *dzg, int64_t lddz) {
  const float *gain;
  ARB_TRY(gains(be, e, width, &gain));
  const arb_row_args a = {.env = arb_host_env(be, r),
                          .width = width,
                          .x_in = h,
                          .y2 = zg,
                          .ldz = ldz,
                          .inv_in = inv,
                          .gain = gain,
                          .dy = dy,
                          .y_out = dh,
                          .y_out2 = dzg,
                          .lddz = lddz};
  return walk(be, ARB_HOST_GATE_NORM_BACKWARD, arb_host_of(be)->rows->gate_norm_backward, &a, arb_rows_count(r),
              row_chunk(width), width);
}

static arb_status mlgru_backward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                 const uint16_t *zc, int64_t ldz, const float *bias, const float *h, const uint16_t *dh,
                                 uint16_t *dzf, uint16_t *dzc, int64_t lddz) {
  const arb_row_args a = {.env = arb_host_env(be, r),
                          .width = width,
                          .context = context,
                          .y = zf,
                          .y2 = zc,
                          .ldz = ldz,
                          .bias = bias,
                          .x_in = h,
                          .dy = dh,
                          .y_out = dzf,
                          .y_out2 = dzc,
                          .lddz = lddz};
  return walk(be, ARB_HOST_MLGRU_BACKWARD, arb_host_of(be)->rows->mlgru_backward, &a, scan_lanes(r, context, width), 1, width);
}

static arb_status glu_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                                    int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy, const arb_stack *w,
                                    int8_t *hq, float *sh) {
  const float *gain, *gain_w;
  ARB_REQUIRE(w->n == 2 * width, ARB_ERR_ARG, "glu_norm_backward: a stack of %lld rows for two of %lld", (long long)w->n,
              (long long)width);
  ARB_TRY(gains_pair(be, e, width, w, &gain, &gain_w));
  const arb_row_args a = {.env = arb_host_env(be, r),
                          .width = width,
                          .y = u,
                          .y2 = v,
                          .ldz = ldz,
                          .inv_in = inv,
                          .gain = gain,
                          .dy = dy,
                          .w = w,
                          .gain_w = gain_w,
                          .q = hq,
                          .s = sh};
  return walk(be, ARB_HOST_GLU_NORM_BACKWARD, arb_host_of(be)->rows->glu_norm_backward, &a, arb_rows_count(r), row_chunk(w->n),
              w->n);
}

void arb_host_fill(arb_backend *be, arb_host *host) {
  be->ctx = host;
  be->threads = host->workers;
  be->flag = &be->nonfinite;
  arb_ops *o = &be->ops;
  o->alloc = host_alloc;
  o->free = host_free;
  o->upload = host_copy;
  o->download = host_copy;
  o->fill = host_set;
  o->sync = host_sync;
  o->begin_step = host_begin_step;
  o->take_nonfinite = host_take_nonfinite;
  o->post = host_post;
  o->collect = host_collect;
  o->destroy = host_destroy;
  o->reserve = host_reserve;
  o->held = host_held;
  o->memory = host_memory;
  o->profile = host_profile;
  o->draws = host_draws;
  o->add_norm_quant = add_norm_quant;
  o->window_norm_quant = window_norm_quant;
  o->gather_rows = gather_rows;
  o->linear_forward = linear_forward;
  o->mlgru_forward = mlgru_forward;
  o->gate_norm_quant = gate_norm_quant;
  o->glu_norm_quant = glu_norm_quant;
  o->xent = xent;
  o->grad_quant = grad_quant;
  o->linear_dx = linear_dx;
  o->linear_dw_vote = linear_dw_vote;
  o->norm_backward = norm_backward;
  o->input_norm_backward = input_norm_backward;
  o->gate_norm_backward = gate_norm_backward;
  o->mlgru_backward = mlgru_backward;
  o->glu_norm_backward = glu_norm_backward;
  arb_host_fill_embedding(o);
  arb_host_fill_shard(o);
  arb_host_fill_update(o);
}
