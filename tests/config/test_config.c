/* Defaults, print and load, help, identity, origins, rules between keys, and the list of mistakes. */
#include <math.h>

#include "tests/config/config_file.h"

/* Every key and its default: a second writing of the table, so that a slip in either shows. */
static const char *const defaults[ARB_CONFIG_KEYS] = {"run.name = run",
                                                      "run.dir = runs",
                                                      "run.seed = 1",
                                                      "run.device = auto",
                                                      "run.isa = auto",
                                                      "run.threads = 0",
                                                      "run.grains_at_once = 0",
                                                      "model.dim = 512",
                                                      "model.embed_channels = 256",
                                                      "model.layers = 6",
                                                      "model.glu_hidden = 1408",
                                                      "model.memory = on",
                                                      "model.image = no",
                                                      "model.audio = no",
                                                      "data.train =",
                                                      "data.valid =",
                                                      "data.pairs =",
                                                      "data.valid_pairs =",
                                                      "data.feature_cache =",
                                                      "data.corrupt_limit = 16",
                                                      "data.threads = 1",
                                                      "sidecars.dino =",
                                                      "sidecars.moonshine =",
                                                      "sidecars.vae =",
                                                      "sidecars.conv_int8 = no",
                                                      "sidecars.embed_int8 = no",
                                                      "train.steps = 800",
                                                      "train.sequences = 64",
                                                      "train.context = 512",
                                                      "train.grains = 8",
                                                      "train.peak = 0.12",
                                                      "train.floor = 0.2",
                                                      "train.warmup = 100",
                                                      "train.vote_bits = 8",
                                                      "train.fused_update = no",
                                                      "train.log_every = 10",
                                                      "eval.every = 200",
                                                      "eval.sequences = 64",
                                                      "sample.every = 0",
                                                      "sample.length = 0",
                                                      "sample.prompt =",
                                                      "sample.temperature = 0.8",
                                                      "sample.top_k = 40",
                                                      "sample.image =",
                                                      "sample.audio =",
                                                      "checkpoint.every = 0",
                                                      "checkpoint.keep = 2",
                                                      "checkpoint.async = yes",
                                                      "checkpoint.on_error = stop",
                                                      "checkpoint.resume = yes",
                                                      "dist.transport = auto",
                                                      "dist.shard_state = no",
                                                      "dist.overlap = yes",
                                                      "dist.bucket_mb = 25",
                                                      "dist.timeout_s = 120",
                                                      "debug.poison = no",
                                                      "debug.synchronous = no",
                                                      "debug.outlier_log2 = 0",
                                                      "debug.lockstep = no",
                                                      "debug.guards = no"};

/* Another legal value of every key, in the form in which it is printed. */
static const char *const others[ARB_CONFIG_KEYS] = {"run.name=x y",
                                                    "run.dir=/r/s",
                                                    "run.seed=18446744073709551615",
                                                    "run.device=ref",
                                                    "run.isa=avx2",
                                                    "run.threads=3",
                                                    "run.grains_at_once=31",
                                                    "model.dim=64",
                                                    "model.embed_channels=16",
                                                    "model.layers=2",
                                                    "model.glu_hidden=96",
                                                    "model.memory=zero",
                                                    "model.image=yes",
                                                    "model.audio=yes",
                                                    "data.train=/d/t",
                                                    "data.valid=/d/v",
                                                    "data.pairs=/d/p",
                                                    "data.valid_pairs=/d/q",
                                                    "data.feature_cache=/d/c",
                                                    "data.corrupt_limit=0",
                                                    "data.threads=64",
                                                    "sidecars.dino=synthetic",
                                                    "sidecars.moonshine=/d/m",
                                                    "sidecars.vae=/d/v",
                                                    "sidecars.conv_int8=yes",
                                                    "sidecars.embed_int8=yes",
                                                    "train.steps=1000000000",
                                                    "train.sequences=62",
                                                    "train.context=9",
                                                    "train.grains=31",
                                                    "train.peak=0.12345679",
                                                    "train.floor=0.5",
                                                    "train.warmup=7",
                                                    "train.vote_bits=8",
                                                    "train.fused_update=yes",
                                                    "train.log_every=1",
                                                    "eval.every=0",
                                                    "eval.sequences=5",
                                                    "sample.every=4",
                                                    "sample.length=100",
                                                    "sample.prompt=\"a \\\"b\\n\"",
                                                    "sample.temperature=0.0001",
                                                    "sample.top_k=297",
                                                    "sample.image=/d/i",
                                                    "sample.audio=/d/a",
                                                    "checkpoint.every=3",
                                                    "checkpoint.keep=1",
                                                    "checkpoint.async=no",
                                                    "checkpoint.on_error=continue",
                                                    "checkpoint.resume=no",
                                                    "dist.transport=mpi",
                                                    "dist.shard_state=yes",
                                                    "dist.overlap=no",
                                                    "dist.bucket_mb=0",
                                                    "dist.timeout_s=86400",
                                                    "debug.poison=yes",
                                                    "debug.synchronous=yes",
                                                    "debug.outlier_log2=20",
                                                    "debug.lockstep=yes",
                                                    "debug.guards=yes"};

