/* What sharded state rests on: packed trits keep every trit, and slices of a stack, each started and updated alone with the
 * sums over all of them, are the rows of the whole stack. */
#include "kernels/backend.h"
#include "kernels/common/trit.h"
#include "tests/kernels/samples.h"

enum { MOST_N = 40, MOST_K = 70, MOST = MOST_N * MOST_K };

static arb_backend *be;

/* ---- packing ---- */

static void test_bytes(void **state) {
  (void)state;
  for (int byte = 0; byte < 243; byte++) {
    uint8_t code[ARB_TRITS_PER_BYTE];
    int value = byte;
    for (int i = 0; i < ARB_TRITS_PER_BYTE; i++, value /= 3) {
      code[i] = arb_trits_code((uint8_t)byte, i);
      assert_int_equal(arb_code_trit(code[i]), value % 3 - 1);
      assert_int_equal(arb_code_accumulator(code[i]), 0);
    }
    assert_int_equal(arb_trits_pack(code, ARB_TRITS_PER_BYTE), byte);
  }
  for (int code = 0; code < 255; code++) {
    const uint8_t one = (uint8_t)code;
    assert_int_equal(arb_code_trit(arb_trits_code(arb_trits_pack(&one, 1), 0)), arb_code_trit(one));
  }
  assert_int_equal(arb_packed_bytes(0), 0);
  assert_int_equal(arb_packed_bytes(5), 1);
  assert_int_equal(arb_packed_bytes(6), 2);
  assert_int_equal(arb_packed_bytes(512), 103);
}

/* Rows packed block by block, as the ranks do, and unpacked in one go. */
static void test_blocks(void **state) {
  (void)state;
  static uint8_t code[MOST], packed[2 * MOST], got[MOST];
  for (int64_t k = 1; k <= MOST_K; k++) {
    const int64_t n = sample_between(1, MOST_N), per_block = sample_between(1, n), width = (k + 4) / 5,
                  stride = per_block * width + sample_below(4);
    for (int64_t i = 0; i < n * k; i++) code[i] = (uint8_t)sample_below(255);
    for (int64_t r = 0; r < n; r += per_block)
      arb_assert_ok(
          be->ops.pack_trits(be, code + r * k, n - r < per_block ? n - r : per_block, k, packed + r / per_block * stride));
    arb_assert_ok(be->ops.unpack_trits(be, packed, stride, per_block, n, k, got));
    for (int64_t i = 0; i < n * k; i++) {
      assert_int_equal(arb_code_trit(got[i]), arb_code_trit(code[i]));
      assert_int_equal(arb_code_accumulator(got[i]), 0);
    }
    arb_assert_ok(be->ops.join_rows(be, packed, stride, per_block, n, width, got));
    for (int64_t r = 0; r < n; r++)
      assert_memory_equal(got + r * width, packed + r / per_block * stride + r % per_block * width, (size_t)width);
  }
}

/* ---- slices ---- */

typedef struct {
  uint8_t code[MOST];
  int8_t e[MOST_N], p[MOST_N], votes[MOST];
  int32_t r[MOST_N], c[ARB_MAX_MEMBERS * MOST_K], m[ARB_MAX_MEMBERS];
  uint64_t s[MOST_N], csum[ARB_MAX_MEMBERS * MOST_K], msum[ARB_MAX_MEMBERS];
  int32_t top[ARB_MAX_MEMBERS], low[ARB_MAX_MEMBERS];
  int64_t flips[2];
} everything;

static void place(arb_stack *w, everything *x) {
  w->code = x->code;
  w->e = x->e;
  w->p = x->p;
  w->r = x->r;
  w->c = x->c;
  w->m = x->m;
  w->votes = x->votes;
}
static arb_update_work work_of(everything *x) { return (arb_update_work){x->s, x->top, x->low, x->csum, x->msum, NULL}; }

/* Rows of the whole that the slice holds: its arrays begin with them. */
static void same_rows(const arb_stack *slice, const everything *got, const everything *want) {
  const int64_t at = slice->first, n = slice->n, k = slice->k;
  assert_memory_equal(got->code, want->code + at * k, (size_t)(n * k));
  assert_memory_equal(got->e, want->e + at, (size_t)n);
  assert_memory_equal(got->p, want->p + at, (size_t)n);
  assert_memory_equal(got->r, want->r + at, (size_t)n * 4);
  assert_memory_equal(got->c, want->c, (size_t)(slice->members * k) * 4);
  assert_memory_equal(got->m, want->m, (size_t)slice->members * 4);
}

