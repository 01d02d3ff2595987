/* The GGUF container: "GGUF", version, counts, key-value pairs, descriptions of tensors, then the data, each tensor at a
 * multiple of general.alignment. Everything before the data is read once, forward, through a small buffer; each count is
 * compared with the bytes that are left before it is believed. (CVE-2025-53630, CVE-2026-27940, CVE-2026-33298 and
 * CVE-2024-21802 are sums and products of sizes that wrapped, and counts that were believed.) */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/safetensors/safetensors.h"
#include "src/safetensors/weights_impl.h"

enum {
  MAX_PAIRS = 65536,
  MAX_KEY = 1024,
  MAX_NESTING = 4,      /* arrays of arrays */
  MAX_ORIGINALS = 1024, /* tensors with a shape of their own in the metadata */
  MAX_ALIGNMENT = 65536,
  BUFFER = 1 << 16
};

/* Types of metadata values. */
enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, VALUE_TYPES };

#define ORIGINAL_SHAPE "comfy.gguf.orig_shape." /* + tensor: its shape before the converter folded it */

typedef struct {
  char *tensor; /* malloc'd */
  int rank;
  int64_t shape[ARB_WEIGHTS_MAX_RANK];
  bool used;
} original_shape;

typedef struct {
  const arb_file *f;
  uint64_t at, end; /* of the part before the data: at most ARB_ST_MAX_HEADER bytes */
  unsigned char *buffer;
  uint64_t buffer_at, buffer_used;
  char **keys;
  uint64_t key_count;
  original_shape *originals;
  int original_count;
  uint64_t alignment;
} reader;

/* ---- reading forward --------------------------------------------------------------------------------------------------- */

static arb_status need(const reader *r, uint64_t bytes) {
  ARB_REQUIRE(bytes <= r->end - r->at, ARB_ERR_DATA,
              "ends early: %" PRIu64 " bytes at byte %" PRIu64 ", %" PRIu64 " are left%s", bytes, r->at, r->end - r->at,
              r->end < r->f->size ? " of the 10^8 that may come before the data" : "");
  return ARB_OK;
}

static arb_status take(reader *r, void *out, uint64_t bytes) {
  unsigned char *to = out;
  ARB_TRY(need(r, bytes));
  while (bytes > 0) {
    if (r->at < r->buffer_at || r->at >= r->buffer_at + r->buffer_used) {
      r->buffer_at = r->at;
      r->buffer_used = r->end - r->at < BUFFER ? r->end - r->at : BUFFER;
      ARB_TRY(arb_file_read(r->f, r->at, r->buffer, r->buffer_used));
    }
    const uint64_t ready = r->buffer_at + r->buffer_used - r->at, n = bytes < ready ? bytes : ready;
    memcpy(to, r->buffer + (r->at - r->buffer_at), (size_t)n);
    to += n;
    r->at += n;
    bytes -= n;
  }
  return ARB_OK;
}

static arb_status take_u32(reader *r, uint32_t *out) { return take(r, out, sizeof *out); }
static arb_status take_u64(reader *r, uint64_t *out) { return take(r, out, sizeof *out); }

static arb_status skip(reader *r, uint64_t bytes) {
  ARB_TRY(need(r, bytes));
  r->at += bytes;
  return ARB_OK;
}

/* *out: malloc'd, NUL-terminated, `bytes` long without a NUL inside. */
static arb_status take_string(reader *r, const char *what, uint64_t most, char **out, size_t *bytes) {
  char shown[ARB_WEIGHTS_QUOTE];
  uint64_t n;
  *out = NULL;
  ARB_TRY(take_u64(r, &n));
  ARB_REQUIRE(n >= 1 && n <= most, ARB_ERR_DATA, "%s of %" PRIu64 " bytes at byte %" PRIu64 ", expected 1 to %" PRIu64, what, n,
              r->at - 8, most);
  ARB_TRY(need(r, n));
  char *text = malloc((size_t)n + 1);
  ARB_REQUIRE(text != NULL, ARB_ERR_NOMEM, "no memory for a string of %" PRIu64 " bytes", n);
  arb_status st = take(r, text, n);
  text[n] = '\0';
  if (st == ARB_OK && strlen(text) != n)
    st = ARB_FAIL(ARB_ERR_DATA, "%s '%s' has a NUL inside", what, arb_weights_quote(text, (size_t)n, shown));
  if (st != ARB_OK) {
    free(text);
    return st;
  }
  *out = text;
  *bytes = (size_t)n;
  return ARB_OK;
}

