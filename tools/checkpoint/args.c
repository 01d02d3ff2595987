#include "tools/checkpoint/args.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const char *arb_tool_usage(void) {
  return "usage: arbckpt COMMAND DIR ...\n"
         "\n"
         "DIR is a run's folder, its checkpoints folder, or one step-XXXXXXXX folder. Of the first two, the\n"
         "newest checkpoint that verifies is taken, or --step N.\n"
         "\n"
         "  ls DIR                       the checkpoints of a folder, or the tensors of one checkpoint\n"
         "  cat DIR TENSOR[.FIELD]       values as text, a row a line; FIELD: code (the default), e, p, or\n"
         "                               r, c, m (log2 in 1/65536). Also meta.identity and meta.config\n"
         "      --rows A:B               from row A up to, not including, B\n"
         "      --trits, --accumulators  what a code stands for, in place of its number\n"
         "  stat DIR [TENSOR]            trits, accumulators, exponents, statistics; of one with bar charts\n"
         "  diff A B                     what changed from A to B. Exit code 1: state or identity differ.\n"
         "                               Settings that do not decide the state (run.dir) are only listed\n"
         "  verify DIR                   everything, of all checkpoints of a folder: structure, every digest,\n"
         "                               legal codes, and the state digest recomputed from the content\n"
         "  digest DIR                   the state digest, recomputed from the content\n"
         "  export DIR FILE.safetensors  trits and exponents for other programs; W = 2^(E/8) * T\n"
         "\n"
         "  --step N, --help, --version\n"
         "  --unverified                 looks into one checkpoint although its digests do not match, to\n"
         "                               rescue what is left; needs a step folder or --step N\n"
         "\n"
         "All of a checkpoint is verified before anything of it is shown. Files are read by a child\n"
         "process with limits on memory and time.\n"
         "exit codes: 0 done, 1 different (diff), 2 command line, 4 checkpoint, 7 machine\n";
}

static const struct {
  const char *name;
  arb_tool_command command;
  int least, most; /* words after it */
} commands[] = {{"ls", ARB_TOOL_LS, 1, 1},         {"cat", ARB_TOOL_CAT, 2, 2},       {"stat", ARB_TOOL_STAT, 1, 2},
                {"diff", ARB_TOOL_DIFF, 2, 2},     {"verify", ARB_TOOL_VERIFY, 1, 1}, {"digest", ARB_TOOL_DIGEST, 1, 1},
                {"export", ARB_TOOL_EXPORT, 2, 2}, {"help", ARB_TOOL_HELP, 0, 0}};

/* A number without sign, blanks or other decoration, up to `end`. */
static bool number(const char *text, const char **end, int64_t *out) {
  char *after;
  if (text[0] < '0' || text[0] > '9') return false;
  errno = 0;
  *out = strtoll(text, &after, 10);
  *end = after;
  return errno == 0;
}

static arb_status parse_step(const char *text, int64_t *out) {
  const char *end;
  ARB_REQUIRE(text != NULL && number(text, &end, out) && *end == '\0', ARB_ERR_CONFIG, "--step %s: expected a step, 0 or more",
              text != NULL ? text : "(nothing)");
  return ARB_OK;
}

/* A:B, A:, :B */
static arb_status parse_rows(const char *text, arb_tool_args *out) {
  const char *at = text != NULL ? text : "";
  bool good = true;
  out->begin = 0, out->end = -1;
  if (*at != ':') good = number(at, &at, &out->begin);
  good = good && *at == ':';
  if (good && *++at != '\0') good = number(at, &at, &out->end) && *at == '\0' && out->end >= out->begin;
  ARB_REQUIRE(good, ARB_ERR_CONFIG, "--rows %s: expected A:B with A <= B, the rows from A up to, not including, B",
              text != NULL ? text : "(nothing)");
  return ARB_OK;
}

/* Options that take no value or the next word; *i moves past what was taken. */
static arb_status parse_option(int argc, char **argv, int *i, arb_tool_args *out, bool *rows, bool *show) {
  const char *a = argv[*i], *next = *i + 1 < argc ? argv[*i + 1] : NULL;
  if (strcmp(a, "--step") == 0) {
    ++*i;
    return parse_step(next, &out->step);
  }
  if (strncmp(a, "--step=", 7) == 0) return parse_step(a + 7, &out->step);
  if (strcmp(a, "--rows") == 0 || strncmp(a, "--rows=", 7) == 0) {
    *rows = true;
    *i += a[6] == '\0';
    return parse_rows(a[6] == '\0' ? next : a + 7, out);
  }
  if (strcmp(a, "--unverified") == 0) {
    out->unverified = true;
    return ARB_OK;
  }
  const bool trits = strcmp(a, "--trits") == 0;
  ARB_REQUIRE(trits || strcmp(a, "--accumulators") == 0, ARB_ERR_CONFIG, "unknown option %s; see arbckpt --help", a);
  ARB_REQUIRE(!*show, ARB_ERR_CONFIG, "--trits or --accumulators, once");
  *show = true;
  out->show = trits ? ARB_SHOW_TRITS : ARB_SHOW_ACCUMULATORS;
  return ARB_OK;
}

arb_status arb_tool_args_parse(int argc, char **argv, arb_tool_args *out) {
  const char *words[3] = {NULL, NULL, NULL};
  int count = 0;
  bool rows = false, show = false;
  *out = (arb_tool_args){.step = -1, .end = -1};
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--version") == 0) {
      out->command = argv[i][2] == 'v' ? ARB_TOOL_VERSION : ARB_TOOL_HELP;
      return ARB_OK;
    }
    if (argv[i][0] == '-') {
      ARB_TRY(parse_option(argc, argv, &i, out, &rows, &show));
    } else {
      ARB_REQUIRE(count < 3, ARB_ERR_CONFIG, "one word too many: %s; see arbckpt --help", argv[i]);
      words[count++] = argv[i];
    }
  }
  ARB_REQUIRE(count > 0, ARB_ERR_CONFIG, "no command given; see arbckpt --help");
  const size_t known = sizeof commands / sizeof *commands;
  size_t c = 0;
  while (c < known && strcmp(words[0], commands[c].name) != 0) c++;
  ARB_REQUIRE(c < known, ARB_ERR_CONFIG, "unknown command %s; see arbckpt --help", words[0]);
  ARB_REQUIRE(count - 1 >= commands[c].least && count - 1 <= commands[c].most, ARB_ERR_CONFIG,
              "%s: %d words after it, expected %d%s; see arbckpt --help", words[0], count - 1, commands[c].least,
              commands[c].most > commands[c].least ? " or 2" : "");
  out->command = commands[c].command;
  ARB_REQUIRE((!rows && !show) || out->command == ARB_TOOL_CAT, ARB_ERR_CONFIG,
              "--rows, --trits and --accumulators belong to cat");
  ARB_REQUIRE(!out->unverified || out->command != ARB_TOOL_VERIFY, ARB_ERR_CONFIG, "verify --unverified: what should it do?");
  out->dir = words[1];
  out->what = words[2];
  return ARB_OK;
}
