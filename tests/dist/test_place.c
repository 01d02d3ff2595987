#include "dist/place.h"

#include <string.h>

#include "tests/test.h"

enum { MOST = 70, RANKS = 17 };

static void every_grain_has_one_rank(void **state) {
  (void)state;
  for (int size = 1; size <= RANKS; size++) {
    for (int64_t grains = 0; grains <= MOST; grains++) {
      int owner[MOST], owned = 0;
      memset(owner, -1, sizeof owner);
      for (int rank = 0; rank < size; rank++) {
        const arb_grain_set s = arb_place_grains(grains, rank, size);
        for (int64_t i = 0; i < s.count; i++) {
          const int64_t g = s.first + i * s.stride;
          assert_in_range(g, 0, grains - 1);
          assert_int_equal(owner[g], -1);
          owner[g] = rank;
          owned++;
        }
      }
      assert_int_equal(owned, grains);
      for (int64_t g = 0; g < grains; g++) assert_int_equal(owner[g], g % size);
    }
  }
}

static void every_row_has_one_rank(void **state) {
  (void)state;
  for (int size = 1; size <= RANKS; size++) {
    for (int64_t rows = 0; rows <= MOST; rows++) {
      int64_t next = 0;
      const int64_t most = arb_place_rows_most(rows, size);
      assert_true(most * size >= rows && (most - 1) * size < rows);
      for (int rank = 0; rank < size; rank++) {
        const arb_row_slice s = arb_place_rows(rows, rank, size);
        assert_int_equal(s.first, next);
        assert_true(s.count >= 0);
        for (int64_t row = s.first; row < s.first + s.count; row++)
          assert_int_equal(arb_place_row_owner(rows, row, size), rank);
        assert_true(s.first == most * rank || s.count == 0);
        assert_true(s.count == most || next + s.count == rows); /* only what is left is shorter */
        next += s.count;
      }
      assert_int_equal(next, rows);
    }
  }
}

static void large_counts_do_not_overflow(void **state) {
  (void)state;
  const int64_t rows = INT64_MAX;
  const int size = 1000;
  int64_t next = 0;
  for (int rank = 0; rank < size; rank++) {
    const arb_row_slice s = arb_place_rows(rows, rank, size);
    assert_true(s.first == next && s.count > 0);
    next = s.first + s.count;
    assert_int_equal(arb_place_row_owner(rows, s.first, size), rank);
    assert_int_equal(arb_place_row_owner(rows, next - 1, size), rank);
  }
  assert_true(next == rows);
  assert_true(arb_place_grains(INT64_MAX, 0, 2).count == INT64_MAX / 2 + 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_grain_has_one_rank), cmocka_unit_test(every_row_has_one_rank),
                                     cmocka_unit_test(large_counts_do_not_overflow)};
  return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
