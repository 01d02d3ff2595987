/* dist.overlap: votes that go on the wire during the backward pass give the bits of one rank, replicated and sharded, on a
 * transport that carries them at once and on one that carries them as late as it may; votes that were sent are not touched
 * again; a rank that fails or sees a value that is not finite in the middle of its pass leaves no other waiting. All of it also
 * when the next step's pass is begun before a step is done, as on a GPU, whatever then comes between the two. The transport is
 * a stand-in for one of device memory, over loopback. argv[1]: tiny.ini. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dist/loopback/loopback.h"
#include "src/train/trainer.h"
#include "tests/test.h"

enum { STEPS = 4, RANKS = 4, CALLS = 64 };

static const char *ini;
static char train_text[200], valid_text[200];

/* ---- a transport whose collectives are queued after arb_comm_aside ---- */

typedef struct {
  int scatter;
  const void *in;
  void *out;
  int64_t count;
  arb_dtype type;
  arb_redop op;
  uint64_t seen; /* what the buffer held when it was sent */
} call;

typedef struct {
  arb_comm *inner;
  int late, aside, marked, count, sent, batches;
  call calls[CALLS];
} wire;

static uint64_t sum_of(const void *data, size_t bytes) {
  uint64_t h = 14695981039346656037u;
  for (size_t i = 0; i < bytes; i++) h = (h ^ ((const unsigned char *)data)[i]) * 1099511628211u;
  return h;
}

static size_t bytes_of(const arb_comm *c, const call *k) {
  return (size_t)k->count * arb_dtype_size(k->type) * (size_t)(k->scatter ? c->size : 1);
}

static arb_status carry(arb_comm *inner, const call *k) {
  return k->scatter ? arb_comm_reduce_scatter(inner, k->in, k->out, k->count, k->type, k->op, ARB_TRAFFIC_CONTROL)
                    : arb_comm_all_reduce(inner, k->out, k->count, k->type, k->op, ARB_TRAFFIC_CONTROL);
}

static arb_status send(arb_comm *c, call k) {
  wire *w = c->ctx;
  w->sent += w->aside;
  if (!w->aside || !w->late) return carry(w->inner, &k);
  ARB_REQUIRE(w->count < CALLS, ARB_ERR_ARG, "too many calls");
  k.seen = sum_of(k.scatter ? k.in : k.out, bytes_of(c, &k));
  w->calls[w->count++] = k;
  return ARB_OK;
}

static arb_status all_reduce(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op) {
  return send(c, (call){0, buf, buf, count, type, op, 0});
}
static arb_status reduce_scatter(arb_comm *c, const void *in, void *out, int64_t count, arb_dtype type, arb_redop op) {
  return send(c, (call){1, in, out, count, type, op, 0});
}
static arb_status all_gather(arb_comm *c, const void *in, void *out, int64_t count, arb_dtype type) {
  return arb_comm_all_gather(((wire *)c->ctx)->inner, in, out, count, type, ARB_TRAFFIC_CONTROL);
}
static arb_status broadcast(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root) {
  return arb_comm_broadcast(((wire *)c->ctx)->inner, buf, count, type, root, ARB_TRAFFIC_CONTROL);
}
static arb_status join(arb_comm *c) {
  wire *w = c->ctx;
  for (int i = 0; i < w->count; i++) {
    const call *k = &w->calls[i];
    ARB_REQUIRE(k->seen == sum_of(k->scatter ? k->in : k->out, bytes_of(c, k)), ARB_ERR_ARG,
                "votes changed after they were sent");
    ARB_TRY(carry(w->inner, k));
  }
  w->count = w->aside = 0;
  return ARB_OK;
}
static arb_status barrier(arb_comm *c) {
  wire *w = c->ctx;
  const int marked = w->marked;
  w->marked = 0;
  return marked ? ARB_OK : join(c); /* what was sent after the mark stays on its way */
}
static arb_status mark(arb_comm *c) {
  wire *w = c->ctx;
  ARB_REQUIRE(!w->marked && !w->aside, ARB_ERR_ARG, "a mark before the votes of the step arrived");
  w->marked = 1;
  return ARB_OK;
}
static arb_status aside(arb_comm *c) {
  ((wire *)c->ctx)->aside = 1;
  return ARB_OK;
}
static arb_status batch_begin(arb_comm *c) {
  (void)c;
  return ARB_OK;
}
static arb_status batch_end(arb_comm *c) {
  ((wire *)c->ctx)->batches++;
  return ARB_OK;
}
static void destroy(arb_comm *c) { (void)c; }

