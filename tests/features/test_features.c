/* The stored form, the cache under damage and many writers, and the feed: order, empty slots, errors, work ahead. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/log.h"
#include "src/features/feed.h"
#include "tests/features/tiny.h"
#include "tests/test.h"

static char folder[] = "/tmp/arb-features-XXXXXX";

/* ---- the stored form ---- */

static void test_store(void **state) {
  (void)state;
  const float x[3][4] = {{1.0f, -2.0f, 0.5f, 0.0f}, {0x1p-101f, 0.0f, 0.0f, 0.0f}, {3e38f, -1e38f, 1.0f, 0.0f}};
  int8_t q[3][4];
  float s[3];
  assert_int_equal(arb_features_store(&x[0][0], 3, 4, &q[0][0], s), 1);
  static const int8_t want[3][4] = {
      {64, -127, 32, 0}, {0, 0, 0, 0}, {127, -42, 0, 0}}; /* 63.5 and 31.75 to the nearest, even */
  assert_memory_equal(q, want, sizeof q);
  assert_true(s[0] == 2.0f / 127.0f && s[1] == 0.0f && s[2] == 3e38f / 127.0f);
  for (int bad = 0; bad < 3; bad++) {
    float y[4] = {1, 2, 3, 4};
    y[bad] = bad == 0 ? NAN : bad == 1 ? INFINITY : -INFINITY;
    assert_int_equal(arb_features_store(y, 1, 4, &q[0][0], s), 0);
  }
}

/* ---- the cache ---- */

typedef struct {
  int8_t q[TINY_IMAGE_ROWS * TINY_IMAGE_WIDTH];
  float s[TINY_IMAGE_ROWS];
} features;

static features features_of(arb_encoder *e, const char *bytes) {
  features f;
  arb_assert_ok(arb_encoder_run(e, "x.wav", (const unsigned char *)bytes, strlen(bytes), f.q, f.s));
  return f;
}
static int get(arb_feature_cache *c, uint64_t hash, features *f) {
  memset(f, 0x55, sizeof *f);
  return arb_feature_cache_get(c, (const uint64_t[2]){hash, 5}, f->q, f->s);
}
static void put(arb_feature_cache *c, uint64_t hash, const features *f) {
  arb_feature_cache_put(c, (const uint64_t[2]){hash, 5}, f->q, f->s);
}

static void test_cache(void **state) {
  (void)state;
  arb_encoder *e, *other;
  arb_feature_cache *c, *d;
  features got;
  arb_assert_ok(tiny_open(&tiny_image, "tiny 1", &e));
  arb_assert_ok(tiny_open(&tiny_image, "tiny 2", &other));
  arb_assert_ok(arb_feature_cache_open(folder, e, &c));
  arb_assert_ok(arb_feature_cache_open(folder, other, &d));
  const features a = features_of(e, "a"), b = features_of(e, "b");
  assert_int_equal(get(c, 1, &got), 0);
  put(c, 1, &a);
  put(c, 2, &b);
  assert_int_equal(get(c, 1, &got), 1);
  assert_memory_equal(&got, &a, sizeof a);
  assert_int_equal(get(c, 2, &got), 1);
  assert_memory_equal(&got, &b, sizeof b);
  assert_int_equal(get(d, 1, &got), 0); /* another encoder */
  put(c, 1, &b);
  assert_int_equal(get(c, 1, &got), 1);
  assert_memory_equal(&got, &b, sizeof b);
  assert_true(c->hits == 3 && c->misses == 1 && c->rejected == 0 && c->writes == 3);
  arb_feature_cache_close(&c);
  arb_feature_cache_close(&d);
  assert_null(c);
  arb_encoder_destroy(&e);
  arb_encoder_destroy(&other);
  arb_assert_ok(tiny_open(&tiny_image, "tiny", &e));
  arb_assert_fails(arb_feature_cache_open("/dev/null/x", e, &c), ARB_ERR_IO, "/dev/null");
  arb_encoder_destroy(&e);
}

