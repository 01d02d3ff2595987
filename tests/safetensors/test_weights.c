/* Reading what the writer wrote, element types, folders and shards, digests, and files that change under the reader. */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "src/safetensors/safetensors.h"
#include "src/safetensors/weights.h"
#include "tests/safetensors/refused.h"
#include "tests/test.h"

static void round_trip(void **test) {
  static const float wide[6] = {1, -2, 0.5f, 0x1p-149f, 0x1.fffffep127f, -0.0f};
  static const int8_t narrow[3] = {-1, 0, 1};
  static const uint16_t brain[2] = {0x3f80, 0xc000};
  const arb_st_tensor tensors[] = {{"w", ARB_F32, 2, {2, 3}},
                                   {"b", ARB_BF16, 1, {2}},
                                   {"t", ARB_I8, 2, {3, 1}},
                                   {"none", ARB_U8, 2, {0, 7}},
                                   {"s", ARB_I8, 0, {0}}};
  const arb_st_note notes[] = {{"format", "pt"}};
  const char *path = in_folder(*test, "x.safetensors");
  arb_st_writer *out;
  arb_weights *w;
  arb_weights_tensor t;
  float f[6];
  int8_t bytes[3];
  arb_assert_ok(arb_st_create(path, tensors, 5, notes, 1, &out));
  arb_assert_ok(arb_st_put(out, wide, sizeof wide));
  arb_assert_ok(arb_st_put(out, brain, sizeof brain));
  arb_assert_ok(arb_st_put(out, narrow, 3));
  arb_assert_ok(arb_st_put(out, "\7", 1));
  arb_assert_ok(arb_st_finish(&out));

  arb_assert_ok(arb_weights_open(path, &w));
  assert_string_equal(arb_weights_container(w), "safetensors");
  assert_int_equal(arb_weights_count(w), 5);
  static const char *const order[5] = {"b", "none", "s", "t", "w"};
  for (int i = 0; i < 5; i++) assert_string_equal(arb_weights_at(w, i)->name, order[i]);
  arb_assert_ok(arb_weights_find(w, "none", &t));
  assert_true(t.rank == 2 && t.shape[0] == 0 && t.shape[1] == 7 && t.count == 0 && t.bytes == 0);
  arb_assert_ok(arb_weights_find(w, "s", &t));
  assert_true(t.type == ARB_WEIGHTS_I8 && t.rank == 0 && t.count == 1 && t.bytes == 1);
  arb_assert_ok(arb_weights_read(w, "t", bytes, 3));
  assert_memory_equal(bytes, narrow, 3);
  arb_assert_ok(arb_weights_read_f32(w, "w", 2, (const int64_t[]){2, 3}, f));
  assert_memory_equal(f, wide, sizeof wide);
  arb_assert_ok(arb_weights_read_f32(w, "b", 1, (const int64_t[]){2}, f));
  assert_true(f[0] == 1 && f[1] == -2);
  arb_assert_ok(arb_weights_find(w, "w", &t));
  arb_assert_ok(arb_weights_read_f32_part(w, &t, 2, 3, f));
  assert_memory_equal(f, wide + 2, 3 * sizeof *wide);

  /* What a caller can get wrong. */
  arb_assert_fails(arb_weights_read_f32(w, "w", 2, (const int64_t[]){3, 2}, f), ARB_ERR_DATA,
                   "x.safetensors: tensor 'w' has the shape (2, 3), expected (3, 2)");
  arb_assert_fails(arb_weights_read_f32(w, "w", 1, (const int64_t[]){2}, f), ARB_ERR_DATA, "expected (2)");
  arb_assert_fails(arb_weights_read_f32(w, "t", 2, (const int64_t[]){3, 1}, f), ARB_ERR_DATA, "tensor 't' is I8, expected F16");
  arb_assert_fails(arb_weights_read_f32(w, "v", 1, (const int64_t[]){2}, f), ARB_ERR_DATA, "no tensor 'v' among its 5");
  arb_assert_fails(arb_weights_read_f32_part(w, &t, 5, 2, f), ARB_ERR_ARG, "has 6 elements, asked for 2 from 5");
  arb_assert_fails(arb_weights_read(w, "t", bytes, 2), ARB_ERR_ARG, "has 3 bytes, the buffer 2");
  assert_true(arb_weights_has(w, "b") && !arb_weights_has(w, "bb") && !arb_weights_has(w, ""));
  arb_weights_close(&w);
  assert_null(w);
  arb_weights_close(&w);
}

