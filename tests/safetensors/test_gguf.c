/* The GGUF container: files as the converter of pig-vae writes them, and malformed ones, each refused with file, tensor or key,
 * and reason. */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/safetensors/weights.h"
#include "tests/safetensors/refused.h"
#include "tests/test.h"

enum { U8 = 0, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q4_0 = 2, GGML_BF16 = 30 };

static void head(forge *f, uint32_t version, uint64_t tensors, uint64_t pairs) {
  forge_text(f, "GGUF");
  forge_u32(f, version);
  forge_u64(f, tensors);
  forge_u64(f, pairs);
}

static void key(forge *f, const char *name, uint32_t type) {
  forge_string(f, name);
  forge_u32(f, type);
}

static void architecture(forge *f) {
  key(f, "general.architecture", STRING);
  forge_string(f, "pig");
}

/* dims as the file has them: the fastest first. */
static void tensor(forge *f, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type, uint64_t offset) {
  forge_string(f, name);
  forge_u32(f, rank);
  for (uint32_t i = 0; i < rank; i++) forge_u64(f, dims[i]);
  forge_u32(f, type);
  forge_u64(f, offset);
}

static void align(forge *f, size_t to) { forge_zeros(f, (to - f->used % to) % to); }

#define DIMS(...) \
  (sizeof((uint64_t[]){__VA_ARGS__}) / 8), (const uint64_t[]) { __VA_ARGS__ }

/* Metadata of every type, a Conv3d of five dimensions in F16, a vector in F32, BF16, a folded shape, a scalar. */
static void sound(void **test) {
  static const uint16_t half[16] = {0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800};
  static const float bias[2] = {-1, 0.25f};
  static const uint16_t brain[6] = {0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0};
  static const int32_t folded[3] = {3, 1, 2};
  const char *path = in_folder(*test, "x.gguf");
  arb_weights *w;
  arb_weights_tensor t;
  float got[16];
  for (int last_padded = 0; last_padded < 2; last_padded++) {
    forge f = {0};
    head(&f, last_padded ? 2 : 3, 4, 16);
    architecture(&f);
    for (uint32_t type = 0; type < 13; type++) {
      static const unsigned char sizes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
      char name[20];
      snprintf(name, sizeof name, "test.%u", (unsigned)type);
      key(&f, name, type);
      if (type == STRING) forge_string(&f, "");
      if (type == ARRAY) { /* two arrays of strings */
        forge_u32(&f, ARRAY);
        forge_u64(&f, 2);
        for (int i = 0; i < 2; i++) {
          forge_u32(&f, STRING);
          forge_u64(&f, 2);
          forge_string(&f, "a");
          forge_string(&f, "bc");
        }
      }
      forge_zeros(&f, sizes[type]);
    }
    key(&f, "general.alignment", U32);
    forge_u32(&f, 64);
    key(&f, "comfy.gguf.orig_shape.folded", ARRAY);
    forge_u32(&f, I32);
    forge_u64(&f, 3);
    forge_bytes(&f, folded, sizeof folded);
    tensor(&f, "conv2.weight", DIMS(1, 1, 2, 1, 4), GGML_F16, 0);
    tensor(&f, "bias", DIMS(2), GGML_F32, 64);
    tensor(&f, "folded", DIMS(2, 3), GGML_BF16, 128);
    tensor(&f, "one", 0, NULL, GGML_F32, 192);
    align(&f, 64);
    const size_t data = f.used;
    forge_bytes(&f, half, 16);
    align(&f, 64);
    forge_bytes(&f, bias, sizeof bias);
    align(&f, 64);
    forge_bytes(&f, brain, sizeof brain);
    align(&f, 64);
    forge_bytes(&f, bias, 4);
    if (last_padded) align(&f, 64);
    forge_write(&f, path);

    arb_assert_ok(arb_weights_open(path, &w));
    assert_string_equal(arb_weights_container(w), "GGUF");
    assert_int_equal(arb_weights_count(w), 4);
    arb_assert_ok(arb_weights_find(w, "conv2.weight", &t));
    assert_true(t.type == ARB_WEIGHTS_F16 && t.rank == 5 && t.shape[0] == 4 && t.shape[2] == 2 && t.offset == data);
    arb_assert_ok(arb_weights_read_f32(w, "conv2.weight", 5, (const int64_t[]){4, 1, 2, 1, 1}, got));
    for (int i = 0; i < 8; i++) assert_true(got[i] == (float)(i + 1));
    arb_assert_ok(arb_weights_read_f32(w, "bias", 1, (const int64_t[]){2}, got));
    assert_true(got[0] == -1 && got[1] == 0.25f);
    arb_assert_ok(arb_weights_read_f32(w, "folded", 3, (const int64_t[]){3, 1, 2}, got));
    for (int i = 0; i < 6; i++) assert_true(got[i] == (float)(i + 1));
    arb_assert_ok(arb_weights_read_f32(w, "one", 0, NULL, got));
    assert_true(got[0] == -1);
    arb_weights_close(&w);
    arb_assert_ok(arb_weights_open(*test, &w)); /* the folder pig-vae/ */
    arb_weights_close(&w);
  }
}

