/* Malformed and unusual ini files: each is read as meant or refused with the right line. */
#include <sys/stat.h>

#include "tests/config/config_file.h"

static void test_empty_and_plain(void **state) {
  folder *f = *state;
  arb_config cfg;
  arb_assert_ok(load(f, &cfg, ""));
  arb_assert_ok(load(f, &cfg, "\n\n; nothing\n  # indented comment\n"));
  assert_int_equal(cfg.train.steps, 800);
  arb_assert_ok(load(f, &cfg, "[train]\nsteps = 900")); /* no final newline */
  assert_int_equal(cfg.train.steps, 900);
  arb_assert_ok(load(f, &cfg, "[train]\t\nsteps\t=\t901 \t\n[run] ; c\nseed=2\n"));
  assert_int_equal(cfg.train.steps, 901);
  assert_true(cfg.run.seed == 2);
}

static void test_line_ends(void **state) {
  folder *f = *state;
  arb_config cfg;
  arb_assert_ok(load(f, &cfg, "[train]\r\nsteps = 900\r\n\r\n[run]\r\nname = a\r\n"));
  assert_int_equal(cfg.train.steps, 900);
  assert_string_equal(cfg.run.name, "a");
  arb_assert_ok(load(f, &cfg, "\xEF\xBB\xBF[train]\nsteps = 900\n"));
  assert_int_equal(cfg.train.steps, 900);
  assert_refused(f, "\xEF\xBB\xBF[train]\nstep = 900\n", 2, "unknown key 'step'");
  assert_refused(f, "\xEF\xBB\xBF\xEF\xBB\xBF[train]\n", 1, "'\xEF\xBB\xBF[train]': expected key = value");
  assert_refused(f, "[train]\rsteps = 900\r", 1, "a carriage return inside a line");
  assert_refused(f, "; all in a comment\r[train]\rsteps = 900\r", 1, "a carriage return inside a line");
  assert_refused(f, "[train]\nsteps = 9\r00\n", 2, "a carriage return inside a line");
  assert_refused(f, "[train]\nsteps = 900\r\r\n", 2, "a carriage return");
}

static void test_not_text(void **state) {
  folder *f = *state;
  arb_config cfg;
  static const char nul[] = "[train]\n\nsteps = 9\0 00\nstepz = 3\n";
  write_bytes(f, nul, sizeof nul - 1);
  assert_int_equal(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG);
  assert_string_equal(arb_fail_message(), at(f, 3, "a NUL byte; is this a binary or UTF-16 file?"));
  arb_fail_clear();
  static const char le[] = "\xFF\xFE[\0t\0r\0a\0i\0n\0]\0\n\0", be[] = "\xFE\xFF\0[\0t", bare[] = "[\0t\0r\0]\0\n\0x\0";
  write_bytes(f, le, sizeof le - 1);
  arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, at(f, 1, "UTF-16 text; save the file as UTF-8"));
  write_bytes(f, be, sizeof be - 1);
  arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, at(f, 1, "UTF-16 text"));
  write_bytes(f, bare, sizeof bare - 1);
  arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, at(f, 1, "a NUL byte"));
  write_bytes(f, "; \0", 3); /* in a comment as well */
  arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, at(f, 1, "a NUL byte"));
  assert_refused(f, "[run]\nname = a\x1b[31mb\n", 2, "control byte 0x1b");
  assert_refused(f, "[run]\nname = a\x7f\n", 2, "control byte 0x7f");
}

