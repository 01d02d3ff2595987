/* Manifests that are cut, damaged, or lie: each with its own digest made right, where that can be, and read by the tool without
 * looking at digests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include "src/checkpoint/inspect.h"
#include "tests/checkpoint/hostile.h"
#include "tests/checkpoint/resign.h"
#include "tests/checkpoint/state.h"
#include "tests/test.h"

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5\n"; }

static const char *path_of(const char *dir) { return step_path(dir, STEP, "manifest.json"); }

/* Refused with this text, verified or not. */
static void refused_both(const char *dir, const char *text) {
  arb_ckpt *c;
  state s;
  report_log log = {0};
  int64_t step = -2;
  arb_assert_fails(arb_ckpt_open(dir, STEP, &c), ARB_ERR_CHECKPOINT, text);
  arb_assert_fails(state_load(dir, STEP, &s), ARB_ERR_CHECKPOINT, ""); /* its reason may be what the model expects */
  arb_assert_ok(arb_ckpt_latest(dir, &step, keep_report, &log));
  assert_true(step == OLDER && log.lines == 1 && strstr(log.text, text) != NULL);
  arb_assert_fails(arb_ckpt_open_unverified(dir, STEP, &c), ARB_ERR_CHECKPOINT, text);
  assert_null(c);
  refused_by_tool(dir, text);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

static void cut_at_every_byte(void **test) {
  long size;
  state s;
  arb_ckpt *c;
  char *text = (char *)slurp(path_of(*test), &size);
  for (long keep = 0; keep < size; keep++) {
    manifest_spill(*test, STEP, text, (size_t)keep);
    arb_assert_fails(state_load(*test, STEP, &s), ARB_ERR_CHECKPOINT, "manifest.json");
    const arb_status st = arb_ckpt_open_unverified(*test, STEP, &c);
    if (st == ARB_OK) { /* the JSON is whole, only the last line's end is missing */
      assert_true(keep == size - 1);
      arb_ckpt_close(&c);
      continue;
    }
    assert_int_equal(st, ARB_ERR_CHECKPOINT);
    assert_non_null(strstr(arb_fail_message(), "manifest.json"));
    arb_fail_clear();
  }
  manifest_spill(*test, STEP, text, (size_t)size - 1);
  refused(*test, "its last line is not its digest");
  manifest_spill(*test, STEP, text, 100);
  refused_by_tool(*test, "manifest.json:");
  manifest_spill(*test, STEP, text, (size_t)size);
  state_check(*test, STEP);
  free(text);
}

/* Nothing of it can change unseen; and without digests nothing crashes. */
static void flipped_at_every_byte(void **test) {
  long size;
  state s;
  arb_ckpt *c;
  char *text = (char *)slurp(path_of(*test), &size);
  for (long i = 0; i < size; i++) {
    text[i] ^= (char)(1 << (i % 8));
    manifest_spill(*test, STEP, text, (size_t)size);
    arb_assert_fails(state_load(*test, STEP, &s), ARB_ERR_CHECKPOINT, "manifest.json");
    const arb_status st = arb_ckpt_open_unverified(*test, STEP, &c);
    assert_true(st == ARB_OK || (st == ARB_ERR_CHECKPOINT && arb_fail_message()[0] != '\0'));
    arb_ckpt_close(&c);
    arb_fail_clear();
    text[i] ^= (char)(1 << (i % 8));
  }
  manifest_spill(*test, STEP, text, (size_t)size);
  state_check(*test, STEP);
  free(text);
}

static void text_of_all_kinds(void **test) {
  char *deep = malloc(200000);
  memset(deep, '[', 200000);
  const struct {
    const char *text, *reason;
    size_t length;
  } cases[] = {{"", "manifest.json:", 0},
               {"null", "manifest.json:1:", 4},
               {"[]", "is not a JSON object", 2},
               {"{}", "the manifest has no format", 2},
               {"{\"format\":1}", "format of the manifest is a whole number, expected a text", 12},
               {"{\"format\":\"x\"}", "is not the manifest of a checkpoint", 14},
               {"{\"format\":\"x\",\"format\":\"x\"}", "duplicate", 27},
               {"{\"format\":\"\\u0000\"}", "manifest.json:1:", 19},
               {"{\"format\":\"\xff\xfe\"}", "manifest.json:1:", 15},
               {"{\"format\":\"arbdist checkpoint\"} x", "manifest.json:1:", 33},
               {"\xef\xbb\xbf{}", "manifest.json:1:", 5},
               {"{\0}", "manifest.json:1:", 3},
               {"{\"format\":1e999}", "manifest.json:1:", 16},
               {deep, "manifest.json:1:", 200000}};
  arb_ckpt *c;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    manifest_spill(*test, STEP, cases[i].text, cases[i].length);
    refused(*test, "its last line is not its digest");
    arb_assert_fails(arb_ckpt_open_unverified(*test, STEP, &c), ARB_ERR_CHECKPOINT, cases[i].reason);
    refused_by_tool(*test, cases[i].reason);
  }
  free(deep);
}

