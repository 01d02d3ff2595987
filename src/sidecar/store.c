#include "src/sidecar/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/reduce.h"

static int64_t numel(int rank, const int64_t *shape) {
  int64_t n = 1;
  for (int i = 0; i < rank; i++) n *= shape[i];
  return n;
}

void arb_quantise_row(const float *w, int64_t k, int8_t *q, float *scale) {
  const float top = arb_f32_of_bits(arb_row_max_bits(w, k)), s = top / 127.0f;
  *scale = s;
  for (int64_t i = 0; i < k; i++) {
    const float v = s > 0.0f ? rintf(w[i] / s) : 0.0f;
    q[i] = (int8_t)(v < -128.0f ? -128.0f : v > 127.0f ? 127.0f : v);
  }
}

/* ---- reading ---- */

static arb_status fetch(arb_sidecar_store *s, const char *name, int rank, const int64_t *shape, float *out) {
  char full[2 * ARB_STORE_NAME];
  const size_t dropped = strlen(s->drop);
  snprintf(full, sizeof full, "%s%s", s->add, strncmp(name, s->drop, dropped) == 0 ? name + dropped : name);
  ARB_TRY(s->source->read_f32(s->source->ctx, full, rank, shape, out));
  const int64_t n = numel(rank, shape);
  for (int64_t i = 0; i < n; i++)
    ARB_REQUIRE(isfinite(out[i]), ARB_ERR_DATA, "%s: %s: value %lld is not finite", s->source->name, full, (long long)i);
  return ARB_OK;
}

static void count_tensor(arb_sidecar_store *s, arb_sidecar_class c, int64_t parameters) {
  if (s->arena.base == NULL) return;
  s->report->of[c].tensors++;
  s->report->of[c].parameters += parameters;
}

static void need_work(arb_sidecar_store *s, int64_t floats) {
  if (s->arena.base == NULL && floats > s->work_floats) s->work_floats = floats;
}

float *arb_store_floats(arb_sidecar_store *s, arb_sidecar_class c, int64_t count) {
  if (s->arena.base) s->report->of[c].float_bytes += count * (int64_t)sizeof(float);
  return arb_arena_take(&s->arena, ARB_F32, count);
}

arb_status arb_store_read(arb_sidecar_store *s, arb_sidecar_class c, const char *name, int rank, const int64_t *shape,
                          float *out) {
  count_tensor(s, c, numel(rank, shape));
  return s->source && out ? fetch(s, name, rank, shape, out) : ARB_OK;
}

arb_status arb_store_vector(arb_sidecar_store *s, arb_sidecar_class c, const char *name, int rank, const int64_t *shape,
                            const float **out) {
  float *to = arb_store_floats(s, c, numel(rank, shape));
  *out = to;
  return arb_store_read(s, c, name, rank, shape, to);
}

/* ---- matrices ---- */

static bool wants_int8(const arb_sidecar_options *o, arb_sidecar_class c) {
  if (o->float_weights) return false;
  if (c == ARB_SIDECAR_CONV1D || c == ARB_SIDECAR_CONV3D) return o->conv_int8;
  return c == ARB_SIDECAR_EMBEDDING ? o->embed_int8 : true;
}

/* Takes the memory of n rows of taps * depth inputs. */
static void take_matrix(arb_sidecar_store *s, arb_sidecar_class c, int64_t modules, int64_t n, int64_t taps, int64_t depth,
                        arb_sidecar_layer *out) {
  const int64_t k = taps * depth, outputs = arb_dense_panels(n) * ARB_DENSE_PANEL;
  const bool int8 = wants_int8(s->options, c);
  memset(out, 0, sizeof *out);
  out->taps = taps;
  out->depth = depth;
  out->w.n = n;
  out->w.k = k;
  if (int8) {
    out->w.q = arb_arena_take(&s->arena, ARB_I8, outputs * k);
    out->w.scale = arb_arena_take(&s->arena, ARB_F32, outputs);
  } else {
    out->w.f = arb_arena_take(&s->arena, ARB_F32, outputs * k);
  }
  if (s->arena.base == NULL) return;
  arb_sidecar_count *count = &s->report->of[c];
  count->modules += modules;
  count->requested += int8 ? modules : 0;
  count->quantized += int8 ? modules : 0;
  count->quantized_int8 += out->w.q ? modules : 0;
  count->int8_bytes += int8 ? outputs * k : 0;
  count->scale_bytes += int8 ? outputs * (int64_t)sizeof(float) : 0;
  count->float_bytes += int8 ? 0 : outputs * k * (int64_t)sizeof(float);
}

