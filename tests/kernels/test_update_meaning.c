/* What the update of the reference does to statistics, state bytes and exponents, against Adafactor's formulas in double and
 * the exponent rule in 128 bits; and the digest. */
#include "kernels/backend.h"
#include "kernels/common/fixed.h"
#include "tests/kernels/samples.h"

enum { N = 14, K = 45, MEMBERS = 2, FIRST = 6, UPDATE = 5 };

static arb_backend *be;

/* A stack with its work memory, all in place. */
typedef struct {
  uint8_t code[N * K];
  int8_t e[N], p[N], votes[N * K];
  int32_t r[N], c[MEMBERS * K], m[MEMBERS];
  uint64_t s[N], csum[MEMBERS * K], msum[MEMBERS];
  int32_t top[MEMBERS], low[MEMBERS];
  int64_t flips[2];
} everything;

static arb_stack stack_of(everything *x) {
  return (arb_stack){.id = 4711,
                     .uses = 1,
                     .members = MEMBERS,
                     .begin = {0, FIRST, N},
                     .n = N,
                     .k = K,
                     .code = x->code,
                     .e = x->e,
                     .p = x->p,
                     .r = x->r,
                     .c = x->c,
                     .m = x->m,
                     .votes = x->votes};
}

static void update(everything *x, uint64_t seed, uint32_t step, float eta_units, int64_t grains, int vmax) {
  const arb_stack w = stack_of(x);
  const arb_update_work work = {x->s, x->top, x->low, x->csum, x->msum, NULL};
  arb_assert_ok(be->ops.begin_step(be, seed, step, eta_units));
  arb_assert_ok(be->ops.vote_rows(be, &w, &work));
  arb_assert_ok(be->ops.vote_columns(be, &w, &work));
  arb_assert_ok(be->ops.update(be, &w, &work, grains, vmax, x->flips));
}

static int member_of(int64_t n) { return n >= FIRST; }
static int64_t begin_of(int m) { return m ? FIRST : 0; }
static int64_t end_of(int m) { return m ? N : FIRST; }

static void fresh(everything *x) {
  memset(x, 0, sizeof *x);
  for (int i = 0; i < N * K; i++) x->code[i] = (uint8_t)sample_below(255);
  for (int i = 0; i < N; i++) x->r[i] = INT32_MIN;
  for (int i = 0; i < MEMBERS * K; i++) x->c[i] = INT32_MIN;
  for (int i = 0; i < MEMBERS; i++) x->m[i] = INT32_MIN;
}

/* kind 0: dense; 1: sparse and small; 2: one row and one column dominate; some rows and columns always empty. */
static void vote(everything *x, int kind) {
  for (int n = 0; n < N; n++) {
    const int silent = sample_below(5) == 0;
    for (int k = 0; k < K; k++) {
      int v = (int)sample_between(-20, 20);
      if (kind == 1) v = sample_below(6) ? 0 : (int)sample_between(-2, 2);
      if (kind == 2) v = n == 3 || k == 7 ? (int)sample_between(-127, 127) : v / 7;
      x->votes[n * K + k] = (int8_t)(silent || k == 11 ? 0 : v);
    }
  }
}

/* ---- sums ---- */

static void test_sums(void **state) {
  (void)state;
  static everything x;
  for (int round = 0; round < 200; round++) {
    fresh(&x);
    vote(&x, round % 3);
    const int64_t spread = round % 4 == 0 ? 40 : 6;
    for (int n = 0; n < N; n++) x.p[n] = (int8_t)sample_between(-spread, spread);
    if (round % 5 == 0) memset(x.votes + FIRST * K, 0, (N - FIRST) * K);
    const arb_stack w = stack_of(&x);
    const arb_update_work work = {x.s, x.top, x.low, x.csum, x.msum, NULL};
    arb_assert_ok(be->ops.vote_rows(be, &w, &work));
    arb_assert_ok(be->ops.vote_columns(be, &w, &work));
    for (int m = 0; m < MEMBERS; m++) {
      int32_t top = INT32_MIN, low = INT32_MAX;
      for (int64_t n = begin_of(m); n < end_of(m); n++) {
        uint64_t s = 0;
        for (int k = 0; k < K; k++) s += (uint64_t)(x.votes[n * K + k] * x.votes[n * K + k]);
        assert_int_equal(x.s[n], s);
        if (s == 0) continue;
        top = x.p[n] > top ? x.p[n] : top;
        low = x.p[n] < low ? x.p[n] : low;
      }
      assert_int_equal(x.top[m], top);
      assert_int_equal(x.low[m], low);
      uint64_t msum = 0, csum[K] = {0};
      for (int64_t n = begin_of(m); n < end_of(m); n++) {
        if (x.s[n] == 0) continue;
        const int shift = 2 * (top - x.p[n]);
        const wide_unsigned unit = (wide_unsigned)1 << (shift > 100 ? 100 : shift);
        msum += (uint64_t)((wide_unsigned)x.s[n] * 256 / unit);
        for (int k = 0; k < K; k++) {
          const int v = x.votes[n * K + k];
          csum[k] += (uint64_t)((wide_unsigned)(v * v) * 65536 / unit);
        }
      }
      assert_int_equal(x.msum[m], msum);
      for (int k = 0; k < K; k++) assert_int_equal(x.csum[m * K + k], csum[k]);
    }
  }
}

