/* Sharded weights: {"metadata": {...}, "weight_map": {"tensor": "shard.safetensors", ...}}. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/safetensors/weights_impl.h"

enum { MAX_INDEX = 1 << 24 };

/* A name that stays in the index's own folder. */
static arb_status check_shard_name(const char *tensor, const char *name) {
  char shown[ARB_WEIGHTS_QUOTE], tensor_shown[ARB_WEIGHTS_QUOTE];
  const size_t n = strlen(name), end = strlen(".safetensors");
  bool good = n > end && n < 256 && name[0] != '.' && strcmp(name + n - end, ".safetensors") == 0;
  for (size_t i = 0; i < n && good; i++) good = name[i] > ' ' && name[i] <= '~' && name[i] != '/' && name[i] != '\\';
  ARB_REQUIRE(good, ARB_ERR_DATA, "tensor '%s': its shard '%s' is not the plain name of a .safetensors file beside the index",
              arb_weights_quote(tensor, strlen(tensor), tensor_shown), arb_weights_quote(name, n, shown));
  return ARB_OK;
}

static int by_text(const void *left, const void *right) {
  return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The shards' names, sorted, each once; borrowed from the map. */
static arb_status list_shards(json_t *map, const char **names, int *count) {
  const char *tensor;
  char shown[ARB_WEIGHTS_QUOTE];
  json_t *shard;
  size_t n = 0;
  json_object_foreach(map, tensor, shard) {
    ARB_REQUIRE(json_is_string(shard), ARB_ERR_DATA, "tensor '%s': its shard is not a string",
                arb_weights_quote(tensor, strlen(tensor), shown));
    ARB_TRY(check_shard_name(tensor, json_string_value(shard)));
    names[n++] = json_string_value(shard);
  }
  qsort(names, n, sizeof *names, by_text);
  *count = 0;
  for (size_t i = 0; i < n; i++)
    if (i == 0 || strcmp(names[i], names[*count - 1]) != 0) names[(*count)++] = names[i];
  ARB_REQUIRE(*count >= 1 && *count <= ARB_WEIGHTS_MAX_FILES, ARB_ERR_DATA, "%d shards, expected 1 to %d", *count,
              ARB_WEIGHTS_MAX_FILES);
  return ARB_OK;
}

/* Every tensor of a shard is in the map with this shard. */
static arb_status check_shard(const arb_weights *w, json_t *map, int first, const char *shard) {
  for (int i = first; i < w->count; i++) {
    const char *named = json_string_value(json_object_get(map, w->tensors[i].name));
    ARB_REQUIRE(named != NULL, ARB_ERR_DATA, "tensor '%s': in %s, but not in the index", w->tensors[i].name, shard);
    ARB_REQUIRE(strcmp(named, shard) == 0, ARB_ERR_DATA, "tensor '%s': in %s, by the index in %s", w->tensors[i].name, shard,
                named);
  }
  return ARB_OK;
}

static arb_status open_shards(arb_weights *w, json_t *map, const char *index, const char *const *names, int count) {
  char path[ARB_WEIGHTS_PATH], shown[ARB_WEIGHTS_QUOTE];
  const char *slash = strrchr(index, '/'), *tensor;
  const int folder = slash == NULL ? 0 : (int)(slash - index) + 1;
  json_t *shard;
  for (int i = 0; i < count; i++) {
    const int first = w->count, n = snprintf(path, sizeof path, "%.*s%s", folder, index, names[i]);
    ARB_REQUIRE(n > 0 && n < ARB_WEIGHTS_PATH, ARB_ERR_DATA, "%.200s...: path too long", index);
    ARB_TRY(arb_weights_add_file(w, path));
    const arb_status st = arb_weights_parse_safetensors(w, i);
    if (st != ARB_OK) arb_fail_context("%s", path);
    ARB_TRY(st);
    ARB_TRY(check_shard(w, map, first, names[i]));
  }
  /* The shards' tensors are in the map. As many tensors as entries: then every entry has its tensor, unless a tensor is twice,
   * which sorting finds. */
  ARB_TRY(arb_weights_sort(w));
  json_object_foreach(map, tensor, shard)
      ARB_REQUIRE(arb_weights_has(w, tensor), ARB_ERR_DATA, "tensor '%s': not in %s, where the index puts it",
                  arb_weights_quote(tensor, strlen(tensor), shown), json_string_value(shard));
  return ARB_OK;
}

static arb_status read_map(arb_weights *w, json_t *root, const char *path) {
  json_t *map = json_object_get(root, "weight_map"), *notes = json_object_get(root, "metadata"), *value;
  const char *key;
  char shown[ARB_WEIGHTS_QUOTE];
  int count = 0;
  ARB_REQUIRE(json_is_object(map), ARB_ERR_DATA, "no object weight_map");
  ARB_REQUIRE(notes == NULL || json_is_object(notes), ARB_ERR_DATA, "metadata is not an object");
  json_object_foreach(root, key, value)
      ARB_REQUIRE(value == map || value == notes, ARB_ERR_DATA, "'%s' beside metadata and weight_map",
                  arb_weights_quote(key, strlen(key), shown));
  const char **names = malloc((json_object_size(map) + 1) * sizeof *names);
  ARB_REQUIRE(names != NULL, ARB_ERR_NOMEM, "no memory for an index of %zu tensors", json_object_size(map));
  arb_status st = list_shards(map, names, &count);
  if (st == ARB_OK) st = open_shards(w, map, path, names, count);
  free(names);
  return st;
}

static arb_status read_index(arb_weights *w, const arb_file *f, char *text) {
  static const arb_weights_json_rules rules = {4, 16, 1000000, false};
  json_t *root;
  ARB_TRY(arb_file_read(f, 0, text, f->size));
  /* Unlike a header, this is a text file: a line may end after the object. */
  size_t used = (size_t)f->size;
  while (used > 0 && strchr(" \t\r\n", text[used - 1]) != NULL && text[used - 1] != '\0') used--;
  ARB_TRY(arb_weights_json(text, used, &rules, &root));
  const arb_status st = read_map(w, root, f->path);
  json_decref(root);
  return st;
}

arb_status arb_weights_open_index(arb_weights *w, const char *path) {
  arb_file f;
  ARB_TRY(arb_file_open(path, &f));
  w->container = "safetensors";
  arb_status st =
      f.size <= MAX_INDEX ? ARB_OK : ARB_FAIL(ARB_ERR_DATA, "%" PRIu64 " bytes, limit %d for an index", f.size, MAX_INDEX);
  char *text = st == ARB_OK ? malloc((size_t)f.size) : NULL;
  if (st == ARB_OK && text == NULL) st = ARB_FAIL(ARB_ERR_NOMEM, "no memory for an index of %" PRIu64 " bytes", f.size);
  if (st == ARB_OK) st = read_index(w, &f, text);
  if (st != ARB_OK) arb_fail_context("%s", path);
  free(text);
  arb_file_close(&f);
  return st;
}