/* The value of "section.key" in a resolved text, in out. */
static bool value_in(const char *text, const char *key, char *out, size_t size) {
  char section[40], name[48];
  const char *dot = strchr(key, '.');
  snprintf(section, sizeof section, "[%.*s]\n", (int)(dot - key), key);
  snprintf(name, sizeof name, "\n%s =", dot + 1);
  const char *head = strstr(text, section);
  const char *line = head == NULL ? NULL : strstr(head, name);
  if (line == NULL) return false;
  line += strlen(name);
  if (*line == ' ') line++;
  snprintf(out, size, "%.*s", (int)strcspn(line, "\n"), line);
  return true;
}

static void check_text(const char *text, const char *assignment, const char *between) {
  char key[64], got[ARB_CONFIG_LINE];
  const char *eq = strstr(assignment, between);
  const char *want = eq + strlen(between);
  while (*want == ' ') want++;
  snprintf(key, sizeof key, "%.*s", (int)(eq - assignment), assignment);
  if (!value_in(text, key, got, sizeof got)) fail_msg("%s is not in the text", key);
  if (strcmp(got, want) != 0) fail_msg("%s is '%s', expected '%s'", key, got, want);
}

/* What print writes, in buf. */
static void printed(const arb_config *cfg, char *buf, size_t size) {
  FILE *out = tmpfile();
  assert_non_null(out);
  arb_assert_ok(arb_config_print(cfg, out));
  rewind(out);
  buf[fread(buf, 1, size - 1, out)] = '\0';
  assert_int_equal(fclose(out), 0);
}

static void test_defaults(void **state) {
  (void)state;
  arb_config cfg;
  char text[ARB_CONFIG_RESOLVED_BYTES];
  arb_config_defaults(&cfg);
  arb_assert_ok(arb_config_resolved_text(&cfg, text, sizeof text));
  int lines = 0;
  for (const char *c = text; (c = strchr(c, '=')) != NULL; c++) lines++;
  assert_int_equal(lines, ARB_CONFIG_KEYS);
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) check_text(text, defaults[i], " =");
  arb_assert_ok(arb_config_check(&cfg, 0));
  assert_int_equal(cfg.train.steps, 800);
  assert_true(cfg.train.peak == 0.12f);
  assert_true(cfg.checkpoint.resume);
  assert_int_equal(cfg.train.vote_bits, 8);
  assert_string_equal(arb_config_origin(&cfg, "train.steps"), "default");
  assert_string_equal(arb_config_origin(&cfg, "train.stepz"), "unknown key");
  assert_string_equal(arb_config_origin(&cfg, "steps"), "unknown key");
}