/* Every half-precision number, against its definition; doubles are rounded once, to even. */
static void conversions(void **test) {
  const char *path = in_folder(*test, "x.safetensors");
  enum { HALVES = 63488 }; /* finite: exponents below 31, both signs */
  static uint16_t half[HALVES];
  static float got[HALVES];
  static const double wide[] = {1 + 0x1p-24, 1 + 0x1p-24 + 0x1p-50,  1 + 0x3p-24, -0x1p-150,
                                0x1.8p-149,  0x1.ffffffp127 - 0x1p80};
  static const float rounded[] = {1, 1 + 0x1p-23f, 1 + 0x2p-23f, -0.0f, 0x2p-149f, 0x1.fffffep127f};
  static const double bad[] = {1, 0x1.ffffffp127}; /* rounds to infinity */
  static const float infinite[] = {0, -INFINITY}, nan_at_0[] = {NAN, 0};
  arb_weights *w;
  forge f = {0};
  int n = 0;
  for (uint32_t h = 0; h < 65536; h++)
    if ((h >> 10 & 31) < 31) half[n++] = (uint16_t)h;
  assert_int_equal(n, HALVES);
  static const char header[] =
      "{\"h\":{\"dtype\":\"F16\",\"shape\":[63488],\"data_offsets\":[0,126976]},"
      "\"d\":{\"dtype\":\"F64\",\"shape\":[6],\"data_offsets\":[126976,127024]},"
      "\"bad\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[127024,127040]},"
      "\"inf\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[127040,127048]},"
      "\"nan\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[127048,127056]}}";
  forge_u64(&f, sizeof header - 1);
  forge_text(&f, header);
  forge_bytes(&f, half, sizeof half);
  forge_bytes(&f, wide, sizeof wide);
  forge_bytes(&f, bad, sizeof bad);
  forge_bytes(&f, infinite, sizeof infinite);
  forge_bytes(&f, nan_at_0, sizeof nan_at_0);
  forge_write(&f, path);
  arb_assert_ok(arb_weights_open(path, &w));
  arb_assert_ok(arb_weights_read_f32(w, "h", 1, (const int64_t[]){HALVES}, got));
  for (int i = 0; i < HALVES; i++) {
    const int exponent = half[i] >> 10 & 31, fraction = half[i] & 1023;
    const double magnitude = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    assert_true((double)got[i] == (half[i] & 0x8000 ? -magnitude : magnitude));
    assert_int_equal(signbit(got[i]) != 0, half[i] >> 15);
  }
  arb_assert_ok(arb_weights_read_f32(w, "d", 1, (const int64_t[]){6}, got));
  assert_memory_equal(got, rounded, sizeof rounded);
  arb_assert_fails(arb_weights_read_f32(w, "bad", 1, (const int64_t[]){2}, got), ARB_ERR_DATA,
                   "'bad': element 1 is not finite");
  arb_assert_fails(arb_weights_read_f32(w, "inf", 1, (const int64_t[]){2}, got), ARB_ERR_DATA,
                   "'inf': element 1 is not finite");
  arb_assert_fails(arb_weights_read_f32(w, "nan", 1, (const int64_t[]){2}, got), ARB_ERR_DATA,
                   "'nan': element 0 is not finite");
  arb_weights_close(&w);
}

#define ONE(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"

static void write_text(const char *path, const char *text) {
  forge f = {0};
  forge_text(&f, text);
  forge_write(&f, path);
}