/* ---- runs ---- */

typedef enum { NOTHING, INFINITE, BROKEN } mishap;
typedef enum { CALM, EVALUATION, OTHER_WAY, PLAIN_STEP, BETWEEN } between; /* what comes between steps begun ahead */

typedef struct {
  arb_config cfg;
  int late, ahead;
  mishap what; /* happens to the last rank in its third step; where an evaluation follows, in a pass that is then begun again */
  between rest;
  char digest[RANKS][STEPS + 1][33];
  int64_t wire[RANKS][ARB_TRAFFIC__COUNT];
  int sent[RANKS];
} job;

static _Thread_local arb_ops real;
static _Thread_local int calls;
static _Thread_local mishap trouble;

static arb_status spoil(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const arb_stack *w,
                        uint16_t *dx) {
  ARB_TRY(real.linear_dx(be, r, hq, sh, w, dx));
  if (++calls != 3) return ARB_OK; /* after the first bucket was sent */
  if (trouble == BROKEN) return ARB_FAIL(ARB_ERR_DATA, "page 7 is missing");
  for (int64_t i = 0; i < w->k; i++) dx[i] = 0x7f80; /* infinity */
  return ARB_OK;
}

static void spoil_from_here(const job *j, arb_comm *comm, arb_trainer *t) {
  real = t->be->ops;
  calls = 0;
  trouble = j->what;
  if (comm->rank == comm->size - 1) t->be->ops.linear_dx = spoil;
}

/* Its pass is begun here, or was with the step before. */
static arb_status mishap_step(job *j, arb_comm *comm, arb_trainer *t, const char *before) {
  arb_step_result r;
  char after[33];
  if (!j->ahead) spoil_from_here(j, comm, t);
  const arb_status st = j->ahead ? arb_trainer_step_on(t, &r) : arb_trainer_step(t, &r);
  t->be->ops.linear_dx = real.linear_dx;
  const arb_status want = j->what == INFINITE ? ARB_ERR_NUMERIC : ARB_ERR_DATA;
  ARB_REQUIRE(st == want, ARB_ERR_ARG, "a step with trouble gave status %d: %s", (int)st, arb_fail_message());
  arb_fail_clear();
  ARB_TRY(arb_trainer_digest(t, after));
  ARB_REQUIRE(strcmp(before, after) == 0, ARB_ERR_ARG, "a refused step left its mark");
  return ARB_OK;
}

/* A step that a caller goes on from, and what he may do before the next. */
static arb_status one_step(const job *j, arb_trainer *t, int step, arb_step_result *r) {
  double bpb;
  if (!j->ahead || (j->rest == PLAIN_STEP && step == 1)) return arb_trainer_step(t, r);
  ARB_TRY(arb_trainer_step_on(t, r));
  ARB_REQUIRE(t->begun == step + 2, ARB_ERR_ARG, "after step %d step %lld is under way", step + 1, (long long)t->begun);
  ARB_REQUIRE(r->step == step + 1, ARB_ERR_ARG, "step %lld", (long long)r->step);
  if (j->rest == EVALUATION && j->what != NOTHING && step != 1) return ARB_OK;
  if (j->rest == EVALUATION && j->what != NOTHING) t->be->ops.linear_dx = real.linear_dx;
  if (j->rest == EVALUATION) ARB_TRY(arb_trainer_evaluate(t, &bpb));
  if (j->rest == OTHER_WAY) arb_trainer_overlap(t, step % 2);
  return ARB_OK;
}

