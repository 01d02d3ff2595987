/* What each slot of the reference computes, against loops written from the arithmetic page: the same bits where the page fixes
 * every rounding, real arithmetic in double with a stated bound elsewhere. */
#include "kernels/backend.h"
#include "kernels/common/math.h"
#include "kernels/common/scale.h"
#include "tests/kernels/samples.h"

static arb_backend *be;

/* Sums in the page's order: 32 lanes from +0, lane j adds j, j + 32, ..., lanes combine by xor 16, 8, 4, 2, 1. */
static float lanes_of(const float *terms, int64_t length) {
  float lane[32] = {0};
  for (int64_t i = 0; i < length; i++) lane[i % 32] = lane[i % 32] + terms[i];
  for (int o = 16; o > 0; o /= 2) {
    float next[32];
    for (int j = 0; j < 32; j++) next[j] = lane[j] + lane[j ^ o];
    memcpy(lane, next, sizeof lane);
  }
  return lane[0];
}

static float inverse_rms(const float *x, int64_t width) {
  float *square = sample_alloc((size_t)width * sizeof *square);
  for (int64_t i = 0; i < width; i++) square[i] = x[i] * x[i];
  const float mean = lanes_of(square, width) / (float)width;
  free(square);
  return 1.0f / sqrtf(mean + 1e-6f);
}

/* (q, s) of a row, by the page. */
static void check_quantised(const float *x, int64_t width, const int8_t *q, float s) {
  float a = 0.0f;
  for (int64_t i = 0; i < width; i++) a = fabsf(x[i]) > a ? fabsf(x[i]) : a;
  if (a < 0x1p-100f) {
    assert_true(s == 0.0f);
    for (int64_t i = 0; i < width; i++) assert_int_equal(q[i], 0);
    return;
  }
  const float inv = 127.0f / a;
  assert_true(s == a / 127.0f);
  int most = 0;
  for (int64_t i = 0; i < width; i++) {
    const float y = rintf(x[i] * inv);
    assert_int_equal(q[i], (int)(y > 127.0f ? 127.0f : y < -127.0f ? -127.0f : y));
    most = abs(q[i]) > most ? abs(q[i]) : most;
  }
  assert_int_equal(most, 127);
}

static arb_rows one_grain(int64_t rows) { return (arb_rows){rows, 1, 0, 1}; }

typedef struct {
  float *a, *b, *c, *s, *inv;
  uint16_t *y, *z;
  int8_t *q, *e;
} rows_buffers;

static rows_buffers get(int64_t m, int64_t width) {
  const size_t count = (size_t)(m * width);
  rows_buffers r = {sample_alloc(count * 4),     sample_alloc(count * 4),     sample_alloc(count * 4),
                    sample_alloc((size_t)m * 4), sample_alloc((size_t)m * 4), sample_alloc(count * 2),
                    sample_alloc(count * 2),     sample_alloc(count),         sample_alloc((size_t)width)};
  for (size_t i = 0; i < count; i++) {
    r.a[i] = sample_normal(1.0 + (double)(i / (size_t)width));
    r.y[i] = sample_to_bf16(sample_normal(1.5));
    r.z[i] = sample_to_bf16(sample_normal(2.0));
  }
  for (int64_t i = 0; i < width; i++) r.e[i] = (int8_t)sample_between(-12, 12);
  return r;
}
static void put(rows_buffers *r) {
  free(r->a);
  free(r->b);
  free(r->c);
  free(r->s);
  free(r->inv);
  free(r->y);
  free(r->z);
  free(r->q);
  free(r->e);
}

static const int64_t widths[] = {1, 2, 31, 32, 33, 63, 64, 65, 100, 297, 512, 1408};
#define WIDTHS (sizeof widths / sizeof *widths)

/* ---- helpers of the product against the page ---- */