/* No byte of a file can change unnoticed, and no length but its own is accepted. */
static void test_damage(void **state) {
  (void)state;
  arb_encoder *e;
  arb_feature_cache *c;
  features got;
  char path[2048];
  arb_assert_ok(tiny_open(&tiny_image, "tiny damage", &e));
  arb_assert_ok(arb_feature_cache_open(folder, e, &c));
  const features a = features_of(e, "a");
  put(c, 9, &a);
  arb_feature_cache_path(c, (const uint64_t[2]){9, 5}, path, sizeof path);
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  static unsigned char file[65536], changed[65536];
  const size_t size = fread(file, 1, sizeof file, f);
  fclose(f);
  assert_true(size > 512 && size < sizeof file);
  arb_log_setup(0, ARB_LOG_ERROR); /* thousands of warnings */
  for (size_t at = 0; at < size; at += at < 600 || at > size - 64 ? 1 : 37) {
    memcpy(changed, file, size);
    changed[at] ^= (unsigned char)(1u << at % 8);
    f = fopen(path, "wb");
    assert_int_equal(fwrite(changed, 1, size, f), size);
    fclose(f);
    if (get(c, 9, &got)) fail_msg("byte %zu of %zu changed and the file was taken", at, size);
    const size_t cut = at % 3 ? at : size + 1 + at % 1000;
    memcpy(changed, file, size);
    f = fopen(path, "wb");
    assert_int_equal(fwrite(changed, 1, cut, f), cut);
    fclose(f);
    if (get(c, 9, &got)) fail_msg("%zu of %zu bytes and the file was taken", cut, size);
  }
  /* Another sample's file, whole, under this name. */
  char from[2048];
  put(c, 10, &a);
  arb_feature_cache_path(c, (const uint64_t[2]){10, 5}, from, sizeof from);
  assert_int_equal(rename(from, path), 0);
  assert_int_equal(get(c, 9, &got), 0);
  arb_log_setup(0, ARB_LOG_INFO);
  put(c, 9, &a);
  assert_int_equal(get(c, 9, &got), 1);
  assert_memory_equal(&got, &a, sizeof a);
  arb_feature_cache_close(&c);
  arb_encoder_destroy(&e);
}

/* Several processes fill one folder; a reader never sees half a file, and no temporary file is left. */
static void test_writers(void **state) {
  (void)state;
  enum { WRITERS = 4, SAMPLES = 12, ROUNDS = 4 };
  arb_encoder *e;
  arb_feature_cache *c;
  features got;
  pid_t child[WRITERS];
  arb_assert_ok(tiny_open(&tiny_image, "tiny writers", &e));
  arb_assert_ok(arb_feature_cache_open(folder, e, &c));
  fflush(NULL);
  for (int w = 0; w < WRITERS; w++) {
    child[w] = fork();
    assert_true(child[w] >= 0);
    if (child[w] != 0) continue;
    for (int i = 0; i < SAMPLES * ROUNDS; i++) {
      char text[2] = {(char)('a' + (i + w) % SAMPLES), 0};
      features f;
      if (arb_encoder_run(e, "x.wav", (const unsigned char *)text, 1, f.q, f.s) != ARB_OK) _exit(1);
      put(c, (uint64_t)(i + w) % SAMPLES, &f);
    }
    _exit(c->writes == SAMPLES * ROUNDS ? 0 : 2);
  }
  for (int i = 0; i < 1000; i++) {
    char text[2] = {(char)('a' + i % SAMPLES), 0};
    if (!get(c, (uint64_t)(i % SAMPLES), &got)) continue;
    const features want = features_of(e, text);
    assert_memory_equal(&got, &want, sizeof want);
  }
  assert_int_equal(c->rejected, 0);
  for (int w = 0; w < WRITERS; w++) {
    int status = -1;
    assert_int_equal(waitpid(child[w], &status, 0), child[w]);
    assert_int_equal(status, 0);
  }
  int files = 0;
  char path[2048];
  snprintf(path, sizeof path, "%s/00", c->dir); /* the hashes are small */
  DIR *list = opendir(path);
  assert_non_null(list);
  for (const struct dirent *d; (d = readdir(list)) != NULL;) {
    if (strstr(d->d_name, ".tmp")) fail_msg("%s was left", d->d_name);
    files += d->d_name[0] != '.';
  }
  closedir(list);
  assert_int_equal(files, SAMPLES);
  arb_feature_cache_close(&c);
  arb_encoder_destroy(&e);
}

/* ---- the feed ---- */

static void put_file(const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
  fclose(f);
}

enum { SAMPLES = 20 };

static void make_manifest(arb_pairs *p, int special, const char *content) {
  char text[SAMPLES * 64] = "", name[16], path[256];
  for (int i = 0; i < SAMPLES; i++) {
    char word[2] = {(char)('a' + i), 0};
    snprintf(name, sizeof name, "%d.wav", i);
    put_file(name, i == special ? content : word);
    snprintf(text + strlen(text), sizeof text - strlen(text),
             i % 4 == 3 ? "{\"text\": \"%s\"}\n" : "{\"text\": \"%s\", \"audio\": \"%d.wav\"}\n", word, i);
  }
  put_file("feed.jsonl", text);
  snprintf(path, sizeof path, "%s/feed.jsonl", folder);
  arb_assert_ok(arb_pairs_load(path, p));
  arb_assert_ok(arb_pairs_hash(p, 0, 1));
}

