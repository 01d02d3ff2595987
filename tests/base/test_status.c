/* Status: the first message of a thread stays, context goes in front, long texts are cut and never overrun. */
#include "src/base/status.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/test.h"

static arb_status fail_first(int value) {
  ARB_REQUIRE(value < 10, ARB_ERR_DATA, "value %d, at most 9 expected", value);
  return ARB_OK;
}

static arb_status pass_up(int value) {
  ARB_TRY(fail_first(value));
  return ARB_OK;
}

static arb_status pass_out(int value, int *cleaned) {
  arb_status st = ARB_OK;
  ARB_TRY_OUT(st, pass_up(value));
  ARB_TRY_OUT(st, pass_up(value + 1));
out:
  ++*cleaned;
  return st;
}

static void test_first_wins(void **state) {
  (void)state;
  arb_fail_clear();
  assert_string_equal(arb_fail_message(), "");
  assert_string_equal(arb_fail_place(), "");
  assert_int_equal(pass_up(3), ARB_OK);
  assert_string_equal(arb_fail_message(), "");
  assert_int_equal(pass_up(12), ARB_ERR_DATA);
  assert_string_equal(arb_fail_message(), "value 12, at most 9 expected");
  assert_non_null(strstr(arb_fail_place(), "test_status.c:"));
  char place[256];
  snprintf(place, sizeof place, "%s", arb_fail_place());
  /* A later failure keeps its own code, but neither message nor place. */
  assert_int_equal(ARB_FAIL(ARB_ERR_IO, "the disk is gone"), ARB_ERR_IO);
  assert_string_equal(arb_fail_message(), "value 12, at most 9 expected");
  assert_string_equal(arb_fail_place(), place);
  arb_fail_clear();
  assert_int_equal(ARB_FAIL(ARB_ERR_IO, "the disk is gone"), ARB_ERR_IO);
  assert_string_equal(arb_fail_message(), "the disk is gone");
  arb_fail_clear();
}

static void test_macros(void **state) {
  (void)state;
  int cleaned = 0;
  arb_fail_clear();
  assert_int_equal(pass_out(3, &cleaned), ARB_OK);
  assert_int_equal(pass_out(9, &cleaned), ARB_ERR_DATA); /* the second call fails */
  assert_string_equal(arb_fail_message(), "value 10, at most 9 expected");
  arb_fail_clear();
  assert_int_equal(pass_out(11, &cleaned), ARB_ERR_DATA); /* the first one does */
  assert_string_equal(arb_fail_message(), "value 11, at most 9 expected");
  assert_int_equal(cleaned, 3);
  arb_fail_clear();
}

static void test_context(void **state) {
  (void)state;
  arb_fail_clear();
  (void)ARB_FAIL(ARB_ERR_DATA, "%s", "100% wrong %d");
  arb_fail_context("file %s", "a.txt");
  arb_fail_context("run %d", 7);
  assert_string_equal(arb_fail_message(), "run 7: file a.txt: 100% wrong %d");
  arb_fail_clear();
}

/* Letters that change with the position show which end of a text was kept. */
static void letters(char *text, int length) {
  for (int i = 0; i < length; i++) text[i] = (char)('a' + i % 23);
  text[length] = '\0';
}

static void test_long(void **state) {
  (void)state;
  static char text[8001];
  for (int length = 1500; length <= 8000; length = length < 2100 ? length + 1 : length + 777) {
    letters(text, length);
    arb_fail_clear();
    (void)ARB_FAIL(ARB_ERR_DATA, "%s", text);
    const size_t kept = strlen(arb_fail_message());
    assert_int_equal(kept, length < 2047 ? length : 2047);
    assert_memory_equal(arb_fail_message(), text, kept);
    arb_fail_context("%s", "front");
    const size_t both = strlen(arb_fail_message());
    assert_int_equal(both, kept + 7 < 2047 ? kept + 7 : 2047);
    assert_memory_equal(arb_fail_message(), "front: ", 7);
    assert_memory_equal(arb_fail_message() + 7, text, both - 7);
  }
  /* A long context is cut, and the message after it is still there; many of them never overrun. */
  letters(text, 8000);
  arb_fail_clear();
  (void)ARB_FAIL(ARB_ERR_DATA, "short");
  arb_fail_context("%s", text);
  const size_t length = strlen(arb_fail_message());
  assert_int_equal(length, 511 + 2 + 5);
  assert_memory_equal(arb_fail_message(), text, 511);
  assert_string_equal(arb_fail_message() + 511, ": short");
  for (int i = 0; i < 20; i++) arb_fail_context("%s", text);
  assert_int_equal(strlen(arb_fail_message()), 2047);
  arb_fail_clear();
  assert_string_equal(arb_fail_message(), "");
}

static void *fail_elsewhere(void *arg) {
  (void)arb_fail(ARB_ERR_COMM, "other.c", 12, "of the other thread");
  *(int *)arg = strcmp(arb_fail_message(), "of the other thread") == 0 && strcmp(arb_fail_place(), "other.c:12") == 0;
  return NULL;
}

static void test_threads(void **state) {
  (void)state;
  pthread_t thread;
  int own = 0;
  arb_fail_clear();
  (void)ARB_FAIL(ARB_ERR_DATA, "of this thread");
  assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &own), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_true(own);
  assert_string_equal(arb_fail_message(), "of this thread");
  arb_fail_clear();
}

static void test_names(void **state) {
  (void)state;
  assert_string_equal(arb_status_name(ARB_OK), "ok");
  assert_string_equal(arb_status_name(ARB_ERR_NUMERIC), "numeric");
  assert_string_equal(arb_status_name(ARB_REQUEUE), "requeue");
  for (int i = 0; i < ARB_STATUS__COUNT; i++) {
    assert_non_null(arb_status_name((arb_status)i));
    for (int j = 0; j < i; j++) assert_string_not_equal(arb_status_name((arb_status)i), arb_status_name((arb_status)j));
  }
  assert_string_equal(arb_status_name(ARB_STATUS__COUNT), "unknown");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_first_wins), cmocka_unit_test(test_macros),  cmocka_unit_test(test_context),
      cmocka_unit_test(test_long),       cmocka_unit_test(test_threads), cmocka_unit_test(test_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
