#include "dist/nccl/nccl.h"

#include <cuda_runtime.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dist/board_impl.h"
#include "dist/nccl/version.h"

#define SPIN_NS 100000000 /* a wait polls without a pause for this long: a step should not end in a sleep */

typedef struct {
  ncclComm_t comm;
  cudaStream_t backend; /* borrowed */
  cudaStream_t beside;  /* for collectives that the backend's work does not wait for */
  cudaStream_t stream;  /* the one of the two that collectives go to now */
  cudaEvent_t behind;   /* what the backend's stream held when it was left */
  cudaEvent_t ahead;    /* what went beside, when the backend's stream was joined again */
  cudaEvent_t mark;     /* what the next barrier waits for, if `marked` */
  int marked;
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

static arb_status aside(arb_comm *c) {
  nccl_state *s = c->ctx;
  ARB_TRY(check_cuda(cudaEventRecord(s->behind, s->backend), "marking the backend's stream"));
  ARB_TRY(check_cuda(cudaStreamWaitEvent(s->beside, s->behind, 0), "waiting for the backend's stream"));
  s->stream = s->beside;
  return ARB_OK;
}

static arb_status join(arb_comm *c) {
  nccl_state *s = c->ctx;
  if (s->stream == s->backend) return ARB_OK;
  ARB_TRY(check_cuda(cudaEventRecord(s->ahead, s->beside), "marking collectives"));
  ARB_TRY(check_cuda(cudaStreamWaitEvent(s->backend, s->ahead, 0), "waiting for collectives"));
  s->stream = s->backend;
  return ARB_OK;
}

static arb_status mark(arb_comm *c) {
  nccl_state *s = c->ctx;
  s->marked = 1;
  return check_cuda(cudaEventRecord(s->mark, s->backend), "marking the backend's stream");
}

static arb_status batch_begin(arb_comm *c) { return check(ncclGroupStart(), c->ctx, "ncclGroupStart"); }
static arb_status batch_end(arb_comm *c) { return check(ncclGroupEnd(), c->ctx, "ncclGroupEnd"); }

static arb_status bare_sum(arb_comm *c, void *buf, int64_t bytes, int scatter) {
  nccl_state *s = c->ctx;
  const size_t all = (size_t)bytes, slice = all / (size_t)c->size;
  if (!scatter) return check(ncclAllReduce(buf, buf, all, ncclInt8, ncclSum, s->comm, s->stream), s, "ncclAllReduce");
  return check(ncclReduceScatter(buf, (char *)buf + (size_t)c->rank * slice, slice, ncclInt8, ncclSum, s->comm, s->stream), s,
               "ncclReduceScatter");
}

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Waits by polling, so that an error of a peer on another node ends the wait; one on this node NCCL does not report, and the
 * watchdog does. Without a mark: what was queued aside has waited for the backend's stream, so that stream is back in order
 * afterwards. */
static arb_status barrier(arb_comm *c) {
  nccl_state *s = c->ctx;
  const int64_t start = now();
  for (;;) {
    const cudaError_t st = s->marked ? cudaEventQuery(s->mark) : cudaStreamQuery(s->stream);
    if (st == cudaSuccess) {
      if (!s->marked) s->stream = s->backend;
      s->marked = 0;
      return ARB_OK;
    }
    if (st != cudaErrorNotReady) return check_cuda(st, "waiting for NCCL");
    (void)cudaGetLastError(); /* "not ready" would look like the next launch's error */
    ncclResult_t asynchronous = ncclSuccess;
    ARB_TRY(check(ncclCommGetAsyncError(s->comm, &asynchronous), s, "ncclCommGetAsyncError"));
    ARB_TRY(check(asynchronous, s, "a collective"));
    if (now() - start > SPIN_NS) {
      const struct timespec pause = {0, 20000};
      nanosleep(&pause, NULL);
    }
  }
}

static void destroy(arb_comm *c) {
  nccl_state *s = c->ctx;
  if (s) {
    /* With a collective still running a peer is gone, and both ways of closing may wait for it: the process ends instead. */
    const int idle = s->beside && cudaStreamQuery(s->stream) != cudaErrorNotReady;
    if (s->comm && idle) (void)ncclCommDestroy(s->comm);
    if (idle) (void)cudaStreamDestroy(s->beside);
    if (s->behind) (void)cudaEventDestroy(s->behind);
    if (s->ahead) (void)cudaEventDestroy(s->ahead);
    if (s->mark) (void)cudaEventDestroy(s->mark);
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

/* Collectives aside come first where both streams have work: their blocks are few, and peers wait for them. */
static arb_status open_streams(nccl_state *s, int device, void *stream) {
  int least = 0, most = 0;
  ARB_TRY(check_cuda(cudaSetDevice(device), "cudaSetDevice"));
  s->backend = s->stream = (cudaStream_t)stream;
  ARB_TRY(check_cuda(cudaDeviceGetStreamPriorityRange(&least, &most), "stream priorities"));
  ARB_TRY(check_cuda(cudaStreamCreateWithPriority(&s->beside, cudaStreamNonBlocking, most), "stream"));
  cudaEvent_t *const events[] = {&s->behind, &s->ahead, &s->mark};
  for (int i = 0; i < 3; i++) ARB_TRY(check_cuda(cudaEventCreateWithFlags(events[i], cudaEventDisableTiming), "event"));
  return ARB_OK;
}

arb_status arb_comm_nccl_create(arb_comm *host, int device, void *stream, arb_comm **out) {
  static const arb_comm_ops ops = {.name = "nccl",
                                   .all_reduce = all_reduce,
                                   .reduce_scatter = reduce_scatter,
                                   .all_gather = all_gather,
                                   .broadcast = broadcast,
                                   .barrier = barrier,
                                   .destroy = destroy,
                                   .aside = aside,
                                   .join = join,
                                   .mark = mark,
                                   .batch_begin = batch_begin,
                                   .batch_end = batch_end,
                                   .bare_sum = bare_sum};
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
    c->ops = &ops;
    c->rank = host->rank;
    c->size = host->size;
    c->local_rank = host->local_rank;
    c->local_size = host->local_size;
    st = open_streams(s, device, stream);
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