static void test_long_lines(void **state) {
  folder *f = *state;
  arb_config cfg;
  static char text[3 * ARB_CONFIG_LINE];
  char path[ARB_CONFIG_TEXT];
  /* A path around and far beyond the 200 bytes of inih's buffer, with a comment behind it. */
  for (size_t length = 180; length < sizeof path; length += length < 205 ? 1 : 113) {
    memset(path, 'p', length);
    path[0] = '/';
    path[length] = '\0';
    snprintf(text, sizeof text, "[data]\ntrain = %s ; and a comment\nvalid = /v\n[train]\nsteps = 900\n", path);
    arb_assert_ok(load(f, &cfg, text));
    assert_string_equal(cfg.data.train, path);
    assert_string_equal(cfg.data.valid, "/v");
    assert_int_equal(cfg.train.steps, 900);
  }
  /* A comment of any length; the lines after it keep their numbers. */
  memset(text, 'c', 2 * ARB_CONFIG_LINE);
  text[0] = ';';
  strcpy(text + 2 * ARB_CONFIG_LINE, "\n\n[train]\nstepz = 900\n");
  assert_refused(f, text, 4, "unknown key 'stepz'");
  /* The longest line and one byte more: blanks between key and value fill it. */
  strcpy(text, "[train]\nsteps =");
  memset(text + 15, ' ', ARB_CONFIG_LINE);
  strcpy(text + 8 + ARB_CONFIG_LINE - 3, "900\n");
  arb_assert_ok(load(f, &cfg, text));
  assert_int_equal(cfg.train.steps, 900);
  strcpy(text + 8 + ARB_CONFIG_LINE - 3, "9000\nstepz = 1\n");
  assert_int_equal(load(f, &cfg, text), ARB_ERR_CONFIG);
  assert_int_equal(mistakes(), 2);
  assert_non_null(strstr(arb_fail_message(), at(f, 2, "a line of 4097 bytes; at most 4096 are possible\n")));
  assert_non_null(strstr(arb_fail_message(), at(f, 3, "unknown key 'stepz'")));
  arb_fail_clear();
}

static void test_huge_file(void **state) {
  folder *f = *state;
  arb_config cfg;
  const size_t ten = (size_t)10 << 20;
  char *big = malloc(ten);
  assert_non_null(big);
  memset(big, 'x', ten);
  write_bytes(f, big, ten); /* one line of 10 MiB */
  arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, "larger than 1048576 bytes");
  big[0] = '#';
  write_bytes(f, big, ARB_CONFIG_FILE_BYTES);
  arb_assert_ok(arb_config_load(&cfg, f->ini, NULL, 0));
  write_bytes(f, big, ARB_CONFIG_FILE_BYTES + 1);
  arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, "larger than 1048576 bytes");
  free(big);
}

static void test_unreadable(void **state) {
  folder *f = *state;
  arb_config cfg;
  char want[600];
  snprintf(want, sizeof want, "%s: cannot open the config: No such file or directory", f->ini);
  arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, want);
  snprintf(want, sizeof want, "%s: cannot read the config: Is a directory", f->dir);
  arb_assert_fails(arb_config_load(&cfg, f->dir, NULL, 0), ARB_ERR_CONFIG, want);
  arb_assert_fails(arb_config_load(&cfg, "/dev/zero", NULL, 0), ARB_ERR_CONFIG, "Not a regular file");
  arb_assert_fails(arb_config_load(&cfg, "", NULL, 0), ARB_ERR_CONFIG, "No such file");
  assert_int_equal(mkfifo(f->ini, 0600), 0);
  arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, "Not a regular file"); /* and does not hang */
  unlink(f->ini);
  write_bytes(f, "", 0);
  assert_int_equal(chmod(f->ini, 0), 0);
  if (geteuid() != 0) arb_assert_fails(arb_config_load(&cfg, f->ini, NULL, 0), ARB_ERR_CONFIG, "Permission denied");
}

