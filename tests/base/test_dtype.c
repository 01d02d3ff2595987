/* Element types: sizes that match C's, names that are distinct, and which ones count as float. */
#include "src/base/dtype.h"

#include <string.h>

#include "tests/test.h"

static void test_sizes(void **state) {
  (void)state;
  assert_int_equal(ARB_DTYPE__COUNT, 10);
  assert_int_equal(arb_dtype_size(ARB_U8), sizeof(uint8_t));
  assert_int_equal(arb_dtype_size(ARB_I8), sizeof(int8_t));
  assert_int_equal(arb_dtype_size(ARB_U16), sizeof(uint16_t));
  assert_int_equal(arb_dtype_size(ARB_I16), sizeof(int16_t));
  assert_int_equal(arb_dtype_size(ARB_BF16), 2);
  assert_int_equal(arb_dtype_size(ARB_I32), sizeof(int32_t));
  assert_int_equal(arb_dtype_size(ARB_U32), sizeof(uint32_t));
  assert_int_equal(arb_dtype_size(ARB_F32), sizeof(float));
  assert_int_equal(arb_dtype_size(ARB_I64), sizeof(int64_t));
  assert_int_equal(arb_dtype_size(ARB_U64), sizeof(uint64_t));
}

/* A name ends in the number of bits, so a wrong row of either table shows. */
static void test_names(void **state) {
  (void)state;
  for (int t = 0; t < ARB_DTYPE__COUNT; t++) {
    const char *name = arb_dtype_name((arb_dtype)t);
    assert_non_null(name);
    size_t bits = 0;
    for (const char *c = name; *c; c++)
      if (*c >= '0' && *c <= '9') bits = bits * 10 + (size_t)(*c - '0');
    assert_int_equal(bits, 8 * arb_dtype_size((arb_dtype)t));
    for (int u = 0; u < t; u++) assert_string_not_equal(name, arb_dtype_name((arb_dtype)u));
    assert_int_equal(arb_dtype_is_float((arb_dtype)t) != 0, strchr(name, 'f') != NULL);
  }
  assert_string_equal(arb_dtype_name(ARB_BF16), "bf16");
  assert_string_equal(arb_dtype_name(ARB_I32), "i32");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_names)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
