/* Manifests: what is accepted, what is refused and with which words, and that order and fingerprint depend on content alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/data/pairs.h"
#include "tests/test.h"

static char folder[] = "/tmp/arb-pairs-XXXXXX";

static const char *put(const char *name, const void *bytes, size_t size) {
  static char path[4][256];
  static int turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", folder, name);
  FILE *f = fopen(p, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, size, f), size);
  assert_int_equal(fclose(f), 0);
  return p;
}
static const char *put_text(const char *name, const char *text) { return put(name, text, strlen(text)); }

static arb_status load(const char *text, arb_pairs *p) { return arb_pairs_load(put_text("m.jsonl", text), p); }

static void test_reads(void **state) {
  (void)state;
  arb_pairs p;
  arb_assert_ok(
      load("\xef\xbb\xbf{\"image\": \"a/b.jpg\", \"text\": \"a photo of a cat\"}\r\n\n  \n"
           "{\"text\": \"seven\", \"audio\": \"/x/7.wav\"}\n{\"text\": \"\\u00e9\"}",
           &p));
  char want[300];
  snprintf(want, sizeof want, "%s/a/b.jpg", folder);
  assert_int_equal(p.count, 3);
  assert_string_equal(p.pair[0].file[ARB_MEDIA_IMAGE], want);
  assert_null(p.pair[0].file[ARB_MEDIA_AUDIO]);
  assert_string_equal(p.pair[0].text, "a photo of a cat");
  assert_int_equal(p.pair[0].length, 16);
  assert_string_equal(p.pair[1].file[ARB_MEDIA_AUDIO], "/x/7.wav");
  assert_int_equal(p.pair[1].line, 4);
  assert_int_equal(p.pair[2].length, 2);
  assert_int_equal(arb_pairs_with(&p, ARB_MEDIA_IMAGE), 1);
  assert_int_equal(arb_pairs_with(&p, ARB_MEDIA_AUDIO), 1);
  assert_int_equal(arb_pair_word(&p.pair[0]), 13);
  assert_int_equal(arb_pair_word(&p.pair[1]), 0);
  arb_assert_ok(arb_pairs_fit(&p, 17));
  arb_assert_fails(arb_pairs_fit(&p, 16), ARB_ERR_DATA, ":1: a text of 16 bytes needs train.context = 17");
  arb_pairs_deinit(&p);
  arb_pairs_deinit(&p);
}

static void test_refuses(void **state) {
  (void)state;
  static const struct {
    const char *text, *message;
  } bad[] = {
      {"{\"text\": \"a\"}\n{\"imge\": \"x\", \"text\": \"a\"}",
       "m.jsonl:2: unknown key \"imge\"; keys are image, audio and text"},
      {"{\"text\": \"a\", \"text\": \"b\"}", "m.jsonl:1: not a JSON object: duplicate object key"},
      {"{\"text\": 7}", ":1: \"text\" is not a string"},
      {"{\"text\": \"\"}", ":1: \"text\" is empty"},
      {"{\"image\": \"\", \"text\": \"a\"}", ":1: \"image\" is empty"},
      {"{\"image\": \"a\"}", ":1: no \"text\""},
      {"[1]", ":1: not a JSON object"},
      {"seven 7.wav", ":1: not a JSON object"},
      {"{\"text\": \"a\"} x", ":1: not a JSON object"},
      {"{\"text\": \"a\\u0000b\"}", ":1: not a JSON object"},
      {"{\"text\": \"\xff\"}", ":1: not a JSON object"},
      {"{\"text\": \"a\"", ":1: not a JSON object"},
      {" \n\n", "no samples"},
  };
  arb_pairs p;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    arb_assert_fails(load(bad[i].text, &p), ARB_ERR_DATA, bad[i].message);
    assert_null(p.pair);
  }
  arb_assert_fails(arb_pairs_load("/nowhere/m.jsonl", &p), ARB_ERR_DATA, "/nowhere/m.jsonl");
}

static void fingerprint(const char *manifest, char out[ARB_FINGERPRINT_CHARS]) {
  arb_pairs p;
  arb_fingerprint f;
  arb_assert_ok(load(manifest, &p));
  for (int64_t first = 2; first >= 0; first--) arb_assert_ok(arb_pairs_hash(&p, first, 3));
  arb_pairs_fingerprint(&p, &f);
  arb_fingerprint_print(&f, out);
  arb_pairs_deinit(&p);
}

static void test_fingerprint(void **state) {
  (void)state;
  char base[ARB_FINGERPRINT_CHARS], other[ARB_FINGERPRINT_CHARS];
  put_text("1.wav", "one"), put_text("2.wav", "two"), put_text("moved.wav", "one");
  fingerprint("{\"audio\": \"1.wav\", \"text\": \"a\"}\n{\"audio\": \"2.wav\", \"text\": \"b\"}", base);
  fingerprint("{\"text\": \"a\", \"audio\": \"moved.wav\"}\n\n{\"audio\": \"2.wav\", \"text\": \"b\"}", other);
  assert_string_equal(base, other);
  static const char *const different[] = {
      "{\"audio\": \"2.wav\", \"text\": \"a\"}\n{\"audio\": \"2.wav\", \"text\": \"b\"}", /* another file */
      "{\"audio\": \"1.wav\", \"text\": \"a\"}\n{\"audio\": \"2.wav\", \"text\": \"c\"}", /* another text */
      "{\"image\": \"1.wav\", \"text\": \"a\"}\n{\"audio\": \"2.wav\", \"text\": \"b\"}", /* another kind */
      "{\"audio\": \"2.wav\", \"text\": \"b\"}\n{\"audio\": \"1.wav\", \"text\": \"a\"}", /* another order */
      "{\"audio\": \"1.wav\", \"text\": \"a\"}",
      "{\"text\": \"a\"}\n{\"audio\": \"2.wav\", \"text\": \"b\"}"};
  for (size_t i = 0; i < sizeof different / sizeof *different; i++) {
    fingerprint(different[i], other);
    assert_string_not_equal(base, other);
  }
}

