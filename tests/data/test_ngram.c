/* The Witten-Bell table: against numbers worked out by hand, against counting by brute force, and on the shipped text.
 * Usage: test_data_ngram CONFIGS_TEXT_FOLDER */
#include "src/data/ngram.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/data/batch.h"
#include "tests/test.h"

static const char *text_folder;

static arb_text text_of(const char *bytes, int64_t length) {
  arb_text text;
  arb_assert_ok(arb_text_copy(bytes, length, &text));
  return text;
}

static double probability(const arb_ngram *n, const char *bytes, int64_t at, int order) {
  double p[ARB_NGRAM_MAX_ORDER + 1];
  arb_ngram_probabilities(n, (const unsigned char *)bytes, at, p);
  return p[order];
}

static void near(double got, double want) {
  if (!(fabs(got - want) <= 1e-12 * fabs(want))) fail_msg("%.17g, expected %.17g", got, want);
}

/* "abac": order 0 saw a a b c, 4 bytes of 3 types. After a: b, c. After b: a. After c: the end, nothing. */
static void test_by_hand(void **state) {
  (void)state;
  arb_text text = text_of("abac", 4);
  arb_ngram *n = NULL;
  arb_assert_ok(arb_ngram_create(&text, 2, &n));
  const double a0 = (2.0 + 3.0 / 256.0) / 7.0, b0 = (1.0 + 3.0 / 256.0) / 7.0, none = (3.0 / 256.0) / 7.0;
  near(probability(n, "a", 0, 0), a0);
  near(probability(n, "b", 0, 0), b0);
  near(probability(n, "c", 0, 0), b0);
  near(probability(n, "z", 0, 0), none);
  near(probability(n, "a", 0, 2), a0); /* nothing stands before: the longest context is the empty one */

  const double b_after_a = (1.0 + 2.0 * b0) / 4.0, a_after_b = (1.0 + 1.0 * a0) / 2.0;
  near(probability(n, "ab", 1, 1), b_after_a);
  near(probability(n, "ab", 1, 0), b0);
  near(probability(n, "ba", 1, 1), a_after_b);
  near(probability(n, "az", 1, 1), 2.0 * none / 4.0);
  near(probability(n, "ca", 1, 1), a0); /* c ends the text: it was seen, but nothing after it */
  near(probability(n, "za", 1, 1), a0);

  near(probability(n, "aba", 2, 2), (1.0 + 1.0 * a_after_b) / 2.0);
  near(probability(n, "bac", 2, 2), (1.0 + 1.0 * b_after_a) / 2.0); /* c and b are alike after a */
  near(probability(n, "zba", 2, 2), a_after_b);                     /* "zb" was never seen */
  near(probability(n, "aca", 2, 2), a0);                            /* "ac" ends the text */
  arb_ngram_destroy(&n);
  assert_null(n);
  arb_ngram_destroy(&n);
  arb_ngram_destroy(NULL);
  arb_text_deinit(&text);
}

/* Counts by reading the whole text again for each question. */
static double brute(const arb_text *train, const unsigned char *bytes, int64_t at, int order) {
  if (order < 0) return 1.0 / 256.0;
  const double shorter = brute(train, bytes, at, order - 1);
  if (order > at) return shorter;
  int total = 0, both = 0, types = 0;
  unsigned char seen[256] = {0};
  for (int64_t p = order; p < train->length; p++) {
    if (memcmp(train->bytes + p - order, bytes + at - order, (size_t)order) != 0) continue;
    const unsigned char b = train->bytes[p];
    total++;
    both += b == bytes[at];
    types += !seen[b];
    seen[b] = 1;
  }
  return total == 0 ? shorter : (both + types * shorter) / (total + types);
}

/* Few symbols, so that long contexts repeat; 0 and 255 among them, so that strings of zeros of different length and sign
 * extension would show. */
static void random_bytes(char *out, int length, uint32_t seed) {
  static const unsigned char symbols[8] = {0, 0, 0, 255, 255, 'a', 'b', 128};
  for (int i = 0; i < length; i++) {
    seed = seed * 1664525u + 1013904223u;
    out[i] = (char)symbols[seed >> 29];
  }
}

static void test_brute_force(void **state) {
  (void)state;
  enum { TRAIN = 1500, ASK = 150 };
  char train[TRAIN], ask[ASK];
  random_bytes(train, TRAIN, 1);
  random_bytes(ask, ASK, 77);
  ask[40] = 'q';
  arb_text text = text_of(train, TRAIN);
  for (int order = 0; order <= ARB_NGRAM_MAX_ORDER; order++) {
    arb_ngram *n = NULL;
    arb_assert_ok(arb_ngram_create(&text, order, &n));
    for (int at = 0; at < ASK; at++)
      for (int o = 0; o <= order; o++) near(probability(n, ask, at, o), brute(&text, (const unsigned char *)ask, at, o));
    arb_ngram_destroy(&n);
  }
  arb_text_deinit(&text);
}

