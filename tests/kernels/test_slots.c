/* Every slot of every host backend against the reference: random shapes, odd tails, extreme values, 1 to 3 threads. All bytes
 * of all outputs are equal, inputs stay as they were, and nothing around an output is written. */
#include "tests/kernels/slot_cases.h"

#include <stdio.h>

#include "tests/kernels/samples.h"

#define GUARD 64
#define GUARD_BYTE 0xA5
#define MAX_OTHERS 9

static arb_backend *ref, *others[MAX_OTHERS];
static char names[MAX_OTHERS][48];
static int other_count;

/* ---- running and comparing ---- */

static int run_guarded(arb_backend *be, const char *name, const slot *s, const problem *p, int count, const output *o,
                       void **out) {
  for (int i = 0; i < count; i++) {
    uint8_t *base = malloc(o[i].bytes + 2 * GUARD);
    assert_non_null(base);
    memset(base, GUARD_BYTE, o[i].bytes + 2 * GUARD);
    out[i] = base + GUARD;
    if (o[i].start)
      memcpy(out[i], o[i].start, o[i].bytes);
    else
      memset(out[i], 0xcd, o[i].bytes);
  }
  int flag = -1;
  arb_assert_ok(be->ops.begin_step(be, p->seed, p->step, p->eta_units));
  arb_assert_ok(s->run(be, p, out));
  arb_assert_ok(be->ops.sync(be));
  arb_assert_ok(be->ops.take_nonfinite(be, &flag));
  for (int i = 0; i < count; i++) {
    const uint8_t *base = (const uint8_t *)out[i] - GUARD;
    for (size_t b = 0; b < GUARD; b++)
      if (base[b] != GUARD_BYTE || base[GUARD + o[i].bytes + b] != GUARD_BYTE)
        fail_msg("%s on %s wrote outside of output %d", s->name, name, i);
  }
  return flag;
}
static void release(int count, void **out) {
  for (int i = 0; i < count; i++) free((uint8_t *)out[i] - GUARD);
}

static void inputs_kept(const char *name, const slot *s, const problem *p) {
  for (int i = 0; i < p->inputs; i++)
    if (memcmp(p->input[i].data, p->input[i].copy, p->input[i].bytes) != 0)
      fail_msg("%s on %s changed input %d", s->name, name, i);
}

static void same_bytes(const char *name, const slot *s, const problem *p, int i, const void *got, const void *want,
                       size_t bytes) {
  if (memcmp(got, want, bytes) == 0) return;
  size_t at = 0;
  while (((const uint8_t *)got)[at] == ((const uint8_t *)want)[at]) at++;
  fail_msg("%s on %s: output %d differs at byte %zu of %zu (%d x %lld rows, width %lld, n %lld, k %lld)", s->name, name, i, at,
           bytes, p->rows.grains, (long long)p->rows.rows_per_grain, (long long)p->width, (long long)p->w.n, (long long)p->w.k);
}

static void check_slot(const slot *s, const problem *p) {
  output o[MAX_OUTPUTS];
  void *want[MAX_OUTPUTS], *got[MAX_OUTPUTS];
  const int count = s->plan(p, o);
  if (count == 0) return;
  const int flag = run_guarded(ref, "ref", s, p, count, o, want);
  assert_int_equal(flag, 0);
  for (int b = 0; b < other_count; b++) {
    const int other = run_guarded(others[b], names[b], s, p, count, o, got);
    for (int i = 0; i < count; i++) same_bytes(names[b], s, p, i, got[i], want[i], o[i].bytes);
    if (other != flag) fail_msg("%s on %s: the non-finite flag is %d", s->name, names[b], other);
    release(count, got);
  }
  inputs_kept("a backend", s, p);
  release(count, want);
}

static void check_all(int32_t grains, int64_t sequences, int64_t context, int64_t width, int64_t n, int64_t k) {
  problem p;
  slot_problem_make(&p, grains, sequences, context, width, n, k);
  for (size_t i = 0; i < slot_count; i++) check_slot(&slots[i], &p);
  slot_problem_drop(&p);
}

static void test_small(void **state) {
  (void)state;
  for (int64_t size = 1; size <= 40; size++)
    check_all((int32_t)sample_between(1, 3), sample_between(1, 2), sample_between(1, 4), size, sample_between(1, 40), size);
  for (int64_t size = 1; size <= 40; size++) check_all(1, 1, sample_between(1, 3), 1, size, sample_between(1, 9));
}

static void test_random(void **state) {
  (void)state;
  for (int i = 0; i < 60; i++) {
    const int64_t n = sample_between(1, 300);
    check_all((int32_t)sample_between(1, 4), sample_between(1, 3), sample_between(1, 9), sample_between(1, 300),
              i % 2 ? n : (n + 7) / 8 * 8, sample_between(1, 300));
  }
}

