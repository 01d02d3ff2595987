#include "tests/checkpoint/resign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "tests/checkpoint/state.h"
#include "tests/test.h"

json_t *manifest_load(const char *dir, int64_t step) {
  json_t *root = json_load_file(step_path(dir, step, "manifest.json"), JSON_REJECT_DUPLICATES, NULL);
  assert_non_null(root);
  return root;
}

void manifest_spill(const char *dir, int64_t step, const char *text, size_t length) {
  spill(step_path(dir, step, "manifest.json"), (const unsigned char *)text, (long)length);
}

static void hex_of(const void *bytes, size_t count, char hex[33]) {
  XXH128_canonical_t c;
  XXH128_canonicalFromHash(&c, XXH3_128bits(bytes, count));
  for (size_t i = 0; i < 16; i++) snprintf(hex + 2 * i, 3, "%02x", c.digest[i]);
}

void manifest_store(const char *dir, int64_t step, json_t *root) {
  char hex[33];
  if (json_is_object(root)) json_object_del(root, "manifest");
  char *text = json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER);
  assert_non_null(text);
  const size_t length = strlen(text);
  char *all = malloc(length + 80);
  assert_non_null(all);
  memcpy(all, text, length);
  all[length - 1] = ','; /* the closing brace */
  hex_of(all, length, hex);
  const int n = snprintf(all + length, 80, "\"manifest\":\"%s\"}\n", hex);
  manifest_spill(dir, step, all, length + (size_t)n);
  free(all);
  free(text);
  json_decref(root);
}

void manifest_resign(const char *dir, int64_t step) {
  json_t *root = manifest_load(dir, step), *files = json_object_get(root, "files"), *file, *array, *slice;
  size_t i, k;
  char hex[33];
  for (size_t n = 0; n < json_array_size(files); n++) {
    long size;
    file = json_array_get(files, n);
    unsigned char *bytes = slurp(step_path(dir, step, json_string_value(json_object_get(file, "name"))), &size);
    hex_of(bytes, (size_t)size, hex);
    json_object_set_new(file, "bytes", json_integer(size));
    json_object_set_new(file, "xxh3_128", json_string(hex));
    json_array_foreach(json_object_get(root, "arrays"), i, array) {
      const json_t *shape = json_object_get(array, "shape");
      const char *type = json_string_value(json_object_get(array, "type"));
      const long width = strchr(type, '3') ? 4 : strchr(type, '1') ? 2 : strchr(type, '6') ? 8 : 1;
      json_array_foreach(json_object_get(array, "slices"), k, slice) {
        const long at = (long)json_integer_value(json_object_get(slice, "offset"));
        const long count =
            (long)(json_integer_value(json_object_get(slice, "rows")) * json_integer_value(json_array_get(shape, 1)) * width);
        if ((size_t)json_integer_value(json_object_get(slice, "file")) != n || at + count > size) continue;
        hex_of(bytes + at, (size_t)count, hex);
        json_object_set_new(slice, "xxh3_128", json_string(hex));
      }
    }
    free(bytes);
  }
  manifest_store(dir, step, root);
}