/* Enough strings to grow the table several times. */
static void test_growth(void **state) {
  (void)state;
  enum { TRAIN = 60000 };
  char *train = malloc(TRAIN);
  assert_non_null(train);
  uint32_t seed = 5;
  for (int i = 0; i < TRAIN; i++) train[i] = (char)((seed = seed * 1664525u + 1013904223u) >> 24);
  arb_text text = text_of(train, TRAIN);
  arb_ngram *n = NULL;
  arb_assert_ok(arb_ngram_create(&text, 3, &n));
  assert_true(arb_ngram_memory(n) > (size_t)1 << 20);
  for (int at = 0; at < TRAIN; at += 3001)
    near(probability(n, train, at, 3), brute(&text, (const unsigned char *)train, at, 3));
  arb_ngram_destroy(&n);
  arb_text_deinit(&text);
  free(train);
}

static void test_sums_to_one(void **state) {
  (void)state;
  static const char train[] = "the cat sat on the mat and the rat sat on the cat";
  static const char *const contexts[] = {"the c", "sat o", "zzzzz", "t the", "e cat", "zzzze", "\xff\xff\xff\xff\xff"};
  arb_text text = text_of(train, sizeof train - 1);
  arb_ngram *n = NULL;
  arb_assert_ok(arb_ngram_create(&text, 5, &n));
  for (size_t c = 0; c < sizeof contexts / sizeof *contexts; c++)
    for (int order = 0; order <= 5; order++) {
      char ask[6];
      double sum = 0.0;
      memcpy(ask, contexts[c], 5);
      for (int b = 0; b < 256; b++) {
        ask[5] = (char)b;
        const double p = probability(n, ask, 5, order);
        assert_true(p > 0.0 && p < 1.0);
        sum += p;
      }
      near(sum, 1.0);
    }
  arb_ngram_destroy(&n);
  arb_text_deinit(&text);
}

static void test_bits(void **state) {
  (void)state;
  enum { CONTEXT = 5, WINDOWS = 3 };
  static const char train[] = "the cat sat on the mat and the rat sat on the cat", valid[] = "the rat on the mat sat!";
  arb_text a = text_of(train, sizeof train - 1), v = text_of(valid, sizeof valid - 1);
  arb_ngram *n = NULL;
  double bpb[3];
  arb_assert_ok(arb_ngram_create(&a, 2, &n));
  arb_assert_ok(arb_ngram_bits_per_byte(n, &v, CONTEXT, WINDOWS, bpb));
  for (int order = 0; order <= 2; order++) {
    double bits = 0.0;
    for (int64_t w = 0; w < WINDOWS; w++) {
      const int64_t start = w * ((int64_t)(sizeof valid - 2) / WINDOWS);
      /* The whole text is passed, so the first targets of a window see bytes before it. */
      for (int64_t t = 1; t <= CONTEXT; t++) bits -= log2(probability(n, valid, start + t, order));
    }
    near(bpb[order], bits / (WINDOWS * CONTEXT));
  }
  arb_assert_fails(arb_ngram_bits_per_byte(n, &v, CONTEXT, 5, bpb), ARB_ERR_DATA, "need at least 26");
  arb_assert_fails(arb_ngram_bits_per_byte(n, &v, CONTEXT, 0, bpb), ARB_ERR_ARG, "no valid request");
  arb_ngram_destroy(&n);
  arb_assert_fails(arb_ngram_create(&a, 6, &n), ARB_ERR_ARG, "order 6");
  arb_assert_fails(arb_ngram_create(&a, -1, &n), ARB_ERR_ARG, "order -1");
  a.length = INT64_C(1) << 32; /* refused before a byte is read */
  arb_assert_fails(arb_ngram_create(&a, 1, &n), ARB_ERR_DATA, "too long");
  assert_null(n);
  arb_text_deinit(&a);
  arb_text_deinit(&v);
}

static arb_text shipped(const char *leaf, const char *fingerprint) {
  char path[4096], print[ARB_FINGERPRINT_CHARS];
  arb_text text;
  snprintf(path, sizeof path, "%s/%s", text_folder, leaf);
  arb_assert_ok(arb_text_load(path, &text));
  arb_fingerprint_print(&text.fingerprint, print);
  assert_string_equal(print, fingerprint);
  assert_memory_equal(text.bytes, "# Title: ", 9);
  assert_null(memchr(text.bytes, '\r', (size_t)text.length));
  return text;
}

/* The figures of configs/text/README.md. */
static void test_shipped_text(void **state) {
  (void)state;
  static const double figures[] = {4.3938, 3.4355, 2.7928, 2.3088, 2.0576, 1.9864};
  arb_text train = shipped("smoke.train.txt.xz", "xxh3-128:a5e9f398ae71f94f99dd5e948b051b0a:4417291");
  arb_text valid = shipped("smoke.valid.txt.xz", "xxh3-128:b99ef1a08e807a6187e62b0422fe7c3d:240712");
  arb_ngram *n = NULL;
  double bpb[6];
  arb_assert_ok(arb_ngram_create(&train, 5, &n));
  arb_assert_ok(arb_ngram_bits_per_byte(n, &valid, 128, 1880, bpb));
  for (int i = 0; i < 6; i++)
    if (!(fabs(bpb[i] - figures[i]) < 5.1e-5)) fail_msg("order %d: %.6f bits per byte, documented %.4f", i, bpb[i], figures[i]);
  arb_ngram_destroy(&n);
  arb_text_deinit(&train);
  arb_text_deinit(&valid);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  text_folder = argv[1];
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_by_hand),     cmocka_unit_test(test_brute_force), cmocka_unit_test(test_growth),
      cmocka_unit_test(test_sums_to_one), cmocka_unit_test(test_bits),        cmocka_unit_test(test_shipped_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
