#include "src/sidecar/hub.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/file.h"

enum { CONFIG_BYTES = 1 << 20 };

arb_status arb_hub_open(const char *path, const char *leaf, int64_t most, char *name, size_t size, json_t **out) {
  struct stat info;
  json_error_t error;
  const size_t length = strlen(path), tail = strlen(leaf);
  *out = NULL;
  if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
    snprintf(name, size, "%s/%s", path, leaf);
  } else if (length >= tail && strcmp(path + length - tail, leaf) == 0) {
    snprintf(name, size, "%s", path);
  } else {
    const char *slash = strrchr(path, '/');
    snprintf(name, size, "%.*s%s", slash ? (int)(slash - path) + 1 : 0, path, leaf);
  }
  if (stat(name, &info) != 0) return ARB_OK;
  unsigned char *text;
  size_t bytes;
  ARB_TRY(arb_file_slurp(name, (uint64_t)most, &text, &bytes));
  json_t *root = json_loadb((const char *)text, bytes, JSON_REJECT_DUPLICATES, &error);
  free(text);
  ARB_REQUIRE(root, ARB_ERR_DATA, "%s:%d: %s", name, error.line, error.text);
  if (!json_is_object(root)) {
    json_decref(root);
    return ARB_FAIL(ARB_ERR_DATA, "%s: expected a JSON object", name);
  }
  *out = root;
  return ARB_OK;
}

static arb_status check_value(const char *file, const char *model, const arb_hub_rule *r, const json_t *v) {
  if (json_is_null(v)) return ARB_OK;
  if (r->text) {
    ARB_REQUIRE(json_is_string(v), ARB_ERR_DATA, "%s: %s: expected \"%s\", as %s has", file, r->key, r->text, model);
    ARB_REQUIRE(strcmp(json_string_value(v), r->text) == 0, ARB_ERR_DATA, "%s: %s is \"%.40s\", expected \"%s\", as %s has",
                file, r->key, json_string_value(v), r->text, model);
    return ARB_OK;
  }
  ARB_REQUIRE(json_is_number(v) || json_is_boolean(v), ARB_ERR_DATA, "%s: %s: expected %g, as %s has", file, r->key, r->number,
              model);
  const double got = json_is_number(v) ? json_number_value(v) : json_is_true(v);
  ARB_REQUIRE(fabs(got - r->number) <= 1e-9 * fabs(r->number), ARB_ERR_DATA, "%s: %s is %g, expected %g, as %s has", file,
              r->key, got, r->number, model);
  return ARB_OK;
}

static arb_status check_object(const char *file, const char *model, const json_t *object, const arb_hub_rule *rules,
                               int count) {
  for (int i = 0; i < count; i++) {
    const json_t *v = json_object_get(object, rules[i].key);
    if (v) ARB_TRY(check_value(file, model, &rules[i], v));
  }
  return ARB_OK;
}

arb_status arb_hub_check(const char *path, const char *model, const arb_hub_rule *rules, int count) {
  char file[2048];
  json_t *root, *inner;
  const char *key;
  ARB_TRY(arb_hub_open(path, "config.json", CONFIG_BYTES, file, sizeof file, &root));
  if (root == NULL) return ARB_OK;
  arb_status st = check_object(file, model, root, rules, count);
  json_object_foreach(root, key, inner) {
    if (st == ARB_OK && json_is_object(inner)) st = check_object(file, model, inner, rules, count);
  }
  json_decref(root);
  return st;
}
