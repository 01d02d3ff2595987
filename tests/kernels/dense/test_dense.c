/* kernels/dense: what it computes, within bounds derived from the number of roundings; and that every level, row grouping and
 * place of a weight gives the same bits. */
#include "kernels/dense/dense.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/samples.h"
#include "tests/test.h"

static const char *const names[] = {"scalar", "avx2", "avx512"};

static float *floats(int64_t count) {
  float *x = malloc((size_t)(count + 1) * sizeof *x);
  assert_non_null(x);
  return x;
}

static float value(void) { return (float)((double)(int32_t)sample_u32() * 0x1p-31); }

static float *random_floats(int64_t count) {
  float *x = floats(count);
  for (int64_t i = 0; i < count; i++) x[i] = value();
  return x;
}

typedef struct {
  int64_t m, n, taps, depth;
  int int8, indirect;
  arb_dense_epilogue e;
} shape;

/* One product: weights [n][k], and the same packed. */
typedef struct {
  shape s;
  float *x, *w, *bias, *residual, *gain;
  int8_t *q;
  float *scale, *panels;
  int8_t *panels_q;
  const float **at;
  arb_dense_matrix matrix;
  arb_dense_input input;
} product;

static product make(shape s) {
  const int64_t k = s.taps * s.depth, outputs = arb_dense_panels(s.n) * ARB_DENSE_PANEL;
  product p = {.s = s};
  p.x = random_floats(s.m * k);
  p.w = random_floats(s.n * k);
  p.bias = random_floats(s.n);
  p.gain = random_floats(s.n);
  p.residual = random_floats(s.m * s.n);
  p.q = malloc((size_t)(s.n * k));
  p.scale = floats(outputs);
  p.panels = calloc((size_t)(outputs * k), sizeof(float));
  p.panels_q = calloc((size_t)(outputs * k), 1);
  p.at = malloc((size_t)(s.m * s.taps) * sizeof *p.at);
  assert_true(p.q && p.panels && p.panels_q && p.at);
  for (int64_t j = 0; j < outputs; j++) p.scale[j] = 0.01f + 0.001f * (float)j;
  for (int64_t j = 0; j < s.n; j++) {
    for (int64_t i = 0; i < k; i++) p.q[j * k + i] = (int8_t)(sample_u32() % 255 - 127);
    arb_dense_pack_q(p.panels_q, k, j, p.q + j * k);
    arb_dense_pack_f(p.panels, k, j, p.w + j * k);
  }
  /* Taps of a row lie apart and in no order: tap t of row r is at block (r * 7 + t * 3) of x. */
  for (int64_t t = 0; t < s.taps; t++)
    for (int64_t r = 0; r < s.m; r++) p.at[t * s.m + r] = p.x + (r * 7 + t * 3) % (s.m * s.taps) * s.depth;
  p.matrix = (arb_dense_matrix){
      .n = s.n, .k = k, .q = s.int8 ? p.panels_q : NULL, .f = s.int8 ? NULL : p.panels, .scale = s.int8 ? p.scale : NULL};
  p.input = s.indirect ? (arb_dense_input){.at = p.at, .stride = s.m, .taps = s.taps, .depth = s.depth}
                       : (arb_dense_input){.x = p.x, .ld = k, .taps = 1, .depth = k};
  return p;
}

static void discard(product *p) {
  free(p->x), free(p->w), free(p->bias), free(p->residual), free(p->gain), free(p->q), free(p->scale), free(p->panels);
  free(p->panels_q), free((void *)p->at);
}

static const float *input_at(const product *p, int64_t r, int64_t i) {
  if (!p->s.indirect) return p->x + r * p->matrix.k + i;
  return p->at[i / p->s.depth * p->s.m + r] + i % p->s.depth;
}

static double activated(arb_dense_activation a, double v) {
  if (a == ARB_DENSE_GELU) return 0.5 * v * (1 + erf(v / sqrt(2.0)));
  if (a == ARB_DENSE_SILU) return v / (1 + exp(-v));
  return a == ARB_DENSE_TANH ? tanh(v) : v;
}

/* Rows [0, m) in groups of `group` with kernels k; guard values around the result stay. */
static void run(const arb_dense_kernels *k, const product *p, int64_t group, float *y) {
  const int64_t ldy = p->s.n + 3;
  float *scratch = floats(arb_dense_scratch(p->input.depth));
  for (int64_t i = 0; i < p->s.m * ldy; i++) y[i] = 77.0f;
  for (int64_t panel = 0; panel < arb_dense_panels(p->s.n); panel++)
    for (int64_t r = 0; r < p->s.m; r += group)
      k->product(&p->input, r, r + group < p->s.m ? r + group : p->s.m, &p->matrix, panel, &p->s.e, y, ldy, scratch);
  for (int64_t r = 0; r < p->s.m; r++)
    for (int j = 0; j < 3; j++) assert_true(y[r * ldy + p->s.n + j] == 77.0f);
  free(scratch);
}

