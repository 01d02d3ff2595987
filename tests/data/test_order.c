/* The order of samples: bijective, in range, fixed for ever, a function of nothing but its arguments. */
#include "src/data/order.h"

#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

static arb_order order_of(uint64_t seed, int64_t length, int64_t context) {
  arb_order o;
  arb_assert_ok(arb_order_init(&o, seed, length, context));
  return o;
}

static void check_epoch(const arb_order *o, int64_t epoch) {
  unsigned char *seen = calloc((size_t)o->windows, 1);
  assert_non_null(seen);
  const int64_t phase = arb_order_phase(o, epoch);
  assert_in_range(phase, 0, o->phases - 1);
  for (int64_t k = 0; k < o->windows; k++) {
    const int64_t w = arb_order_window(o, epoch, k);
    assert_true(w >= 0 && w < o->windows);
    assert_int_equal(seen[w]++, 0);
    const int64_t offset = arb_order_offset(o, epoch * o->windows + k);
    assert_int_equal(offset, phase + w * o->context);
    assert_true(offset >= 0 && offset + o->context <= o->length - 1); /* the last target exists */
  }
  free(seen); /* windows values, none twice, all below windows: every one was visited */
}

static void test_bijective(void **state) {
  (void)state;
  static const int64_t more[] = {211,  241,  251,  255,  256,  257,  509,  511,   512,   513,
                                 1021, 1023, 1024, 1025, 4093, 4096, 4097, 16381, 65536, 65537};
  for (int64_t windows = 1; windows <= 130; windows++)
    for (uint64_t seed = 0; seed < 3; seed++) {
      const arb_order o = order_of(seed, (windows + 1) * 5 + 2, 5);
      assert_int_equal(o.windows, windows);
      for (int64_t epoch = 0; epoch < 4; epoch++) check_epoch(&o, epoch);
    }
  for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
    const arb_order o = order_of(UINT64_MAX - i, (more[i] + 1) * 3, 3);
    assert_int_equal(o.windows, more[i]);
    check_epoch(&o, 0);
    check_epoch(&o, 1000000007);
  }
}

/* Every short text against every small context, down to the text that holds exactly one window. */
static void test_range(void **state) {
  (void)state;
  for (int64_t context = 1; context <= 17; context++)
    for (int64_t length = context + 1; length <= 5 * context + 3; length++) {
      const arb_order o = order_of(9, length, context);
      assert_true(o.windows >= 1 && o.phases >= 1 && o.phases <= context);
      assert_true(o.phases == context || length < 2 * context); /* no phase is lost once two windows fit */
      /* The last byte of the text is a target in some epoch. */
      assert_true((o.phases - 1) + o.windows * context <= length - 1);
      for (int64_t epoch = 0; epoch < 3; epoch++) check_epoch(&o, epoch);
    }
  const arb_order one = order_of(1, 9, 8);
  assert_int_equal(one.windows, 1);
  for (int64_t i = 0; i < 50; i++) assert_int_equal(arb_order_offset(&one, i), 0);
}

static void test_phases(void **state) {
  (void)state;
  enum { CONTEXT = 16, EPOCHS = 4000 };
  int count[CONTEXT] = {0};
  const arb_order o = order_of(3, 1000, CONTEXT);
  for (int64_t e = 0; e < EPOCHS; e++) count[arb_order_phase(&o, e)]++;
  for (int p = 0; p < CONTEXT; p++) assert_in_range(count[p], 170, 330); /* 250 expected, 5 standard deviations */
}

/* Each position of an epoch meets each window about equally often, also where the network has only a few bits. */
static void test_uniform(void **state) {
  (void)state;
  enum { MOST = 7, EPOCHS = 7000 };
  for (int64_t windows = 2; windows <= MOST; windows++) {
    int count[MOST][MOST] = {{0}};
    const arb_order o = order_of(5, (windows + 1) * 4, 4);
    for (int64_t e = 0; e < EPOCHS; e++)
      for (int64_t k = 0; k < windows; k++) count[k][arb_order_window(&o, e, k)]++;
    const int expected = EPOCHS / (int)windows;
    for (int64_t k = 0; k < windows; k++)
      for (int64_t w = 0; w < windows; w++) assert_in_range(count[k][w], expected * 8 / 10, expected * 12 / 10);
  }
}