/* Shapes of a real model, and enough rows for several tasks a thread. */
static void test_wide(void **state) {
  (void)state;
  check_all(2, 1, 11, 1408, 40, 1408);
  check_all(1, 2, 17, 297, 297, 160);
  check_all(3, 1, 5, 512, 1408, 33);
  check_all(2, 3, 33, 160, 64, 65);
  check_all(1, 2, 300, 65, 17, 31);
  check_all(1, 1, 1, 300, 2, 300);
}

/* ---- non-finite values ---- */

/* A non-finite value in one row raises the flag everywhere, and every other row keeps its bits. */
static void check_bad_row(const slot *s, problem *p, void *spoilt, size_t size, int64_t ld, int64_t width, uint32_t bits) {
  output o[MAX_OUTPUTS];
  void *want[MAX_OUTPUTS], *got[MAX_OUTPUTS];
  const int count = s->plan(p, o);
  assert_int_equal(run_guarded(ref, "ref", s, p, count, o, want), 0);
  const int64_t row = sample_below(p->m);
  uint8_t *at = (uint8_t *)spoilt + (size_t)(row * ld + sample_below(width)) * size;
  uint8_t kept[4];
  memcpy(kept, at, size);
  if (size == 4)
    memcpy(at, &bits, 4);
  else
    memcpy(at, &(uint16_t){(uint16_t)(bits >> 16)}, 2);
  const int32_t target = p->targets[row];
  p->targets[row] = 0; /* a row without a target has no loss */
  for (int b = -1; b < other_count; b++) {
    const char *name = b < 0 ? "ref" : names[b];
    const int flag = run_guarded(b < 0 ? ref : others[b], name, s, p, count, o, got);
    if (flag != 1) fail_msg("%s on %s: no flag for bits %08x in row %lld", s->name, name, bits, (long long)row);
    for (int i = 0; i < count; i++)
      for (int64_t r = 0; o[i].row && r < p->m; r++)
        if (r != row)
          same_bytes(name, s, p, i, (uint8_t *)got[i] + (size_t)r * o[i].row, (uint8_t *)want[i] + (size_t)r * o[i].row,
                     o[i].row);
    release(count, got);
  }
  p->targets[row] = target;
  memcpy(at, kept, size);
  release(count, want);
}

static void test_nonfinite(void **state) {
  (void)state;
  static const uint32_t bits[] = {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc10000u, 0x7f810000u};
  for (int round = 0; round < 12; round++) {
    problem p;
    slot_problem_make(&p, 2, 1, sample_between(1, 6), sample_between(1, 70), sample_between(1, 50), 9);
    for (size_t v = 0; v < sizeof bits / sizeof *bits; v++) {
      check_bad_row(&slots[SLOT_NORM_BOTH], &p, p.x, 4, p.width, p.width, bits[v]);
      check_bad_row(&slots[SLOT_NORM_BOTH], &p, p.y, 2, p.width, p.width, bits[v]);
      check_bad_row(&slots[SLOT_NORM_X], &p, p.x, 4, p.width, p.width, bits[v]);
      check_bad_row(&slots[SLOT_NORM_Y], &p, p.y, 2, p.width, p.width, bits[v]);
      check_bad_row(&slots[SLOT_GATE], &p, p.x, 4, p.width, p.width, bits[v]);
      check_bad_row(&slots[SLOT_GLU], &p, p.z, 2, p.ldz, 2 * p.width, bits[v]);
      check_bad_row(&slots[SLOT_GRAD], &p, p.g, 4, p.ldg, p.w.n, bits[v]);
      check_bad_row(&slots[SLOT_GRAD_BF16], &p, p.gb, 2, p.ldg, p.w.n, bits[v]);
      /* -inf is a probability of zero, and the loss finite, unless it is the target */
      if (bits[v] != 0xff800000u) check_bad_row(&slots[SLOT_XENT], &p, p.logits, 2, p.width, p.width, bits[v]);
    }
    slot_problem_drop(&p);
  }
}

/* A gradient that is finite and overflows on its way is not finite either. */
static void test_overflow(void **state) {
  (void)state;
  problem p;
  slot_problem_make(&p, 1, 1, 5, 20, 24, 3);
  for (int64_t i = 0; i < p.w.n; i++) p.w.e[i] = 0;
  p.w.e[7] = 127;
  p.g[7] = 0x1p120f;
  int flag;
  for (int b = -1; b < other_count; b++) {
    output o[MAX_OUTPUTS];
    void *out[MAX_OUTPUTS];
    const int count = slots[SLOT_GRAD].plan(&p, o);
    flag = run_guarded(b < 0 ? ref : others[b], b < 0 ? "ref" : names[b], &slots[SLOT_GRAD], &p, count, o, out);
    assert_int_equal(flag, 1);
    release(count, out);
  }
  slot_problem_drop(&p);
}

/* ---- memory, table and bad arguments ---- */

