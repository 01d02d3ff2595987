/* manifest.json: what a checkpoint consists of. One array a line, so that people and diff can read it. */
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/checkpoint_impl.h"

#define REFUSE(...) ARB_FAIL(ARB_ERR_CHECKPOINT, __VA_ARGS__)
#define REFUSE_UNLESS(cond, ...) ARB_REQUIRE(cond, ARB_ERR_CHECKPOINT, __VA_ARGS__)

static const char format_name[] = "arbdist checkpoint";
/* The last line is this, 32 hex digits, and the end. */
static const char tail_head[] = "\"manifest\":\"", tail_end[] = "\"}\n";
enum { TAIL = sizeof tail_head - 1 + ARB_CKPT_HEX - 1 + sizeof tail_end - 1 };

int arb_ckpt_item_order(const void *a, const void *b) {
  const arb_ckpt_item *x = a, *y = b;
  const int tensor = strcmp(x->tensor, y->tensor);
  return tensor != 0 ? tensor : strcmp(x->field, y->field);
}

const arb_ckpt_item *arb_ckpt_manifest_find(const arb_ckpt_manifest *m, const char *tensor, const char *field) {
  arb_ckpt_item key = {.slice = 0};
  if (m->array_count == 0 || strlen(tensor) >= sizeof key.tensor || strlen(field) >= sizeof key.field) return NULL;
  memcpy(key.tensor, tensor, strlen(tensor) + 1);
  memcpy(key.field, field, strlen(field) + 1);
  return bsearch(&key, m->arrays, (size_t)m->array_count, sizeof *m->arrays, arb_ckpt_item_order);
}

void arb_ckpt_manifest_deinit(arb_ckpt_manifest *m) {
  free(m->files);
  free(m->arrays);
  free(m->slices);
  *m = (arb_ckpt_manifest){.ranks = 0};
}

/* ---- what must hold --------------------------------------------------------------------------------------------------- */

static arb_status check_array(const arb_ckpt_manifest *m, const arb_ckpt_item *a, const char *path, arb_status st) {
  int64_t next = 0;
  ARB_REQUIRE(a->slices > 0, st, "%s: %s.%s has no slices", path, a->tensor, a->field);
  for (int i = a->slice; i < a->slice + a->slices; i++) {
    const arb_ckpt_slice *s = &m->slices[i];
    ARB_REQUIRE(s->first >= next, st, "%s: row %" PRId64 " of %s.%s is in two slices", path, s->first, a->tensor, a->field);
    ARB_REQUIRE(s->first == next, st, "%s: row %" PRId64 " of %s.%s is in no slice", path, next, a->tensor, a->field);
    ARB_REQUIRE(s->rows > 0 || a->rows == 0, st, "%s: a slice of %s.%s has no rows", path, a->tensor, a->field);
    ARB_REQUIRE(s->rows <= a->rows - next, st, "%s: the slices of %s.%s have more than its %" PRId64 " rows", path, a->tensor,
                a->field, a->rows);
    next += s->rows;
  }
  ARB_REQUIRE(next == a->rows, st, "%s: row %" PRId64 " of %s.%s is in no slice", path, next, a->tensor, a->field);
  ARB_REQUIRE(a->rows > 0 || a->slices == 1, st, "%s: %s.%s has no rows, but %d slices", path, a->tensor, a->field, a->slices);
  return ARB_OK;
}