static void test_files(void **state) {
  (void)state;
  arb_pairs p;
  unsigned char *bytes;
  size_t size;
  put_text("1.wav", "one");
  arb_assert_ok(load("{\"audio\": \"1.wav\", \"text\": \"a\"}", &p));
  arb_assert_ok(arb_pairs_hash(&p, 0, 1));
  arb_assert_ok(arb_pairs_read(&p, 0, ARB_MEDIA_AUDIO, &bytes, &size));
  assert_int_equal(size, 3);
  assert_memory_equal(bytes, "one", 3);
  free(bytes);
  put_text("1.wav", "0ne");
  arb_assert_fails(arb_pairs_read(&p, 0, ARB_MEDIA_AUDIO, &bytes, &size), ARB_ERR_DATA,
                   "1.wav: was changed after the run began");
  assert_null(bytes);
  arb_pairs_deinit(&p);
  arb_assert_ok(load("{\"text\": \"a\"}\n{\"audio\": \"gone.wav\", \"text\": \"a\"}", &p));
  arb_assert_fails(arb_pairs_hash(&p, 0, 1), ARB_ERR_DATA, "m.jsonl:2: ");
  arb_assert_fails(arb_pairs_hash(&p, 1, 2), ARB_ERR_DATA, "gone.wav: No such file");
  arb_pairs_deinit(&p);
  arb_assert_ok(load("{\"audio\": \".\", \"text\": \"a\"}", &p));
  arb_assert_fails(arb_pairs_hash(&p, 0, 1), ARB_ERR_DATA, "not a regular file");
  arb_pairs_deinit(&p);
}

static void test_rows(void **state) {
  (void)state;
  const arb_pair pair = {.text = (char *)(uintptr_t) "a\xff", .length = 2};
  int32_t ids[5], targets[5];
  static const int32_t want_ids[5] = {257, 'a', 255, 256, 256}, want_targets[5] = {'a', 255, 258, -1, -1};
  arb_pair_rows(&pair, 5, ids, targets);
  assert_memory_equal(ids, want_ids, sizeof ids);
  assert_memory_equal(targets, want_targets, sizeof targets);
  arb_pair_rows(&pair, 3, ids, targets);
  assert_memory_equal(ids, want_ids, 3 * sizeof *ids);
  assert_memory_equal(targets, want_targets, 3 * sizeof *ids);
  arb_pair_empty(5, ids, targets);
  for (int i = 0; i < 5; i++) assert_true(ids[i] == 256 && targets[i] == -1);
}

static void test_order(void **state) {
  (void)state;
  for (int64_t count = 1; count <= 40; count += 13) {
    const arb_pairs p = {.count = count};
    int moved = 0;
    for (int64_t epoch = 0; epoch < 4; epoch++) {
      int seen[64] = {0};
      for (int64_t k = 0; k < count; k++) {
        const int64_t at = arb_pairs_at(&p, 5, epoch * count + k);
        assert_true(at >= 0 && at < count);
        assert_int_equal(seen[at]++, 0);
        moved += at != arb_pairs_at(&p, 5, (epoch + 1) * count + k);
        assert_int_equal(at, arb_pairs_at(&p, 5, epoch * count + k));
      }
    }
    if (count > 10) assert_true(moved > 0);
  }
}

static int open_folder(void **state) {
  (void)state;
  return mkdtemp(folder) == NULL;
}
static int close_folder(void **state) {
  (void)state;
  static const char *const names[] = {"m.jsonl", "1.wav", "2.wav", "moved.wav"};
  char path[300];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    unlink(path);
  }
  return rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_reads),       cmocka_unit_test(test_refuses),
                                     cmocka_unit_test(test_fingerprint), cmocka_unit_test(test_files),
                                     cmocka_unit_test(test_rows),        cmocka_unit_test(test_order)};
  return cmocka_run_group_tests(tests, open_folder, close_folder);
}
