/* Malformed safetensors files: each is refused, with file, tensor (where one is known) and reason. The numbers are those of the
 * list of malformed inputs in the specification of reliability. */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/safetensors/safetensors.h"
#include "src/safetensors/weights.h"
#include "tests/safetensors/refused.h"
#include "tests/test.h"

static void write_bytes(const char *path, const char *bytes, size_t n) {
  forge f = {0};
  forge_bytes(&f, bytes, n);
  forge_write(&f, path);
}

static void write_prefix(const char *path, uint64_t length, const char *rest) {
  forge f = {0};
  forge_u64(&f, length);
  forge_text(&f, rest);
  forge_write(&f, path);
}

/* 1 - 4 */
static void sizes(void **test) {
  const char *path = in_folder(*test, "x.safetensors");
  static const uint64_t lengths[] = {0, 1, (uint64_t)1 << 63, UINT64_MAX, 3, ARB_ST_MAX_HEADER + 1, (uint64_t)1 << 32 | 2};
  write_bytes(path, "", 0);
  REFUSED(path, "is empty");
  for (size_t n = 1; n <= 8; n++) {
    write_bytes(path, "\2\0\0\0\0\0\0\0", n);
    REFUSED(path, "too short for a safetensors file");
  }
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    char shown[60];
    write_prefix(path, lengths[i], "{}");
    snprintf(shown, sizeof shown, "give a header of %llu bytes, expected 2 to 2", (unsigned long long)lengths[i]);
    REFUSED(path, shown);
  }
  /* A header above the cap, whole: the file has a hole of that size. */
  write_prefix(path, ARB_ST_MAX_HEADER + 1, "{}");
  assert_int_equal(truncate(path, ARB_ST_MAX_HEADER + 100), 0);
  REFUSED(path, "a header of 100000001 bytes, expected 2 to 100000000");
  write_prefix(path, 2, "{}");
  arb_weights *w;
  arb_assert_ok(arb_weights_open(path, &w)); /* empty, but sound */
  assert_int_equal(arb_weights_count(w), 0);
  arb_weights_close(&w);
}

#define U8(name, begin, end) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" #begin "," #end "]}"
#define A U8("a", 0, 4)
/* One tensor of 4 bytes, parts of its entry spelled out. */
#define ENTRY(dtype, shape, offsets) "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define NAMED(name) "{" U8(name, 0, 4) "}"

