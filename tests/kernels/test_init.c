/* Fresh weights: the distribution of latents, their encoding, and row exponents that give unit gain. */
#include "kernels/common/init.h"

#include "kernels/backend.h"
#include "kernels/common/fixed.h"
#include "tests/kernels/samples.h"

enum { DRAWS = 1 << 20 };

/* The draw by its definition; from u and v on, which are floats, in double. */
static double normal_of(uint64_t seed, uint32_t tensor, int64_t element) {
  const uint64_t pair = (uint64_t)element / 2, key = seed ^ (UINT64_C(1) << 56);
  const words4 counter = {{(uint32_t)pair, tensor, (uint32_t)(pair >> 32), 0}};
  const words4 b = sample_philox(7, counter, (uint32_t)key, (uint32_t)(key >> 32));
  const float u = ((float)(b.v[2 * (element % 2)] / 256) + 0.5f) / 16777216.0f;
  const float v = ((float)(b.v[2 * (element % 2) + 1] / 256) + 0.5f) / 16777216.0f;
  return sqrt(-2.0 * log((double)u)) * cos(2.0 * 3.14159265358979323846 * (double)v);
}

/* 2 pi v is rounded near 6: an angle error below 2^-22 at a radius below 6, and the functions' own 2 ulp. */
static void test_definition(void **state) {
  (void)state;
  for (int i = 0; i < 200000; i++) {
    const uint64_t seed = i % 3 ? sample_u64() : 1;
    const uint32_t tensor = sample_u32();
    const int64_t element = i % 2 ? i : (int64_t)(sample_u64() >> 20);
    assert_near(arb_init_normal(seed, tensor, element), normal_of(seed, tensor, element), 4e-6);
  }
}

/* All bounds: five standard deviations of the estimate. */
static void test_distribution(void **state) {
  (void)state;
  static const double edges[] = {-3.0, -2.375, -1.0, -0.625, 0.0, 0.3, 0.625, 1.5, 2.375};
  enum { EDGES = sizeof edges / sizeof *edges };
  const double n = DRAWS;
  double sum = 0, square = 0, fourth = 0, product = 0, last = 0;
  int below[EDGES] = {0};
  for (int64_t i = 0; i < DRAWS; i++) {
    const double x = (double)arb_init_normal(1, 77, i);
    assert_true(isfinite(x) && fabs(x) < 6.0);
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
    product += x * last;
    last = x;
    for (int e = 0; e < EDGES; e++) below[e] += x < edges[e];
  }
  assert_near(sum / n, 0.0, 5.0 / sqrt(n));
  assert_near(square / n, 1.0, 5.0 * sqrt(2.0 / n));
  assert_near(fourth / n, 3.0, 5.0 * sqrt(96.0 / n));
  assert_near(product / n, 0.0, 5.0 / sqrt(n)); /* neighbours share a Philox block, but not words */
  for (int e = 0; e < EDGES; e++) {
    const double p = 0.5 * erfc(-edges[e] / sqrt(2.0));
    assert_near(below[e] / n, p, 5.0 * sqrt(p * (1.0 - p) / n));
  }
}

static void test_codes(void **state) {
  (void)state;
  const double n = DRAWS;
  int trits[3] = {0}, ends = 0;
  double sum = 0, square = 0;
  for (int64_t i = 0; i < DRAWS; i++) {
    const float normal = arb_init_normal(3, 5, i);
    const uint8_t code = arb_init_code(normal);
    const double latent = sample_clamp(0.8 * (double)normal, 1.9);
    const int t = sample_trit(code), a = sample_accumulator(code);
    assert_true(code < 255);
    /* Away from a tie of the rounding, trit and position are the nearest ones. */
    if (fabs(fabs(latent) - 0.5) > 1e-6) assert_int_equal(t, latent > 0.5 ? 1 : latent < -0.5 ? -1 : 0);
    assert_near(a, 42.0 * latent, 0.5 + 1e-4);
    trits[t + 1]++;
    ends += abs(a) == 80;
    assert_true(abs(a) <= 80);
    sum += latent;
    square += latent * latent;
  }
  /* |0.8 z| <= 1/2 for 46.8 % of the draws; 1.8 % are clamped at 1.9 steps = 79.8 units. */
  const double zeros = erf(0.625 / sqrt(2.0)), clamped = erfc(2.375 / sqrt(2.0));
  assert_near(trits[1] / n, zeros, 5.0 * sqrt(zeros * (1.0 - zeros) / n));
  assert_near(trits[0] / n, (1.0 - zeros) / 2.0, 5.0 * 0.45 / sqrt(n));
  assert_true(ends / n > clamped && ends / n < 1.1 * clamped); /* the last unit before the clamp rounds to 80 as well */
  assert_near(sum / n, 0.0, 5.0 * 0.8 / sqrt(n));
  /* Variance of 0.64 less what the clamp takes: integral of (0.64 z^2 - 1.9^2) beyond 2.375. */
  const double phi = exp(-0.5 * 2.375 * 2.375) / sqrt(2.0 * 3.14159265358979323846);
  const double lost = 0.64 * (2.0 * 2.375 * phi + clamped) - 3.61 * clamped;
  assert_near(square / n, 0.64 - lost, 5.0 * 0.9 / sqrt(n));
  /* The rounding at its edges. */
  assert_int_equal(arb_init_code(0.0f), 127);
  assert_int_equal(sample_accumulator(arb_init_code(9.0f)), 80);
  assert_int_equal(sample_trit(arb_init_code(9.0f)), 1);
  assert_int_equal(sample_accumulator(arb_init_code(-9.0f)), -80);
  assert_int_equal(sample_trit(arb_init_code(-9.0f)), -1);
  assert_int_equal(sample_trit(arb_init_code(0.625f)), 0); /* a latent of exactly 1/2: to even */
}

