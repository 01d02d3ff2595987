/* Values of every type, text in quotes, paths, overrides, and independence of the locale. */
#include <locale.h>

#include "tests/config/config_file.h"

/* One call per text, so that a failure names it. */
static void refuse_all(const char *key, const char *const *texts, const char *expected) {
  arb_config cfg;
  for (; *texts != NULL; texts++) {
    char override[200];
    snprintf(override, sizeof override, "%s=%s", key, *texts);
    arb_fail_clear();
    if (set(&cfg, override) != ARB_ERR_CONFIG) fail_msg("accepted %s", override);
    if (strstr(arb_fail_message(), expected) == NULL) fail_msg("%s: '%s' lacks '%s'", override, arb_fail_message(), expected);
    arb_fail_clear();
  }
}

static void test_whole_numbers(void **state) {
  folder *f = *state;
  arb_config cfg;
  static const char *const bad[] = {"12abc",
                                    "0x10",
                                    " 0x10",
                                    "1e3",
                                    "99999999999999999999",
                                    "-1",
                                    "nan",
                                    "inf",
                                    "1,5",
                                    "1.0",
                                    "",
                                    " 5",
                                    "5 ",
                                    "+5",
                                    "007",
                                    "--5",
                                    "-",
                                    "1_000",
                                    "٣",
                                    "18446744073709551616",
                                    "9223372036854775808",
                                    "-9223372036854775808",
                                    "0",
                                    "1000000001",
                                    "18446744073709551621",
                                    NULL};
  refuse_all("train.steps", bad, "expected a whole number from 1 to 1000000000");
  static const char *const bad_seed[] = {"-1", "18446744073709551616", "184467440737095516150", "1e3", "", NULL};
  refuse_all("run.seed", bad_seed, "expected a whole number from 0 to 18446744073709551615");
  static const char *const bad_dim[] = {"31", "33", "48", "0", "65537", "65568", NULL};
  refuse_all("model.dim", bad_dim, "expected a whole number from 32 to 65536, a multiple of 32");
  arb_assert_ok(set(&cfg, "run.seed=18446744073709551615"));
  assert_true(cfg.run.seed == UINT64_MAX);
  arb_assert_ok(set(&cfg, "run.seed=0"));
  assert_true(cfg.run.seed == 0);
  arb_assert_ok(set(&cfg, "model.dim=65536"));
  arb_assert_ok(set(&cfg, "model.dim=32"));
  assert_int_equal(cfg.model.dim, 32);
  assert_refused(f, "[train]\nsteps = 12abc\n", 2, "train.steps = '12abc': expected a whole number from 1 to 1000000000");
  assert_refused(f, "[train]\nsteps = \"900\"\n", 2, "train.steps = '\"900\"': expected a whole number");
}

/* First and last legal value of every bounded whole number, and the ones beside them. */
static void test_bounds(void **state) {
  (void)state;
  static const struct {
    const char *key;
    long long min, max, step;
  } rows[] = {
      {"run.threads", 0, 1024, 1},          {"model.embed_channels", 8, 16384, 8}, {"model.layers", 1, 1024, 1},
      {"model.glu_hidden", 32, 262144, 32}, {"train.context", 8, 1048576, 1},      {"train.log_every", 1, 1000000000, 1},
      {"eval.every", 0, 1000000000, 1},     {"eval.sequences", 1, 1048576, 1},     {"sample.top_k", 0, 297, 1},
      {"sample.length", 0, 1048576, 1},     {"checkpoint.keep", 1, 1000000000, 1}, {"dist.timeout_s", 1, 86400, 1}};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    arb_config cfg;
    char text[80];
    const long long good[2] = {rows[i].min, rows[i].max}, bad[2] = {rows[i].min - rows[i].step, rows[i].max + rows[i].step};
    for (int k = 0; k < 2; k++) {
      snprintf(text, sizeof text, "%s=%lld", rows[i].key, good[k]);
      arb_assert_ok(set(&cfg, text));
      snprintf(text, sizeof text, "%s=%lld", rows[i].key, bad[k]);
      arb_assert_fails(set(&cfg, text), ARB_ERR_CONFIG, "expected a whole number");
    }
  }
  arb_config cfg;
  const char *const grains[] = {"train.grains=32", "train.sequences=32"};
  arb_assert_fails(arb_config_load(&cfg, NULL, grains, 2), ARB_ERR_CONFIG, "expected a whole number from 1 to 31");
}