/* ---- what comes before the tensors ------------------------------------------------------------------------------------- */

static void small_file(forge *f) {
  head(f, 3, 1, 1);
  architecture(f);
  tensor(f, "a", DIMS(4), GGML_F32, 0);
  align(f, 32);
  forge_zeros(f, 16);
}

static void truncations(void **test) {
  const char *path = in_memory();
  forge whole = {0};
  small_file(&whole);
  arb_weights *w;
  for (size_t n = 1; n <= whole.used; n++) {
    forge f = {0};
    forge_bytes(&f, whole.bytes, n);
    forge_write(&f, path);
    if (n < whole.used) {
      refused(path, (const char *const[]){"", NULL});
    } else {
      arb_assert_ok(arb_weights_open(path, &w));
      arb_weights_close(&w);
    }
  }
  free(whole.bytes);
  (void)test;
}

static void counts(void **test) {
  static const struct {
    uint32_t version;
    uint64_t tensors, pairs;
    const char *reason;
  } cases[] = {
      {0, 1, 0, "GGUF version 0, expected 2 or 3"},
      {1, 1, 0, "GGUF version 1"},
      {4, 1, 0, "GGUF version 4"},
      {3 << 24, 1, 0, "GGUF version 50331648"}, /* big-endian */
      {3, 0, 0, "0 tensors, expected 1 to 50000"},
      {3, UINT64_MAX, 0, "18446744073709551615 tensors"},
      {3, (uint64_t)1 << 61, 0, "2305843009213693952 tensors"},
      {3, 50001, 0, "50001 tensors"},
      {3, 1, UINT64_MAX, "18446744073709551615 key-value pairs, limit 65536"},
      {3, 1, 65537, "65537 key-value pairs"},
      {3, 1, 65536, "ends early"},
      {3, 50000, 0, "ends early"},
  };
  const char *path = in_folder(*test, "x.gguf");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    head(&f, cases[i].version, cases[i].tensors, cases[i].pairs);
    forge_write(&f, path);
    REFUSED(path, cases[i].reason);
  }
}

/* One key-value pair, `bytes` in all after its type, then a sound tensor. */
static void one_pair(const char *path, const char *name, size_t name_bytes, uint32_t type, const void *bytes, size_t n) {
  forge f = {0};
  head(&f, 3, 1, 1);
  forge_u64(&f, name_bytes);
  forge_text(&f, name);
  forge_u32(&f, type);
  forge_bytes(&f, bytes, n);
  tensor(&f, "a", DIMS(4), GGML_F32, 0);
  align(&f, 32);
  forge_zeros(&f, 16);
  forge_write(&f, path);
}

