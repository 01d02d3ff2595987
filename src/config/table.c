/* The table. A new key is one row here and one field in config.h; parsing, ranges, help, printing and identity follow. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "src/config/config_impl.h"

static const arb_config_choice devices[] = {{"auto", ARB_CONFIG_DEVICE_AUTO, false},
                                            {"ref", ARB_CONFIG_DEVICE_REF, false},
                                            {"cpu", ARB_CONFIG_DEVICE_CPU, false},
                                            {"cuda", ARB_CONFIG_DEVICE_CUDA, false},
                                            {NULL, 0, false}};
static const arb_config_choice levels[] = {{"auto", ARB_CONFIG_ISA_AUTO, false},
                                           {"scalar", ARB_CONFIG_ISA_SCALAR, false},
                                           {"avx2", ARB_CONFIG_ISA_AVX2, false},
                                           {"avx512", ARB_CONFIG_ISA_AVX512, false},
                                           {NULL, 0, false}};
static const arb_config_choice memories[] = {
    {"on", ARB_CONFIG_MEMORY_ON, false}, {"zero", ARB_CONFIG_MEMORY_ZERO, false}, {NULL, 0, false}};
static const arb_config_choice transports[] = {{"auto", ARB_CONFIG_TRANSPORT_AUTO, false},
                                               {"single", ARB_CONFIG_TRANSPORT_SINGLE, false},
                                               {"mpi", ARB_CONFIG_TRANSPORT_MPI, false},
                                               {NULL, 0, false}};
static const arb_config_choice on_errors[] = {
    {"stop", ARB_CONFIG_ON_ERROR_STOP, false}, {"continue", ARB_CONFIG_ON_ERROR_CONTINUE, false}, {NULL, 0, false}};
static const arb_config_choice vote_widths[] = {{"8", 8, false}, {"16", 16, true}, {NULL, 0, false}};

#define AT(s, k) .section = #s, .name = #k, .offset = offsetof(arb_config, s.k), .size = sizeof(((arb_config *)0)->s.k)
#define INT(s, k, def, lo, hi, step) \
  AT(s, k), .type = ARB_CONFIG_I64, .i = {.value = (def), .min = (lo), .max = (hi), .multiple = (step)}
#define FLAG(s, k, def) AT(s, k), .type = ARB_CONFIG_BOOL, .i = {.value = (def)}
#define WORD(s, k, def, list) AT(s, k), .type = ARB_CONFIG_ENUM, .i = {.value = (def)}, .choices = (list)
#define TEXT(s, k, kind, def) AT(s, k), .type = (kind), .text = (def)

enum { IDENTITY = ARB_CONFIG_IDENTITY, WHEN_SET = ARB_CONFIG_IDENTITY_WHEN_SET, MANY = 1000000000, MEBI = 1 << 20 };

const arb_config_row arb_config_rows[] = {
    {TEXT(run, name, ARB_CONFIG_STRING, "run"), .flags = ARB_CONFIG_FOLDER, .meaning = "name of the run and of its folder"},
    {TEXT(run, dir, ARB_CONFIG_PATH, "runs"), .meaning = "folder of run folders; this run writes to dir/name"},
    {AT(run, seed), .type = ARB_CONFIG_U64, .flags = IDENTITY, .u = {.value = 1, .min = 0, .max = UINT64_MAX},
     .meaning = "seed of every random draw: init, data order, rounding, samples"},
    {WORD(run, device, ARB_CONFIG_DEVICE_AUTO, devices), .meaning = "backend; auto takes the fastest one present"},
    {WORD(run, isa, ARB_CONFIG_ISA_AUTO, levels),
     .meaning = "highest instruction set level of the cpu device; auto takes the best the processor has"},
    {INT(run, threads, 0, 0, 1024, 1), .unit = "threads a rank",
     .meaning = "worker threads; 0 = allowed cores divided by the ranks of this machine"},
    {INT(run, grains_at_once, 0, 0, 31, 1), .unit = "grains",
     .meaning = "grains that a rank works on together; 0 = 1 on the CPU, all of the rank's on a GPU; memory grows with it"},

    {INT(model, dim, 512, 32, 65536, 32), .flags = IDENTITY, .unit = "channels", .meaning = "width of the residual stream"},
    {INT(model, embed_channels, 256, 8, 16384, 8), .flags = IDENTITY, .unit = "channels",
     .meaning = "width of the byte embedding; three neighbours are joined and mixed to dim"},
    {INT(model, layers, 6, 1, 1024, 1), .flags = IDENTITY, .unit = "layers", .meaning = "depth"},
    {INT(model, glu_hidden, 1408, 32, 262144, 32), .flags = IDENTITY, .unit = "channels",
     .meaning = "hidden width of the gated feed-forward layer"},
    {WORD(model, memory, ARB_CONFIG_MEMORY_ON, memories), .flags = IDENTITY,
     .meaning = "zero replaces the output of the memory layer with 0 (an ablation)"},

    {FLAG(model, image, false), .flags = WHEN_SET,
     .meaning = "sequences may begin with an image: 254 rows from the encoder of [sidecars] dino"},
    {FLAG(model, audio, false), .flags = WHEN_SET,
     .meaning = "sequences may have a recording before their text: 36 rows from the encoder of [sidecars] moonshine"},

    {TEXT(data, train, ARB_CONFIG_PATH, ""), .meaning = "training text; needed by train"},
    {TEXT(data, valid, ARB_CONFIG_PATH, ""), .meaning = "validation text; needed by train and eval"},
    {TEXT(data, pairs, ARB_CONFIG_PATH, ""),
     .meaning = "manifest of training samples instead of data.train: JSON lines with \"text\" and \"image\" or \"audio\""},
    {TEXT(data, valid_pairs, ARB_CONFIG_PATH, ""), .meaning = "manifest of validation samples"},
    {TEXT(data, feature_cache, ARB_CONFIG_PATH, ""),
     .meaning = "folder where encoded images and recordings are kept; runs may share it; empty = encode each time"},
    {INT(data, corrupt_limit, 16, 0, MANY, 1), .unit = "samples an epoch",
     .meaning = "samples that cannot be decoded are skipped and listed, up to this many"},
    {INT(data, threads, 1, 1, 64, 1), .unit = "threads a rank", .meaning = "threads that decode and encode samples ahead"},

    {TEXT(sidecars, dino, ARB_CONFIG_PATH, ""), .flags = ARB_CONFIG_SYNTHETIC,
     .meaning =
         "DINOv2-small, the encoder of images: a HuggingFace folder, a weight file, or synthetic (./synthetic is a folder)"},
    {TEXT(sidecars, moonshine, ARB_CONFIG_PATH, ""), .flags = ARB_CONFIG_SYNTHETIC,
     .meaning = "Moonshine-base, the encoder of speech: a HuggingFace folder, a weight file, or synthetic"},
    {TEXT(sidecars, vae, ARB_CONFIG_PATH, ""), .flags = ARB_CONFIG_SYNTHETIC,
     .meaning = "Wan 2.1 VAE (pig-vae) of images and video, for the sidecar command: safetensors or GGUF, or synthetic"},
    {FLAG(sidecars, conv_int8, false),
     .meaning = "hold one- and three-dimensional convolutions in int8 too; the published scheme leaves them in float"},
    {FLAG(sidecars, embed_int8, false),
     .meaning = "hold Moonshine's token table in int8 too; the published scheme leaves it in float"},

    {INT(train, steps, 800, 1, MANY, 1), .flags = IDENTITY, .unit = "steps",
     .meaning = "length of the run and of its schedule"},
    {INT(train, sequences, 64, 1, MEBI, 1), .flags = IDENTITY, .unit = "sequences a step",
     .meaning = "batch of all ranks together; a multiple of grains"},
    {INT(train, context, 512, 8, MEBI, 1), .flags = IDENTITY, .unit = "bytes", .meaning = "length of a sequence"},
    {INT(train, grains, 8, 1, 31, 1), .flags = IDENTITY, .unit = "grains a step",
     .meaning = "voting parts of the batch; at most this many ranks can work, and the result does not depend on how many do"},
    {AT(train, peak), .type = ARB_CONFIG_F32, .flags = IDENTITY, .f = {.value = 0.12f, .above = 0.0f, .below = 0.25f},
     .unit = "trit steps", .meaning = "largest step size of the schedule",
     .why = "a step may move an accumulator by at most 42 units, so peak x 42 x 4 must stay below 42"},
    {AT(train, floor), .type = ARB_CONFIG_F32, .flags = IDENTITY, .f = {.value = 0.2f, .above = 0.0f, .most = 1.0f},
     .unit = "of the peak", .meaning = "step size that the schedule ends with, a half cosine after its peak"},
    {INT(train, warmup, 100, 1, MANY, 1), .flags = IDENTITY, .unit = "steps",
     .meaning = "steps over which the step size rises to its peak; at most steps"},
    {WORD(train, vote_bits, 8, vote_widths), .flags = IDENTITY, .unit = "bits", .meaning = "width of a vote on the wire"},
    {FLAG(train, fused_update, false),
     .meaning =
         "a matrix takes its step as soon as its votes are cast, so no vote buffer for all of them exists; one rank, all "
         "grains at once; the same bits"},
    {INT(train, log_every, 10, 1, MANY, 1), .unit = "steps", .meaning = "distance of console lines"},

    {INT(eval, every, 200, 0, MANY, 1), .unit = "steps", .meaning = "distance of evaluations; 0 = only at the end"},
    {INT(eval, sequences, 64, 1, MEBI, 1), .unit = "sequences", .meaning = "size of an evaluation"},

    {INT(sample, every, 0, 0, MANY, 1), .unit = "steps", .meaning = "distance of text samples; 0 = only at the end"},
    {INT(sample, length, 0, 0, MEBI, 1), .unit = "bytes", .meaning = "length of a text sample; 0 = no samples"},
    {TEXT(sample, prompt, ARB_CONFIG_STRING, ""), .meaning = "text that a sample continues"},
    {AT(sample, temperature), .type = ARB_CONFIG_F32, .f = {.value = 0.8f, .above = 0.0f, .most = 10.0f},
     .meaning = "divides the logits before a symbol is drawn"},
    {INT(sample, top_k, 40, 0, 297, 1), .unit = "symbols", .meaning = "draw among this many likeliest symbols; 0 = all"},
    {TEXT(sample, image, ARB_CONFIG_PATH, ""), .meaning = "image that a sample is about"},
    {TEXT(sample, audio, ARB_CONFIG_PATH, ""), .meaning = "recording that a sample is about"},

    {INT(checkpoint, every, 0, 0, MANY, 1), .unit = "steps", .meaning = "distance of checkpoints; 0 = never"},
    {INT(checkpoint, keep, 2, 1, MANY, 1), .unit = "checkpoints", .meaning = "newest verified checkpoints that are kept"},
    {FLAG(checkpoint, async, true),
     .meaning = "write checkpoints while training goes on, from a copy in host memory; no: training waits"},
    {WORD(checkpoint, on_error, ARB_CONFIG_ON_ERROR_STOP, on_errors),
     .meaning = "a checkpoint that cannot be written ends the run, or is a warning; the last one of a run always ends it"},
    {FLAG(checkpoint, resume, true), .meaning = "continue from the newest checkpoint of the run folder that verifies"},

    {WORD(dist, transport, ARB_CONFIG_TRANSPORT_AUTO, transports),
     .meaning = "how ranks talk; auto takes mpi under a launcher, single otherwise"},
    {FLAG(dist, shard_state, false),
     .meaning =
         "every rank owns the state bytes of its share of the rows instead of all; the same bits, less memory and traffic"},
    {FLAG(dist, overlap, true),
     .meaning = "on GPUs: votes go on the wire while the rest of the backward pass runs; no: after it; the same bits"},
    {INT(dist, bucket_mb, 25, 0, 1000000, 1), .unit = "MB",
     .meaning = "with overlap: votes wait until so many can go at once; 0: in four parts, however small"},
    {INT(dist, timeout_s, 120, 1, 86400, 1), .unit = "seconds", .meaning = "silence of a rank after which the others give up"},

    {FLAG(debug, poison, false), .meaning = "fill work memory with NaN patterns before every step"},
    {FLAG(debug, synchronous, false), .meaning = "wait for every operation and look at its results; a value that is not finite "
                                                 "is named with its module, row and token"},
    {INT(debug, outlier_log2, 0, 0, 127, 1), .meaning = "with synchronous: report magnitudes above 2^this; 0 = none"},
    {FLAG(debug, lockstep, false), .meaning = "run the reference beside the device, operation by operation on the same inputs, "
                                              "and name the first element that differs"},
    {FLAG(debug, guards, false),
     .meaning = "leave a guard zone behind every array and look at it in every step; an array that was overrun is named"},
};
_Static_assert(sizeof arb_config_rows / sizeof arb_config_rows[0] == ARB_CONFIG_KEYS, "ARB_CONFIG_KEYS counts the rows");

void arb_config_defaults(arb_config *cfg) {
  memset(cfg, 0, sizeof *cfg);
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    const arb_config_row *row = &arb_config_rows[i];
    char *field = (char *)cfg + row->offset;
    const int choice = (int)row->i.value;
    const bool flag = row->i.value != 0;
    switch (row->type) {
      case ARB_CONFIG_I64:
        memcpy(field, &row->i.value, sizeof row->i.value);
        break;
      case ARB_CONFIG_U64:
        memcpy(field, &row->u.value, sizeof row->u.value);
        break;
      case ARB_CONFIG_F32:
        memcpy(field, &row->f.value, sizeof row->f.value);
        break;
      case ARB_CONFIG_BOOL:
        memcpy(field, &flag, sizeof flag);
        break;
      case ARB_CONFIG_ENUM:
        memcpy(field, &choice, sizeof choice);
        break;
      case ARB_CONFIG_STRING:
      case ARB_CONFIG_PATH:
        snprintf(field, row->size, "%s", row->text);
        break;
    }
    snprintf(cfg->origin[i], sizeof cfg->origin[i], "default");
  }
}

static bool equals(const char *name, const char *text, size_t length) {
  return strlen(name) == length && memcmp(name, text, length) == 0;
}

int arb_config_find(const char *section, size_t section_length, const char *name, size_t name_length) {
  for (int i = 0; i < ARB_CONFIG_KEYS; i++)
    if (equals(arb_config_rows[i].section, section, section_length) && equals(arb_config_rows[i].name, name, name_length))
      return i;
  return -1;
}

int arb_config_find_dotted(const char *key) {
  const char *dot = strchr(key, '.');
  return dot == NULL ? -1 : arb_config_find(key, (size_t)(dot - key), dot + 1, strlen(dot + 1));
}

bool arb_config_is_section(const char *section) {
  for (int i = 0; i < ARB_CONFIG_KEYS; i++)
    if (strcmp(arb_config_rows[i].section, section) == 0) return true;
  return false;
}

const char *arb_config_origin(const arb_config *cfg, const char *key) {
  const int i = arb_config_find_dotted(key);
  return i < 0 ? "unknown key" : cfg->origin[i];
}

/* Edits (insert, delete, change, swap of neighbours) from a to b, upper and lower case being equal; 99 for long names. */
static int distance(const char *a, const char *b) {
  enum { LONGEST = 32 };
  const size_t m = strlen(a), n = strlen(b);
  if (m > LONGEST || n > LONGEST) return 99;
  int d[LONGEST + 1][LONGEST + 1];
  for (size_t i = 0; i <= m; i++) d[i][0] = (int)i;
  for (size_t j = 0; j <= n; j++) d[0][j] = (int)j;
  for (size_t i = 1; i <= m; i++)
    for (size_t j = 1; j <= n; j++) {
      const int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
      int best = d[i - 1][j - 1] + (x != y);
      if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
      if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
      if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) && y == tolower((unsigned char)a[i - 2]) &&
          d[i - 2][j - 2] + 1 < best)
        best = d[i - 2][j - 2] + 1;
      d[i][j] = best;
    }
  return d[m][n];
}