/* A row longer than one block of 32-bit sums, at the largest vote. */
static void test_long_row(void **state) {
  (void)state;
  const int64_t k = 300001;
  int8_t p[2] = {0, 3};
  uint64_t s[2], *csum = sample_alloc((size_t)k * 8), msum;
  int32_t top, low;
  arb_stack w = {.members = 1, .begin = {0, 2}, .n = 2, .k = k, .p = p, .votes = sample_alloc((size_t)(2 * k))};
  memset(w.votes, 127, (size_t)k);
  memset(w.votes + k, -127, (size_t)k);
  w.votes[k + 5] = 1;
  const arb_update_work work = {s, &top, &low, csum, &msum, NULL};
  arb_assert_ok(be->ops.vote_rows(be, &w, &work));
  arb_assert_ok(be->ops.vote_columns(be, &w, &work));
  assert_int_equal(s[0], k * 16129);
  assert_int_equal(s[1], (k - 1) * 16129 + 1);
  assert_int_equal(top, 3);
  assert_int_equal(low, 0);
  assert_int_equal(msum, ((uint64_t)s[0] * 256 >> 6) + s[1] * 256);
  assert_int_equal(csum[0], (16129 * 65536 >> 6) + 16129 * 65536);
  assert_int_equal(csum[5], (16129 * 65536 >> 6) + 65536);
  free(csum);
  free(w.votes);
}

/* ---- statistics and the move ---- */

/* Adafactor's averages in double, beta2 = 1/2; negative: never seen. */
typedef struct {
  double r[N], c[MEMBERS * K], m[MEMBERS];
} shadow;

static double average(double old, double now) {
  if (now > 0) return old < 0 ? now : 0.5 * (old + now);
  return old < 0 ? old : 0.5 * old;
}

static void shadow_step(shadow *y, const everything *x) {
  for (int m = 0; m < MEMBERS; m++) {
    const double rows = (double)(end_of(m) - begin_of(m));
    double all = 0, column[K] = {0};
    for (int64_t n = begin_of(m); n < end_of(m); n++) {
      double row = 0;
      for (int k = 0; k < K; k++) {
        const double g = ldexp(x->votes[n * K + k], x->p[n]);
        row += g * g;
        column[k] += g * g;
      }
      y->r[n] = average(y->r[n], row / K);
      all += row;
    }
    for (int k = 0; k < K; k++) y->c[m * K + k] = average(y->c[m * K + k], column[k] / rows);
    y->m[m] = average(y->m[m], all / (rows * K));
  }
}

/* A statistic is off by at most one unit of 2^-16 octaves for each of the two or three floors behind it, and what older steps
 * left of theirs halves: below 5 units. With p within 4 of the top the shifts of the
 * sums lose nothing. */
static void check_statistic(int32_t got, double want) {
  if (want < 0)
    assert_int_equal(got, INT32_MIN);
  else
    assert_near((double)got / 65536.0, log2(want), 5.0 / 65536.0);
}

