/* Versions of NCCL that will do and that will not, with what the message says. */
#include "dist/nccl/version.h"

#include <string.h>

#include "tests/test.h"

static void test_accepted(void **state) {
  (void)state;
  const int64_t same[] = {22809, 22809, 22809}, newer[] = {22901, 22901}, patch[] = {22810}, earlier[] = {22803};
  arb_assert_ok(arb_nccl_check_versions(22809, same, 2, 3));
  arb_assert_ok(arb_nccl_check_versions(22809, newer, 0, 2));
  arb_assert_ok(arb_nccl_check_versions(22809, patch, 0, 1));
  arb_assert_ok(arb_nccl_check_versions(22809, earlier, 0, 1));
}

static void test_refused(void **state) {
  (void)state;
  const int64_t older[] = {21805}, minor[] = {22705}, oldest[] = {2804}, major[] = {30000}, none[] = {0},
                mixed[] = {22809, 22901};
  arb_assert_fails(arb_nccl_check_versions(22809, older, 0, 1), ARB_ERR_UNSUPPORTED,
                   "NCCL 2.18.5 was found at run time, but this build was made with 2.28.9");
  arb_assert_fails(arb_nccl_check_versions(22809, minor, 0, 1), ARB_ERR_UNSUPPORTED, "needs 2.28 or a later 2.x");
  arb_assert_fails(arb_nccl_check_versions(22809, oldest, 0, 1), ARB_ERR_UNSUPPORTED, "NCCL 2.8.4 was found");
  arb_assert_fails(arb_nccl_check_versions(22809, major, 0, 1), ARB_ERR_UNSUPPORTED, "NCCL 3.0.0 was found");
  arb_assert_fails(arb_nccl_check_versions(22809, none, 0, 1), ARB_ERR_UNSUPPORTED, "NCCL 0.0.0 was found");
  arb_assert_fails(arb_nccl_check_versions(22809, mixed, 0, 2), ARB_ERR_UNSUPPORTED,
                   "rank 0 found 2.28.9, rank 1 found 2.29.1; they must be the same");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_accepted), cmocka_unit_test(test_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