/* A typing mistake, not another word: at most a third of the name may differ. */
static int tolerance(const char *name) { return strlen(name) <= 3 ? 1 : (int)(strlen(name) + 2) / 3; }

/* The row nearest to name within tolerance, in one section (NULL: in all); -1 when none is near. */
static int nearest(const char *section, const char *name) {
  int best = tolerance(name) + 1, found = -1;
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    if (section != NULL && strcmp(arb_config_rows[i].section, section) != 0) continue;
    const int d = distance(name, arb_config_rows[i].name);
    if (d < best) best = d, found = i;
  }
  return found;
}

void arb_config_suggest_key(const char *section, const char *name, bool dotted, char *out, size_t size) {
  const char *const style = dotted ? "%s%s.%s" : "%s[%s] %s";
  size_t used = 0;
  out[0] = '\0';
  int i = section != NULL && arb_config_is_section(section) ? nearest(section, name) : -1;
  if (i >= 0 && !dotted) {
    snprintf(out, size, "; did you mean %s?", arb_config_rows[i].name);
    return;
  }
  if (i < 0) {
    for (int j = 0; j < ARB_CONFIG_KEYS && used < size; j++) {
      const arb_config_row *row = &arb_config_rows[j];
      if (strcmp(row->name, name) != 0) continue;
      used += (size_t)snprintf(out + used, size - used, style, used == 0 ? "; did you mean " : " or ", row->section, row->name);
    }
    if (used == 0) i = nearest(NULL, name);
  }
  if (i >= 0) used = (size_t)snprintf(out, size, style, "; did you mean ", arb_config_rows[i].section, arb_config_rows[i].name);
  if (used > 0 && used < size) snprintf(out + used, size - used, "?");
}

void arb_config_suggest_section(const char *section, char *out, size_t size) {
  int best = tolerance(section) + 1;
  const char *found = NULL, *last = "";
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    const int d = distance(section, arb_config_rows[i].section);
    if (d < best) best = d, found = arb_config_rows[i].section;
  }
  if (found != NULL) {
    snprintf(out, size, "; did you mean [%s]?", found);
    return;
  }
  size_t used = (size_t)snprintf(out, size, "; sections are");
  for (int i = 0; i < ARB_CONFIG_KEYS && used < size; i++) {
    if (strcmp(last, arb_config_rows[i].section) == 0) continue;
    last = arb_config_rows[i].section;
    used += (size_t)snprintf(out + used, size - used, " [%s]", last);
  }
}