static const struct {
  const char *header, *reason, *tensor;
  size_t data;
} headers[] = {
    /* 5 */
    {NAMED("\xff"), "unable to decode byte", "", 4},
    {NAMED("\xc3("), "unable to decode byte", "", 4},
    {NAMED("\xed\xa0\x80"), "unable to decode byte", "", 4},
    {NAMED("\\ud800"), "Unicode", "", 4},
    {NAMED("\\udc00\\ud800"), "Unicode", "", 4},
    {NAMED("a\\u0000b"), "\\u0000", "", 4},
    /* 6 */
    {"[]", "no JSON object: begins with '[]'", "", 0},
    {"\"a\"", "no JSON object", "", 0},
    {"12", "no JSON object", "", 0},
    {"null", "no JSON object", "", 0},
    {" {" A "}", "no JSON object: begins with ' {", "", 4},
    {"\xef\xbb\xbf{" A "}", "no JSON object: begins with '???{", "", 4},
    {"{" A "}x", "junk after the JSON object", "", 4},
    {"{" A "}{}", "junk after the JSON object", "", 4},
    {"{" A "}\n", "junk after the JSON object", "", 4},
    {"{" A, "JSON ends early", "'a'", 4},
    {"{" A "]", "JSON", "", 4},
    {"{" A ",}", "JSON", "", 4},
    {"{'a':1}", "JSON", "", 0},
    {"{\"a", "has no end", "", 0},
    {"{\"a\\\"}", "has no end", "", 0},
    /* 7: in a shape; the whole depth is in too_deep */
    {ENTRY("\"U8\"", "[[4]]", "[0,4]"), "nested deeper than 3", "'a'", 4},
    /* 9 */
    {"{" A "," A "}", "duplicate", "\"a\"", 4},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", "duplicate", "__metadata__", 0},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", "duplicate", "\"dtype\"", 4},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"shape\":[4],\"data_offsets\":[0,4]}}", "duplicate", "\"shape\"", 4},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", "duplicate", "\"k\"", 0},
    {"{\"__metadata__\":[]}", "__metadata__: is not an object", "", 0},
    {"{\"__metadata__\":{\"k\":1}}", "'k' is not a string", "", 0},
    {"{\"__metadata__\":{\"k\":{}}}", "'k' is not a string", "", 0},
    /* 10 */
    {ENTRY("\"Q4\"", "[4]", "[0,4]"), "unknown dtype 'Q4'", "'a'", 4},
    {ENTRY("\"u8\"", "[4]", "[0,4]"), "unknown dtype 'u8'", "'a'", 4},
    {ENTRY("\"\"", "[4]", "[0,4]"), "unknown dtype ''", "'a'", 4},
    {ENTRY("\"F32 \"", "[1]", "[0,4]"), "unknown dtype 'F32 '", "'a'", 4},
    {ENTRY("\"F32\"", "[4]", "[0,4]"), "dtype F32 need 16 bytes, data_offsets give 4", "'a'", 4},
    {ENTRY("\"F16\"", "[4]", "[0,4]"), "dtype F16 need 8 bytes, data_offsets give 4", "'a'", 4},
    {ENTRY("3", "[4]", "[0,4]"), "expected an object of dtype, shape and data_offsets", "'a'", 4},
    {"{\"a\":[]}", "expected an object of dtype, shape and data_offsets", "'a'", 0},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", "expected an object of dtype", "'a'", 4},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"x\":0}}", "expected an object of dtype", "'a'", 4},
    /* 11 */
    {ENTRY("\"U8\"", "[-4]", "[0,4]"), "the number -4 is not", "'a'", 4},
    {ENTRY("\"U8\"", "[-0]", "[0,0]"), "the number -0 is not", "'a'", 0},
    {ENTRY("\"U8\"", "[4.0]", "[0,4]"), "the number 4.0 is not", "'a'", 4},
    {ENTRY("\"U8\"", "[1.5]", "[0,4]"), "the number 1.5 is not", "'a'", 4},
    {ENTRY("\"U8\"", "[4e0]", "[0,4]"), "the number 4e0 is not", "'a'", 4},
    {ENTRY("\"U8\"", "[1E3]", "[0,4]"), "the number 1E3 is not", "'a'", 4},
    {ENTRY("\"U8\"", "[9007199254740993]", "[0,4]"), "the number 9007199254740993 is not a whole number from 0 to 2^53", "'a'",
     4},
    {ENTRY("\"U8\"", "[4]", "[0,18446744073709551620]"), "the number 18446744073709551620 is not", "'a'", 4},
    {ENTRY("\"U8\"", "[04]", "[0,4]"), "JSON", "", 4},
    {ENTRY("\"U8\"", "[\"4\"]", "[0,4]"), "its shape is not an array", "'a'", 4},
    {ENTRY("\"U8\"", "[true]", "[0,4]"), "its shape is not an array", "'a'", 4},
    {ENTRY("\"U8\"", "[null]", "[0,4]"), "its shape is not an array", "'a'", 4},
    {ENTRY("\"U8\"", "4", "[0,4]"), "its shape is not an array", "'a'", 4},
    {ENTRY("\"U8\"", "[4]", "[0,\"4\"]"), "data_offsets are not two whole numbers", "'a'", 4},
    {ENTRY("\"U8\"", "[4]", "[4]"), "data_offsets are not two whole numbers", "'a'", 4},
    {ENTRY("\"U8\"", "[4]", "[0,4,4]"), "data_offsets are not two whole numbers", "'a'", 4},
    {ENTRY("\"U8\"", "[4]", "{}"), "data_offsets are not two whole numbers", "'a'", 4},
    {ENTRY("\"U8\"", "[NaN]", "[0,4]"), "JSON", "", 4},
    {ENTRY("\"U8\"", "[0x4]", "[0,4]"), "JSON", "", 4},
    /* 12 */
    {ENTRY("\"U8\"", "[4294967296,4294967296]", "[0,0]"), "multiply to more than 2^63", "'a'", 0},
    {ENTRY("\"U8\"", "[4294967296,2147483648]", "[0,0]"), "multiply to more than 2^63", "'a'", 0},
    {ENTRY("\"F64\"", "[1073741824,1073741824]", "[0,0]"), "multiply to more than 2^63", "'a'", 0},
    {ENTRY("\"U8\"", "[4294967296,4294967296,0]", "[0,0]"), "multiply to more than 2^63", "'a'", 0},
    {ENTRY("\"F64\"", "[4294967296,536870912]", "[0,0]"), "multiply to more than 2^63", "'a'", 0},
    /* 13 */
    {ENTRY("\"U8\"", "[0]", "[0,4]"), "need 0 bytes, data_offsets give 4", "'a'", 4},
    {ENTRY("\"U8\"", "[]", "[0,4]"), "need 1 bytes, data_offsets give 4", "'a'", 4},
    {ENTRY("\"U8\"", "[]", "[0,0]"), "need 1 bytes, data_offsets give 0", "'a'", 0},
    /* 14: the rank of 300 is in big_ones */
    {ENTRY("\"U8\"", "[1,1,1,1,1,1,1,1,4]", "[0,4]"), "array of at most 8", "'a'", 4},
    /* 15 */
    {ENTRY("\"U8\"", "[4]", "[4,0]"), "data_offsets [4, 0] are not a range", "'a'", 4},
    {ENTRY("\"U8\"", "[5]", "[0,5]"), "data_offsets [0, 5] are not a range within the 4 bytes", "'a'", 4},
    {ENTRY("\"U8\"", "[4]", "[18446744073709551615,3]"), "the number 18446744073709551615 is not", "'a'", 4},
    {ENTRY("\"U8\"", "[4]", "[9007199254740992,9007199254740996]"), "the number 9007199254740996 is not", "'a'", 4},
    {ENTRY("\"U8\"", "[4]", "[9007199254740988,9007199254740992]"), "are not a range", "'a'", 4},
    /* 16, 17, 18 */
    {"{" A "," U8("b", 2, 6) "}", "overlaps 'a'", "'b'", 6},
    {"{" A "," U8("b", 0, 4) "}", "overlaps 'a'", "'b'", 4},
    {"{" A "," U8("b", 6, 10) "}", "a hole of 2 bytes before it", "'b'", 10},
    {"{" U8("a", 2, 6) "}", "a hole of 2 bytes before it", "'a'", 6},
    {"{" A "}", "1 bytes after the end of the last tensor", "'a'", 5},
    {"{" A "}", "are not a range within the 3 bytes", "'a'", 3},
    {"{}", "1 bytes after the end", "", 1},
    /* 19 */
    {NAMED("../a"), "printable ASCII", "'../a'", 4},
    {NAMED("a/b"), "printable ASCII", "'a/b'", 4},
    {NAMED("a\\\\b"), "printable ASCII", "'a\\b'", 4},
    {NAMED("a\\nb"), "printable ASCII", "'a?b'", 4},
    {NAMED("a\\u001b[31m"), "printable ASCII", "'a?[31m'", 4},
    {NAMED("a\nb"), "JSON", "", 4},
    {NAMED("a\x7f"), "printable ASCII", "'a?'", 4},
    {NAMED("a b"), "printable ASCII", "'a b'", 4},
    {NAMED(""), "a name of 0 bytes", "''", 4},
    {NAMED("\xc3\xa9"), "printable ASCII",
     "'?"
     "?'",
     4}, /* composed and decomposed letters look alike: both are refused */
    {NAMED("e\xcc\x81"), "printable ASCII",
     "'e?"
     "?'",
     4},
};