/* Row `row` of the layer from w, which has the file's order: [depth][taps]. */
static void put_row(const arb_sidecar_layer *l, int64_t row, const float *w, float *turned) {
  const int64_t k = l->w.k;
  for (int64_t t = 0; t < l->taps && l->taps > 1; t++)
    for (int64_t c = 0; c < l->depth; c++) turned[t * l->depth + c] = w[c * l->taps + t];
  const float *from = l->taps > 1 ? turned : w;
  if (l->w.q) {
    int8_t *q = (int8_t *)(turned + k);
    arb_quantise_row(from, k, q, (float *)(uintptr_t)&l->w.scale[row]);
    arb_dense_pack_q((int8_t *)(uintptr_t)l->w.q, k, row, q);
  } else {
    arb_dense_pack_f((float *)(uintptr_t)l->w.f, k, row, from);
  }
}

/* NAME.weight into rows [first, first + n) of the layer. */
static arb_status read_matrix(arb_sidecar_store *s, arb_sidecar_class c, const char *name, int rank, const int64_t *shape,
                              int64_t first, const arb_sidecar_layer *l) {
  char full[ARB_STORE_NAME];
  snprintf(full, sizeof full, "%s.weight", name);
  const int64_t all = numel(rank, shape), k = l->w.k;
  need_work(s, all + 2 * k);
  ARB_TRY(arb_store_read(s, c, full, rank, shape, s->work));
  if (s->source == NULL || s->work == NULL) return ARB_OK;
  for (int64_t row = 0; row < shape[0]; row++) put_row(l, first + row, s->work + row * k, s->work + all);
  return ARB_OK;
}

/* NAME.bias of every name, one after the other. */
static arb_status read_bias(arb_sidecar_store *s, const char *const *names, int count, int64_t n, arb_sidecar_layer *l) {
  float *bias = arb_store_floats(s, ARB_SIDECAR_BIAS, count * n);
  l->bias = bias;
  for (int i = 0; i < count; i++) {
    char full[ARB_STORE_NAME];
    snprintf(full, sizeof full, "%s.bias", names[i]);
    ARB_TRY(arb_store_read(s, ARB_SIDECAR_BIAS, full, 1, &n, bias ? bias + i * n : NULL));
  }
  return ARB_OK;
}

arb_status arb_store_linear(arb_sidecar_store *s, const char *const *names, int count, int64_t n, int64_t k, bool bias,
                            arb_sidecar_layer *out) {
  const int64_t shape[2] = {n, k};
  take_matrix(s, ARB_SIDECAR_LINEAR, count, count * n, 1, k, out);
  for (int i = 0; i < count; i++) ARB_TRY(read_matrix(s, ARB_SIDECAR_LINEAR, names[i], 2, shape, i * n, out));
  return bias ? read_bias(s, names, count, n, out) : ARB_OK;
}

arb_status arb_store_conv(arb_sidecar_store *s, const char *name, int64_t out_channels, int64_t in_channels, int dims,
                          const int64_t *kernel, bool bias, arb_sidecar_layer *out) {
  const arb_sidecar_class c = dims == 1 ? ARB_SIDECAR_CONV1D : dims == 2 ? ARB_SIDECAR_CONV2D : ARB_SIDECAR_CONV3D;
  int64_t shape[5] = {out_channels, in_channels}, taps = 1;
  for (int i = 0; i < dims; i++) {
    shape[2 + i] = kernel[i];
    taps *= kernel[i];
  }
  take_matrix(s, c, 1, out_channels, taps, in_channels, out);
  ARB_TRY(read_matrix(s, c, name, 2 + dims, shape, 0, out));
  return bias ? read_bias(s, &name, 1, out_channels, out) : ARB_OK;
}

arb_status arb_store_table(arb_sidecar_store *s, const char *name, int64_t n, int64_t k, arb_sidecar_layer *out) {
  const int64_t shape[2] = {n, k};
  take_matrix(s, ARB_SIDECAR_EMBEDDING, 1, n, 1, k, out);
  return read_matrix(s, ARB_SIDECAR_EMBEDDING, name, 2, shape, 0, out);
}

void arb_layer_row(const arb_sidecar_layer *l, int64_t id, float *out) {
  const int64_t k = l->w.k, at = id / ARB_DENSE_PANEL * k * ARB_DENSE_PANEL + id % ARB_DENSE_PANEL;
  for (int64_t i = 0; i < k; i++)
    out[i] = l->w.q ? (float)l->w.q[at + i * ARB_DENSE_PANEL] * l->w.scale[id] : l->w.f[at + i * ARB_DENSE_PANEL];
}
