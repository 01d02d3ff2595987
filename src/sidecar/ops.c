#include "src/sidecar/ops.h"

#include <stdlib.h>
#include <string.h>

enum {
  ATTEND_ROWS = 48, /* rows of scores in hand: they stay in the second-level cache */
  LEAST_ROWS = 48,  /* of a task of a product */
  NORM_ROWS = 16
};

static int64_t scratch_floats(int64_t depth, int64_t keys) {
  const int64_t rounded = arb_dense_panels(keys) * ARB_DENSE_PANEL;
  return arb_dense_scratch(depth > rounded ? depth : rounded) + (ATTEND_ROWS + 1) * rounded + 64;
}

arb_status arb_ops_reserve(arb_ops *ops, int64_t depth, int64_t keys) {
  const int64_t need = scratch_floats(depth, keys);
  if (ops->device) return ARB_OK;
  if (need <= ops->scratch_floats) return ARB_OK;
  const size_t bytes = (size_t)need * sizeof(float) * (size_t)arb_pool_threads(ops->pool);
  float *bigger = aligned_alloc(64, (bytes + 63) / 64 * 64);
  ARB_REQUIRE(bigger, ARB_ERR_NOMEM, "out of host memory: %zu bytes of scratch", bytes);
  free(ops->scratch);
  ops->scratch = bigger;
  ops->scratch_floats = need;
  return ARB_OK;
}

arb_status arb_ops_create(const arb_sidecar_options *o, int64_t depth, int64_t keys, arb_ops *out) {
  memset(out, 0, sizeof *out);
  const char *isa = o->isa ? o->isa : "auto";
  out->kernels = arb_dense_pick(isa);
  ARB_REQUIRE(out->kernels, ARB_ERR_UNSUPPORTED, "this machine has no '%s' kernels", isa);
  arb_status st = o->place.open ? o->place.open(o->place.index, &out->device) : ARB_OK;
  if (st == ARB_OK) st = arb_pool_create(o->threads > 0 && !out->device ? o->threads : 1, &out->pool);
  if (st == ARB_OK) st = arb_ops_reserve(out, depth, keys);
  if (st != ARB_OK) arb_ops_destroy(out);
  return st;
}

void arb_ops_destroy(arb_ops *ops) {
  arb_pool_destroy(&ops->pool);
  free(ops->scratch);
  free(ops->stage);
  if (ops->device) ops->device->destroy(ops->device);
  memset(ops, 0, sizeof *ops);
}

void arb_ops_each(arb_ops *ops, arb_pool_fn fn, void *arg, int64_t count) { arb_pool_run(ops->pool, fn, arg, (int)count); }

static float *scratch_of(const arb_ops *ops, int worker) { return ops->scratch + worker * ops->scratch_floats; }

/* ---- products ---- */

typedef struct {
  const arb_ops *ops;
  const arb_dense_input *x;
  const arb_dense_matrix *w;
  const arb_dense_epilogue *e;
  float *y;
  int64_t ldy, m, panels, chunks;
} product_job;

static void product_task(void *arg, int task, int worker) {
  const product_job *j = arg;
  const int64_t chunk = task / j->panels, panel = task % j->panels;
  j->ops->kernels->product(j->x, j->m * chunk / j->chunks, j->m * (chunk + 1) / j->chunks, j->w, panel, j->e, j->y, j->ldy,
                           scratch_of(j->ops, worker));
}