static void test_floats(void **state) {
  (void)state;
  arb_config cfg;
  static const char *const bad[] = {
      "12abc", "0x1p-3", "nan",  "inf",   "-inf",      "infinity", "1,5",   "",     " 0.1",           "0.1 ",
      "+0.1",  ".",      "-.",   "e1",    "1e",        "1e+",      "0.1f",  "1e39", "1e999999999999", "0",
      "-0",    "0.0",    "-0.1", "1e-60", "10.000001", "0..1",     "0.1.2", NULL};
  refuse_all("sample.temperature", bad, "expected a decimal number above 0 and at most 10");
  static const struct {
    const char *text;
    float value;
  } good[] = {{"0.8", 0.8f},
              {"1", 1.0f},
              {".5", 0.5f},
              {"5.", 5.0f},
              {"10", 10.0f},
              {"1e1", 10.0f},
              {"1E-3", 1e-3f},
              {"0.1e+1", 1.0f},
              {"00.5", 0.5f},
              {"1e-40", 1e-40f},
              {"0.50000002980232238769531250000000000000001", 0.50000006f}};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    char text[120];
    snprintf(text, sizeof text, "sample.temperature=%s", good[i].text);
    arb_assert_ok(set(&cfg, text));
    if (!(cfg.sample.temperature == good[i].value)) fail_msg("%s gave %.9g", text, (double)cfg.sample.temperature);
  }
}

/* Every float comes back from its printed form: a spread of bit patterns, subnormal ones included. */
static void test_float_round_trip(void **state) {
  folder *f = *state;
  arb_config cfg, again;
  static char text[ARB_CONFIG_RESOLVED_BYTES];
  arb_config_defaults(&cfg);
  snprintf(cfg.run.dir, sizeof cfg.run.dir, "/r");
  for (uint32_t bits = 1; bits < 0x41200000u; bits += 0x3fffffu) {
    memcpy(&cfg.sample.temperature, &bits, sizeof bits);
    arb_assert_ok(arb_config_resolved_text(&cfg, text, sizeof text));
    arb_assert_ok(load(f, &again, text));
    assert_memory_equal(&again.sample.temperature, &bits, sizeof bits);
  }
}

static void test_bools_and_words(void **state) {
  folder *f = *state;
  arb_config cfg;
  static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
  for (int i = 0; i < 8; i++) {
    char text[64];
    snprintf(text, sizeof text, "debug.poison=%s", words[i]);
    arb_assert_ok(set(&cfg, text));
    assert_int_equal(cfg.debug.poison, i % 2);
  }
  static const char *const bad[] = {"Ture", "True", "YES", "", "2", "y", "yes ", NULL};
  refuse_all("checkpoint.resume", bad, "expected yes or no (or true, false, on, off, 1, 0)");
  static const char *const bad_device[] = {"gpu", "", "CPU", "cpu,cuda", "1", NULL};
  refuse_all("run.device", bad_device, "expected auto or ref or cpu or cuda");
  arb_assert_ok(set(&cfg, "run.device=cuda"));
  assert_int_equal(cfg.run.device, ARB_CONFIG_DEVICE_CUDA);
  arb_assert_ok(set(&cfg, "model.memory=zero"));
  assert_int_equal(cfg.model.memory, ARB_CONFIG_MEMORY_ZERO);
  arb_assert_ok(set(&cfg, "dist.transport=single"));
  assert_int_equal(cfg.dist.transport, ARB_CONFIG_TRANSPORT_SINGLE);
  assert_set_refused("train.vote_bits=16", "--set train.vote_bits=16: not available in this build; expected 8");
  assert_set_refused("train.vote_bits=9", "--set train.vote_bits=9: expected 8");
  arb_assert_ok(set(&cfg, "train.vote_bits=8"));
  assert_refused(f, "[checkpoint]\nresume = Ture\n", 2, "checkpoint.resume = 'Ture': expected yes or no");
}