/* Against double: k fused roundings of sums below the sum of magnitudes, then at most 8 more. */
static void check_meaning(const product *p, const float *y) {
  const int64_t k = p->matrix.k, ldy = p->s.n + 3;
  for (int64_t r = 0; r < p->s.m; r++)
    for (int64_t n = 0; n < p->s.n; n++) {
      double sum = 0, size = 0;
      for (int64_t i = 0; i < k; i++) {
        const double w = p->s.int8 ? (double)p->q[n * k + i] * (double)p->scale[n] : (double)p->w[n * k + i];
        sum += (double)*input_at(p, r, i) * w;
        size += fabs((double)*input_at(p, r, i) * w);
      }
      double want = sum + (p->s.e.bias ? (double)p->bias[n] : 0);
      double bound = ((double)k * size + 8 * (size + 2)) * FLT_EPSILON; /* no activation here grows a difference beyond 1.13 */
      want = activated(p->s.e.act, want);
      if (p->s.e.residual) want = (double)p->residual[r * p->s.n + n] + (p->s.e.gain ? (double)p->gain[n] : 1.0) * want;
      if (!(fabs((double)y[r * ldy + n] - want) <= 1.13 * bound))
        fail_msg("row %lld, output %lld: %.9g, expected %.9g within %.3g", (long long)r, (long long)n, (double)y[r * ldy + n],
                 want, 1.13 * bound);
    }
}

/* The definition of a bare float product: one chain of fused operations. */
static void check_chain(const product *p, const float *y) {
  for (int64_t r = 0; r < p->s.m; r++)
    for (int64_t n = 0; n < p->s.n; n++) {
      float sum = 0.0f;
      for (int64_t i = 0; i < p->matrix.k; i++) sum = fmaf(*input_at(p, r, i), p->w[n * p->matrix.k + i], sum);
      assert_true(sum == y[r * (p->s.n + 3) + n]);
    }
}

static void check_product(shape s) {
  product p = make(s);
  const int64_t ldy = s.n + 3, groups[] = {ARB_DENSE_ROWS, 1, 5, 13};
  float *first = floats(s.m * ldy), *y = floats(s.m * ldy);
  int levels = 0;
  p.s.e.bias = s.e.bias ? p.bias : NULL;
  p.s.e.gain = s.e.gain ? p.gain : NULL;
  p.s.e.residual = s.e.residual ? p.residual : NULL;
  p.s.e.ldr = s.n;
  for (size_t l = 0; l < sizeof names / sizeof names[0]; l++) {
    const arb_dense_kernels *k = arb_dense_pick(names[l]);
    if (k == NULL) continue;
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
      run(k, &p, groups[g], levels == 0 ? first : y);
      if (levels++ == 0)
        check_meaning(&p, first);
      else if (memcmp(first, y, (size_t)(s.m * ldy) * sizeof *y) != 0)
        fail_msg("%lldx%lldx%lld: %s in groups of %lld rows gives other bits", (long long)s.m, (long long)(s.taps * s.depth),
                 (long long)s.n, names[l], (long long)groups[g]);
    }
  }
  if (!s.int8 && !s.e.bias && !s.e.residual && s.e.act == ARB_DENSE_NONE) check_chain(&p, first);
  free(first);
  free(y);
  discard(&p);
}

static void test_products(void **state) {
  (void)state;
  static const float some = 1; /* only tells that there is one */
  const arb_dense_epilogue plain = {0}, bias = {.bias = &some}, gelu = {.bias = &some, .act = ARB_DENSE_GELU};
  const arb_dense_epilogue silu = {.act = ARB_DENSE_SILU}, hyper = {.act = ARB_DENSE_TANH};
  const arb_dense_epilogue add = {.bias = &some, .residual = &some}, scaled = {.residual = &some, .gain = &some};
  const shape shapes[] = {{1, 1, 1, 1, 0, 0, plain},      {1, 32, 1, 64, 1, 0, bias},    {2, 33, 1, 7, 1, 0, gelu},
                          {3, 31, 1, 127, 0, 0, silu},    {4, 96, 1, 52, 1, 0, hyper},   {5, 40, 1, 100, 1, 0, add},
                          {12, 64, 1, 384, 1, 0, scaled}, {13, 32, 1, 33, 0, 0, bias},   {24, 5, 1, 416, 1, 0, gelu},
                          {29, 65, 1, 200, 0, 0, plain},  {257, 34, 1, 20, 1, 0, plain}, {288, 32, 1, 3, 0, 0, scaled},
                          {14, 40, 9, 24, 1, 1, gelu},    {7, 33, 27, 96, 0, 1, add}, /* two groups of taps */
                          {3, 32, 27, 96, 1, 1, scaled},  {6, 32, 3, 2100, 1, 1, bias},  {2, 8, 1, 2912, 1, 0, plain}};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) check_product(shapes[i]);
}

