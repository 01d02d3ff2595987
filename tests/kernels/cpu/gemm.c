/* The matrix products and the draws of every level the chip has against naive loops: all bits equal, nothing written outside.
 */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/scale.h"
#include "kernels/common/trit.h"
#include "kernels/cpu/gemm.h"

#define GUARD 64
#define GUARD_BYTE 0xA5
#define MAX_THREADS 3

static const char *const levels[] = {"scalar", "avx2", "avx512"};
static arb_pool *pools[MAX_THREADS + 1];

static uint64_t state = 88172645463325252u;
static uint32_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 32);
}
static int64_t below(int64_t n) { return (int64_t)(next_random() % (uint64_t)n); }

/* A buffer of exactly `bytes` between guards. `shift` moves it off alignment by so many bytes. */
static uint8_t *guarded(size_t bytes, size_t shift) {
  uint8_t *p = malloc(bytes + 2 * GUARD + shift);
  assert_non_null(p);
  memset(p, GUARD_BYTE, bytes + 2 * GUARD + shift);
  return p + GUARD + shift;
}
static void release(void *buffer, size_t bytes, size_t shift) {
  uint8_t *p = buffer;
  for (size_t i = 0; i < GUARD; i++) {
    if (p[bytes + i] != GUARD_BYTE) fail_msg("byte %zu past the end was written", i);
    if (p[-1 - (ptrdiff_t)i] != GUARD_BYTE) fail_msg("byte %zu before the start was written", i);
  }
  free(p - GUARD - shift);
}

typedef enum { RANDOM, HIGH, LOW, ZERO, KINDS } kind;

static int8_t value(kind how) {
  if (how == HIGH) return 127;
  if (how == LOW) return -127;
  if (how == ZERO) return 0;
  return (int8_t)(below(255) - 127);
}
/* HIGH and LOW make every trit 1, so that products reach their bounds. */
static uint8_t code_of(kind how) { return (uint8_t)(how == RANDOM || how == ZERO ? below(255) : 170 + below(85)); }

typedef struct {
  int64_t m, k, n;
  int8_t *q, *h; /* [m][k], [m][n] */
  uint8_t *code;
  int8_t *e, *p;
  float *s;
  void *scratch;
  size_t scratch_bytes;
} problem;

static problem make(int64_t m, int64_t k, int64_t n, kind how) {
  problem x = {.m = m, .k = k, .n = n};
  x.q = (int8_t *)guarded((size_t)(m * k), 1);
  x.h = (int8_t *)guarded((size_t)(m * n), 3);
  x.code = guarded((size_t)(n * k), 1);
  x.e = (int8_t *)guarded((size_t)n, 0);
  x.p = (int8_t *)guarded((size_t)n, 0);
  x.s = (float *)(void *)guarded((size_t)m * sizeof(float), 0);
  x.scratch_bytes = arb_gemm_scratch_bytes(m, k, n, MAX_THREADS);
  x.scratch = guarded(x.scratch_bytes, 8);
  for (int64_t i = 0; i < m * k; i++) x.q[i] = value(how);
  for (int64_t i = 0; i < m * n; i++) x.h[i] = value(how == HIGH && below(2) ? LOW : how);
  for (int64_t i = 0; i < n * k; i++) x.code[i] = code_of(how);
  for (int64_t i = 0; i < n; i++) x.e[i] = (int8_t)(below(256) - 128);
  for (int64_t i = 0; i < n; i++) x.p[i] = (int8_t)(below(7) + 4);
  for (int64_t i = 0; i < m; i++) x.s[i] = (float)(below(65536) + 1) * arb_pow2i((int32_t)below(40) - 30);
  return x;
}
static void drop(problem *x) {
  release(x->q, (size_t)(x->m * x->k), 1);
  release(x->h, (size_t)(x->m * x->n), 3);
  release(x->code, (size_t)(x->n * x->k), 1);
  release(x->e, (size_t)x->n, 0);
  release(x->p, (size_t)x->n, 0);
  release(x->s, (size_t)x->m * sizeof(float), 0);
  release(x->scratch, x->scratch_bytes, 8);
}

static void same(const void *got, const void *want, size_t bytes, size_t size, const char *what, const char *level, int threads,
                 const problem *x) {
  if (memcmp(got, want, bytes) == 0) return;
  size_t i = 0;
  while (((const uint8_t *)got)[i] == ((const uint8_t *)want)[i]) i++;
  fail_msg("%s %s %d threads %lldx%lldx%lld: element %zu differs", what, level, threads, (long long)x->m, (long long)x->k,
           (long long)x->n, i / size);
}