static void test_text(void **state) {
  folder *f = *state;
  arb_config cfg;
  arb_assert_ok(load(f, &cfg, "[sample]\nprompt = He said \"no\"; it's 100%   x\n"));
  assert_string_equal(cfg.sample.prompt, "He said \"no\"; it's 100%   x");
  arb_assert_ok(load(f, &cfg, "[sample]\nprompt = \" a\\n\\t\\\"\\\\ \\x3b \\x23\\xC3\\xa9 \" ; c\n"));
  assert_string_equal(cfg.sample.prompt, " a\n\t\"\\ ; #\xC3\xA9 ");
  arb_assert_ok(load(f, &cfg, "[sample]\nprompt = \"\"\n"));
  assert_string_equal(cfg.sample.prompt, "");
  arb_assert_ok(load(f, &cfg, "[sample]\nprompt = C:\\new = \xC3\xA9\n")); /* bare: a backslash is a backslash */
  assert_string_equal(cfg.sample.prompt, "C:\\new = \xC3\xA9");
  assert_refused(f, "[sample]\nprompt = \"abc\n", 2, "sample.prompt = '\"abc': no closing quote");
  assert_refused(f, "[sample]\nprompt = \"a ; b\"\n", 2, "sample.prompt = '\"a': no closing quote (\" ;\" starts a comment");
  assert_refused(f, "[sample]\nprompt = abc\"\n", 2, "sample.prompt = 'abc\"': unbalanced quote");
  assert_refused(f, "[sample]\nprompt = \"a\"b\n", 2, "sample.prompt = '\"a\"b': bytes after the closing quote");
  assert_refused(f, "[sample]\nprompt = \"\\q\"\n", 2, "sample.prompt = '\"\\q\"': unknown escape");
  assert_refused(f, "[sample]\nprompt = \"\\x00\"\n", 2, "sample.prompt = '\"\\x00\"': unknown escape");
  assert_refused(f, "[sample]\nprompt = \"\\x1\"\n", 2, "sample.prompt = '\"\\x1\"': unknown escape");
  assert_refused(f, "[sample]\nprompt = \"\\\"\n", 2, "sample.prompt = '\"\\\"': no closing quote");
  assert_set_refused("sample.prompt=\"\\",
                     "--set sample.prompt=\"\\: unknown escape in quotes; expected one of \\\" \\\\ \\n \\r "
                     "\\t \\xHH (not \\x00)");
  arb_assert_ok(set(&cfg, "sample.prompt= two\nlines # and ; all ")); /* the shell has its own quotes and comments */
  assert_string_equal(cfg.sample.prompt, " two\nlines # and ; all ");
}

/* Text of awkward bytes in awkward places comes back from the printed file. */
static void test_text_round_trip(void **state) {
  folder *f = *state;
  arb_config cfg, again;
  static char text[ARB_CONFIG_RESOLVED_BYTES];
  static const char alphabet[] = " \t;#\"\\=a[\n\r\x01\x7f\xff$~:x3";
  uint32_t random = 1;
  arb_config_defaults(&cfg);
  snprintf(cfg.run.dir, sizeof cfg.run.dir, "/r");
  for (int round = 0; round < 400; round++) {
    const int length = round % 7;
    for (int i = 0; i < length; i++) {
      random = random * 1664525u + 1013904223u;
      cfg.sample.prompt[i] = alphabet[(random >> 16) % (sizeof alphabet - 1)];
    }
    cfg.sample.prompt[length] = '\0';
    snprintf(cfg.data.train, sizeof cfg.data.train, "/%.7s", cfg.sample.prompt);
    arb_assert_ok(arb_config_resolved_text(&cfg, text, sizeof text));
    arb_assert_ok(load(f, &again, text));
    assert_string_equal(again.sample.prompt, cfg.sample.prompt);
    assert_string_equal(again.data.train, cfg.data.train);
  }
}

static void test_run_name(void **state) {
  (void)state;
  arb_config cfg;
  static const char *const bad[] = {"", "a/b", "/", "..", ".hidden", "\"a\\n\"", "a\tb", NULL};
  refuse_all("run.name", bad, "expected a folder name (no '/', no leading '.') of at most 127 bytes");
  arb_assert_ok(set(&cfg, "run.name=books 1.2-\xC3\xA9"));
  char text[200] = "run.name=";
  for (int i = 0; i < ARB_CONFIG_NAME - 1; i++) strcat(text, "n");
  arb_assert_ok(set(&cfg, text));
  strcat(text, "n");
  arb_assert_fails(set(&cfg, text), ARB_ERR_CONFIG, "128 bytes long; at most 127 are possible");
}