static void test_sections(void **state) {
  folder *f = *state;
  assert_refused(f, "[trian]\nsteps = 9\n", 1, "unknown section [trian]; did you mean [train]?");
  assert_refused(f, "\n[zebra]\nsteps = 9\n", 2,
                 "unknown section [zebra]; sections are [run] [model] [data] [sidecars] [train] [eval] [sample] [checkpoint] "
                 "[dist] [debug]");
  assert_refused(f, "[]\nsteps = 9\n", 1, "unknown section []; sections are");
  assert_refused(f, "[ train ]\nsteps = 9\n", 1, "unknown section [ train ]; did you mean [train]?");
  assert_refused(f, "[Train]\n", 1, "unknown section [Train]; did you mean [train]?");
  assert_refused(f, "[train\nsteps = 9\n", 1, "section header without ']'");
  assert_refused(f, "[train]\n[run]\n# c\n[train]\n", 4, "section [train] was already opened on line 1");
  assert_refused(f, "[train]\n[train]\n", 2, "section [train] was already opened on line 1");
  assert_refused(f, "[train] steps = 9\n", 1, "'steps = 9' after a section header");
  assert_refused(f, "[train]]\n", 1, "']' after a section header");
  assert_refused(f, " [train]\nsteps = 900\n", 1, "the line starts with a blank");
  char text[300] = "[train]\n[";
  for (int i = 0; i < 41; i++) strcat(text, "x");
  strcat(text, "]\nsteps = 9\n");
  assert_refused(f, text, 2, "section name of 41 bytes [xxxxxxxx");
  arb_config cfg; /* keys of a repeated section are still looked at */
  assert_int_equal(load(f, &cfg, "[train]\n[run]\n[train]\nstepz = 3\n"), ARB_ERR_CONFIG);
  assert_int_equal(mistakes(), 2);
  arb_fail_clear();
}

static void test_key_lines(void **state) {
  folder *f = *state;
  assert_refused(f, "; c\nsteps = 9\n[train]\n", 2, "key 'steps' before any [section]; did you mean [train] steps?");
  assert_refused(f, "[train]\nsteps\n", 2, "'steps': expected key = value");
  assert_refused(f, "[train]\nsteps: 900\n", 2, "'steps: 900': expected key = value ('=', not ':')");
  assert_refused(f, "[train]\nsteps: x = 900\n", 2, "'steps: x = 900': expected key = value ('=', not ':')");
  assert_refused(f, "[train]\nsteps ; = 900\n", 2, "'steps ; = 900': expected key = value");
  assert_refused(f, "[train]\n= 900\n", 2, "no key before '='");
  assert_refused(f, "[train]\n=\n", 2, "no key before '='");
  assert_refused(f, "[train]\nsteps = 900\n  context = 64\n", 3, "the line starts with a blank");
  assert_refused(f, "[run]\n\tname = x\n", 2, "the line starts with a blank");
  assert_refused(f, "[train]\nsteps =\n", 2, "train.steps = '': expected a whole number");
  char text[300] = "[train]\n";
  for (int i = 0; i < 250; i++) strcat(text, "k");
  strcat(text, " = 1\n");
  assert_refused(f, text, 2, "unknown key 'kkkkkkkk");
  /* A continuation would have given steps a second value in silence. */
  arb_config cfg;
  assert_int_equal(load(f, &cfg, "[train]\nsteps = 900\n 5\n"), ARB_ERR_CONFIG);
  assert_non_null(strstr(arb_fail_message(), at(f, 3, "'5': expected key = value")));
  arb_fail_clear();
}

static void test_duplicates(void **state) {
  folder *f = *state;
  assert_refused(f, "[train]\nsteps = 900\n\n; c\nsteps = 900\n", 5, "train.steps was already set on line 2");
  arb_config cfg; /* a third one names the first line again; a bad first one counts */
  assert_int_equal(load(f, &cfg, "[train]\nsteps = x\nsteps = 2\nsteps = 3\n"), ARB_ERR_CONFIG);
  assert_int_equal(mistakes(), 3);
  assert_non_null(strstr(arb_fail_message(), at(f, 4, "train.steps was already set on line 2")));
  arb_fail_clear();
  arb_assert_ok(load(f, &cfg, "[eval]\nevery = 1\n[sample]\nevery = 2\n")); /* same name, other section */
  assert_int_equal(cfg.eval.every, 1);
  assert_int_equal(cfg.sample.every, 2);
}

