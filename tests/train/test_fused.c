/* train.fused_update: the bits of the ordinary path, one vote buffer, and what a value that is not finite may and may not leave
 * behind. argv[1]: tiny.ini. */
#include <stdlib.h>
#include <string.h>

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

static void open_rig(rig *r, const char *a, const char *b) {
  const char *overrides[] = {a, b};
  arb_assert_ok(arb_config_load(&r->cfg, ini, overrides, b ? 2 : a ? 1 : 0));
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

static void test_same_bits(void **state) {
  (void)state;
  const char *const settings[] = {"train.grains=8", "train.grains=1", "model.memory=zero"};
  for (int i = 0; i < 3; i++) {
    rig plain, fused;
    char x[33], y[33];
    arb_step_result p, f;
    open_rig(&plain, settings[i], NULL);
    open_rig(&fused, settings[i], "train.fused_update=yes");
    for (int step = 0; step < 8; step++) {
      arb_assert_ok(arb_trainer_step(plain.t, &p));
      arb_assert_ok(arb_trainer_step(fused.t, &f));
      arb_assert_ok(arb_trainer_digest(plain.t, x));
      arb_assert_ok(arb_trainer_digest(fused.t, y));
      assert_string_equal(x, y);
      assert_int_equal(p.flips, f.flips);
      assert_int_equal(p.saturated, f.saturated);
      assert_true(p.train_bpb == f.train_bpb);
    }
    assert_true(p.flips > 0);
    /* Votes: one buffer, of the largest stack, zero between steps. */
    const arb_state *s = &fused.t->model->state;
    int64_t largest = 0;
    for (int j = 0; j < s->tensor_count; j++) {
      const int64_t count = s->tensors[j]->w.n * s->tensors[j]->w.k;
      largest = count > largest ? count : largest;
      assert_ptr_equal(s->tensors[j]->w.votes, s->votes_memory);
    }
    assert_int_equal(arb_arena_payload(&s->votes), largest);
    for (int64_t j = 0; j < largest; j++) assert_int_equal(((const int8_t *)s->votes_memory)[j], 0);
    close_rig(&plain);
    close_rig(&fused);
  }
}

/* ---- values that are not finite ---- */

static arb_ops real;
static int calls, fatal; /* slots called since the start, and the call whose result is spoilt */

static arb_status spoil_forward(arb_backend *be, const arb_rows *r, const int8_t *q, const float *s, const arb_stack *w,
                                uint16_t *y) {
  ARB_TRY(real.linear_forward(be, r, q, s, w, y));
  if (++calls == fatal) y[0] = 0x7f80; /* infinity */
  return ARB_OK;
}

static arb_status spoil_backward(arb_backend *be, const arb_rows *r, int64_t width, const float *x, const float *inv,
                                 const int8_t *e, const uint16_t *dy, int accumulate, float *g, const arb_stack *below,
                                 int8_t *hq, float *sh) {
  if (++calls == fatal) memset((void *)(uintptr_t)dy, 0xff, sizeof *dy); /* a NaN in work memory */
  return real.norm_backward(be, r, width, x, inv, e, dy, accumulate, g, below, hq, sh);
}

static unsigned char *copy_of(const arb_tensor *t) {
  const size_t codes = (size_t)(t->w.n * t->w.k), rows = (size_t)t->w.n;
  unsigned char *copy = malloc(codes + rows);
  assert_non_null(copy);
  memcpy(copy, t->w.code, codes);
  memcpy(copy + codes, t->w.p, rows);
  return copy;
}

static int changed(const arb_tensor *t, const unsigned char *copy) {
  const size_t codes = (size_t)(t->w.n * t->w.k), rows = (size_t)t->w.n;
  return memcmp(copy, t->w.code, codes) != 0 || memcmp(copy + codes, t->w.p, rows) != 0;
}

static void test_forward_leaves_everything(void **state) {
  (void)state;
  rig r;
  char before[33], after[33];
  arb_step_result result;
  open_rig(&r, "train.fused_update=yes", NULL);
  for (int step = 0; step < 3; step++) arb_assert_ok(arb_trainer_step(r.t, &result));
  arb_assert_ok(arb_trainer_digest(r.t, before));
  real = r.be->ops;
  r.be->ops.linear_forward = spoil_forward;
  for (fatal = 1; fatal <= 10; fatal += 3) {
    calls = 0;
    arb_assert_fails(arb_trainer_step(r.t, &result), ARB_ERR_NUMERIC, "step 4: a value is not finite; the step was refused");
    arb_assert_ok(arb_trainer_digest(r.t, after));
    assert_string_equal(before, after);
  }
  fatal = 0; /* and training goes on where it was */
  arb_assert_ok(arb_trainer_step(r.t, &result));
  assert_int_equal(result.step, 4);
  close_rig(&r);
}

static void test_backward_stops_what_follows(void **state) {
  (void)state;
  rig r;
  arb_step_result result;
  open_rig(&r, "train.fused_update=yes", NULL);
  for (int step = 0; step < 3; step++) arb_assert_ok(arb_trainer_step(r.t, &result));
  const arb_state *s = &r.t->model->state;
  unsigned char **copies = calloc((size_t)s->tensor_count, sizeof *copies);
  assert_non_null(copies);
  for (int i = 0; i < s->tensor_count; i++) copies[i] = copy_of(s->tensors[i]);
  real = r.be->ops;
  r.be->ops.norm_backward = spoil_backward;
  calls = 0;
  fatal = 2; /* after the last layer's gated unit: its gradient of the stream */
  arb_assert_fails(arb_trainer_step(r.t, &result), ARB_ERR_NUMERIC,
                   "step 4: a value is not finite in the backward pass. With train.fused_update = yes some matrices");
  for (int i = 0; i < s->tensor_count; i++) {
    const char *name = s->tensors[i]->name;
    const int before = strncmp(name, "head.", 5) == 0 || strncmp(name, "layer1.glu.", 11) == 0;
    if (changed(s->tensors[i], copies[i]) != before) fail_msg("%s is %schanged", name, before ? "un" : "");
    free(copies[i]);
  }
  free(copies);
  close_rig(&r);
}

/* Without it nothing changes, wherever the value appears. */
static void test_ordinary_backward(void **state) {
  (void)state;
  rig r;
  char before[33], after[33];
  arb_step_result result;
  open_rig(&r, NULL, NULL);
  arb_assert_ok(arb_trainer_step(r.t, &result));
  arb_assert_ok(arb_trainer_digest(r.t, before));
  real = r.be->ops;
  r.be->ops.norm_backward = spoil_backward;
  calls = 0;
  fatal = 2;
  arb_assert_fails(arb_trainer_step(r.t, &result), ARB_ERR_NUMERIC, "the step was refused and the state is that of step 1");
  arb_assert_ok(arb_trainer_digest(r.t, after));
  assert_string_equal(before, after);
  close_rig(&r);
}

int main(int argc, char **argv) {
  if (argc < 2) return 1;
  ini = argv[1];
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits), cmocka_unit_test(test_forward_leaves_everything),
                                     cmocka_unit_test(test_backward_stops_what_follows),
                                     cmocka_unit_test(test_ordinary_backward)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
