/* Backward slots of the smooth functions against central differences of their forward formulas in double.
 *
 * Quantised steps are straight-through, so each function here ends before its rounding. With h = 1e-4 the difference is off by
 * h^2 f'''/6, about 1e-8 of the gradient's size, plus 1e-16/h; the slots round every operation to float: some 10 roundings and
 * a row sum, about 1e-6. The bound is 2e-5 of the largest gradient. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/common/bits.h"
#include "tests/test.h"

#define STEP 1e-4
#define BOUND 2e-5

static arb_backend *be;

static uint64_t random_state = 0x853c49e6748fea9bu;
static double unit(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return ((double)(random_state >> 11) + 0.5) * 0x1p-53;
}
static double normal(void) { return sqrt(-2.0 * log(unit())) * cos(6.283185307179586 * unit()); }
static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static double wide(uint16_t h) { return (double)arb_f32_of_bf16(h); }

enum { MOST = 512 };

/* Values as the slots see them (float, bf16) and in double, to be moved one by one. */
static float xf[MOST], dyf[MOST], biasf[MOST];
static uint16_t ub[MOST], vb[MOST];
static double x[MOST], u[MOST], v[MOST], dy[MOST], bias[MOST];
static int8_t e[MOST];

static void draw(int count) {
  assert_true(count <= MOST);
  for (int i = 0; i < count; i++) {
    x[i] = (double)(xf[i] = (float)(1.7 * normal()));
    dy[i] = (double)(dyf[i] = (float)normal());
    bias[i] = (double)(biasf[i] = (float)(1.0 + unit()));
    u[i] = wide(ub[i] = arb_bf16_of_f32((float)(1.5 * normal())));
    v[i] = wide(vb[i] = arb_bf16_of_f32((float)(1.5 * normal())));
    e[i] = (int8_t)(8.0 * normal());
  }
}

/* d loss / d at[0], ..., at[count - 1] against got. */
static void compare(const char *name, double (*loss)(int64_t), int64_t width, double *at, int count, const float *got) {
  double most = 0;
  double *want = calloc((size_t)count, sizeof *want);
  assert_non_null(want);
  for (int i = 0; i < count; i++) {
    const double kept = at[i];
    at[i] = kept + STEP;
    const double up = loss(width);
    at[i] = kept - STEP;
    const double down = loss(width);
    at[i] = kept;
    want[i] = (up - down) / (2.0 * STEP);
    most = fmax(most, fabs(want[i]));
  }
  assert_true(most > 0);
  for (int i = 0; i < count; i++)
    if (!(fabs((double)got[i] - want[i]) <= BOUND * most))
      fail_msg("%s, width %lld: gradient %d is %.9g, differences give %.9g (largest %.3g)", name, (long long)width, i,
               (double)got[i], want[i], most);
  free(want);
}

static double inverse_rms(const double *a, int64_t width) {
  double sum = 0;
  for (int64_t i = 0; i < width; i++) sum += a[i] * a[i];
  return 1.0 / sqrt(sum / (double)width + 1e-6);
}

static const arb_rows one_row = {1, 1, 0, 1};
/* Of a single value the norm leaves only the sign, and no gradient. */
static const int64_t widths[] = {2, 3, 17, 32, 33, 70, 297};
#define WIDTHS (sizeof widths / sizeof *widths)

/* ---- norm ---- */

static double norm_loss(int64_t width) {
  const double inv = inverse_rms(x, width);
  double sum = 0;
  for (int64_t i = 0; i < width; i++) sum += dy[i] * x[i] * inv * exp2(e[i] / 8.0);
  return sum;
}

static void test_norm(void **state) {
  (void)state;
  for (size_t w = 0; w < WIDTHS; w++) {
    const int64_t width = widths[w];
    const int count = (int)width;
    float g[MOST], start[MOST], sum[MOST], inv, s;
    int8_t q[MOST];
    draw(count);
    arb_assert_ok(be->ops.add_norm_quant(be, &one_row, width, xf, NULL, NULL, e, q, &s, &inv));
    arb_assert_ok(be->ops.norm_backward(be, &one_row, width, xf, NULL, &inv, e, dyf, 0, g));
    compare("norm of x", norm_loss, width, x, count, g);
    /* accumulate adds to what is there */
    for (int i = 0; i < count; i++) sum[i] = start[i] = (float)normal();
    arb_assert_ok(be->ops.norm_backward(be, &one_row, width, xf, NULL, &inv, e, dyf, 1, sum));
    for (int i = 0; i < count; i++) assert_true(sum[i] == start[i] + g[i]);
    /* the same from bf16 */
    memcpy(x, u, sizeof x);
    arb_assert_ok(be->ops.add_norm_quant(be, &one_row, width, NULL, ub, NULL, e, q, &s, &inv));
    arb_assert_ok(be->ops.norm_backward(be, &one_row, width, NULL, ub, &inv, e, dyf, 0, g));
    compare("norm of y", norm_loss, width, x, count, g);
  }
}

/* ---- gate: norm(x) * sigmoid(u) ---- */