static void test_did_you_mean(void **state) {
  folder *f = *state;
  assert_refused(f, "[train]\nSteps = 9\n", 2, "unknown key 'Steps' in [train]; did you mean steps?");
  assert_refused(f, "[train]\nSTEPS = 9\n", 2, "unknown key 'STEPS' in [train]; did you mean steps?");
  assert_refused(f, "[train]\nsetps = 9\n", 2, "unknown key 'setps' in [train]; did you mean steps?");
  assert_refused(f, "[train]\nlogevery = 9\n", 2, "unknown key 'logevery' in [train]; did you mean log_every?");
  assert_refused(f, "[model]\ncontext = 9\n", 2, "unknown key 'context' in [model]; did you mean [train] context?");
  assert_refused(f, "[model]\ncontxt = 9\n", 2, "unknown key 'contxt' in [model]; did you mean [train] context?");
  assert_refused(f, "[train]\nevery = 9\n", 2,
                 "unknown key 'every' in [train]; did you mean [eval] every or [sample] every or [checkpoint] every?");
  arb_config cfg;
  arb_assert_fails(load(f, &cfg, "[train]\nlearning_rate = 9\n"), ARB_ERR_CONFIG, "unknown key 'learning_rate' in [train]");
  assert_int_equal(load(f, &cfg, "[train]\nlearning_rate = 9\n"), ARB_ERR_CONFIG);
  assert_null(strstr(arb_fail_message(), "did you mean"));
  arb_fail_clear();
}

static void test_comments(void **state) {
  folder *f = *state;
  arb_config cfg;
  arb_assert_ok(load(f, &cfg, "[train]\nsteps = 900 ; was = 800 # really\ncontext = 64\t;x\n[run]\nname = a;b#c\n"));
  assert_int_equal(cfg.train.steps, 900);
  assert_int_equal(cfg.train.context, 64);
  assert_string_equal(cfg.run.name, "a;b#c");
  assert_refused(f, "[train]\nsteps = 900 # more\n", 2, "'#' after the value of 'steps' would become part of it");
  assert_refused(f, "[run]\nname = a\t# b\n", 2, "'#' after the value of 'name'");
  assert_refused(f, "[run]\nname = #a\n", 2, "the value of 'name' starts with '#'");
  assert_refused(f, "[run]\nname =;a\n", 2, "the value of 'name' starts with ';'");
  assert_refused(f, "[sample]\nprompt = ; none\n", 2, "the value of 'prompt' starts with ';'");
  assert_refused(f, "[train]\nsteps = 9;00\n", 2, "train.steps = '9;00'");
  arb_assert_ok(load(f, &cfg, "[sample]\nprompt =\n"));
  assert_string_equal(cfg.sample.prompt, "");
}

/* A file name too long for a message keeps its tail and its line. */
static void test_long_file_name(void **state) {
  folder *f = *state;
  arb_config cfg;
  char path[720], deep[700] = "";
  strcpy(deep, f->dir);
  for (int i = 0; i < 150; i++) strcat(deep, "/.");
  snprintf(path, sizeof path, "%s/t.ini", deep);
  write_text(f, "[train]\nsteps = 900\n");
  arb_assert_ok(arb_config_load(&cfg, path, NULL, 0));
  const char *origin = arb_config_origin(&cfg, "train.steps");
  assert_true(strlen(origin) < ARB_CONFIG_ORIGIN);
  assert_memory_equal(origin, "...", 3);
  assert_string_equal(origin + strlen(origin) - 10, "/./t.ini:2");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_empty_and_plain, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_line_ends, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_not_text, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_long_lines, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_huge_file, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_unreadable, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_sections, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_key_lines, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_duplicates, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_did_you_mean, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_comments, folder_setup, folder_teardown),
      cmocka_unit_test_setup_teardown(test_long_file_name, folder_setup, folder_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