static void pairs(void **test) {
  const char *path = in_folder(*test, "x.gguf");
  static const uint64_t most = UINT64_MAX, wraps = UINT64_MAX - 100;
  forge f = {0};
  one_pair(path, "k", 0, U8, "", 1);
  REFUSED(path, "a key of 0 bytes at byte 24");
  one_pair(path, "k", 1025, U8, "", 1);
  REFUSED(path, "a key of 1025 bytes");
  one_pair(path, "k", UINT64_MAX, U8, "", 1);
  REFUSED(path, "a key of 18446744073709551615 bytes");
  one_pair(path, "k", UINT64_MAX - 31, U8, "", 1); /* position + length wraps */
  REFUSED(path, "a key of");
  one_pair(path, "k", 1, 13, "", 1);
  REFUSED(path, "key 'k': unknown value type 13");
  one_pair(path, "k", 1, UINT32_MAX, "", 1);
  REFUSED(path, "key 'k': unknown value type 4294967295");
  one_pair(path, "k", 1, STRING, &most, 8);
  REFUSED(path, "key 'k': ends early");
  one_pair(path, "k", 1, STRING, &wraps, 8);
  REFUSED(path, "key 'k': ends early");

  /* Arrays whose size in bytes wraps, or is more than the file holds; unknown elements; nested too deep. */
  static const struct {
    uint32_t element;
    uint64_t count;
    const char *reason;
  } arrays[] = {{U64, (uint64_t)1 << 61, "more than the rest of the file holds"},
                {U32, (uint64_t)1 << 62 | 1, "more than the rest of the file holds"},
                {U8, UINT64_MAX, "more than the rest of the file holds"},
                {U8, 1000, "more than the rest of the file holds"},
                {STRING, (uint64_t)1 << 61, "more than the rest of the file holds"},
                {ARRAY, (uint64_t)1 << 60, "more than the rest of the file holds"},
                {13, 1, "unknown element type 13"},
                {STRING, 4, "ends early"}};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
    forge_u32(&f, arrays[i].element);
    forge_u64(&f, arrays[i].count);
    forge_u64(&f, i == 7 ? UINT64_MAX - 7 : 0);
    one_pair(path, "k", 1, ARRAY, f.bytes, f.used);
    f.used = 0;
    REFUSED(path, "key 'k': ", arrays[i].reason);
  }
  for (int i = 0; i < 100000; i++) {
    forge_u32(&f, ARRAY);
    forge_u64(&f, 1);
  }
  one_pair(path, "k", 1, ARRAY, f.bytes, f.used);
  REFUSED(path, "key 'k': arrays nested deeper than 4");
  free(f.bytes);
  f = (forge){0};

  head(&f, 3, 1, 2);
  for (int i = 0; i < 2; i++) {
    key(&f, "twice", U8);
    forge_zeros(&f, 1);
  }
  tensor(&f, "a", DIMS(4), GGML_F32, 0);
  forge_write(&f, path);
  REFUSED(path, "key 'twice' twice");

  static const uint32_t alignments[] = {0, 1, 4, 24, 33, 131072, UINT32_MAX};
  for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
    one_pair(path, "general.alignment", 17, U32, &alignments[i], 4);
    REFUSED(path, "key 'general.alignment': ", "expected a power of two from 8 to 65536");
  }
  one_pair(path, "general.alignment", 17, U64, &most, 8);
  REFUSED(path, "key 'general.alignment': value type 10, expected 4");
}