/* ---- key-value pairs --------------------------------------------------------------------------------------------------- */

static uint64_t value_size(uint32_t type) {
  static const unsigned char size[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < VALUE_TYPES ? size[type] : 0;
}

/* Skips the elements of an array of arrays or strings one by one: the format gives no total. */
static arb_status skip_value(reader *r, uint32_t type, int nesting) {
  uint32_t element;
  uint64_t n;
  ARB_REQUIRE(type < VALUE_TYPES, ARB_ERR_DATA, "unknown value type %" PRIu32, type);
  if (type == STRING) {
    ARB_TRY(take_u64(r, &n));
    return skip(r, n);
  }
  if (type != ARRAY) return skip(r, value_size(type));
  ARB_REQUIRE(nesting < MAX_NESTING, ARB_ERR_DATA, "arrays nested deeper than %d", MAX_NESTING);
  ARB_TRY(take_u32(r, &element));
  ARB_TRY(take_u64(r, &n));
  ARB_REQUIRE(element < VALUE_TYPES, ARB_ERR_DATA, "unknown element type %" PRIu32 " of an array", element);
  const uint64_t size = value_size(element), least = size > 0 ? size : element == STRING ? 8 : 12;
  ARB_REQUIRE(n <= (r->end - r->at) / least, ARB_ERR_DATA,
              "an array of %" PRIu64 " elements at byte %" PRIu64 ", more than the rest of the file holds", n, r->at);
  if (size > 0) return skip(r, n * size);
  for (uint64_t i = 0; i < n; i++) ARB_TRY(skip_value(r, element, nesting + 1));
  return ARB_OK;
}

static arb_status take_alignment(reader *r, uint32_t type) {
  uint32_t value;
  ARB_REQUIRE(type == U32, ARB_ERR_DATA, "value type %" PRIu32 ", expected %d (uint32)", type, U32);
  ARB_TRY(take_u32(r, &value));
  ARB_REQUIRE(value >= 8 && value <= MAX_ALIGNMENT && (value & (value - 1)) == 0, ARB_ERR_DATA,
              "%" PRIu32 ", expected a power of two from 8 to %d", value, MAX_ALIGNMENT);
  r->alignment = value;
  return ARB_OK;
}

static arb_status take_original_shape(reader *r, uint32_t type, const char *tensor) {
  uint32_t element = 0;
  uint64_t rank = 0;
  int32_t size;
  if (type == ARRAY) {
    ARB_TRY(take_u32(r, &element));
    ARB_TRY(take_u64(r, &rank));
  }
  ARB_REQUIRE(type == ARRAY && element == I32 && rank >= 1 && rank <= ARB_WEIGHTS_MAX_RANK, ARB_ERR_DATA,
              "expected an array of 1 to %d int32", ARB_WEIGHTS_MAX_RANK);
  ARB_REQUIRE(r->original_count < MAX_ORIGINALS, ARB_ERR_DATA, "more than %d of them", MAX_ORIGINALS);
  original_shape *grown = realloc(r->originals, ((size_t)r->original_count + 1) * sizeof *grown);
  ARB_REQUIRE(grown != NULL, ARB_ERR_NOMEM, "no memory for shapes");
  r->originals = grown;
  original_shape *to = &grown[r->original_count];
  *to = (original_shape){.tensor = strdup(tensor), .rank = (int)rank};
  ARB_REQUIRE(to->tensor != NULL, ARB_ERR_NOMEM, "no memory for shapes");
  r->original_count++;
  for (uint64_t i = 0; i < rank; i++) {
    ARB_TRY(take(r, &size, sizeof size));
    ARB_REQUIRE(size >= 0, ARB_ERR_DATA, "a negative size, %" PRId32, size);
    to->shape[i] = size;
  }
  return ARB_OK;
}

static arb_status take_pair(reader *r) {
  char *key, shown[ARB_WEIGHTS_QUOTE];
  size_t bytes;
  uint32_t type;
  const size_t prefix = strlen(ORIGINAL_SHAPE);
  ARB_TRY(take_string(r, "a key", MAX_KEY, &key, &bytes));
  r->keys[r->key_count++] = key;
  arb_status st = take_u32(r, &type);
  if (st == ARB_OK) {
    if (strcmp(key, "general.alignment") == 0)
      st = take_alignment(r, type);
    else if (strncmp(key, ORIGINAL_SHAPE, prefix) == 0)
      st = take_original_shape(r, type, key + prefix);
    else
      st = skip_value(r, type, 0);
  }
  if (st != ARB_OK) arb_fail_context("key '%s'", arb_weights_quote(key, bytes, shown));
  return st;
}

static int by_text(const void *left, const void *right) {
  return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static arb_status take_pairs(reader *r, uint64_t count) {
  char shown[ARB_WEIGHTS_QUOTE];
  ARB_REQUIRE(count <= MAX_PAIRS, ARB_ERR_DATA, "%" PRIu64 " key-value pairs, limit %d", count, MAX_PAIRS);
  r->keys = calloc((size_t)count + 1, sizeof *r->keys);
  ARB_REQUIRE(r->keys != NULL, ARB_ERR_NOMEM, "no memory for %" PRIu64 " keys", count);
  for (uint64_t i = 0; i < count; i++) ARB_TRY(take_pair(r));
  qsort(r->keys, (size_t)count, sizeof *r->keys, by_text);
  for (uint64_t i = 1; i < count; i++)
    ARB_REQUIRE(strcmp(r->keys[i - 1], r->keys[i]) != 0, ARB_ERR_DATA, "key '%s' twice",
                arb_weights_quote(r->keys[i], strlen(r->keys[i]), shown));
  return ARB_OK;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------------- */

static bool known_type(uint32_t type, arb_weights_type *out) {
  switch (type) {
    case 0:
      *out = ARB_WEIGHTS_F32;
      return true;
    case 1:
      *out = ARB_WEIGHTS_F16;
      return true;
    case 24:
      *out = ARB_WEIGHTS_I8;
      return true;
    case 25:
      *out = ARB_WEIGHTS_I16;
      return true;
    case 26:
      *out = ARB_WEIGHTS_I32;
      return true;
    case 27:
      *out = ARB_WEIGHTS_I64;
      return true;
    case 28:
      *out = ARB_WEIGHTS_F64;
      return true;
    case 30:
      *out = ARB_WEIGHTS_BF16;
      return true;
    default:
      return false;
  }
}

static arb_status apply_original(reader *r, const char *name, arb_weights_tensor *t) {
  uint64_t before = 1, after = 1;
  for (int k = 0; k < r->original_count; k++) {
    original_shape *o = &r->originals[k];
    if (o->used || strcmp(o->tensor, name) != 0) continue;
    o->used = true;
    for (int i = 0; i < t->rank; i++)
      ARB_REQUIRE(!__builtin_mul_overflow(before, (uint64_t)t->shape[i], &before), ARB_ERR_DATA,
                  "its sizes multiply to too much");
    for (int i = 0; i < o->rank; i++)
      ARB_REQUIRE(!__builtin_mul_overflow(after, (uint64_t)o->shape[i], &after), ARB_ERR_DATA,
                  "its sizes multiply to too much");
    ARB_REQUIRE(before == after, ARB_ERR_DATA, "%" PRIu64 " elements, %s gives %" PRIu64, before, ORIGINAL_SHAPE, after);
    t->rank = o->rank;
    memcpy(t->shape, o->shape, sizeof t->shape);
  }
  return ARB_OK;
}

/* Everything after the name; offset stays relative to the data. */
static arb_status take_description(reader *r, const char *name, arb_weights_tensor *t) {
  uint32_t rank, type;
  uint64_t size, offset;
  ARB_TRY(take_u32(r, &rank));
  ARB_REQUIRE(rank <= ARB_WEIGHTS_MAX_RANK, ARB_ERR_DATA, "%" PRIu32 " dimensions, at most %d", rank, ARB_WEIGHTS_MAX_RANK);
  t->rank = (int)rank;
  for (uint32_t i = 0; i < rank; i++) {
    ARB_TRY(take_u64(r, &size));
    ARB_REQUIRE(size <= INT64_MAX, ARB_ERR_DATA, "a size of %" PRIu64, size);
    t->shape[rank - 1 - i] = (int64_t)size;
  }
  ARB_TRY(take_u32(r, &type));
  ARB_TRY(take_u64(r, &offset));
  ARB_REQUIRE(known_type(type, &t->type), ARB_ERR_DATA,
              "element type %" PRIu32 " is not read: convert it to F32 (0), F16 (1) or BF16 (30)", type);
  ARB_REQUIRE(offset <= r->f->size, ARB_ERR_DATA, "begins at byte %" PRIu64 " of the data, beyond the end of the file", offset);
  t->offset = offset;
  return apply_original(r, name, t);
}

static arb_status take_tensor(reader *r, arb_weights *w, int file) {
  arb_weights_tensor t = {.file = file};
  char *name, shown[ARB_WEIGHTS_QUOTE];
  size_t bytes;
  ARB_TRY(take_string(r, "the name of a tensor", ARB_WEIGHTS_MAX_NAME, &name, &bytes));
  arb_status st = take_description(r, name, &t);
  if (st != ARB_OK) arb_fail_context("tensor '%s'", arb_weights_quote(name, bytes, shown));
  if (st == ARB_OK) st = arb_weights_add(w, name, bytes, &t);
  free(name);
  return st;
}

static arb_status take_all(reader *r, arb_weights *w, int file) {
  char magic[4], shown[ARB_WEIGHTS_QUOTE];
  uint32_t version;
  uint64_t tensors, pairs;
  const int first = w->count;
  ARB_TRY(take(r, magic, sizeof magic));
  ARB_TRY(take_u32(r, &version));
  ARB_REQUIRE(version == 2 || version == 3, ARB_ERR_DATA, "GGUF version %" PRIu32 ", expected 2 or 3 (little-endian)", version);
  ARB_TRY(take_u64(r, &tensors));
  ARB_TRY(take_u64(r, &pairs));
  ARB_REQUIRE(tensors >= 1 && tensors <= ARB_WEIGHTS_MAX_TENSORS, ARB_ERR_DATA, "%" PRIu64 " tensors, expected 1 to %d",
              tensors, ARB_WEIGHTS_MAX_TENSORS);
  ARB_TRY(take_pairs(r, pairs));
  for (uint64_t i = 0; i < tensors; i++) ARB_TRY(take_tensor(r, w, file));
  for (int i = 0; i < r->original_count; i++)
    ARB_REQUIRE(r->originals[i].used, ARB_ERR_DATA, "key '%s%s': there is no such tensor", ORIGINAL_SHAPE,
                arb_weights_quote(r->originals[i].tensor, strlen(r->originals[i].tensor), shown));
  const uint64_t begin = (r->at + r->alignment - 1) / r->alignment * r->alignment;
  ARB_REQUIRE(begin <= r->f->size, ARB_ERR_DATA, "ends early: its data would begin at byte %" PRIu64 " of %" PRIu64, begin,
              r->f->size);
  for (int i = first; i < w->count; i++) w->tensors[i].offset += begin;
  return arb_weights_check_cover(w, first, begin, r->f->size, r->alignment);
}

arb_status arb_weights_parse_gguf(arb_weights *w, int file) {
  const arb_file *f = &w->files[file];
  reader r = {.f = f, .end = f->size < ARB_ST_MAX_HEADER ? f->size : ARB_ST_MAX_HEADER, .alignment = 32};
  r.buffer = malloc(BUFFER);
  const arb_status st = r.buffer != NULL ? take_all(&r, w, file) : ARB_FAIL(ARB_ERR_NOMEM, "no memory to read a GGUF file");
  for (uint64_t i = 0; i < r.key_count; i++) free(r.keys[i]);
  for (int i = 0; i < r.original_count; i++) free(r.originals[i].tensor);
  free(r.keys);
  free(r.originals);
  free(r.buffer);
  return st;
}