static void malformed_headers(void **test) {
  const char *path = in_folder(*test, "x.safetensors");
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
    forge_safetensors(path, headers[i].header, headers[i].data);
    REFUSED(path, headers[i].reason, headers[i].tensor);
  }
}

/* Embedded NULs, which no C string holds. */
static void nuls(void **test) {
  static const char name[] = "{\"a\0b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}";
  static const char after[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}\0\0";
  const char *path = in_folder(*test, "x.safetensors");
  for (int i = 0; i < 2; i++) {
    forge f = {0};
    const size_t n = i == 0 ? sizeof name - 1 : sizeof after - 1;
    forge_u64(&f, n);
    forge_bytes(&f, i == 0 ? name : after, n);
    forge_zeros(&f, 4);
    forge_write(&f, path);
    REFUSED(path, i == 0 ? "control character" : "junk after the JSON object");
  }
}

static void repeat(forge *f, const char *text, int times) {
  for (int i = 0; i < times; i++) forge_text(f, text);
}

static void finish(forge *header, const char *path, size_t data) {
  forge f = {0};
  forge_u64(&f, header->used);
  forge_bytes(&f, header->bytes, header->used);
  forge_zeros(&f, data);
  forge_write(&f, path);
  free(header->bytes);
  *header = (forge){0};
}

