/* The header of a safetensors file. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/safetensors/safetensors.h"
#include "src/safetensors/weights_impl.h"

static bool known_type(const char *text, arb_weights_type *out) {
  for (int t = 0; t < ARB_WEIGHTS_TYPE__COUNT; t++) {
    if (strcmp(text, arb_weights_type_name((arb_weights_type)t)) != 0) continue;
    *out = (arb_weights_type)t;
    return true;
  }
  return false;
}

/* An array of n whole numbers up to 2^53; the scan has refused all other numbers. */
static bool whole_numbers(const json_t *array, size_t most, int64_t *out, size_t *n) {
  *n = json_array_size(array);
  if (!json_is_array(array) || *n > most) return false;
  for (size_t i = 0; i < *n; i++) {
    const json_t *value = json_array_get(array, i);
    if (!json_is_integer(value)) return false;
    out[i] = json_integer_value(value);
  }
  return true;
}

/* The data lies in [begin, end) of the file. Messages begin with the tensor. */
static arb_status add_entry(arb_weights *w, int file, const char *name, size_t name_bytes, json_t *entry, uint64_t begin,
                            uint64_t end) {
  char shown[ARB_WEIGHTS_QUOTE], type_shown[ARB_WEIGHTS_QUOTE];
  int64_t offsets[2];
  size_t rank, n;
  arb_weights_tensor t = {.file = file};
  arb_weights_quote(name, name_bytes, shown);
  const json_t *shape = json_object_get(entry, "shape"), *range = json_object_get(entry, "data_offsets");
  const json_t *type = json_object_get(entry, "dtype");
  ARB_REQUIRE(json_is_object(entry) && json_object_size(entry) == 3 && json_is_string(type) && shape != NULL && range != NULL,
              ARB_ERR_DATA, "tensor '%s': expected an object of dtype, shape and data_offsets", shown);
  ARB_REQUIRE(known_type(json_string_value(type), &t.type), ARB_ERR_DATA, "tensor '%s': unknown dtype '%s'", shown,
              arb_weights_quote(json_string_value(type), json_string_length(type), type_shown));
  ARB_REQUIRE(whole_numbers(shape, ARB_WEIGHTS_MAX_RANK, t.shape, &rank), ARB_ERR_DATA,
              "tensor '%s': its shape is not an array of at most %d whole numbers", shown, ARB_WEIGHTS_MAX_RANK);
  ARB_REQUIRE(whole_numbers(range, 2, offsets, &n) && n == 2, ARB_ERR_DATA,
              "tensor '%s': its data_offsets are not two whole numbers", shown);
  ARB_REQUIRE(offsets[0] <= offsets[1] && (uint64_t)offsets[1] <= end - begin, ARB_ERR_DATA,
              "tensor '%s': data_offsets [%" PRId64 ", %" PRId64 "] are not a range within the %" PRIu64 " bytes of data",
              shown, offsets[0], offsets[1], end - begin);
  t.rank = (int)rank;
  t.offset = begin + (uint64_t)offsets[0];
  ARB_TRY(arb_weights_add(w, name, name_bytes, &t));
  const uint64_t needed = w->tensors[w->count - 1].bytes, given = (uint64_t)(offsets[1] - offsets[0]);
  ARB_REQUIRE(needed == given, ARB_ERR_DATA,
              "tensor '%s': its shape and dtype %s need %" PRIu64 " bytes, data_offsets give %" PRIu64, shown,
              arb_weights_type_name(t.type), needed, given);
  return ARB_OK;
}

static arb_status check_notes(json_t *notes) {
  const char *key;
  char shown[ARB_WEIGHTS_QUOTE];
  json_t *value;
  ARB_REQUIRE(json_is_object(notes), ARB_ERR_DATA, "__metadata__: is not an object");
  json_object_foreach(notes, key, value) ARB_REQUIRE(json_is_string(value), ARB_ERR_DATA, "__metadata__: '%s' is not a string",
                                                     arb_weights_quote(key, strlen(key), shown));
  return ARB_OK;
}

static arb_status add_entries(arb_weights *w, int file, json_t *header, uint64_t begin, uint64_t end) {
  const int first = w->count;
  const char *name;
  json_t *entry;
  json_object_foreach(header, name, entry) {
    if (strcmp(name, "__metadata__") == 0) {
      ARB_TRY(check_notes(entry));
    } else {
      ARB_TRY(add_entry(w, file, name, strlen(name), entry, begin, end));
    }
  }
  return arb_weights_check_cover(w, first, begin, end, 1);
}

arb_status arb_weights_parse_safetensors(arb_weights *w, int file) {
  static const arb_weights_json_rules rules = {3, ARB_WEIGHTS_MAX_TENSORS + 1, 1000000, true};
  const arb_file *f = &w->files[file];
  unsigned char prefix[8];
  uint64_t length = 0;
  json_t *header = NULL;
  ARB_REQUIRE(f->size > 8, ARB_ERR_DATA, "%" PRIu64 " bytes: too short for a safetensors file", f->size);
  ARB_TRY(arb_file_read(f, 0, prefix, sizeof prefix));
  for (int i = 7; i >= 0; i--) length = length << 8 | prefix[i];
  ARB_REQUIRE(length >= 2 && length <= ARB_ST_MAX_HEADER && length <= f->size - 8, ARB_ERR_DATA,
              "no safetensors file: its first 8 bytes give a header of %" PRIu64 " bytes, expected 2 to %" PRIu64, length,
              f->size - 8 < ARB_ST_MAX_HEADER ? f->size - 8 : (uint64_t)ARB_ST_MAX_HEADER);
  char *text = malloc((size_t)length);
  ARB_REQUIRE(text != NULL, ARB_ERR_NOMEM, "no memory for a header of %" PRIu64 " bytes", length);
  arb_status st = arb_file_read(f, 8, text, length);
  if (st == ARB_OK) st = arb_weights_json(text, (size_t)length, &rules, &header);
  if (st == ARB_OK) st = add_entries(w, file, header, 8 + length, f->size);
  json_decref(header);
  free(text);
  return st;
}
