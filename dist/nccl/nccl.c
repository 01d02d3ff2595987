#include "dist/nccl/nccl.h"

#include <cuda_runtime.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dist/board_impl.h"
#include "dist/nccl/version.h"

typedef struct {
  ncclComm_t comm;
  cudaStream_t stream;
} nccl_state;

/* NCCL's and CUDA's codes become statuses here and nowhere else. */
static arb_status check(ncclResult_t code, const nccl_state *s, const char *call) {
  if (code == ncclSuccess || code == ncclInProgress) return ARB_OK;
  int version = 0;
  (void)ncclGetVersion(&version);
  return ARB_FAIL(ARB_ERR_COMM, "%s: %s (NCCL %d.%d.%d): %s", call, ncclGetErrorString(code), version / 10000,
                  version / 100 % 100, version % 100, ncclGetLastError(s ? s->comm : NULL));
}

static arb_status check_cuda(cudaError_t code, const char *call) {
  ARB_REQUIRE(code == cudaSuccess, ARB_ERR_COMM, "%s: %s", call, cudaGetErrorString(code));
  return ARB_OK;
}

static ncclDataType_t type_of(arb_dtype t) {
  switch (t) {
    case ARB_I8:
      return ncclInt8;
    case ARB_U8:
      return ncclUint8;
    case ARB_I32:
      return ncclInt32;
    case ARB_U32:
      return ncclUint32;
    case ARB_I64:
      return ncclInt64;
    default:
      return ncclUint64;
  }
}

/* NCCL has no 16-bit integers, and float types are never sent through it. */
static arb_status supported(arb_dtype t) {
  ARB_REQUIRE(t == ARB_I8 || t == ARB_U8 || t == ARB_I32 || t == ARB_U32 || t == ARB_I64 || t == ARB_U64, ARB_ERR_UNSUPPORTED,
              "nccl: no element type %s", arb_dtype_name(t));
  return ARB_OK;
}

static ncclRedOp_t op_of(arb_redop op) { return op == ARB_MAX ? ncclMax : op == ARB_MIN ? ncclMin : ncclSum; }

static arb_status all_reduce(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op) {
  nccl_state *s = c->ctx;
  ARB_TRY(supported(type));
  return check(ncclAllReduce(buf, buf, (size_t)count, type_of(type), op_of(op), s->comm, s->stream), s, "ncclAllReduce");
}

static arb_status reduce_scatter(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type, arb_redop op) {
  nccl_state *s = c->ctx;
  ARB_TRY(supported(type));
  return check(ncclReduceScatter(in, out, (size_t)per_rank, type_of(type), op_of(op), s->comm, s->stream), s,
               "ncclReduceScatter");
}

static arb_status all_gather(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type) {
  nccl_state *s = c->ctx;
  ARB_TRY(supported(type));
  return check(ncclAllGather(in, out, (size_t)per_rank, type_of(type), s->comm, s->stream), s, "ncclAllGather");
}

static arb_status broadcast(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root) {
  nccl_state *s = c->ctx;
  ARB_TRY(supported(type));
  return check(ncclBroadcast(buf, buf, (size_t)count, type_of(type), root, s->comm, s->stream), s, "ncclBroadcast");
}

/* Waits by polling, so that an error of a peer on another node ends the wait; one on this node NCCL does not report, and the
 * watchdog does. */
static arb_status barrier(arb_comm *c) {
  nccl_state *s = c->ctx;
  for (int64_t round = 0;; round++) {
    const cudaError_t st = cudaStreamQuery(s->stream);
    if (st == cudaSuccess) return ARB_OK;
    if (st != cudaErrorNotReady) return check_cuda(st, "waiting for NCCL");
    (void)cudaGetLastError(); /* "not ready" would look like the next launch's error */
    ncclResult_t asynchronous = ncclSuccess;
    ARB_TRY(check(ncclCommGetAsyncError(s->comm, &asynchronous), s, "ncclCommGetAsyncError"));
    ARB_TRY(check(asynchronous, s, "a collective"));
    if (round > 1000) {
      const struct timespec pause = {0, 20000};
      nanosleep(&pause, NULL);
    }
  }
}

