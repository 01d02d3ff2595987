#include "src/sidecar/source.h"

#include <stdio.h>
#include <string.h>

#include "src/safetensors/weights.h"
#include "src/sidecar/sidecar.h"

static bool synthetic_has(void *ctx, const char *name) {
  (void)ctx;
  return strncmp(name, "dinov2.", 7) != 0; /* plain names, as the published files have them */
}

static arb_status synthetic_read(void *ctx, const char *name, int rank, const int64_t *shape, float *out) {
  (void)ctx;
  arb_synthetic_tensor(name, rank, shape, out);
  return ARB_OK;
}

static bool file_has(void *ctx, const char *name) { return arb_weights_has(ctx, name); }

static arb_status file_read(void *ctx, const char *name, int rank, const int64_t *shape, float *out) {
  return arb_weights_read_f32(ctx, name, rank, shape, out);
}

static void file_close(void *ctx) {
  arb_weights *w = ctx;
  arb_weights_close(&w);
}

static arb_status open_file(const char *path, arb_tensor_source *out) {
  arb_weights *w = NULL;
  _Static_assert(sizeof out->digest == ARB_WEIGHTS_DIGEST, "one kind of digest");
  ARB_TRY(arb_weights_open(path, &w));
  const arb_status st = arb_weights_digest(w, out->digest);
  if (st != ARB_OK) {
    arb_weights_close(&w);
    return st;
  }
  out->ctx = w;
  out->has = file_has;
  out->read_f32 = file_read;
  out->close = file_close;
  return ARB_OK;
}

arb_status arb_tensor_source_open(const char *path, arb_tensor_source *out) {
  memset(out, 0, sizeof *out);
  snprintf(out->name, sizeof out->name, "%s", path);
  if (strcmp(path, ARB_SIDECAR_SYNTHETIC) == 0) {
    out->has = synthetic_has;
    out->read_f32 = synthetic_read;
    snprintf(out->digest, sizeof out->digest, ARB_SIDECAR_SYNTHETIC);
    return ARB_OK;
  }
  return open_file(path, out);
}

void arb_tensor_source_close(arb_tensor_source *s) {
  if (s->close) s->close(s->ctx);
  memset(s, 0, sizeof *s);
}
