#include "launch/args.h"

#include <stdlib.h>
#include <string.h>

const char *arb_args_usage(void) {
  return "usage: [mpirun -np N] arbdist [COMMAND] CONFIG.ini [--set SECTION.KEY=VALUE ...] [--loopback N]\n"
         "\n"
         "commands\n"
         "  train       train, continuing from the newest checkpoint that verifies (the default)\n"
         "  eval        validation bits per byte of the newest checkpoint, beside tables of byte counts\n"
         "  generate    text from the newest checkpoint: sample.prompt, .length, .temperature, .top_k\n"
         "  audit       weights, state bytes and memory of a config, counted on its real allocations\n"
         "  plan        memory and traffic by kind, with nothing allocated: needs no GPU and no MPI\n"
         "  bench       gemm | step | votes | all: speed beside a peer in the same run (CONFIG.ini for all but gemm)\n"
         "              votes: the exchange of votes beside one bare sum of MPI or NCCL; two ranks or more\n"
         "              sidecar: time of the encoders of [sidecars], synthetic ones where none is given; of the video VAE\n"
         "              with sidecars.vae; on a GPU (run.device) the CPU's beside it\n"
         "  sidecar     check [WEIGHTS] | encode IMAGE-OR-SOUND | transcribe SOUND, with the encoders of [sidecars]; no\n"
         "              CONFIG.ini is needed: --set sidecars.dino=FOLDER, --set sidecars.moonshine=FOLDER; with\n"
         "              --set sidecars.vae=WEIGHTS: encode IMAGE-OR-FOLDER-OF-FRAMES | decode LATENT --out FOLDER; on the CPU\n"
         "              or a GPU, by run.device: what comes out is the same\n"
         "\n"
         "options\n"
         "  --set SECTION.KEY=VALUE   overrides the file; may be repeated\n"
         "  --loopback N              N ranks as threads of one process, for tests and sanitizers\n"
         "  --dry-run                 plan instead of training\n"
         "  --out FILE                sidecar encode: the features or latent, as safetensors; sidecar decode: FOLDER or "
         "NAME.png\n"
         "  --sidecars                audit the encoders of [sidecars] too\n"
         "  --assume-ranks N          plan for N ranks (otherwise 1)\n"
         "  --help                    this text and every key of the configuration\n"
         "  --version\n"
         "\n"
         "exit codes: 0 done, 2 configuration, 3 data, 4 checkpoint, 5 a peer or the network, 6 numeric, 7 machine,\n"
         "            75 saved on request: run the same command again\n";
}

static int command_of(const char *word, arb_command *out) {
  static const struct {
    const char *name;
    arb_command command;
  } commands[] = {{"train", ARB_COMMAND_TRAIN},     {"eval", ARB_COMMAND_EVAL},      {"generate", ARB_COMMAND_GENERATE},
                  {"audit", ARB_COMMAND_AUDIT},     {"bench", ARB_COMMAND_BENCH},    {"plan", ARB_COMMAND_PLAN},
                  {"sidecar", ARB_COMMAND_SIDECAR}, {"--dry-run", ARB_COMMAND_PLAN}, {"--help", ARB_COMMAND_HELP},
                  {"-h", ARB_COMMAND_HELP},         {"help", ARB_COMMAND_HELP},      {"--version", ARB_COMMAND_VERSION}};
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
    if (strcmp(word, commands[i].name) == 0) {
      *out = commands[i].command;
      return 1;
    }
  return 0;
}

static arb_status parse_ranks(const char *option, const char *text, int most, int *out) {
  char *end = NULL;
  const long n = text ? strtol(text, &end, 10) : 0;
  ARB_REQUIRE(text && end != text && *end == '\0' && n >= 1 && n <= most, ARB_ERR_CONFIG, "%s %s: expected 1 to %d ranks",
              option, text ? text : "(nothing)", most);
  *out = (int)n;
  return ARB_OK;
}

static int one_of(const char *word, const char *const *words) {
  while (*words && strcmp(word, *words) != 0) words++;
  return *words != NULL;
}

