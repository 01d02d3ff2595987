/* Loading of text files: what is accepted, what is refused and how it says so. Files are made in a fresh folder. */
#include "src/data/text.h"

#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"

static char folder[] = "/tmp/arb_text_XXXXXX";
static char path[sizeof folder + 32];

static const char *name(const char *leaf) {
  snprintf(path, sizeof path, "%s/%s", folder, leaf);
  return path;
}

static const char *store(const char *leaf, const void *bytes, size_t size) {
  FILE *f = fopen(name(leaf), "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, size, f), size);
  assert_int_equal(fclose(f), 0);
  return path;
}

/* Packs into a static buffer. */
static size_t pack(const void *bytes, size_t size, uint32_t preset, lzma_check check, unsigned char *out, size_t capacity) {
  size_t used = 0;
  assert_int_equal(lzma_easy_buffer_encode(preset, check, NULL, bytes, size, out, &used, capacity), LZMA_OK);
  return used;
}

static void expect_text(const char *file, const void *bytes, size_t size) {
  arb_text text;
  arb_assert_ok(arb_text_load(file, &text));
  assert_int_equal(text.length, size);
  assert_memory_equal(text.bytes, bytes, size);
  assert_int_equal(text.fingerprint.length, size);
  arb_text_deinit(&text);
  assert_null(text.bytes);
  arb_text_deinit(&text);
}

static void expect_refused(const char *file, const char *reason) {
  arb_text text = {.length = 7};
  arb_assert_fails(arb_text_load(file, &text), ARB_ERR_DATA, reason);
  assert_int_equal(arb_text_load(file, &text), ARB_ERR_DATA);
  assert_non_null(strstr(arb_fail_message(), file)); /* the message names the file */
  assert_null(text.bytes);
  assert_int_equal(text.length, 0);
  arb_fail_clear();
}

static const char sample[] = "It was a bright cold day in the valley, and the clocks of the town struck twelve.\n";
enum { SAMPLE = sizeof sample - 1 };

static void test_plain(void **state) {
  (void)state;
  expect_text(store("plain.txt", sample, SAMPLE), sample, SAMPLE);
  expect_text(store("plain.xz", sample, SAMPLE), sample, SAMPLE); /* the name does not matter */
  expect_text(store("one", "x", 1), "x", 1);
  unsigned char all[256];
  for (int i = 0; i < 256; i++) all[i] = (unsigned char)i;
  expect_text(store("all", all, sizeof all), all, sizeof all);
}

static void test_fingerprint(void **state) {
  (void)state;
  arb_text a, b, c;
  char print[ARB_FINGERPRINT_CHARS];
  arb_assert_ok(arb_text_copy("abc", 3, &a));
  arb_fingerprint_print(&a.fingerprint, print);
  assert_string_equal(print, "xxh3-128:06b05ab6733a618578af5f94892f3950:3"); /* as xxh128sum prints it */
  arb_assert_ok(arb_text_load(store("abc", "abc", 3), &b));
  assert_true(arb_fingerprint_equal(&a.fingerprint, &b.fingerprint));
  arb_assert_ok(arb_text_copy("abd", 3, &c));
  assert_false(arb_fingerprint_equal(&a.fingerprint, &c.fingerprint));
  c.fingerprint = a.fingerprint;
  c.fingerprint.length++;
  assert_false(arb_fingerprint_equal(&a.fingerprint, &c.fingerprint));
  c.fingerprint.length = INT64_MAX;
  arb_fingerprint_print(&c.fingerprint, print); /* the longest one fits */
  assert_non_null(strstr(print, ":9223372036854775807"));
  arb_text_deinit(&a);
  arb_text_deinit(&b);
  arb_text_deinit(&c);
  arb_text_deinit(NULL);
  arb_assert_fails(arb_text_copy("", 0, &a), ARB_ERR_DATA, "empty");
}

static void test_xz(void **state) {
  (void)state;
  static const lzma_check checks[] = {LZMA_CHECK_NONE, LZMA_CHECK_CRC32, LZMA_CHECK_CRC64, LZMA_CHECK_SHA256};
  static unsigned char packed[4096];
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
    const size_t n = pack(sample, SAMPLE, 6, checks[i], packed, sizeof packed);
    expect_text(store("x.txt", packed, n), sample, SAMPLE);
  }
  const size_t n = pack(sample, SAMPLE, 9 | LZMA_PRESET_EXTREME, LZMA_CHECK_CRC64, packed, sizeof packed);
  expect_text(store("nine", packed, n), sample, SAMPLE);

  /* Several streams, and zeros by fours between and after them, belong to the format. */
  unsigned char twice[2 * SAMPLE];
  memcpy(twice, sample, SAMPLE);
  memcpy(twice + SAMPLE, sample, SAMPLE);
  memcpy(packed + n, packed, n);
  expect_text(store("two", packed, 2 * n), twice, sizeof twice);
  memset(packed + n, 0, 8);
  expect_text(store("padded", packed, n + 8), sample, SAMPLE);
  memcpy(packed + n + 8, packed, n);
  expect_text(store("two_padded", packed, 2 * n + 8), twice, sizeof twice);
}

