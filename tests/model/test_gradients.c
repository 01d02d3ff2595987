/* Backward slots of the smooth functions against central differences of their forward formulas in double.
 *
 * Quantised steps are straight-through, so each function here ends before its rounding. With h = 1e-4 the difference is off by
 * h^2 f'''/6, about 1e-8 of the gradient's size, plus 1e-16/h; the slots round every operation to float: some 10 roundings and
 * a row sum, about 1e-6. The bound is 2e-5 of the largest gradient, plus 2^-8 of its own for one that is rounded to bf16.
 * Gradients that leave as int8 rows are averaged over ROUNDS stochastic roundings of at most half a unit's deviation each:
 * within five deviations of the mean. */
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
static float xf[MOST], biasf[MOST];
static uint16_t ub[MOST], vb[MOST], dyb[MOST];
static double x[MOST], u[MOST], v[MOST], dy[MOST], bias[MOST];
static int8_t e[MOST];

static void draw(int count) {
  assert_true(count <= MOST);
  for (int i = 0; i < count; i++) {
    x[i] = (double)(xf[i] = (float)(1.7 * normal()));
    dy[i] = wide(dyb[i] = arb_bf16_of_f32((float)normal()));
    bias[i] = (double)(biasf[i] = (float)(1.0 + unit()));
    u[i] = wide(ub[i] = arb_bf16_of_f32((float)(1.5 * normal())));
    v[i] = wide(vb[i] = arb_bf16_of_f32((float)(1.5 * normal())));
    e[i] = (int8_t)(8.0 * normal());
  }
}

/* d loss / d at[0], ..., at[count - 1] against got; bound: of the largest, own: of each one's size. */
static void compare_within(const char *name, double (*loss)(int64_t), int64_t width, double *at, int count, const float *got,
                           double bound, double own) {
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
    if (!(fabs((double)got[i] - want[i]) <= bound * most + own * fabs(want[i])))
      fail_msg("%s, width %lld: gradient %d is %.9g, differences give %.9g (largest %.3g)", name, (long long)width, i,
               (double)got[i], want[i], most);
  free(want);
}

static void compare(const char *name, double (*loss)(int64_t), int64_t width, double *at, int count, const float *got) {
  compare_within(name, loss, width, at, count, got, BOUND, 0.0);
}
static void compare_bf16(const char *name, double (*loss)(int64_t), int64_t width, double *at, int count, const uint16_t *got) {
  float wider[MOST];
  for (int i = 0; i < count; i++) wider[i] = arb_f32_of_bf16(got[i]);
  compare_within(name, loss, width, at, count, wider, BOUND, 0x1p-8);
}

/* The mean of ROUNDS roundings of one gradient row, which `run` leaves in (q, s). Exponents of the stack are 0. */
#define ROUNDS 1600
static void mean_row(void (*run)(int8_t *q, float *s), int count, float *mean) {
  double sum[MOST] = {0};
  int8_t q[MOST];
  float s;
  for (uint32_t step = 1; step <= ROUNDS; step++) {
    arb_assert_ok(be->ops.begin_step(be, 3, step, 0.0f));
    run(q, &s);
    for (int i = 0; i < count; i++) sum[i] += (double)q[i] * (double)s;
  }
  for (int i = 0; i < count; i++) mean[i] = (float)(sum[i] / ROUNDS);
}
/* Five deviations, half a unit each, of the mean; a unit is a 127th of the largest. */
#define ROW_BOUND (5.0 * 0.5 / 40.0 / 127.0 + BOUND)