/* Each default and each other value survives print -> load with nothing lost, whole configs at a time. */
static void test_print_round_trip(void **state) {
  folder *f = *state;
  arb_config cfg, again;
  char first[ARB_CONFIG_RESOLVED_BYTES], second[ARB_CONFIG_RESOLVED_BYTES], ini[2 * ARB_CONFIG_RESOLVED_BYTES];
  for (int round = 0; round < 2; round++) {
    if (round == 0)
      arb_assert_ok(arb_config_load(&cfg, NULL, NULL, 0));
    else
      arb_assert_ok(arb_config_load(&cfg, NULL, others, ARB_CONFIG_KEYS));
    arb_assert_ok(arb_config_resolved_text(&cfg, first, sizeof first));
    if (round == 1)
      for (int i = 0; i < ARB_CONFIG_KEYS; i++) check_text(first, others[i], "=");
    printed(&cfg, ini, sizeof ini);
    arb_assert_ok(load(f, &again, ini));
    arb_assert_ok(arb_config_resolved_text(&again, second, sizeof second));
    assert_string_equal(first, second);
    arb_assert_ok(load(f, &again, first)); /* the text without comments is a config too */
    arb_assert_ok(arb_config_resolved_text(&again, second, sizeof second));
    assert_string_equal(first, second);
  }
  assert_string_equal(again.sample.prompt, "a \"b\n");
  assert_true(again.train.peak == 0.123456789f);
  assert_true(again.run.seed == UINT64_MAX);
}

/* A default differs from its other value in the text: the round trip above cannot pass by ignoring keys. */
static void test_every_key_is_written(void **state) {
  (void)state;
  char base[ARB_CONFIG_RESOLVED_BYTES], text[ARB_CONFIG_RESOLVED_BYTES];
  arb_config cfg;
  arb_assert_ok(arb_config_load(&cfg, NULL, NULL, 0));
  arb_assert_ok(arb_config_resolved_text(&cfg, base, sizeof base));
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    if (strncmp(others[i], "train.vote_bits", 15) == 0) continue; /* has one legal value */
    const char *both[2] = {others[i], "train.sequences=31"};      /* goes with grains = 31 */
    const int n = strncmp(others[i], "train.grains", 12) == 0 ? 2 : 1;
    if (strncmp(others[i], "train.sequences", 15) == 0) both[0] = "train.sequences=72";
    arb_assert_ok(arb_config_load(&cfg, NULL, both, n));
    arb_assert_ok(arb_config_resolved_text(&cfg, text, sizeof text));
    if (strcmp(base, text) == 0) fail_msg("%s changes nothing", others[i]);
  }
}

static void test_print_tells_origins(void **state) {
  folder *f = *state;
  arb_config cfg;
  char ini[2 * ARB_CONFIG_RESOLVED_BYTES], want[400];
  write_text(f, "[train]\n\nsteps = 900\n");
  const char *set_seed = "run.seed=7";
  arb_assert_ok(arb_config_load(&cfg, f->ini, &set_seed, 1));
  printed(&cfg, ini, sizeof ini);
  snprintf(want, sizeof want, "; from %s:3\nsteps = 900\n", f->ini);
  assert_non_null(strstr(ini, want));
  assert_non_null(strstr(ini, "; from --set run.seed\nseed = 7\n"));
  assert_non_null(strstr(ini, "[train]\n; from"));
  assert_non_null(strstr(ini, "\ncontext = 512\n"));
  assert_null(strstr(ini, "default\ncontext"));
  snprintf(want, sizeof want, "%s:3", f->ini);
  assert_string_equal(arb_config_origin(&cfg, "train.steps"), want);
  assert_string_equal(arb_config_origin(&cfg, "run.seed"), "--set run.seed");
  assert_string_equal(arb_config_origin(&cfg, "run.name"), "default");
}

