/* Products, gradient rounding, votes and the byte embedding of the reference, against loops written from the arithmetic page
 * with the random numbers of an own generator. */
#include "kernels/backend.h"
#include "kernels/common/scale.h"
#include "tests/kernels/samples.h"

enum { DX = 2, DW = 3, VOTE = 4 }; /* purposes of draws */

static arb_backend *be;

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
  uint16_t *y = sample_alloc((size_t)(p.m * p.n) * 2), *dx = sample_alloc((size_t)(p.m * p.k) * 2);
  arb_assert_ok(be->ops.linear_forward(be, &p.rows, p.q, p.s, &p.w, y));
  arb_assert_ok(be->ops.linear_dx(be, &p.rows, p.tq, p.s, &p.w, dx));
  for (int64_t i = 0; i < p.m; i++) {
    for (int64_t j = 0; j < p.n; j++) {
      int64_t acc = 0;
      for (int64_t l = 0; l < p.k; l++) acc += p.q[i * p.k + l] * sample_trit(p.w.code[j * p.k + l]);
      assert_int_equal(y[i * p.n + j], sample_to_bf16(((float)acc * p.s[i]) * sample_gain(p.w.e[j])));
      const double real = (double)acc * (double)p.s[i] * exp2((double)p.w.e[j] / 8.0);
      assert_near(sample_bf16(y[i * p.n + j]), real, fabs(real) * 0x1.01p-8);
    }
    for (int64_t l = 0; l < p.k; l++) {
      int64_t acc = 0;
      for (int64_t j = 0; j < p.n; j++) acc += p.tq[i * p.n + j] * sample_trit(p.w.code[j * p.k + l]);
      assert_int_equal(dx[i * p.k + l], sample_to_bf16((float)acc * p.s[i]));
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

/* SR to 2^-15: the nearest 32768th of x, then up with the probability of its fraction. */
static int64_t round_gradient(float x, uint16_t r) {
  const int64_t n = 2 * llrint(ldexp((double)x, 15)) + r;
  return n >= 0 ? n / 65536 : -((-n + 65535) / 65536);
}

static void test_gradient_quant(void **state) {
  (void)state;
  enum { N = 37, ROWS = 6, GRAINS = 2, STEPS = 900 };
  product p = make(GRAINS, ROWS, N, 10, 3);
  int8_t hq[GRAINS * ROWS * N], from_bf16[GRAINS * ROWS * N];
  float sh[GRAINS * ROWS], scales[GRAINS * ROWS], rounded[GRAINS * ROWS * N];
  uint16_t narrow[GRAINS * ROWS * N];
  static double h_sum[GRAINS * ROWS * N];
  memset(h_sum, 0, sizeof h_sum);
  for (int64_t j = 0; j < N; j++) p.g[2 * N + j] = ldexpf(p.g[2 * N + j], -120); /* one tiny row */
  for (uint32_t step = 1; step <= STEPS; step++) {
    const uint64_t seed = 5;
    const int use = (int)(step % 2);
    arb_assert_ok(be->ops.begin_step(be, seed, step, 0.0f));
    arb_assert_ok(be->ops.grad_quant(be, &p.rows, p.g, NULL, N, &p.w, use, hq, sh));
    for (int64_t i = 0; i < p.m; i++) {
      float h[N], a = 0.0f;
      for (int64_t j = 0; j < N; j++) {
        h[j] = p.g[i * N + j] * sample_gain(p.w.e[j]);
        a = fabsf(h[j]) > a ? fabsf(h[j]) : a;
      }
      assert_true(sh[i] == (a < 0x1p-100f ? 0.0f : a / 127.0f));
      for (int64_t j = 0; j < N; j++) {
        float x = h[j] * (127.0f / a);
        x = x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x;
        const uint16_t r = sample_draw(seed, DX, p.w.id, step, grain_of(&p, i), element_of(&p, i, use, j));
        assert_int_equal(hq[i * N + j], a < 0x1p-100f ? 0 : round_gradient(x, r));
        h_sum[i * N + j] += (double)hq[i * N + j] * (double)sh[i];
      }
    }
    /* bf16 rows are their values */
    for (int64_t i = 0; i < p.m * N; i++) rounded[i] = (float)sample_bf16(narrow[i] = sample_to_bf16(p.g[i]));
    arb_assert_ok(be->ops.grad_quant(be, &p.rows, NULL, narrow, N, &p.w, use, from_bf16, scales));
    arb_assert_ok(be->ops.grad_quant(be, &p.rows, rounded, NULL, N, &p.w, use, hq, sh));
    assert_memory_equal(from_bf16, hq, sizeof hq);
    assert_memory_equal(scales, sh, sizeof sh);
    arb_assert_ok(be->ops.grad_quant(be, &p.rows, p.g, NULL, N, &p.w, use, hq, sh));
  }
  /* Unbiased: the mean of STEPS roundings, each with a standard deviation of at most half a unit, within five of its own. */
  for (int64_t i = 0; i < p.m; i++)
    for (int64_t j = 0; j < N; j++) {
      const double h = (double)(p.g[i * N + j] * sample_gain(p.w.e[j])), bound = 5.0 * 0.5 / sqrt(STEPS);
      if (sh[i] > 0.0f) assert_near(h_sum[i * N + j] / STEPS, h, bound * (double)sh[i]);
    }
  unmake(&p);
}

/* A gradient's rows at one scale: returns c of a grain and fills tq with its rows. */
static int rescaled(const product *p, const float *sh, const float *s, int use, uint64_t seed, uint32_t step, int64_t grain,
                    int64_t *tq) {
  const int64_t rows = p->rows.rows_per_grain;
  float most = 0.0f;
  for (int64_t i = grain * rows; i < (grain + 1) * rows; i++) most = fmaxf(most, s ? sh[i] * s[i] : sh[i]);
  if (most < 0x1p-100f) return ARB_NO_SCALE;
  int c = -120;
  while (ldexp(1.0, c) < (double)most) c++;
  for (int64_t i = grain * rows; i < (grain + 1) * rows; i++) {
    const int64_t ratio = llrint(ldexp((double)(s ? sh[i] * s[i] : sh[i]), 16 - c));
    for (int64_t j = 0; j < p->n; j++) {
      const int64_t sum =
          p->tq[i * p->n + j] * ratio + sample_draw(seed, DW, p->w.id, step, grain_of(p, i), element_of(p, i, use, j));
      tq[(i - grain * rows) * p->n + j] = sum >= 0 ? sum / 65536 : -((-sum + 65535) / 65536);
    }
  }
  return c;
}

/* v = SR(clamp(x, -V, V)) with the draw of weight n pad8(K) + k in this grain. */
static int64_t vote_of(const product *p, float x, int vmax, uint64_t seed, uint32_t step, uint32_t grain, int64_t n,
                       int64_t k) {
  const float limit = (float)vmax, y = x > limit ? limit : x < -limit ? -limit : x;
  return sample_round(y, sample_draw(seed, VOTE, p->w.id, step, grain, n * sample_pad8(p->k) + k));
}

static void test_votes(void **state) {
  (void)state;
  enum { N = 12, K = 21, ROWS = 9, GRAINS = 3, STEPS = 1500, VMAX = 15 };
  product p = make(GRAINS, ROWS, N, K, 2);
  float sh[GRAINS * ROWS];
  static double sum[N * K];
  static int64_t tq[ROWS * N];
  p.w.uses = 1;
  memset(sum, 0, sizeof sum);
  for (int64_t i = 0; i < p.m; i++) sh[i] = ldexpf(1.0f + (float)sample_unit(), (int)sample_between(-4, 0));
  sh[2] = 0.0f;
  for (int64_t i = 2 * ROWS; i < 3 * ROWS; i++) sh[i] = 0x1p-100f; /* a grain under the smallest scale casts no votes */
  for (int64_t n = 0; n < N; n++) p.w.p[n] = (int8_t)sample_between(5, 8);
  p.w.p[2] = 127;  /* its votes vanish */
  p.w.p[3] = -120; /* and its own are all at the end of the range */
  double expected[N * K] = {0};
  for (uint32_t step = 1; step <= STEPS; step++) {
    arb_assert_ok(be->ops.begin_step(be, 9, step, 0.0f));
    memset(p.w.votes, 0, N * K);
    arb_assert_ok(be->ops.linear_dw_vote(be, &p.rows, p.tq, sh, p.q, p.s, VMAX, &p.w));
    int64_t votes[N * K] = {0};
    for (int64_t grain = 0; grain < GRAINS; grain++) {
      const int c = rescaled(&p, sh, p.s, 0, 9, step, grain, tq);
      if (c == ARB_NO_SCALE) continue;
      for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) {
          int64_t d = 0;
          for (int64_t i = 0; i < ROWS; i++) d += tq[i * N + n] * p.q[(grain * ROWS + i) * K + k];
          const int power = c - p.w.p[n];
          const float x = power < -126 ? 0.0f : (float)d * ldexpf(1.0f, power > 96 ? 96 : power);
          votes[n * K + k] += vote_of(&p, x, VMAX, 9, step, (uint32_t)(3 + 2 * grain), n, k);
        }
    }
    for (int64_t i = 0; i < N * K; i++) {
      assert_int_equal(p.w.votes[i], votes[i]);
      sum[i] += (double)votes[i];
    }
  }
  /* The mean vote is the gradient in units of 2^p, where clipping and the row that vanishes do not interfere. Deviations: half
   * a unit of each grain's vote, and half a unit of each tq times q. */
  int inside = 0;
  for (int64_t n = 0; n < N; n++)
    for (int64_t k = 0; k < K; k++) {
      double variance = 0, widest = 0;
      for (int64_t grain = 0; grain < 2; grain++) {
        const int c = rescaled(&p, sh, p.s, 0, 9, 1, grain, tq);
        double x = 0, noise = 0;
        for (int64_t i = grain * ROWS; i < (grain + 1) * ROWS; i++) {
          x += (double)p.tq[i * N + n] * (double)sh[i] * (double)p.s[i] * p.q[i * K + k];
          noise += ldexp(0.25 * p.q[i * K + k] * p.q[i * K + k], 2 * (c - p.w.p[n]));
        }
        expected[n * K + k] += ldexp(x, -p.w.p[n]);
        variance += noise + 0.25;
        widest = fmax(widest, fabs(ldexp(x, -p.w.p[n])) + 5.0 * sqrt(noise) + 1.0);
      }
      if (n == 2) assert_true(fabs(sum[n * K + k]) < 1.0);
      if (n == 2 || n == 3 || widest > VMAX) continue;
      assert_near(sum[n * K + k] / STEPS, expected[n * K + k], 5.0 * sqrt(variance / STEPS) + 1e-3);
      inside++;
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
  int32_t cexp[USES * GRAINS];
  int moved = 0, saturated = 0, joined = 0;
  for (uint32_t step = 1; step <= 1500; step++) {
    for (int i = 0; i < USES * GRAINS * N * K; i++) d[i] = (int32_t)sample_between(-2114060288, 2114060288) >> sample_below(30);
    for (int i = 0; i < USES * GRAINS; i++)
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
            const int c = cexp[use * GRAINS + grain];
            if (c != ARB_NO_SCALE && c > cmax) cmax = c;
          }
          if (cmax == INT32_MIN) continue;
          wide_signed total = 0;
          for (int use = 0; use < USES; use++) {
            const int c = cexp[use * GRAINS + grain], shift = cmax - c;
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
  static int64_t tq[CONTEXT * SEQUENCES * N];
  float sh[M];
  p.w.uses = SLOTS;
  for (int i = 0; i < M; i++) sh[i] = ldexpf(1.0f + (float)sample_unit(), (int)sample_between(-30, -20));
  arb_assert_ok(be->ops.begin_step(be, 31, 7, 0.0f));
  for (int i = 0; i < M; i++) ids[i] = (int32_t)sample_below(K);
  arb_assert_ok(be->ops.embed_forward(be, &p.rows, CONTEXT, ids, SLOTS, PAD, &p.w, out));
  for (int slot = 0; slot < SLOTS; slot++) {
    int32_t cexp[GRAINS];
    memset(want, 0, sizeof want);
    for (int64_t row = 0; row < M; row++) {
      const int64_t grain = row / (CONTEXT * SEQUENCES);
      if (row % (CONTEXT * SEQUENCES) == 0) rescaled(&p, sh, NULL, slot, 31, 7, grain, tq);
      const int64_t t = row % CONTEXT, from = t - (SLOTS - 1 - slot);
      const int id = from < 0 ? PAD : ids[row - t + from];
      for (int64_t c = 0; c < N; c++) {
        assert_int_equal(out[(row * SLOTS + slot) * N + c],
                         sample_to_bf16((float)sample_trit(p.w.code[c * K + id]) * sample_gain(p.w.e[c])));
        want[(grain * N + c) * K + id] += (int32_t)tq[row % (CONTEXT * SEQUENCES) * N + c];
      }
    }
    memset(d, 1, sizeof d);
    arb_assert_ok(be->ops.embed_dw(be, &p.rows, CONTEXT, ids, SLOTS, slot, PAD, p.tq, sh, &p.w, cexp, d));
    assert_memory_equal(d, want, sizeof want);
    for (int64_t grain = 0; grain < GRAINS; grain++)
      assert_int_equal(cexp[grain], rescaled(&p, sh, NULL, slot, 31, 7, grain, tq));
  }
  p.w.n = 12;
  arb_assert_fails(be->ops.embed_dw(be, &p.rows, CONTEXT, ids, SLOTS, 0, PAD, p.tq, sh, &p.w, NULL, d), ARB_ERR_ARG,
                   "multiple of 8");
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
      cmocka_unit_test(test_linear), cmocka_unit_test(test_gradient_quant), cmocka_unit_test(test_votes),
      cmocka_unit_test(test_join),   cmocka_unit_test(test_embedding),
  };
  return cmocka_run_group_tests(tests, open_backend, close_backend);
}
