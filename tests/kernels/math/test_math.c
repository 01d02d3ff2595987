/* kernels/common/math.h and bits.h: accuracy on samples and around every internal boundary, special values, the same bits
 * from every instruction set, and bf16 exhaustively. All 2^32 inputs are walked offline by tools/ulp. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "kernels/common/math.h"
#include "tests/kernels/math/loops.h"

#define N 4096
#define TOLERANCE (2.0 + 0x1p-20) /* ulp; the small part is the double reference's own error */

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double cosine(double x) { return fabs(x) <= 32768 ? cos(x) : (double)NAN; }
static double rsqrt(double x) { return 1 / sqrt(x); }

static const struct {
  const char *name;
  double (*ref)(double);
  uint64_t digest; /* of a fixed set of inputs: the same for every compiler, flag and backend */
} funcs[ARB_M__COUNT] = {
    [ARB_M_EXP] = {"exp", exp, UINT64_C(0x79d8ccbd98304518)},
    [ARB_M_LOG] = {"log", log, UINT64_C(0xc7987621546d8aa6)},
    [ARB_M_SIGMOID] = {"sigmoid", sigmoid, UINT64_C(0xfea82475a20699e8)},
    [ARB_M_TANH] = {"tanh", tanh, UINT64_C(0xdd5a1a035f069794)},
    [ARB_M_ERF] = {"erf", erf, UINT64_C(0xd997d2c5a9cbfac4)},
    [ARB_M_COS] = {"cos", cosine, UINT64_C(0x0d4b2fb8664b4cdd)},
    [ARB_M_RSQRT] = {"rsqrt", rsqrt, UINT64_C(0xf48066d8d9b827e0)},
};

static float f32(uint32_t u) { return arb_f32_of_bits(u); }
static uint32_t bits(float x) { return arb_bits_of_f32(x); }
static float call(int f, float x) {
  float y;
  arb_math_plain[f](&y, &x, 1);
  return y;
}

static void check(int f, float x, float y) {
  double r = funcs[f].ref((double)x);
  if (isnan(r) || isnan(y)) {
    if (!isnan(r) || bits(y) != ARB_F32_NAN_BITS)
      fail_msg("%s(%a) = %a (%08x), not %a", funcs[f].name, (double)x, (double)y, bits(y), r);
    return;
  }
  double limit = 0x1p128, got = isinf(y) ? copysign(limit, (double)y) : (double)y;
  if (fabs(r) > limit) r = copysign(limit, r);
  int e = r == 0 ? -126 : ilogb(r);
  double ulps = ldexp(fabs(got - r), 23 - (e < -126 ? -126 : e > 127 ? 127 : e));
  if (ulps > TOLERANCE) fail_msg("%s(%a) = %a, not %a: %.3f ulp", funcs[f].name, (double)x, (double)y, r, ulps);
}

static void check_all(const float *x, size_t n) {
  float y[N];
  for (int f = 0; f < ARB_M__COUNT; f++) {
    arb_math_plain[f](y, x, n);
    for (size_t i = 0; i < n; i++) check(f, x[i], y[i]);
  }
}

static uint64_t next(uint64_t *s) { /* xorshift64* */
  *s ^= *s >> 12, *s ^= *s << 25, *s ^= *s >> 27;
  return *s * UINT64_C(2685821657736338717);
}

static void samples(void **state) {
  (void)state;
  uint64_t s = 1;
  float x[N];
  for (int block = 0; block < 400; block++) { /* any pattern */
    for (int i = 0; i < N; i++) x[i] = f32((uint32_t)(next(&s) >> 32));
    check_all(x, N);
  }
  const float span[] = {0x1p-20f, 0.6f, 1.0f, 4.0f, 7.0f, 20.0f, 110.0f, 32768.0f};
  for (size_t k = 0; k < sizeof span / sizeof *span; k++)
    for (int block = 0; block < 40; block++) { /* uniform on [-span, span) */
      for (int i = 0; i < N; i++) x[i] = span[k] * (float)((int32_t)(next(&s) >> 40) - (1 << 23)) * 0x1p-23f;
      check_all(x, N);
    }
}

