/* Where the operations of a sidecar find their memory: the host's, or a device's with a stage between. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/sidecar/ops.h"

static size_t bytes_of(int64_t floats) { return (size_t)floats * sizeof(float); }

bool arb_ops_note(arb_ops *ops, arb_status st) {
  if (ops->failed == ARB_OK) ops->failed = st;
  return ops->failed == ARB_OK;
}

arb_status arb_ops_status(arb_ops *ops) {
  const arb_status st = ops->failed;
  ops->failed = ARB_OK;
  return st;
}

arb_status arb_ops_alloc(arb_ops *ops, int64_t floats, float **out) {
  *out = NULL;
  if (ops->device) {
    void *memory;
    ARB_TRY(ops->device->alloc(ops->device, bytes_of(floats), &memory));
    *out = memory;
    return ARB_OK;
  }
  *out = aligned_alloc(ARB_ARENA_ALIGN, (bytes_of(floats) + ARB_ARENA_ALIGN - 1) / ARB_ARENA_ALIGN * ARB_ARENA_ALIGN);
  ARB_REQUIRE(*out, ARB_ERR_NOMEM, "out of host memory: %lld floats of activations", (long long)floats);
  return ARB_OK;
}

void arb_ops_free(arb_ops *ops, float *memory) {
  if (memory == NULL) return;
  if (ops->device)
    ops->device->free(ops->device, memory);
  else
    free(memory);
}

static float *stage(arb_ops *ops, int64_t count) {
  if (count > ops->stage_floats) {
    free(ops->stage);
    ops->stage = malloc(bytes_of(count));
    ops->stage_floats = ops->stage ? count : 0;
    if (ops->stage == NULL)
      (void)arb_ops_note(ops, ARB_FAIL(ARB_ERR_NOMEM, "out of host memory: %lld floats", (long long)count));
  }
  return ops->stage;
}

float *arb_ops_host(arb_ops *ops, float *x, int64_t count) { return ops->device ? stage(ops, count) : x; }

void arb_ops_sent(arb_ops *ops, float *x, int64_t count) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->upload(ops->device, x, ops->stage, bytes_of(count)));
}

const float *arb_ops_given(arb_ops *ops, const float *host, int64_t count, float *room) {
  if (!ops->device) return host;
  if (ops->failed == ARB_OK) (void)arb_ops_note(ops, ops->device->upload(ops->device, room, host, bytes_of(count)));
  return room;
}

const float *arb_ops_read(arb_ops *ops, const float *x, int64_t count) {
  if (!ops->device) return x;
  if (ops->failed != ARB_OK || stage(ops, count) == NULL) return NULL;
  return arb_ops_note(ops, ops->device->download(ops->device, ops->stage, x, bytes_of(count))) ? ops->stage : NULL;
}

arb_status arb_ops_get(arb_ops *ops, const float *x, int64_t ldx, int64_t m, int64_t width, float *out) {
  const float *from = arb_ops_read(ops, x, (m - 1) * ldx + width);
  if (from == NULL) return arb_ops_status(ops);
  for (int64_t r = 0; r < m; r++) memcpy(out + r * width, from + r * ldx, bytes_of(width));
  return ARB_OK;
}

void arb_ops_copy(arb_ops *ops, float *to, const float *from, int64_t count) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->copy(ops->device, to, from, bytes_of(count)));
  memcpy(to, from, bytes_of(count));
}

int64_t arb_ops_bytes(const arb_ops *ops) {
  if (ops->device) return (int64_t)ops->device->held(ops->device);
  return ops->scratch_floats * arb_pool_threads(ops->pool) * (int64_t)sizeof(float);
}

arb_status arb_ops_finite(const float *x, int64_t count, const char *what) {
  for (int64_t i = 0; i < count; i++)
    ARB_REQUIRE(isfinite(x[i]), ARB_ERR_NUMERIC, "%s: value %lld of %lld is not finite", what, (long long)i, (long long)count);
  return ARB_OK;
}