static void check_forward(const problem *x) {
  const size_t bytes = (size_t)(x->m * x->n) * sizeof(uint16_t);
  uint16_t *want = malloc(bytes);
  assert_non_null(want);
  for (int64_t i = 0; i < x->m; i++)
    for (int64_t j = 0; j < x->n; j++) {
      int32_t acc = 0;
      for (int64_t l = 0; l < x->k; l++) acc += x->q[i * x->k + l] * arb_code_trit(x->code[j * x->k + l]);
      want[i * x->n + j] = arb_bf16_of_f32(((float)acc * x->s[i]) * arb_pow2_eighths(x->e[j]));
    }
  for (size_t l = 0; l < 3; l++)
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
      const arb_gemm_kernels *g = arb_gemm_pick(levels[l]);
      if (g == NULL) continue;
      uint16_t *y = (uint16_t *)(void *)guarded(bytes, 2);
      g->forward(pools[threads], x->m, x->k, x->n, x->q, x->s, x->code, x->e, y, x->scratch);
      same(y, want, bytes, sizeof *y, "forward", g->name, threads, x);
      release(y, bytes, 2);
    }
  free(want);
}

static void check_dx(const problem *x) {
  const size_t bytes = (size_t)(x->m * x->k) * sizeof(uint16_t);
  int32_t *acc = calloc((size_t)x->k, sizeof *acc);
  uint16_t *want = malloc(bytes);
  assert_non_null(acc);
  assert_non_null(want);
  for (int64_t i = 0; i < x->m; i++) {
    memset(acc, 0, (size_t)x->k * sizeof *acc);
    for (int64_t j = 0; j < x->n; j++)
      for (int64_t l = 0; l < x->k; l++) acc[l] += x->h[i * x->n + j] * arb_code_trit(x->code[j * x->k + l]);
    for (int64_t l = 0; l < x->k; l++) want[i * x->k + l] = arb_bf16_of_f32((float)acc[l] * x->s[i]);
  }
  for (size_t l = 0; l < 3; l++)
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
      const arb_gemm_kernels *g = arb_gemm_pick(levels[l]);
      if (g == NULL) continue;
      uint16_t *dx = (uint16_t *)(void *)guarded(bytes, 2);
      g->dx(pools[threads], x->m, x->k, x->n, x->h, x->s, x->code, dx, x->scratch);
      same(dx, want, bytes, sizeof *dx, "dx", g->name, threads, x);
      release(dx, bytes, 2);
    }
  free(acc);
  free(want);
}

static void check_dw(const problem *x) {
  const size_t count = (size_t)(x->n * x->k), bytes = count * sizeof(int32_t);
  int32_t *want = calloc(count, sizeof *want);
  int8_t *old = malloc(count), *want_votes = malloc(count);
  assert_non_null(want);
  assert_non_null(old);
  assert_non_null(want_votes);
  for (int64_t i = 0; i < x->m; i++)
    for (int64_t j = 0; j < x->n; j++)
      for (int64_t l = 0; l < x->k; l++) want[j * x->k + l] += x->h[i * x->n + j] * x->q[i * x->k + l];

  const int32_t scales[5] = {-4, -2, -8, -140, 110}; /* the last two far out of range */
  arb_gemm_votes v = {.key = arb_philox_key_of(77, ARB_DRAW_VOTE),
                      .tensor = 5,
                      .step = 9,
                      .grain = 3,
                      .vmax = below(3) ? 15 : (int)(1 + below(100)),
                      .cexp = scales[below(5)],
                      .p = x->p};
  for (size_t i = 0; i < count; i++) old[i] = (int8_t)(below(27) - 13);
  memcpy(want_votes, old, count);
  for (int64_t j = 0; j < x->n; j++) {
    for (int64_t l = 0; l < x->k; l++) {
      const int64_t element = j * arb_pad8(x->k) + l;
      const arb_philox_block b = arb_philox(v.key, (uint32_t)(element / 8), v.tensor, v.step, v.grain);
      float f = (float)want[j * x->k + l] * arb_vote_scale(v.cexp - x->p[j]);
      const float limit = (float)v.vmax;
      f = f > limit ? limit : f < -limit ? -limit : f;
      want_votes[j * x->k + l] =
          (int8_t)(want_votes[j * x->k + l] + (int)arb_stochastic_round(f, arb_philox_half(&b, (int)(element % 8))));
    }
  }
  for (size_t l = 0; l < 3; l++)
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
      const arb_gemm_kernels *g = arb_gemm_pick(levels[l]);
      if (g == NULL) continue;
      int32_t *d = (int32_t *)(void *)guarded(bytes, 4);
      v.votes = (int8_t *)guarded(count, 1);
      memcpy(v.votes, old, count);
      g->dw(pools[threads], x->m, x->k, x->n, x->h, x->q, d, NULL, x->scratch);
      same(d, want, bytes, sizeof *d, "dw", g->name, threads, x);
      g->dw(pools[threads], x->m, x->k, x->n, x->h, x->q, threads == 2 ? d : NULL, &v, x->scratch);
      same(d, want, bytes, sizeof *d, "dw with votes", g->name, threads, x);
      same(v.votes, want_votes, count, 1, "votes", g->name, threads, x);
      release(v.votes, count, 1);
      release(d, bytes, 4);
    }
  free(want);
  free(old);
  free(want_votes);
}

