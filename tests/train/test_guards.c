/* debug.guards: an undisturbed run passes with its own bits, and a byte written outside any array is found by the next step,
 * which names the array. argv[1]: tiny.ini. */
#include <stdlib.h>
#include <string.h>

#include "dist/loopback/loopback.h"
#include "dist/single/single.h"
#include "src/train/trainer.h"
#include "tests/test.h"

static const char *ini;

typedef struct {
  arb_config cfg;
  arb_backend *be;
  arb_comm *comm;
  arb_trainer *t;
} rig;

static void open_rig(rig *r, const char *const *overrides, int count) {
  arb_assert_ok(arb_config_load(&r->cfg, ini, overrides, count));
  memcpy(r->cfg.data.train, r->cfg.data.valid, sizeof r->cfg.data.train); /* shorter, so sooner loaded */
  arb_assert_ok(arb_backend_cpu_create(1, "auto", &r->be));
  arb_assert_ok(arb_comm_single_create(&r->comm));
  arb_assert_ok(arb_trainer_create(&r->cfg, r->be, r->comm, NULL, ARB_TRAINER_TRAIN, &r->t));
}

static void close_rig(rig *r) {
  arb_trainer_destroy(&r->t);
  arb_comm_destroy(&r->comm);
  arb_backend_destroy(&r->be);
}

static const char *const guarded[] = {"debug.guards=yes", "debug.poison=yes"};

static void test_undisturbed(void **state) {
  (void)state;
  rig a, b;
  char x[33], y[33];
  arb_step_result result;
  open_rig(&a, NULL, 0);
  open_rig(&b, guarded, 2);
  assert_int_equal(a.t->model->guards.count, 0);
  for (int step = 0; step < 3; step++) {
    arb_assert_ok(arb_trainer_step(a.t, &result));
    arb_assert_ok(arb_trainer_step(b.t, &result));
  }
  arb_assert_ok(arb_trainer_digest(a.t, x));
  arb_assert_ok(arb_trainer_digest(b.t, y));
  assert_string_equal(x, y);
  close_rig(&a);
  close_rig(&b);
}

/* One byte behind, or one before, an array of each kind; zones of another array are untouched. */
static void test_overruns(void **state) {
  (void)state;
  for (int i = 0; i < 7; i++) {
    rig r;
    arb_step_result result;
    open_rig(&r, guarded, i % 2 ? 1 : 2);
    arb_model *m = r.t->model;
    const arb_stack *w = &m->state.tensors[2]->w; /* layer0.memory.fcg */
    const int64_t rows = m->spec.rows_per_grain * m->spec.grains_per_batch;
    const struct {
      unsigned char *at;
      const char *what;
    } byte[] = {{w->code + w->n * w->k, "guard zone of state, layer0.memory.fcg: 12288 x u8 taken at state.c:"},
                {(unsigned char *)(w->m + w->members), "guard zone of state, layer0.memory.fcg: 3 x i32"},
                {(unsigned char *)w->votes + w->n * w->k, "guard zone of votes, layer0.memory.fcg: 12288 x i8"},
                {(unsigned char *)m->state.votes_memory, "guard zone before the first array of votes: byte 0"},
                {(unsigned char *)(m->g + rows * m->spec.dim), "guard zone of work, all modules: 4096 x f32 taken at model.c:"},
                {(unsigned char *)(m->bias + m->spec.dim) + 7, "constants, all layers: 64 x f32 taken at model.c:"},
                {(unsigned char *)(m->flips + 2), "guard zone of update, all tensors: 4 x i64"}};
    arb_assert_ok(arb_trainer_step(r.t, &result));
    *byte[i].at ^= 0xff;
    const arb_status st = i == 3 ? arb_model_check_guards(m) : arb_trainer_step(r.t, &result);
    if (st != ARB_ERR_ARG) fail_msg("%s: %s", byte[i].what, arb_status_name(st));
    if (!strstr(arb_fail_message(), byte[i].what)) fail_msg("'%s' lacks '%s'", arb_fail_message(), byte[i].what);
    arb_fail_clear();
    close_rig(&r);
  }
}

static arb_status sharded_rank(arb_comm *comm, void *arg) {
  arb_backend *be;
  arb_trainer *t = NULL;
  arb_step_result result;
  ARB_TRY(arb_backend_cpu_create(1, "auto", &be));
  arb_status st = arb_trainer_create(arg, be, comm, NULL, ARB_TRAINER_TRAIN, &t);
  for (int step = 0; step < 2 && st == ARB_OK; step++) st = arb_trainer_step(t, &result);
  if (st == ARB_OK) t->model->state.shard.mine[t->model->state.shard.trits] ^= 1;
  if (st == ARB_OK) st = arb_trainer_step(t, &result);
  arb_trainer_destroy(&t);
  arb_backend_destroy(&be);
  return st;
}

static void test_sharded(void **state) {
  (void)state;
  static const char *const overrides[] = {"debug.guards=yes", "dist.shard_state=yes"};
  arb_config cfg;
  arb_assert_ok(arb_config_load(&cfg, ini, overrides, 2));
  arb_assert_fails(arb_loopback_run(2, sharded_rank, &cfg), ARB_ERR_ARG, "guard zone of exchange");
}

int main(int argc, char **argv) {
  if (argc < 2) return 1;
  ini = argv[1];
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_undisturbed), cmocka_unit_test(test_overruns),
                                     cmocka_unit_test(test_sharded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
