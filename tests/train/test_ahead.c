/* A whole run whose steps are begun ahead, as on a GPU: evaluations, saves, samples, a stop request and a refused step fall
 * where they fall without, and give the same bits. One and two ranks, over loopback. argv[1]: tiny.ini. */
#include <stdlib.h>
#include <string.h>

#include "dist/loopback/loopback.h"
#include "src/train/trainer.h"
#include "tests/forge.h"
#include "tests/test.h"

enum { LINES = 64, WIDTH = 800 };
typedef enum { CALM, STOP, INFINITE } event; /* in the last rank's pass of step 6 */

static const char *ini;

typedef struct {
  arb_config cfg;
  int ahead;
  event what;
  arb_status status;       /* of the run, equal on all ranks */
  char line[LINES][WIDTH]; /* of metrics.jsonl, without times */
  char sample[2][WIDTH], digest[64], message[WIDTH];
  int lines, samples;
} course;

static _Thread_local arb_ops real;
static _Thread_local volatile sig_atomic_t stop;
static _Thread_local event trouble;

static arb_status forward(arb_backend *be, const arb_rows *r, const int8_t *q, const float *s, const arb_stack *w,
                          uint16_t *y) {
  ARB_TRY(real.linear_forward(be, r, q, s, w, y));
  if (be->step == 6 && trouble == STOP) stop = 1;
  if (be->step == 6 && trouble == INFINITE) y[0] = 0x7f80;
  return ARB_OK;
}

/* Samples and the last digest. */
static void read_console(course *c, char *text) {
  char *save = NULL;
  for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    if (strncmp(line, "digest ", 7) == 0) snprintf(c->digest, sizeof c->digest, "%s", line);
    if (strncmp(line, "--- sample", 10) == 0 && c->samples < 2) snprintf(c->sample[c->samples++], WIDTH, "%s|%s", line, save);
  }
  for (int i = 0; i < c->samples; i++) c->sample[i][strcspn(c->sample[i], "\n")] = '\0';
}

static arb_status read_metrics(course *c) {
  char path[400], line[WIDTH];
  arb_trainer_path(&c->cfg, "metrics.jsonl", path, sizeof path);
  FILE *in = fopen(path, "r");
  ARB_REQUIRE(in, ARB_ERR_IO, "%s is not there", path);
  for (c->lines = 0; c->lines < LINES && fgets(line, sizeof line, in); c->lines++) {
    char *times = strstr(line, "\"bytes_per_s\""), *rest = strstr(line, "\"flip_rate\"");
    if (times && rest) snprintf(c->line[c->lines], WIDTH, "%.*s%s", (int)(times - line), line, rest);
  }
  fclose(in);
  return ARB_OK;
}

static arb_status one_rank(arb_comm *comm, void *arg) {
  course *c = arg;
  arb_backend *be = NULL;
  arb_trainer *t = NULL;
  char *text = NULL;
  size_t size = 0;
  FILE *out = comm->rank == 0 ? open_memstream(&text, &size) : NULL;
  ARB_TRY(arb_comm_agree(comm, arb_backend_cpu_create(1, "auto", &be)));
  ARB_TRY(arb_trainer_create(&c->cfg, be, comm, NULL, ARB_TRAINER_TRAIN | ARB_TRAINER_VALID, &t));
  real = be->ops;
  stop = 0;
  trouble = comm->rank == comm->size - 1 ? c->what : CALM;
  be->ops.linear_forward = forward;
  t->ahead = c->ahead;
  t->stop = &stop;
  const arb_status st = arb_trainer_run(t, out);
  if (comm->rank == 0) {
    c->status = st;
    snprintf(c->message, sizeof c->message, "%s", arb_fail_message());
    if (out) fclose(out);
    read_console(c, text);
    free(text);
  }
  arb_fail_clear();
  arb_trainer_destroy(&t);
  arb_backend_destroy(&be);
  return comm->rank == 0 ? read_metrics(c) : ARB_OK;
}

static void run(course *c, const char *folder, const char *name, int ranks, int ahead, event what, int resume) {
  char dir[200], id[80], again[40];
  snprintf(dir, sizeof dir, "run.dir=%s", folder);
  snprintf(id, sizeof id, "run.name=%s", name);
  snprintf(again, sizeof again, "checkpoint.resume=%s", resume ? "yes" : "no");
  const char *overrides[] = {dir,
                             id,
                             again,
                             "train.steps=13",
                             "train.warmup=2",
                             "eval.every=5",
                             "eval.sequences=8",
                             "sample.every=7",
                             "sample.length=24",
                             "checkpoint.every=4",
                             "run.grains_at_once=8"};
  memset(c, 0, sizeof *c);
  arb_assert_ok(arb_config_load(&c->cfg, ini, overrides, (int)(sizeof overrides / sizeof *overrides)));
  memcpy(c->cfg.data.train, c->cfg.data.valid, sizeof c->cfg.data.train); /* shorter, so sooner loaded */
  c->ahead = ahead;
  c->what = what;
  arb_assert_ok(arb_loopback_run(ranks, one_rank, c));
}

static void same(const course *a, const course *b) {
  assert_int_equal(a->status, b->status);
  assert_string_equal(a->message, b->message);
  assert_string_equal(a->digest, b->digest);
  assert_int_equal(a->samples, b->samples);
  for (int i = 0; i < a->samples; i++) assert_string_equal(a->sample[i], b->sample[i]);
  assert_int_equal(a->lines, b->lines);
  for (int i = 0; i < a->lines; i++) assert_string_equal(a->line[i], b->line[i]);
}

static void test_runs(void **state) {
  static course plain, ahead;
  for (int ranks = 1; ranks <= 2; ranks++) {
    run(&plain, *state, "plain", ranks, 0, CALM, 0);
    assert_int_equal(plain.status, ARB_OK);
    assert_int_equal(plain.lines, 13);
    assert_int_equal(plain.samples, 2);
    run(&ahead, *state, "ahead", ranks, 1, CALM, 0);
    same(&plain, &ahead);
  }
}

/* The same step ends the run, and the next one takes it on from there: the digest is that of a run which nobody disturbed. */
static void test_ends(void **state) {
  static course calm, plain, ahead;
  run(&calm, *state, "calm", 2, 0, CALM, 0);
  for (event what = STOP; what <= INFINITE; what++) {
    run(&plain, *state, "plain", 2, 0, what, 0);
    run(&ahead, *state, "ahead", 2, 1, what, 0);
    same(&plain, &ahead);
    assert_int_equal(ahead.status, what == STOP ? ARB_REQUEUE : ARB_ERR_NUMERIC);
    assert_int_equal(ahead.lines, what == STOP ? 6 : 5);
    if (what == INFINITE) assert_non_null(strstr(ahead.message, "step 6: a value is not finite; the step was refused"));
    run(&ahead, *state, "ahead", 2, 1, CALM, 1);
    assert_int_equal(ahead.status, ARB_OK);
    assert_string_equal(ahead.digest, calm.digest);
  }
}

int main(int argc, char **argv) {
  if (argc < 2) return 1;
  ini = argv[1];
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_runs), cmocka_unit_test(test_ends)};
  return cmocka_run_group_tests_name("ahead", tests, folder_setup, folder_teardown);
}