static void check(int64_t m, int64_t k, int64_t n, kind how) {
  problem x = make(m, k, n, how);
  check_forward(&x);
  check_dx(&x);
  check_dw(&x);
  drop(&x);
}

/* Every tail of every tile: rows, columns and reduction around the multiples that the levels use. */
static void small_shapes(void **test) {
  (void)test;
  static const int64_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 66};
  const int64_t count = (int64_t)(sizeof sizes / sizeof sizes[0]);
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < count; j++) check(sizes[(i + 2 * j) % count], sizes[i], sizes[j], RANDOM);
}

static void random_shapes(void **test) {
  (void)test;
  for (int i = 0; i < 40; i++) check(1 + below(130), 1 + below(400), 1 + below(400), RANDOM);
}

static void odd_tails(void **test) {
  (void)test;
  check(297, 297, 297, RANDOM);
  check(100, 513, 257, RANDOM);
  check(1, 1, 1, RANDOM);
  check(1, 700, 300, RANDOM);
  check(700, 1, 1, RANDOM);
  check(61, 2048, 40, RANDOM);
  check(40, 37, 2048, RANDOM);
}

/* The int16 lanes of the AVX2 level, the offsets' corrections and several rounds of dW at their bounds. */
static void extremes(void **test) {
  (void)test;
  for (int how = HIGH; how < KINDS; how++) {
    check(13, 256, 255, (kind)how);
    check(20, 3000, 50, (kind)how);
    check(20, 50, 3000, (kind)how);
    check(2500, 33, 50, (kind)how);
  }
  check(14, 3000, 70, RANDOM);
}

/* More rows than one round, so that partial sums are kept; ends on and off the round. */
static void long_products(void **test) {
  (void)test;
  check(1023, 40, 60, RANDOM);
  check(1024, 300, 49, RANDOM);
  check(1025, 297, 53, RANDOM);
  check(3073, 257, 97, RANDOM);
}

/* The largest sum a dW may reach, at the largest row count. */
static void most_rows(void **test) {
  (void)test;
  check(ARB_GEMM_MAX_ROWS, 9, 5, HIGH);
}

static void pick(void **test) {
  (void)test;
  assert_string_equal(arb_gemm_pick("scalar")->name, "scalar");
  assert_null(arb_gemm_pick("sse"));
  assert_null(arb_gemm_pick(""));
  const arb_gemm_kernels *best = arb_gemm_pick("auto");
  assert_non_null(best);
  for (size_t l = 0; l < 3; l++) {
    const arb_gemm_kernels *g = arb_gemm_pick(levels[l]);
    if (g == NULL) {
      print_message("level %s is missing on this machine: not tested\n", levels[l]);
      continue;
    }
    assert_string_equal(g->name, levels[l]);
  }
}

static void draws(void **test) {
  (void)test;
  static const int64_t counts[] = {1, 7, 8, 9, 63, 64, 65, 127, 128, 200, 255, 256, 257, 1000};
  /* the second and third start near the wrap of the 32-bit counter */
  static const int64_t firsts[] = {0, 8 * (int64_t)4294967290, 8 * (int64_t)4294967296 * 3 - 64, 4096, 123456 * 8};
  const arb_philox_key key = arb_philox_key_of(0x123456789abcdef0u, ARB_DRAW_UPDATE);
  for (size_t l = 0; l < 3; l++) {
    const arb_gemm_kernels *g = arb_gemm_pick(levels[l]);
    if (g == NULL) continue;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
      for (size_t j = 0; j < sizeof firsts / sizeof firsts[0]; j++) {
        const size_t bytes = (size_t)arb_pad8(counts[i]) * sizeof(uint16_t);
        uint16_t *out = (uint16_t *)(void *)guarded(bytes, 2);
        g->draws(key, 0xfffffff0u, 70000, 11, firsts[j], counts[i], out);
        for (int64_t e = 0; e < counts[i]; e++) {
          const arb_philox_block b = arb_philox(key, (uint32_t)((firsts[j] + e) / 8), 0xfffffff0u, 70000, 11);
          if (out[e] != arb_philox_half(&b, (int)(e % 8)))
            fail_msg("%s: draw %lld of %lld differs", g->name, (long long)e, (long long)counts[i]);
        }
        release(out, bytes, 2);
      }
  }
}

static int start_pools(void **test) {
  (void)test;
  for (int i = 1; i <= MAX_THREADS; i++)
    if (arb_pool_create(i, &pools[i]) != ARB_OK) return -1;
  return 0;
}
static int stop_pools(void **test) {
  (void)test;
  for (int i = 1; i <= MAX_THREADS; i++) arb_pool_destroy(&pools[i]);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pick),      cmocka_unit_test(draws),    cmocka_unit_test(small_shapes),  cmocka_unit_test(random_shapes),
      cmocka_unit_test(odd_tails), cmocka_unit_test(extremes), cmocka_unit_test(long_products), cmocka_unit_test(most_rows),
  };
  return cmocka_run_group_tests(tests, start_pools, stop_pools);
}
