/* The CUDA backend's control side: device, stream, memory, launches and their errors, step parameters. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/context.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/driver.h"

/* ---- launches ---- */

void arb_cuda_launch_begin(arb_cuda *c) {
  if (!c->profile) return;
  (void)cudaEventRecord(c->start, c->stream);
  c->chained = 0;
}

static void profile_add(arb_cuda *c, const char *kernel) {
  float ms = 0.0f;
  if (cudaEventRecord(c->stop, c->stream) != cudaSuccess || cudaEventSynchronize(c->stop) != cudaSuccess) return;
  if (cudaEventElapsedTime(&ms, c->start, c->stop) != cudaSuccess) return;
  int i = 0;
  while (i < c->profile_count && strcmp(c->profiled[i].name, kernel) != 0) i++;
  if (i == ARB_CUDA_PROFILE_KERNELS) return;
  if (i == c->profile_count) {
    c->profiled[i] = {kernel, 0, 0.0};
    c->profile_count++;
  }
  c->profiled[i].calls++;
  c->profiled[i].ms += (double)ms;
}

arb_status arb_cuda_launch_end(arb_cuda *c, const char *kernel, const char *file, int line) {
  c->chained = 1;
  ARB_TRY(arb_cuda_check(cudaGetLastError(), kernel, file, line));
  if (c->profile) profile_add(c, kernel);
  return c->sync_launches ? arb_cuda_check(cudaStreamSynchronize(c->stream), kernel, file, line) : ARB_OK;
}

arb_status arb_cuda_allow_shared(arb_cuda *c, const void *kernel, size_t bytes, const char *name) {
  ARB_REQUIRE(bytes <= c->shared_block, ARB_ERR_UNSUPPORTED, "%s: a block needs %zu bytes of shared memory, this GPU has %zu",
              name, bytes, c->shared_block);
  if (bytes > 32 * 1024) /* what a kernel has of fixed size counts towards the default 48 KiB too */
    ARB_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), name);
  return ARB_OK;
}

extern "C" void arb_cuda_sync_launches(arb_backend *be, int on) { arb_cuda_of(be)->sync_launches = on; }
extern "C" void arb_cuda_products_plain(arb_backend *be, int on) { arb_cuda_of(be)->products_plain = on; }

extern "C" arb_status arb_cuda_profile_start(arb_backend *be) {
  arb_cuda *c = arb_cuda_of(be);
  if (!c->start) ARB_CUDA_TRY(cudaEventCreate(&c->start), "event");
  if (!c->stop) ARB_CUDA_TRY(cudaEventCreate(&c->stop), "event");
  c->profile_count = 0;
  c->profile = 1;
  return ARB_OK;
}

extern "C" void arb_cuda_profile_print(arb_backend *be, FILE *out) {
  arb_cuda *c = arb_cuda_of(be);
  for (int i = 0; i < c->profile_count; i++)
    fprintf(out, "  %-24s %6lld calls %10.3f ms\n", c->profiled[i].name, (long long)c->profiled[i].calls, c->profiled[i].ms);
  c->profile = 0;
}

/* ---- memory and control ---- */

static arb_status device_alloc(size_t bytes, void **out) {
  *out = NULL;
  const cudaError_t error = cudaMalloc(out, bytes ? bytes : 256);
  if (error == cudaErrorMemoryAllocation) {
    size_t free_bytes = 0, total = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&free_bytes, &total);
    return ARB_FAIL(ARB_ERR_NOMEM, "out of device memory: %zu bytes asked for, %zu free of %zu", bytes, free_bytes, total);
  }
  ARB_CUDA_TRY(error, "cudaMalloc");
  return ARB_OK;
}

static arb_status alloc(arb_backend *be, size_t bytes, void **out) {
  ARB_TRY(device_alloc(bytes, out));
  be->allocated += bytes;
  return ARB_OK;
}

static void free_memory(arb_backend *be, void *ptr) {
  (void)be;
  if (ptr) (void)cudaFree(ptr); /* waits for the device */
}