/* 7, 8, 14, 19: big ones. Refused within a second each, whatever the sanitizer. */
static void big_ones(void **test) {
  const char *path = in_folder(*test, "x.safetensors");
  forge h = {0};
  char entry[120];
  repeat(&h, "{\"a\":", 100000);
  repeat(&h, "}", 100000);
  finish(&h, path, 0);
  REFUSED(path, "nested deeper than 3");
  forge_text(&h, "{\"a\":");
  repeat(&h, "[", 100000);
  finish(&h, path, 0);
  REFUSED(path, "nested deeper than 3", "'a'");

  forge_text(&h, "{\"a\":{\"dtype\":\"U8\",\"shape\":[");
  repeat(&h, "1,", 299);
  forge_text(&h, "1],\"data_offsets\":[0,1]}}");
  finish(&h, path, 1);
  REFUSED(path, "array of at most 8", "'a'");

  forge_text(&h, "{\"");
  repeat(&h, "abcdefgh", 8192);
  forge_text(&h, "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}");
  finish(&h, path, 4);
  REFUSED(path, "a name of 65536 bytes", "'abcdefgh");

  forge_text(&h, "{");
  for (int i = 0; i < 1000000; i++) {
    snprintf(entry, sizeof entry, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i > 0 ? "," : "", i, i,
             i + 1);
    forge_text(&h, entry);
  }
  forge_text(&h, "}");
  finish(&h, path, 1000000);
  const clock_t before = clock();
  REFUSED(path, "'t50001': more than 50001 entries");
  assert_true((double)(clock() - before) / CLOCKS_PER_SEC < 1);

  forge_text(&h, "{\"a\":[");
  repeat(&h, "0,", 1000000);
  forge_text(&h, "0]}");
  finish(&h, path, 0);
  REFUSED(path, "more than 1000000 JSON items", "'a'");
}