static void test_scales(void **state) {
  (void)state;
  for (int e = -128; e <= 127; e++) assert_true(arb_pow2_eighths(e) == sample_gain(e));
  for (int i = 0; i < 200000; i++) {
    const float a = ldexpf(i % 3 ? 1.0f + (float)sample_unit() : 1.0f, (int)sample_between(-98, 125));
    const float edge = i % 5 == 0 ? nextafterf(a, 0.0f) : i % 5 == 1 ? nextafterf(a, INFINITY) : a;
    int c = -120;
    while (ldexp(1.0, c) < (double)edge) c++;
    assert_int_equal(arb_rows_exponent(edge), c);
    /* a row's weight as a fraction, and the rounding: exact, and within the range of int8 */
    const float weight = edge * (i % 7 ? (float)sample_unit() : 1.0f);
    const int32_t ratio = arb_row_ratio(weight, c), q = (int32_t)sample_between(-127, 127);
    assert_true(ratio >= 0 && ratio <= 65536);
    assert_near(ratio, ldexp((double)weight, 16 - c), 0.5);
    const uint32_t draw = i % 3 ? sample_u32() >> 16 : i % 2 ? 0xffffu : 0u;
    const int64_t sum = (int64_t)q * ratio + draw;
    const int64_t floored = sum >= 0 ? sum / 65536 : -((-sum + 65535) / 65536);
    assert_int_equal(arb_rescale(q, ratio, draw), floored);
    assert_true(floored >= -127 && floored <= 127);
  }
  assert_int_equal(arb_rows_exponent(0.0f), ARB_NO_SCALE);
  assert_int_equal(arb_rows_exponent(nextafterf(0x1p-100f, 0.0f)), ARB_NO_SCALE);
  assert_int_equal(arb_rows_exponent(0x1p-100f), -100);
  assert_int_equal(arb_row_ratio(1.0f, ARB_NO_SCALE), 0);
  for (int e = -400; e <= 400; e++) assert_true((double)arb_vote_scale(e) == (e < -126 ? 0.0 : ldexp(1.0, e > 96 ? 96 : e)));
  for (int i = 0; i < 300000; i++) {
    uint32_t bits = sample_u32();
    if (i % 4 == 0) bits = (bits & 0xffff0000u) | 0x8000u; /* a tie */
    if (i % 8 == 1) bits &= 0x807fffffu;                   /* subnormal */
    float x;
    memcpy(&x, &bits, sizeof x);
    if (!isfinite(x) || fabsf(x) > 3.38e38f) continue;
    assert_int_equal(arb_bf16_of_f32(x), sample_to_bf16(x) | (bits >> 31 << 15));
    assert_true((double)arb_f32_of_bf16(arb_bf16_of_f32(x)) == sample_nearest_bf16(x));
  }
  assert_int_equal(arb_bf16_of_f32(3.4e38f), 0x7f80);
  assert_int_equal(arb_bf16_of_f32(-3.4e38f), 0xff80);
  assert_int_equal(arb_bf16_of_f32(NAN), 0x7fc0);
}

/* ---- norms ---- */

static void test_norm(void **state) {
  (void)state;
  for (size_t v = 0; v < WIDTHS; v++) {
    const int64_t w = widths[v], m = 9;
    const arb_rows rows = one_grain(m);
    rows_buffers r = get(m, w);
    float *x = sample_alloc((size_t)w * 4), *n = sample_alloc((size_t)w * 4);
    for (int64_t i = 0; i < w; i++) r.a[i] = r.a[w + i] = ldexpf(r.a[i], -115); /* row 0 without and row 1 with y */
    for (int64_t i = 0; i < w; i++) r.y[i] = 0;
    arb_assert_ok(be->ops.add_norm_quant(be, &rows, w, r.a, r.y, r.b, r.e, r.q, r.s, r.inv));
    for (int64_t row = 0; row < m; row++) {
      double square = 0;
      for (int64_t i = 0; i < w; i++) {
        const int64_t at = row * w + i;
        x[i] = (float)((double)r.a[at] + sample_bf16(r.y[at]));
        assert_true(r.b[at] == x[i]);
        square += (double)x[i] * (double)x[i];
      }
      const float inv = inverse_rms(x, w);
      assert_true(r.inv[row] == inv);
      /* 44 + 5 additions and a product, halved by the root; two more roundings */
      const double exact = 1.0 / sqrt(square / (double)w + 1e-6);
      assert_near((double)inv / exact, 1.0, 30 * 0x1p-24);
      for (int64_t i = 0; i < w; i++) n[i] = (x[i] * inv) * sample_gain(r.e[i]);
      check_quantised(n, w, r.q + row * w, r.s[row]);
      for (int64_t i = 0; i < w; i++) {
        const double want = (double)x[i] * exact * exp2((double)r.e[i] / 8.0);
        assert_near((double)r.q[row * w + i] * (double)r.s[row], want, 0.5001 * (double)r.s[row] + 1e-30);
      }
    }
    assert_true(r.s[0] == 0.0f && r.s[1] > 0.0f);
    /* Without x the stream is y; without an output nothing is kept. */
    arb_assert_ok(be->ops.add_norm_quant(be, &rows, w, NULL, r.y, NULL, r.e, r.q, r.s, r.inv));
    for (int64_t row = 0; row < m; row++) {
      for (int64_t i = 0; i < w; i++) x[i] = (float)sample_bf16(r.y[row * w + i]);
      assert_true(r.inv[row] == inverse_rms(x, w));
      for (int64_t i = 0; i < w; i++) n[i] = (x[i] * r.inv[row]) * sample_gain(r.e[i]);
      check_quantised(n, w, r.q + row * w, r.s[row]);
    }
    free(x);
    free(n);
    put(&r);
  }
}