/* The HuggingFace layouts, the cache's symbolic links among them. */
static void folders(void **test) {
  arb_weights *w;
  REFUSED(*test, "no weights: no model.safetensors");
  forge_safetensors(in_folder(*test, "diffusion.safetensors"), ONE("a"), 4);
  arb_assert_ok(arb_weights_open(*test, &w));
  assert_true(arb_weights_has(w, "a"));
  arb_weights_close(&w);
  forge_safetensors(in_folder(*test, "other.safetensors"), ONE("o"), 4);
  REFUSED(*test, "2 files of weights and no model.safetensors");
  forge_safetensors(in_folder(*test, "blob"), ONE("m"), 4);
  assert_int_equal(symlink("blob", in_folder(*test, "model.safetensors")), 0);
  arb_assert_ok(arb_weights_open(*test, &w));
  assert_true(arb_weights_has(w, "m"));
  arb_weights_close(&w);
  const char *index = in_folder(*test, "model.safetensors.index.json");
  write_text(
      index,
      "{\"metadata\":{\"total_size\":8.0},\"weight_map\":{\"a\":\"diffusion.safetensors\",\"o\":\"other.safetensors\"}}\n");
  REFUSED(*test, "holds both model.safetensors and model.safetensors.index.json");
  arb_assert_ok(arb_weights_open(index, &w));
  assert_true(arb_weights_has(w, "a") && arb_weights_has(w, "o") && arb_weights_count(w) == 2);
  arb_weights_close(&w);
  assert_int_equal(unlink(in_folder(*test, "model.safetensors")), 0);
  arb_assert_ok(arb_weights_open(*test, &w));
  assert_int_equal(arb_weights_file_count(w), 2);
  assert_non_null(strstr(arb_weights_file_path(w, 0), "/diffusion.safetensors"));
  char one[33], two[33], both[65], all[33], expected[33];
  arb_assert_ok(arb_weights_file_digest(w, 0, one));
  arb_assert_ok(arb_weights_file_digest(w, 1, two));
  arb_assert_ok(arb_weights_digest(w, all));
  snprintf(both, sizeof both, "%s%s", one, two);
  const XXH128_hash_t hash = XXH3_128bits(both, 64);
  snprintf(expected, sizeof expected, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
  assert_string_equal(all, expected);
  arb_weights_close(&w);
}

static void digests(void **test) {
  const char *path = in_folder(*test, "x");
  char hex[33], again[33], expected[33];
  unsigned char copy[4096];
  arb_weights *w;
  forge_safetensors(path, ONE("a"), 4);
  FILE *in = fopen(path, "rb");
  const size_t n = fread(copy, 1, sizeof copy, in);
  fclose(in);
  const XXH128_hash_t hash = XXH3_128bits(copy, n);
  snprintf(expected, sizeof expected, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
  arb_assert_ok(arb_weights_open(path, &w));
  assert_int_equal(arb_weights_file_bytes(w, 0), n);
  arb_assert_ok(arb_weights_file_digest(w, 0, hex));
  arb_assert_ok(arb_weights_digest(w, again));
  assert_string_equal(hex, expected);
  assert_string_equal(again, expected);
  arb_weights_close(&w);
}

/* Group 21: cut or grown between opening and reading, or written in place. */
static void changed_while_open(void **test) {
  const char *path = in_folder(*test, "x");
  char bytes[4], hex[33];
  arb_weights *w;
  for (int how = 0; how < 3; how++) {
    forge_safetensors(path, ONE("a"), 4);
    arb_assert_ok(arb_weights_open(path, &w));
    const off_t size = (off_t)arb_weights_file_bytes(w, 0);
    const struct timespec times[2] = {{1, 0}, {1, 0}};
    assert_int_equal(how == 2 ? utimensat(AT_FDCWD, path, times, 0) : truncate(path, size + (how == 0 ? -1 : 1)), 0);
    arb_assert_fails(arb_weights_read(w, "a", bytes, 4), ARB_ERR_DATA,
                     how == 0 ? "x: tensor 'a': ends at byte" : "x: tensor 'a': was changed");
    arb_assert_fails(arb_weights_digest(w, hex), ARB_ERR_DATA, how == 0 ? "x: ends at byte" : "x: was changed");
    arb_weights_close(&w);
  }
}

#define FOLDER(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {FOLDER(round_trip), FOLDER(conversions), FOLDER(folders), FOLDER(digests),
                                     FOLDER(changed_while_open)};
  return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