static void test_layer_norm(void **state) {
  (void)state;
  static const int64_t widths[] = {1, 31, 32, 33, 384, 416};
  for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
    const int64_t n = widths[i];
    float *x = random_floats(n), *w = random_floats(n), *b = random_floats(n), *first = floats(n), *y = floats(n);
    for (int with_bias = 0; with_bias < 2; with_bias++) {
      double mean = 0, variance = 0;
      for (int64_t j = 0; j < n; j++) x[j] += 3.0f * (float)(with_bias == 0 && i == 4);
      for (int64_t j = 0; j < n; j++) mean += (double)x[j] / (double)n;
      for (int64_t j = 0; j < n; j++) variance += ((double)x[j] - mean) * ((double)x[j] - mean) / (double)n;
      int seen = 0;
      for (size_t l = 0; l < sizeof names / sizeof names[0]; l++) {
        const arb_dense_kernels *k = arb_dense_pick(names[l]);
        if (k == NULL) continue;
        k->layer_norm(x, n, w, with_bias ? b : NULL, 1e-5f, seen == 0 ? first : y);
        if (seen++ > 0) assert_memory_equal(first, y, (size_t)n * sizeof *y);
      }
      for (int64_t j = 0; j < n; j++) {
        const double want = ((double)x[j] - mean) / sqrt(variance + 1e-5) * (double)w[j] + (with_bias ? (double)b[j] : 0);
        if (!(fabs((double)first[j] - want) <= 2e-5))
          fail_msg("width %lld: %g, expected %g", (long long)n, (double)first[j], want);
      }
      memcpy(y, x, (size_t)n * sizeof *y); /* in place */
      arb_dense_pick("auto")->layer_norm(y, n, w, with_bias ? b : NULL, 1e-5f, y);
      assert_memory_equal(first, y, (size_t)n * sizeof *y);
    }
    free(x), free(w), free(b), free(first), free(y);
  }
}

static void test_softmax_and_gate(void **state) {
  (void)state;
  static const int64_t widths[] = {1, 5, 32, 257, 415};
  for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
    const int64_t n = widths[i];
    float *x = random_floats(n), *v = random_floats(n), *first = floats(n), *y = floats(n), *gated = floats(n);
    double top = -1e9, sum = 0;
    int seen = 0;
    for (int64_t j = 0; j < n; j++) x[j] = 40.0f * x[j] + 500.0f; /* overflows without the maximum */
    for (int64_t j = 0; j < n; j++) top = (double)x[j] > top ? (double)x[j] : top;
    for (int64_t j = 0; j < n; j++) sum += exp((double)x[j] - top);
    for (size_t l = 0; l < sizeof names / sizeof names[0]; l++) {
      const arb_dense_kernels *k = arb_dense_pick(names[l]);
      if (k == NULL) continue;
      memcpy(y, x, (size_t)n * sizeof *y);
      k->softmax(y, n);
      if (seen++ == 0) memcpy(first, y, (size_t)n * sizeof *y);
      assert_memory_equal(first, y, (size_t)n * sizeof *y);
    }
    for (int64_t j = 0; j < n; j++) assert_true(fabs((double)first[j] - exp((double)x[j] - top) / sum) <= 1e-6);
    for (int64_t j = 0; j < n; j++) x[j] = (x[j] - 500.0f) / 8.0f;
    seen = 0;
    for (size_t l = 0; l < sizeof names / sizeof names[0]; l++) {
      const arb_dense_kernels *k = arb_dense_pick(names[l]);
      if (k == NULL) continue;
      k->gate(v, x, n, y);
      if (seen++ == 0) memcpy(gated, y, (size_t)n * sizeof *y);
      assert_memory_equal(gated, y, (size_t)n * sizeof *y);
    }
    for (int64_t j = 0; j < n; j++)
      assert_true(fabs((double)gated[j] - activated(ARB_DENSE_SILU, (double)x[j]) * (double)v[j]) <= 2e-6);
    free(x), free(v), free(first), free(y), free(gated);
  }
}

static void test_pick(void **state) {
  (void)state;
  assert_non_null(arb_dense_pick("scalar"));
  assert_non_null(arb_dense_pick("auto"));
  assert_null(arb_dense_pick("avx"));
  for (size_t l = 0; l < sizeof names / sizeof names[0]; l++)
    if (arb_dense_pick(names[l]) == NULL) printf("NOT TESTED: this machine has no %s\n", names[l]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_products),
      cmocka_unit_test(test_layer_norm),
      cmocka_unit_test(test_softmax_and_gate),
      cmocka_unit_test(test_pick),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