/* ---- what lies at the path -------------------------------------------------------------------------------------------- */

static void not_a_file(void **test) {
  char other[1300];
  snprintf(other, sizeof other, "%s/other.json", (const char *)*test);
  assert_int_equal(rename(path_of(*test), other), 0);
  refused_both(*test, "manifest.json: cannot be opened: No such file");
  assert_int_equal(symlink(other, path_of(*test)), 0);
  refused_both(*test, "manifest.json: cannot be opened: Too many levels of symbolic links");
  assert_int_equal(unlink(path_of(*test)), 0);
  assert_int_equal(mkdir(path_of(*test), 0777), 0);
  refused_both(*test, "manifest.json: is not a regular file");
  assert_int_equal(rmdir(path_of(*test)), 0);
  assert_int_equal(mkfifo(path_of(*test), 0666), 0);
  refused_both(*test, "manifest.json: is not a regular file");
  assert_int_equal(unlink(path_of(*test)), 0);
  manifest_spill(*test, STEP, "", 0);
  assert_int_equal(truncate(path_of(*test), (off_t)1 << 40), 0);
  refused_both(*test, "manifest.json: has 1099511627776 bytes, at most");
}

/* A time in the future says nothing about the content. */
static void future_time(void **test) {
  const struct utimbuf when = {4102444800, 4102444800};
  assert_int_equal(utime(path_of(*test), &when), 0);
  assert_int_equal(utime(victim(*test), &when), 0);
  assert_int_equal(state_latest(*test), STEP);
  state_check(*test, STEP);
}

/* ---- content ---------------------------------------------------------------------------------------------------------- */

static json_t *file_0(json_t *m) { return json_array_get(json_object_get(m, "files"), 0); }
static json_t *array_0(json_t *m) { return json_array_get(json_object_get(m, "arrays"), 0); } /* embed.code */
static json_t *array_1(json_t *m) { return json_array_get(json_object_get(m, "arrays"), 1); } /* embed.e */
static json_t *slice_0(json_t *m) { return json_array_get(json_object_get(array_0(m), "slices"), 0); }
static void number(json_t *object, const char *key, json_int_t value) { json_object_set_new(object, key, json_integer(value)); }
static void text(json_t *object, const char *key, const char *value) { json_object_set_new(object, key, json_string(value)); }
static void shape(json_t *array, json_int_t rows, json_int_t columns) {
  json_object_set_new(array, "shape", json_pack("[I,I]", rows, columns));
}