static void test_memory(void **state) {
  (void)state;
  for (int b = -1; b < other_count; b++) {
    arb_backend *be = b < 0 ? ref : others[b];
    arb_assert_ok(arb_backend_validate(be));
    void *memory;
    uint8_t host[777], back[777];
    for (size_t i = 0; i < sizeof host; i++) host[i] = (uint8_t)(i * 7);
    arb_assert_ok(be->ops.alloc(be, sizeof host, &memory));
    assert_int_equal((uintptr_t)memory % 256, 0);
    arb_assert_ok(be->ops.upload(be, memory, host, sizeof host));
    arb_assert_ok(be->ops.fill(be, (uint8_t *)memory + 100, 0x5a, 50));
    arb_assert_ok(be->ops.download(be, back, memory, sizeof back));
    memset(host + 100, 0x5a, 50);
    assert_memory_equal(host, back, sizeof host);
    be->ops.free(be, memory);
    arb_assert_ok(be->ops.alloc(be, 0, &memory));
    be->ops.free(be, memory);
    be->ops.free(be, NULL);
  }
  arb_backend holed = *ref;
  holed.ops.vote_join = NULL;
  arb_assert_fails(arb_backend_validate(&holed), ARB_ERR_UNSUPPORTED, "has no vote_join");
  arb_backend *none = NULL;
  arb_backend_destroy(&none);
  arb_backend_destroy(NULL);
  arb_assert_fails(arb_backend_cpu_create(1, "sse9", &none), ARB_ERR_UNSUPPORTED, "'sse9'");
  arb_assert_fails(arb_backend_cpu_create(0, "scalar", &none), ARB_ERR_ARG, "0 threads");
  assert_null(none);
}

/* The flag is cleared by reading, and a step's values do not outlive begin_step. */
static void test_flag(void **state) {
  (void)state;
  problem p;
  slot_problem_make(&p, 1, 1, 2, 9, 8, 8);
  p.x[3] = NAN;
  for (int b = -1; b < other_count; b++) {
    arb_backend *be = b < 0 ? ref : others[b];
    void *out[MAX_OUTPUTS];
    output o[MAX_OUTPUTS];
    const int count = slots[SLOT_NORM_X].plan(&p, o);
    for (int i = 0; i < count; i++) out[i] = sample_alloc(o[i].bytes);
    int flag = 0;
    arb_assert_ok(slots[SLOT_NORM_X].run(be, &p, out));
    arb_assert_ok(be->ops.take_nonfinite(be, &flag));
    assert_int_equal(flag, 1);
    arb_assert_ok(be->ops.take_nonfinite(be, &flag));
    assert_int_equal(flag, 0);
    /* A post reads and clears it when its turn comes; what happens before it is collected is not its business. */
    int64_t words[3] = {-1, 2, (int64_t)1 << 40}, got[ARB_POST_WORDS] = {0};
    arb_assert_ok(slots[SLOT_NORM_X].run(be, &p, out));
    assert_int_equal(*be->flag, 1);
    arb_assert_ok(be->ops.post(be, words, 3));
    assert_int_equal(*be->flag, 0);
    arb_assert_ok(slots[SLOT_NORM_X].run(be, &p, out));
    memset(words, 0, sizeof words);
    arb_assert_ok(be->ops.collect(be, got, &flag));
    assert_int_equal(flag, 1);
    assert_true(got[0] == -1 && got[1] == 2 && got[2] == (int64_t)1 << 40 && got[3] == 0);
    arb_assert_ok(be->ops.take_nonfinite(be, &flag));
    assert_int_equal(flag, 1);
    for (int i = 0; i < count; i++) free(out[i]);
  }
  slot_problem_drop(&p);
}

static int open_backends(void **state) {
  (void)state;
  static const char *const levels[] = {"scalar", "avx2", "avx512"};
  if (arb_backend_ref_create(&ref) != ARB_OK) return 1;
  for (int l = 0; l < 3; l++)
    for (int threads = 1; threads <= 3; threads++) {
      if (arb_backend_cpu_create(threads, levels[l], &others[other_count]) != ARB_OK) {
        arb_fail_clear();
        continue;
      }
      snprintf(names[other_count], sizeof names[other_count], "%s x %d", others[other_count]->ops.name, threads);
      other_count++;
    }
  return other_count < 3;
}
static int close_backends(void **state) {
  (void)state;
  arb_backend_destroy(&ref);
  for (int b = 0; b < other_count; b++) arb_backend_destroy(&others[b]);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_small),     cmocka_unit_test(test_random),   cmocka_unit_test(test_wide),
      cmocka_unit_test(test_nonfinite), cmocka_unit_test(test_overflow), cmocka_unit_test(test_memory),
      cmocka_unit_test(test_flag),
  };
  return cmocka_run_group_tests(tests, open_backends, close_backends);
}