static void test_adafactor(void **state) {
  (void)state;
  static everything x, before;
  static shadow y;
  int clamped = 0, moved = 0, zeros = 0;
  double bias = 0, spread = 0;
  for (int run = 0; run < 20; run++) {
    fresh(&x);
    for (int i = 0; i < N; i++) y.r[i] = -1;
    for (int i = 0; i < MEMBERS * K; i++) y.c[i] = -1;
    for (int i = 0; i < MEMBERS; i++) y.m[i] = -1;
    if (run % 4 == 1) { /* as if the matrix had been far larger: the step is cut at 4 */
      x.m[1] = 30 * 65536;
      y.m[1] = 0x1p30;
    }
    for (uint32_t step = 1; step <= 8; step++) {
      vote(&x, run % 3);
      if (step == 5) memset(x.votes, 0, FIRST * K); /* a member without votes */
      for (int n = 0; n < N; n++) x.p[n] = (int8_t)sample_between(-2, 2);
      memset(x.code, 127, sizeof x.code); /* T = 0, A = 0: every move up to 42 shows */
      const float eta = 0.12f * 42.0f * (float)sample_between(1, 2);
      const uint64_t seed = sample_u64();
      before = x;
      update(&x, seed, step, eta, 8, 15);
      shadow_step(&y, &before);
      for (int n = 0; n < N; n++) check_statistic(x.r[n], y.r[n]);
      for (int i = 0; i < MEMBERS * K; i++) check_statistic(x.c[i], y.c[i]);
      for (int m = 0; m < MEMBERS; m++) check_statistic(x.m[m], y.m[m]);
      for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) {
          const int v = before.votes[n * K + k], at = n * K + k, da = sample_accumulator(x.code[at]);
          if (v == 0) {
            assert_int_equal(x.code[at], 127);
            zeros++;
            continue;
          }
          const int m = member_of(n);
          const double u = ldexp(v, before.p[n]) / sqrt(y.r[n] * y.c[m * K + k] / y.m[m]);
          const double want = -(double)eta * sample_clamp(u, 4.0);
          /* three statistics of 5 units, halved by the root: 7.5 units of 2^-16 octaves = 8e-5; and float roundings */
          const double slack = fabs(want) * 1e-4;
          const uint16_t random = sample_draw(seed, UPDATE, 4711, step, 0, (int64_t)n * sample_pad8(K) + k);
          const int64_t low = sample_round((float)(want - slack), random), high = sample_round((float)(want + slack), random);
          if (da < low || da > high) fail_msg("vote %d moved by %d, expected %.5f (random %d)", v, da, want, random);
          clamped += fabs(u) > 4.0;
          moved += da != 0;
          bias += da - want;
          spread += 0.25;
        }
    }
  }
  assert_true(clamped > 200 && moved > 10000 && zeros > 1000);
  assert_true(fabs(bias) < 5.0 * sqrt(spread));
}

/* From any code, the move is the one seen from A = 0; trits that changed and stops that were reached are counted. */
static void test_codes(void **state) {
  (void)state;
  static everything x, centred, before;
  int64_t all = 0;
  for (uint32_t round = 1; round <= 60; round++) {
    fresh(&x);
    vote(&x, (int)round % 3);
    for (int n = 0; n < N; n++) x.p[n] = (int8_t)sample_between(-4, 4);
    if (round % 3 == 0)
      for (int i = 0; i < N * K; i++) x.code[i] = sample_below(2) ? 254 : 0;
    centred = before = x;
    memset(centred.code, 127, sizeof centred.code);
    x.flips[0] = 1000;
    x.flips[1] = 2000;
    update(&x, 3, round, 10.4f, 8, 15);
    update(&centred, 3, round, 10.4f, 8, 15);
    int64_t flips = 1000, saturated = 2000;
    for (int i = 0; i < N * K; i++) {
      const uint8_t want = sample_moved(before.code[i], sample_accumulator(centred.code[i]));
      assert_int_equal(x.code[i], want);
      flips += sample_trit(want) != sample_trit(before.code[i]);
      if (x.s[i / K]) saturated += want == 0 || want == 254;
    }
    assert_int_equal(x.flips[0], flips);
    assert_int_equal(x.flips[1], saturated);
    assert_memory_equal(x.e, before.e, sizeof x.e);
    assert_memory_equal(x.votes, before.votes, sizeof x.votes);
    all += flips - 1000;
  }
  assert_true(all > 1000);
}

/* A positive vote (a gradient) lowers the weight. */
static void test_direction(void **state) {
  (void)state;
  static everything x;
  fresh(&x);
  memset(x.code, 127, sizeof x.code);
  for (int i = 0; i < N * K; i++) x.votes[i] = (int8_t)(i % 2 ? 15 : -15);
  update(&x, 1, 1, 5.04f, 8, 15);
  for (int i = 0; i < N * K; i++) /* all squares equal: |u| = 1 */
    assert_true(i % 2 ? x.code[i] >= 127 - 6 && x.code[i] <= 127 - 5 : x.code[i] >= 127 + 5 && x.code[i] <= 127 + 6);
}