static void test_small_buffers(void **state) {
  (void)state;
  arb_config cfg;
  char text[ARB_CONFIG_RESOLVED_BYTES];
  arb_config_defaults(&cfg);
  arb_assert_ok(arb_config_resolved_text(&cfg, text, sizeof text));
  const size_t size = strlen(text) + 1;
  char *exact = malloc(size); /* on the heap, where a sanitizer sees a byte too many */
  assert_non_null(exact);
  arb_assert_ok(arb_config_resolved_text(&cfg, exact, size));
  assert_string_equal(exact, text);
  arb_assert_fails(arb_config_resolved_text(&cfg, exact, size - 1), ARB_ERR_ARG, "needs");
  arb_assert_fails(arb_config_identity(&cfg, exact, 10), ARB_ERR_ARG, "needs");
  arb_assert_fails(arb_config_identity(&cfg, NULL, 0), ARB_ERR_ARG, "needs");
  free(exact);
  /* The largest config there can be fits the promised size. */
  memset(cfg.run.name, 1, sizeof cfg.run.name - 1);
  memset(cfg.run.dir, 1, sizeof cfg.run.dir - 1);
  memset(cfg.data.train, 1, sizeof cfg.data.train - 1);
  memset(cfg.data.valid, 1, sizeof cfg.data.valid - 1);
  memset(cfg.sample.prompt, 1, sizeof cfg.sample.prompt - 1);
  arb_assert_ok(arb_config_resolved_text(&cfg, text, sizeof text));
}

/* Text of the most awkward kind still fits its line, comes back, and from another folder too. */
static void test_longest_text(void **state) {
  folder *f = *state;
  arb_config cfg, again;
  static char override[2 * ARB_CONFIG_LINE] = "sample.prompt=\"", text[ARB_CONFIG_RESOLVED_BYTES];
  for (int i = 0; i < ARB_CONFIG_TEXT - 1; i++) strcat(override, "\\x01");
  strcat(override, "\"");
  arb_assert_ok(set(&cfg, override));
  assert_int_equal(strlen(cfg.sample.prompt), ARB_CONFIG_TEXT - 1);
  arb_assert_ok(arb_config_resolved_text(&cfg, text, sizeof text));
  assert_int_equal(chdir("/"), 0);
  arb_assert_ok(load(f, &again, text));
  assert_string_equal(again.sample.prompt, cfg.sample.prompt);
  assert_string_equal(again.run.dir, cfg.run.dir);
  override[strlen(override) - 1] = '\0';
  strcat(override, "\\x01\"");
  arb_assert_fails(set(&cfg, override), ARB_ERR_CONFIG, "1000 bytes long; at most 999 are possible");
}

static void test_full_disk(void **state) {
  (void)state;
  arb_config cfg;
  arb_config_defaults(&cfg);
  FILE *full = fopen("/dev/full", "w");
  if (full == NULL) skip();
  arb_assert_fails(arb_config_print(&cfg, full), ARB_ERR_IO, "No space left");
  fclose(full);
  full = fopen("/dev/full", "w"); /* a write that failed earlier is not forgotten by the time of the flush */
  assert_non_null(full);
  assert_int_equal(setvbuf(full, NULL, _IONBF, 0), 0);
  arb_assert_fails(arb_config_print(&cfg, full), ARB_ERR_IO, "the stream has failed");
  fclose(full);
}

static void test_help(void **state) {
  (void)state;
  static char text[1 << 16];
  FILE *out = tmpfile();
  assert_non_null(out);
  arb_assert_ok(arb_config_help(out));
  rewind(out);
  text[fread(text, 1, sizeof text - 1, out)] = '\0';
  fclose(out);
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    char section[40], line[80];
    const char *dot = strchr(defaults[i], '.');
    const size_t length = strlen(defaults[i]);
    snprintf(section, sizeof section, "[%.*s]\n", (int)(dot - defaults[i]), defaults[i]);
    snprintf(line, sizeof line, "\n  %s%s\n", dot + 1, defaults[i][length - 1] == '=' ? " (empty)" : "");
    const char *head = strstr(text, section);
    if (head == NULL || strstr(head, line) == NULL) fail_msg("help lacks %s", defaults[i]);
  }
  assert_non_null(strstr(text, "a whole number from 32 to 65536, a multiple of 32"));
  assert_non_null(strstr(text, "a decimal number above 0 and below 0.25: a step may move an accumulator by at most 42 units"));
  assert_non_null(strstr(text, "auto or ref or cpu or cuda"));
  assert_non_null(strstr(text, "8 (16: not available in this build)"));
  assert_non_null(strstr(text, "[seconds]"));
}

