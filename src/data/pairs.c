#include "src/data/pairs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { MEDIA_BYTES = 1 << 30 }; /* of one file: more is no sample */

const char *arb_media_name(arb_media_kind kind) { return kind == ARB_MEDIA_IMAGE ? "image" : "audio"; }

/* ---- the manifest ---- */

/* The path as the manifest means it. */
static arb_status resolve(const char *manifest, const char *path, char **out) {
  const char *slash = strrchr(manifest, '/');
  const size_t folder = path[0] == '/' || slash == NULL ? 0 : (size_t)(slash - manifest) + 1, length = strlen(path);
  *out = malloc(folder + length + 1);
  ARB_REQUIRE(*out != NULL, ARB_ERR_NOMEM, "out of host memory");
  memcpy(*out, manifest, folder);
  memcpy(*out + folder, path, length + 1);
  return ARB_OK;
}

static arb_status take_key(const arb_pairs *p, arb_pair *pair, const char *key, const json_t *value) {
  const long long line = (long long)pair->line;
  const int text = strcmp(key, "text") == 0;
  int kind = 0;
  while (kind < ARB_MEDIA_KINDS && strcmp(key, arb_media_name((arb_media_kind)kind)) != 0) kind++;
  ARB_REQUIRE(text || kind < ARB_MEDIA_KINDS, ARB_ERR_DATA, "%s:%lld: unknown key \"%.60s\"; keys are image, audio and text",
              p->path, line, key);
  ARB_REQUIRE(json_is_string(value), ARB_ERR_DATA, "%s:%lld: \"%s\" is not a string", p->path, line, key);
  ARB_REQUIRE(json_string_length(value) > 0, ARB_ERR_DATA, "%s:%lld: \"%s\" is empty", p->path, line, key);
  if (!text) return resolve(p->path, json_string_value(value), &pair->file[kind]);
  pair->length = (int64_t)json_string_length(value);
  pair->text = malloc((size_t)pair->length + 1);
  ARB_REQUIRE(pair->text != NULL, ARB_ERR_NOMEM, "out of host memory");
  memcpy(pair->text, json_string_value(value), (size_t)pair->length + 1);
  return ARB_OK;
}

static arb_status take_line(const arb_pairs *p, arb_pair *pair, const char *line, size_t length) {
  json_error_t error;
  json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
  ARB_REQUIRE(object != NULL, ARB_ERR_DATA, "%s:%lld: not a JSON object: %s (column %d)", p->path, (long long)pair->line,
              error.text, error.column);
  arb_status st = json_is_object(object) ? ARB_OK
                                         : ARB_FAIL(ARB_ERR_DATA,
                                                    "%s:%lld: not a JSON object, as {\"image\": \"cat.jpg\", "
                                                    "\"text\": \"a photo of a cat\"}",
                                                    p->path, (long long)pair->line);
  for (void *i = json_object_iter(object); st == ARB_OK && i != NULL; i = json_object_iter_next(object, i))
    st = take_key(p, pair, json_object_iter_key(i), json_object_iter_value(i));
  if (st == ARB_OK && pair->text == NULL) st = ARB_FAIL(ARB_ERR_DATA, "%s:%lld: no \"text\"", p->path, (long long)pair->line);
  json_decref(object);
  return st;
}

static int blank(const char *line, size_t length) {
  for (size_t i = 0; i < length; i++)
    if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return 0;
  return 1;
}

static arb_status take_lines(arb_pairs *p, const char *bytes, size_t left) {
  int64_t capacity = 0, number = 0;
  while (left > 0) {
    const char *end = memchr(bytes, '\n', left);
    const size_t length = end != NULL ? (size_t)(end - bytes) : left;
    number++;
    if (!blank(bytes, length)) {
      if (p->count == capacity) {
        capacity = capacity ? 2 * capacity : 256;
        arb_pair *grown = realloc(p->pair, (size_t)capacity * sizeof *grown);
        ARB_REQUIRE(grown != NULL, ARB_ERR_NOMEM, "no memory for %lld samples", (long long)capacity);
        p->pair = grown;
      }
      arb_pair *pair = &p->pair[p->count++];
      memset(pair, 0, sizeof *pair);
      pair->line = number;
      ARB_TRY(take_line(p, pair, bytes, length));
    }
    bytes += length + (end != NULL);
    left -= length + (end != NULL);
  }
  ARB_REQUIRE(p->count > 0, ARB_ERR_DATA, "%s: no samples", p->path);
  return ARB_OK;
}