static void original_shapes(void **test) {
  static const struct {
    const char *key;
    uint32_t element;
    uint64_t rank;
    int32_t size[2];
    const char *reason;
  } cases[] = {{"comfy.gguf.orig_shape.a", I32, 2, {2, 2}, NULL},
               {"comfy.gguf.orig_shape.a", I32, 2, {2, 3}, "tensor 'a': 4 elements, comfy.gguf.orig_shape. gives 6"},
               {"comfy.gguf.orig_shape.a", I32, 2, {-2, -2}, "a negative size, -2"},
               {"comfy.gguf.orig_shape.a", U32, 2, {2, 2}, "expected an array of 1 to 8 int32"},
               {"comfy.gguf.orig_shape.a", I32, 0, {0}, "expected an array of 1 to 8 int32"},
               {"comfy.gguf.orig_shape.a", I32, 9, {0}, "expected an array of 1 to 8 int32"},
               {"comfy.gguf.orig_shape.b", I32, 2, {2, 2}, "there is no such tensor"}};
  const char *path = in_folder(*test, "x.gguf");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    forge_u32(&f, cases[i].element);
    forge_u64(&f, cases[i].rank);
    forge_bytes(&f, cases[i].size, sizeof cases[i].size);
    one_pair(path, cases[i].key, strlen(cases[i].key), ARRAY, f.bytes, f.used);
    free(f.bytes);
    if (cases[i].reason != NULL) {
      REFUSED(path, cases[i].reason);
      continue;
    }
    arb_weights *w;
    arb_weights_tensor t;
    arb_assert_ok(arb_weights_open(path, &w));
    arb_assert_ok(arb_weights_find(w, "a", &t));
    assert_true(t.rank == 2 && t.shape[0] == 2 && t.shape[1] == 2);
    arb_weights_close(&w);
  }
}

/* ---- tensors ----------------------------------------------------------------------------------------------------------- */

static void tensors(void **test) {
  static const struct {
    const char *name;
    uint32_t rank;
    uint64_t dims[10];
    uint32_t type;
    uint64_t offset;
    size_t data;
    const char *reason;
  } cases[] = {
      {"a", 1, {4}, GGML_Q4_0, 0, 16, "tensor 'a': element type 2 is not read"},
      {"a", 1, {4}, UINT32_MAX, 0, 16, "tensor 'a': element type 4294967295 is not read"},
      {"a", 9, {1, 1, 1, 1, 1, 1, 1, 1, 4}, GGML_F32, 0, 16, "tensor 'a': 9 dimensions, at most 8"},
      {"a", 1, {UINT64_MAX}, GGML_F32, 0, 16, "tensor 'a': a size of 18446744073709551615"},
      {"a", 1, {(uint64_t)1 << 62}, GGML_F32, 0, 16, "tensor 'a': the sizes of its shape multiply to more than 2^63 bytes"},
      {"a", 1, {((uint64_t)1 << 61) + 1}, GGML_F32, 0, 16, "tensor 'a': the sizes of its shape multiply to more"},
      {"a", 2, {(uint64_t)1 << 32, (uint64_t)1 << 32}, GGML_F32, 0, 16, "tensor 'a': the sizes of its shape multiply to more"},
      {"a", 4, {65536, 65536, 65536, 65536}, GGML_F16, 0, 16, "tensor 'a': the sizes of its shape multiply to more"},
      {"a", 1, {(uint64_t)1 << 58}, GGML_F32, 0, 16, "tensor 'a': 1152921504606846976 bytes from byte 64 reach beyond the end"},
      {"a", 1, {5}, GGML_F32, 0, 16, "tensor 'a': 20 bytes from byte 64 reach beyond the end at 80"},
      {"a", 1, {4}, GGML_F32, UINT64_MAX, 16, "tensor 'a': begins at byte 18446744073709551615 of the data"},
      {"a", 1, {4}, GGML_F32, UINT64_MAX - 63, 16, "tensor 'a': begins at byte"}, /* data + offset wraps to 0 */
      {"a", 1, {4}, GGML_F32, 64, 96, "tensor 'a': a hole of 64 bytes"},
      {"a", 1, {4}, GGML_F32, 8, 32, "tensor 'a': a hole of 8 bytes"},
      {"a", 1, {4}, GGML_F32, 0, 17, "1 bytes after the end of the last tensor, 'a'"},
      {"a", 1, {4}, GGML_F32, 0, 64, "48 bytes after the end of the last tensor, 'a'"},
      {"a", 1, {0}, GGML_F32, 0, 16, "16 bytes after the end of the last tensor, 'a'"},
      {"../../etc/passwd",
       1,
       {4},
       GGML_F32,
       0,
       16,
       "tensor '../../etc/passwd': a name of 16 bytes, expected 1 to 256 printable"},
      {"a\x1b[2J", 1, {4}, GGML_F32, 0, 16, "tensor 'a?[2J'"},
  };
  const char *path = in_folder(*test, "x.gguf");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    head(&f, 3, 1, 0);
    tensor(&f, cases[i].name, cases[i].rank, cases[i].dims, cases[i].type, cases[i].offset);
    align(&f, 32);
    forge_zeros(&f, cases[i].data);
    forge_write(&f, path);
    REFUSED(path, cases[i].reason);
  }
}