/* What belongs together. */
static arb_status check(const arb_args *a) {
  static const char *const benches[] = {"gemm", "step", "votes", "all", "sidecar", NULL};
  static const char *const actions[] = {"check", "encode", "decode", "transcribe", NULL};
  ARB_REQUIRE(a->command != ARB_COMMAND_BENCH || (a->bench && one_of(a->bench, benches)), ARB_ERR_CONFIG,
              "bench: expected gemm, step, votes, sidecar or all, got %s", a->bench ? a->bench : "nothing");
  ARB_REQUIRE(a->command != ARB_COMMAND_SIDECAR || (a->action && one_of(a->action, actions)), ARB_ERR_CONFIG,
              "sidecar: expected check, encode, decode or transcribe, got %s", a->action ? a->action : "nothing");
  ARB_REQUIRE(a->command != ARB_COMMAND_SIDECAR || a->file || strcmp(a->action, "check") == 0, ARB_ERR_CONFIG,
              "sidecar %s: expected a file", a->action);
  ARB_REQUIRE(!a->out || (a->command == ARB_COMMAND_SIDECAR && (!strcmp(a->action, "encode") || !strcmp(a->action, "decode"))),
              ARB_ERR_CONFIG, "--out: only sidecar encode and decode take it");
  ARB_REQUIRE(!a->ranks || a->command == ARB_COMMAND_PLAN, ARB_ERR_CONFIG,
              "--assume-ranks: only plan and --dry-run suppose ranks; a run has those that it was started with");
  ARB_REQUIRE(!a->sidecars || a->command == ARB_COMMAND_AUDIT, ARB_ERR_CONFIG, "--sidecars: only audit takes it");
  const int alone = a->command == ARB_COMMAND_HELP || a->command == ARB_COMMAND_VERSION || a->command == ARB_COMMAND_SIDECAR ||
                    (a->command == ARB_COMMAND_BENCH && (!strcmp(a->bench, "gemm") || !strcmp(a->bench, "sidecar")));
  ARB_REQUIRE(a->config || alone, ARB_ERR_CONFIG, "no configuration file given; see arbdist --help");
  return ARB_OK;
}

static int is_config(const char *path) {
  const size_t n = strlen(path);
  return n > 4 && strcmp(path + n - 4, ".ini") == 0;
}

arb_status arb_args_parse(int argc, char **argv, arb_args *out) {
  memset(out, 0, sizeof *out);
  out->overrides = calloc((size_t)argc + 1, sizeof *out->overrides);
  ARB_REQUIRE(out->overrides, ARB_ERR_NOMEM, "out of host memory");
  int i = 1;
  if (i < argc && command_of(argv[i], &out->command)) i++;
  for (; i < argc; i++) {
    const char *a = argv[i];
    arb_command command;
    if (strcmp(a, "--set") == 0) {
      ARB_REQUIRE(i + 1 < argc, ARB_ERR_CONFIG, "--set: expected SECTION.KEY=VALUE after it");
      out->overrides[out->override_count++] = argv[++i];
    } else if (strncmp(a, "--set=", 6) == 0) {
      out->overrides[out->override_count++] = a + 6;
    } else if (strcmp(a, "--loopback") == 0) {
      ARB_TRY(parse_ranks(a, i + 1 < argc ? argv[i + 1] : NULL, 64, &out->loopback));
      i++;
    } else if (strcmp(a, "--assume-ranks") == 0) {
      ARB_TRY(parse_ranks(a, i + 1 < argc ? argv[i + 1] : NULL, 1 << 20, &out->ranks));
      i++;
    } else if (strcmp(a, "--out") == 0) {
      ARB_REQUIRE(i + 1 < argc, ARB_ERR_CONFIG, "--out: expected a file after it");
      out->out = argv[++i];
    } else if (strcmp(a, "--sidecars") == 0) {
      out->sidecars = 1;
    } else if (a[0] == '-' && command_of(a, &command)) {
      out->command = command;
    } else if (a[0] == '-') {
      return ARB_FAIL(ARB_ERR_CONFIG, "unknown option %s; see arbdist --help", a);
    } else if (out->command == ARB_COMMAND_BENCH && !out->bench) {
      out->bench = a;
    } else if (out->command == ARB_COMMAND_SIDECAR && !out->action) {
      out->action = a;
    } else if (out->command == ARB_COMMAND_SIDECAR && !is_config(a) && !out->file) {
      out->file = a;
    } else if (!out->config) {
      out->config = a;
    } else {
      return ARB_FAIL(ARB_ERR_CONFIG, "one configuration file expected, got %s and %s", out->config, a);
    }
  }
  return check(out);
}

void arb_args_deinit(arb_args *a) {
  free(a->overrides);
  memset(a, 0, sizeof *a);
}
