/* What each slot of the reference computes, against loops written from the arithmetic page: the same bits where the page fixes
 * every rounding, real arithmetic in double with a stated bound elsewhere. */
#include "kernels/backend.h"
#include "kernels/common/math.h"
#include "kernels/common/scale.h"
#include "tests/kernels/samples.h"

enum { DX = 2, DW = 3, VOTE = 4 }; /* purposes of draws */

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
    const float a = ldexpf(i % 3 ? 1.0f + (float)sample_unit() : 127.0f / 64.0f, (int)sample_between(-99, 125));
    const float edge = i % 5 == 0 ? nextafterf(a, 0.0f) : i % 5 == 1 ? nextafterf(a, INFINITY) : a;
    int c = -120;
    while (ldexp(127.0, c) < (double)edge) c++;
    assert_int_equal(arb_dw_exponent(edge), c);
  }
  assert_int_equal(arb_dw_exponent(0.0f), ARB_NO_SCALE);
  assert_int_equal(arb_dw_exponent(nextafterf(0x1p-100f, 0.0f)), ARB_NO_SCALE);
  assert_int_equal(arb_dw_exponent(0x1p-100f), -106);
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
      for (int64_t t = 0; t < m; t++) {
        if (t % CONTEXT == 0) h = most = 0;
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

static void test_softmax(void **state) {
  (void)state;
  static const float weights[] = {1.0f, 0x1p-12f};
  for (size_t v = 1; v < WIDTHS; v++) {
    const int64_t n = widths[v], m = 7;
    for (int round = 0; round < 4; round++) {
      const arb_rows rows = one_grain(m);
      rows_buffers r = get(m, n);
      int32_t targets[7];
      const float weight = weights[round % 2];
      for (int64_t i = 0; i < m * n; i++) r.z[i] = sample_to_bf16(sample_normal(round < 2 ? 1.0 : 4.0) + (float)(i / n) * 3.0f);
      for (int64_t row = 0; row < m; row++) {
        targets[row] = row == 3 ? -1 : (int32_t)sample_below(n);
        int64_t loss = 1000, count = 50;
        const arb_rows one = one_grain(1);
        arb_assert_ok(be->ops.xent(be, &one, n, r.z + row * n, targets + row, weight, r.a + row * n, &loss, &count));
        if (targets[row] < 0) {
          assert_int_equal(loss, 1000);
          assert_int_equal(count, 50);
          for (int64_t i = 0; i < n; i++) assert_true(r.a[row * n + i] == 0.0f);
          continue;
        }
        double most = -1e30, sum = 0, total = 0;
        for (int64_t i = 0; i < n; i++) most = fmax(most, sample_bf16(r.z[row * n + i]));
        for (int64_t i = 0; i < n; i++) sum += exp(sample_bf16(r.z[row * n + i]) - most);
        const double want = log(sum) - (sample_bf16(r.z[row * n + targets[row]]) - most);
        assert_near((double)(loss - 1000) / 1048576.0, want, 0x1p-18);
        assert_int_equal(count, 51);
        for (int64_t i = 0; i < n; i++) {
          const double p = exp(sample_bf16(r.z[row * n + i]) - most) / sum - (i == targets[row]);
          assert_near((double)r.a[row * n + i] / (double)weight, p, 60 * 0x1p-24);
          total += (double)r.a[row * n + i];
        }
        assert_near(total / (double)weight, 0.0, 60 * 0x1p-24);
      }
      /* All rows at once: the sum of the rows' losses, exactly; the same gradients; and none asked for. */
      int64_t each = 0, loss = 0, count = 0, again = 0, ignored = 0;
      const arb_rows one = one_grain(1);
      for (int64_t row = 0; row < m; row++)
        arb_assert_ok(be->ops.xent(be, &one, n, r.z + row * n, targets + row, weight, NULL, &each, &ignored));
      arb_assert_ok(be->ops.xent(be, &rows, n, r.z, targets, weight, r.b, &loss, &count));
      arb_assert_ok(be->ops.xent(be, &rows, n, r.z, targets, weight, NULL, &again, &ignored));
      assert_int_equal(loss, each);
      assert_int_equal(loss, again);
      assert_int_equal(count, m - 1);
      assert_memory_equal(r.a, r.b, (size_t)(m * n) * 4);
      put(&r);
    }
  }
  /* exp is cut to exactly zero below -87. */
  const uint16_t logits[3] = {sample_to_bf16(100.0f), sample_to_bf16(13.5f), sample_to_bf16(12.5f)};
  const int32_t target = 0;
  int64_t loss = 0, count = 0;
  float g[3];
  const arb_rows one = one_grain(1);
  arb_assert_ok(be->ops.xent(be, &one, 3, logits, &target, 1.0f, g, &loss, &count));
  assert_true(g[0] == 0.0f && g[1] > 0.0f && g[2] == 0.0f);
}

/* ---- products ---- */

typedef struct {
  int64_t m, n, k;
  arb_rows rows;
  arb_stack w;
  int8_t *q, *tq;
  float *s, *g;
} product;

static product make(int32_t grains, int64_t rows, int64_t n, int64_t k, int members) {
  product p = {.m = grains * rows, .n = n, .k = k, .rows = {rows, grains, 3, 2}};
  arb_stack *w = &p.w;
  w->id = sample_u32();
  w->uses = 2;
  w->members = members;
  w->n = n;
  w->k = k;
  for (int i = 0; i <= members; i++) w->begin[i] = n * i / members;
  w->code = sample_alloc((size_t)(n * k));
  w->e = sample_alloc((size_t)n);
  w->p = sample_alloc((size_t)n);
  w->votes = sample_alloc((size_t)(n * k));
  p.q = sample_alloc((size_t)(p.m * k));
  p.tq = sample_alloc((size_t)(p.m * n));
  p.s = sample_alloc((size_t)p.m * 4);
  p.g = sample_alloc((size_t)(p.m * n) * 4);
  for (int64_t i = 0; i < n * k; i++) w->code[i] = (uint8_t)sample_below(255);
  for (int64_t i = 0; i < n; i++) w->e[i] = (int8_t)sample_between(-30, 5);
  for (int64_t i = 0; i < n; i++) w->p[i] = (int8_t)sample_between(4, 9);
  for (int64_t i = 0; i < p.m * k; i++) p.q[i] = (int8_t)sample_between(-127, 127);
  for (int64_t i = 0; i < p.m * n; i++) p.tq[i] = (int8_t)sample_between(-127, 127);
  for (int64_t i = 0; i < p.m; i++) p.s[i] = ldexpf(1.0f + (float)sample_unit(), -7);
  for (int64_t i = 0; i < p.m * n; i++) p.g[i] = sample_normal(0.01);
  return p;
}
static void unmake(product *p) {
  free(p->w.code);
  free(p->w.e);
  free(p->w.p);
  free(p->w.votes);
  free(p->q);
  free(p->tq);
  free(p->s);
  free(p->g);
}

static void test_linear(void **state) {
  (void)state;
  product p = make(2, 5, 41, 133, 2);
  uint16_t *y = sample_alloc((size_t)(p.m * p.n) * 2);
  float *dx = sample_alloc((size_t)(p.m * p.k) * 4);
  arb_assert_ok(be->ops.linear_forward(be, &p.rows, p.q, p.s, &p.w, y));
  arb_assert_ok(be->ops.linear_dx(be, &p.rows, p.tq, p.s, &p.w, dx));
  for (int64_t i = 0; i < p.m; i++) {
    for (int64_t j = 0; j < p.n; j++) {
      int64_t acc = 0;
      for (int64_t l = 0; l < p.k; l++) acc += p.q[i * p.k + l] * sample_trit(p.w.code[j * p.k + l]);
      assert_int_equal(y[i * p.n + j], sample_to_bf16(((float)acc * p.s[i]) * sample_gain(p.w.e[j])));
      const double real = (double)acc * (double)p.s[i] * exp2((double)p.w.e[j] / 8.0);
      assert_near(sample_bf16(y[i * p.n + j]), real, fabs(real) * 0x1.01p-9);
    }
    for (int64_t l = 0; l < p.k; l++) {
      int64_t acc = 0;
      for (int64_t j = 0; j < p.n; j++) acc += p.tq[i * p.n + j] * sample_trit(p.w.code[j * p.k + l]);
      assert_true(dx[i * p.k + l] == (float)acc * p.s[i]);
    }
  }
  free(y);
  free(dx);
  unmake(&p);
}

/* The element whose draw rounds column j of a stack's gradient row. */
static int64_t element_of(const product *p, int64_t row, int use, int64_t j) {
  return ((row % p->rows.rows_per_grain) * p->w.uses + use) * sample_pad8(p->n) + j;
}
static uint32_t grain_of(const product *p, int64_t row) {
  return (uint32_t)(p->rows.first + row / p->rows.rows_per_grain * p->rows.stride);
}

static void test_gradient_quant(void **state) {
  (void)state;
  enum { N = 37, ROWS = 6, GRAINS = 2, STEPS = 900 };
  product p = make(GRAINS, ROWS, N, 10, 3);
  int8_t hq[GRAINS * ROWS * N], tq[GRAINS * ROWS * N];
  float sh[GRAINS * ROWS];
  uint32_t tmax[GRAINS * 3];
  int32_t cexp[GRAINS * 3];
  static double h_sum[GRAINS * ROWS * N], t_sum[GRAINS * ROWS * N];
  memset(h_sum, 0, sizeof h_sum);
  memset(t_sum, 0, sizeof t_sum);
  for (int64_t j = 0; j < N; j++) p.g[2 * N + j] = ldexpf(p.g[2 * N + j], -120); /* one tiny row */
  for (int64_t i = ROWS; i < 2 * ROWS; i++)                                      /* a member without gradient in a grain */
    for (int64_t j = p.w.begin[1]; j < p.w.begin[2]; j++) p.g[i * N + j] = 0.0f;
  for (uint32_t step = 1; step <= STEPS; step++) {
    const uint64_t seed = 5;
    const int use = (int)(step % 2);
    arb_assert_ok(be->ops.begin_step(be, seed, step, 0.0f));
    arb_assert_ok(be->ops.grad_quant(be, &p.rows, p.g, N, &p.w, use, p.s, hq, sh, tmax));
    arb_assert_ok(be->ops.dw_quant(be, &p.rows, p.g, N, &p.w, use, p.s, tmax, cexp, tq));
    for (int64_t i = 0; i < p.m; i++) {
      float h[N], a = 0.0f;
      for (int64_t j = 0; j < N; j++) {
        h[j] = p.g[i * N + j] * sample_gain(p.w.e[j]);
        a = fabsf(h[j]) > a ? fabsf(h[j]) : a;
      }
      assert_true(sh[i] == (a < 0x1p-100f ? 0.0f : a / 127.0f));
      for (int64_t j = 0; j < N; j++) {
        const int64_t element = element_of(&p, i, use, j);
        int member = 0;
        while (j >= p.w.begin[member + 1]) member++;
        const int c = cexp[i / ROWS * 3 + member];
        /* dx: the row's own scale over the whole stack */
        float x = h[j] * (127.0f / a);
        x = x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x;
        const uint16_t r = sample_draw(seed, DX, p.w.id, step, grain_of(&p, i), element);
        assert_int_equal(hq[i * N + j], a < 0x1p-100f ? 0 : sample_round(x, r));
        h_sum[i * N + j] += (double)hq[i * N + j] * (double)sh[i];
        /* dW: the member's power of two */
        const float t = c == ARB_NO_SCALE ? 0.0f : (h[j] * p.s[i]) * ldexpf(1.0f, -c);
        assert_true(fabsf(t) <= 127.0f);
        assert_int_equal(tq[i * N + j], sample_round(t, sample_draw(seed, DW, p.w.id, step, grain_of(&p, i), element)));
        t_sum[i * N + j] += c == ARB_NO_SCALE ? 0.0 : ldexp(tq[i * N + j], c);
      }
    }
    for (int64_t grain = 0; grain < GRAINS; grain++)
      for (int member = 0; member < 3; member++) {
        float a = 0.0f;
        for (int64_t i = grain * ROWS; i < (grain + 1) * ROWS; i++)
          for (int64_t j = p.w.begin[member]; j < p.w.begin[member + 1]; j++) {
            const float t = fabsf((p.g[i * N + j] * sample_gain(p.w.e[j])) * p.s[i]);
            a = t > a ? t : a;
          }
        float got;
        memcpy(&got, &tmax[grain * 3 + member], sizeof got);
        assert_true(got == a);
        const int c = cexp[grain * 3 + member];
        if (a == 0.0f)
          assert_int_equal(c, ARB_NO_SCALE);
        else
          assert_true((double)a <= ldexp(127.0, c) && (double)a > ldexp(127.0, c - 1));
      }
  }
  /* Unbiased: the mean of STEPS roundings, each with a standard deviation of at most half a unit, within five of its own. */
  for (int64_t i = 0; i < p.m; i++)
    for (int64_t j = 0; j < N; j++) {
      int member = 0;
      while (j >= p.w.begin[member + 1]) member++;
      const double h = (double)(p.g[i * N + j] * sample_gain(p.w.e[j])), bound = 5.0 * 0.5 / sqrt(STEPS);
      if (sh[i] > 0.0f) assert_near(h_sum[i * N + j] / STEPS, h, bound * (double)sh[i]);
      const int c = cexp[i / ROWS * 3 + member];
      if (c != ARB_NO_SCALE) assert_near(t_sum[i * N + j] / STEPS, h * (double)p.s[i], bound * ldexp(1.0, c));
    }
  /* Maxima alone: no scales, no rows. */
  arb_assert_ok(be->ops.grad_quant(be, &p.rows, p.g, N, &p.w, 0, NULL, NULL, NULL, tmax));
  for (int64_t grain = 0; grain < GRAINS; grain++)
    for (int member = 0; member < 3; member++) {
      float a = 0.0f, got;
      for (int64_t i = grain * ROWS; i < (grain + 1) * ROWS; i++)
        for (int64_t j = p.w.begin[member]; j < p.w.begin[member + 1]; j++)
          a = fmaxf(a, fabsf(p.g[i * N + j] * sample_gain(p.w.e[j])));
      memcpy(&got, &tmax[grain * 3 + member], sizeof got);
      assert_true(got == a);
    }
  unmake(&p);
}

/* v = SR(clamp(x, -V, V)) with the draw of weight n pad8(K) + k in this grain. */
static int64_t vote_of(const product *p, float x, int vmax, uint64_t seed, uint32_t step, uint32_t grain, int64_t n,
                       int64_t k) {
  const float limit = (float)vmax, y = x > limit ? limit : x < -limit ? -limit : x;
  return sample_round(y, sample_draw(seed, VOTE, p->w.id, step, grain, n * sample_pad8(p->k) + k));
}

static void test_votes(void **state) {
  (void)state;
  enum { N = 12, K = 21, ROWS = 9, GRAINS = 2, STEPS = 1500, VMAX = 15 };
  product p = make(GRAINS, ROWS, N, K, 2);
  int32_t cexp[GRAINS * 2] = {-8, -9, -10, ARB_NO_SCALE};
  static double sum[N * K];
  memset(sum, 0, sizeof sum);
  for (int64_t n = 0; n < N; n++) p.w.p[n] = (int8_t)sample_between(0, 3);
  p.w.p[2] = 127;  /* its votes vanish */
  p.w.p[3] = -120; /* and its own are all at the end of the range */
  double expected[N * K] = {0};
  for (uint32_t step = 1; step <= STEPS; step++) {
    arb_assert_ok(be->ops.begin_step(be, 9, step, 0.0f));
    memset(p.w.votes, 0, N * K);
    arb_assert_ok(be->ops.linear_dw_vote(be, &p.rows, p.tq, p.q, cexp, VMAX, &p.w));
    for (int64_t n = 0; n < N; n++)
      for (int64_t k = 0; k < K; k++) {
        int64_t votes = 0;
        double mean = 0;
        for (int64_t grain = 0; grain < GRAINS; grain++) {
          int64_t d = 0;
          for (int64_t i = grain * ROWS; i < (grain + 1) * ROWS; i++) d += p.tq[i * N + n] * p.q[i * K + k];
          const int c = cexp[grain * 2 + (n >= p.w.begin[1])];
          if (c == ARB_NO_SCALE) continue;
          const int power = c - p.w.p[n];
          const float x = power < -126 ? 0.0f : (float)d * ldexpf(1.0f, power > 96 ? 96 : power);
          votes += vote_of(&p, x, VMAX, 9, step, (uint32_t)(3 + 2 * grain), n, k);
          mean += sample_clamp((double)d * ldexp(1.0, power), VMAX);
        }
        assert_int_equal(p.w.votes[n * K + k], votes);
        sum[n * K + k] += (double)votes;
        expected[n * K + k] = mean;
      }
  }
  int inside = 0;
  for (int64_t i = 0; i < N * K; i++) {
    assert_near(sum[i] / STEPS, expected[i], 5.0 * 0.5 * sqrt(GRAINS) / sqrt(STEPS));
    inside += fabs(expected[i]) < 2 * VMAX && expected[i] != 0.0;
    if (i / K == 2) assert_true(fabs(sum[i]) < 1.0);
  }
  assert_true(inside > N * K / 3);
  unmake(&p);
}

/* Uses with their own exponents, joined in 128 bits here. */
static void test_join(void **state) {
  (void)state;
  enum { N = 8, K = 13, GRAINS = 2, VMAX = 31, USES = 3 };
  product p = make(GRAINS, 4, N, K, 2);
  p.w.uses = USES;
  static int32_t d[USES * GRAINS * N * K];
  int32_t cexp[USES * GRAINS * 2];
  int moved = 0, saturated = 0, joined = 0;
  for (uint32_t step = 1; step <= 1500; step++) {
    for (int i = 0; i < USES * GRAINS * N * K; i++) d[i] = (int32_t)sample_between(-2114060288, 2114060288) >> sample_below(30);
    for (int i = 0; i < USES * GRAINS * 2; i++)
      cexp[i] =
          sample_below(4) == 0 ? ARB_NO_SCALE : (int32_t)(sample_below(4) ? sample_between(-12, -4) : sample_between(-70, 10));
    for (int64_t n = 0; n < N; n++) p.w.p[n] = (int8_t)(sample_below(9) ? sample_between(0, 20) : sample_between(-120, 120));
    arb_assert_ok(be->ops.begin_step(be, 21, step, 0.0f));
    memset(p.w.votes, 0, N * K);
    arb_assert_ok(be->ops.vote_join(be, &p.rows, d, cexp, VMAX, &p.w));
    for (int64_t n = 0; n < N; n++)
      for (int64_t k = 0; k < K; k++) {
        int64_t votes = 0;
        for (int64_t grain = 0; grain < GRAINS; grain++) {
          int cmax = INT32_MIN, uses = 0;
          double real = 0;
          for (int use = 0; use < USES; use++) {
            const int c = cexp[(use * GRAINS + grain) * 2 + (n >= p.w.begin[1])];
            if (c != ARB_NO_SCALE && c > cmax) cmax = c;
          }
          if (cmax == INT32_MIN) continue;
          wide_signed total = 0;
          for (int use = 0; use < USES; use++) {
            const int c = cexp[(use * GRAINS + grain) * 2 + (n >= p.w.begin[1])], shift = cmax - c;
            if (c == ARB_NO_SCALE || shift > 55) continue;
            const int64_t term = d[((use * GRAINS + grain) * N + n) * K + k];
            const wide_signed scaled = (wide_signed)term * 16777216, unit = (wide_signed)1 << shift;
            wide_signed floored = scaled / unit;
            if (scaled % unit < 0) floored--;
            total += floored;
            real += ldexp((double)term, c);
            uses++;
          }
          const int power = cmax - 24 - p.w.p[n];
          const float x = power < -126 ? 0.0f : (float)(int64_t)total * ldexpf(1.0f, power > 96 ? 96 : power);
          votes += vote_of(&p, x, VMAX, 21, step, (uint32_t)(3 + 2 * grain), n, k);
          /* The joined value is the sum of the uses, each cut at 2^-24 of the largest unit. */
          if (power >= -100 && power <= 60)
            assert_near(x, ldexp(real, -p.w.p[n]), ldexp(USES, power) + fabs((double)x) * 0x1p-23);
          joined += uses > 1 && fabsf(x) > 0.1f && fabsf(x) < VMAX;
          saturated += fabsf(x) > VMAX;
        }
        assert_int_equal(p.w.votes[n * K + k], votes);
        moved += votes != 0;
      }
  }
  assert_true(moved > 10000 && saturated > 10000 && joined > 10000);
  unmake(&p);
}

/* ---- byte n-grams ---- */

static void test_embedding(void **state) {
  (void)state;
  enum { N = 16, K = 29, CONTEXT = 5, SEQUENCES = 2, GRAINS = 2, SLOTS = 3, PAD = 28, M = CONTEXT * SEQUENCES * GRAINS };
  product p = make(GRAINS, CONTEXT * SEQUENCES, N, K, 1);
  int32_t ids[M];
  static uint16_t out[M * SLOTS * N];
  static int32_t d[GRAINS * N * K], want[GRAINS * N * K];
  for (int i = 0; i < M; i++) ids[i] = (int32_t)sample_below(K);
  arb_assert_ok(be->ops.embed_forward(be, &p.rows, CONTEXT, ids, SLOTS, PAD, &p.w, out));
  for (int slot = 0; slot < SLOTS; slot++) {
    memset(want, 0, sizeof want);
    for (int64_t row = 0; row < M; row++) {
      const int64_t t = row % CONTEXT, from = t - (SLOTS - 1 - slot);
      const int id = from < 0 ? PAD : ids[row - t + from];
      for (int64_t c = 0; c < N; c++) {
        assert_int_equal(out[(row * SLOTS + slot) * N + c],
                         sample_to_bf16((float)sample_trit(p.w.code[c * K + id]) * sample_gain(p.w.e[c])));
        want[(row / (CONTEXT * SEQUENCES) * N + c) * K + id] += p.tq[row * N + c];
      }
    }
    memset(d, 1, sizeof d);
    arb_assert_ok(be->ops.embed_dw(be, &p.rows, CONTEXT, ids, SLOTS, slot, PAD, p.tq, &p.w, d));
    assert_memory_equal(d, want, sizeof want);
  }
  p.w.n = 12;
  arb_assert_fails(be->ops.embed_dw(be, &p.rows, CONTEXT, ids, SLOTS, 0, PAD, p.tq, &p.w, d), ARB_ERR_ARG, "multiple of 8");
  p.w.n = N;
  unmake(&p);
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
      cmocka_unit_test(test_scales), cmocka_unit_test(test_norm),           cmocka_unit_test(test_row_order),
      cmocka_unit_test(test_gates),  cmocka_unit_test(test_recurrence),     cmocka_unit_test(test_softmax),
      cmocka_unit_test(test_linear), cmocka_unit_test(test_gradient_quant), cmocka_unit_test(test_votes),
      cmocka_unit_test(test_join),   cmocka_unit_test(test_embedding),
  };
  return cmocka_run_group_tests(tests, open_backend, close_backend);
}