static void two_tensors(void **test) {
  static const struct {
    const char *second;
    uint64_t offset;
    const char *reason;
  } cases[] = {{"b", 32, NULL},
               {"a", 32, "tensor 'a': twice"},
               {"b", 0, "overlaps"},
               {"b", 8, "tensor 'b': overlaps 'a'"},
               {"b", 16, "tensor 'b': overlaps 'a'"}, /* within the padding */
               {"b", 33, "tensor 'b': a hole of 1 bytes"}};
  const char *path = in_folder(*test, "x.gguf");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    head(&f, 3, 2, 0);
    tensor(&f, "a", DIMS(4), GGML_F32, 0);
    tensor(&f, cases[i].second, DIMS(4), GGML_F32, cases[i].offset);
    align(&f, 32);
    forge_zeros(&f, (cases[i].offset > 0 ? cases[i].offset : 32) + 16);
    forge_write(&f, path);
    arb_weights *w;
    if (cases[i].reason == NULL) {
      arb_assert_ok(arb_weights_open(path, &w));
      arb_weights_close(&w);
    } else {
      REFUSED(path, cases[i].reason);
    }
  }
}

/* Names: a NUL inside, none, one of 64 KiB, a length that wraps the position. */
static void names(void **test) {
  static const uint64_t lengths[] = {0, 257, 65536, UINT64_MAX, UINT64_MAX - 23};
  const char *path = in_folder(*test, "x.gguf");
  forge f = {0};
  head(&f, 3, 1, 0);
  forge_u64(&f, 3);
  forge_bytes(&f, "a\0b", 3);
  forge_zeros(&f, 100);
  forge_write(&f, path);
  REFUSED(path, "the name of a tensor 'a?b' has a NUL inside");
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    head(&f, 3, 1, 0);
    forge_u64(&f, lengths[i]);
    forge_zeros(&f, 70000);
    forge_write(&f, path);
    REFUSED(path, "the name of a tensor of ", "expected 1 to 256");
  }
}

/* Metadata larger than may come before the data, in a file that has it (as a hole). */
static void large_metadata(void **test) {
  const char *path = in_folder(*test, "x.gguf");
  const uint64_t bytes = 100000000;
  one_pair(path, "k", 1, STRING, &bytes, 8);
  assert_int_equal(truncate(path, 200000000), 0);
  REFUSED(path, "key 'k': ends early", "of the 10^8 that may come before the data");
}

static void flipped_bytes(void **test) {
  static const unsigned char others[] = {0, 1, 9, 0x7f, 0x80, 0xff};
  const char *path = in_memory();
  forge whole = {0};
  small_file(&whole);
  for (size_t at = 0; at < whole.used - 16; at++) {
    for (size_t k = 0; k < sizeof others; k++) {
      forge f = {0};
      arb_weights *w;
      forge_bytes(&f, whole.bytes, whole.used);
      f.bytes[at] = others[k];
      forge_write(&f, path);
      arb_fail_clear();
      const arb_status st = arb_weights_open(path, &w);
      assert_true(st == ARB_OK || (st == ARB_ERR_DATA && strstr(arb_fail_message(), path) != NULL));
      arb_weights_close(&w);
    }
  }
  free(whole.bytes);
  arb_fail_clear();
  (void)test;
}

#define FOLDER(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      FOLDER(sound),   cmocka_unit_test(truncations), FOLDER(counts), FOLDER(pairs),          FOLDER(original_shapes),
      FOLDER(tensors), FOLDER(two_tensors),           FOLDER(names),  FOLDER(large_metadata), cmocka_unit_test(flipped_bytes)};
  return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
