#include "dist/loopback/loopback.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tests/dist/exact.h"
#include "tests/test.h"

static const int sizes[] = {1, 2, 3, 4, 8};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static void run_case(void **state) {
  const exact_case *e = *state;
  for (int i = 0; i < SIZES; i++) {
    print_message("           %d ranks\n", sizes[i]);
    arb_assert_ok(arb_loopback_run(sizes[i], e->run, NULL));
  }
}

/* Rank `rank` leaves with `status` after `before` collectives; the others go on. seen[r] is what rank r was told. */
typedef struct {
  int rank, before;
  arb_status status;
  arb_status got[8];
  char seen[8][256];
} leaver;

static arb_status leave_early(arb_comm *c, void *arg) {
  leaver *l = arg;
  int64_t x = 1;
  for (int i = 0; i < l->before; i++) ARB_TRY(arb_comm_barrier(c));
  if (c->rank == l->rank) return l->status != ARB_OK ? ARB_FAIL(l->status, "shard 4 is short") : ARB_OK;
  const arb_status st = arb_comm_all_reduce(c, &x, 1, ARB_I64, ARB_SUM, ARB_TRAFFIC_VOTES);
  l->got[c->rank] = st;
  snprintf(l->seen[c->rank], sizeof l->seen[c->rank], "%s", arb_fail_message());
  return st;
}

static void a_leaving_rank_releases_the_others(void **state) {
  (void)state;
  for (int size = 2; size <= 8; size++) {
    for (int rank = 0; rank < size; rank++) {
      leaver l = {.rank = rank, .before = rank % 3, .status = ARB_ERR_DATA};
      char who[64], call[64];
      snprintf(who, sizeof who, "rank %d has left with status 'data'", rank);
      snprintf(call, sizeof call, "all_reduce #%d (votes)", l.before + 1);
      arb_assert_fails(arb_loopback_run(size, leave_early, &l), ARB_ERR_DATA, "shard 4 is short");
      for (int r = 0; r < size; r++) {
        if (r == rank) continue;
        assert_int_equal(l.got[r], ARB_ERR_PEER);
        if (strstr(l.seen[r], who) == NULL || strstr(l.seen[r], call) == NULL) fail_msg("rank %d saw '%s'", r, l.seen[r]);
      }
    }
  }
}

static void a_rank_that_leaves_without_error_releases_too(void **state) {
  (void)state;
  leaver l = {.rank = 1, .status = ARB_OK};
  arb_assert_fails(arb_loopback_run(4, leave_early, &l), ARB_ERR_PEER, "rank 1 has left with status 'ok'");
}

static arb_status fail_apart(arb_comm *c, void *arg) {
  (void)arg;
  static const arb_status own[] = {ARB_OK, ARB_REQUEUE, ARB_ERR_IO, ARB_ERR_DATA};
  return own[c->rank] == ARB_OK ? ARB_OK : ARB_FAIL(own[c->rank], "message of %d", c->rank);
}

static void the_worst_status_comes_back_with_its_message(void **state) {
  (void)state;
  arb_assert_ok(arb_loopback_run(1, fail_apart, NULL));
  arb_assert_fails(arb_loopback_run(2, fail_apart, NULL), ARB_REQUEUE, "rank 1: message of 1");
  (void)ARB_FAIL(ARB_ERR_IO, "an older message");
  assert_int_equal(arb_loopback_run(4, fail_apart, NULL), ARB_ERR_IO);
  assert_string_equal(arb_fail_message(), "rank 2: message of 2");
  arb_fail_clear();
}

static arb_status differ(arb_comm *c, void *arg) {
  const int how = *(const int *)arg;
  const bool odd = c->rank == 1;
  int64_t x[4] = {0};
  if (how == 0 && odd) return arb_comm_barrier(c);
  if (how == 5) return arb_comm_broadcast(c, x, 1, ARB_I32, odd ? 1 : 0, ARB_TRAFFIC_ROWS);
  return arb_comm_all_reduce(c, x, how == 1 && odd ? 2 : 1, how == 2 && odd ? ARB_I16 : ARB_I32,
                             how == 3 && odd ? ARB_MAX : ARB_SUM, ARB_TRAFFIC_ROWS);
}

