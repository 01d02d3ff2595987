/* The state byte, exhaustively: which pairs are legal, how a move lands, and that 42 units are the largest safe step. */
#include "kernels/common/trit.h"

#include "tests/test.h"

enum { STEP = 42, FAR = 84, CODES = 255 };

/* The table of legal pairs, written out. */
static const struct { int t, low, high; } legal[3] = {{-1, -84, 0}, {0, -42, 42}, {1, 0, 84}};

static int is_legal(int t, int a) {
  for (int i = 0; i < 3; i++)
    if (legal[i].t == t) return legal[i].low <= a && a <= legal[i].high;
  return 0;
}

/* One move by the table: A saturates, then T makes at most one transition. */
static void move(int *t, int *a, int da) {
  int next = *a + da;
  if (next > FAR) next = FAR;
  if (next < -FAR) next = -FAR;
  *a = next;
  switch (*t) {
    case -1:
      if (next > 0) *t = 0;
      break;
    case 0:
      if (next > STEP)
        *t = 1;
      else if (next < -STEP)
        *t = -1;
      break;
    default:
      if (next < 0) *t = 0;
  }
}

static void test_bijection(void **state) {
  (void)state;
  int seen[CODES] = {0}, pairs = 0;
  for (int i = 0; i < 3; i++)
    for (int a = legal[i].low; a <= legal[i].high; a++, pairs++) {
      const int code = arb_code_make(legal[i].t, a);
      assert_int_equal(code, 85 * (legal[i].t + 1) + (a - legal[i].low));
      assert_in_range(code, 0, CODES - 1);
      assert_int_equal(seen[code]++, 0);
      assert_int_equal(arb_code_trit((uint8_t)code), legal[i].t);
      assert_int_equal(arb_code_accumulator((uint8_t)code), a);
    }
  assert_int_equal(pairs, CODES);
  assert_int_equal(ARB_CODE_ILLEGAL, CODES);
  assert_int_equal(ARB_UNITS, STEP);
  for (int code = 0; code < CODES; code++) assert_int_equal(arb_code_trit((uint8_t)code), (code >= 170) - (code < 85));
}

static void test_moves(void **state) {
  (void)state;
  for (int code = 0; code < CODES; code++)
    for (int da = -STEP; da <= STEP; da++) {
      int t = arb_code_trit((uint8_t)code), a = arb_code_accumulator((uint8_t)code);
      move(&t, &a, da);
      assert_true(is_legal(t, a));
      const uint8_t next = arb_code_move((uint8_t)code, da);
      assert_int_not_equal(next, ARB_CODE_ILLEGAL);
      assert_int_equal(arb_code_trit(next), t);
      assert_int_equal(arb_code_accumulator(next), a);
    }
}

static void test_hysteresis(void **state) {
  (void)state;
  const struct {
    int t, a, da, t_next, a_next;
  } row[] = {
      {-1, 0, 0, -1, 0},      {-1, 0, 1, 0, 1},        {-1, -84, -1, -1, -84}, {-1, -84, 42, -1, -42}, {-1, -20, 42, 0, 22},
      {0, 42, 0, 0, 42},      {0, 42, 1, 1, 43},       {0, -42, 0, 0, -42},    {0, -42, -1, -1, -43},  {0, 42, 42, 1, 84},
      {0, -42, -42, -1, -84}, {1, 0, 0, 1, 0},         {1, 0, -1, 0, -1},      {1, 0, -42, 0, -42},    {1, 84, 1, 1, 84},
      {1, 60, 42, 1, 84},     {-1, -60, -42, -1, -84}, {1, 84, -42, 1, 42},    {-1, 0, 42, 0, 42},     {0, 0, 42, 0, 42},
  };
  for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
    const uint8_t next = arb_code_move(arb_code_make(row[i].t, row[i].a), row[i].da);
    assert_int_equal(arb_code_trit(next), row[i].t_next);
    assert_int_equal(arb_code_accumulator(next), row[i].a_next);
  }
  /* Up and down again: a weight that just flipped needs a whole trit step to flip back. */
  uint8_t code = arb_code_make(0, 42);
  code = arb_code_move(code, 1);
  assert_int_equal(arb_code_trit(code), 1);
  for (int i = 0; i < 43; i++) {
    code = arb_code_move(code, -1);
    assert_int_equal(arb_code_trit(code), 1);
  }
  assert_int_equal(arb_code_trit(arb_code_move(code, -1)), 0);
}

/* From everywhere, repeated steps end at the two stops and stay there. */
static void test_saturation(void **state) {
  (void)state;
  for (int code = 0; code < CODES; code++)
    for (int da = 1; da <= STEP; da++) {
      uint8_t up = (uint8_t)code, down = (uint8_t)code;
      for (int i = 0; i < 168 / da + 2; i++) {
        up = arb_code_move(up, da);
        down = arb_code_move(down, -da);
      }
      assert_int_equal(up, 254);
      assert_int_equal(down, 0);
    }
}

/* Why a step may not exceed 42: one transition no longer reaches a legal pair. */
static void test_43_breaks(void **state) {
  (void)state;
  int broken = 0;
  for (int code = 0; code < CODES; code++)
    for (int sign = -1; sign <= 1; sign += 2) {
      int t = arb_code_trit((uint8_t)code), a = arb_code_accumulator((uint8_t)code);
      move(&t, &a, sign * 43);
      broken += !is_legal(t, a);
    }
  assert_int_equal(broken, 2); /* T = -1, A = 0 upwards and its mirror image */
  /* The product's function wraps into another pair there, whose accumulator is not where it should be. */
  assert_int_not_equal(arb_code_accumulator(arb_code_move(arb_code_make(-1, 0), 43)), 43);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bijection),  cmocka_unit_test(test_moves),     cmocka_unit_test(test_hysteresis),
      cmocka_unit_test(test_saturation), cmocka_unit_test(test_43_breaks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