static arb_status one_rank(arb_comm *comm, void *arg) {
  static const arb_comm_ops ops = {.name = "wire",
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
                                   .batch_end = batch_end};
  job *j = arg;
  arb_backend *be = NULL;
  arb_trainer *t = NULL;
  arb_step_result r;
  wire w = {.inner = comm, .late = j->late};
  arb_comm device = {.ops = &ops, .rank = comm->rank, .size = comm->size, .local_size = comm->size, .ctx = &w};
  ARB_TRY(arb_comm_agree(comm, arb_backend_cpu_create(1, "auto", &be)));
  ARB_TRY(arb_trainer_create(&j->cfg, be, comm, comm->size > 1 ? &device : NULL, ARB_TRAINER_TRAIN | ARB_TRAINER_VALID, &t));
  ARB_REQUIRE(!t->ahead, ARB_ERR_ARG, "a host backend would work on a later step first");
  t->ahead = j->ahead;
  ARB_REQUIRE(t->overlap == (comm->size > 1 && j->cfg.dist.overlap), ARB_ERR_ARG, "overlap: %d", t->overlap);
  ARB_TRY(arb_trainer_digest(t, j->digest[comm->rank][0]));
  for (int step = 0; step < STEPS; step++) {
    if (step == 2 && j->what != NOTHING && j->rest == CALM) ARB_TRY(mishap_step(j, comm, t, j->digest[comm->rank][step]));
    if (step == 1 && j->what != NOTHING && j->ahead) spoil_from_here(j, comm, t);
    w.sent = w.batches = 0;
    ARB_TRY(one_step(j, t, step, &r));
    ARB_TRY(arb_trainer_digest(t, j->digest[comm->rank][step + 1]));
    if (j->what == NOTHING && !j->ahead && step == 1) arb_trainer_overlap(t, 0); /* and back */
    if (j->what == NOTHING && !j->ahead && step == 2) arb_trainer_overlap(t, j->cfg.dist.overlap);
  }
  j->sent[comm->rank] = w.sent;
  /* Aside go the buckets and the flag, which is in one batch with the last votes. */
  const int sharded = t->model->spec.ranks > 0;
  ARB_REQUIRE(!sharded || j->ahead || w.sent == (t->overlap ? t->model->bucket_count + 1 : 0), ARB_ERR_ARG, "%d calls aside",
              w.sent);
  ARB_REQUIRE(comm->size == 1 || j->ahead || w.batches == 1 + (sharded && !t->overlap), ARB_ERR_ARG, "%d batches", w.batches);
  memcpy(j->wire[comm->rank], r.wire, sizeof r.wire);
  arb_trainer_destroy(&t);
  arb_backend_destroy(&be);
  return ARB_OK;
}

static const char *buckets = "dist.bucket_mb=0"; /* as many as there may be */

static void run(job *j, int ranks, int late, mishap what, const char *shard, const char *overlap, const char *more) {
  const char *overrides[] = {train_text, valid_text, "train.steps=6", "train.warmup=1", shard, overlap, buckets, more};
  const int ahead = j->ahead;
  const between rest = j->rest;
  memset(j, 0, sizeof *j);
  j->ahead = ahead;
  j->rest = rest;
  arb_assert_ok(arb_config_load(&j->cfg, ini, overrides, (int)(sizeof overrides / sizeof *overrides)));
  j->late = late;
  j->what = what;
  arb_assert_ok(arb_loopback_run(ranks, one_rank, j));
}

static void same(const job *a, const job *b, int ranks, const char *what) {
  for (int rank = 0; rank < ranks; rank++)
    for (int step = 0; step <= STEPS; step++)
      if (strcmp(a->digest[0][step], b->digest[rank][step]) != 0)
        fail_msg("%s: rank %d differs after step %d", what, rank, step);
}

static void test_same_bits(void **state) {
  (void)state;
  static job alone, after, during;
  static const char *const more[] = {"run.grains_at_once=8", "run.grains_at_once=1", "model.memory=zero",
                                     "debug.guards=yes",     "model.layers=1",       "debug.poison=yes"};
  static const char *const shard[] = {"dist.shard_state=no", "dist.shard_state=yes"};
  for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
    run(&alone, 1, 0, NOTHING, shard[0], "dist.overlap=yes", more[i]);
    for (int s = 0; s < 2; s++)
      for (int ranks = 2; ranks <= RANKS; ranks++) {
        run(&after, ranks, 1, NOTHING, shard[s], "dist.overlap=no", more[i]);
        same(&alone, &after, ranks, more[i]);
        assert_int_equal(after.sent[0], 0);
        for (int late = 0; late < 2; late++) {
          run(&during, ranks, late, NOTHING, shard[s], "dist.overlap=yes", more[i]);
          same(&alone, &during, ranks, more[i]);
          assert_true(during.sent[0] > 1);
          assert_memory_equal(after.wire, during.wire, sizeof after.wire);
        }
      }
  }
}

