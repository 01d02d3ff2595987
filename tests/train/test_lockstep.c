/* debug.lockstep and debug.synchronous: every slot is watched, an undisturbed run passes with its own bits, and a change of any
 * output of any slot is found and named. argv[1]: tiny.ini. */
#include "kernels/lockstep/lockstep.h"

#include <stdlib.h>
#include <string.h>

#include "dist/loopback/loopback.h"
#include "dist/single/single.h"
#include "src/train/trainer.h"
#include "tests/test.h"

static const char *ini;

/* The slots of the table, from its own rows. */
#define SLOT(slot, ...) #slot,
static const char *const slots[] = {
#include "kernels/lockstep/slots.inc"
};
#undef SLOT
enum { SLOTS = sizeof slots / sizeof slots[0] };

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
}

static void start(rig *r) { arb_assert_ok(arb_trainer_create(&r->cfg, r->be, r->comm, NULL, ARB_TRAINER_TRAIN, &r->t)); }

static void close_rig(rig *r) {
  arb_trainer_destroy(&r->t);
  arb_comm_destroy(&r->comm);
  arb_backend_destroy(&r->be);
}

static const char *const watched[] = {"debug.lockstep=yes", "debug.synchronous=yes", "debug.poison=yes", "train.grains=2",
                                      "train.sequences=4"};
static const char *const plain[] = {"train.grains=2", "train.sequences=4"};

/* Every slot between `memory` and `record_begin` is in the table: a new one without a row shows here. */
static void test_every_slot(void **state) {
  (void)state;
  arb_backend *be;
  const arb_lockstep_options o = {.lockstep = 1};
  arb_assert_ok(arb_backend_ref_create(&be));
  const arb_ops before = be->ops;
  arb_assert_ok(arb_lockstep_attach(be, &o));
  const size_t first = offsetof(arb_ops, draws), last = offsetof(arb_ops, record_begin), word = sizeof(void (*)(void));
  assert_int_equal((last - first) / word, SLOTS);
  for (size_t at = first; at < last; at += word)
    if (memcmp((const char *)&before + at, (const char *)&be->ops + at, word) == 0)
      fail_msg("slot %zu after `memory` is not in slots.inc", (at - first) / word);
  arb_assert_fails(arb_lockstep_attach(be, &o), ARB_ERR_ARG, "watched already");
  arb_backend_destroy(&be);
}