/* The order of the sum is visible: with terms of very different size another order gives another result. */
/* A window is its features side by side, normalised like any other row; sequences do not see each other's features. */
static void test_windows(void **state) {
  (void)state;
  enum { SEQUENCES = 3, WINDOWS = 5, SPAN = 3, FEATURES = WINDOWS + SPAN - 1 };
  for (size_t v = 0; v < WIDTHS; v++) {
    const int64_t w = widths[v], wide = SPAN * w;
    const arb_rows rows = {WINDOWS * SEQUENCES, 1, 0, 1};
    int8_t *q_in = sample_alloc((size_t)(SEQUENCES * FEATURES * w)), *q = sample_alloc((size_t)(SEQUENCES * WINDOWS * wide));
    int8_t *e = sample_alloc((size_t)wide);
    float s_in[SEQUENCES * FEATURES], s[SEQUENCES * WINDOWS], *x = sample_alloc((size_t)wide * 4);
    for (int64_t i = 0; i < SEQUENCES * FEATURES * w; i++) q_in[i] = (int8_t)sample_between(-127, 127);
    for (int i = 0; i < SEQUENCES * FEATURES; i++) s_in[i] = i == 2 ? 0.0f : (float)sample_unit();
    for (int64_t i = 0; i < wide; i++) e[i] = (int8_t)sample_between(-12, 12);
    arb_assert_ok(be->ops.window_norm_quant(be, &rows, WINDOWS, SPAN, w, q_in, s_in, e, q, s));
    for (int64_t row = 0; row < SEQUENCES * WINDOWS; row++) {
      const int64_t first = row / WINDOWS * FEATURES + row % WINDOWS;
      for (int64_t i = 0; i < wide; i++) x[i] = (float)q_in[(first + i / w) * w + i % w] * s_in[first + i / w];
      const float inv = inverse_rms(x, wide);
      for (int64_t i = 0; i < wide; i++) x[i] = (x[i] * inv) * sample_gain(e[i]);
      check_quantised(x, wide, q + row * wide, s[row]);
    }
    free(q_in);
    free(q);
    free(e);
    free(x);
  }
}

static void test_gather(void **state) {
  (void)state;
  const uint16_t in[4][3] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 12}};
  const int32_t index[5] = {3, -1, 0, 0, 2};
  const uint16_t want[5][3] = {{10, 11, 12}, {0, 0, 0}, {1, 2, 3}, {1, 2, 3}, {7, 8, 9}};
  uint16_t out[5][3];
  memset(out, 0xee, sizeof out);
  arb_assert_ok(be->ops.gather_rows(be, 5, sizeof in[0], in, index, out));
  assert_memory_equal(out, want, sizeof want);
}

