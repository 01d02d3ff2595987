/* dist.shard_state: every step has the digest, losses and flips of replicated state, on rank counts that divide the rows and
 * others, some of whose ranks own nothing; a rank has the state of its own rows and the trits of all. argv[1]: tiny.ini. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dist/loopback/loopback.h"
#include "kernels/common/trit.h"
#include "src/train/trainer.h"
#include "tests/test.h"

enum { STEPS = 6, RANKS = 16 };

static const char *ini;
static char train_text[200], valid_text[200]; /* a short text of our own: every rank loads it */

typedef struct {
  char digest[STEPS + 1][33];
  double train[STEPS], valid;
  int64_t flips[STEPS], saturated[STEPS];
  int8_t *trits; /* of all tensors, after the last step */
} course;

typedef struct {
  arb_config cfg;
  int ref, threads;
  int poisoned; /* the rank whose step 3 sees a value that is not finite, or -1 */
  int64_t weights, owned[RANKS];
  size_t state[RANKS];
  course of[RANKS];
} job;

static arb_status open_trainer(job *j, arb_comm *comm, arb_backend **be, arb_trainer **t) {
  arb_status st = j->ref ? arb_backend_ref_create(be) : arb_backend_cpu_create(j->threads, "auto", be);
  ARB_TRY(arb_comm_agree(comm, st));
  return arb_trainer_create(&j->cfg, *be, comm, NULL, ARB_TRAINER_TRAIN | ARB_TRAINER_VALID, t);
}

/* As this rank would multiply by them. */
static arb_status read_trits(arb_trainer *t, int8_t *out) {
  const arb_state *s = &t->model->state;
  const arb_pass p = {.be = t->be, .shard = t->model->spec.ranks ? &s->shard : NULL, .work = t->model->buffers};
  for (int i = 0; i < s->tensor_count; i++) {
    arb_stack w;
    ARB_TRY(arb_pass_stack(&p, s->tensors[i], &w));
    ARB_REQUIRE(s->shard.ranks == 0 || s->tensors[i]->w.code == NULL, ARB_ERR_ARG, "a rank holds a whole matrix");
    for (int64_t at = 0; at < w.n * w.k; at++) *out++ = (int8_t)arb_code_trit(w.code[at]);
  }
  return ARB_OK;
}

static _Thread_local arb_ops real;
static _Thread_local int calls;

static arb_status spoil(arb_backend *be, const arb_rows *r, const int8_t *q, const float *s, const arb_stack *w, uint16_t *y) {
  ARB_TRY(real.linear_forward(be, r, q, s, w, y));
  if (++calls == 3) y[0] = 0x7f80; /* infinity */
  return ARB_OK;
}

/* A refused step changes nothing on any rank. */
static arb_status refused(job *j, arb_comm *comm, arb_trainer *t, const char *before) {
  arb_step_result r;
  char after[33];
  real = t->be->ops;
  calls = 0;
  if (comm->rank == j->poisoned) t->be->ops.linear_forward = spoil;
  const arb_status st = arb_trainer_step(t, &r);
  t->be->ops.linear_forward = real.linear_forward;
  ARB_REQUIRE(st == ARB_ERR_NUMERIC, ARB_ERR_ARG, "a step with an infinity gave status %d", (int)st);
  arb_fail_clear();
  ARB_TRY(arb_trainer_digest(t, after));
  ARB_REQUIRE(strcmp(before, after) == 0, ARB_ERR_ARG, "a refused step left its mark");
  return ARB_OK;
}

static arb_status one_rank(arb_comm *comm, void *arg) {
  job *j = arg;
  course *c = &j->of[comm->rank];
  arb_backend *be = NULL;
  arb_trainer *t = NULL;
  ARB_TRY(open_trainer(j, comm, &be, &t));
  const arb_state *s = &t->model->state;
  ARB_REQUIRE(t->model->spec.ranks == (j->cfg.dist.shard_state && comm->size > 1 ? comm->size : 0), ARB_ERR_ARG,
              "%d ranks share the state", t->model->spec.ranks);
  for (int i = 0; i < s->tensor_count; i++)
    j->owned[comm->rank] += t->model->spec.ranks ? s->tensors[i]->own.n * s->tensors[i]->w.k : 0;
  if (comm->rank == 0) j->weights = arb_state_weights(s);
  j->state[comm->rank] = arb_arena_payload(&s->state);
  ARB_TRY(arb_trainer_digest(t, c->digest[0]));
  for (int step = 0; step < STEPS; step++) {
    arb_step_result r;
    if (step == 2 && j->poisoned >= 0) ARB_TRY(refused(j, comm, t, c->digest[step]));
    ARB_TRY(arb_trainer_step(t, &r));
    ARB_TRY(arb_trainer_digest(t, c->digest[step + 1]));
    c->train[step] = r.train_bpb;
    c->flips[step] = r.flips;
    c->saturated[step] = r.saturated;
  }
  ARB_TRY(arb_trainer_evaluate(t, &c->valid));
  c->trits = malloc((size_t)arb_state_weights(s));
  ARB_REQUIRE(c->trits, ARB_ERR_NOMEM, "out of host memory");
  ARB_TRY(read_trits(t, c->trits));
  arb_trainer_destroy(&t);
  arb_backend_destroy(&be);
  return ARB_OK;
}