static arb_status check_texts(const arb_ckpt_manifest *m, const char *path, arb_status st) {
  static const char *const texts[] = {ARB_CKPT_IDENTITY, ARB_CKPT_CONFIG};
  int own = 0;
  for (int i = 0; i < 2; i++) {
    const arb_ckpt_item *a = arb_ckpt_manifest_find(m, ARB_CKPT_META, texts[i]);
    ARB_REQUIRE(a != NULL, st, "%s: %s.%s is missing", path, ARB_CKPT_META, texts[i]);
    ARB_REQUIRE(a->type == ARB_U8 && a->rows == 1 && a->columns <= ARB_CKPT_MAX_TEXT, st,
                "%s: %s.%s is %s %" PRId64 " x %" PRId64 ", expected u8 1 x at most %d", path, a->tensor, a->field,
                arb_dtype_name(a->type), a->rows, a->columns, ARB_CKPT_MAX_TEXT);
  }
  for (int i = 0; i < m->array_count; i++) own += strcmp(m->arrays[i].tensor, ARB_CKPT_META) == 0;
  ARB_REQUIRE(own == 2, st, "%s: %s has %d texts, expected identity and config", path, ARB_CKPT_META, own);
  return ARB_OK;
}

static int by_place(const void *a, const void *b) {
  const arb_ckpt_slice *const *x = a, *const *y = b;
  if ((*x)->file != (*y)->file) return (*x)->file < (*y)->file ? -1 : 1;
  return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

/* Two names for the same bytes: a second hard link, or a forged offset. */
static arb_status no_overlap(const arb_ckpt_manifest *m, const char *path, arb_status st) {
  const arb_ckpt_slice **sorted = malloc(((size_t)m->slice_count + 1) * sizeof *sorted);
  ARB_REQUIRE(sorted != NULL, ARB_ERR_NOMEM, "%s: no memory for a list of %d slices", path, m->slice_count);
  int n = 0;
  for (int i = 0; i < m->slice_count; i++)
    if (m->slices[i].bytes > 0) sorted[n++] = &m->slices[i];
  qsort(sorted, (size_t)n, sizeof *sorted, by_place);
  arb_status result = ARB_OK;
  for (int i = 1; i < n && result == ARB_OK; i++) {
    const arb_ckpt_slice *x = sorted[i - 1], *y = sorted[i];
    if (x->file != y->file || y->offset - x->offset >= x->bytes) continue;
    const arb_ckpt_item *a = &m->arrays[x->array], *b = &m->arrays[y->array];
    result = ARB_FAIL(st, "%s: %s.%s and %s.%s share bytes of %s", path, a->tensor, a->field, b->tensor, b->field,
                      m->files[x->file].name);
  }
  free(sorted);
  return result;
}

arb_status arb_ckpt_manifest_check(const arb_ckpt_manifest *m, const char *path, arb_status st) {
  for (int i = 1; i < m->array_count; i++) {
    const int order = arb_ckpt_item_order(&m->arrays[i - 1], &m->arrays[i]);
    ARB_REQUIRE(order != 0, st, "%s: %s.%s: twice in one checkpoint", path, m->arrays[i].tensor, m->arrays[i].field);
    ARB_REQUIRE(order < 0, st, "%s: %s.%s is not in its place, arrays are sorted by name", path, m->arrays[i].tensor,
                m->arrays[i].field);
  }
  ARB_TRY(check_texts(m, path, st));
  for (int i = 0; i < m->array_count; i++) ARB_TRY(check_array(m, &m->arrays[i], path, st));
  for (int i = 0; i < m->slice_count; i++) {
    const arb_ckpt_slice *s = &m->slices[i];
    const arb_ckpt_item *a = &m->arrays[s->array];
    const uint64_t size = m->files[s->file].bytes;
    ARB_REQUIRE(s->bytes == 0 || (s->offset >= ARB_CKPT_SUPERBLOCK && s->bytes <= size && s->offset <= size - s->bytes), st,
                "%s: %s.%s lies outside of %s", path, a->tensor, a->field, m->files[s->file].name);
  }
  return no_overlap(m, path, st);
}

/* ---- writing ---------------------------------------------------------------------------------------------------------- */

static void put_array(FILE *out, const arb_ckpt_manifest *m, const arb_ckpt_item *a) {
  fprintf(out, "{\"tensor\":\"%s\",\"field\":\"%s\",\"type\":\"%s\",\"shape\":[%" PRId64 ",%" PRId64 "],\"slices\":[",
          a->tensor, a->field, arb_dtype_name(a->type), a->rows, a->columns);
  for (int i = a->slice; i < a->slice + a->slices; i++) {
    const arb_ckpt_slice *s = &m->slices[i];
    fprintf(out, "%s{\"file\":%d,\"first\":%" PRId64 ",\"rows\":%" PRId64 ",\"offset\":%" PRIu64 ",\"xxh3_128\":\"%s\"}",
            i > a->slice ? "," : "", s->file, s->first, s->rows, s->offset, s->digest);
  }
  fputs("]}", out);
}

/* Names have no letter that JSON would want escaped. */
arb_status arb_ckpt_manifest_text(const arb_ckpt_manifest *m, char **text, size_t *length) {
  char hex[ARB_CKPT_HEX];
  *text = NULL;
  FILE *out = open_memstream(text, length);
  ARB_REQUIRE(out != NULL, ARB_ERR_NOMEM, "no memory for a manifest");
  fprintf(out, "{\"format\":\"%s\",\n\"version\":%d,\n\"step\":%" PRId64 ",\n\"samples\":%" PRId64 ",\n", format_name,
          ARB_CKPT_VERSION, m->meta.step, m->meta.samples);
  /* A seed may need 64 bits, which JSON's numbers do not promise. */
  fprintf(out, "\"seed\":\"%" PRIu64 "\",\n\"digest\":\"%s\",\n\"run\":\"%s\",\n\"ranks\":%d,\n\"sharded\":%s,\n\"files\":[\n",
          m->meta.seed, m->meta.digest, m->run, m->ranks, m->sharded ? "true" : "false");
  for (int i = 0; i < m->file_count; i++)
    fprintf(out, "%s{\"name\":\"%s\",\"bytes\":%" PRIu64 ",\"xxh3_128\":\"%s\"}", i > 0 ? ",\n" : "", m->files[i].name,
            m->files[i].bytes, m->files[i].digest);
  fputs("],\n\"arrays\":[\n", out);
  for (int i = 0; i < m->array_count; i++) {
    if (i > 0) fputs(",\n", out);
    put_array(out, m, &m->arrays[i]);
  }
  fputs("],\n", out);
  if (fflush(out) == 0) {
    arb_ckpt_hash_bytes(*text, *length, hex);
    fprintf(out, "%s%s%s", tail_head, hex, tail_end);
  }
  const bool failed = ferror(out) != 0;
  if (fclose(out) != 0 || failed) {
    free(*text);
    *text = NULL;
    return ARB_FAIL(ARB_ERR_NOMEM, "no memory for a manifest");
  }
  return ARB_OK;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

typedef struct {
  const char *path;
  char where[ARB_CKPT_TENSOR + ARB_CKPT_FIELD + 64]; /* "arrays[3]", "embed.code" */
} place;

static arb_status keys_are(const place *p, const json_t *object, size_t expected) {
  REFUSE_UNLESS(json_is_object(object), "%s: %s is not an object", p->path, p->where);
  REFUSE_UNLESS(json_object_size(object) == expected, "%s: %s has %zu keys, expected %zu", p->path, p->where,
                json_object_size(object), expected);
  return ARB_OK;
}

static arb_status get(const place *p, const json_t *object, const char *key, json_type type, const json_t **out) {
  static const char *const names[] = {"an object", "an array", "a text", "a whole number", "a number", "true", "false", "null"};
  *out = json_object_get(object, key);
  REFUSE_UNLESS(*out != NULL, "%s: %s has no %s", p->path, p->where, key);
  REFUSE_UNLESS(json_typeof(*out) == type, "%s: %s of %s is %s, expected %s", p->path, key, p->where, names[json_typeof(*out)],
                names[type]);
  return ARB_OK;
}

static arb_status get_number(const place *p, const json_t *object, const char *key, int64_t least, int64_t most, int64_t *out) {
  const json_t *value;
  ARB_TRY(get(p, object, key, JSON_INTEGER, &value));
  *out = json_integer_value(value);
  REFUSE_UNLESS(*out >= least && *out <= most, "%s: %s of %s is %" PRId64 ", expected %" PRId64 " to %" PRId64, p->path, key,
                p->where, *out, least, most);
  return ARB_OK;
}

/* Jansson refuses a NUL in a text, so C strings hold all of it. */
static arb_status get_text(const place *p, const json_t *object, const char *key, const char **out) {
  const json_t *value;
  ARB_TRY(get(p, object, key, JSON_STRING, &value));
  *out = json_string_value(value);
  return ARB_OK;
}

static arb_status get_hex(const place *p, const json_t *object, const char *key, char hex[ARB_CKPT_HEX]) {
  const char *text;
  ARB_TRY(get_text(p, object, key, &text));
  REFUSE_UNLESS(strlen(text) == ARB_CKPT_HEX - 1, "%s: %s of %s is not 32 lower-case hex digits", p->path, key, p->where);
  memcpy(hex, text, ARB_CKPT_HEX);
  REFUSE_UNLESS(arb_ckpt_hex_ok(hex), "%s: %s of %s is not 32 lower-case hex digits", p->path, key, p->where);
  return ARB_OK;
}

static arb_status get_list(const place *p, const json_t *object, const char *key, int64_t least, int64_t most,
                           const json_t **out) {
  ARB_TRY(get(p, object, key, JSON_ARRAY, out));
  const int64_t n = (int64_t)json_array_size(*out);
  REFUSE_UNLESS(n >= least && n <= most, "%s: %s of %s has %" PRId64 " parts, expected %" PRId64 " to %" PRId64, p->path, key,
                p->where, n, least, most);
  return ARB_OK;
}

static arb_status get_seed(const place *p, const json_t *root, uint64_t *seed) {
  const char *text;
  char again[24];
  ARB_TRY(get_text(p, root, "seed", &text));
  *seed = strtoull(text, NULL, 10);
  snprintf(again, sizeof again, "%" PRIu64, *seed);
  REFUSE_UNLESS(strcmp(text, again) == 0, "%s: seed is not a number of 64 bits in a text", p->path);
  return ARB_OK;
}

static arb_status get_file(const char *path, const json_t *object, int i, arb_ckpt_manifest *m) {
  place p = {.path = path};
  arb_ckpt_listed *f = &m->files[i];
  char expected[ARB_CKPT_FILE];
  const char *name;
  int64_t bytes;
  snprintf(p.where, sizeof p.where, "files[%d]", i);
  ARB_TRY(keys_are(&p, object, 3));
  ARB_TRY(get_text(&p, object, "name", &name));
  /* Only the names that a save gives, in their order: none that leaves the folder, none twice. */
  f->rank = i;
  arb_ckpt_file_name(i, expected);
  REFUSE_UNLESS(strcmp(name, expected) == 0, "%s: %s is not named %s", path, p.where, expected);
  memcpy(f->name, expected, sizeof f->name);
  ARB_TRY(get_number(&p, object, "bytes", ARB_CKPT_SUPERBLOCK, INT64_MAX, &bytes));
  f->bytes = (uint64_t)bytes;
  return get_hex(&p, object, "xxh3_128", f->digest);
}

static arb_status get_slice(place *p, const json_t *object, int array, arb_ckpt_manifest *m) {
  arb_ckpt_slice *s = &m->slices[m->slice_count++];
  const arb_ckpt_item *a = &m->arrays[array];
  int64_t file, offset;
  *s = (arb_ckpt_slice){.array = array};
  ARB_TRY(keys_are(p, object, 5));
  ARB_TRY(get_number(p, object, "file", 0, m->file_count - 1, &file));
  ARB_TRY(get_number(p, object, "first", 0, a->rows, &s->first));
  ARB_TRY(get_number(p, object, "rows", 0, a->rows, &s->rows));
  ARB_TRY(get_number(p, object, "offset", 0, INT64_MAX, &offset));
  s->file = (int)file;
  s->offset = (uint64_t)offset;
  REFUSE_UNLESS(arb_ckpt_bytes(a->type, s->rows, a->columns, &s->bytes), "%s: %s has an impossible shape", p->path, p->where);
  return get_hex(p, object, "xxh3_128", s->digest);
}

static arb_status get_array(const char *path, const json_t *object, int i, arb_ckpt_manifest *m) {
  place p = {.path = path};
  arb_ckpt_item *a = &m->arrays[i];
  const char *tensor, *field, *type;
  const json_t *list;
  uint64_t bytes;
  *a = (arb_ckpt_item){.slice = m->slice_count};
  snprintf(p.where, sizeof p.where, "arrays[%d]", i);
  ARB_TRY(keys_are(&p, object, 5));
  ARB_TRY(get_text(&p, object, "tensor", &tensor));
  ARB_TRY(get_text(&p, object, "field", &field));
  REFUSE_UNLESS(arb_ckpt_name_ok(tensor, ARB_CKPT_TENSOR) && arb_ckpt_name_ok(field, ARB_CKPT_FIELD),
                "%s: %s has no name of a checkpoint", path, p.where);
  memcpy(a->tensor, tensor, strlen(tensor) + 1);
  memcpy(a->field, field, strlen(field) + 1);
  snprintf(p.where, sizeof p.where, "%s.%s", a->tensor, a->field);
  ARB_TRY(get_text(&p, object, "type", &type));
  REFUSE_UNLESS(arb_ckpt_type_of(type, &a->type), "%s: %s has a type that is not an integer of 8 to 64 bits", path, p.where);
  ARB_TRY(get_list(&p, object, "shape", 2, 2, &list));
  for (size_t k = 0; k < 2; k++) {
    const json_t *n = json_array_get(list, k);
    REFUSE_UNLESS(json_is_integer(n) && json_integer_value(n) >= 0, "%s: shape of %s is not of whole numbers", path, p.where);
  }
  a->rows = json_integer_value(json_array_get(list, 0));
  a->columns = json_integer_value(json_array_get(list, 1));
  REFUSE_UNLESS(arb_ckpt_bytes(a->type, a->rows, a->columns, &bytes), "%s: %s has an impossible shape", path, p.where);
  ARB_TRY(get_list(&p, object, "slices", 1, m->file_count, &list));
  a->slices = (int)json_array_size(list);
  void *more = realloc(m->slices, ((size_t)m->slice_count + (size_t)a->slices) * sizeof *m->slices);
  ARB_REQUIRE(more != NULL, ARB_ERR_NOMEM, "%s: no memory for a list of slices", path);
  m->slices = more;
  for (int k = 0; k < a->slices; k++) ARB_TRY(get_slice(&p, json_array_get(list, (size_t)k), i, m));
  return ARB_OK;
}

static arb_status get_head(const place *p, const json_t *root, arb_ckpt_manifest *m) {
  const char *format;
  int64_t version, ranks;
  REFUSE_UNLESS(json_is_object(root), "%s: is not a JSON object", p->path);
  ARB_TRY(get_text(p, root, "format", &format));
  REFUSE_UNLESS(strcmp(format, format_name) == 0, "%s: is not the manifest of a checkpoint", p->path);
  ARB_TRY(get_number(p, root, "version", 0, INT64_MAX, &version));
  REFUSE_UNLESS(version == ARB_CKPT_VERSION, "%s: checkpoint format %" PRId64 ", this program reads %d", p->path, version,
                ARB_CKPT_VERSION);
  ARB_TRY(keys_are(p, root, 12));
  ARB_TRY(get_number(p, root, "step", 0, INT64_MAX, &m->meta.step));
  ARB_TRY(get_number(p, root, "samples", 0, INT64_MAX, &m->meta.samples));
  ARB_TRY(get_seed(p, root, &m->meta.seed));
  ARB_TRY(get_hex(p, root, "digest", m->meta.digest));
  ARB_TRY(get_hex(p, root, "run", m->run));
  ARB_TRY(get_number(p, root, "ranks", 1, ARB_CKPT_MAX_RANKS, &ranks));
  m->ranks = (int)ranks;
  const json_t *sharded = json_object_get(root, "sharded");
  REFUSE_UNLESS(json_is_boolean(sharded), "%s: sharded is neither true nor false", p->path);
  m->sharded = json_is_true(sharded);
  return ARB_OK;
}

static arb_status get_all(const place *p, const json_t *root, arb_ckpt_manifest *m) {
  const json_t *files, *arrays;
  ARB_TRY(get_head(p, root, m));
  const int writers = m->sharded ? m->ranks : 1;
  ARB_TRY(get_list(p, root, "files", writers, writers, &files));
  ARB_TRY(get_list(p, root, "arrays", 0, ARB_CKPT_MAX_ARRAYS + 2, &arrays));
  const int count = (int)json_array_size(arrays);
  m->files = calloc((size_t)writers, sizeof *m->files);
  m->arrays = calloc((size_t)count + 1, sizeof *m->arrays);
  ARB_REQUIRE(m->files != NULL && m->arrays != NULL, ARB_ERR_NOMEM, "%s: no memory for a list of %d arrays", p->path, count);
  m->file_count = writers;
  for (int i = 0; i < writers; i++) ARB_TRY(get_file(p->path, json_array_get(files, (size_t)i), i, m));
  for (int i = 0; i < count; i++, m->array_count++) ARB_TRY(get_array(p->path, json_array_get(arrays, (size_t)i), i, m));
  return arb_ckpt_manifest_check(m, p->path, ARB_ERR_CHECKPOINT);
}

/* The digest comes before the parser: what accidents left is not parsed at all. */
static arb_status check_digest(const char *path, const char *text, size_t length) {
  char hex[ARB_CKPT_HEX];
  const char *tail = text + length - TAIL;
  const bool there = length >= TAIL && memcmp(tail, tail_head, sizeof tail_head - 1) == 0 &&
                     memcmp(text + length - (sizeof tail_end - 1), tail_end, sizeof tail_end - 1) == 0;
  REFUSE_UNLESS(there, "%s: its last line is not its digest: it was cut short, or is none", path);
  arb_ckpt_hash_bytes(text, length - TAIL, hex);
  REFUSE_UNLESS(memcmp(tail + sizeof tail_head - 1, hex, ARB_CKPT_HEX - 1) == 0,
                "%s: is damaged (digest %s, but its last line says %.32s)", path, hex, tail + sizeof tail_head - 1);
  return ARB_OK;
}

arb_status arb_ckpt_manifest_parse(const char *path, const char *text, size_t length, bool unverified, arb_ckpt_manifest *out) {
  const place p = {.path = path, .where = "the manifest"};
  char hex[ARB_CKPT_HEX];
  json_error_t error;
  *out = (arb_ckpt_manifest){.ranks = 0};
  if (!unverified) ARB_TRY(check_digest(path, text, length));
  json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
  if (root == NULL) {
    for (char *c = error.text; *c != '\0'; c++)
      if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e) *c = '?';
    const bool memory = json_error_code(&error) == json_error_out_of_memory;
    return ARB_FAIL(memory ? ARB_ERR_NOMEM : ARB_ERR_CHECKPOINT, "%s:%d: %s", path, error.line, error.text);
  }
  arb_status st = get_all(&p, root, out);
  if (st == ARB_OK) st = get_hex(&p, root, "manifest", hex);
  json_decref(root);
  if (st != ARB_OK) arb_ckpt_manifest_deinit(out);
  return st;
}
