/* Sharded state on one GPU: several ranks are threads, each with a backend of its own on the same device, and their collectives
 * on device memory go through the host. Digests of every step against one rank on the CPU. What NCCL does with several GPUs is
 * for run.sh. */
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>

#include "dist/loopback/loopback.h"
#include "src/train/trainer.h"
#include "tests/gpu/gpu_test.h"

enum { STEPS = 5, RANKS = 8 };

/* ---- collectives on device memory, through the host ---- */

typedef struct {
  arb_backend *be;
  arb_comm *inner;
} staged;

static arb_status host_copy(arb_comm *c, const void *device, size_t bytes, size_t room, void **host) {
  *host = calloc(1, room ? room : 1);
  ARB_REQUIRE(*host, ARB_ERR_NOMEM, "out of host memory");
  return ((staged *)c->ctx)->be->ops.download(((staged *)c->ctx)->be, *host, device, bytes);
}

static arb_status to_device(arb_comm *c, void *device, void *host, size_t bytes, arb_status st) {
  arb_backend *be = ((staged *)c->ctx)->be;
  if (st == ARB_OK) st = be->ops.upload(be, device, host, bytes);
  return st;
}

static arb_status all_reduce(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op) {
  const size_t bytes = (size_t)count * arb_dtype_size(type);
  void *host;
  arb_status st = host_copy(c, buf, bytes, bytes, &host);
  if (st == ARB_OK) st = arb_comm_all_reduce(((staged *)c->ctx)->inner, host, count, type, op, ARB_TRAFFIC_CONTROL);
  st = to_device(c, buf, host, bytes, st);
  free(host);
  return st;
}

static arb_status reduce_scatter(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type, arb_redop op) {
  const size_t bytes = (size_t)per_rank * arb_dtype_size(type), all = bytes * (size_t)c->size;
  unsigned char *host;
  arb_status st = host_copy(c, in, all, all + bytes, (void **)&host);
  if (st == ARB_OK)
    st = arb_comm_reduce_scatter(((staged *)c->ctx)->inner, host, host + all, per_rank, type, op, ARB_TRAFFIC_CONTROL);
  st = to_device(c, out, host + all, bytes, st);
  free(host);
  return st;
}

static arb_status all_gather(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type) {
  const size_t bytes = (size_t)per_rank * arb_dtype_size(type), all = bytes * (size_t)c->size;
  unsigned char *host;
  arb_status st = host_copy(c, in, bytes, bytes + all, (void **)&host);
  if (st == ARB_OK)
    st = arb_comm_all_gather(((staged *)c->ctx)->inner, host, host + bytes, per_rank, type, ARB_TRAFFIC_CONTROL);
  st = to_device(c, out, host + bytes, all, st);
  free(host);
  return st;
}

static arb_status broadcast(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root) {
  (void)c, (void)buf, (void)count, (void)type, (void)root;
  return ARB_FAIL(ARB_ERR_UNSUPPORTED, "not used");
}
static arb_status barrier(arb_comm *c) { return ((staged *)c->ctx)->be->ops.sync(((staged *)c->ctx)->be); }
static void destroy(arb_comm *c) { (void)c; }

/* ---- runs ---- */

typedef struct {
  arb_config cfg;
  int on_gpu;
  char digest[RANKS][STEPS][33];
} job;

static arb_status one_rank(arb_comm *comm, void *arg) {
  static const arb_comm_ops ops = {.name = "staged",
                                   .all_reduce = all_reduce,
                                   .reduce_scatter = reduce_scatter,
                                   .all_gather = all_gather,
                                   .broadcast = broadcast,
                                   .barrier = barrier,
                                   .destroy = destroy};
  job *j = arg;
  arb_backend *be = NULL;
  arb_trainer *t = NULL;
  ARB_TRY(arb_comm_agree(comm, j->on_gpu ? arb_backend_cuda_create(0, &be) : arb_backend_cpu_create(2, "auto", &be)));
  staged s = {be, comm};
  arb_comm device = {.ops = &ops, .rank = comm->rank, .size = comm->size, .local_rank = comm->rank, .local_size = comm->size};
  device.ctx = &s;
  ARB_TRY(arb_trainer_create(&j->cfg, be, comm, j->on_gpu && comm->size > 1 ? &device : NULL, ARB_TRAINER_TRAIN, &t));
  for (int step = 0; step < STEPS; step++) {
    arb_step_result r;
    ARB_TRY(arb_trainer_step(t, &r));
    ARB_TRY(arb_trainer_digest(t, j->digest[comm->rank][step]));
  }
  arb_trainer_destroy(&t);
  arb_backend_destroy(&be);
  return ARB_OK;
}

static void run(job *j, const char *text, int on_gpu, int ranks, const char *shard, const char *odd) {
  char train[200];
  snprintf(train, sizeof train, "data.train=%s", text);
  const char *overrides[] = {train,
                             shard,
                             odd,
                             "model.dim=96",
                             "model.layers=2",
                             "model.glu_hidden=160",
                             "train.steps=5",
                             "train.warmup=1",
                             "train.sequences=16",
                             "train.context=64",
                             "train.grains=8",
                             "run.seed=3"};
  memset(j, 0, sizeof *j);
  j->on_gpu = on_gpu;
  MUST(arb_config_load(&j->cfg, NULL, overrides, (int)(sizeof overrides / sizeof *overrides)));
  MUST(arb_loopback_run(ranks, one_rank, j));
}

int main(void) {
  arb_backend *gpu = gpu_backend(); /* says so and leaves without a GPU */
  arb_backend_destroy(&gpu);
  char path[] = "/tmp/arbdist-text.XXXXXX";
  const int fd = mkstemp(path);
  FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
  if (!out) return 1;
  for (int i = 0; i < 60000; i++) fputc(i % 6 == 5 ? ' ' : (int)(97 + gpu_below(1 + i % 26)), out);
  if (fclose(out) != 0) return 1;
  static job cpu, shared;
  for (int odd = 0; odd < 2; odd++) {
    const char *channels = odd ? "model.embed_channels=8" : "model.embed_channels=64";
    run(&cpu, path, 0, 1, "dist.shard_state=no", channels);
    for (int ranks = 2; ranks <= RANKS; ranks++) {
      run(&shared, path, 1, ranks, "dist.shard_state=yes", channels);
      for (int rank = 0; rank < ranks; rank++)
        for (int step = 0; step < STEPS; step++) {
          char what[80];
          snprintf(what, sizeof what, "%s: rank %d of %d, the digest after step %d", channels, rank, ranks, step + 1);
          gpu_check(strcmp(cpu.digest[0][step], shared.digest[rank][step]) == 0, what);
        }
    }
  }
  unlink(path);
  return gpu_totals();
}