static int64_t backwards(void *arg, int64_t job) {
  (void)arg;
  return SAMPLES - 1 - job % SAMPLES;
}

static void test_feed(void **state) {
  (void)state;
  arb_pairs p;
  arb_encoder *e;
  arb_feature_cache *c;
  make_manifest(&p, 5, "X is no sound");
  arb_assert_ok(tiny_open(&tiny_audio, "tiny feed", &e));
  arb_assert_ok(arb_feature_cache_open(folder, e, &c));
  for (int round = 0; round < 6; round++) {
    arb_feed_options o = {.pairs = &p,
                          .encoder = {[ARB_MEDIA_AUDIO] = e},
                          .cache = {[ARB_MEDIA_AUDIO] = round < 2 ? NULL : c},
                          .threads = 1 + round % 3,
                          .ahead = 2 + 3 * round,
                          .jobs = round % 2 ? 2 * SAMPLES : -1,
                          .sample_at = backwards};
    arb_feed *f;
    arb_assert_ok(arb_feed_create(&o, &f));
    for (int64_t job = 0; job < 2 * SAMPLES; job++) {
      const arb_feed_sample *s;
      const int64_t want = backwards(NULL, job);
      arb_assert_ok(arb_feed_take(f, &s));
      assert_int_equal(s->sample, want);
      assert_int_equal(s->empty, want == 5);
      assert_int_equal(s->present[ARB_MEDIA_AUDIO], want % 4 != 3 && want != 5);
      assert_int_equal(s->present[ARB_MEDIA_IMAGE], 0);
      if (s->empty) assert_non_null(strstr(s->why, "feed.jsonl:6: "));
      if (s->empty) assert_non_null(strstr(s->why, "5.wav: not a sample of this test"));
      if (!s->present[ARB_MEDIA_AUDIO]) continue;
      int8_t q[TINY_AUDIO_ROWS * TINY_AUDIO_WIDTH];
      float scale[TINY_AUDIO_ROWS];
      const char word[2] = {(char)('a' + want), 0};
      arb_assert_ok(arb_encoder_run(e, "x.wav", (const unsigned char *)word, 1, q, scale));
      assert_memory_equal(s->q[ARB_MEDIA_AUDIO], q, sizeof q);
      assert_memory_equal(s->s[ARB_MEDIA_AUDIO], scale, sizeof scale);
    }
    if (o.jobs > 0) {
      const arb_feed_sample *s;
      arb_assert_fails(arb_feed_take(f, &s), ARB_ERR_ARG, "all 40 samples");
    }
    arb_feed_destroy(&f);
    assert_null(f);
  }
  assert_true(c->hits > 3 * SAMPLES);
  arb_feature_cache_close(&c);
  arb_encoder_destroy(&e);
  arb_pairs_deinit(&p);
}

static void test_feed_errors(void **state) {
  (void)state;
  arb_pairs p;
  arb_encoder *e;
  arb_feed *f;
  const arb_feed_sample *s;
  arb_assert_ok(tiny_open(&tiny_audio, "tiny errors", &e));
  make_manifest(&p, 18, "N");
  arb_feed_options o = {
      .pairs = &p, .encoder = {[ARB_MEDIA_AUDIO] = e}, .threads = 2, .ahead = 4, .jobs = -1, .sample_at = backwards};
  arb_assert_ok(arb_feed_create(&o, &f));
  arb_assert_ok(arb_feed_take(f, &s));
  arb_assert_fails(arb_feed_take(f, &s), ARB_ERR_NUMERIC, "18.wav: a feature is not finite");
  arb_feed_destroy(&f);
  put_file("17.wav", "changed");
  arb_assert_ok(arb_feed_create(&o, &f));
  arb_assert_ok(arb_feed_take(f, &s));
  arb_assert_fails(arb_feed_take(f, &s), ARB_ERR_NUMERIC, "feed.jsonl:19: ");
  arb_assert_fails(arb_feed_take(f, &s), ARB_ERR_DATA, "17.wav: was changed after the run began");
  arb_feed_destroy(&f); /* with work ahead under way */
  arb_encoder_destroy(&e);
  arb_pairs_deinit(&p);
}

static int open_folder(void **state) {
  (void)state;
  return mkdtemp(folder) == NULL;
}
static int close_folder(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -r '%s'", folder);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_store),  cmocka_unit_test(test_cache),
                                     cmocka_unit_test(test_damage), cmocka_unit_test(test_writers),
                                     cmocka_unit_test(test_feed),   cmocka_unit_test(test_feed_errors)};
  return cmocka_run_group_tests(tests, open_folder, close_folder);
}
