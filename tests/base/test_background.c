/* A thread's jobs: their order, their status and message, waiting, and an end while one runs. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "src/base/background.h"
#include "tests/test.h"

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static arb_status add(void *arg) {
  ++*(int *)arg;
  return ARB_OK;
}
static arb_status blocked(void *arg) {
  pthread_mutex_lock(&gate);
  ++*(int *)arg;
  pthread_mutex_unlock(&gate);
  return ARB_OK;
}
static arb_status failing(void *arg) { return ARB_FAIL(ARB_ERR_CHECKPOINT, "number %d", *(int *)arg); }

static void jobs(void **test) {
  (void)test;
  arb_background *b;
  int n = 0;
  arb_assert_ok(arb_background_create(&b));
  assert_true(arb_background_wait(b, 0));
  arb_assert_ok(arb_background_take(b));
  for (int i = 1; i <= 100; i++) {
    arb_background_start(b, add, &n);
    while (!arb_background_wait(b, 10)) continue;
    arb_assert_ok(arb_background_take(b));
    assert_int_equal(n, i);
  }
  arb_background_start(b, failing, &n);
  while (!arb_background_wait(b, 10)) continue;
  arb_assert_fails(arb_background_take(b), ARB_ERR_CHECKPOINT, "number 100");
  arb_background_start(b, add, &n);
  while (!arb_background_wait(b, 10)) continue;
  arb_assert_ok(arb_background_take(b)); /* the failure before is forgotten */
  arb_background_destroy(&b);
  assert_null(b);
  arb_background_destroy(&b);
}

static void waiting(void **test) {
  (void)test;
  arb_background *b;
  struct timespec before, after;
  int n = 0;
  arb_assert_ok(arb_background_create(&b));
  pthread_mutex_lock(&gate);
  arb_background_start(b, blocked, &n);
  assert_false(arb_background_wait(b, 0));
  clock_gettime(CLOCK_MONOTONIC, &before);
  assert_false(arb_background_wait(b, 0.05));
  clock_gettime(CLOCK_MONOTONIC, &after);
  assert_true((double)(after.tv_sec - before.tv_sec) + 1e-9 * (double)(after.tv_nsec - before.tv_nsec) >= 0.049);
  pthread_mutex_unlock(&gate);
  while (!arb_background_wait(b, 10)) continue;
  assert_int_equal(n, 1);
  arb_background_start(b, blocked, &n);
  arb_background_destroy(&b); /* waits for it */
  assert_int_equal(n, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(jobs), cmocka_unit_test(waiting)};
  return cmocka_run_group_tests_name("background", tests, NULL, NULL);
}
