/* Integer logarithms, powers and averages against long double, and the row exponent's step against its rule in 128 bits. */
#include "kernels/common/fixed.h"

#include "tests/kernels/samples.h"

/* Each of the 16 squarings drops less than 2^-31 of the value: 2^-30 log2(e) octaves in all, below 2^-13 units of 2^-16. So the
 * result is the floor of the exact logarithm less at most 2^-13 units. */
static void check_log(uint64_t x) {
  const long double exact = log2l((long double)x) * 65536.0L;
  const int32_t got = arb_ilog2(x);
  if (!((long double)got <= exact + 1e-9L && (long double)got + 1.0L > exact - 0x1p-13L))
    fail_msg("log2 of %llu is %d, exactly %.6Lf", (unsigned long long)x, got, exact);
}

static void test_log(void **state) {
  (void)state;
  for (int k = 0; k < 64; k++) {
    const uint64_t power = (uint64_t)1 << k;
    assert_int_equal(arb_ilog2(power), k << 16);
    for (uint64_t d = 1; d < 40; d++) {
      if (d < power) check_log(power - d);
      if (k == 63 || power + d < power << 1) check_log(power + d);
    }
  }
  for (uint64_t x = 1; x < 200000; x++) check_log(x);
  check_log(UINT64_MAX);
  for (int i = 0; i < 300000; i++) {
    const uint64_t x = sample_u64() >> sample_below(64);
    if (x) check_log(x);
  }
  for (uint64_t x = 2; x < 100000; x++) assert_true(arb_ilog2(x) >= arb_ilog2(x - 1));
}

/* 17 products drop less than one unit of 2^-31 each, 17 constants are off by at most 2^-33 of their value: within 18 + 5
 * units, and the value is at least 2^30 of them. */
static void test_power_fraction(void **state) {
  (void)state;
  uint32_t before = UINT32_MAX;
  for (uint32_t d = 0; d < 131072; d++) {
    const uint32_t got = arb_iexp2_fraction(d);
    assert_near(got, exp2(-(double)d / 131072.0) * 0x1p31, 23.0);
    assert_true(got < before);
    before = got;
  }
  assert_int_equal(arb_iexp2_fraction(0), 0x80000000u);
}

/* One rounding to float (2^-24) and the 23 units of 2^-30 above. */
static void test_power(void **state) {
  (void)state;
  const double bound = 0x1p-24 + 23 * 0x1p-30;
  for (int i = 0; i < 300000; i++) {
    const int64_t x = i % 2 ? sample_between(-4063232, 4063232) : sample_between(-393216, 393216);
    const double want = exp2(sample_clamp((double)x / 131072.0, 30.0));
    assert_near((double)arb_exp2_half(x) / want, 1.0, bound);
  }
  for (int e = -30; e <= 30; e++) assert_true(arb_exp2_half((int64_t)e * 131072) == (float)ldexp(1.0, e));
  assert_true(arb_exp2_half(INT64_C(1) << 40) == 0x1p30f && arb_exp2_half(-(INT64_C(1) << 40)) == 0x1p-30f);
  float before = 0.0f;
  for (int64_t x = -262144; x <= 262144; x++) {
    const float now = arb_exp2_half(x);
    assert_true(now >= before);
    before = now;
  }
}

/* The last logarithm is a floor: at most one unit low (and 2^-10 for the power inside), never high by more than that. */
static void test_average(void **state) {
  (void)state;
  for (int i = 0; i < 300000; i++) {
    const int32_t a = (int32_t)sample_between(-300 * 65536, 100 * 65536);
    const int64_t spread = INT64_C(1) << sample_between(0, 22);
    int32_t b = (int32_t)(a + sample_between(-spread, spread));
    const double high = (double)(a > b ? a : b) / 65536.0, gap = fabs((double)a - (double)b) / 65536.0;
    const double exact = (high - 1.0 + log2(1.0 + exp2(-gap))) * 65536.0;
    const int32_t got = arb_ema(a, b);
    if (!((double)got <= exact + 0x1p-10 && (double)got >= exact - 1.0 - 0x1p-10))
      fail_msg("average of %d and %d is %d, exactly %.6f", a, b, got, exact);
    assert_int_equal(got, arb_ema(b, a));
    assert_int_equal(arb_ema(a, a), a);
  }
  assert_int_equal(arb_ema(ARB_Q16_NONE, 7), 7);
  assert_int_equal(arb_ema(-9, ARB_Q16_NONE), -9);
  assert_int_equal(arb_ema(ARB_Q16_NONE, ARB_Q16_NONE), ARB_Q16_NONE);
  assert_int_equal(arb_ema(0, -31 * 65536), -65536);
  assert_int_equal(arb_ema(-500 * 65536, 90 * 65536), 89 * 65536);
}