static void test_xz_large(void **state) {
  (void)state;
  enum { BIG = 1 << 20 };
  unsigned char *big = malloc(BIG), *packed = malloc(BIG);
  assert_non_null(big);
  assert_non_null(packed);
  for (size_t i = 0; i < BIG; i++) big[i] = (unsigned char)(i * i >> 7);
  const size_t n = pack(big, BIG, 1, LZMA_CHECK_CRC32, packed, BIG);
  store("big.xz", packed, n);
  expect_text(path, big, BIG);
  arb_text text;
  const arb_text_limits fits = {.text_bytes = BIG, .decoder_bytes = 8 << 20},
                        small = {.text_bytes = BIG - 1, .decoder_bytes = 8 << 20};
  arb_assert_ok(arb_text_load_limited(path, fits, &text));
  assert_memory_equal(text.bytes, big, BIG);
  arb_text_deinit(&text);
  arb_assert_fails(arb_text_load_limited(path, small, &text), ARB_ERR_DATA, "more than the limit of 1048575 bytes");
  assert_null(text.bytes);
  const arb_text_limits tight = {.text_bytes = BIG, .decoder_bytes = 1 << 16};
  arb_assert_fails(arb_text_load_limited(path, tight, &text), ARB_ERR_DATA, "working memory, more than the limit of 65536");
  /* Zeros pack a thousand to one: the file is tiny, the text is not. */
  memset(big, 0, BIG);
  const size_t bomb = pack(big, BIG, 6, LZMA_CHECK_CRC64, packed, BIG);
  assert_true(bomb < 2000);
  const arb_text_limits few = {.text_bytes = 4000, .decoder_bytes = 128 << 20};
  arb_assert_fails(arb_text_load_limited(store("bomb", packed, bomb), few, &text), ARB_ERR_DATA,
                   "unpacks to more than the limit");
  free(big);
  free(packed);
}

static void test_plain_limit(void **state) {
  (void)state;
  arb_text text;
  arb_text_limits limits = arb_text_default_limits();
  store("limit", sample, SAMPLE);
  limits.text_bytes = SAMPLE;
  arb_assert_ok(arb_text_load_limited(path, limits, &text));
  arb_text_deinit(&text);
  limits.text_bytes = SAMPLE - 1;
  arb_assert_fails(arb_text_load_limited(path, limits, &text), ARB_ERR_DATA, "more than the limit of");
  limits.text_bytes = 0;
  arb_assert_fails(arb_text_load_limited(path, limits, &text), ARB_ERR_ARG, "positive");
}

static void test_xz_damaged(void **state) {
  (void)state;
  static unsigned char packed[4096], bad[4096];
  const size_t n = pack(sample, SAMPLE, 6, LZMA_CHECK_CRC64, packed, sizeof packed);
  for (size_t cut = 1; cut < n; cut++) expect_refused(store("cut", packed, cut), "truncated");
  /* Every bit behind the magic is covered by some check of the format. */
  for (size_t at = 6; at < n; at++)
    for (int bit = 0; bit < 8; bit++) {
      memcpy(bad, packed, n);
      bad[at] ^= (unsigned char)(1 << bit);
      arb_text text;
      arb_assert_fails(arb_text_load(store("flip", bad, n), &text), ARB_ERR_DATA, "/flip: ");
      assert_null(text.bytes);
    }
  memcpy(bad, packed, n);
  bad[n / 2] ^= 0x10;
  expect_refused(store("flip", bad, n), "corrupt");

  memcpy(bad, packed, n);
  memcpy(bad + n, "junk!", 5);
  expect_refused(store("junk", bad, n + 5), "5 bytes of garbage after the end of the xz stream");
  memset(bad + n, 0, 8);
  expect_refused(store("zeros", bad, n + 3), "3 bytes of garbage");
  expect_refused(store("zeros5", bad, n + 5), "5 bytes of garbage");
  memcpy(bad + n, packed, n - 1);
  expect_refused(store("second_cut", bad, 2 * n - 1), "truncated");

  const size_t none = pack("", 0, 6, LZMA_CHECK_CRC64, packed, sizeof packed);
  expect_refused(store("none", packed, none), "empty");
}

static void test_not_a_file(void **state) {
  (void)state;
  expect_refused(name("missing"), "cannot be opened: No such file");
  expect_refused(folder, "is a directory");
  expect_refused("/dev/null", "is a device");
  expect_refused(store("empty", "", 0), "is empty");
  assert_int_equal(mkfifo(name("fifo"), 0600), 0);
  expect_refused(path, "is a FIFO"); /* and does not wait for a writer */
  char inside[sizeof path + 8];
  snprintf(inside, sizeof inside, "%s/x", store("file", "x", 1));
  expect_refused(inside, "Not a directory");
}

static void test_unreadable(void **state) {
  (void)state;
  if (geteuid() == 0) skip(); /* root reads everything */
  store("secret", "x", 1);
  assert_int_equal(chmod(path, 0), 0);
  expect_refused(path, "Permission denied");
}

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
  (void)state;
  static const char *const leaves[] = {"plain.txt", "plain.xz",   "one",        "all",  "abc",   "x.txt", "nine", "two",
                                       "padded",    "two_padded", "big.xz",     "bomb", "limit", "cut",   "flip", "junk",
                                       "zeros",     "zeros5",     "second_cut", "none", "empty", "fifo",  "file", "secret"};
  for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) unlink(name(leaves[i]));
  return rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plain),      cmocka_unit_test(test_fingerprint), cmocka_unit_test(test_xz),
      cmocka_unit_test(test_xz_large),   cmocka_unit_test(test_plain_limit), cmocka_unit_test(test_xz_damaged),
      cmocka_unit_test(test_not_a_file), cmocka_unit_test(test_unreadable),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
