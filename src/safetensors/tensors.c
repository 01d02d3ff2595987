#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/safetensors/weights_impl.h"

static const struct {
  const char *name;
  unsigned char size;
} types[ARB_WEIGHTS_TYPE__COUNT] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
                                    {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
                                    {"I32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};

const char *arb_weights_type_name(arb_weights_type type) { return types[type].name; }
size_t arb_weights_type_size(arb_weights_type type) { return types[type].size; }

const char *arb_weights_quote(const char *name, size_t n, char out[ARB_WEIGHTS_QUOTE]) {
  const size_t most = ARB_WEIGHTS_QUOTE - 4;
  const size_t used = n < most ? n : most;
  for (size_t i = 0; i < used; i++) out[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
  memcpy(out + used, n > most ? "..." : "", n > most ? 4 : 1);
  return out;
}

static arb_status check_name(const char *name, size_t n) {
  char shown[ARB_WEIGHTS_QUOTE];
  bool good = n >= 1 && n <= ARB_WEIGHTS_MAX_NAME;
  for (size_t i = 0; i < n && good; i++) good = name[i] > ' ' && name[i] <= '~' && name[i] != '/' && name[i] != '\\';
  ARB_REQUIRE(good, ARB_ERR_DATA,
              "tensor '%s': a name of %zu bytes, expected 1 to %d printable ASCII characters without blanks, '/' and '\\'",
              arb_weights_quote(name, n, shown), n, ARB_WEIGHTS_MAX_NAME);
  return ARB_OK;
}

/* A size of 0 anywhere makes a tensor empty, but does not excuse the other sizes. */
static bool measure(arb_weights_tensor *t) {
  int64_t n = 1;
  bool empty = false;
  const int64_t limit = INT64_MAX / (int64_t)arb_weights_type_size(t->type);
  for (int i = 0; i < t->rank; i++) {
    if (t->shape[i] < 0) return false;
    empty |= t->shape[i] == 0;
    if (t->shape[i] > 0 && n > limit / t->shape[i]) return false;
    if (t->shape[i] > 0) n *= t->shape[i];
  }
  t->count = empty ? 0 : n;
  t->bytes = (uint64_t)t->count * arb_weights_type_size(t->type);
  return true;
}

arb_status arb_weights_add(arb_weights *w, const char *name, size_t name_bytes, const arb_weights_tensor *t) {
  arb_weights_tensor add = *t;
  ARB_TRY(check_name(name, name_bytes));
  ARB_REQUIRE(w->count < ARB_WEIGHTS_MAX_TENSORS, ARB_ERR_DATA, "tensor '%.*s': more than %d tensors", (int)name_bytes, name,
              ARB_WEIGHTS_MAX_TENSORS);
  ARB_REQUIRE(measure(&add), ARB_ERR_DATA, "tensor '%.*s': the sizes of its shape multiply to more than 2^63 bytes",
              (int)name_bytes, name);
  if (w->count == w->room) {
    const int room = w->room == 0 ? 256 : 2 * w->room;
    arb_weights_tensor *grown = realloc(w->tensors, (size_t)room * sizeof *grown);
    ARB_REQUIRE(grown != NULL, ARB_ERR_NOMEM, "no memory for %d tensors", room);
    w->tensors = grown;
    w->room = room;
  }
  add.name = strndup(name, name_bytes);
  ARB_REQUIRE(add.name != NULL, ARB_ERR_NOMEM, "no memory for %d tensors", w->room);
  w->tensors[w->count++] = add;
  return ARB_OK;
}

static int by_offset(const void *left, const void *right) {
  const arb_weights_tensor *a = *(const arb_weights_tensor *const *)left, *b = *(const arb_weights_tensor *const *)right;
  if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
  return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static arb_status check_sorted(const arb_weights_tensor *const *list, int n, uint64_t begin, uint64_t end, uint64_t align) {
  uint64_t covered = begin, padded = begin; /* up to here without and with the padding */
  for (int i = 0; i < n; i++) {
    const arb_weights_tensor *t = list[i];
    ARB_REQUIRE(t->offset <= end && t->bytes <= end - t->offset, ARB_ERR_DATA,
                "tensor '%s': %" PRIu64 " bytes from byte %" PRIu64 " reach beyond the end at %" PRIu64, t->name, t->bytes,
                t->offset, end);
    ARB_REQUIRE(t->offset >= padded, ARB_ERR_DATA, "tensor '%s': overlaps '%s', byte %" PRIu64, t->name,
                i > 0 ? list[i - 1]->name : "", t->offset);
    ARB_REQUIRE(t->offset == padded, ARB_ERR_DATA, "tensor '%s': a hole of %" PRIu64 " bytes before it", t->name,
                t->offset - padded);
    covered = t->offset + t->bytes;
    padded = begin + (covered - begin + align - 1) / align * align;
  }
  ARB_REQUIRE(end == covered || end == padded, ARB_ERR_DATA, "%" PRIu64 " bytes after the end of the last tensor, '%s'",
              end - covered, n > 0 ? list[n - 1]->name : "");
  return ARB_OK;
}

arb_status arb_weights_check_cover(const arb_weights *w, int first, uint64_t begin, uint64_t end, uint64_t align) {
  const int n = w->count - first;
  const arb_weights_tensor **list = malloc(((size_t)n + 1) * sizeof *list);
  ARB_REQUIRE(list != NULL, ARB_ERR_NOMEM, "no memory for %d tensors", n);
  for (int i = 0; i < n; i++) list[i] = &w->tensors[first + i];
  qsort(list, (size_t)n, sizeof *list, by_offset);
  const arb_status st = check_sorted(list, n, begin, end, align);
  free(list);
  return st;
}

static int by_name(const void *left, const void *right) {
  const arb_weights_tensor *a = left, *b = right;
  return strcmp(a->name, b->name);
}

arb_status arb_weights_sort(arb_weights *w) {
  if (w->count > 0) qsort(w->tensors, (size_t)w->count, sizeof *w->tensors, by_name);
  for (int i = 1; i < w->count; i++) {
    const arb_weights_tensor *a = &w->tensors[i - 1], *b = &w->tensors[i];
    ARB_REQUIRE(strcmp(a->name, b->name) != 0, ARB_ERR_DATA, "tensor '%s': twice, in %s and in %s", a->name,
                w->files[a->file].path, w->files[b->file].path);
  }
  return ARB_OK;
}
