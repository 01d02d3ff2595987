/* The generator against published vectors, the numbering of draws, and the small rounding functions built on it. */
#include "kernels/common/philox.h"

#include "kernels/backend.h"
#include "tests/kernels/samples.h"

static const struct {
  words4 counter;
  uint32_t k0, k1;
  words4 after7, after10;
} published[] = {/* Random123, tests/kat_vectors */
                 {{{0, 0, 0, 0}},
                  0,
                  0,
                  {{0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}},
                  {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
                 {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
                  0xffffffff,
                  0xffffffff,
                  {{0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662}},
                  {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
                 {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
                  0xa4093822,
                  0x299f31d0,
                  {{0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}},
                  {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}}};

static void test_vectors(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
    const words4 c = published[i].counter;
    const words4 ten = sample_philox(10, c, published[i].k0, published[i].k1);
    assert_memory_equal(ten.v, published[i].after10.v, sizeof ten.v);
    const arb_philox_key key = {published[i].k0, published[i].k1};
    const arb_philox_block b = arb_philox(key, c.v[0], c.v[1], c.v[2], c.v[3]);
    assert_memory_equal(b.v, published[i].after7.v, sizeof b.v);
  }
  for (int i = 0; i < 20000; i++) {
    const words4 c = {{sample_u32(), sample_u32(), sample_u32(), sample_u32()}};
    const arb_philox_key key = {sample_u32(), sample_u32()};
    const words4 want = sample_philox(7, c, key.k0, key.k1);
    const arb_philox_block b = arb_philox(key, c.v[0], c.v[1], c.v[2], c.v[3]);
    assert_memory_equal(b.v, want.v, sizeof want.v);
    const arb_philox_plan plan = arb_philox_plan_of(key, c.v[1], c.v[2]);
    const arb_philox_block planned = arb_philox_planned(&plan, c.v[0], c.v[3]);
    assert_memory_equal(planned.v, want.v, sizeof want.v);
  }
}

static void test_numbering(void **state) {
  (void)state;
  enum { COUNT = 91 };
  static const int64_t firsts[] = {0, 8, 64, 4096, INT64_C(8) * 0xfffffff0};
  uint16_t got[COUNT + 8];
  arb_backend *be;
  arb_assert_ok(arb_backend_ref_create(&be));
  for (int i = 0; i < 60; i++) {
    const uint64_t seed = i % 3 ? sample_u64() : (uint64_t)i;
    const uint32_t step = sample_u32(), tensor = sample_u32(), grain = sample_u32() & 255;
    const int purpose = 1 + i % 9;
    const int64_t first = firsts[i % 5], count = i % 2 ? COUNT : sample_between(1, COUNT);
    arb_assert_ok(be->ops.begin_step(be, seed, step, 0.0f));
    arb_assert_ok(be->ops.draws(be, (arb_draw_purpose)purpose, tensor, grain, first, count, got));
    for (int64_t j = 0; j < count; j++) assert_int_equal(got[j], sample_draw(seed, purpose, tensor, step, grain, first + j));
  }
  arb_assert_fails(be->ops.draws(be, ARB_DRAW_DX, 1, 0, 12, 8, got), ARB_ERR_ARG, "not a multiple of 8");
  assert_int_equal(ARB_DRAW_INIT, 1);
  assert_int_equal(ARB_DRAW_UPDATE, 5);
  assert_int_equal(ARB_DRAW_SAMPLE, 9);
  arb_backend_destroy(&be);
}

/* Over all 65536 random values the sum is exactly 65536 x, for every x on the grid of 2^-16. */
static void test_expectation(void **state) {
  (void)state;
  static const int fractions[] = {0, 1, 2, 3, 255, 256, 257, 16384, 21845, 32767, 32768, 32769, 43690, 65533, 65534, 65535};
  static const int wholes[] = {-128, -127, -64, -3, -2, -1, 0, 1, 2, 5, 63, 126};
  for (size_t f = 0; f < sizeof fractions / sizeof *fractions; f++)
    for (size_t w = 0; w < sizeof wholes / sizeof *wholes; w++) {
      const int64_t grid = (int64_t)wholes[w] * 65536 + fractions[f];
      const float x = (float)grid * 0x1p-16f;
      int64_t sum = 0;
      for (int r = 0; r < 65536; r++) {
        const float y = arb_stochastic_round(x, (uint16_t)r);
        sum += (int64_t)y;
        assert_true(y == (float)wholes[w] || (y == (float)(wholes[w] + 1) && fractions[f] > 0));
      }
      assert_int_equal(sum, grid);
    }
}

/* Off the grid: the number of values that round up is the nearest multiple, and each value agrees with the definition. */
static void test_rounding(void **state) {
  (void)state;
  for (int i = 0; i < 400000; i++) {
    const double size = ldexp(1.0, (int)sample_between(-20, 21));
    const float x = (float)((2.0 * sample_unit() - 1.0) * size);
    const uint16_t r = (uint16_t)(i % 8 == 0 ? 0 : i % 8 == 1 ? 65535 : sample_u32());
    assert_true((double)arb_stochastic_round(x, r) == (double)sample_round(x, r));
  }
  for (int i = 0; i < 40; i++) {
    const float x = sample_normal(3.0);
    int64_t up = 0;
    for (int r = 0; r < 65536; r++) up += (int64_t)arb_stochastic_round(x, (uint16_t)r) - (int64_t)floor((double)x);
    assert_near(up, ((double)x - floor((double)x)) * 65536.0, 0.5);
  }
}

static void check_small(float x) {
  if (arb_floor_small(x) != floorf(x)) fail_msg("floor of %.9g is %.9g", (double)x, (double)arb_floor_small(x));
  if (arb_rint_small(x) != rintf(x)) fail_msg("nearest of %.9g is %.9g", (double)x, (double)arb_rint_small(x));
}

static void test_floor_and_rint(void **state) {
  (void)state;
  for (uint32_t bits = 0; bits < 0x4a800000u; bits += 997) { /* up to 2^22 */
    float x;
    memcpy(&x, &bits, sizeof x);
    check_small(x);
    check_small(-x);
  }
  for (int i = -4000; i <= 4000; i++) {
    const float steps[] = {(float)i, (float)i + 0.5f, (float)i * 0.25f, 0x1p21f + (float)i * 0.25f,
                           -0x1p21f + (float)i * 0.25f};
    for (int j = 0; j < 5; j++) {
      check_small(steps[j]);
      check_small(nextafterf(steps[j], INFINITY));
      check_small(nextafterf(steps[j], -INFINITY));
    }
  }
}

static void test_clamp(void **state) {
  (void)state;
  assert_true(arb_clamp(3.0f, 4.0f) == 3.0f && arb_clamp(-3.0f, 4.0f) == -3.0f);
  assert_true(arb_clamp(5.0f, 4.0f) == 4.0f && arb_clamp(-5.0f, 4.0f) == -4.0f);
  assert_true(arb_clamp(INFINITY, 127.0f) == 127.0f && arb_clamp(-INFINITY, 127.0f) == -127.0f);
  assert_true(arb_clamp(NAN, 127.0f) == 127.0f && arb_clamp(-NAN, 127.0f) == 127.0f);
  assert_true(arb_clamp(127.0f, 127.0f) == 127.0f && arb_clamp(-127.0f, 127.0f) == -127.0f);
  assert_int_equal(arb_pad8(0), 0);
  assert_int_equal(arb_pad8(1), 8);
  assert_int_equal(arb_pad8(8), 8);
  assert_int_equal(arb_pad8(297), 304);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_vectors),  cmocka_unit_test(test_numbering),      cmocka_unit_test(test_expectation),
      cmocka_unit_test(test_rounding), cmocka_unit_test(test_floor_and_rint), cmocka_unit_test(test_clamp),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