/* The default keeps small models' votes together: one call, and the flag. */
static void test_one_bucket(void **state) {
  (void)state;
  static job alone, together;
  run(&alone, 1, 0, NOTHING, "dist.shard_state=no", "dist.overlap=yes", "run.grains_at_once=8");
  buckets = "dist.bucket_mb=25";
  for (int i = 0; i < 4; i++) {
    run(&together, 3, i % 2, NOTHING, i / 2 ? "dist.shard_state=yes" : "dist.shard_state=no", "dist.overlap=yes",
        "run.grains_at_once=8");
    same(&alone, &together, 3, "one bucket");
    assert_int_equal(together.sent[0], 2);
  }
  buckets = "dist.bucket_mb=0";
}

static void test_mishaps(void **state) {
  (void)state;
  static job alone, other;
  static const char *const shard[] = {"dist.shard_state=no", "dist.shard_state=yes"};
  static const char *const overlap[] = {"dist.overlap=no", "dist.overlap=yes"};
  run(&alone, 1, 0, NOTHING, shard[0], overlap[1], "run.grains_at_once=8");
  for (mishap what = INFINITE; what <= BROKEN; what++)
    for (int i = 0; i < 16; i++) {
      other.ahead = i / 8;
      run(&other, 3, i % 2, what, shard[i / 2 % 2], overlap[i / 4 % 2], "run.grains_at_once=8");
      same(&alone, &other, 3, "after trouble");
    }
}

/* Steps begun ahead: the same digests after every step (which are taken while the next is under way) and the same traffic. */
static void test_ahead(void **state) {
  (void)state;
  static job alone, plain, ahead;
  static const char *const shard[] = {"dist.shard_state=no", "dist.shard_state=yes"};
  static const char *const overlap[] = {"dist.overlap=no", "dist.overlap=yes"};
  run(&alone, 1, 0, NOTHING, shard[0], overlap[1], "run.grains_at_once=8");
  ahead.ahead = 1;
  run(&ahead, 1, 0, NOTHING, shard[0], overlap[1], "run.grains_at_once=8");
  same(&alone, &ahead, 1, "ahead, one rank");
  for (int i = 0; i < 8; i++) {
    run(&plain, 3, i % 2, NOTHING, shard[i / 2 % 2], overlap[i / 4], "run.grains_at_once=8");
    for (ahead.rest = CALM; ahead.rest < BETWEEN; ahead.rest++) {
      run(&ahead, 3, i % 2, NOTHING, shard[i / 2 % 2], overlap[i / 4], "run.grains_at_once=8");
      same(&alone, &ahead, 3, "ahead");
      if (ahead.rest == CALM) assert_memory_equal(plain.wire, ahead.wire, sizeof plain.wire);
    }
    ahead.rest = EVALUATION;
    for (mishap what = INFINITE; what <= BROKEN; what++) {
      run(&ahead, 3, i % 2, what, shard[i / 2 % 2], overlap[i / 4], "run.grains_at_once=8");
      same(&alone, &ahead, 3, "a pass that is begun again");
    }
  }
}

int main(int argc, char **argv) {
  if (argc < 2) return 1;
  ini = argv[1];
  char path[] = "/tmp/arbdist-text.XXXXXX";
  const int fd = mkstemp(path);
  FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
  if (!out) return 1;
  for (int i = 0; i < 9000; i++) fputc(i % 6 == 5 ? ' ' : 'a' + i * i % 23, out);
  if (fclose(out) != 0) return 1;
  snprintf(train_text, sizeof train_text, "data.train=%s", path);
  snprintf(valid_text, sizeof valid_text, "data.valid=%s", path);
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits), cmocka_unit_test(test_one_bucket),
                                     cmocka_unit_test(test_mishaps), cmocka_unit_test(test_ahead)};
  const int failed = cmocka_run_group_tests_name("overlap", tests, NULL, NULL);
  unlink(path);
  return failed;
}