/* 20 */
static void no_regular_file(void **test) {
  const char *path = in_folder(*test, "pipe.safetensors");
  assert_int_equal(mkfifo(path, 0600), 0);
  REFUSED(path, "is a named pipe, expected a regular file");
  REFUSED("/dev/zero", "is a character device");
  REFUSED("/dev/null", "is a character device");
  path = in_folder(*test, "loop.safetensors");
  assert_int_equal(symlink("loop.safetensors", path), 0);
  REFUSED(path, "cannot be opened: Too many levels of symbolic links");
  path = in_folder(*test, "nowhere.safetensors");
  assert_int_equal(symlink("gone", path), 0);
  REFUSED(path, "cannot be opened: No such file");
  REFUSED(in_folder(*test, "missing.safetensors"), "cannot be opened: No such file");
  path = in_folder(*test, "empty");
  assert_int_equal(mkdir(path, 0700), 0);
  REFUSED(path, "no weights");
  path = in_folder(*test, "empty/model.safetensors");
  assert_int_equal(mkdir(path, 0700), 0);
  REFUSED(in_folder(*test, "empty"), "empty/model.safetensors: is a folder, expected a regular file");
}

/* Files that people really put there. */
static void mistaken_files(void **test) {
  const char *path = in_folder(*test, "x.safetensors");
  write_bytes(path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", 56);
  REFUSED(path, "is a Git LFS pointer, not the weights: run 'git lfs pull'");
  write_bytes(path, "PK\3\4archive/data.pkl", 20);
  REFUSED(path, "is a zip archive (a PyTorch pickle?)");
  write_bytes(path, "<!doctype html><html>", 21);
  REFUSED(path, "no safetensors file: its first 8 bytes");
  write_bytes(path, "GGUF\3\0\0\0\0\0\0\0", 12);
  REFUSED(path, "is a GGUF file, by its name a safetensors file");
  path = in_folder(*test, "x.gguf");
  forge_safetensors(path, "{" A "}", 4);
  REFUSED(path, "no GGUF file");
}

/* 18, 21: every shorter file is refused, and the file itself, longer by one byte. */
static void truncations(void **test) {
  const char *path = in_memory();
  forge whole = {0};
  static const char header[] = "{" A "," U8("b", 4, 8) "}";
  forge_u64(&whole, sizeof header - 1);
  forge_text(&whole, header);
  forge_zeros(&whole, 9);
  for (size_t n = 1; n <= whole.used; n++) {
    write_bytes(path, (const char *)whole.bytes, n);
    arb_weights *w;
    if (n == whole.used - 1) {
      arb_assert_ok(arb_weights_open(path, &w));
      arb_weights_close(&w);
    } else {
      refused(path, (const char *const[]){"", NULL});
    }
  }
  free(whole.bytes);
  (void)test;
}

/* One byte of a sound file, each in turn, becomes each of a few others: an answer without a crash, and a refusal that names the
 * file. */
static void flipped_bytes(void **test) {
  static const char header[] = "{\"__metadata__\":{\"k\":\"v\"}," A "," U8("b", 4, 8) "}";
  static const unsigned char others[] = {0, '"', '{', '}', '[', ',', '9', '-', 'e', '\\', 0x80, 0xff};
  const char *path = in_memory();
  for (size_t at = 0; at < 8 + sizeof header - 1; at++) {
    for (size_t k = 0; k < sizeof others; k++) {
      forge f = {0};
      forge_u64(&f, sizeof header - 1);
      forge_text(&f, header);
      forge_zeros(&f, 8);
      f.bytes[at] = others[k];
      forge_write(&f, path);
      arb_weights *w;
      arb_fail_clear();
      const arb_status st = arb_weights_open(path, &w);
      assert_true(st == ARB_OK || (st == ARB_ERR_DATA && strstr(arb_fail_message(), path) != NULL));
      arb_weights_close(&w);
    }
  }
  arb_fail_clear();
  (void)test;
}

#define FOLDER(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {FOLDER(sizes),
                                     FOLDER(malformed_headers),
                                     FOLDER(nuls),
                                     FOLDER(big_ones),
                                     FOLDER(no_regular_file),
                                     FOLDER(mistaken_files),
                                     cmocka_unit_test(truncations),
                                     cmocka_unit_test(flipped_bytes)};
  return cmocka_run_group_tests_name("hostile_safetensors", tests, NULL, NULL);
}