static arb_status grow(arb_cuda *c, size_t bytes) {
  if (bytes <= c->work_bytes) return ARB_OK;
  ARB_CUDA_TRY(cudaStreamSynchronize(c->stream), "growing work memory");
  (void)cudaFree(c->work);
  c->work = NULL;
  c->work_bytes = 0;
  ARB_TRY(device_alloc(bytes, &c->work));
  c->work_bytes = bytes;
  return ARB_OK;
}

arb_status arb_cuda_work(arb_cuda *c, size_t bytes, void **out) {
  if (bytes > c->main_bytes) c->main_bytes = bytes;
  ARB_TRY(grow(c, c->main_bytes + c->side_bytes));
  *out = c->work;
  return ARB_OK;
}

arb_status arb_cuda_side_work(arb_cuda *c, size_t bytes, void **out) {
  bytes = (bytes + 255) / 256 * 256;
  if (bytes > c->side_bytes) c->side_bytes = bytes;
  ARB_TRY(grow(c, (c->main_bytes + 255) / 256 * 256 + c->side_bytes));
  *out = (char *)c->work + (c->work_bytes - bytes) / 256 * 256;
  return ARB_OK;
}

arb_status arb_cuda_join_side(arb_cuda *c) {
  c->side_rows = NULL;
  if (!c->side_busy) return ARB_OK;
  c->side_busy = 0;
  c->chained = 0;
  ARB_CUDA_TRY(cudaStreamWaitEvent(c->stream, c->voted, 0), "waiting for votes");
  return ARB_OK;
}

static arb_status reserve(arb_backend *be, size_t work_bytes, int64_t row_width) {
  (void)row_width; /* rows live in shared memory */
  return grow(arb_cuda_of(be), work_bytes);
}

static size_t held(const arb_backend *be) { return ((const arb_cuda *)be->ctx)->work_bytes; }

static arb_status memory(arb_backend *be, size_t *available, size_t *total) {
  (void)be;
  ARB_CUDA_TRY(cudaMemGetInfo(available, total), "asking for the device's memory");
  return ARB_OK;
}

static arb_status sync(arb_backend *be) {
  ARB_CUDA_TRY(cudaStreamSynchronize(arb_cuda_of(be)->stream), "waiting for the device");
  return ARB_OK;
}

/* Pinned memory of this upload's own, free again. */
static arb_status stage_for(arb_cuda *c, size_t bytes, int *index) {
  *index = c->next_stage;
  c->next_stage = (c->next_stage + 1) % ARB_CUDA_STAGES;
  auto &s = c->stage[*index];
  if (!s.sent) ARB_CUDA_TRY(cudaEventCreateWithFlags(&s.sent, cudaEventDisableTiming), "event");
  ARB_CUDA_TRY(cudaEventSynchronize(s.sent), "waiting for an upload");
  if (bytes <= s.bytes) return ARB_OK;
  (void)cudaFreeHost(s.host);
  s.host = NULL;
  s.bytes = 0;
  ARB_CUDA_TRY(cudaMallocHost(&s.host, bytes), "pinned memory");
  s.bytes = bytes;
  return ARB_OK;
}

static arb_status upload(arb_backend *be, void *dst, const void *host, size_t bytes) {
  arb_cuda *c = arb_cuda_of(be);
  int i;
  if (bytes == 0) return ARB_OK;
  c->chained = 0;
  if (bytes > ARB_CUDA_STAGE_MOST) {
    ARB_CUDA_TRY(cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, c->stream), "upload");
    return sync(be);
  }
  ARB_TRY(stage_for(c, bytes, &i));
  memcpy(c->stage[i].host, host, bytes);
  ARB_CUDA_TRY(cudaMemcpyAsync(dst, c->stage[i].host, bytes, cudaMemcpyHostToDevice, c->stream), "upload");
  ARB_CUDA_TRY(cudaEventRecord(c->stage[i].sent, c->stream), "upload");
  return ARB_OK;
}