static void test_slices(void **state) {
  (void)state;
  enum { PARTS = 5 };
  static everything whole, part[PARTS];
  int64_t flipped = 0;
  for (int round = 0; round < 100; round++) {
    arb_stack w = {.id = sample_u32(), .uses = 1, .members = (int32_t)sample_between(1, 3), .k = sample_between(1, MOST_K)};
    for (int m = 0; m < w.members; m++) w.begin[m + 1] = w.begin[m] + sample_between(1, MOST_N / 3);
    w.n = w.begin[w.members];
    place(&w, &whole);
    memset(&whole, 0, sizeof whole);
    arb_stack slice[PARTS];
    for (int i = 0; i < PARTS; i++) { /* some without rows */
      const int64_t first = i ? slice[i - 1].first + slice[i - 1].n : 0;
      slice[i] =
          arb_stack_slice(&w, first, i == PARTS - 1 ? w.n - first : sample_between(0, (w.n - first) / 2 + (w.n > first)));
      memset(&part[i], 0, sizeof part[i]);
      place(&slice[i], &part[i]);
    }
    arb_assert_ok(be->ops.begin_step(be, sample_u64(), 0, 0.0f));
    arb_assert_ok(be->ops.init_stack(be, &w));
    for (int i = 0; i < PARTS; i++) {
      arb_assert_ok(be->ops.init_stack(be, &slice[i]));
      same_rows(&slice[i], &part[i], &whole);
    }
    for (uint32_t step = 1; step <= 3; step++) {
      const int empty = (int)sample_below(6);
      for (int64_t n = 0; n < w.n; n++) {
        const int silent = (n >= w.begin[1] && empty == 0) || sample_below(7) == 0;
        for (int64_t k = 0; k < w.k; k++) whole.votes[n * w.k + k] = (int8_t)(silent ? 0 : sample_between(-90, 90));
      }
      const arb_update_work work = work_of(&whole);
      arb_assert_ok(be->ops.begin_step(be, 99, step, 8.0f));
      arb_assert_ok(be->ops.vote_rows(be, &w, &work));
      arb_assert_ok(be->ops.vote_columns(be, &w, &work));

      int32_t top[ARB_MAX_MEMBERS], low[ARB_MAX_MEMBERS];
      for (int m = 0; m < w.members; m++) top[m] = INT32_MIN, low[m] = INT32_MAX;
      for (int i = 0; i < PARTS; i++) {
        const arb_update_work mine = work_of(&part[i]);
        memcpy(part[i].votes, whole.votes + slice[i].first * w.k, (size_t)(slice[i].n * w.k));
        arb_assert_ok(be->ops.vote_rows(be, &slice[i], &mine));
        for (int m = 0; m < w.members; m++) {
          top[m] = part[i].top[m] > top[m] ? part[i].top[m] : top[m];
          low[m] = part[i].low[m] < low[m] ? part[i].low[m] : low[m];
        }
      }
      assert_memory_equal(top, whole.top, (size_t)w.members * 4);
      assert_memory_equal(low, whole.low, (size_t)w.members * 4);
      uint64_t csum[ARB_MAX_MEMBERS * MOST_K] = {0}, msum[ARB_MAX_MEMBERS] = {0};
      for (int i = 0; i < PARTS; i++) {
        const arb_update_work mine = work_of(&part[i]);
        memcpy(part[i].top, top, sizeof top);
        memcpy(part[i].low, low, sizeof low);
        arb_assert_ok(be->ops.vote_columns(be, &slice[i], &mine));
        for (int64_t j = 0; j < w.members * w.k; j++) csum[j] += part[i].csum[j];
        for (int m = 0; m < w.members; m++) msum[m] += part[i].msum[m];
      }
      assert_memory_equal(csum, whole.csum, (size_t)(w.members * w.k) * 8);
      assert_memory_equal(msum, whole.msum, (size_t)w.members * 8);

      arb_assert_ok(be->ops.update(be, &w, &work, 4, 31, whole.flips));
      int64_t flips[2] = {0, 0};
      for (int i = 0; i < PARTS; i++) {
        const arb_update_work mine = work_of(&part[i]);
        memcpy(part[i].csum, csum, sizeof csum);
        memcpy(part[i].msum, msum, sizeof msum);
        arb_assert_ok(be->ops.update(be, &slice[i], &mine, 4, 31, part[i].flips));
        same_rows(&slice[i], &part[i], &whole);
        flips[0] += part[i].flips[0];
        flips[1] += part[i].flips[1];
      }
      assert_memory_equal(flips, whole.flips, sizeof flips);
    }
    flipped += whole.flips[0];
  }
  assert_true(flipped > 1000);
}

static int open_reference(void **state) {
  (void)state;
  return arb_backend_ref_create(&be) == ARB_OK ? 0 : -1;
}
static int close_reference(void **state) {
  (void)state;
  arb_backend_destroy(&be);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_bytes), cmocka_unit_test(test_blocks),
                                     cmocka_unit_test(test_slices)};
  return cmocka_run_group_tests_name("shard_meaning", tests, open_reference, close_reference);
}
