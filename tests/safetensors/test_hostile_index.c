/* Malformed indexes of sharded weights (group 22, and the groups of JSON): refused with file, tensor and reason. */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/safetensors/weights.h"
#include "tests/safetensors/refused.h"
#include "tests/test.h"

#define MAP(entries) "{\"metadata\":{\"total_size\":8},\"weight_map\":{" entries "}}"
#define AT(tensor, shard) "\"" tensor "\":\"" shard "\""
#define GOOD AT("a", "1.safetensors") "," AT("b", "2.safetensors")

static const struct {
  const char *index, *reason, *tensor;
} indexes[] = {
    /* 22 */
    {MAP(GOOD "," AT("c", "3.safetensors")), "3.safetensors: cannot be opened: No such file", ""},
    {MAP(GOOD "," AT("c", "2.safetensors")), "not in 2.safetensors, where the index puts it", "'c'"},
    {MAP(AT("a", "1.safetensors")), "", NULL}, /* sound: a subset of the folder's files */
    {MAP(AT("b", "1.safetensors") "," AT("a", "2.safetensors")), "in 1.safetensors, by the index in 2.safetensors", "'a'"},
    {MAP(AT("x", "1.safetensors")), "in 1.safetensors, but not in the index", "'a'"},
    {MAP(GOOD "," AT("c", "/etc/passwd")), "its shard '/etc/passwd' is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", "/tmp/1.safetensors")), "is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", "../1.safetensors")), "is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", "sub/1.safetensors")), "is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", "..\\\\1.safetensors")), "is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", ".safetensors")), "is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", "")), "is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", "model.bin")), "is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", "\\u001b.safetensors")), "its shard '?.safetensors' is not the plain name", "'c'"},
    {MAP(GOOD "," AT("c", "a\\u0000.safetensors")), "JSON", ""},
    {MAP(GOOD "," AT("a", "1.safetensors")), "duplicate", "\"a\""},
    {MAP(GOOD ",\"c\":1"), "its shard is not a string", "'c'"},
    {MAP(GOOD ",\"c\":[\"1.safetensors\"]"), "its shard is not a string", "'c'"},
    {MAP(""), "0 shards, expected 1 to 256", ""},
    {MAP(GOOD "," AT("a2", "twin.safetensors")), "in twin.safetensors, by the index in 1.safetensors", "'a'"},
    {MAP(GOOD "," AT("c", "bad.safetensors")), "bad.safetensors: tensor 'c': unknown dtype 'Q4'", ""},
    /* JSON */
    {"", "is empty", ""},
    {"\n", "no JSON object", ""},
    {"[]", "no JSON object", ""},
    {"{}", "no object weight_map", ""},
    {"{\"weight_map\":[]}", "no object weight_map", ""},
    {"{\"weight_map\":{" GOOD "},\"metadata\":[]}", "metadata is not an object", ""},
    {"{\"weight_map\":{" GOOD "},\"extra\":{}}", "'extra' beside metadata and weight_map", ""},
    {"{\"weight_map\":{" GOOD "},\"weight_map\":{" GOOD "}}", "duplicate", "\"weight_map\""},
    {"{\"weight_map\":{" GOOD "}", "JSON ends early", ""},
    {"{\"weight_map\":{" GOOD "}}x", "junk after the JSON object", ""},
    {"{\"weight_map\":{" GOOD "},\"metadata\":{\"a\":{\"b\":{\"c\":{}}}}}", "nested deeper than 4", ""},
};

static void write_text(const char *path, const char *text) {
  forge f = {0};
  forge_text(&f, text);
  forge_write(&f, path);
}

#define ONE(name, dtype) "{\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[4],\"data_offsets\":[0,4]}}"

static void make_shards(const char *folder) {
  forge_safetensors(in_folder(folder, "1.safetensors"), ONE("a", "U8"), 4);
  forge_safetensors(in_folder(folder, "2.safetensors"), ONE("b", "U8"), 4);
  forge_safetensors(in_folder(folder, "twin.safetensors"), ONE("a", "U8"), 4);
  forge_safetensors(in_folder(folder, "bad.safetensors"), ONE("c", "Q4"), 4);
}

static void malformed(void **test) {
  char path[512];
  arb_weights *w;
  make_shards(*test);
  snprintf(path, sizeof path, "%s/model.safetensors.index.json", (const char *)*test);
  for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
    write_text(path, indexes[i].index);
    if (indexes[i].tensor != NULL) {
      REFUSED(path, indexes[i].reason, indexes[i].tensor);
      arb_fail_clear();
      assert_int_equal(arb_weights_open(*test, &w), ARB_ERR_DATA); /* the folder, by the same path */
    } else {
      arb_assert_ok(arb_weights_open(path, &w));
      arb_weights_close(&w);
    }
  }
  arb_fail_clear();
}

/* Every beginning of a sound index but the whole. */
static void truncations(void **test) {
  static const char whole[] = MAP(GOOD);
  char path[512];
  arb_weights *w;
  make_shards(*test);
  snprintf(path, sizeof path, "%s/model.safetensors.index.json", (const char *)*test);
  for (size_t n = 1; n < sizeof whole - 1; n++) {
    forge f = {0};
    forge_bytes(&f, whole, n);
    forge_write(&f, path);
    refused(path, (const char *const[]){"", NULL});
  }
  write_text(path, whole);
  arb_assert_ok(arb_weights_open(path, &w));
  assert_int_equal(arb_weights_count(w), 2);
  arb_weights_close(&w);
}

/* Shards that are no files, more of them than are read, and an index beyond its limit. */
static void limits(void **test) {
  char path[512], entry[80];
  forge f = {0};
  snprintf(path, sizeof path, "%s/model.safetensors.index.json", (const char *)*test);
  assert_int_equal(mkfifo(in_folder(*test, "p.safetensors"), 0600), 0);
  assert_int_equal(symlink("l.safetensors", in_folder(*test, "l.safetensors")), 0);
  write_text(path, MAP(AT("a", "p.safetensors")));
  REFUSED(path, "p.safetensors: is a named pipe");
  write_text(path, MAP(AT("a", "l.safetensors")));
  REFUSED(path, "l.safetensors: cannot be opened: Too many levels");
  forge_text(&f, "{\"weight_map\":{");
  for (int i = 0; i < 300; i++) {
    snprintf(entry, sizeof entry, "%s\"t%d\":\"%d.safetensors\"", i > 0 ? "," : "", i, i);
    forge_text(&f, entry);
  }
  forge_text(&f, "}}");
  forge_write(&f, path);
  REFUSED(path, "300 shards, expected 1 to 256");
  assert_int_equal(truncate(path, 1 << 25), 0);
  REFUSED(path, "33554432 bytes, limit 16777216 for an index");
}

#define FOLDER(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {FOLDER(malformed), FOLDER(truncations), FOLDER(limits)};
  return cmocka_run_group_tests_name("hostile_index", tests, NULL, NULL);
}
