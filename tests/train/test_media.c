/* Runs on manifests with small encoders of our own: the same digest on any number of ranks, from a cache or not, sharded,
 * fused, resumed; empty slots; what is refused; and that a model learns what only the image or the recording can tell it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dist/loopback/loopback.h"
#include "src/base/log.h"
#include "src/train/media.h"
#include "src/train/save.h"
#include "tests/features/tiny.h"
#include "tests/test.h"

static char folder[] = "/tmp/arb-media-XXXXXX";
static const char *const words[] = {"red", "green", "blue", "white"};

static void put_file(const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
  fclose(f);
}

enum { SAMPLES = 24 };

/* Sample i is of word i % 4; every third has an image alone, every third a recording, every third both; one has text alone.
 * Files say which word it is by a letter that repeats, and differ by what follows. */
static void make_data(const char *manifest, int corrupt) {
  static char text[SAMPLES * 128];
  size_t used = 0;
  for (int i = 0; i < SAMPLES; i++) {
    char name[32], content[64];
    const int word = i % 4;
    snprintf(content, sizeof content, "%c%c%c%c%c%c%d", 'a' + 6 * word, 'b' + 5 * word, 'a' + 6 * word, 'c' + 5 * word,
             'a' + 6 * word, 'd' + 4 * word, i / 4);
    snprintf(name, sizeof name, "%d.jpg", i);
    put_file(name, i == corrupt ? "X" : content);
    snprintf(name, sizeof name, "%d.wav", i);
    put_file(name, content);
    used += (size_t)snprintf(text + used, sizeof text - used, "{\"text\": \"it is %s\"", words[word]);
    if (i != 9 && i % 3 != 1) used += (size_t)snprintf(text + used, sizeof text - used, ", \"image\": \"%d.jpg\"", i);
    if (i != 9 && i % 3 != 0) used += (size_t)snprintf(text + used, sizeof text - used, ", \"audio\": \"%d.wav\"", i);
    used += (size_t)snprintf(text + used, sizeof text - used, "}\n");
  }
  put_file(manifest, text);
}

typedef struct {
  const char *extra[6]; /* settings */
  int steps, resume_at; /* resume_at: save there and go on in a new trainer */
  int evaluate;
  char digest[33];
  double bpb, val, by[ARB_MEDIA_MASKS];
  int64_t empty, encoded;
} job;

static arb_status config_of(const job *j, arb_config *cfg) {
  char pairs[300], valid[300], dir[300];
  snprintf(pairs, sizeof pairs, "data.pairs=%s/train.jsonl", folder);
  snprintf(valid, sizeof valid, "data.valid_pairs=%s/train.jsonl", folder);
  snprintf(dir, sizeof dir, "run.dir=%s/runs", folder);
  const char *all[32] = {pairs,
                         valid,
                         dir,
                         "model.image=yes",
                         "model.audio=yes",
                         "sidecars.dino=synthetic",
                         "sidecars.moonshine=synthetic",
                         "model.dim=32",
                         "model.embed_channels=16",
                         "model.layers=1",
                         "model.glu_hidden=64",
                         "train.steps=200",
                         "train.warmup=6",
                         "train.peak=0.2",
                         "train.sequences=16",
                         "train.grains=4",
                         "train.context=14",
                         "eval.sequences=24",
                         "run.seed=3"};
  int n = 0;
  for (int i = 0; all[i]; i++) { /* without those that the job sets itself */
    int own = 0;
    for (int k = 0; k < 6 && j->extra[k]; k++) own |= strncmp(all[i], j->extra[k], strcspn(all[i], "=") + 1) == 0;
    if (!own) all[n++] = all[i];
  }
  for (int i = 0; i < 6 && j->extra[i]; i++) all[n++] = j->extra[i];
  ARB_TRY(arb_config_load(cfg, NULL, all, n));
  return arb_config_check(cfg, ARB_CONFIG_NEED_TRAIN | ARB_CONFIG_NEED_VALID);
}

