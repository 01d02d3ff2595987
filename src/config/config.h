/* The configuration: one plain struct, filled from an ini file and --set overrides through one typed table (table.c).
 *
 * The file:
 * - [section] headers, each at most once, and `key = value` lines that start in column 1; '=' only, not ':'.
 * - Lines end with LF or CRLF; a UTF-8 byte order mark is accepted; NUL bytes, UTF-16 and CR-only files are refused.
 *   A key line holds at most ARB_CONFIG_LINE bytes and a file ARB_CONFIG_FILE_BYTES; comment lines may be of any length.
 * - Comments: a line whose first non-blank byte is ';' or '#', or, after a value, a blank followed by ';'. A '#' after a
 *   value would silently become part of it, so a blank followed by '#' is an error, and so is a value that starts with
 *   ';' or '#'. Without the blank both are ordinary bytes: `name = a;b#c`.
 * - Text and paths may be put in double quotes, which are removed. Inside, \" \\ \n \r \t and \xHH are escapes (write
 *   " ;" as " \x3b": comments are cut first). Text with an odd number of bare quotes is an error.
 * - Numbers are decimal, without sign tricks, hex, digit separators or units; the locale has no influence.
 * - A relative path in the file is relative to the file's folder; in an override or a default, to the current folder.
 *   Paths come out absolute. '~' and '$' are not expanded: a path that starts with '~' or holds a '$' is refused
 *   (a real one can be written as "./~" and, in quotes, \x24).
 *   Whether a path exists is for the module that opens it.
 *
 * Every mistake of a file, of the overrides and between fields is reported at once (the first 12 are listed), one a line:
 * "FILE:LINE: what, what was expected; did you mean ...?". There are no globals: several configs may live side by side. */
#ifndef ARB_SRC_CONFIG_CONFIG_H
#define ARB_SRC_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "src/base/status.h"

enum {
  ARB_CONFIG_KEYS = 60,                  /* rows of the table */
  ARB_CONFIG_NAME = 128,                 /* bytes of run.name, NUL included */
  ARB_CONFIG_TEXT = 1000,                /* bytes of any other text or path, NUL included */
  ARB_CONFIG_ORIGIN = 240,               /* bytes of "FILE:LINE"; a longer file name loses its head */
  ARB_CONFIG_LINE = 4096,                /* longest key line, line end not counted */
  ARB_CONFIG_FILE_BYTES = 1 << 20,       /* largest file */
  ARB_CONFIG_RESOLVED_BYTES = 32 * 1024, /* a buffer of this size always holds the resolved or the identity text */
};

enum { ARB_CONFIG_DEVICE_AUTO, ARB_CONFIG_DEVICE_REF, ARB_CONFIG_DEVICE_CPU, ARB_CONFIG_DEVICE_CUDA };
enum { ARB_CONFIG_ISA_AUTO, ARB_CONFIG_ISA_SCALAR, ARB_CONFIG_ISA_AVX2, ARB_CONFIG_ISA_AVX512 };
enum { ARB_CONFIG_MEMORY_ON, ARB_CONFIG_MEMORY_ZERO };
enum { ARB_CONFIG_ON_ERROR_STOP, ARB_CONFIG_ON_ERROR_CONTINUE };
enum { ARB_CONFIG_TRANSPORT_AUTO, ARB_CONFIG_TRANSPORT_SINGLE, ARB_CONFIG_TRANSPORT_MPI };

/* Meanings, ranges and units: table.c, or arb_config_help. Plain data: may be copied, sent as bytes between equal builds,
 * and changed by a program, which then calls arb_config_check. */
