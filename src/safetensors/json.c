#include <inttypes.h>
#include <string.h>

#include "src/safetensors/weights_impl.h"

/* The text is scanned once before jansson sees it: for limits on depth and numbers of items, and for numbers, which a JSON
 * library may round or forgive. The scan need not know the grammar; jansson does. */
typedef struct {
  const char *text;
  size_t bytes, at;
  int depth;
  int64_t keys, items;
  size_t key, key_bytes; /* the last key of the outermost object: the tensor's name */
} scanner;

static const char *where(const scanner *s, char out[ARB_WEIGHTS_QUOTE + 16]) {
  char name[ARB_WEIGHTS_QUOTE];
  if (s->keys == 0) return "";
  snprintf(out, ARB_WEIGHTS_QUOTE + 16, "'%s': ", arb_weights_quote(s->text + s->key, s->key_bytes, name));
  return out;
}

/* From the opening quote to behind the closing one. */
static arb_status scan_string(scanner *s) {
  const size_t from = ++s->at;
  while (s->at < s->bytes && s->text[s->at] != '"') s->at += s->text[s->at] == '\\' ? 2 : 1;
  ARB_REQUIRE(s->at < s->bytes, ARB_ERR_DATA, "JSON: the string at byte %zu has no end", from - 1);
  const size_t used = s->at++ - from;
  size_t next = s->at;
  while (next < s->bytes && strchr(" \t\r\n", s->text[next]) != NULL && s->text[next] != '\0') next++;
  if (s->depth == 1 && next < s->bytes && s->text[next] == ':') {
    s->key = from;
    s->key_bytes = used;
    s->keys++;
  }
  return ARB_OK;
}

static arb_status scan_number(scanner *s, bool whole) {
  char shown[ARB_WEIGHTS_QUOTE], place[ARB_WEIGHTS_QUOTE + 16];
  const size_t from = s->at;
  uint64_t value = 0;
  bool plain = true;
  for (; s->at < s->bytes && s->text[s->at] != '\0' && strchr("0123456789+-.eE", s->text[s->at]) != NULL; s->at++) {
    const char c = s->text[s->at];
    plain &= c >= '0' && c <= '9' && value <= (uint64_t)1 << 53;
    if (plain) value = value * 10 + (uint64_t)(c - '0');
  }
  ARB_REQUIRE(!whole || (plain && value <= (uint64_t)1 << 53), ARB_ERR_DATA,
              "%sthe number %s is not a whole number from 0 to 2^53", where(s, place),
              arb_weights_quote(s->text + from, s->at - from, shown));
  return ARB_OK;
}

/* Up to behind the object's closing bracket. */
static arb_status scan(scanner *s, const arb_weights_json_rules *rules) {
  char place[ARB_WEIGHTS_QUOTE + 16];
  do {
    const char c = s->text[s->at];
    if (c == '{' || c == '[') s->depth++;
    if (c == '}' || c == ']') s->depth--;
    if (c == '{' || c == '[' || c == ',' || c == ':') s->items++;
    ARB_REQUIRE(s->depth <= rules->depth, ARB_ERR_DATA, "%sJSON nested deeper than %d", where(s, place), rules->depth);
    ARB_REQUIRE(s->items <= rules->items, ARB_ERR_DATA, "%smore than %" PRId64 " JSON items", where(s, place), rules->items);
    if (c == '"') {
      ARB_TRY(scan_string(s));
      ARB_REQUIRE(s->keys <= rules->keys, ARB_ERR_DATA, "%smore than %" PRId64 " entries", where(s, place), rules->keys);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
      ARB_TRY(scan_number(s, rules->whole_numbers));
    } else {
      s->at++;
    }
  } while (s->depth > 0 && s->at < s->bytes);
  ARB_REQUIRE(s->depth == 0, ARB_ERR_DATA, "%sJSON ends early", where(s, place));
  return ARB_OK;
}

arb_status arb_weights_json(const char *text, size_t bytes, const arb_weights_json_rules *rules, json_t **out) {
  char shown[ARB_WEIGHTS_QUOTE];
  scanner s = {.text = text, .bytes = bytes};
  json_error_t error;
  *out = NULL;
  ARB_REQUIRE(bytes > 0 && text[0] == '{', ARB_ERR_DATA, "no JSON object: begins with '%s', expected '{'",
              arb_weights_quote(text, bytes < 8 ? bytes : 8, shown));
  ARB_TRY(scan(&s, rules));
  for (size_t i = s.at; i < bytes; i++)
    ARB_REQUIRE(text[i] == ' ', ARB_ERR_DATA, "junk after the JSON object, at byte %zu of %zu", i, bytes);
  *out = json_loadb(text, s.at, JSON_REJECT_DUPLICATES, &error);
  if (*out == NULL && json_error_code(&error) == json_error_out_of_memory) return ARB_FAIL(ARB_ERR_NOMEM, "no memory for JSON");
  ARB_REQUIRE(*out != NULL, ARB_ERR_DATA, "JSON: %s, at byte %d", arb_weights_quote(error.text, strlen(error.text), shown),
              error.position);
  return ARB_OK;
}
