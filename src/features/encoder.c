#include "src/features/encoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

arb_status arb_encoder_create(const arb_encoder_ops *ops, void *ctx, const char *key, int64_t rows, int64_t width,
                              arb_encoder **out) {
  arb_encoder *e = calloc(1, sizeof *e);
  float *raw = calloc((size_t)(rows * width), sizeof *raw);
  if (!e || !raw || pthread_mutex_init(&e->lock, NULL) != 0) {
    free(e);
    free(raw);
    ops->destroy(ctx);
    return ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  }
  e->ops = ops;
  e->ctx = ctx;
  snprintf(e->key, sizeof e->key, "%s", key);
  e->rows = rows;
  e->width = width;
  e->raw = raw;
  *out = e;
  return ARB_OK;
}

void arb_encoder_destroy(arb_encoder **encoder) {
  if (!encoder || !*encoder) return;
  arb_encoder *e = *encoder;
  e->ops->destroy(e->ctx);
  pthread_mutex_destroy(&e->lock);
  free(e->raw);
  free(e);
  *encoder = NULL;
}

arb_status arb_encoder_run(arb_encoder *e, const char *name, const unsigned char *bytes, size_t size, int8_t *q, float *s) {
  pthread_mutex_lock(&e->lock);
  arb_status st = e->ops->encode(e->ctx, name, bytes, size, e->raw);
  if (st == ARB_OK && !arb_features_store(e->raw, e->rows, e->width, q, s))
    st = ARB_FAIL(ARB_ERR_NUMERIC, "%s: a feature is not finite", name);
  e->encoded += st == ARB_OK;
  pthread_mutex_unlock(&e->lock);
  return st;
}

int64_t arb_encoder_count(arb_encoder *e) {
  pthread_mutex_lock(&e->lock);
  const int64_t count = e->encoded;
  pthread_mutex_unlock(&e->lock);
  return count;
}

int arb_features_store(const float *x, int64_t rows, int64_t width, int8_t *q, float *s) {
  for (int64_t row = 0; row < rows; row++, x += width, q += width) {
    float a = 0.0f;
    for (int64_t i = 0; i < width; i++) {
      if (!isfinite(x[i])) return 0;
      a = fmaxf(a, fabsf(x[i]));
    }
    const float inv = a < 0x1p-100f ? 0.0f : 127.0f / a;
    s[row] = a < 0x1p-100f ? 0.0f : a / 127.0f;
    for (int64_t i = 0; i < width; i++) q[i] = (int8_t)rintf(fmaxf(fminf(x[i] * inv, 127.0f), -127.0f));
  }
  return 1;
}
