/* Readers that crash, loop, eat memory or leave: the file is refused and the caller lives. */
#define _DEFAULT_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/test.h"
#include "tools/checkpoint/guard.h"

static arb_status run(arb_status (*work)(FILE *, void *, void *), void *result, size_t bytes) {
  arb_guard g = {.work = work, .path = "DIR/state.h5", .bytes = 1000, .result = result, .result_bytes = bytes};
  return arb_guard_run(&g);
}

static arb_status good(FILE *out, void *arg, void *result) {
  (void)out, (void)arg;
  *(int *)result = 42;
  return ARB_OK;
}
static arb_status failing(FILE *out, void *arg, void *result) {
  (void)arg;
  *(int *)result = 42;
  fputs("half of an answer\n", out);
  return ARB_FAIL(ARB_ERR_CHECKPOINT, "it is \x1b[31mbad\x07");
}
static arb_status configuration(FILE *out, void *arg, void *result) {
  (void)out, (void)arg, (void)result;
  return ARB_FAIL(ARB_ERR_CONFIG, "no such tensor");
}
static arb_status crashing(FILE *out, void *arg, void *result) {
  (void)arg, (void)result;
  fputs("half of an answer\n", out);
  signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would make an exit code of it */
  raise(SIGSEGV);
  return ARB_OK;
}
static arb_status aborting(FILE *out, void *arg, void *result) {
  (void)out, (void)arg, (void)result;
  signal(SIGABRT, SIG_DFL);
  abort();
}
static arb_status leaving(FILE *out, void *arg, void *result) {
  (void)out, (void)arg, (void)result;
  _exit(0);
}
static arb_status leaving_with_code(FILE *out, void *arg, void *result) {
  (void)out, (void)arg, (void)result;
  _exit(7);
}
static arb_status looping(FILE *out, void *arg, void *result) {
  (void)out, (void)arg, (void)result;
  for (volatile unsigned x = 1; x != 0; x |= 1) continue;
  return ARB_OK;
}
static arb_status hungry(FILE *out, void *arg, void *result) {
  (void)out, (void)arg, (void)result;
  for (int i = 0; i < 4096; i++) {
    volatile char *block = malloc((size_t)1 << 20);
    if (block == NULL) return ARB_FAIL(ARB_ERR_NOMEM, "no memory for a list");
    block[0] = 1;
  }
  return ARB_OK;
}
static arb_status without_core(FILE *out, void *arg, void *result) {
  (void)out, (void)arg;
  struct rlimit r;
  *(int *)result = getrlimit(RLIMIT_CORE, &r) == 0 && r.rlim_cur == 0 ? 1 : 0;
  return ARB_OK;
}

static void results(void **test) {
  (void)test;
  int result = 0;
  struct rlimit core;
  assert_int_equal(getrlimit(RLIMIT_CORE, &core), 0);
  core.rlim_cur = core.rlim_max; /* where that is 0 too, the second part below cannot fail */
  assert_int_equal(setrlimit(RLIMIT_CORE, &core), 0);
  arb_assert_ok(run(good, &result, sizeof result));
  assert_int_equal(result, 42);
  arb_assert_ok(run(without_core, &result, sizeof result));
  assert_int_equal(result, 1);
}

static void failures(void **test) {
  (void)test;
  int result = 0;
  arb_assert_fails(run(failing, &result, sizeof result), ARB_ERR_CHECKPOINT, "it is ?[31mbad?");
  assert_int_equal(result, 0);
  arb_assert_fails(run(configuration, NULL, 0), ARB_ERR_CONFIG, "no such tensor");
}

static void crashes(void **test) {
  (void)test;
  arb_assert_fails(run(crashing, NULL, 0), ARB_ERR_CHECKPOINT, "DIR/state.h5: refused: its reader crashed (signal 11");
  arb_assert_fails(run(aborting, NULL, 0), ARB_ERR_CHECKPOINT, "DIR/state.h5: refused: its reader crashed (signal 6");
  arb_assert_fails(run(leaving, NULL, 0), ARB_ERR_CHECKPOINT, "refused: its reader ended early with code 0");
  arb_assert_fails(run(leaving_with_code, NULL, 0), ARB_ERR_CHECKPOINT, "refused: its reader ended early with code 7");
}

static void limits(void **test) {
  (void)test;
  arb_guard g = {.work = looping, .path = "DIR/state.h5", .seconds = 1};
  arb_assert_fails(arb_guard_run(&g), ARB_ERR_CHECKPOINT, "refused: its reader needed more than 1 s of processor time");
#if !defined(__SANITIZE_ADDRESS__) && !defined(ARB_TEST_SANITIZED)
  arb_guard h = {.work = hungry, .path = "DIR/state.h5", .memory_bytes = (uint64_t)256 << 20};
  arb_assert_fails(arb_guard_run(&h), ARB_ERR_CHECKPOINT,
                   "refused: its reader needed more than 256 MiB (no memory for a list)");
  /* From the size of the file: 512 MiB and a little more. */
  h.memory_bytes = 0, h.bytes = 1000;
  arb_assert_fails(arb_guard_run(&h), ARB_ERR_CHECKPOINT, "needed more than 512 MiB");
#else
  (void)hungry;
  print_message("SKIPPED: a reader that eats memory: sanitizers need all of the address space\n");
#endif
}

/* What a work prints comes out once and whole, or not at all. */
static void output(void **test) {
  (void)test;
  char name[] = "/tmp/arb-guard-XXXXXX", text[200] = "";
  const int file = mkstemp(name), old = dup(1);
  assert_true(file >= 0 && old >= 0);
  fflush(stdout);
  dup2(file, 1);
  fputs("before ", stdout);
  arb_status st[2] = {run(failing, text, sizeof(int)), ARB_OK};
  arb_fail_clear();
  st[1] = run(crashing, NULL, 0);
  arb_fail_clear();
  fputs("after\n", stdout);
  fflush(stdout);
  dup2(old, 1);
  close(old);
  assert_int_equal(st[0], ARB_ERR_CHECKPOINT);
  assert_int_equal(st[1], ARB_ERR_CHECKPOINT);
  assert_true(pread(file, text, sizeof text - 1, 0) > 0);
  assert_string_equal(text, "before after\n");
  close(file);
  unlink(name);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(results), cmocka_unit_test(failures), cmocka_unit_test(crashes),
      cmocka_unit_test(limits),  cmocka_unit_test(output),
  };
  return cmocka_run_group_tests_name("arbckpt_guard", tests, NULL, NULL);
}