static void test_differs(void **state) {
  (void)state;
  enum { N = 1000 };
  const arb_order a = order_of(1, (N + 1) * 8, 8), b = order_of(2, (N + 1) * 8, 8);
  int fixed = 0, same_epoch = 0, same_seed = 0, neighbours = 0;
  for (int64_t k = 0; k < N; k++) {
    const int64_t w = arb_order_window(&a, 0, k);
    fixed += w == k;
    same_epoch += w == arb_order_window(&a, 1, k);
    same_seed += w == arb_order_window(&b, 0, k);
    neighbours += k > 0 && llabs(w - arb_order_window(&a, 0, k - 1)) == 1;
  }
  assert_true(fixed < 10 && same_epoch < 10 && same_seed < 10 && neighbours < 12); /* about 1, 1, 1, 2 by chance */
}

/* Computed by an independent program from the definition in order.c. A change here is a change of every run. */
static void test_golden(void **state) {
  (void)state;
  static const int64_t small[] = {282, 592, 772, 584, 974, 514, 744, 494};
  const arb_order o = order_of(7, 1000, 10);
  assert_int_equal(o.windows, 99);
  assert_int_equal(o.phases, 10);
  for (int64_t i = 0; i < 8; i++) assert_int_equal(arb_order_offset(&o, 96 + i), small[i]); /* across an epoch's end */
  static const int64_t large[] = {15276567, 18328087, 47902513, 39428401, 50186553, 4140345};
  const arb_order p = order_of(UINT64_C(0xFEDCBA9876543210), 50331648, 512);
  for (int64_t i = 0; i < 6; i++) assert_int_equal(arb_order_offset(&p, i * 50000), large[i]);
  assert_int_equal(arb_order_offset(&p, INT64_C(1) << 61), 7010889);
}

static void test_call_order(void **state) {
  (void)state;
  enum { N = 500 };
  static int64_t forward[N];
  const arb_order o = order_of(11, 700, 7);
  for (int64_t i = 0; i < N; i++) forward[i] = arb_order_offset(&o, i);
  for (int64_t i = N - 1; i >= 0; i--) {
    const arb_order fresh = order_of(11, 700, 7);
    assert_int_equal(arb_order_offset(&fresh, i), forward[i]);
    assert_int_equal(arb_order_offset(&o, (i * 37) % N), forward[(i * 37) % N]);
  }
  assert_int_equal(arb_order_epoch(&o, 99), 1);
  assert_int_equal(arb_order_in_epoch(&o, 99), 0);
}

static int ascending(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* Too many windows to visit all: no value twice among some, all in range. */
static void test_huge(void **state) {
  (void)state;
  enum { N = 20000 };
  static int64_t got[N];
  const arb_order o = order_of(13, INT64_MAX, 3);
  for (int64_t k = 0; k < N; k++) {
    got[k] = arb_order_window(&o, 5, k);
    assert_true(got[k] >= 0 && got[k] < o.windows);
    assert_true(arb_order_offset(&o, k) <= o.length - o.context - 1);
  }
  qsort(got, N, sizeof *got, ascending);
  for (int k = 1; k < N; k++) assert_true(got[k - 1] < got[k]);
}

static void test_errors(void **state) {
  (void)state;
  arb_order o;
  arb_assert_fails(arb_order_init(&o, 0, 512, 512), ARB_ERR_DATA,
                   "has 512 bytes; one window of context 512 needs at least 513");
  arb_assert_fails(arb_order_init(&o, 0, 0, 1), ARB_ERR_DATA, "at least 2");
  arb_assert_fails(arb_order_init(&o, 0, 10, 0), ARB_ERR_ARG, "context");
  arb_assert_fails(arb_order_init(&o, 0, 10, INT64_MAX), ARB_ERR_ARG, "context");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bijective),  cmocka_unit_test(test_range),   cmocka_unit_test(test_phases),
      cmocka_unit_test(test_uniform),    cmocka_unit_test(test_differs), cmocka_unit_test(test_golden),
      cmocka_unit_test(test_call_order), cmocka_unit_test(test_huge),    cmocka_unit_test(test_errors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