/* ---- exponents ---- */

static int exponent_rule(int p, uint64_t s, int k, int v, int64_t grains, int lowest) {
  int next;
  if (s > 0) {
    int d = 4;
    for (; d > -4; d--) {
      wide_unsigned right = (wide_unsigned)k * (wide_unsigned)(v * v) * (wide_unsigned)grains;
      for (int i = 0; i < d + 4; i++) right *= 4;
      if ((wide_unsigned)s * 32 * 256 >= right) break;
    }
    next = p + d;
  } else {
    const int floor_p = lowest == INT32_MAX ? -120 : lowest - 8;
    next = p - 4 > floor_p ? p - 4 : floor_p;
  }
  return next > 120 ? 120 : next < -120 ? -120 : next;
}

static void test_exponents(void **state) {
  (void)state;
  static everything x, before;
  int empty = 0, at_floor = 0, ends = 0;
  for (int round = 0; round < 600; round++) {
    fresh(&x);
    vote(&x, round % 3);
    const int64_t spread = round % 3 == 0 ? 120 : 15, centre = round % 7 == 0 ? sample_between(-1, 1) * 110 : 0;
    for (int n = 0; n < N; n++) {
      const int64_t p = centre + sample_between(-spread, spread);
      x.p[n] = (int8_t)(p > 120 ? 120 : p < -120 ? -120 : p);
    }
    if (round % 5 == 0) memset(x.votes, 0, FIRST * K);
    if (round % 11 == 0) memset(x.votes, 0, sizeof x.votes);
    const int vmax = (int)sample_between(4, 127);
    const int64_t grains = sample_between(1, 31);
    before = x;
    update(&x, 1, (uint32_t)round, 5.04f, grains, vmax);
    for (int n = 0; n < N; n++) {
      int lowest = INT32_MAX;
      for (int64_t i = begin_of(member_of(n)); i < end_of(member_of(n)); i++)
        if (x.s[i] > 0 && before.p[i] < lowest) lowest = before.p[i];
      const int want = exponent_rule(before.p[n], x.s[n], K, vmax, grains, lowest);
      assert_int_equal(x.p[n], want);
      empty += x.s[n] == 0;
      at_floor += x.s[n] == 0 && want == lowest - 8;
      ends += abs(want) == 120;
    }
  }
  assert_true(empty > 500 && at_floor > 20 && ends > 100);
}

/* The rms of the sum settles near (V/4) sqrt(Ga): gradients of any size end within a factor of two of it. */
static void test_exponent_settles(void **state) {
  (void)state;
  static everything x;
  for (int size = -60; size <= 60; size += 15) {
    fresh(&x);
    const int vmax = 15, grains = 8;
    double rms = 0;
    for (uint32_t step = 1; step <= 60; step++) {
      for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) { /* the sum of eight clamped votes of one gradient */
          const double g = sample_clamp(ldexp((double)sample_normal(1.0), size - x.p[n]), vmax);
          x.votes[n * K + k] = (int8_t)sample_clamp(floor(g * sqrt(8.0) + sample_unit()), 120);
        }
      update(&x, 1, step, 0.0f, grains, vmax);
      rms = sqrt((double)x.s[0] / K);
    }
    const double aim = vmax / 4.0 * sqrt(grains);
    assert_true(rms > aim / 2.3 && rms < aim * 2.3);
    for (int n = 0; n < N; n++) assert_in_range(x.p[n] - size + 10, 6, 10);
  }
}

/* ---- silence ---- */