arb_status arb_pairs_load(const char *path, arb_pairs *out) {
  arb_text text = {0};
  memset(out, 0, sizeof *out);
  ARB_TRY(arb_text_load(path, &text));
  const size_t length = strlen(path) + 1;
  out->path = malloc(length);
  arb_status st = out->path ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK) {
    memcpy(out->path, path, length);
    const int mark = text.length >= 3 && memcmp(text.bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    st = take_lines(out, (const char *)text.bytes + mark, (size_t)text.length - (size_t)mark);
  }
  arb_text_deinit(&text);
  if (st != ARB_OK) arb_pairs_deinit(out);
  return st;
}

void arb_pairs_deinit(arb_pairs *p) {
  if (p == NULL) return;
  for (int64_t i = 0; i < p->count; i++) {
    for (int k = 0; k < ARB_MEDIA_KINDS; k++) free(p->pair[i].file[k]);
    free(p->pair[i].text);
  }
  free(p->pair);
  free(p->path);
  memset(p, 0, sizeof *p);
}

arb_status arb_pairs_fit(const arb_pairs *p, int64_t context) {
  for (int64_t i = 0; i < p->count; i++)
    ARB_REQUIRE(p->pair[i].length < context, ARB_ERR_DATA,
                "%s:%lld: a text of %lld bytes needs train.context = %lld or more; it is %lld", p->path,
                (long long)p->pair[i].line, (long long)p->pair[i].length, (long long)p->pair[i].length + 1, (long long)context);
  return ARB_OK;
}

int64_t arb_pairs_with(const arb_pairs *p, arb_media_kind kind) {
  int64_t count = 0;
  for (int64_t i = 0; i < p->count; i++) count += p->pair[i].file[kind] != NULL;
  return count;
}

/* ---- files ---- */

static arb_status read_open(int fd, const char *path, unsigned char **bytes, size_t *size) {
  struct stat info;
  ARB_REQUIRE(fstat(fd, &info) == 0, ARB_ERR_DATA, "%s: %s", path, strerror(errno));
  ARB_REQUIRE(S_ISREG(info.st_mode), ARB_ERR_DATA, "%s: not a regular file", path);
  ARB_REQUIRE(info.st_size <= MEDIA_BYTES, ARB_ERR_DATA, "%s: %lld bytes are too many for one sample (at most %d)", path,
              (long long)info.st_size, MEDIA_BYTES);
  const size_t want = (size_t)info.st_size;
  *bytes = malloc(want ? want : 1);
  ARB_REQUIRE(*bytes != NULL, ARB_ERR_NOMEM, "%s: no memory for %zu bytes", path, want);
  for (*size = 0; *size < want;) {
    const ssize_t got = read(fd, *bytes + *size, want - *size);
    if (got < 0 && errno == EINTR) continue;
    ARB_REQUIRE(got >= 0, ARB_ERR_DATA, "%s: %s", path, strerror(errno));
    if (got == 0) break;
    *size += (size_t)got;
  }
  return ARB_OK;
}

arb_status arb_media_read(const char *path, unsigned char **bytes, size_t *size, uint64_t hash[2]) {
  *bytes = NULL;
  const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* never waits for a FIFO */
  ARB_REQUIRE(fd >= 0, ARB_ERR_DATA, "%s: %s", path, strerror(errno));
  const arb_status st = read_open(fd, path, bytes, size);
  close(fd);
  if (st != ARB_OK) {
    free(*bytes);
    *bytes = NULL;
    return st;
  }
  const XXH128_hash_t h = XXH3_128bits(*bytes, *size);
  hash[0] = h.high64;
  hash[1] = h.low64;
  return ARB_OK;
}

