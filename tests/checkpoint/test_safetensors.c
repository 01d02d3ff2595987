/* The safetensors writer: the exact bytes of a small file, lists that it refuses, and failures that leave nothing behind. */
#define _DEFAULT_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/safetensors/safetensors.h"
#include "tests/checkpoint/state.h"
#include "tests/test.h"

static const char *at(const char *dir, const char *name) {
  static char path[1200];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return path;
}

static void exact_bytes(void **test) {
  static const int32_t wide[2] = {1, -2};
  static const int8_t narrow[3] = {-1, 0, 1};
  const arb_st_tensor tensors[] = {{"w", ARB_I32, 1, {2}}, {"t", ARB_I8, 2, {3, 1}}, {"none", ARB_U8, 2, {0, 7}}};
  const arb_st_note notes[] = {{"scale", "2^(E/8) \"x\""}};
  static const char header[] =
      "{\"__metadata__\":{\"scale\":\"2^(E/8) \\\"x\\\"\"},"
      "\"w\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]},"
      "\"t\":{\"dtype\":\"I8\",\"shape\":[3,1],\"data_offsets\":[8,11]},"
      "\"none\":{\"dtype\":\"U8\",\"shape\":[0,7],\"data_offsets\":[11,11]}}";
  arb_st_writer *w;
  long size;
  arb_assert_ok(arb_st_create(at(*test, "x"), tensors, 3, notes, 1, &w));
  assert_false(exists(at(*test, "x")));
  arb_assert_ok(arb_st_put(w, wide, 3)); /* any portions */
  arb_assert_ok(arb_st_put(w, (const char *)wide + 3, 5));
  arb_assert_ok(arb_st_put(w, narrow, 3));
  arb_assert_ok(arb_st_finish(&w));
  assert_null(w);
  assert_int_equal(entries_with(*test, ""), 1);
  unsigned char *bytes = slurp(at(*test, "x"), &size);
  const size_t padded = (sizeof header - 1 + 7) / 8 * 8;
  assert_int_equal(size, 8 + padded + 11);
  assert_true(bytes[0] == (padded & 255) && bytes[1] == padded >> 8);
  for (int i = 2; i < 8; i++) assert_int_equal(bytes[i], 0);
  assert_memory_equal(bytes + 8, header, sizeof header - 1);
  for (size_t i = sizeof header - 1; i < padded; i++) assert_int_equal(bytes[8 + i], ' ');
  assert_memory_equal(bytes + 8 + padded, "\1\0\0\0\376\377\377\377\377\0\1", 11);
  free(bytes);
}

static void refused(void **test) {
  const arb_st_note twice[] = {{"a", "1"}, {"a", "2"}};
  static const struct {
    arb_st_tensor tensors[2];
    const char *message;
  } cases[] = {{{{"x", ARB_I8, 1, {1}}, {"x", ARB_I8, 1, {1}}}, "'x' twice"},
               {{{"x", ARB_I8, 1, {1}}, {"", ARB_I8, 1, {1}}}, "without a name"},
               {{{"x", ARB_I8, 1, {1}}, {"__metadata__", ARB_I8, 1, {1}}}, "'__metadata__' twice"},
               {{{"x", ARB_I8, 1, {1}}, {"y", ARB_I32, 1, {1}}}, "y begins at 1, not aligned"},
               {{{"x", ARB_I8, 1, {1}}, {"y", ARB_I8, 1, {-1}}}, "shape of y"},
               {{{"x", ARB_I8, 1, {1}}, {"y", ARB_I8, 5, {1}}}, "shape of y"},
               {{{"x", ARB_I8, 1, {1}}, {"y", ARB_I8, 2, {(int64_t)1 << 40, (int64_t)1 << 40}}}, "shape of y"},
               {{{"x", ARB_I8, 1, {1}}, {"y", ARB_I8, 1, {INT64_MAX}}}, "shape of y"},
               {{{"x", ARB_I8, 1, {1}}, {"t\xe4", ARB_I8, 1, {1}}}, "not UTF-8"}};
  arb_st_writer *w;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arb_assert_fails(arb_st_create(at(*test, "x"), cases[i].tensors, 2, NULL, 0, &w), ARB_ERR_ARG, cases[i].message);
    assert_null(w);
  }
  arb_assert_fails(arb_st_create(at(*test, "x"), NULL, 0, twice, 2, &w), ARB_ERR_ARG, "note 'a' twice");
  assert_int_equal(entries_with(*test, ""), 0);
}

static void wrong_amount(void **test) {
  const arb_st_tensor tensor = {"x", ARB_I8, 1, {5}};
  arb_st_writer *w;
  arb_assert_ok(arb_st_create(at(*test, "x"), &tensor, 1, NULL, 0, &w));
  arb_assert_fails(arb_st_put(w, "123456", 6), ARB_ERR_ARG, "1 bytes more");
  arb_assert_ok(arb_st_put(w, "1234", 4));
  arb_assert_fails(arb_st_finish(&w), ARB_ERR_ARG, "1 bytes fewer");
  assert_null(w);
  assert_int_equal(entries_with(*test, ""), 0);
}

static void old_file_stays(void **test) {
  const arb_st_tensor tensor = {"x", ARB_I8, 1, {5}};
  arb_st_writer *w;
  long size;
  spill(at(*test, "x"), (const unsigned char *)"old", 3);
  arb_assert_ok(arb_st_create(at(*test, "x"), &tensor, 1, NULL, 0, &w));
  arb_st_abandon(&w);
  assert_null(w);
  arb_st_abandon(&w);
  unsigned char *bytes = slurp(at(*test, "x"), &size);
  assert_memory_equal(bytes, "old", 3);
  free(bytes);
  assert_int_equal(entries_with(*test, ""), 1);
  arb_assert_ok(arb_st_create(at(*test, "x"), &tensor, 1, NULL, 0, &w));
  arb_assert_ok(arb_st_put(w, "12345", 5));
  arb_assert_ok(arb_st_finish(&w));
  bytes = slurp(at(*test, "x"), &size);
  assert_true(size > 60);
  free(bytes);
  assert_int_equal(entries_with(*test, ""), 1);
}

static void operating_system(void **test) {
  static unsigned char block[4096];
  const arb_st_tensor tensor = {"x", ARB_I8, 1, {sizeof block}};
  arb_st_writer *w;
  struct rlimit old, small;
  arb_assert_fails(arb_st_create(at(*test, "a/x"), &tensor, 1, NULL, 0, &w), ARB_ERR_IO, "No such file");
  assert_int_equal(mkdir(at(*test, "folder"), 0777), 0);
  arb_assert_ok(arb_st_create(at(*test, "folder"), &tensor, 1, NULL, 0, &w));
  arb_assert_ok(arb_st_put(w, block, sizeof block));
  arb_assert_fails(arb_st_finish(&w), ARB_ERR_IO, "cannot be renamed");
  assert_int_equal(entries_with(*test, ""), 1);
  /* No room: a limit on the size of files gives errors like a full disk. */
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = 1024;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  arb_status st = arb_st_create(at(*test, "x"), &tensor, 1, NULL, 0, &w);
  if (st == ARB_OK) st = arb_st_put(w, block, sizeof block);
  arb_st_abandon(&w);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  assert_int_equal(st, ARB_ERR_IO);
  assert_non_null(strstr(arb_fail_message(), "x: cannot be written: File too large"));
  assert_int_equal(entries_with(*test, ""), 1);
}

#define SCRATCH(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {SCRATCH(exact_bytes), SCRATCH(refused), SCRATCH(wrong_amount), SCRATCH(old_file_stays),
                                     SCRATCH(operating_system)};
  return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