/* The N patterns around x. */
static void around(float x) {
  float v[N];
  for (uint32_t i = 0; i < N; i++) v[i] = f32(bits(x) - N / 2 + i);
  check_all(v, N);
}

static void boundaries(void **state) {
  (void)state;
  const float at[] = {0x1p-149f * N,  0x1p-126f,     0x1p-125f, 0x1p-24f,  0x1p-12f, 0.5f,      0.625f,
                      0x1.555556p-1f, 0x1.555556p0f, 0.921875f, 1.0f,      3.93f,    9.0f,      10.0f,
                      16.6f,          20.0f,         87.33655f, 88.72284f, 89.0f,    103.2789f, 103.9721f,
                      104.0f,         32768.0f,      0x1p22f,   0x1p31f,   0x1p64f,  0x1p127f,  0x1.fffp127f};
  for (size_t i = 0; i < sizeof at / sizeof *at; i++) around(at[i]), around(-at[i]);
  for (int k = -300; k <= 300; k++) {
    around((float)((k + 0.5) * 0.69314718055994531)); /* exp changes its power of two */
    around((float)((k + 0.5) * 0.34657359027997265)); /* tanh, through e^2x */
    around((float)(k * 0.78539816339744831));         /* zeros and quadrants of cos */
  }
  for (int k = 20001; k < 20861; k++) around((float)(k * 1.5707963267948966)); /* up to the end of the domain of cos */
  for (int e = -149; e <= 127; e++) around(ldexpf(1.0f, e)), around(ldexpf(0x1.555556p0f, e));
}

static void special(void **state) {
  (void)state;
  const float inf = f32(ARB_F32_INF_BITS), tiny = 0x1p-149f, top = 0x1.fffffep127f, none = f32(ARB_F32_NAN_BITS);
  const struct {
    int f;
    float x, y;
  } cases[] = {
      {ARB_M_EXP, 0.0f, 1.0f},
      {ARB_M_EXP, -0.0f, 1.0f},
      {ARB_M_EXP, inf, inf},
      {ARB_M_EXP, -inf, 0.0f},
      {ARB_M_EXP, top, inf},
      {ARB_M_EXP, -top, 0.0f},
      {ARB_M_EXP, tiny, 1.0f},
      {ARB_M_EXP, -103.9f, tiny},
      {ARB_M_EXP, -103.98f, 0.0f},
      {ARB_M_LOG, 0.0f, -inf},
      {ARB_M_LOG, -0.0f, -inf},
      {ARB_M_LOG, 1.0f, 0.0f},
      {ARB_M_LOG, inf, inf},
      {ARB_M_LOG, -tiny, none},
      {ARB_M_LOG, -1.0f, none},
      {ARB_M_LOG, -inf, none},
      {ARB_M_LOG, tiny, -0x1.9d1dap6f},
      {ARB_M_SIGMOID, 0.0f, 0.5f},
      {ARB_M_SIGMOID, -0.0f, 0.5f},
      {ARB_M_SIGMOID, inf, 1.0f},
      {ARB_M_SIGMOID, -inf, 0.0f},
      {ARB_M_SIGMOID, top, 1.0f},
      {ARB_M_SIGMOID, -top, 0.0f},
      {ARB_M_SIGMOID, -103.9f, tiny},
      {ARB_M_TANH, 0.0f, 0.0f},
      {ARB_M_TANH, -0.0f, -0.0f},
      {ARB_M_TANH, inf, 1.0f},
      {ARB_M_TANH, -inf, -1.0f},
      {ARB_M_TANH, tiny, tiny},
      {ARB_M_TANH, -tiny, -tiny},
      {ARB_M_ERF, 0.0f, 0.0f},
      {ARB_M_ERF, -0.0f, -0.0f},
      {ARB_M_ERF, inf, 1.0f},
      {ARB_M_ERF, -inf, -1.0f},
      {ARB_M_ERF, tiny, tiny},
      {ARB_M_COS, 0.0f, 1.0f},
      {ARB_M_COS, -0.0f, 1.0f},
      {ARB_M_COS, inf, none},
      {ARB_M_COS, -inf, none},
      {ARB_M_COS, 32768.004f, none},
      {ARB_M_COS, tiny, 1.0f},
      {ARB_M_RSQRT, 0.0f, inf},
      {ARB_M_RSQRT, -0.0f, -inf},
      {ARB_M_RSQRT, inf, 0.0f},
      {ARB_M_RSQRT, -tiny, none},
      {ARB_M_RSQRT, -inf, none},
      {ARB_M_RSQRT, 4.0f, 0.5f},
      {ARB_M_RSQRT, 0x1p-148f, 0x1p74f},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    float y = call(cases[i].f, cases[i].x);
    if (bits(y) != bits(cases[i].y))
      fail_msg("%s(%a) = %a, not %a", funcs[cases[i].f].name, (double)cases[i].x, (double)y, (double)cases[i].y);
  }
  const uint32_t nans[] = {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu};
  for (size_t i = 0; i < sizeof nans / sizeof *nans; i++)
    for (int f = 0; f < ARB_M__COUNT; f++) assert_int_equal(bits(call(f, f32(nans[i]))), ARB_F32_NAN_BITS);
}