void arb_ops_product(arb_ops *ops, const arb_dense_input *x, int64_t m, const arb_sidecar_layer *l, const arb_dense_epilogue *e,
                     float *y, int64_t ldy) {
  static const arb_dense_epilogue nothing;
  arb_dense_epilogue own = e ? *e : nothing;
  own.bias = l->bias;
  if (ops->device) {
    const arb_dense_reach reach = {
        .at = {x->x}, .taps = 1, .depth = x->depth, .width = m, .pixel = x->ld}; /* at: convolutions reach by themselves */
    ARB_OPS_ON_DEVICE(ops, ops->device->product(ops->device, &reach, m, &l->w, &own, y, ldy));
  }
  product_job j = {ops, x, &l->w, &own, y, ldy, m, arb_dense_panels(l->w.n), (m + ARB_DENSE_ROWS - 1) / ARB_DENSE_ROWS};
  /* A few tasks for each thread; every chunk of rows expands the weights anew. */
  while (j.panels * j.chunks < 3 * arb_pool_threads(ops->pool) && m / (j.chunks + 1) >= LEAST_ROWS) j.chunks++;
  arb_ops_each(ops, product_task, &j, j.panels * j.chunks);
}

void arb_ops_linear(arb_ops *ops, const float *x, int64_t ld, int64_t m, const arb_sidecar_layer *l,
                    const arb_dense_epilogue *e, float *y, int64_t ldy) {
  const arb_dense_input in = {.x = x, .ld = ld, .taps = 1, .depth = l->w.k};
  arb_ops_product(ops, &in, m, l, e, y, ldy);
}

/* ---- norms ---- */

typedef struct {
  const arb_ops *ops;
  const float *x, *weight, *bias;
  float *y, eps;
  int64_t ldx, ldy, m, width;
} norm_job;

static void norm_task(void *arg, int task, int worker) {
  const norm_job *j = arg;
  (void)worker;
  for (int64_t r = (int64_t)task * NORM_ROWS; r < j->m && r < ((int64_t)task + 1) * NORM_ROWS; r++)
    j->ops->kernels->layer_norm(j->x + r * j->ldx, j->width, j->weight, j->bias, j->eps, j->y + r * j->ldy);
}

void arb_ops_layer_norm(arb_ops *ops, const float *x, int64_t ldx, int64_t m, int64_t width, const float *weight,
                        const float *bias, float eps, float *y, int64_t ldy) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->layer_norm(ops->device, x, ldx, m, width, weight, bias, eps, y, ldy));
  norm_job j = {ops, x, weight, bias, y, eps, ldx, ldy, m, width};
  arb_ops_each(ops, norm_task, &j, (m + NORM_ROWS - 1) / NORM_ROWS);
}

/* ---- attention ---- */

static int64_t rounded_up(int64_t n) { return arb_dense_panels(n) * ARB_DENSE_PANEL; }

int64_t arb_kv_floats(int64_t heads, int64_t width, int64_t capacity) {
  return heads * rounded_up(capacity) * (width + rounded_up(width));
}

void arb_kv_place(arb_kv *kv, int64_t heads, int64_t width, int64_t capacity, float *memory) {
  *kv = (arb_kv){.heads = heads, .width = width, .capacity = rounded_up(capacity), .keys = memory};
  kv->values = memory + heads * kv->capacity * width;
}

typedef struct {
  const arb_ops *ops;
  const arb_kv *kv;
  const float *q, *k, *v;
  int64_t ldq, ldk, ldv, m, parts, ldo;
  float scale, *out;
  bool causal;
} attend_job;

static void append_task(void *arg, int head, int worker) {
  const attend_job *j = arg;
  const arb_kv *kv = j->kv;
  const int64_t w = kv->width, panels = arb_dense_panels(w);
  float *keys = kv->keys + head * kv->capacity * w, *values = kv->values + head * panels * kv->capacity * ARB_DENSE_PANEL;
  (void)worker;
  for (int64_t i = 0; i < j->m; i++) {
    const float *k = j->k + i * j->ldk + head * w, *v = j->v + i * j->ldv + head * w;
    arb_dense_pack_f(keys, w, kv->count + i, k);
    for (int64_t p = 0; p < panels; p++) {
      const int64_t here = w - p * ARB_DENSE_PANEL < ARB_DENSE_PANEL ? w - p * ARB_DENSE_PANEL : ARB_DENSE_PANEL;
      memcpy(values + (p * kv->capacity + kv->count + i) * ARB_DENSE_PANEL, v + p * ARB_DENSE_PANEL, (size_t)here * sizeof *v);
    }
  }
}