static void test_paths(void **state) {
  folder *f = *state;
  arb_config cfg;
  char want[600], here[400];
  assert_int_equal(chdir(f->dir), 0);
  assert_non_null(getcwd(here, sizeof here)); /* the folder may be behind a link */
  arb_assert_ok(load(f, &cfg, "[data]\ntrain = d/x y.txt \nvalid = /abs/v\n[run]\ndir = \"./out\"\n"));
  snprintf(want, sizeof want, "%s/d/x y.txt", f->dir);
  assert_string_equal(cfg.data.train, want);
  assert_string_equal(cfg.data.valid, "/abs/v");
  snprintf(want, sizeof want, "%s/out", f->dir);
  assert_string_equal(cfg.run.dir, want);
  /* The file named relatively, from its own folder and from the root. */
  static const char *const from[] = {"t.ini", "./t.ini", ".//t.ini"};
  write_text(f, "[data]\ntrain = d/x\n");
  for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
    arb_assert_ok(arb_config_load(&cfg, from[i], NULL, 0));
    snprintf(want, sizeof want, "%s/d/x", here);
    assert_string_equal(cfg.data.train, want);
  }
  snprintf(want, sizeof want, "%s/runs", here); /* a default is relative to the current folder */
  assert_string_equal(cfg.run.dir, want);
  assert_int_equal(chdir("/"), 0);
  arb_assert_ok(arb_config_load(&cfg, f->ini + 1, NULL, 0));
  snprintf(want, sizeof want, "%s/d/x", f->dir);
  assert_string_equal(cfg.data.train, want);
  assert_string_equal(cfg.run.dir, "/runs");
  assert_int_equal(chdir(f->dir), 0);
  /* Overrides: relative to the current folder, whatever the file's. */
  assert_int_equal(chdir("/tmp"), 0);
  assert_non_null(getcwd(here, sizeof here));
  const char *const override = "data.train=d/y ";
  arb_assert_ok(arb_config_load(&cfg, f->ini, &override, 1));
  snprintf(want, sizeof want, "%s/d/y ", here);
  assert_string_equal(cfg.data.train, want);
  assert_string_equal(arb_config_origin(&cfg, "data.train"), "--set data.train");
  /* One word is not a path, where the key says so. */
  arb_assert_ok(set(&cfg, "sidecars.dino=synthetic"));
  assert_string_equal(cfg.sidecars.dino, "synthetic");
  arb_assert_ok(set(&cfg, "sidecars.dino=./synthetic"));
  snprintf(want, sizeof want, "%s/synthetic", here);
  assert_string_equal(cfg.sidecars.dino, want);
  arb_assert_ok(set(&cfg, "data.train=synthetic"));
  assert_string_equal(cfg.data.train, want);
  arb_assert_ok(set(&cfg, "data.train="));
  assert_string_equal(cfg.data.train, "");
}

static void test_bad_paths(void **state) {
  folder *f = *state;
  arb_config cfg;
  static const char *const bad[] = {"~/x", "~bob/x", "$HOME/x", "/a/${USER}/x", "\"~/x\"", "/a/$", NULL};
  refuse_all("data.train", bad, "'~' and '$' are not expanded in paths; write the path out");
  assert_refused(f, "[data]\ntrain = ~/books\n", 2, "data.train = '~/books': '~' and '$' are not expanded");
  assert_set_refused("run.dir=", "--set run.dir=: expected a path of at most 999 bytes");
  assert_set_refused("data.train=a\nb", "--set data.train=a?b: expected a path of at most 999 bytes");
  arb_assert_ok(set(&cfg, "data.train=/a~b/\"\"c"));
  assert_string_equal(cfg.data.train, "/a~b/\"\"c");
  arb_assert_ok(set(&cfg, "data.train=\"/a/\\x24b\""));
  assert_string_equal(cfg.data.train, "/a/$b");
  char text[ARB_CONFIG_LINE + 200] = "data.train=/";
  memset(text + strlen(text), 'p', ARB_CONFIG_TEXT);
  arb_assert_fails(set(&cfg, text), ARB_ERR_CONFIG, "1001 bytes long; at most 999 are possible");
  memset(text + 11, 'p', ARB_CONFIG_TEXT - 5); /* fits alone, not behind the folder */
  text[11 + ARB_CONFIG_TEXT - 5] = '\0';
  arb_assert_fails(set(&cfg, text), ARB_ERR_CONFIG, "bytes long behind its folder; at most 999 are possible");
  memset(text + 11, 'p', ARB_CONFIG_LINE + 1);
  arb_assert_fails(set(&cfg, text), ARB_ERR_CONFIG, "4097 bytes long; at most 4096 are possible");
}