/* Inputs 0x4001 patterns apart never step backwards; neighbours may, by a unit, as in any library that rounds late. */
static void monotone(void **state) {
  (void)state;
  for (int f = 0; f < ARB_M__COUNT; f++) {
    if (f == ARB_M_COS) continue;
    float sign = f == ARB_M_RSQRT ? -1.0f : 1.0f;
    for (uint32_t u = 0; u + 0x4001u <= ARB_F32_INF_BITS; u += 0x4001u) {
      float a = f32(u), b = f32(u + 0x4001u);
      if (sign * call(f, a) > sign * call(f, b)) fail_msg("%s falls from %a to %a", funcs[f].name, (double)a, (double)b);
      if (sign * call(f, -b) > sign * call(f, -a)) fail_msg("%s falls from %a to %a", funcs[f].name, -(double)b, -(double)a);
    }
  }
}

/* FNV-1a over the results of 2^20 patterns from the whole range (4099 is odd and spreads them), then of steps of 2^-15
 * on [-16, 16), where the functions bend. */
static uint64_t digest(arb_math_loop *loop) {
  float x[N], y[N];
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (uint32_t block = 0; block < 512; block++) {
    for (uint32_t i = 0; i < N; i++) {
      uint32_t k = block * N + i;
      x[i] = k < 1u << 20 ? f32(k * 4099u) : (float)((int32_t)k - (3 << 19)) * 0x1p-15f;
    }
    loop(y, x, N);
    for (uint32_t i = 0; i < N; i++) h = (h ^ bits(y[i])) * UINT64_C(0x100000001b3);
  }
  return h;
}

static void same_bits(arb_math_loop *const *set, const char *name) {
  int bad = 0;
  for (int f = 0; f < ARB_M__COUNT; f++) {
    uint64_t h = digest(set[f]);
    if (h == funcs[f].digest) continue;
    print_error("%s, %s: digest %016llx, not %016llx\n", funcs[f].name, name, (unsigned long long)h,
                (unsigned long long)funcs[f].digest);
    bad = 1;
  }
  assert_false(bad);
}

static void digests_plain(void **state) { (void)state, same_bits(arb_math_plain, "plain"); }

#ifdef ARB_X86_LOOPS
static void digests_x86(void **state) {
  (void)state;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) skip();
  same_bits(arb_math_scalar, "scalar");
  same_bits(arb_math_avx2, "avx2");
  if (__builtin_cpu_supports("avx512f")) same_bits(arb_math_avx512, "avx512");
}