static void append(arb_ops *ops, const arb_kv *kv, const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t m) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->append(ops->device, kv, k, ldk, v, ldv, m));
  attend_job j = {.ops = ops, .kv = kv, .k = k, .ldk = ldk, .v = v, .ldv = ldv, .m = m};
  arb_ops_each(ops, append_task, &j, kv->heads);
}

void arb_ops_append(arb_ops *ops, arb_kv *kv, const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t m) {
  append(ops, kv, k, ldk, v, ldv, m);
  kv->count += m;
}

/* Rows [begin, end) of one head: scores, softmax, values. */
static void attend_rows(const attend_job *j, int64_t head, int64_t begin, int64_t end, float *scratch) {
  const arb_kv *kv = j->kv;
  const int64_t w = kv->width, keys = kv->count, ld = rounded_up(keys), panels = arb_dense_panels(w);
  const arb_dense_epilogue nothing = {0};
  float *scales = scratch, *scores = scratch + ld, *work = scores + ATTEND_ROWS * ld;
  for (int64_t i = 0; i < ld; i++) scales[i] = j->scale;
  const arb_dense_matrix by_key = {.n = keys, .k = w, .f = kv->keys + head * kv->capacity * w, .scale = scales};
  const arb_dense_input q = {.x = j->q + begin * j->ldq + head * w, .ld = j->ldq, .taps = 1, .depth = w};
  for (int64_t p = 0; p < ld / ARB_DENSE_PANEL; p++)
    j->ops->kernels->product(&q, 0, end - begin, &by_key, p, &nothing, scores, ld, work);
  for (int64_t i = 0; i < end - begin; i++) {
    const int64_t seen = j->causal ? keys - j->m + begin + i + 1 : keys;
    j->ops->kernels->softmax(scores + i * ld, seen);
    for (int64_t c = seen; c < keys; c++) scores[i * ld + c] = 0.0f;
  }
  /* The panels of values are `capacity` rows apart; the product reads the first `keys` of them. */
  const arb_dense_matrix by_row = {.n = w, .k = kv->capacity, .f = kv->values + head * panels * kv->capacity * ARB_DENSE_PANEL};
  const arb_dense_input s = {.x = scores, .ld = ld, .taps = 1, .depth = keys};
  for (int64_t p = 0; p < panels; p++)
    j->ops->kernels->product(&s, 0, end - begin, &by_row, p, &nothing, j->out + begin * j->ldo + head * w, j->ldo, work);
}

static void attend_task(void *arg, int task, int worker) {
  const attend_job *j = arg;
  const int64_t head = task / j->parts, part = task % j->parts;
  const int64_t last = j->m * (part + 1) / j->parts;
  for (int64_t r = j->m * part / j->parts; r < last; r += ATTEND_ROWS)
    attend_rows(j, head, r, r + ATTEND_ROWS < last ? r + ATTEND_ROWS : last, scratch_of(j->ops, worker));
}

void arb_ops_attend(arb_ops *ops, const arb_kv *kv, const float *q, int64_t ldq, int64_t m, float scale, bool causal,
                    float *out, int64_t ldo) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->attend(ops->device, kv, q, ldq, m, scale, causal, out, ldo));
  const int64_t threads = arb_pool_threads(ops->pool);
  int64_t parts = (2 * threads + kv->heads - 1) / kv->heads;
  if (parts > m) parts = m;
  attend_job j = {.ops = ops,
                  .kv = kv,
                  .q = q,
                  .ldq = ldq,
                  .m = m,
                  .parts = parts,
                  .scale = scale,
                  .causal = causal,
                  .out = out,
                  .ldo = ldo};
  arb_ops_each(ops, attend_task, &j, kv->heads * parts);
}