static void test_row_order(void **state) {
  (void)state;
  enum { W = 1408, M = 40 };
  const arb_rows rows = one_grain(M);
  rows_buffers r = get(M, W);
  int differs = 0;
  for (int64_t i = 0; i < M * W; i++) r.a[i] = ldexpf(r.a[i], (int)sample_between(-6, 6));
  arb_assert_ok(be->ops.add_norm_quant(be, &rows, W, r.a, NULL, NULL, r.e, r.q, r.s, r.inv));
  for (int64_t row = 0; row < M; row++) {
    float sum = 0.0f;
    for (int64_t i = 0; i < W; i++) sum += r.a[row * W + i] * r.a[row * W + i];
    assert_true(r.inv[row] == inverse_rms(r.a + row * W, W));
    differs += r.inv[row] != 1.0f / sqrtf(sum / (float)W + 1e-6f);
  }
  assert_true(differs > 3);
  put(&r);
}

/* A row whose largest value is exactly 2^-100 is quantised, the next smaller one is not. */
static void test_tiny_rows(void **state) {
  (void)state;
  int8_t q;
  int edges = 0;
  for (int e = -64; e <= 64; e++)
    for (int step = -2; step <= 2; step++) {
      const float root = 1.0f / sqrtf(1e-6f); /* the squares vanish */
      float x = 0x1p-100f / root / sample_gain(e), s, inv;
      for (int i = 0; i < abs(step); i++) x = nextafterf(x, step > 0 ? INFINITY : 0.0f);
      const arb_rows rows = one_grain(1);
      const int8_t gain = (int8_t)e;
      arb_assert_ok(be->ops.add_norm_quant(be, &rows, 1, &x, NULL, NULL, &gain, &q, &s, &inv));
      assert_true(inv == root);
      const float y = (x * inv) * sample_gain(e);
      check_quantised(&y, 1, &q, s);
      edges += y == 0x1p-100f;
    }
  assert_true(edges > 10);
  int8_t e0 = 0;
  arb_stack w = {.uses = 1, .members = 1, .begin = {0, 1}, .n = 1, .k = 1, .e = &e0};
  const float values[] = {0x1p-100f, nextafterf(0x1p-100f, 0.0f), -0x1p-100f};
  for (int i = 0; i < 3; i++) {
    const arb_rows rows = one_grain(1);
    float s;
    arb_assert_ok(be->ops.grad_quant(be, &rows, &values[i], NULL, 1, &w, 0, &q, &s));
    assert_int_equal(q, i == 0 ? 127 : i == 1 ? 0 : -127);
    assert_true(s == (i == 1 ? 0.0f : 0x1p-100f / 127.0f));
  }
}

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

static void test_gates(void **state) {
  (void)state;
  for (size_t v = 0; v < WIDTHS; v++) {
    const int64_t w = widths[v], m = 6, ld = 2 * w;
    const arb_rows rows = one_grain(m);
    rows_buffers r = get(m, ld);
    double *want = sample_alloc((size_t)w * sizeof *want);
    /* norm(h) * sigmoid(zg) */
    arb_assert_ok(be->ops.gate_norm_quant(be, &rows, w, r.a, r.z + w, ld, r.e, r.q, r.s, r.inv));
    for (int64_t row = 0; row < m; row++) {
      double square = 0, most = 0;
      for (int64_t i = 0; i < w; i++) square += (double)r.a[row * w + i] * (double)r.a[row * w + i];
      assert_true(r.inv[row] == inverse_rms(r.a + row * w, w));
      for (int64_t i = 0; i < w; i++) {
        want[i] = (double)r.a[row * w + i] / sqrt(square / (double)w + 1e-6) * exp2((double)r.e[i] / 8.0) *
                  sigmoid(sample_bf16(r.z[row * ld + w + i]));
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
      }
      assert_near((double)r.s[row] * 127.0 / most, 1.0, 40 * 0x1p-24);
      for (int64_t i = 0; i < w; i++)
        assert_near((double)r.q[row * w + i] * (double)r.s[row], want[i], 0.501 * (double)r.s[row]);
    }
    /* norm(silu(u) * v) */
    arb_assert_ok(be->ops.glu_norm_quant(be, &rows, w, r.z, r.z + w, ld, r.e, r.q, r.s, r.inv));
    for (int64_t row = 0; row < m; row++) {
      double square = 0, most = 0;
      for (int64_t i = 0; i < w; i++) {
        const double u = sample_bf16(r.z[row * ld + i]);
        want[i] = u * sigmoid(u) * sample_bf16(r.z[row * ld + w + i]);
        square += want[i] * want[i];
      }
      const double inv = 1.0 / sqrt(square / (double)w + 1e-6);
      assert_near((double)r.inv[row] / inv, 1.0, 40 * 0x1p-24);
      for (int64_t i = 0; i < w; i++) {
        want[i] *= inv * exp2((double)r.e[i] / 8.0);
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
      }
      assert_near((double)r.s[row] * 127.0 / most, 1.0, 40 * 0x1p-24);
      for (int64_t i = 0; i < w; i++)
        assert_near((double)r.q[row * w + i] * (double)r.s[row], want[i], 0.501 * (double)r.s[row]);
    }
    free(want);
    put(&r);
  }
}