static void test_next(void **state) {
  (void)state;
  const int32_t floor_value = -300 * 65536;
  assert_int_equal(ARB_Q16_FLOOR, floor_value);
  assert_int_equal(arb_stat_next(ARB_Q16_NONE, 1, 1234), 1234);
  assert_int_equal(arb_stat_next(ARB_Q16_NONE, 0, 1234), ARB_Q16_NONE);
  assert_int_equal(arb_stat_next(65536, 1, 65536), 65536);
  assert_int_equal(arb_stat_next(0, 1, -40 * 65536), -65536);
  assert_int_equal(arb_stat_next(5, 0, 999), 5 - 65536);
  assert_int_equal(arb_stat_next(floor_value + 65536, 0, 0), floor_value);
  assert_int_equal(arb_stat_next(floor_value + 65535, 0, 0), floor_value);
  assert_int_equal(arb_stat_next(floor_value, 0, 0), floor_value);
  int32_t x = 0;
  for (int i = 0; i < 400; i++) x = arb_stat_next(x, 0, 0);
  assert_int_equal(x, floor_value);
}

/* The largest d in [-4, 4] with 32 S >= K V^2 Ga 4^d, or -4; both sides times 4^4. */
static int step_by_rule(uint64_t s, uint64_t k, uint64_t v, uint64_t grains) {
  const wide_unsigned left = (wide_unsigned)s * 32 * 256, unit = (wide_unsigned)k * v * v * grains;
  for (int d = 4; d > -4; d--) {
    wide_unsigned right = unit;
    for (int i = 0; i < d + 4; i++) right *= 4;
    if (left >= right) return d;
  }
  return -4;
}

static void test_exponent_step(void **state) {
  (void)state;
  int seen[9] = {0};
  for (int grains = 1; grains <= 31; grains++)
    for (int i = 0; i < 20000; i++) {
      const uint64_t v = (uint64_t)(127 / grains), used = (uint64_t)sample_between(1, grains);
      const uint64_t k = i % 7 == 0   ? 1
                         : i % 7 == 1 ? (1u << 24) - 1
                                      : (uint64_t)sample_between(1, INT64_C(1) << sample_between(1, 24));
      const uint64_t most = k * 127 * 127;
      uint64_t s = (uint64_t)sample_between(1, (int64_t)most);
      if (i % 3 == 0) { /* at a threshold and beside it */
        const int d = (int)sample_between(-4, 4);
        const wide_unsigned edge = ((wide_unsigned)k * v * v * used << (2 * (d + 4))) / 8192;
        s = (uint64_t)edge + (uint64_t)sample_between(0, 2);
        s = s > most ? most : s < 1 ? 1 : s;
      } else if (i % 3 == 1) {
        s >>= sample_below(20);
        s = s ? s : 1;
      }
      const int want = step_by_rule(s, k, v, used), got = arb_p_step(s, k, v, used);
      if (got != want)
        fail_msg("S %llu K %llu V %llu Ga %llu: step %d, expected %d", (unsigned long long)s, (unsigned long long)k,
                 (unsigned long long)v, (unsigned long long)used, got, want);
      seen[want + 4]++;
    }
  for (int d = 0; d < 9; d++) assert_true(seen[d] > 100 || d > 6);
  /* The rms settles near (V/4) sqrt(Ga): one step down below it by a factor 2 to 4, up above. */
  assert_int_equal(arb_p_step(1000 * 15 * 15 / 16, 1000, 15, 1), 0);
  assert_int_equal(arb_p_step(1000 * 15 * 15 / 4, 1000, 15, 1), 1);
  assert_int_equal(arb_p_step(1000 * 15 * 15 / 64, 1000, 15, 1), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_log),     cmocka_unit_test(test_power_fraction), cmocka_unit_test(test_power),
      cmocka_unit_test(test_average), cmocka_unit_test(test_next),           cmocka_unit_test(test_exponent_step),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