static void test_identity(void **state) {
  (void)state;
  static const char want[] =
      "run.seed=1\nmodel.dim=512\nmodel.embed_channels=256\nmodel.layers=6\nmodel.glu_hidden=1408\nmodel.memory=on\n"
      "train.steps=800\ntrain.sequences=64\ntrain.context=512\ntrain.grains=8\ntrain.peak=0x1.eb851ep-4\ntrain.floor=0x1."
      "99999ap-3\n"
      "train.warmup=100\n"
      "train.vote_bits=8\n";
  char base[ARB_CONFIG_RESOLVED_BYTES], text[ARB_CONFIG_RESOLVED_BYTES];
  arb_config cfg;
  arb_config_defaults(&cfg);
  arb_assert_ok(arb_config_identity(&cfg, base, sizeof base));
  assert_string_equal(base, want);
  /* A key changes the identity just when it is listed there. */
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    char key[64];
    snprintf(key, sizeof key, "%.*s=", (int)strcspn(others[i], "="), others[i]);
    if (strcmp(key, "train.vote_bits=") == 0) continue;
    const char *both[2] = {others[i], "train.sequences=31"};
    const int n = strcmp(key, "train.grains=") == 0 ? 2 : 1;
    if (strcmp(key, "train.sequences=") == 0) both[0] = "train.sequences=72";
    arb_assert_ok(arb_config_load(&cfg, NULL, both, n));
    arb_assert_ok(arb_config_identity(&cfg, text, sizeof text));
    const int when_set = strcmp(key, "model.image=") == 0 || strcmp(key, "model.audio=") == 0;
    if (when_set && strstr(text, others[i]) == NULL) fail_msg("%s: identity is\n%s", others[i], text);
    if ((strcmp(base, text) != 0) != (when_set || strstr(want, key) != NULL)) fail_msg("%s: identity is\n%s", others[i], text);
  }
  /* The last bit of a float counts. */
  arb_assert_ok(set(&cfg, "train.peak=0.120000005"));
  arb_assert_ok(arb_config_identity(&cfg, text, sizeof text));
  assert_non_null(strstr(text, "train.peak=0x1.eb852p-4\n"));
}

static void test_rules(void **state) {
  folder *f = *state;
  assert_refused(f, "[train]\ngrains = 4\nsequences = 30\n", 3, "train.sequences = 30 is not a multiple of train.grains = 4");
  assert_refused(f, "[train]\n\ngrains = 7\n", 3, "train.sequences = 64 is not a multiple of train.grains = 7");
  assert_refused(f, "[train]\nsteps = 50\n", 2, "train.warmup = 100 is more than train.steps = 50");
  assert_refused(f, "[train]\nwarmup = 101\nsteps = 100\n", 2, "train.warmup = 101 is more than train.steps = 100");
  assert_refused(
      f, "[run]\ngrains_at_once = 7\n[train]\nfused_update = yes\n", 2,
      "run.grains_at_once = 7 is less than train.grains = 8, but train.fused_update = yes updates a matrix after one "
      "batch: expected 0, or all grains");
  arb_config cfg;
  arb_assert_ok(load(f, &cfg, "[run]\ngrains_at_once = 8\n[train]\nfused_update = yes\n"));
  arb_assert_ok(arb_config_check_ranks(&cfg, 1));
  arb_assert_fails(arb_config_check_ranks(&cfg, 2), ARB_ERR_CONFIG, "train.fused_update = yes, but 2 ranks were started");
  arb_assert_ok(load(f, &cfg, "[train]\nwarmup = 100\nsteps = 100\n"));
  assert_set_refused("train.peak=0.25",
                     "--set train.peak=0.25: expected a decimal number above 0 and below 0.25: a step may move an accumulator "
                     "by at most 42 units, so peak x 42 x 4 must stay below 42");
  arb_assert_ok(set(&cfg, "train.peak=0.24999999"));
  assert_true(cfg.train.peak * 42.0f * 4.0f < 42.0f);
  /* A key that was not understood raises no second mistake through a rule. */
  assert_refused(f, "[train]\ngrains = many\nsequences = 30\n", 2, "train.grains = 'many'");
}

