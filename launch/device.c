#define _GNU_SOURCE /* sched_getaffinity */
#include "launch/device.h"

#include <sched.h>
#include <unistd.h>

#ifdef ARB_WITH_CUDA
#include "kernels/cuda/cuda.h"
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
    arb_fail_clear(); /* auto: no usable GPU is not an error */
  }
#else
  ARB_REQUIRE(cfg->run.device != ARB_CONFIG_DEVICE_CUDA, ARB_ERR_UNSUPPORTED,
              "%s: run.device = cuda: this build has no CUDA backend", arb_config_origin(cfg, "run.device"));
#endif
  return open_cpu(cfg, comm, be);
}

arb_status arb_device_open(const arb_config *cfg, arb_comm *comm, arb_backend **be, arb_comm **device_comm) {
  *device_comm = NULL;
  arb_status st = open_local(cfg, comm, be);
  if (st == ARB_OK) st = arb_backend_validate(*be);
  ARB_TRY(arb_comm_agree(comm, st));
  int64_t on_devices = (*be)->on_device;
  ARB_TRY(arb_comm_all_reduce(comm, &on_devices, 1, ARB_I64, ARB_SUM, ARB_TRAFFIC_CONTROL));
  ARB_REQUIRE(on_devices == 0 || on_devices == comm->size, ARB_ERR_UNSUPPORTED,
              "%d ranks, but only %lld of them found a GPU of their own: start one rank a GPU, or set run.device = cpu",
              comm->size, (long long)on_devices);
#ifdef ARB_WITH_NCCL
  if ((*be)->on_device && comm->size > 1) ARB_TRY(arb_comm_nccl_create(comm, comm->local_rank, (*be)->stream, device_comm));
#endif
  return ARB_OK;
}