/* h[t] = f h[t-1] + (1 - f) c, f = sigmoid(zf + bias), c = silu(zc); a new sequence starts from zero. An average of values of
 * size |c| whose roundings (7 of them a step, of 2^-24) are forgotten at the rate f. */
static void test_recurrence(void **state) {
  (void)state;
  enum { CONTEXT = 19, SEQUENCES = 3 };
  for (int64_t w = 1; w <= 200; w += 33) {
    const int64_t m = CONTEXT * SEQUENCES, ld = 2 * w;
    const arb_rows rows = one_grain(m);
    rows_buffers r = get(m, ld);
    float *bias = sample_alloc((size_t)w * 4);
    for (int64_t i = 0; i < w; i++) bias[i] = 1.0f + (float)i / 50.0f;
    arb_assert_ok(be->ops.mlgru_forward(be, &rows, CONTEXT, w, r.z, r.z + w, ld, bias, r.b));
    for (int64_t i = 0; i < w; i++) {
      double h = 0, most = 0;
      float exact = 0.0f; /* the same with each rounding, on the shared sigmoid */
      for (int64_t t = 0; t < m; t++) {
        if (t % CONTEXT == 0) h = most = 0;
        if (t % CONTEXT == 0) exact = 0.0f;
        const float gate = arb_sigmoidf((float)sample_bf16(r.z[t * ld + i]) + bias[i]),
                    candidate = (float)sample_bf16(r.z[t * ld + w + i]);
        exact = fmaf(gate, exact, (1.0f - gate) * (candidate * arb_sigmoidf(candidate)));
        assert_true(r.b[t * w + i] == exact);
        const double f = sigmoid(sample_bf16(r.z[t * ld + i]) + (double)bias[i]), z = sample_bf16(r.z[t * ld + w + i]);
        const double c = z * sigmoid(z);
        h = f * h + (1.0 - f) * c;
        most = fabs(c) > most ? fabs(c) : most;
        assert_near(r.b[t * w + i], h, 20 * 0x1p-24 * CONTEXT * most + 1e-30);
      }
    }
    free(bias);
    put(&r);
  }
}

/* ---- softmax ---- */

static arb_stack logits_stack(int64_t n, int8_t *e) {
  return (arb_stack){.id = 5, .uses = 1, .members = 1, .begin = {0, n}, .n = n, .k = 1, .e = e};
}