static arb_stack plain_stack(int64_t n) {
  static int8_t zero[MOST];
  return (arb_stack){.id = 77, .uses = 1, .members = 1, .begin = {0, n}, .n = n, .k = 1, .e = zero};
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
    uint16_t narrow[MOST];
    int8_t q[MOST];
    draw(count);
    arb_assert_ok(be->ops.add_norm_quant(be, &one_row, width, xf, NULL, NULL, e, q, &s, &inv));
    arb_assert_ok(be->ops.norm_backward(be, &one_row, width, xf, &inv, e, dyb, 0, g, NULL, NULL, NULL));
    compare("norm of x", norm_loss, width, x, count, g);
    /* accumulate adds to what is there */
    for (int i = 0; i < count; i++) sum[i] = start[i] = (float)normal();
    arb_assert_ok(be->ops.norm_backward(be, &one_row, width, xf, &inv, e, dyb, 1, sum, NULL, NULL, NULL));
    for (int i = 0; i < count; i++) assert_true(sum[i] == start[i] + g[i]);
    /* the same from bf16 */
    memcpy(x, u, sizeof x);
    arb_assert_ok(be->ops.add_norm_quant(be, &one_row, width, NULL, ub, NULL, e, q, &s, &inv));
    arb_assert_ok(be->ops.input_norm_backward(be, &one_row, width, ub, &inv, e, dyb, narrow));
    compare_bf16("norm of y", norm_loss, width, x, count, narrow);
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
    uint16_t dh[MOST], dz[MOST];
    float inv, s;
    int8_t q[MOST];
    draw((int)width);
    arb_assert_ok(be->ops.gate_norm_quant(be, &one_row, width, xf, ub, width, e, q, &s, &inv));
    arb_assert_ok(be->ops.gate_norm_backward(be, &one_row, width, xf, ub, width, &inv, e, dyb, dh, dz, width));
    compare_bf16("gate, memory", gate_loss, width, x, (int)width, dh);
    compare_bf16("gate, gate", gate_loss, width, u, (int)width, dz);
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

static int64_t glu_width;
static float glu_inv;
static void run_glu(int8_t *q, float *s) {
  const arb_stack w = plain_stack(2 * glu_width);
  arb_assert_ok(be->ops.glu_norm_backward(be, &one_row, glu_width, ub, vb, glu_width, &glu_inv, e, dyb, &w, q, s));
}

static void test_glu(void **state) {
  (void)state;
  for (size_t w = 0; w < WIDTHS && 2 * widths[w] <= MOST; w++) {
    const int64_t width = glu_width = widths[w];
    float mean[MOST], s;
    int8_t q[MOST];
    draw((int)width);
    arb_assert_ok(be->ops.glu_norm_quant(be, &one_row, width, ub, vb, width, e, q, &s, &glu_inv));
    mean_row(run_glu, (int)(2 * width), mean);
    /* the unit comes from the larger half: bound both by it */
    double most[2] = {0, 0};
    for (int i = 0; i < 2 * width; i++) most[i / width] = fmax(most[i / width], fabs((double)mean[i]));
    const double unit = fmax(most[0], most[1]);
    compare_within("glu, u", glu_loss, width, u, (int)width, mean, ROW_BOUND * unit / most[0] * 1.1, 0.0);
    compare_within("glu, v", glu_loss, width, v, (int)width, mean + width, ROW_BOUND * unit / most[1] * 1.1, 0.0);
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
    float h[MOST];
    uint16_t dzf[MOST], dzc[MOST];
    draw(count);
    arb_assert_ok(be->ops.mlgru_forward(be, &rows, CONTEXT, width, ub, vb, width, biasf, h));
    arb_assert_ok(be->ops.mlgru_backward(be, &rows, CONTEXT, width, ub, vb, width, biasf, h, dyb, dzf, dzc, width));
    compare_bf16("recurrence, forget gate", scan_loss, width, u, count, dzf);
    compare_bf16("recurrence, candidate", scan_loss, width, v, count, dzc);
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

static int64_t softmax_width;
static int64_t softmax_sums[2];
static void run_softmax(int8_t *q, float *s) {
  const arb_stack w = plain_stack(softmax_width);
  softmax_sums[0] = softmax_sums[1] = 0;
  arb_assert_ok(be->ops.xent(be, &one_row, ub, &target, (float)WEIGHT, &w, q, s, &softmax_sums[0], &softmax_sums[1]));
}

static void test_softmax(void **state) {
  (void)state;
  for (size_t w = 0; w < WIDTHS; w++) {
    const int64_t width = softmax_width = widths[w];
    float mean[MOST];
    draw((int)width);
    target = (int32_t)(unit() * (double)width);
    mean_row(run_softmax, (int)width, mean);
    assert_true(fabs((double)softmax_sums[0] / 1048576.0 * WEIGHT - softmax_loss(width)) < 1e-5);
    compare_within("cross-entropy", softmax_loss, width, u, (int)width, mean, ROW_BOUND, 0.0);
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