static void test_unused(void **state) {
  (void)state;
  static everything x, before;
  fresh(&x);
  vote(&x, 0);
  update(&x, 1, 1, 5.04f, 8, 15); /* everything has a value */
  vote(&x, 0);
  x.flips[0] = x.flips[1] = 7;
  before = x;
  const arb_stack w = stack_of(&x);
  const arb_update_work work = {x.s, x.top, x.low, x.csum, x.msum, NULL};
  arb_assert_ok(be->ops.update(be, &w, &work, 0, 15, x.flips)); /* no grain used the tensor */
  assert_memory_equal(&x, &before, sizeof x);

  /* Used, but silent: statistics lose an octave, exponents four, codes stay. */
  memset(x.votes, 0, sizeof x.votes);
  before = x;
  update(&x, 1, 2, 5.04f, 8, 15);
  assert_memory_equal(x.code, before.code, sizeof x.code);
  assert_memory_equal(x.flips, before.flips, sizeof x.flips);
  for (int n = 0; n < N; n++) {
    assert_int_equal(x.r[n], before.r[n] == INT32_MIN ? INT32_MIN : before.r[n] - 65536);
    assert_int_equal(x.p[n], before.p[n] - 4);
  }
  for (int i = 0; i < MEMBERS * K; i++) assert_int_equal(x.c[i], before.c[i] == INT32_MIN ? INT32_MIN : before.c[i] - 65536);
  for (int m = 0; m < MEMBERS; m++) assert_int_equal(x.m[m], before.m[m] - 65536);
  assert_int_equal(x.c[11], INT32_MIN); /* a column that never had a vote */
  /* For ever: to the floors. */
  for (uint32_t step = 3; step < 400; step++) update(&x, 1, step, 5.04f, 8, 15);
  assert_memory_equal(x.code, before.code, sizeof x.code);
  for (int n = 0; n < N; n++) {
    assert_int_equal(x.p[n], -120);
    assert_true(x.r[n] == INT32_MIN || x.r[n] == -300 * 65536);
  }
}

/* ---- digest ---- */

static arb_u128 digest_of(uint64_t array, const void *data, int64_t rows, int64_t bytes, int64_t first) {
  arb_u128 sum;
  arb_assert_ok(be->ops.digest(be, array, data, rows, bytes, first, &sum));
  return sum;
}
static int same(arb_u128 a, arb_u128 b) { return a.lo == b.lo && a.hi == b.hi; }

static void test_digest(void **state) {
  (void)state;
  enum { ROWS = 5, BYTES = 21, FIRST_ROW = 1000 };
  uint8_t data[ROWS * BYTES];
  for (int r = 0; r < ROWS; r++)
    for (int b = 0; b < BYTES; b++) data[r * BYTES + b] = (uint8_t)(r * 13 + b * b * 7 + 3);
  /* Computed by an independent program from the definition; a change here is a change of every digest. */
  assert_true(arb_mix64(0x9E3779B97F4A7C15u) == 0xE220A8397B1DCDAFu); /* SplitMix64's first output */
  const arb_u128 whole = digest_of(0x123456789aull, data, ROWS, BYTES, FIRST_ROW);
  assert_true(whole.hi == 0xe7f55fe6d12abcdau && whole.lo == 0x458710ad712191acu);
  /* Rows split in any way, in any order. */
  for (int cut = 0; cut <= ROWS; cut++) {
    const arb_u128 end = digest_of(0x123456789aull, data + cut * BYTES, ROWS - cut, BYTES, FIRST_ROW + cut);
    const arb_u128 start = digest_of(0x123456789aull, data, cut, BYTES, FIRST_ROW);
    assert_true(same(arb_u128_add(end, start), whole));
  }
  /* Every bit counts, and so do place and array. */
  for (int bit = 0; bit < 8 * ROWS * BYTES; bit++) {
    data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    assert_false(same(digest_of(0x123456789aull, data, ROWS, BYTES, FIRST_ROW), whole));
    data[bit / 8] ^= (uint8_t)(1 << bit % 8);
  }
  assert_false(same(digest_of(0x123456789bull, data, ROWS, BYTES, FIRST_ROW), whole));
  assert_false(same(digest_of(0x123456789aull, data, ROWS, BYTES, FIRST_ROW + 1), whole));
  uint8_t swapped[ROWS * BYTES];
  memcpy(swapped, data, sizeof data);
  memcpy(swapped, data + BYTES, BYTES);
  memcpy(swapped + BYTES, data, BYTES);
  assert_false(same(digest_of(0x123456789aull, swapped, ROWS, BYTES, FIRST_ROW), whole));
  const arb_u128 carry = arb_u128_add((arb_u128){UINT64_MAX, 1}, (arb_u128){2, 3});
  assert_true(carry.lo == 1 && carry.hi == 5);
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
      cmocka_unit_test(test_sums),
      cmocka_unit_test(test_long_row),
      cmocka_unit_test(test_adafactor),
      cmocka_unit_test(test_codes),
      cmocka_unit_test(test_direction),
      cmocka_unit_test(test_exponents),
      cmocka_unit_test(test_exponent_settles),
      cmocka_unit_test(test_unused),
      cmocka_unit_test(test_digest),
  };
  return cmocka_run_group_tests(tests, open_backend, close_backend);
}