static int exponent_of(int64_t nnz) { return -(int)rintl(4.0L * log2l((long double)(nnz > 1 ? nnz : 1))); }

static void test_exponents(void **state) {
  (void)state;
  assert_int_equal(arb_init_exponent(0), 0);
  for (int64_t nnz = 0; nnz <= 1 << 20; nnz++)
    if (arb_init_exponent(nnz) != exponent_of(nnz))
      fail_msg("%lld non-zeros: exponent %d", (long long)nnz, arb_init_exponent(nnz));
  for (int i = 1; i <= 124; i++) { /* the changes lie at 2^((2i - 1) / 8) */
    const int64_t edge = (int64_t)ceill(exp2l((2.0L * i - 1.0L) / 8.0L));
    if (edge >= INT64_C(1) << 31) continue;
    for (int64_t nnz = edge > 3 ? edge - 3 : 0; nnz <= edge + 3; nnz++)
      assert_int_equal(arb_init_exponent(nnz), exponent_of(nnz));
    if (edge > 5) assert_int_equal(arb_init_exponent(edge - 1), arb_init_exponent(edge) + 1);
  }
  /* Unit gain: the variance of a row's output, nnz 2^(2E/8), within an eighth of an octave of 1. */
  for (int64_t nnz = 1; nnz < 3000; nnz++)
    assert_near(log2((double)nnz) + 2.0 * arb_init_exponent(nnz) / 8.0, 0.0, 0.125 + 1e-12);
}

/* A stack from the slot: element n pad8(K) + k, exponents from its own non-zeros, everything else at its start. */
static void test_stack(void **state) {
  (void)state;
  enum { N = 37, K = 101, MEMBERS = 3 };
  static uint8_t code[N * K];
  static int8_t e[N], p[N];
  static int32_t r[N], c[MEMBERS * K], m[MEMBERS];
  arb_backend *be;
  arb_assert_ok(arb_backend_ref_create(&be));
  for (int round = 0; round < 3; round++) {
    const uint64_t seed = 11 + (uint64_t)round;
    const arb_stack w = {.id = 1234567u + (uint32_t)round,
                         .uses = 1,
                         .members = MEMBERS,
                         .begin = {0, 5, 20, N},
                         .n = N,
                         .k = K,
                         .code = code,
                         .e = e,
                         .p = p,
                         .r = r,
                         .c = c,
                         .m = m};
    memset(code, 255, sizeof code);
    memset(p, 99, sizeof p);
    memset(c, 7, sizeof c);
    memset(m, 7, sizeof m);
    arb_assert_ok(be->ops.begin_step(be, seed, 99, 3.0f)); /* neither step nor rate matters */
    arb_assert_ok(be->ops.init_stack(be, &w));
    double power = 0;
    for (int n = 0; n < N; n++) {
      int nnz = 0;
      for (int k = 0; k < K; k++) {
        const double latent = sample_clamp(0.8 * normal_of(seed, w.id, (int64_t)n * 104 + k), 1.9);
        assert_near(sample_accumulator(code[n * K + k]), 42.0 * latent, 0.501);
        nnz += sample_trit(code[n * K + k]) != 0;
      }
      assert_int_equal(e[n], exponent_of(nnz));
      assert_int_equal(p[n], 0);
      assert_int_equal(r[n], ARB_Q16_NONE);
      power += nnz * exp2(2.0 * e[n] / 8.0);
    }
    assert_near(power / N, 1.0, 0.06); /* uniform inside an eighth of an octave each: 0.05 / sqrt(37) of spread */
    for (int i = 0; i < MEMBERS * K; i++) assert_int_equal(c[i], ARB_Q16_NONE);
    for (int i = 0; i < MEMBERS; i++) assert_int_equal(m[i], ARB_Q16_NONE);
  }
  arb_backend_destroy(&be);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_definition), cmocka_unit_test(test_distribution), cmocka_unit_test(test_codes),
      cmocka_unit_test(test_exponents),  cmocka_unit_test(test_stack),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
