#define _GNU_SOURCE /* sched_getaffinity */
#include "launch/device.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/log.h"

#ifdef ARB_WITH_CUDA
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/dense.h"
#endif
#ifdef ARB_WITH_NCCL
#include "dist/nccl/nccl.h"
#endif

/* Cores this process may use. */
static int allowed_cores(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? (int)n : 1;
}

static int threads_a_rank(const arb_config *cfg, int local_ranks) {
  const int threads = cfg->run.threads ? (int)cfg->run.threads : allowed_cores() / local_ranks;
  return threads < 1 ? 1 : threads;
}

arb_backend_kind arb_device_expected(const arb_config *cfg, int ranks, int *threads) {
  *threads = threads_a_rank(cfg, ranks);
  if (cfg->run.device == ARB_CONFIG_DEVICE_REF) return ARB_BACKEND_REF;
  if (cfg->run.device == ARB_CONFIG_DEVICE_CUDA) return ARB_BACKEND_CUDA;
#ifdef ARB_WITH_CUDA
  if (cfg->run.device == ARB_CONFIG_DEVICE_AUTO) return ARB_BACKEND_CUDA;
#endif
  return ARB_BACKEND_CPU;
}

#ifndef ARB_WITH_CUDA
static arb_status no_cuda(const arb_config *cfg) {
  ARB_REQUIRE(cfg->run.device != ARB_CONFIG_DEVICE_CUDA, ARB_ERR_UNSUPPORTED,
              "%s: run.device = cuda: this build has no CUDA backend", arb_config_origin(cfg, "run.device"));
  return ARB_OK;
}
#endif

arb_status arb_device_place(const arb_config *cfg, int index, arb_dense_place *out) {
  *out = (arb_dense_place){0};
#ifdef ARB_WITH_CUDA
  if (cfg->run.device != ARB_CONFIG_DEVICE_AUTO && cfg->run.device != ARB_CONFIG_DEVICE_CUDA) return ARB_OK;
  arb_dense_device *probe = NULL;
  const arb_status st = arb_cuda_dense_open(index, &probe);
  if (st == ARB_OK) {
    probe->destroy(probe);
    *out = (arb_dense_place){arb_cuda_dense_open, index};
    return ARB_OK;
  }
  if (st == ARB_ERR_UNSUPPORTED && cfg->run.device == ARB_CONFIG_DEVICE_CUDA)
    arb_fail_context("%s: run.device = cuda", arb_config_origin(cfg, "run.device"));
  if (st != ARB_ERR_UNSUPPORTED || cfg->run.device == ARB_CONFIG_DEVICE_CUDA) return st;
  if (!arb_cuda_absent()) arb_log(ARB_LOG_WARN, "init", "run.device = auto: encoders run on the CPU: %s", arb_fail_message());
  arb_fail_clear(); /* auto: no usable GPU is not an error */
  return ARB_OK;
#else
  (void)index;
  return no_cuda(cfg);
#endif
}

static arb_status open_cpu(const arb_config *cfg, const arb_comm *comm, arb_backend **be) {
  static const char *const isa[] = {"auto", "scalar", "avx2", "avx512"};
  return arb_backend_cpu_create(threads_a_rank(cfg, comm->local_size), isa[cfg->run.isa], be);
}

static arb_status open_local(const arb_config *cfg, const arb_comm *comm, arb_backend **be) {
  if (cfg->run.device == ARB_CONFIG_DEVICE_REF) return arb_backend_ref_create(be);
#ifdef ARB_WITH_CUDA
  if (cfg->run.device != ARB_CONFIG_DEVICE_CPU) {
    const arb_status st = arb_backend_cuda_create(comm->local_rank, be);
    if (st == ARB_OK) arb_cuda_sync_launches(*be, cfg->debug.synchronous);
    if (st == ARB_ERR_UNSUPPORTED && cfg->run.device == ARB_CONFIG_DEVICE_CUDA)
      arb_fail_context("%s: run.device = cuda", arb_config_origin(cfg, "run.device"));
    if (st != ARB_ERR_UNSUPPORTED || cfg->run.device == ARB_CONFIG_DEVICE_CUDA) return st;
    if (!arb_cuda_absent() && comm->local_rank == 0)
      arb_log(ARB_LOG_WARN, "init", "run.device = auto: the CPU computes: %s", arb_fail_message());
    arb_fail_clear(); /* auto: no usable GPU is not an error */
  }
#else
  ARB_TRY(no_cuda(cfg));
#endif
  return open_cpu(cfg, comm, be);
}

/* A failure of one rank among many says where it was. */
static arb_status name_rank(const arb_comm *comm, arb_status st) {
  char host[256] = "";
  if (st == ARB_OK || comm->size == 1) return st;
  if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  arb_fail_context("rank %d of %d on %s", comm->rank, comm->size, host);
  return st;
}

#ifdef ARB_WITH_CUDA
/* Collective. Unlike GPUs or drivers give the same bits, but not the same speed: rank 0 names the first that differs. */
static arb_status compare_devices(arb_comm *comm) {
  enum { CHARS = 320 };
  char mine[CHARS] = "", *all = calloc((size_t)comm->size, CHARS);
  arb_status st = arb_comm_agree(comm, all ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory"));
  arb_cuda_describe(comm->local_rank, mine, sizeof mine);
  if (st == ARB_OK) st = arb_comm_all_gather(comm, mine, all, CHARS, ARB_U8, ARB_TRAFFIC_CONTROL);
  for (int i = 1; st == ARB_OK && comm->rank == 0 && i < comm->size; i++)
    if (strncmp(all, all + i * CHARS, CHARS) != 0) {
      arb_log(ARB_LOG_WARN, "init",
              "ranks have different GPUs or drivers: rank 0 has %s; rank %d has %.*s; the slowest sets the pace", mine, i,
              CHARS - 1, all + i * CHARS);
      break;
    }
  free(all);
  return st;
}
#endif

arb_status arb_device_open(const arb_config *cfg, arb_comm *comm, arb_backend **be, arb_comm **device_comm) {
  *device_comm = NULL;
  arb_status st = open_local(cfg, comm, be);
  if (st == ARB_OK) st = arb_backend_validate(*be);
  ARB_TRY(arb_comm_agree(comm, name_rank(comm, st)));
  int64_t on_devices = (*be)->on_device;
  ARB_TRY(arb_comm_all_reduce(comm, &on_devices, 1, ARB_I64, ARB_SUM, ARB_TRAFFIC_CONTROL));
  ARB_REQUIRE(on_devices == 0 || on_devices == comm->size, ARB_ERR_UNSUPPORTED,
              "%d ranks, but only %lld of them found a GPU of their own: start one rank a GPU, or set run.device = cpu",
              comm->size, (long long)on_devices);
#ifdef ARB_WITH_CUDA
  if ((*be)->on_device && comm->size > 1) ARB_TRY(compare_devices(comm));
#endif
#ifdef ARB_WITH_NCCL
  if ((*be)->on_device && comm->size > 1) ARB_TRY(arb_comm_nccl_create(comm, comm->local_rank, (*be)->stream, device_comm));
#endif
  return ARB_OK;
}
