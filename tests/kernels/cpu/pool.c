/* The pool hands out every task once, publishes writes both ways and survives many small calls. */
#include "tests/test.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "kernels/cpu/pool.h"

#define MOST 1000

typedef struct {
  int threads, tasks;
  int done[MOST];    /* plain writes: each by the one worker that has the task */
  long long sum[64]; /* by worker */
  int input;         /* written by the caller before each call */
  atomic_int bad;
} record;

static void mark(void *arg, int task, int worker) {
  record *r = arg;
  if (task < 0 || task >= r->tasks || worker < 0 || worker >= r->threads) {
    atomic_fetch_add(&r->bad, 1);
    return;
  }
  r->done[task]++;
  r->sum[worker] += task + r->input;
}

static void run_many(int threads, int calls, int most_tasks) {
  arb_pool *pool = NULL;
  arb_assert_ok(arb_pool_create(threads, &pool));
  assert_int_equal(arb_pool_threads(pool), threads);
  record *r = calloc(1, sizeof *r);
  assert_non_null(r);
  r->threads = threads;
  long long want = 0;
  int expected[MOST] = {0};
  for (int call = 0; call < calls; call++) {
    r->tasks = call * 7 % (most_tasks + 1);
    r->input = call;
    arb_pool_run(pool, mark, r, r->tasks);
    for (int t = 0; t < r->tasks; t++) {
      expected[t]++;
      want += t + call;
    }
    if (memcmp(expected, r->done, sizeof expected) != 0)
      fail_msg("%d threads, call %d: a task ran twice or never", threads, call);
  }
  long long sum = 0;
  for (int w = 0; w < threads; w++) sum += r->sum[w];
  assert_true(sum == want);
  assert_int_equal(atomic_load(&r->bad), 0);
  free(r);
  arb_pool_destroy(&pool);
  assert_null(pool);
  arb_pool_destroy(&pool);
}

static void every_task_once(void **test) {
  (void)test;
  for (int threads = 1; threads <= 9; threads++) run_many(threads, 400, 100);
  run_many(3, 30, MOST);
  run_many(64, 20, 200);
}

static void many_small_calls(void **test) {
  (void)test;
  run_many(2, 20000, 4);
  run_many(4, 3000, 3);
}

/* Idle workers sleep in between, so that wake-ups are met as well as spinning. */
static void rest(void *arg, int task, int worker) {
  (void)task, (void)worker;
  const struct timespec t = {0, 200000};
  nanosleep(&t, NULL);
  atomic_fetch_add((atomic_int *)arg, 1);
}
static void sleeping_workers(void **test) {
  (void)test;
  arb_pool *pool = NULL;
  arb_assert_ok(arb_pool_create(4, &pool));
  atomic_int count = 0;
  for (int i = 0; i < 60; i++) {
    const struct timespec t = {0, i % 5 * 100000};
    arb_pool_run(pool, rest, &count, i % 7);
    nanosleep(&t, NULL);
  }
  int want = 0;
  for (int i = 0; i < 60; i++) want += i % 7;
  assert_int_equal(atomic_load(&count), want);
  arb_pool_destroy(&pool);
}

/* Pools are independent: several owners on fewer cores. */
static void *owner(void *arg) {
  (void)arg;
  arb_pool *pool = NULL;
  if (arb_pool_create(2, &pool) != ARB_OK) return NULL;
  record *r = calloc(1, sizeof *r);
  if (r == NULL) return NULL;
  r->threads = 2;
  r->tasks = 16;
  for (int i = 0; i < 500; i++) arb_pool_run(pool, mark, r, r->tasks);
  int ok = 1;
  for (int t = 0; t < 16; t++) ok &= r->done[t] == 500;
  free(r);
  arb_pool_destroy(&pool);
  return ok ? arg : NULL;
}
static void several_pools(void **test) {
  (void)test;
  pthread_t threads[4];
  int tag = 0;
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, owner, &tag), 0);
  for (int i = 0; i < 4; i++) {
    void *result = NULL;
    pthread_join(threads[i], &result);
    assert_ptr_equal(result, &tag);
  }
}

/* Workers compute with the default floating-point modes whatever their creator's are. */
#if defined(__SSE__)
static void read_modes(void *arg, int task, int worker) {
  (void)task;
  const struct timespec t = {0, 100000};
  nanosleep(&t, NULL); /* so that no thread takes all tasks */
  ((unsigned *)arg)[worker] = _mm_getcsr() & ~0x3fu;
}
static void default_modes(void **test) {
  (void)test;
  const unsigned old = _mm_getcsr();
  _mm_setcsr(old | 0x8040); /* flush to zero, subnormals are zero: what a fast-math library leaves behind */
  arb_pool *pool = NULL;
  const arb_status st = arb_pool_create(3, &pool);
  _mm_setcsr(old);
  arb_assert_ok(st);
  unsigned modes[3] = {0x1f80, 0x1f80, 0x1f80};
  for (int i = 0; i < 20; i++) arb_pool_run(pool, read_modes, modes, 6);
  for (int i = 1; i < 3; i++) assert_int_equal(modes[i], 0x1f80);
  arb_pool_destroy(&pool);
}
#endif

static void bad_arguments(void **test) {
  (void)test;
  arb_pool *pool = NULL;
  arb_assert_fails(arb_pool_create(0, &pool), ARB_ERR_ARG, "threads");
  assert_null(pool);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_task_once),
    cmocka_unit_test(many_small_calls),
    cmocka_unit_test(sleeping_workers),
    cmocka_unit_test(several_pools),
    cmocka_unit_test(bad_arguments),
#if defined(__SSE__)
    cmocka_unit_test(default_modes),
#endif
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