static arb_status download(arb_backend *be, void *host, const void *src, size_t bytes) {
  if (bytes != 0) ARB_CUDA_TRY(cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, arb_cuda_of(be)->stream), "download");
  return sync(be);
}

static arb_status fill(arb_backend *be, void *dst, int byte, size_t bytes) {
  ARB_TRY(arb_cuda_join_side(arb_cuda_of(be))); /* it may be votes */
  arb_cuda_of(be)->chained = 0;
  if (bytes != 0) ARB_CUDA_TRY(cudaMemsetAsync(dst, byte, bytes, arb_cuda_of(be)->stream), "fill");
  return ARB_OK;
}

static __global__ void set_step(arb_cuda_step *step, uint64_t seed, uint32_t number, float eta_units) {
  step->seed = seed;
  step->step = number;
  step->eta_units = eta_units;
}

static arb_status begin_step(arb_backend *be, uint64_t seed, uint32_t step, float eta_units) {
  arb_cuda *c = arb_cuda_of(be);
  be->seed = seed;
  be->step = step;
  be->eta_units = eta_units;
  ARB_CUDA_LAUNCH(c, "set_step", set_step, 1, 1, 0, c->step, seed, step, eta_units);
  return ARB_OK;
}

static arb_status take_nonfinite(arb_backend *be, int *host_flag) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(download(be, c->host_flag, c->nonfinite, sizeof *c->nonfinite));
  *host_flag = *c->host_flag != 0;
  return fill(be, c->nonfinite, 0, sizeof *c->nonfinite);
}

static __global__ void post_kernel(const int64_t *src, int words, int *nonfinite, int64_t *to) {
  const int i = (int)threadIdx.x;
  if (i < words) to[i] = src[i];
  if (i != ARB_POST_WORDS) return;
  to[i] = *nonfinite != 0;
  *nonfinite = 0;
}

static arb_status post(arb_backend *be, const int64_t *src, int words) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_join_side(c));
  ARB_CUDA_LAUNCH(c, "post", post_kernel, 1, 32, 0, src, words, c->nonfinite, c->posted);
  c->posted_words = words;
  ARB_CUDA_TRY(cudaEventRecord(c->post, c->stream), "post");
  c->chained = 0;
  return ARB_OK;
}

static arb_status collect(arb_backend *be, int64_t *host, int *host_flag) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_CUDA_TRY(cudaEventSynchronize(c->post), "waiting for the device");
  memcpy(host, c->posted, (size_t)c->posted_words * sizeof *host);
  *host_flag = (int)c->posted[ARB_POST_WORDS];
  return ARB_OK;
}

static void destroy(arb_backend *be) {
  arb_cuda *c = arb_cuda_of(be);
  if (!c) return;
  (void)cudaSetDevice(c->device);
  if (c->stream) (void)cudaStreamSynchronize(c->stream);
  (void)cudaFree(c->work);
  (void)cudaFree(c->step);
  (void)cudaFree(c->nonfinite);
  (void)cudaFree(c->partial);
  (void)cudaFreeHost(c->host_partial);
  (void)cudaFreeHost(c->host_flag);
  (void)cudaFreeHost(c->posted);
  for (auto &s : c->stage) {
    (void)cudaFreeHost(s.host);
    if (s.sent) (void)cudaEventDestroy(s.sent);
  }
  if (c->post) (void)cudaEventDestroy(c->post);
  if (c->start) (void)cudaEventDestroy(c->start);
  if (c->stop) (void)cudaEventDestroy(c->stop);
  if (c->turned) (void)cudaEventDestroy(c->turned);
  if (c->voted) (void)cudaEventDestroy(c->voted);
  if (c->side) (void)cudaStreamDestroy(c->side);
  if (c->stream) (void)cudaStreamDestroy(c->stream);
  free(c);
  be->ctx = NULL;
}

/* ---- creation ---- */