static void test_softmax(void **state) {
  (void)state;
  static const float weights[] = {1.0f, 0x1p-12f};
  for (size_t v = 1; v < WIDTHS; v++) {
    const int64_t n = widths[v], m = 7;
    int8_t *e = sample_alloc((size_t)n), *apart = sample_alloc((size_t)(m * n)), *together = sample_alloc((size_t)(m * n));
    for (int64_t i = 0; i < n; i++) e[i] = (int8_t)sample_between(-9, 9);
    const arb_stack w = logits_stack(n, e);
    for (int round = 0; round < 4; round++) {
      const arb_rows rows = one_grain(m);
      rows_buffers r = get(m, n);
      int32_t targets[7];
      float scales[7], again_scales[7];
      const float weight = weights[round % 2];
      for (int64_t i = 0; i < m * n; i++) r.z[i] = sample_to_bf16(sample_normal(round < 2 ? 1.0 : 4.0) + (float)(i / n) * 3.0f);
      for (int64_t row = 0; row < m; row++) {
        targets[row] = row == 3 ? -1 : (int32_t)sample_below(n);
        int64_t loss = 1000, count = 50;
        const arb_rows one = one_grain(1);
        int8_t *q = apart + row * n;
        arb_assert_ok(be->ops.xent(be, &one, r.z + row * n, targets + row, weight, &w, q, scales + row, &loss, &count));
        if (targets[row] < 0) {
          assert_int_equal(loss, 1000);
          assert_int_equal(count, 50);
          assert_true(scales[row] == 0.0f);
          for (int64_t i = 0; i < n; i++) assert_int_equal(q[i], 0);
          continue;
        }
        double most = -1e30, sum = 0, largest = 0;
        for (int64_t i = 0; i < n; i++) most = fmax(most, sample_bf16(r.z[row * n + i]));
        for (int64_t i = 0; i < n; i++) sum += exp(sample_bf16(r.z[row * n + i]) - most);
        const double want = log(sum) - (sample_bf16(r.z[row * n + targets[row]]) - most);
        assert_near((double)(loss - 1000) / 1048576.0, want, 0x1p-18);
        assert_int_equal(count, 51);
        const double s = (double)scales[row];
        for (int64_t i = 0; i < n; i++) {
          const double p = exp(sample_bf16(r.z[row * n + i]) - most) / sum - (i == targets[row]);
          const double h = p * (double)weight * exp2(e[i] / 8.0);
          largest = fmax(largest, fabs(h));
          assert_near((double)q[i] * s, h, s * 1.001 + 60 * 0x1p-24 * (double)weight * exp2(e[i] / 8.0));
        }
        assert_near(s * 127.0, largest, largest * 1e-5 + 60 * 0x1p-24 * (double)weight * 2.2);
      }
      /* All rows at once: the sum of the rows' losses, exactly; the same scales; and no gradient when none is asked for. */
      int64_t each = 0, loss = 0, count = 0, again = 0, ignored = 0;
      const arb_rows one = one_grain(1);
      for (int64_t row = 0; row < m; row++)
        arb_assert_ok(be->ops.xent(be, &one, r.z + row * n, targets + row, weight, &w, NULL, NULL, &each, &ignored));
      arb_assert_ok(be->ops.xent(be, &rows, r.z, targets, weight, &w, together, again_scales, &loss, &count));
      arb_assert_ok(be->ops.xent(be, &rows, r.z, targets, weight, &w, NULL, NULL, &again, &ignored));
      assert_int_equal(loss, each);
      assert_int_equal(loss, again);
      assert_int_equal(count, m - 1);
      assert_memory_equal(scales, again_scales, sizeof scales);
      for (int64_t i = 0; i < m * n; i++) assert_true(abs(apart[i] - together[i]) <= 1); /* other draws */
      assert_memory_equal(apart, together, (size_t)n);                                   /* the first row has the same */
      put(&r);
    }
    free(e);
    free(apart);
    free(together);
  }
  /* exp is cut to exactly zero below -87: the largest gradient is the second's, half of it the target's rounding. */
  const uint16_t logits[3] = {sample_to_bf16(100.0f), sample_to_bf16(13.5f), sample_to_bf16(12.5f)};
  const int32_t target = 0;
  int64_t loss = 0, count = 0;
  int8_t e[3] = {0, 0, 0}, q[3];
  float s;
  const arb_rows one = one_grain(1);
  const arb_stack w = logits_stack(3, e);
  arb_assert_ok(be->ops.xent(be, &one, logits, &target, 1.0f, &w, q, &s, &loss, &count));
  assert_true(q[0] == 0 && q[1] == 0 && q[2] == 0 && s == 0.0f); /* exp(-86.5) is under 2^-100 */
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
      cmocka_unit_test(test_scales),    cmocka_unit_test(test_norm),    cmocka_unit_test(test_row_order),
      cmocka_unit_test(test_tiny_rows), cmocka_unit_test(test_gates),   cmocka_unit_test(test_recurrence),
      cmocka_unit_test(test_softmax),   cmocka_unit_test(test_windows), cmocka_unit_test(test_gather),
  };
  return cmocka_run_group_tests(tests, open_backend, close_backend);
}