/* Odd lengths go through the loop's remainder. */
static void remainders(void **state) {
  (void)state;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) skip();
  uint64_t s = 7;
  for (size_t n = 0; n < 200; n++) {
    float x[200], y[200], z[200];
    for (size_t i = 0; i < n; i++) x[i] = f32((uint32_t)(next(&s) >> 32));
    for (int f = 0; f < ARB_M__COUNT; f++) {
      arb_math_plain[f](y, x, n);
      arb_math_avx2[f](z, x, n);
      assert_memory_equal(y, z, n * sizeof *y);
      if (__builtin_cpu_supports("avx512f")) {
        arb_math_avx512[f](z, x, n);
        assert_memory_equal(y, z, n * sizeof *y);
      }
    }
  }
}
#endif

static void bf16(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 0x10000u; h++) {
    float x = arb_f32_of_bf16((uint16_t)h);
    assert_int_equal(bits(x), h << 16);
    uint32_t magnitude = h & 0x7fffu;
    if (magnitude > 0x7f80u) {
      const uint32_t low[] = {0, 1, 0x8000u, 0xffffu};
      for (int i = 0; i < 4; i++) assert_int_equal(arb_bf16_of_f32(f32(h << 16 | low[i])), ARB_BF16_NAN_BITS);
      continue;
    }
    assert_int_equal(arb_bf16_of_f32(x), h);
    if (magnitude == 0x7f80u) continue;
    uint32_t u = h << 16; /* the 65536 floats from h towards the next bf16, away from zero */
    assert_int_equal(arb_bf16_of_f32(f32(u | 1u)), h);
    assert_int_equal(arb_bf16_of_f32(f32(u | 0x7fffu)), h);
    assert_int_equal(arb_bf16_of_f32(f32(u | 0x8000u)), h + (h & 1u)); /* tie: to even, past the largest to infinity */
    assert_int_equal(arb_bf16_of_f32(f32(u | 0x8001u)), h + 1);
    assert_int_equal(arb_bf16_of_f32(f32(u | 0xffffu)), h + 1);
  }
  assert_int_equal(arb_bf16_of_f32(f32(0x7f800001u)), ARB_BF16_NAN_BITS); /* payload only in the dropped half */
}

static void bit_operations(void **state) {
  (void)state;
  for (int32_t e = -126; e <= 127; e++) assert_int_equal(bits(arb_pow2i(e)), bits(ldexpf(1.0f, e)));
  assert_int_equal(bits(arb_fabsf(-0.0f)), 0);
  assert_int_equal(bits(arb_fabsf(f32(0xffc00001u))), 0x7fc00001u);
  assert_int_equal(bits(arb_copysignf(1.0f, -0.0f)), 0xbf800000u);
  assert_int_equal(bits(arb_copysignf(-1.0f, 2.0f)), 0x3f800000u);
  assert_int_equal(bits(arb_rintf(2.5f)), bits(2.0f));
  assert_int_equal(bits(arb_rintf(-0.5f)), bits(-0.0f));
  assert_int_equal(bits(arb_floorf(-0.5f)), bits(-1.0f));
  assert_int_equal(bits(arb_fmaxf(f32(ARB_F32_NAN_BITS), 1.0f)), bits(1.0f));
  assert_int_equal(bits(arb_fminf(0.0f, -0.0f)), bits(-0.0f));
  assert_int_equal(bits(arb_fmaf(0x1.000002p0f, 0x1.000002p0f, -0x1.000004p0f)), bits(0x1p-46f)); /* one rounding */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(samples),     cmocka_unit_test(boundaries),     cmocka_unit_test(special),
      cmocka_unit_test(monotone),    cmocka_unit_test(digests_plain),
#ifdef ARB_X86_LOOPS
      cmocka_unit_test(digests_x86), cmocka_unit_test(remainders),
#endif
      cmocka_unit_test(bf16),        cmocka_unit_test(bit_operations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