static arb_status create(const arb_config *cfg, arb_backend *be, arb_comm *comm, arb_trainer **out) {
  arb_encoder *encoders[ARB_MEDIA_KINDS] = {NULL, NULL};
  arb_status st = tiny_open(&tiny_image, "tiny image", &encoders[0]);
  if (st == ARB_OK) st = tiny_open(&tiny_audio, "tiny audio", &encoders[1]);
  ARB_TRY(arb_comm_agree(comm, st));
  return arb_trainer_create_encoded(cfg, be, comm, NULL, ARB_TRAINER_TRAIN | ARB_TRAINER_VALID, encoders, out);
}

static arb_status rank_body(arb_comm *comm, void *arg) {
  job *j = arg;
  arb_config cfg;
  arb_backend *be = NULL;
  arb_trainer *t = NULL;
  arb_step_result r = {0};
  char digest[33];
  double val = 0;
  int64_t empty = 0, resumed;
  arb_status st = config_of(j, &cfg);
  if (st == ARB_OK) st = arb_backend_cpu_create(1, "auto", &be);
  ARB_TRY_OUT(st, arb_comm_agree(comm, st));
  ARB_TRY_OUT(st, create(&cfg, be, comm, &t));
  for (int i = 1; i <= j->steps; i++) {
    ARB_TRY_OUT(st, arb_trainer_step(t, &r));
    empty += r.empty;
    if (i == j->resume_at) {
      arb_save_outcome saved;
      ARB_TRY_OUT(st, arb_save_begin(t));
      ARB_TRY_OUT(st, arb_save_finish(t, &saved));
      ARB_TRY_OUT(st, saved.status);
      arb_trainer_destroy(&t);
      ARB_TRY_OUT(st, create(&cfg, be, comm, &t));
      ARB_TRY_OUT(st, arb_trainer_resume(t, &resumed));
    }
    if (j->evaluate && i % j->evaluate == 0) ARB_TRY_OUT(st, arb_trainer_evaluate(t, &val));
  }
  ARB_TRY_OUT(st, arb_trainer_digest(t, digest));
  int64_t encoded = arb_encoder_count(t->media->encoder[0]) + arb_encoder_count(t->media->encoder[1]);
  ARB_TRY_OUT(st, arb_comm_all_reduce(comm, &encoded, 1, ARB_I64, ARB_SUM, ARB_TRAFFIC_CONTROL));
  if (comm->rank == 0) {
    memcpy(j->digest, digest, sizeof digest);
    memcpy(j->by, t->media->val, sizeof j->by);
    j->bpb = r.train_bpb;
    j->val = val;
    j->empty = empty;
    j->encoded = encoded;
  }
out:
  arb_trainer_destroy(&t);
  arb_backend_destroy(&be);
  return st;
}

static arb_status run(int ranks, job *j) { return arb_loopback_run(ranks, rank_body, j); }

static void same(const job *a, const job *b, const char *what) {
  if (strcmp(a->digest, b->digest) != 0 || !(a->bpb == b->bpb) || !(a->val == b->val))
    fail_msg("%s: digest %s, bpb %f, val %f; expected %s, %f, %f", what, b->digest, b->bpb, b->val, a->digest, a->bpb, a->val);
}

static void test_same_digest(void **state) {
  (void)state;
  char cache[300];
  make_data("train.jsonl", -1);
  snprintf(cache, sizeof cache, "data.feature_cache=%s/cache", folder);
  job base = {.steps = 9, .evaluate = 4};
  arb_assert_ok(run(1, &base));
  assert_int_equal(base.empty, 0);
  assert_true(base.encoded > 9 * 16);
  static const struct {
    int ranks;
    const char *extra[3];
  } other[] = {{2, {"data.threads=3"}},         {3, {NULL}},
               {4, {"debug.poison=yes"}},       {1, {"run.grains_at_once=3", "data.threads=2"}},
               {1, {"train.fused_update=yes"}}, {2, {"dist.shard_state=yes"}}};
  for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
    job j = {.steps = 9, .evaluate = 4, .extra = {other[i].extra[0], other[i].extra[1]}};
    arb_assert_ok(run(other[i].ranks, &j));
    same(&base, &j, other[i].extra[0] ? other[i].extra[0] : "ranks");
  }
  job cold = {.steps = 9, .evaluate = 4, .extra = {cache}}, warm = cold;
  arb_assert_ok(run(2, &cold));
  same(&base, &cold, "an empty cache");
  arb_assert_ok(run(4, &warm));
  same(&base, &warm, "a full cache");
  assert_int_equal(warm.encoded, 0);
  job resumed = {.steps = 9, .evaluate = 4, .resume_at = 5};
  arb_assert_ok(run(2, &resumed));
  same(&base, &resumed, "resumed");
}