static void test_check(void **state) {
  (void)state;
  arb_config cfg;
  arb_config_defaults(&cfg);
  arb_assert_ok(arb_config_check(&cfg, 0));
  arb_assert_fails(arb_config_check(&cfg, ARB_CONFIG_NEED_TRAIN), ARB_ERR_CONFIG, "data.train: needed for training");
  arb_assert_fails(arb_config_check(&cfg, ARB_CONFIG_NEED_VALID), ARB_ERR_CONFIG, "data.valid: needed for evaluation");
  arb_assert_fails(arb_config_check(&cfg, 4), ARB_ERR_ARG, "need");
  snprintf(cfg.data.train, sizeof cfg.data.train, "/x");
  arb_assert_ok(arb_config_check(&cfg, ARB_CONFIG_NEED_TRAIN));
  /* A program that changes fields gets the ranges and the rules, all at once. */
  cfg.model.dim = 48;
  cfg.train.grains = 0;
  cfg.train.peak = NAN;
  cfg.run.device = 9;
  cfg.train.vote_bits = 16;
  cfg.run.name[0] = '\0';
  assert_int_equal(arb_config_check(&cfg, ARB_CONFIG_NEED_VALID), ARB_ERR_CONFIG);
  assert_int_equal(mistakes(), 7);
  assert_non_null(strstr(arb_fail_message(), "default: model.dim: expected a whole number from 32 to 65536, a multiple of 32"));
  assert_non_null(strstr(arb_fail_message(), "train.vote_bits: not available in this build; expected 8"));
  arb_fail_clear();
}

/* Manifests, encoders and samples of images and recordings. */
static void test_check_media(void **state) {
  (void)state;
  const unsigned both = ARB_CONFIG_NEED_TRAIN | ARB_CONFIG_NEED_VALID;
  arb_config cfg;
  const char *const good[] = {"data.pairs=/p", "data.valid_pairs=/q", "model.audio=yes", "sidecars.moonshine=synthetic",
                              "sample.audio=/a"};
  arb_assert_ok(arb_config_load(&cfg, NULL, good, 5));
  arb_assert_ok(arb_config_check(&cfg, both));
  const char *const text[] = {"data.pairs=/p", "data.train=/t"};
  arb_assert_ok(arb_config_load(&cfg, NULL, text, 2));
  arb_assert_fails(arb_config_check(&cfg, 0), ARB_ERR_CONFIG, "--set data.train: data.train and a manifest of pairs are given");
  arb_assert_ok(arb_config_load(&cfg, NULL, text, 1));
  arb_assert_ok(arb_config_check(&cfg, ARB_CONFIG_NEED_TRAIN));
  arb_assert_fails(arb_config_check(&cfg, both), ARB_ERR_CONFIG, "data.valid_pairs: needed for evaluation");
  const char *const valid[] = {"data.valid_pairs=/p"};
  arb_assert_ok(arb_config_load(&cfg, NULL, valid, 1));
  arb_assert_fails(arb_config_check(&cfg, ARB_CONFIG_NEED_TRAIN), ARB_ERR_CONFIG, "data.pairs: needed for training");
  const char *const image[] = {"model.image=yes"};
  arb_assert_ok(arb_config_load(&cfg, NULL, image, 1));
  arb_assert_fails(arb_config_check(&cfg, both), ARB_ERR_CONFIG, "model.image = yes needs data.pairs");
  arb_assert_fails(arb_config_check(&cfg, 0), ARB_ERR_CONFIG,
                   "needs sidecars.dino: a folder of weights, or the word synthetic");
  const char *const sample[] = {"sample.image=/i"};
  arb_assert_ok(arb_config_load(&cfg, NULL, sample, 1));
  arb_assert_fails(arb_config_check(&cfg, 0), ARB_ERR_CONFIG,
                   "--set sample.image: sample.image is given, but model.image = no");
}