static void make_version(json_t *m) { number(m, "version", 3); }
static void make_old_version(json_t *m) { number(m, "version", 1); }
static void make_negative_step(json_t *m) { number(m, "step", -7); }
static void make_other_step(json_t *m) { number(m, "step", 8); }
static void make_real_step(json_t *m) { json_object_set_new(m, "step", json_real(7.0)); }
static void make_text_step(json_t *m) { text(m, "step", "7"); }
static void make_negative_samples(json_t *m) { number(m, "samples", -1); }
static void make_seed_number(json_t *m) { number(m, "seed", 1); }
static void make_seed_long(json_t *m) { text(m, "seed", "18446744073709551616"); }
static void make_seed_space(json_t *m) { text(m, "seed", " 1"); }
static void make_no_digest(json_t *m) { json_object_del(m, "digest"); }
static void make_digest(json_t *m) { text(m, "digest", "0123456789ABCDEF0123456789ABCDEF"); }
static void make_other_digest(json_t *m) { text(m, "digest", "0123456789abcdef0123456789abcdef"); }
static void make_other_run(json_t *m) { text(m, "run", "0123456789abcdef0123456789abcdef"); }
static void make_no_ranks(json_t *m) { number(m, "ranks", 0); }
static void make_many_ranks(json_t *m) { number(m, "ranks", 1000000000); }
static void make_two_ranks(json_t *m) { number(m, "ranks", 2); }
static void make_sharded(json_t *m) { json_object_set_new(m, "sharded", json_true()), number(m, "ranks", 2); }
static void make_sharded_number(json_t *m) { number(m, "sharded", 1); }
static void make_extra_key(json_t *m) { number(m, "more", 1); }
static void make_no_files(json_t *m) { json_array_clear(json_object_get(m, "files")); }
static void make_file_twice(json_t *m) { json_array_append(json_object_get(m, "files"), file_0(m)); }
static void make_file_twice_sharded(json_t *m) { make_file_twice(m), make_sharded(m); }
static void make_escape(json_t *m) { text(file_0(m), "name", "../step-00000006/rank-00000.h5"); }
static void make_absolute(json_t *m) { text(file_0(m), "name", "/etc/passwd"); }
static void make_null_file(json_t *m) { json_array_set_new(json_object_get(m, "files"), 0, json_null()); }
static void make_small_file(json_t *m) { number(file_0(m), "bytes", 47); }
static void make_negative_file(json_t *m) { number(file_0(m), "bytes", -1); }
static void make_no_file_digest(json_t *m) { json_object_del(file_0(m), "xxh3_128"); }
static void make_null_digest(json_t *m) { json_object_set_new(slice_0(m), "xxh3_128", json_null()); }
static void make_short_digest(json_t *m) { text(slice_0(m), "xxh3_128", "0123"); }
static void make_array_twice(json_t *m) { json_array_insert(json_object_get(m, "arrays"), 1, array_0(m)); }
static void make_unsorted(json_t *m) {
  json_t *first = json_incref(array_0(m));
  json_array_remove(json_object_get(m, "arrays"), 0);
  json_array_insert_new(json_object_get(m, "arrays"), 1, first);
}
static void make_array_removed(json_t *m) { json_array_remove(json_object_get(m, "arrays"), 0); }
static void make_renamed(json_t *m) { text(array_0(m), "field", "codd"); }
static void make_bad_name(json_t *m) { text(array_0(m), "tensor", "../embed"); }
static void make_long_name(json_t *m) {
  char name[70001];
  memset(name, 'a', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  text(array_0(m), "tensor", name);
}
static void make_float(json_t *m) { text(array_0(m), "type", "f32"); }
static void make_unknown_type(json_t *m) { text(array_0(m), "type", "U8"); }
static void make_other_type(json_t *m) { text(array_0(m), "type", "i8"); }
static void make_bomb(json_t *m) { shape(array_0(m), (json_int_t)1 << 40, (json_int_t)1 << 40); }
static void make_large(json_t *m) { shape(array_0(m), 16, (json_int_t)1 << 40); }
static void make_negative_shape(json_t *m) { shape(array_0(m), 16, -64); }
static void make_rank_three(json_t *m) { json_array_append_new(json_object_get(array_0(m), "shape"), json_integer(1)); }
static void make_real_shape(json_t *m) { json_array_set_new(json_object_get(array_0(m), "shape"), 0, json_real(16.5)); }
static void make_other_shape(json_t *m) { shape(array_0(m), 32, 32), number(slice_0(m), "rows", 32); }
static void make_hole(json_t *m) { shape(array_0(m), 17, 64); }
static void make_hole_in_front(json_t *m) { shape(array_0(m), 17, 64), number(slice_0(m), "first", 1); }
static void make_too_many_rows(json_t *m) { shape(array_0(m), 15, 64); }
static void make_no_rows(json_t *m) { number(slice_0(m), "rows", 0); }
static void make_no_slices(json_t *m) { json_array_clear(json_object_get(array_0(m), "slices")); }
static void make_two_slices(json_t *m) { json_array_append(json_object_get(array_0(m), "slices"), slice_0(m)); }
static void make_other_file(json_t *m) { number(slice_0(m), "file", 1); }
static void make_outside(json_t *m) { number(slice_0(m), "offset", 10000); }
static void make_far_outside(json_t *m) { number(slice_0(m), "offset", INT64_MAX); }
static void make_in_superblock(json_t *m) { number(slice_0(m), "offset", 0); }
static void make_other_place(json_t *m) {
  const json_int_t at = json_integer_value(json_object_get(slice_0(m), "offset"));
  shape(array_0(m), 16, 62);
  number(slice_0(m), "offset", at + 8);
}
static void make_shifted(json_t *m) { /* into HDF5's own bytes before the first array */
  number(slice_0(m), "offset", json_integer_value(json_object_get(slice_0(m), "offset")) - 8);
}
static void make_shared(json_t *m) {
  json_t *other = json_array_get(json_object_get(array_1(m), "slices"), 0);
  number(other, "offset", json_integer_value(json_object_get(slice_0(m), "offset")) + 5);
}
static void make_no_texts(json_t *m) {
  json_t *arrays = json_object_get(m, "arrays");
  json_array_remove(arrays, json_array_size(arrays) - 1);
}
static void make_third_text(json_t *m) {
  json_t *arrays = json_object_get(m, "arrays"), *copy = json_deep_copy(json_array_get(arrays, json_array_size(arrays) - 1));
  text(copy, "field", "more");
  json_array_append_new(arrays, copy);
}
static void make_long_text(json_t *m) {
  json_t *arrays = json_object_get(m, "arrays");
  shape(json_array_get(arrays, json_array_size(arrays) - 1), 1, 1 << 30);
}

static void lies(void **test) {
  static const struct {
    void (*make)(json_t *m);
    const char *reason;
  } cases[] = {
      {make_version, "checkpoint format 3, this program reads 2"},
      {make_old_version, "checkpoint format 1, this program reads 2"},
      {make_negative_step, "step of the manifest is -7, expected 0 to"},
      {make_other_step, "is of step 8, its folder says 7"},
      {make_real_step, "step of the manifest is a number, expected a whole number"},
      {make_text_step, "step of the manifest is a text, expected a whole number"},
      {make_negative_samples, "samples of the manifest is -1"},
      {make_seed_number, "seed of the manifest is a whole number, expected a text"},
      {make_seed_long, "seed is not a number of 64 bits"},
      {make_seed_space, "seed is not a number of 64 bits"},
      {make_no_digest, "the manifest has 11 keys, expected 12"},
      {make_digest, "digest of the manifest is not 32 lower-case hex digits"},
      {make_other_digest, "its samples, seed or state digest are not those of its manifest"},
      {make_other_run, "is of another run than its manifest"},
      {make_no_ranks, "ranks of the manifest is 0, expected 1 to"},
      {make_many_ranks, "ranks of the manifest is 1000000000, expected 1 to"},
      {make_two_ranks, "is of rank 0 of 1, its manifest expects rank 0 of 2"},
      {make_sharded, "files of the manifest has 1 parts, expected 2"},
      {make_sharded_number, "sharded is neither true nor false"},
      {make_extra_key, "the manifest has 13 keys, expected 12"},
      {make_no_files, "files of the manifest has 0 parts, expected 1"},
      {make_file_twice, "files of the manifest has 2 parts, expected 1"},
      {make_file_twice_sharded, "files[1] is not named rank-00001.h5"},
      {make_escape, "files[0] is not named rank-00000.h5"},
      {make_absolute, "files[0] is not named rank-00000.h5"},
      {make_null_file, "files[0] is not an object"},
      {make_small_file, "bytes of files[0] is 47, expected 48"},
      {make_negative_file, "bytes of files[0] is -1, expected 48"},
      {make_no_file_digest, "files[0] has 2 keys, expected 3"},
      {make_null_digest, "xxh3_128 of embed.code is null, expected a text"},
      {make_short_digest, "xxh3_128 of embed.code is not 32 lower-case hex digits"},
      {make_array_twice, "embed.code: twice in one checkpoint"},
      {make_unsorted, "embed.code is not in its place"},
      {make_array_removed, "holds embed.code, which its manifest does not put there"},
      {make_renamed, "holds embed.code, which its manifest does not put there"},
      {make_bad_name, "arrays[0] has no name of a checkpoint"},
      {make_long_name, "arrays[0] has no name of a checkpoint"},
      {make_float, "embed.code has a type that is not an integer"},
      {make_unknown_type, "embed.code has a type that is not an integer"},
      {make_other_type, "embed.code is u8 16 x 64, its manifest says i8 16 x 64"},
      {make_bomb, "embed.code has an impossible shape"},
      {make_large, "embed.code lies outside of rank-00000.h5"},
      {make_negative_shape, "shape of embed.code is not of whole numbers"},
      {make_rank_three, "shape of embed.code has 3 parts, expected 2"},
      {make_real_shape, "shape of embed.code is not of whole numbers"},
      {make_other_shape, "embed.code is u8 16 x 64, its manifest says u8 32 x 32"},
      {make_hole, "row 16 of embed.code is in no slice"},
      {make_hole_in_front, "row 0 of embed.code is in no slice"},
      {make_too_many_rows, "rows of embed.code is 16, expected 0 to 15"},
      {make_no_rows, "a slice of embed.code has no rows"},
      {make_no_slices, "slices of embed.code has 0 parts, expected 1"},
      {make_two_slices, "slices of embed.code has 2 parts, expected 1"},
      {make_other_file, "file of embed.code is 1, expected 0 to 0"},
      {make_outside, "embed.code lies outside of rank-00000.h5"},
      {make_far_outside, "embed.code lies outside of rank-00000.h5"},
      {make_in_superblock, "embed.code lies outside of rank-00000.h5"},
      {make_other_place, "embed.code is u8 16 x 64, its manifest says u8 16 x 62"},
      {make_shifted, "embed.code is at byte"},
      {make_shared, "embed.code and embed.e share bytes of rank-00000.h5"},
      {make_no_texts, "meta.identity is missing"},
      {make_third_text, "meta has 3 texts, expected identity and config"},
      {make_long_text, "meta.identity is u8 1 x 1073741824, expected u8 1 x at most"},
  };
  long size;
  char *good = (char *)slurp(path_of(*test), &size);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    manifest_spill(*test, STEP, good, (size_t)size);
    json_t *m = manifest_load(*test, STEP);
    cases[i].make(m);
    manifest_store(*test, STEP, m);
    /* Digests of what now lies in other places, where the manifest can still be read for it. */
    if (cases[i].make == make_other_place || cases[i].make == make_other_shape || cases[i].make == make_shifted)
      manifest_resign(*test, STEP);
    refused_both(*test, cases[i].reason);
  }
  manifest_spill(*test, STEP, good, (size_t)size);
  state_check(*test, STEP);
  free(good);
}