static void destroy(arb_comm *c) {
  nccl_state *s = c->ctx;
  if (s) {
    /* With a collective still running a peer is gone, and both ways of closing may wait for it: the process ends instead. */
    if (s->comm && cudaStreamQuery(s->stream) != cudaErrorNotReady) (void)ncclCommDestroy(s->comm);
    free(s);
  }
  free(c);
}

/* Two ranks on one GPU would hang inside NCCL; say so first. */
static arb_status distinct_devices(arb_comm *host, int device) {
  int64_t mine = device, *all = calloc((size_t)host->size, sizeof *all);
  ARB_REQUIRE(all, ARB_ERR_NOMEM, "out of host memory");
  arb_status st = arb_comm_all_gather(host, &mine, all, 1, ARB_I64, ARB_TRAFFIC_CONTROL);
  for (int i = 0; st == ARB_OK && host->local_size == host->size && i < host->size; i++)
    if (i != host->rank && all[i] == mine)
      st = ARB_FAIL(ARB_ERR_UNSUPPORTED, "ranks %d and %d of this node both use GPU %d: start at most one rank a GPU",
                    host->rank, i, device);
  free(all);
  return st;
}

/* The library that was found must do, on every rank: a mismatch would show as a hang or a crash inside a collective. */
static arb_status same_version(arb_comm *host) {
  int version = 0;
  const arb_status mine = check(ncclGetVersion(&version), NULL, "ncclGetVersion");
  int64_t found = version, *all = calloc((size_t)host->size, sizeof *all);
  arb_status st = mine != ARB_OK ? mine : all ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  st = arb_comm_agree(host, st);
  if (st == ARB_OK) st = arb_comm_all_gather(host, &found, all, 1, ARB_I64, ARB_TRAFFIC_CONTROL);
  if (st == ARB_OK) st = arb_comm_agree(host, arb_nccl_check_versions(NCCL_VERSION_CODE, all, host->rank, host->size));
  free(all);
  return st;
}

/* A board of its own, so that a report can name the rank that does not come to a collective of this communicator. */
static arb_status open_board(arb_comm *host, arb_comm *c) {
  void *base = NULL;
  ARB_TRY(arb_comm_share(host, (size_t)host->local_size * sizeof(arb_board_slot), &base));
  c->board = base; /* goes with the host communicator, which outlives this one */
  arb_board_init(&c->board[host->local_rank], host->rank);
  return arb_comm_barrier(host);
}

arb_status arb_comm_nccl_create(arb_comm *host, int device, void *stream, arb_comm **out) {
  static const arb_comm_ops ops = {"nccl", all_reduce, reduce_scatter, all_gather, broadcast, barrier, destroy, NULL, NULL};
  *out = NULL;
  ncclUniqueId id;
  memset(&id, 0, sizeof id);
  arb_comm *c = calloc(1, sizeof *c);
  nccl_state *s = calloc(1, sizeof *s);
  arb_status st = c && s ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "communicator: out of memory");
  if (c) c->ctx = s;
  st = arb_comm_agree(host, st);
  if (st == ARB_OK) st = same_version(host);
  if (st == ARB_OK) st = arb_comm_agree(host, distinct_devices(host, device));
  if (st == ARB_OK) st = arb_comm_agree(host, host->rank == 0 ? check(ncclGetUniqueId(&id), NULL, "ncclGetUniqueId") : ARB_OK);
  if (st == ARB_OK) st = arb_comm_broadcast(host, &id, (int64_t)sizeof id, ARB_U8, 0, ARB_TRAFFIC_CONTROL);
  if (st == ARB_OK) {
    s->stream = (cudaStream_t)stream;
    c->ops = &ops;
    c->rank = host->rank;
    c->size = host->size;
    c->local_rank = host->local_rank;
    c->local_size = host->local_size;
    st = check_cuda(cudaSetDevice(device), "cudaSetDevice");
    if (st == ARB_OK) st = check(ncclCommInitRank(&s->comm, c->size, id, c->rank), NULL, "ncclCommInitRank");
    st = arb_comm_agree(host, st);
  }
  if (st == ARB_OK) st = arb_comm_agree(host, open_board(host, c));
  if (st != ARB_OK) {
    if (c) destroy(c);
    return st;
  }
  *out = c;
  return ARB_OK;
}
