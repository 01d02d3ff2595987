#include "src/bench/votes.h"

#include <stdlib.h>

#include "src/train/metrics.h"

#define QUEUED                                                                                                  \
  10 /* exchanges timed together where calls are only queued: the host's part of a call is hidden, as in a step \
      */

typedef struct {
  double *seconds, *peer, *ratio; /* [pairs] */
} series;

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Bytes that one exchange hands to the transport; what the plan calls votes. */
static int64_t vote_bytes(const arb_trainer *t) {
  const arb_state *s = &t->model->state;
  return s->shard.ranks ? s->shard.ranks * s->shard.votes : (int64_t)s->votes.peak;
}

static arb_status own_calls(arb_trainer *t, int64_t bytes) {
  (void)bytes;
  return arb_trainer_send_votes(t);
}

static arb_status bare_call(arb_trainer *t, int64_t bytes) {
  const arb_state *s = &t->model->state;
  return arb_comm_bare_sum(t->device_comm ? t->device_comm : t->comm, s->votes_memory, bytes, s->shard.ranks > 0);
}

/* Collective. Seconds of one exchange on the slowest rank; all begin together. */
static arb_status timed(arb_trainer *t, arb_status (*calls)(arb_trainer *t, int64_t bytes), int64_t bytes, double *seconds) {
  const int repeat = t->device_comm ? QUEUED : 1;
  ARB_TRY(arb_comm_barrier(t->comm));
  const double start = arb_clock_seconds();
  for (int i = 0; i < repeat; i++) ARB_TRY(calls(t, bytes));
  if (t->device_comm) ARB_TRY(arb_comm_barrier(t->device_comm));
  int64_t ns = (int64_t)(1e9 * (arb_clock_seconds() - start) / repeat);
  ARB_TRY(arb_comm_all_reduce(t->comm, &ns, 1, ARB_I64, ARB_MAX, ARB_TRAFFIC_CONTROL));
  *seconds = 1e-9 * (double)(ns > 0 ? ns : 1);
  return ARB_OK;
}

static void print_side(FILE *out, const char *name, const double *seconds, int pairs, int64_t bytes, double bus) {
  const double giga = (double)bytes / 1e9;
  fprintf(out, "  %-28s %8.3f ms  %7.1f GB/s (%.1f - %.1f), bus %7.1f GB/s", name, 1e3 * seconds[pairs / 2],
          giga / seconds[pairs / 2], giga / seconds[pairs - 1], giga / seconds[0], bus * giga / seconds[pairs / 2]);
}

static arb_status measure(arb_trainer *t, const char *name, int pairs, series *s, FILE *out) {
  const int n = t->comm->size, sharded = t->model->spec.ranks > 0;
  const int64_t bytes = vote_bytes(t);
  const int64_t bare = sharded ? bytes / n * n : bytes;
  for (int i = -2; i < pairs; i++) { /* two pairs to warm up */
    double own, peer;
    ARB_TRY(timed(t, own_calls, bytes, &own));
    ARB_TRY(timed(t, bare_call, bare, &peer));
    if (i < 0) continue;
    s->seconds[i] = own;
    s->peer[i] = peer;
    s->ratio[i] = peer / own;
  }
  if (!out) return ARB_OK;
  qsort(s->seconds, (size_t)pairs, sizeof *s->seconds, by_value);
  qsort(s->peer, (size_t)pairs, sizeof *s->peer, by_value);
  qsort(s->ratio, (size_t)pairs, sizeof *s->ratio, by_value);
  /* What a ring moves through each link for a byte of payload. */
  const double bus = (sharded ? 1.0 : 2.0) * (double)(n - 1) / (double)n;
  print_side(out, name, s->seconds, pairs, bytes, bus);
  fprintf(out, ": %.3f of the bare call (%.3f - %.3f)\n", s->ratio[pairs / 2], s->ratio[0], s->ratio[pairs - 1]);
  print_side(out, sharded ? "bare reduce_scatter" : "bare all_reduce", s->peer, pairs, bare, bus);
  fprintf(out, "\n");
  return ARB_OK;
}

static arb_status all_ways(arb_trainer *t, int pairs, series *s, FILE *out) {
  const arb_comm *c = t->device_comm ? t->device_comm : t->comm;
  const int sharded = t->model->spec.ranks > 0;
  char name[64];
  ARB_REQUIRE(t->comm->size > 1, ARB_ERR_CONFIG, "bench votes: one rank exchanges nothing; start more: mpirun -np 2 ...");
  ARB_REQUIRE(c->ops->bare_sum, ARB_ERR_UNSUPPORTED,
              "bench votes: %s has no library below it to compare with; start ranks with mpirun", c->ops->name);
  ARB_TRY(arb_model_begin(t->model)); /* votes are zero, and stay it */
  if (out)
    fprintf(out, "votes: %s, %d ranks, %s state, %lld bytes in %d tensors; median (min - max) of %d pairs\n", c->ops->name,
            t->comm->size, sharded ? "sharded" : "replicated", (long long)vote_bytes(t), t->model->state.tensor_count, pairs);
  const int overlap = t->overlap;
  arb_trainer_overlap(t, 0);
  snprintf(name, sizeof name, sharded ? "a call a bucket, one batch" : "one call");
  ARB_TRY(measure(t, name, pairs, s, out));
  arb_trainer_overlap(t, 1);
  if (t->overlap) {
    snprintf(name, sizeof name, "%d buckets (dist.overlap)", t->model->bucket_count);
    ARB_TRY(measure(t, name, pairs, s, out));
  }
  arb_trainer_overlap(t, overlap);
  return ARB_OK;
}

arb_status arb_bench_votes(arb_trainer *t, int pairs, FILE *out) {
  double *memory = calloc((size_t)(3 * pairs), sizeof *memory);
  arb_status st = arb_comm_agree(t->comm, memory ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory"));
  series s = {memory, memory + pairs, memory + 2 * pairs};
  if (st == ARB_OK) st = all_ways(t, pairs, &s, out);
  free(memory);
  return st;
}