/* The data and the encoder are part of the identity. */
static void test_identity(void **state) {
  (void)state;
  make_data("train.jsonl", -1);
  job base = {.steps = 1}, other = {.steps = 1};
  arb_assert_ok(run(1, &base));
  put_file("0.jpg", "another picture");
  arb_assert_ok(run(1, &other));
  assert_string_not_equal(base.digest, other.digest);
}

/* A corrupt sample leaves its slot empty, on every rank count alike; too many end the run. */
static void test_corrupt(void **state) {
  (void)state;
  make_data("train.jsonl", 6);
  arb_log_setup(0, ARB_LOG_ERROR);
  job one = {.steps = 9, .evaluate = 9}, two = one;
  arb_assert_ok(run(1, &one));
  assert_int_equal(one.empty, 6); /* each of the 6 epochs visits it once */
  arb_assert_ok(run(4, &two));
  assert_int_equal(two.empty, 6);
  same(&one, &two, "an empty slot");
  job none = {.steps = 9, .extra = {"data.corrupt_limit=0"}};
  arb_assert_fails(run(2, &none), ARB_ERR_DATA, "1 samples of epoch 1 cannot be decoded, more than data.corrupt_limit = 0");
  job whole = {.steps = 9, .extra = {"data.corrupt_limit=0", "train.sequences=8"}}; /* epochs of three whole steps */
  arb_assert_fails(run(2, &whole), ARB_ERR_DATA, "1 samples of epoch 1 cannot be decoded");
  arb_log_setup(0, ARB_LOG_INFO);
}

static void test_refused(void **state) {
  (void)state;
  job j = {.steps = 1};
  put_file("train.jsonl", "{\"text\": \"it is red\", \"image\": \"0.jpg\"}\n");
  arb_assert_fails(run(2, &j), ARB_ERR_DATA, "model.audio = yes, but no sample has \"audio\"");
  put_file("train.jsonl", "{\"text\": \"it is red\", \"image\": \"0.jpg\", \"audio\": \"nowhere.wav\"}\n");
  arb_assert_fails(run(1, &j), ARB_ERR_DATA, "nowhere.wav: No such file");
  put_file("train.jsonl", "{\"text\": \"it is a colour\", \"image\": \"0.jpg\", \"audio\": \"0.wav\"}\n");
  arb_assert_fails(run(2, &j), ARB_ERR_DATA, "needs train.context = 15 or more; it is 14");
}

/* Texts are alike but for the last word, which nothing but the features tells: the model must be far better than not knowing.
 */
static void test_learns(void **state) {
  (void)state;
  make_data("train.jsonl", -1);
  job j = {.steps = 200, .evaluate = 200};
  arb_assert_ok(run(2, &j));
  const double ignorance = 2.0 / 10.0; /* one of four words, 2 bits, over about 10 bytes and the end */
  for (int mask = 1; mask < ARB_MEDIA_MASKS; mask++)
    if (!(j.by[mask] >= 0.0 && j.by[mask] < 0.5 * ignorance)) fail_msg("kinds %d: %f bits a byte", mask, j.by[mask]);
  assert_true(j.by[0] > j.by[1]);
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
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_digest), cmocka_unit_test(test_identity),
                                     cmocka_unit_test(test_corrupt), cmocka_unit_test(test_refused),
                                     cmocka_unit_test(test_learns)};
  return cmocka_run_group_tests(tests, open_folder, close_folder);
}