static void test_check_ranks(void **state) {
  folder *f = *state;
  arb_config cfg;
  arb_assert_ok(load(f, &cfg, "[train]\nsequences = 8\ngrains = 4\n"));
  arb_assert_ok(arb_config_check_ranks(&cfg, 1));
  arb_assert_ok(arb_config_check_ranks(&cfg, 4));
  arb_assert_fails(arb_config_check_ranks(&cfg, 5), ARB_ERR_CONFIG, at(f, 3, "train.grains = 4, but 5 ranks were started"));
  arb_assert_fails(arb_config_check_ranks(&cfg, 0), ARB_ERR_ARG, "ranks = 0");
  arb_config_defaults(&cfg);
  arb_assert_fails(arb_config_check_ranks(&cfg, 9), ARB_ERR_CONFIG, "default: train.grains = 8, but 9 ranks");
}

/* Mistakes of the file, of overrides and of rules come in one message; the first 12 are listed. */
static void test_all_at_once(void **state) {
  folder *f = *state;
  arb_config cfg;
  const char *const overrides[] = {"eval.evry=3", "train.context=1e3"};
  write_text(f, "[train]\nstepz = 1\ngrains = 7\n[modle]\ndim = 1\n[eval]\nevery = x\n");
  assert_int_equal(arb_config_load(&cfg, f->ini, overrides, 2), ARB_ERR_CONFIG);
  char want[2048];
  snprintf(want, sizeof want,
           "%s:2: unknown key 'stepz' in [train]; did you mean steps?\n"
           "%s:4: unknown section [modle]; did you mean [model]?\n"
           "%s:7: eval.every = 'x': expected a whole number from 0 to 1000000000\n"
           "--set eval.evry=3: unknown key; did you mean eval.every?\n"
           "--set train.context=1e3: expected a whole number from 8 to 1048576\n"
           "%s:3: train.sequences = 64 is not a multiple of train.grains = 7",
           f->ini, f->ini, f->ini, f->ini);
  assert_string_equal(arb_fail_message(), want);
  arb_fail_clear();

  char many[600] = "[train]\n";
  for (int i = 0; i < 13; i++) strcat(many, "qqqqqqqqqqqqqq = 1\n");
  assert_int_equal(load(f, &cfg, many), ARB_ERR_CONFIG);
  assert_int_equal(mistakes(), 13);
  assert_non_null(strstr(arb_fail_message(), at(f, 13, "unknown key")));
  assert_null(strstr(arb_fail_message(), at(f, 14, "unknown key")));
  assert_non_null(strstr(arb_fail_message(), "\nand 1 more mistake"));
  arb_fail_clear();

  /* Long messages: fewer fit, and the count still reaches the reader. */
  char wide[100] = "train.peak=";
  memset(wide + strlen(wide), '1', sizeof wide - strlen(wide) - 1);
  const char *wide_ones[20];
  for (int i = 0; i < 20; i++) wide_ones[i] = wide;
  assert_int_equal(arb_config_load(&cfg, NULL, wide_ones, 20), ARB_ERR_CONFIG);
  const char *more = strstr(arb_fail_message(), "\nand ");
  assert_non_null(more);
  assert_true(mistakes() < 13);
  assert_int_equal(strtol(more + 5, NULL, 10) + mistakes() - 1, 20);
  assert_string_equal(more + strlen(more) - 14, " more mistakes");
  arb_fail_clear();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_defaults),
      cmocka_unit_test_setup_teardown(test_print_round_trip, folder_setup, folder_teardown),
      cmocka_unit_test(test_every_key_is_written),
      cmocka_unit_test_setup_teardown(test_print_tells_origins, folder_setup, folder_teardown),
      cmocka_unit_test(test_small_buffers),
      cmocka_unit_test_setup_teardown(test_longest_text, folder_setup, folder_teardown),
      cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_check_media),
      cmocka_unit_test(test_help),
      cmocka_unit_test(test_identity),
      cmocka_unit_test_setup_teardown(test_rules, folder_setup, folder_teardown),
      cmocka_unit_test(test_check),
      cmocka_unit_test_setup_teardown(test_check_ranks, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_all_at_once, folder_setup, folder_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