static arb_status setup(arb_cuda *c, int device) {
  cudaDeviceProp properties;
  ARB_TRY(arb_cuda_find_device(device, (const void *)set_step, &properties));
  c->device = device;
  c->early = properties.major >= 9;
  c->multiprocessors = properties.multiProcessorCount;
  c->shared_block = properties.sharedMemPerBlockOptin;
  c->shared_multiprocessor = properties.sharedMemPerMultiprocessor;
  snprintf(c->name, sizeof c->name, "cuda (sm_%d%d)", properties.major, properties.minor);
  int least = 0, greatest = 0; /* products of dW fill what the slots after them leave free */
  ARB_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream");
  ARB_CUDA_TRY(cudaStreamCreateWithPriority(&c->stream, cudaStreamNonBlocking, least > greatest ? least - 1 : least), "stream");
  ARB_CUDA_TRY(cudaStreamCreateWithPriority(&c->side, cudaStreamNonBlocking, least), "stream");
  ARB_CUDA_TRY(cudaEventCreateWithFlags(&c->turned, cudaEventDisableTiming), "event");
  ARB_CUDA_TRY(cudaEventCreateWithFlags(&c->voted, cudaEventDisableTiming), "event");
  ARB_TRY(device_alloc(sizeof *c->step, (void **)&c->step));
  ARB_TRY(device_alloc(sizeof *c->nonfinite, (void **)&c->nonfinite));
  ARB_TRY(device_alloc(ARB_CUDA_PARTIALS * sizeof *c->partial, (void **)&c->partial));
  ARB_CUDA_TRY(cudaMallocHost((void **)&c->host_partial, ARB_CUDA_PARTIALS * sizeof *c->host_partial), "pinned memory");
  ARB_CUDA_TRY(cudaMallocHost((void **)&c->host_flag, sizeof *c->host_flag), "pinned memory");
  ARB_CUDA_TRY(cudaMallocHost((void **)&c->posted, (ARB_POST_WORDS + 1) * sizeof *c->posted), "pinned memory");
  ARB_CUDA_TRY(cudaEventCreateWithFlags(&c->post, cudaEventDisableTiming), "event");
  ARB_CUDA_TRY(cudaMemsetAsync(c->nonfinite, 0, sizeof *c->nonfinite, c->stream), "fill");
  ARB_CUDA_TRY(cudaMemsetAsync(c->step, 0, sizeof *c->step, c->stream), "fill");
  return ARB_OK;
}

extern "C" arb_status arb_backend_cuda_create(int device, arb_backend **out) {
  arb_backend *be = (arb_backend *)calloc(1, sizeof *be);
  arb_cuda *c = (arb_cuda *)calloc(1, sizeof *c);
  if (!be || !c) {
    free(be);
    free(c);
    return ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  }
  be->ctx = c;
  const arb_status st = setup(c, device);
  if (st != ARB_OK) {
    destroy(be);
    free(be);
    return st;
  }
  arb_ops *o = &be->ops;
  be->kind = ARB_BACKEND_CUDA;
  be->on_device = 1;
  be->stream = c->stream;
  be->flag = c->nonfinite;
  be->encoders = {arb_cuda_dense_open, device};
  o->name = c->name;
  o->alloc = alloc;
  o->free = free_memory;
  o->upload = upload;
  o->download = download;
  o->fill = fill;
  o->sync = sync;
  o->begin_step = begin_step;
  o->take_nonfinite = take_nonfinite;
  o->post = post;
  o->collect = collect;
  o->destroy = destroy;
  o->reserve = reserve;
  o->held = held;
  o->memory = memory;
  arb_cuda_fill_random(o);
  arb_cuda_fill_record(o);
  arb_cuda_fill_norms(o);
  arb_cuda_fill_features(o);
  arb_cuda_fill_gates(o);
  arb_cuda_fill_recurrence(o);
  arb_cuda_fill_loss(o);
  arb_cuda_fill_grads(o);
  arb_cuda_fill_embedding(o);
  arb_cuda_fill_products(o);
  arb_cuda_fill_update(o);
  arb_cuda_fill_shard(o);
  arb_cuda_fill_digest(o);
  *out = be;
  return ARB_OK;
}
