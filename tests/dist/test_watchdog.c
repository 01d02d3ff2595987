#include "dist/watchdog.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "dist/loopback/loopback.h"
#include "dist/single/single.h"
#include "tests/test.h"

/* What the watchdogs of a run said, in the order in which they spoke. */
typedef struct {
  pthread_mutex_t lock;
  int reports;
  char text[16][ARB_WATCHDOG_TEXT];
} journal;

typedef struct {
  journal said;
  double timeout_s, sleep_s;
  int sleeper; /* the rank that comes late to the last collective */
} scene;

static void note(void *arg, const char *text) {
  journal *j = arg;
  pthread_mutex_lock(&j->lock);
  if (j->reports < 16) snprintf(j->text[j->reports], sizeof j->text[0], "%s", text);
  j->reports++;
  pthread_mutex_unlock(&j->lock);
}

static void doze(double s) {
  struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
  nanosleep(&t, NULL);
}

static arb_status late(arb_comm *c, void *arg) {
  scene *s = arg;
  int8_t votes[5] = {1, 2, 3, 4, 5};
  uint8_t trits[2] = {0}, all[16];
  arb_watchdog *dog = NULL;
  arb_status st;
  ARB_TRY_OUT(st, arb_watchdog_create(s->timeout_s, note, &s->said, &dog));
  ARB_TRY_OUT(st, arb_watchdog_attach(dog, c));
  ARB_TRY_OUT(st, arb_comm_barrier(c));
  ARB_TRY_OUT(st, arb_comm_all_gather(c, trits, all, 2, ARB_U8, ARB_TRAFFIC_TRITS));
  if (c->rank == s->sleeper) doze(s->sleep_s);
  ARB_TRY_OUT(st, arb_comm_all_reduce(c, votes, 5, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES));
out:
  arb_watchdog_destroy(&dog);
  return st;
}

static void the_sleeping_rank_is_named(void **state) {
  (void)state;
  scene s = {.said = {.lock = PTHREAD_MUTEX_INITIALIZER}, .timeout_s = 1.0, .sleep_s = 3.0, .sleeper = 2};
  arb_assert_ok(arb_loopback_run(4, late, &s));
  assert_int_equal(s.said.reports, 3); /* each waiting rank once, the sleeper itself never */
  for (int i = 0; i < 3; i++) {
    const char *t = s.said.text[i];
    static const char *const parts[] = {"of 4 has been in all_reduce #3 (votes, 5 x i8, loopback) for ",
                                        "rank 2 has not entered all_reduce #3 (votes)", "leaving #2 (all_gather, trits)",
                                        "#1 barrier control"};
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++)
      if (strstr(t, parts[p]) == NULL) fail_msg("'%s' lacks '%s'", t, parts[p]);
    const char *named = strstr(t, "has not entered");
    assert_null(strstr(named + 1, "has not entered")); /* nobody else is blamed */
  }
}

static void a_short_wait_is_no_report(void **state) {
  (void)state;
  scene s = {.said = {.lock = PTHREAD_MUTEX_INITIALIZER}, .timeout_s = 30.0, .sleep_s = 0.1, .sleeper = 0};
  arb_assert_ok(arb_loopback_run(3, late, &s));
  assert_int_equal(s.said.reports, 0);
}

/* Time between collectives does not count, however long. */
static arb_status busy(arb_comm *c, void *arg) {
  scene *s = arg;
  arb_watchdog *dog = NULL;
  arb_status st;
  ARB_TRY_OUT(st, arb_watchdog_create(s->timeout_s, note, &s->said, &dog));
  ARB_TRY_OUT(st, arb_watchdog_attach(dog, c));
  for (int i = 0; i < 3; i++) {
    ARB_TRY_OUT(st, arb_comm_barrier(c));
    doze(s->sleep_s);
  }
out:
  arb_watchdog_destroy(&dog);
  return st;
}

static void computing_is_no_report(void **state) {
  (void)state;
  scene s = {.said = {.lock = PTHREAD_MUTEX_INITIALIZER}, .timeout_s = 0.3, .sleep_s = 0.5};
  arb_assert_ok(arb_loopback_run(1, busy, &s));
  assert_int_equal(s.said.reports, 0);
}

