/* kernels/dense on a GPU: opening one, and its memory. */
#include <stdlib.h>

#include "kernels/cuda/dense_impl.cuh"

static arb_status alloc(arb_dense_device *d, size_t bytes, void **out) {
  arb_cuda *c;
  arb_backend *be = arb_cuda_dense_of(d)->be;
  *out = NULL;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  ARB_TRY(be->ops.alloc(be, bytes, out));
  return be->ops.fill(be, *out, 0, bytes);
}

static void free_memory(arb_dense_device *d, void *memory) {
  arb_backend *be = arb_cuda_dense_of(d)->be;
  be->ops.free(be, memory);
}

static arb_status upload(arb_dense_device *d, void *to, const void *host, size_t bytes) {
  arb_cuda *c;
  arb_backend *be = arb_cuda_dense_of(d)->be;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  return be->ops.upload(be, to, host, bytes);
}

static arb_status download(arb_dense_device *d, void *host, const void *from, size_t bytes) {
  arb_cuda *c;
  arb_backend *be = arb_cuda_dense_of(d)->be;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  return be->ops.download(be, host, from, bytes);
}

static arb_status copy(arb_dense_device *d, void *to, const void *from, size_t bytes) {
  arb_cuda *c;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  c->chained = 0; /* what is queued last is no kernel */
  if (bytes != 0) ARB_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->stream), "copy");
  return ARB_OK;
}

static size_t held(const arb_dense_device *d) {
  const arb_cuda_dense *s = arb_cuda_dense_of(d);
  return s->score_bytes + (size_t)s->id_count * sizeof *s->ids + 2 * sizeof *s->moments;
}

static void destroy(arb_dense_device *d) {
  arb_cuda_dense *s = arb_cuda_dense_of(d);
  if (s && s->be) {
    (void)cudaSetDevice(s->cuda->device);
    s->be->ops.free(s->be, s->scores);
    s->be->ops.free(s->be, s->ids);
    s->be->ops.free(s->be, s->moments);
    arb_backend_destroy(&s->be);
  }
  free(s);
  free(d);
}

static arb_status setup(arb_cuda_dense *s, int index) {
  void *moments;
  ARB_TRY(arb_backend_cuda_create(index, &s->be));
  s->cuda = arb_cuda_of(s->be);
  ARB_TRY(s->be->ops.alloc(s->be, 2 * sizeof *s->moments, &moments));
  s->moments = (float *)moments;
  return ARB_OK;
}

extern "C" arb_status arb_cuda_dense_open(int index, arb_dense_device **out) {
  *out = NULL;
  arb_dense_device *d = (arb_dense_device *)calloc(1, sizeof *d);
  arb_cuda_dense *s = (arb_cuda_dense *)calloc(1, sizeof *s);
  if (!d || !s) {
    free(d);
    free(s);
    return ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  }
  d->ctx = s;
  const arb_status st = setup(s, index);
  if (st != ARB_OK) {
    destroy(d);
    return st;
  }
  snprintf(d->name, sizeof d->name, "%s", s->be->ops.name);
  d->alloc = alloc;
  d->free = free_memory;
  d->upload = upload;
  d->download = download;
  d->copy = copy;
  d->held = held;
  d->destroy = destroy;
  arb_cuda_dense_fill_products(d);
  arb_cuda_dense_fill_rows(d);
  *out = d;
  return ARB_OK;
}

extern "C" arb_status arb_cuda_dense_profile(arb_dense_device *d) { return arb_cuda_profile_start(arb_cuda_dense_of(d)->be); }

extern "C" void arb_cuda_dense_profile_print(arb_dense_device *d, FILE *out) {
  arb_cuda_profile_print(arb_cuda_dense_of(d)->be, out);
}