static void test_undisturbed(void **state) {
  (void)state;
  rig a, b;
  char x[33], y[33];
  arb_step_result result;
  open_rig(&a, plain, 2);
  open_rig(&b, watched, 5);
  start(&a);
  start(&b);
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

/* The outputs of a slot are learnt from its first call; each in turn is changed after a later one. */
static int spoil_outputs(const char *slot, int fresh) {
  int found = 0;
  for (int i = 0;; i++) {
    rig r;
    arb_step_result result;
    char argument[24], want[64];
    const char *const small[] = {"debug.lockstep=yes", "train.grains=1", "train.sequences=1",  "train.context=16",
                                 "model.layers=1",     "model.dim=32",   "model.glu_hidden=64"};
    open_rig(&r, small, 7);
    start(&r);
    if (!fresh) arb_assert_ok(arb_trainer_step(r.t, &result));
    const char *output = arb_lockstep_output(r.be, slot, i);
    if (!output) {
      close_rig(&r);
      return found;
    }
    snprintf(argument, sizeof argument, "%s", output);
    snprintf(want, sizeof want, ", %s at row ", argument);
    arb_lockstep_spoil(r.be, slot, argument);
    arb_fail_clear();
    const arb_status st = fresh ? arb_state_fresh(&r.t->model->state, 3) : arb_trainer_step(r.t, &result);
    const char *message = arb_fail_message();
    if (st != ARB_ERR_NUMERIC || !strstr(message, "lockstep: step ") || !strstr(message, slot) || !strstr(message, want) ||
        !strstr(message, "the reference "))
      fail_msg("%s, %s: %s: %s", slot, argument, arb_status_name(st), message);
    arb_fail_clear();
    close_rig(&r);
    found++;
  }
}

static const char *const elsewhere[] = {"draws",      "window_norm_quant", "gather_rows",
                                        "pack_trits", "unpack_trits",      "join_rows"}; /* not in a step of this model */

static void test_every_output(void **state) {
  (void)state;
  for (int i = 0; i < SLOTS; i++) {
    int here = 1;
    for (size_t j = 0; j < sizeof elsewhere / sizeof elsewhere[0]; j++) here &= strcmp(slots[i], elsewhere[j]) != 0;
    if (here && spoil_outputs(slots[i], strcmp(slots[i], "init_stack") == 0) == 0) fail_msg("%s writes nothing", slots[i]);
  }
}

static void test_slots_of_other_models(void **state) {
  (void)state;
  arb_backend *be;
  const arb_lockstep_options o = {.lockstep = 1, .finite = 1};
  const arb_rows r = {4, 1, 0, 1};
  uint16_t draws[16];
  const int8_t q_in[6 * 8] = {1, -2, 3}, e[3 * 8] = {0};
  const float s_in[6] = {1, 1, 1, 1, 1, 1};
  int8_t q[4 * 24];
  float s[4];
  const int32_t index[3] = {2, -1, 0};
  const char in[3][4] = {"abc", "def", "ghi"};
  char out[3][4];
  arb_assert_ok(arb_backend_cpu_create(1, "auto", &be));
  arb_assert_ok(arb_lockstep_attach(be, &o));
  for (int turn = 0; turn < 2; turn++) {
    arb_fail_clear();
    if (turn) arb_lockstep_spoil(be, "draws", "out");
    assert_int_equal(be->ops.draws(be, ARB_DRAW_VOTE, 1, 2, 8, 16, draws), turn ? ARB_ERR_NUMERIC : ARB_OK);
    if (turn) arb_lockstep_spoil(be, "window_norm_quant", "q");
    assert_int_equal(be->ops.window_norm_quant(be, &r, 4, 3, 8, q_in, s_in, e, q, s), turn ? ARB_ERR_NUMERIC : ARB_OK);
    if (turn) arb_lockstep_spoil(be, "gather_rows", "out");
    assert_int_equal(be->ops.gather_rows(be, 3, 4, in, index, out), turn ? ARB_ERR_NUMERIC : ARB_OK);
  }
  arb_fail_clear();
  arb_backend_destroy(&be);
}

/* Two ranks with sharded state: clean, and then with a change of each slot that only they call, on both. */
typedef struct {
  const char *slot, *argument;
  arb_config cfg;
} sharded;

static arb_status sharded_rank(arb_comm *comm, void *arg) {
  const sharded *j = arg;
  arb_backend *be;
  arb_trainer *t = NULL;
  arb_step_result result;
  ARB_TRY(arb_backend_cpu_create(1, "auto", &be));
  arb_status st = arb_trainer_create(&j->cfg, be, comm, NULL, ARB_TRAINER_TRAIN, &t);
  if (st == ARB_OK) st = arb_trainer_step(t, &result);
  if (st == ARB_OK && j->slot) arb_lockstep_spoil(be, j->slot, j->argument);
  if (st == ARB_OK) st = arb_trainer_step(t, &result);
  arb_trainer_destroy(&t);
  arb_backend_destroy(&be);
  return st;
}

static void test_sharded(void **state) {
  (void)state;
  static const char *const overrides[] = {"debug.lockstep=yes", "dist.shard_state=yes", "train.grains=2", "train.sequences=4"};
  static const char *const spoilt[][2] = {
      {NULL, NULL}, {"pack_trits", "packed"}, {"unpack_trits", "code"}, {"join_rows", "out"}};
  for (int i = 0; i < 4; i++) {
    sharded j = {.slot = spoilt[i][0], .argument = spoilt[i][1]};
    arb_assert_ok(arb_config_load(&j.cfg, ini, overrides, 4));
    memcpy(j.cfg.data.train, j.cfg.data.valid, sizeof j.cfg.data.train);
    if (!j.slot) arb_assert_ok(arb_loopback_run(2, sharded_rank, &j));
    if (j.slot) arb_assert_fails(arb_loopback_run(2, sharded_rank, &j), ARB_ERR_NUMERIC, j.slot);
  }
}

/* ---- values that are not finite ---- */

static arb_ops real;
static int calls;

static arb_status infinite(arb_backend *be, const arb_rows *r, const int8_t *q, const float *s, const arb_stack *w,
                           uint16_t *y) {
  ARB_TRY(real.linear_forward(be, r, q, s, w, y));
  if (++calls == 2) y[5 * w->n + 3] = 0x7f80;
  return ARB_OK;
}

static void test_not_finite(void **state) {
  (void)state;
  static const char *const finite[] = {"debug.synchronous=yes", "debug.outlier_log2=120"};
  rig r;
  arb_step_result result;
  open_rig(&r, finite, 2);
  real = r.be->ops;
  r.be->ops.linear_forward = infinite;
  calls = 0;
  start(&r);
  arb_assert_fails(
      arb_trainer_step(r.t, &result), ARB_ERR_NUMERIC,
      "step 1, rank 0, layer0.memory: linear_forward of layer0.memory.fcg, y at row 5 (grain 0, position 5, token ");
  close_rig(&r);
}

int main(int argc, char **argv) {
  if (argc < 2) return 1;
  ini = argv[1];
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_slot),   cmocka_unit_test(test_undisturbed),
                                     cmocka_unit_test(test_every_output), cmocka_unit_test(test_slots_of_other_models),
                                     cmocka_unit_test(test_sharded),      cmocka_unit_test(test_not_finite)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