static void ranks_that_call_different_things_are_told(void **state) {
  (void)state;
  for (int how = 0; how <= 5; how++) {
    if (how == 4)
      arb_assert_ok(arb_loopback_run(3, differ, &how));
    else
      arb_assert_fails(arb_loopback_run(3, differ, &how), ARB_ERR_ARG, "ranks differ");
  }
}

/* Two ranks bring v each; the sum 2 v fits the type or not. */
typedef struct {
  arb_dtype type;
  uint64_t v;
  bool scatter;
} summand;

static arb_status add_twice(arb_comm *c, void *arg) {
  const summand *s = arg;
  uint64_t in[2] = {0}, out[1] = {0};
  memcpy(in, &s->v, arb_dtype_size(s->type));
  if (!s->scatter) return arb_comm_all_reduce(c, in, 1, s->type, ARB_SUM, ARB_TRAFFIC_VOTES);
  return arb_comm_reduce_scatter(c, in, out, 1, s->type, ARB_SUM, ARB_TRAFFIC_VOTES);
}

static void a_sum_that_overflows_is_told_to_all(void **state) {
  (void)state;
  static const struct {
    arb_dtype type;
    uint64_t fits, over;
  } cases[] = {
      {ARB_I8, 63, 64},
      {ARB_I8, (uint64_t)-64, (uint64_t)-65},
      {ARB_U8, 127, 128},
      {ARB_I16, 16383, 16384},
      {ARB_U16, 32767, 32768},
      {ARB_I32, 1073741823, 1073741824},
      {ARB_I64, (UINT64_C(1) << 62) - 1, UINT64_C(1) << 62},
      {ARB_I64, (uint64_t)INT64_MIN / 2 + (UINT64_C(1) << 63), (uint64_t)INT64_MIN},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    for (int scatter = 0; scatter <= 1; scatter++) {
      summand s = {cases[i].type, cases[i].fits, scatter != 0};
      arb_assert_ok(arb_loopback_run(2, add_twice, &s));
      s.v = cases[i].over;
      arb_assert_fails(arb_loopback_run(2, add_twice, &s), ARB_ERR_ARG, "does not fit");
    }
  }
}

static arb_status wrap(arb_comm *c, void *arg) {
  (void)arg;
  uint32_t a = UINT32_MAX - 1;
  uint64_t b = UINT64_MAX - 1;
  ARB_TRY(arb_comm_all_reduce(c, &a, 1, ARB_U32, ARB_SUM, ARB_TRAFFIC_CONTROL));
  ARB_TRY(arb_comm_all_reduce(c, &b, 1, ARB_U64, ARB_SUM, ARB_TRAFFIC_CONTROL));
  ARB_REQUIRE(a == UINT32_MAX - 5 && b == UINT64_MAX - 5, ARB_ERR_DATA, "wide unsigned sums wrap");
  return ARB_OK;
}

static void wide_unsigned_sums_wrap(void **state) {
  (void)state;
  arb_assert_ok(arb_loopback_run(3, wrap, NULL));
}

static void rank_counts_are_checked(void **state) {
  (void)state;
  arb_assert_fails(arb_loopback_run(0, wrap, NULL), ARB_ERR_ARG, "0 ranks");
  arb_assert_fails(arb_loopback_run(ARB_LOOPBACK_RANKS + 1, wrap, NULL), ARB_ERR_ARG, "65 ranks");
}

int main(void) {
  static const struct CMUnitTest own[] = {
      cmocka_unit_test(a_leaving_rank_releases_the_others),
      cmocka_unit_test(a_rank_that_leaves_without_error_releases_too),
      cmocka_unit_test(the_worst_status_comes_back_with_its_message),
      cmocka_unit_test(ranks_that_call_different_things_are_told),
      cmocka_unit_test(a_sum_that_overflows_is_told_to_all),
      cmocka_unit_test(wide_unsigned_sums_wrap),
      cmocka_unit_test(rank_counts_are_checked),
  };
  enum { OWN = sizeof own / sizeof own[0] };
  struct CMUnitTest tests[EXACT_CASES + OWN];
  for (int i = 0; i < EXACT_CASES; i++)
    tests[i] = (struct CMUnitTest){exact_cases[i].name, run_case, NULL, NULL, (void *)(uintptr_t)&exact_cases[i]};
  memcpy(tests + EXACT_CASES, own, sizeof own);
  return cmocka_run_group_tests_name("loopback", tests, NULL, NULL);
}