static void test_overrides(void **state) {
  folder *f = *state;
  arb_config cfg;
  assert_set_refused("train.steps", "--set train.steps: expected section.key=value");
  assert_set_refused("", "--set : expected section.key=value");
  assert_set_refused("=5", "--set =5: expected section.key=value");
  assert_set_refused("steps=5", "--set steps=5: expected section.key=value; did you mean train.steps?");
  assert_set_refused("train.stepz=5", "--set train.stepz=5: unknown key; did you mean train.steps?");
  assert_set_refused("trian.steps=5", "--set trian.steps=5: unknown key; did you mean train.steps?");
  assert_set_refused("train.steps.x=5", "--set train.steps.x=5: unknown key; did you mean train.steps?");
  assert_set_refused("model.context=5", "--set model.context=5: unknown key; did you mean train.context?");
  assert_set_refused("train.qqqqqqqqqq=5", "--set train.qqqqqqqqqq=5: unknown key");
  assert_set_refused(".steps=5", "--set .steps=5: unknown key; did you mean train.steps?");
  assert_set_refused("train. steps=900", "--set train. steps=900: unknown key; did you mean train.steps?");
  assert_set_refused("train.steps= 900", "--set train.steps= 900: expected a whole number from 1 to 1000000000");
  assert_set_refused("train.steps=1\x1b[31m", "--set train.steps=1?[31m: expected a whole number from 1 to 1000000000");
  char long_one[600];
  memset(long_one, 'k', sizeof long_one - 1);
  long_one[sizeof long_one - 1] = '\0';
  long_one[300] = '=';
  arb_assert_fails(set(&cfg, long_one), ARB_ERR_CONFIG, "kkk...: expected section.key=value");
  const char *const twice[] = {"train.steps=900", "run.seed=2", "train.steps=900"};
  arb_assert_fails(arb_config_load(&cfg, NULL, twice, 3), ARB_ERR_CONFIG,
                   "--set train.steps=900: given twice; the first was --set train.steps=900");
  /* The last word over the file, without touching its other keys. */
  write_text(f, "[train]\nsteps = 900\ncontext = 64\n");
  arb_assert_ok(arb_config_load(&cfg, f->ini, twice, 2));
  assert_int_equal(cfg.train.steps, 900);
  assert_int_equal(cfg.train.context, 64);
  assert_true(cfg.run.seed == 2);
  assert_string_equal(arb_config_origin(&cfg, "train.steps"), "--set train.steps");
  arb_assert_ok(set(&cfg, "sample.prompt=a=b"));
  assert_string_equal(cfg.sample.prompt, "a=b");
  arb_assert_fails(arb_config_load(&cfg, NULL, NULL, 1), ARB_ERR_ARG, "overrides");
}

/* Under a locale whose decimal point is a comma everything reads and writes the same. Skipped where none is installed. */
static void test_locale(void **state) {
  (void)state;
  static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
  arb_config cfg;
  static char plain[ARB_CONFIG_RESOLVED_BYTES], there[ARB_CONFIG_RESOLVED_BYTES];
  const char *const overrides[] = {"train.peak=0.123456789", "sample.temperature=1.25e-3"};
  arb_assert_ok(arb_config_load(&cfg, NULL, overrides, 2));
  arb_assert_ok(arb_config_resolved_text(&cfg, plain, sizeof plain));
  bool found = false;
  for (int i = 0; i < 4 && !found; i++) found = setlocale(LC_ALL, names[i]) != NULL;
  if (!found) skip();
  const arb_status st = arb_config_load(&cfg, NULL, overrides, 2);
  const arb_status text = arb_config_resolved_text(&cfg, there, sizeof there);
  arb_config bad;
  const arb_status comma = set(&bad, "sample.temperature=1,5");
  static char identity[ARB_CONFIG_RESOLVED_BYTES];
  const arb_status identified = arb_config_identity(&cfg, identity, sizeof identity);
  setlocale(LC_ALL, "C");
  arb_fail_clear();
  assert_int_equal(st, ARB_OK);
  assert_int_equal(text, ARB_OK);
  assert_string_equal(there, plain);
  assert_int_equal(comma, ARB_ERR_CONFIG);
  assert_int_equal(identified, ARB_OK);
  assert_non_null(strstr(identity, "train.peak=0x1.f9add4p-4\n"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_whole_numbers, folder_setup, folder_teardown),
      cmocka_unit_test(test_bounds),
      cmocka_unit_test(test_floats),
      cmocka_unit_test_setup_teardown(test_float_round_trip, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_bools_and_words, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_text, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_text_round_trip, folder_setup, folder_teardown),
      cmocka_unit_test(test_run_name),
      cmocka_unit_test_setup_teardown(test_paths, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_bad_paths, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_overrides, folder_setup, folder_teardown),
      cmocka_unit_test(test_locale),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
