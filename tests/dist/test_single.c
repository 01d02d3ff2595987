#include "dist/single/single.h"

#include <string.h>

#include "tests/dist/exact.h"
#include "tests/test.h"

static void run_case(void **state) {
  const exact_case *e = *state;
  arb_comm *c = NULL;
  arb_assert_ok(arb_comm_single_create(&c));
  assert_int_equal(c->rank, 0);
  assert_int_equal(c->size, 1);
  arb_assert_ok(e->run(c, NULL));
  arb_comm_destroy(&c);
  assert_null(c);
  arb_comm_destroy(&c);
  arb_comm_destroy(NULL);
}

static void traffic_has_names(void **state) {
  (void)state;
  for (int k = 0; k < ARB_TRAFFIC__COUNT; k++) {
    for (int other = 0; other < k; other++)
      assert_string_not_equal(arb_traffic_name((arb_traffic)k), arb_traffic_name((arb_traffic)other));
  }
  assert_string_equal(arb_traffic_name(ARB_TRAFFIC_VOTES), "votes");
  assert_string_equal(arb_traffic_name(ARB_TRAFFIC__COUNT), "unknown");
}

int main(void) {
  struct CMUnitTest tests[EXACT_CASES + 1];
  for (int i = 0; i < EXACT_CASES; i++)
    tests[i] = (struct CMUnitTest){exact_cases[i].name, run_case, NULL, NULL, (void *)(uintptr_t)&exact_cases[i]};
  tests[EXACT_CASES] = (struct CMUnitTest)cmocka_unit_test(traffic_has_names);
  return cmocka_run_group_tests_name("single", tests, NULL, NULL);
}