/* What the manifest alone says of sizes and digests is compared with the files. */
static void other_digests(void **test) {
  static const char *const wrong = "0123456789abcdef0123456789abcdef";
  json_t *m = manifest_load(*test, STEP);
  text(file_0(m), "xxh3_128", wrong);
  manifest_store(*test, STEP, m);
  refused(*test, "rank-00000.h5: is damaged between its arrays (digest");
  manifest_resign(*test, STEP);
  state_check(*test, STEP);
  m = manifest_load(*test, STEP);
  text(slice_0(m), "xxh3_128", wrong);
  manifest_store(*test, STEP, m);
  refused(*test, "rank-00000.h5: embed.code is damaged (digest");
  manifest_resign(*test, STEP);
  m = manifest_load(*test, STEP);
  number(file_0(m), "bytes", json_integer_value(json_object_get(file_0(m), "bytes")) + 1);
  manifest_store(*test, STEP, m);
  refused(*test, "bytes, but its manifest says");
  manifest_resign(*test, STEP);
  state_check(*test, STEP);
}

/* Slices of four ranks that change places, are claimed twice, or come from other runs. */
static void sharded(void **test) {
  state s;
  char folder[ARB_CKPT_FOLDER];
  arb_ckpt_part *parts[2];
  state_fill(&s, STEP);
  assert_int_equal(unlink(path_of(*test)) | unlink(victim(*test)) | rmdir(step_path(*test, STEP, NULL)), 0);
  arb_assert_ok(arb_ckpt_prepare(*test, STEP, folder));
  for (int r = 0; r < 2; r++) {
    const arb_ckpt_world world = {.rank = r, .ranks = 2, .sharded = true};
    for (int i = 0; i < STATE_ARRAYS; i++) {
      arb_ckpt_array *a = &s.arrays[i];
      const int64_t half = a->rows / 2;
      a->first = r == 0 ? 0 : half;
      a->count = r == 0 ? half : a->rows - half;
      a->host = s.bytes[i] + (size_t)(a->first * a->columns) * arb_dtype_size(a->type);
    }
    arb_assert_ok(arb_ckpt_write(*test, folder, &world, &s.meta, s.arrays, STATE_ARRAYS, &parts[r]));
  }
  const arb_ckpt_world world = {.rank = 0, .ranks = 2, .sharded = true};
  arb_assert_ok(arb_ckpt_commit(*test, folder, &world, &s.meta, (const arb_ckpt_part *const *)parts, 2));
  free(parts[0]);
  free(parts[1]);
  state_check(*test, STEP);
  long size;
  char *good = (char *)slurp(path_of(*test), &size);
  json_t *m = manifest_load(*test, STEP), *slice = json_array_get(json_object_get(array_0(m), "slices"), 1);
  number(slice, "first", 7);
  manifest_store(*test, STEP, m);
  refused_both(*test, "row 7 of embed.code is in two slices");
  manifest_spill(*test, STEP, good, (size_t)size);
  m = manifest_load(*test, STEP), slice = json_array_get(json_object_get(array_0(m), "slices"), 1);
  number(slice, "file", 0);
  manifest_store(*test, STEP, m);
  refused_both(*test, "embed."); /* shares bytes, or is not there: whichever the layout of the two files makes it */
  manifest_spill(*test, STEP, good, (size_t)size);
  m = manifest_load(*test, STEP); /* the halves change places */
  slice = json_array_get(json_object_get(array_0(m), "slices"), 1);
  number(slice, "first", 0);
  number(slice_0(m), "first", 8);
  json_t *first = json_incref(slice_0(m));
  json_array_remove(json_object_get(array_0(m), "slices"), 0);
  json_array_append_new(json_object_get(array_0(m), "slices"), first);
  manifest_store(*test, STEP, m);
  refused_both(*test, "embed.code is from row 0 of 16, its manifest says row 8 of 16");
  manifest_spill(*test, STEP, good, (size_t)size);
  /* The files change places. */
  char aside[1300];
  snprintf(aside, sizeof aside, "%s/aside", (const char *)*test);
  assert_int_equal(rename(step_path(*test, STEP, RANK0), aside), 0);
  assert_int_equal(rename(step_path(*test, STEP, "rank-00001.h5"), step_path(*test, STEP, RANK0)), 0);
  assert_int_equal(rename(aside, step_path(*test, STEP, "rank-00001.h5")), 0);
  refused(*test, RANK0 ": has ");
  refused_by_tool(*test, "its manifest expects rank 0 of 2");
  assert_int_equal(unlink(step_path(*test, STEP, "rank-00001.h5")), 0);
  refused_by_tool(*test, "rank-0000");
  free(good);
}

#define SCRATCH(name) cmocka_unit_test_setup_teardown(name, hostile_setup, scratch_teardown)

/* argv[1]: arbckpt. */
int main(int argc, char **argv) {
  arbckpt = argc > 1 ? argv[1] : NULL;
  const struct CMUnitTest tests[] = {
      SCRATCH(cut_at_every_byte), SCRATCH(flipped_at_every_byte),
      SCRATCH(text_of_all_kinds), SCRATCH(not_a_file),
      SCRATCH(future_time),       SCRATCH(lies),
      SCRATCH(other_digests),     SCRATCH(sharded),
  };
  return cmocka_run_group_tests_name("checkpoint_manifest", tests, NULL, NULL);
}