static void same_course(const course *a, const course *b, int64_t weights, const char *what) {
  for (int step = 0; step <= STEPS; step++)
    if (strcmp(a->digest[step], b->digest[step]) != 0) fail_msg("%s: the digest after step %d differs", what, step);
  for (int step = 0; step < STEPS; step++) {
    assert_true(a->train[step] == b->train[step]);
    assert_int_equal(a->flips[step], b->flips[step]);
    assert_int_equal(a->saturated[step], b->saturated[step]);
  }
  assert_true(a->valid == b->valid);
  if (memcmp(a->trits, b->trits, (size_t)weights) != 0) fail_msg("%s: trits differ", what);
}

typedef struct {
  const char *settings[9];
  int ranks[4];
  int ref, poisoned;
} geometry;

static void run(job *j, const geometry *g, int ranks, const char *layout) {
  const char *overrides[14] = {"train.steps=6", "train.warmup=1", layout, train_text, valid_text};
  int count = 5;
  for (int i = 0; g->settings[i]; i++) overrides[count++] = g->settings[i];
  memset(j, 0, sizeof *j);
  arb_assert_ok(arb_config_load(&j->cfg, ini, overrides, count));
  j->ref = g->ref;
  j->threads = ranks % 3 == 2 ? 2 : 1;
  j->poisoned = g->poisoned;
  arb_assert_ok(arb_loopback_run(ranks, one_rank, j));
}

static void drop(job *j) {
  for (int i = 0; i < RANKS; i++) free(j->of[i].trits);
}

static void test_same_bits(void **state) {
  (void)state;
  static job whole, shared;
  static const geometry all[] = {
      {.settings = {NULL}, .ranks = {1, 2, 3, 8}, .poisoned = 1},
      /* 8 to 297 rows: most of 13 ranks own rows of some matrices and none of others */
      {.settings = {"model.dim=32", "model.embed_channels=8", "model.layers=1", "model.glu_hidden=32", "train.grains=15",
                    "train.sequences=15", "debug.poison=yes", NULL},
       .ranks = {5, 7, 13},
       .poisoned = -1},
      {.settings = {"model.glu_hidden=160", "model.memory=zero", "run.grains_at_once=2", NULL}, .ranks = {3}, .ref = 1},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    const geometry *g = &all[i];
    geometry alone = *g;
    alone.poisoned = -1;
    run(&whole, &alone, 1, "dist.shard_state=no");
    assert_true(whole.of[0].flips[STEPS - 1] > 0);
    const int64_t weights = whole.weights;
    for (int n = 0; n < 4 && g->ranks[n]; n++) {
      const int ranks = g->ranks[n];
      char what[64];
      int64_t owned = 0;
      geometry here = *g;
      if (here.poisoned >= ranks) here.poisoned = -1;
      run(&shared, &here, ranks, "dist.shard_state=yes");
      for (int rank = 0; rank < ranks; rank++) {
        snprintf(what, sizeof what, "geometry %zu, rank %d of %d", i, rank, ranks);
        same_course(&whole.of[0], &shared.of[rank], weights, what);
        owned += shared.owned[rank];
        /* Other arrays of the state are as large as before; of codes a rank has its share. */
        assert_true(ranks == 1 || shared.state[rank] <= whole.state[0] - (size_t)(weights - shared.owned[rank]) + 64);
      }
      assert_int_equal(owned, ranks == 1 ? 0 : weights);
      drop(&shared);
    }
    drop(&whole);
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
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits)};
  const int failed = cmocka_run_group_tests_name("shard", tests, NULL, NULL);
  unlink(path);
  return failed;
}