/* Many collectives while the thread looks very often: for TSan. */
static arb_status hurried(arb_comm *c, void *arg) {
  arb_watchdog *dog = NULL;
  arb_status st;
  ARB_TRY_OUT(st, arb_watchdog_create(0.001, note, arg, &dog));
  ARB_TRY_OUT(st, arb_watchdog_attach(dog, c));
  for (int i = 0; i < 2000; i++) ARB_TRY_OUT(st, arb_comm_barrier(c));
out:
  arb_watchdog_destroy(&dog);
  return st;
}

static void reports_race_with_nothing(void **state) {
  (void)state;
  journal j = {.lock = PTHREAD_MUTEX_INITIALIZER};
  arb_assert_ok(arb_loopback_run(4, hurried, &j)); /* reports may come or not: the timeout is a millisecond */
}

static void handles_come_apart_in_any_order(void **state) {
  (void)state;
  journal j = {.lock = PTHREAD_MUTEX_INITIALIZER};
  arb_watchdog *dog = NULL;
  arb_comm *c[ARB_WATCHDOG_COMMS + 1] = {NULL};
  arb_assert_ok(arb_watchdog_create(5.0, note, &j, &dog));
  for (int i = 0; i <= ARB_WATCHDOG_COMMS; i++) arb_assert_ok(arb_comm_single_create(&c[i]));
  for (int i = 0; i < ARB_WATCHDOG_COMMS; i++) arb_assert_ok(arb_watchdog_attach(dog, c[i]));
  arb_assert_fails(arb_watchdog_attach(dog, c[0]), ARB_ERR_ARG, "watched already");
  arb_assert_fails(arb_watchdog_attach(dog, c[ARB_WATCHDOG_COMMS]), ARB_ERR_ARG, "more than 16");
  arb_watchdog_detach(dog, c[3]);
  assert_true(c[3]->hook.begin == NULL);
  arb_assert_ok(arb_watchdog_attach(dog, c[ARB_WATCHDOG_COMMS]));
  arb_assert_ok(arb_comm_barrier(c[3]));
  for (int i = 0; i < 8; i++) arb_comm_destroy(&c[i]); /* before the watchdog */
  arb_watchdog_destroy(&dog);
  arb_watchdog_destroy(&dog);
  for (int i = 8; i <= ARB_WATCHDOG_COMMS; i++) { /* after it */
    arb_assert_ok(arb_comm_barrier(c[i]));
    arb_comm_destroy(&c[i]);
  }
  arb_assert_fails(arb_watchdog_create(0.0, note, &j, &dog), ARB_ERR_ARG, "timeout of 0 s");
  arb_assert_fails(arb_watchdog_create(1.0, NULL, &j, &dog), ARB_ERR_ARG, "watchdog");
}

static void a_description_fits_its_buffer(void **state) {
  (void)state;
  arb_comm *c = NULL;
  char text[ARB_WATCHDOG_TEXT];
  arb_assert_ok(arb_comm_single_create(&c));
  arb_watchdog_describe(c, 1.0, text, sizeof text);
  assert_string_equal(text, "rank 0 has entered no collective");
  for (int i = 0; i < 40; i++) arb_assert_ok(arb_comm_barrier(c));
  const size_t whole = arb_watchdog_describe(c, 1.0, text, sizeof text);
  assert_int_equal(whole, strlen(text));
  for (size_t n = 0; n <= whole + 1; n++) {
    char small[ARB_WATCHDOG_TEXT];
    memset(small, '#', sizeof small);
    const size_t used = arb_watchdog_describe(c, 1.0, small, n);
    assert_int_equal(used, n == 0 ? 0 : n - 1 < whole ? n - 1 : whole);
    if (n > 0) assert_int_equal(small[used], '\0');
    assert_memory_equal(small, text, used);
    assert_int_equal(small[n], '#');
  }
  arb_comm_destroy(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_sleeping_rank_is_named),      cmocka_unit_test(a_short_wait_is_no_report),
      cmocka_unit_test(computing_is_no_report),          cmocka_unit_test(reports_race_with_nothing),
      cmocka_unit_test(handles_come_apart_in_any_order), cmocka_unit_test(a_description_fits_its_buffer),
  };
  return cmocka_run_group_tests_name("watchdog", tests, NULL, NULL);
}