static double gate_loss(int64_t width) {
  const double inv = inverse_rms(x, width);
  double sum = 0;
  for (int64_t i = 0; i < width; i++) sum += dy[i] * x[i] * inv * exp2(e[i] / 8.0) * sigmoid(u[i]);
  return sum;
}

static void test_gate(void **state) {
  (void)state;
  for (size_t w = 0; w < WIDTHS; w++) {
    const int64_t width = widths[w];
    float dh[MOST], dz[MOST], inv, s;
    int8_t q[MOST];
    draw((int)width);
    arb_assert_ok(be->ops.gate_norm_quant(be, &one_row, width, xf, ub, width, e, q, &s, &inv));
    arb_assert_ok(be->ops.gate_norm_backward(be, &one_row, width, xf, ub, width, &inv, e, dyf, dh, dz, width));
    compare("gate, memory", gate_loss, width, x, (int)width, dh);
    compare("gate, gate", gate_loss, width, u, (int)width, dz);
  }
}

/* ---- norm(silu(u) * v) ---- */

static double glu_loss(int64_t width) {
  double a[MOST] = {0}, sum = 0;
  for (int64_t i = 0; i < width; i++) a[i] = u[i] * sigmoid(u[i]) * v[i];
  const double inv = inverse_rms(a, width);
  for (int64_t i = 0; i < width; i++) sum += dy[i] * a[i] * inv * exp2(e[i] / 8.0);
  return sum;
}

static void test_glu(void **state) {
  (void)state;
  for (size_t w = 0; w < WIDTHS; w++) {
    const int64_t width = widths[w];
    float du[MOST], dv[MOST], inv, s;
    int8_t q[MOST];
    draw((int)width);
    arb_assert_ok(be->ops.glu_norm_quant(be, &one_row, width, ub, vb, width, e, q, &s, &inv));
    arb_assert_ok(be->ops.glu_norm_backward(be, &one_row, width, ub, vb, width, &inv, e, dyf, du, dv, width));
    compare("glu, u", glu_loss, width, u, (int)width, du);
    compare("glu, v", glu_loss, width, v, (int)width, dv);
  }
}

/* ---- recurrence: x is not used, u = zf, v = zc, [rows][width] ---- */

enum { CONTEXT = 11, SEQUENCES = 2 };

static double scan_loss(int64_t width) {
  double sum = 0;
  for (int64_t i = 0; i < width; i++) {
    double h = 0;
    for (int64_t t = 0; t < CONTEXT * SEQUENCES; t++) {
      const int64_t at = t * width + i;
      const double f = sigmoid(u[at] + bias[i]), c = v[at] * sigmoid(v[at]);
      if (t % CONTEXT == 0) h = 0;
      h = f * h + (1.0 - f) * c;
      sum += dy[at] * h;
    }
  }
  return sum;
}

static void test_recurrence(void **state) {
  (void)state;
  const arb_rows rows = {CONTEXT * SEQUENCES, 1, 0, 1};
  for (int64_t width = 1; width <= 21; width += 5) {
    const int count = (int)(CONTEXT * SEQUENCES * width);
    float h[MOST], dzf[MOST], dzc[MOST];
    draw(count);
    arb_assert_ok(be->ops.mlgru_forward(be, &rows, CONTEXT, width, ub, vb, width, biasf, h));
    arb_assert_ok(be->ops.mlgru_backward(be, &rows, CONTEXT, width, ub, vb, width, biasf, h, dyf, dzf, dzc, width));
    compare("recurrence, forget gate", scan_loss, width, u, count, dzf);
    compare("recurrence, candidate", scan_loss, width, v, count, dzc);
  }
}

/* ---- softmax cross-entropy ---- */

static int32_t target;
#define WEIGHT 0.25

static double softmax_loss(int64_t width) {
  double sum = 0;
  for (int64_t i = 0; i < width; i++) sum += exp(u[i]);
  return WEIGHT * (log(sum) - u[target]);
}

static void test_softmax(void **state) {
  (void)state;
  for (size_t w = 0; w < WIDTHS; w++) {
    const int64_t width = widths[w];
    float g[MOST];
    int64_t loss = 0, count = 0;
    draw((int)width);
    target = (int32_t)(unit() * (double)width);
    arb_assert_ok(be->ops.xent(be, &one_row, width, ub, &target, (float)WEIGHT, g, &loss, &count));
    assert_true(fabs((double)loss / 1048576.0 * WEIGHT - softmax_loss(width)) < 1e-5);
    compare("cross-entropy", softmax_loss, width, u, (int)width, g);
  }
}

static int open_backend(void **state) {
  (void)state;
  return arb_backend_ref_create(&be) != ARB_OK;
}
static int close_backend(void **state) {
  (void)state;
  arb_backend_destroy(&be);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_norm),       cmocka_unit_test(test_gate),    cmocka_unit_test(test_glu),
      cmocka_unit_test(test_recurrence), cmocka_unit_test(test_softmax),
  };
  return cmocka_run_group_tests(tests, open_backend, close_backend);
}