typedef struct arb_config {
  struct {
    char name[ARB_CONFIG_NAME], dir[ARB_CONFIG_TEXT]; /* the run folder is dir/name */
    uint64_t seed;
    int device; /* ARB_CONFIG_DEVICE_* */
    int isa;    /* ARB_CONFIG_ISA_* */
    int64_t threads, grains_at_once;
  } run;
  struct {
    int64_t dim, embed_channels, layers, glu_hidden;
    int memory; /* ARB_CONFIG_MEMORY_* */
    bool image, audio;
  } model;
  struct {
    char train[ARB_CONFIG_TEXT], valid[ARB_CONFIG_TEXT]; /* "" = not given */
    char pairs[ARB_CONFIG_TEXT], valid_pairs[ARB_CONFIG_TEXT], feature_cache[ARB_CONFIG_TEXT];
    int64_t corrupt_limit, threads;
  } data;
  struct {
    char dino[ARB_CONFIG_TEXT], moonshine[ARB_CONFIG_TEXT], vae[ARB_CONFIG_TEXT]; /* "" = not given; "synthetic" */
    bool conv_int8, embed_int8;
  } sidecars;
  struct {
    int64_t steps, sequences, context, grains;
    float peak;  /* trit steps */
    float floor; /* of the peak */
    int64_t warmup;
    int vote_bits;
    bool fused_update;
    int64_t log_every;
  } train;
  struct {
    int64_t every, sequences;
  } eval;
  struct {
    int64_t every, length;
    char prompt[ARB_CONFIG_TEXT]; /* bytes, no NUL among them */
    float temperature;
    int64_t top_k;
    char image[ARB_CONFIG_TEXT], audio[ARB_CONFIG_TEXT];
  } sample;
  struct {
    int64_t every, keep;
    bool async;
    int on_error; /* ARB_CONFIG_ON_ERROR_* */
    bool resume;
  } checkpoint;
  struct {
    int transport; /* ARB_CONFIG_TRANSPORT_* */
    bool shard_state, overlap;
    int64_t bucket_mb, timeout_s;
  } dist;
  struct {
    bool poison, synchronous, lockstep, guards;
    int64_t outlier_log2;
  } debug;
  char origin[ARB_CONFIG_KEYS][ARB_CONFIG_ORIGIN]; /* by table row; read it through arb_config_origin */
} arb_config;

/* Whether training samples come from a manifest rather than a text. */
static inline bool arb_config_paired(const arb_config *cfg) {
  return cfg->data.pairs[0] != '\0' || cfg->data.valid_pairs[0] != '\0';
}

/* What a command cannot do without; flags for arb_config_check. */
enum { ARB_CONFIG_NEED_TRAIN = 1, ARB_CONFIG_NEED_VALID = 2 };

/* Sets every key to its default, origin "default". run.dir stays relative to the current folder. */
void arb_config_defaults(arb_config *cfg);

/* Defaults, then the file, then the overrides ("section.key=value" each, at most once a key), then the rules between
 * fields. path NULL: no file. Fails with ARB_ERR_CONFIG and all mistakes in the message; *cfg is then not to be used. */
ARB_NODISCARD arb_status arb_config_load(arb_config *cfg, const char *path, const char *const *overrides, int n_overrides);

/* Ranges of every key, the rules between keys, and that what `need` names (ARB_CONFIG_NEED_*, or 0) was given.
 * ARB_ERR_CONFIG lists every violation with its origin. */
ARB_NODISCARD arb_status arb_config_check(const arb_config *cfg, unsigned need);

/* That a run of `ranks` >= 1 ranks has a grain for each. ARB_ERR_CONFIG otherwise. */
ARB_NODISCARD arb_status arb_config_check_ranks(const arb_config *cfg, int ranks);

/* Where a key ("data.train") got its value: "FILE:LINE", "--set data.train" or "default"; for a key that does not exist
 * "unknown key". Borrowed from cfg (or a literal): valid until cfg changes. */
const char *arb_config_origin(const arb_config *cfg, const char *key);

/* Writes the resolved config: an ini file that loads to the same values from any folder, with a comment above each key
 * that was set, saying where. ARB_ERR_IO when the stream reports an error. */
ARB_NODISCARD arb_status arb_config_print(const arb_config *cfg, FILE *out);

/* The same file without comments, so that equal configs give equal bytes. NUL-terminated; ARB_ERR_ARG if size is too
 * small (ARB_CONFIG_RESOLVED_BYTES never is). */
ARB_NODISCARD arb_status arb_config_resolved_text(const arb_config *cfg, char *buf, size_t size);

/* The canonical text of the keys that decide the training result: "section.key=value\n" in table order, floats as hex
 * floats. For hashing: names, folders, devices, ranks, evaluation and paths are not in it (the data's own fingerprint
 * belongs beside it). Same size rule as arb_config_resolved_text. */
ARB_NODISCARD arb_status arb_config_identity(const arb_config *cfg, char *buf, size_t size);

/* Writes every key with its type, range, default, unit and meaning. ARB_ERR_IO when the stream reports an error. */
ARB_NODISCARD arb_status arb_config_help(FILE *out);

#endif