static arb_status at_line(arb_status st, const arb_pairs *p, int64_t index) {
  if (st != ARB_OK) arb_fail_context("%s:%lld", p->path, (long long)p->pair[index].line);
  return st;
}

arb_status arb_pairs_hash(arb_pairs *p, int64_t first, int64_t stride) {
  for (int64_t i = first; i < p->count; i += stride)
    for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
      unsigned char *bytes;
      size_t size;
      if (p->pair[i].file[k] == NULL) continue;
      ARB_TRY(at_line(arb_media_read(p->pair[i].file[k], &bytes, &size, p->pair[i].hash[k]), p, i));
      free(bytes);
    }
  return ARB_OK;
}

arb_status arb_pairs_read(const arb_pairs *p, int64_t index, arb_media_kind kind, unsigned char **bytes, size_t *size) {
  const arb_pair *pair = &p->pair[index];
  uint64_t hash[2];
  ARB_TRY(at_line(arb_media_read(pair->file[kind], bytes, size, hash), p, index));
  if (hash[0] == pair->hash[kind][0] && hash[1] == pair->hash[kind][1]) return ARB_OK;
  free(*bytes);
  *bytes = NULL;
  return ARB_FAIL(ARB_ERR_DATA, "%s:%lld: %s: was changed after the run began", p->path, (long long)pair->line,
                  pair->file[kind]);
}

static void put64(unsigned char *to, uint64_t v) {
  for (int i = 0; i < 8; i++) to[i] = (unsigned char)(v >> (8 * i));
}

void arb_pairs_fingerprint(const arb_pairs *p, arb_fingerprint *out) {
  /* Digests of samples, chained: no allocation, and no sample can run into the next. */
  XXH128_hash_t sum = {0, 0};
  for (int64_t i = 0; i < p->count; i++) {
    const arb_pair *pair = &p->pair[i];
    const XXH128_hash_t text = XXH3_128bits(pair->text, (size_t)pair->length);
    unsigned char words[(4 + 3 * ARB_MEDIA_KINDS) * 8];
    int n = 0;
    put64(words + 8 * n++, sum.high64);
    put64(words + 8 * n++, sum.low64);
    put64(words + 8 * n++, text.high64);
    put64(words + 8 * n++, text.low64);
    for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
      put64(words + 8 * n++, pair->file[k] != NULL);
      put64(words + 8 * n++, pair->hash[k][0]);
      put64(words + 8 * n++, pair->hash[k][1]);
    }
    sum = XXH3_128bits(words, sizeof words);
  }
  XXH128_canonicalFromHash((XXH128_canonical_t *)out->hash, sum);
  out->length = p->count;
}

/* ---- rows ---- */

void arb_pair_empty(int64_t context, int32_t *ids, int32_t *targets) {
  for (int64_t t = 0; t < context; t++) ids[t] = ARB_PAIR_PAD, targets[t] = -1;
}

void arb_pair_rows(const arb_pair *pair, int64_t context, int32_t *ids, int32_t *targets) {
  arb_pair_empty(context, ids, targets);
  ids[0] = ARB_PAIR_BOS;
  for (int64_t t = 0; t < pair->length; t++) {
    ids[t + 1] = (unsigned char)pair->text[t];
    targets[t] = (unsigned char)pair->text[t];
  }
  targets[pair->length] = ARB_PAIR_EOS;
}

int64_t arb_pair_word(const arb_pair *pair) {
  int64_t at = pair->length;
  while (at > 0 && pair->text[at - 1] == ' ') at--; /* blanks at the end belong to it */
  while (at > 0 && pair->text[at - 1] != ' ') at--;
  return at;
}

int64_t arb_pairs_at(const arb_pairs *p, uint64_t seed, int64_t i) {
  /* A text of `count` windows of one byte visits each once an epoch; only the permutation is used. */
  const arb_order o = {.seed = seed, .length = p->count + 1, .context = 1, .windows = p->count, .phases = 1};
  return arb_order_window(&o, arb_order_epoch(&o, i), arb_order_in_epoch(&o, i));
}
