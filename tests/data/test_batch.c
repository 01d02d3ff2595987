/* Grains of a step, and validation windows. */
#include "src/data/batch.h"

#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

enum { LENGTH = 1000, CONTEXT = 12, SEQUENCES = 8, ROWS = SEQUENCES * CONTEXT };

/* Bytes that tell their place, all values among them. */
static arb_text make_text(int64_t length) {
  unsigned char *bytes = malloc((size_t)length);
  assert_non_null(bytes);
  for (int64_t i = 0; i < length; i++) bytes[i] = (unsigned char)((i * 7 + i / 256) & 255);
  arb_text text;
  arb_assert_ok(arb_text_copy(bytes, length, &text));
  free(bytes);
  return text;
}

static void test_rows(void **state) {
  (void)state;
  arb_text text = make_text(LENGTH);
  arb_batches b;
  arb_assert_ok(arb_batches_init(&b, &text, 42, CONTEXT, SEQUENCES, 2));
  const int64_t windows = b.order.windows;
  assert_int_equal(windows, LENGTH / CONTEXT - 1);
  int32_t ids[2 * CONTEXT], targets[2 * CONTEXT];
  for (int64_t step = 1; step <= 3 * windows / SEQUENCES; step++) /* across ends of epochs, which do not divide by 8 */
    for (int64_t grain = 0; grain < 4; grain++) {
      arb_assert_ok(arb_batch_fill(&b, step, grain, ids, targets));
      for (int64_t j = 0; j < 2; j++) {
        const int64_t at = arb_order_offset(&b.order, (step - 1) * SEQUENCES + grain * 2 + j);
        for (int64_t t = 0; t < CONTEXT; t++) {
          assert_int_equal(ids[j * CONTEXT + t], text.bytes[at + t]);
          assert_int_equal(targets[j * CONTEXT + t], text.bytes[at + t + 1]);
        }
      }
    }
  arb_text_deinit(&text);
}

/* The samples of a step do not depend on how it is cut into grains. */
static void test_grain_size(void **state) {
  (void)state;
  arb_text text = make_text(LENGTH);
  int32_t whole_ids[ROWS], whole_targets[ROWS], ids[ROWS], targets[ROWS];
  arb_batches whole, cut;
  arb_assert_ok(arb_batches_init(&whole, &text, 1, CONTEXT, SEQUENCES, SEQUENCES));
  for (int64_t step = 1; step < 30; step++) {
    arb_assert_ok(arb_batch_fill(&whole, step, 0, whole_ids, whole_targets));
    for (int64_t each = 1; each < SEQUENCES; each *= 2) {
      arb_assert_ok(arb_batches_init(&cut, &text, 1, CONTEXT, SEQUENCES, each));
      for (int64_t g = SEQUENCES / each - 1; g >= 0; g--)
        arb_assert_ok(arb_batch_fill(&cut, step, g, ids + g * each * CONTEXT, targets + g * each * CONTEXT));
      assert_memory_equal(ids, whole_ids, sizeof ids);
      assert_memory_equal(targets, whole_targets, sizeof targets);
    }
  }
  arb_text_deinit(&text);
}

static void test_untouched(void **state) {
  (void)state;
  arb_text text = make_text(CONTEXT + 1); /* the shortest text: its one window ends with its last byte */
  arb_batches b;
  int32_t ids[2 + CONTEXT], targets[2 + CONTEXT];
  arb_assert_ok(arb_batches_init(&b, &text, 1, CONTEXT, 1, 1));
  ids[0] = targets[0] = ids[CONTEXT + 1] = targets[CONTEXT + 1] = -5;
  arb_assert_ok(arb_batch_fill(&b, 1000, 0, ids + 1, targets + 1));
  assert_int_equal(ids[1], text.bytes[0]);
  assert_int_equal(targets[CONTEXT], text.bytes[CONTEXT]);
  assert_true(ids[0] == -5 && targets[0] == -5 && ids[CONTEXT + 1] == -5 && targets[CONTEXT + 1] == -5);
  arb_text_deinit(&text);
}

static void test_errors(void **state) {
  (void)state;
  arb_text text = make_text(LENGTH);
  arb_batches b;
  int32_t ids[ROWS], targets[ROWS];
  arb_assert_fails(arb_batches_init(&b, &text, 1, CONTEXT, 8, 3), ARB_ERR_ARG, "multiple of 3");
  arb_assert_fails(arb_batches_init(&b, &text, 1, CONTEXT, 0, 1), ARB_ERR_ARG, "multiple");
  arb_assert_fails(arb_batches_init(&b, &text, 1, CONTEXT, 1, 0), ARB_ERR_ARG, "multiple");
  arb_assert_fails(arb_batches_init(&b, &text, 1, LENGTH, 1, 1), ARB_ERR_DATA, "needs at least 1001");
  arb_assert_ok(arb_batches_init(&b, &text, 1, CONTEXT, SEQUENCES, 4));
  arb_assert_fails(arb_batch_fill(&b, 0, 0, ids, targets), ARB_ERR_ARG, "step 0");
  arb_assert_fails(arb_batch_fill(&b, INT64_MAX, 0, ids, targets), ARB_ERR_ARG, "out of range");
  arb_assert_fails(arb_batch_fill(&b, 1, 2, ids, targets), ARB_ERR_ARG, "grain 2 is not in 0..1");
  arb_assert_fails(arb_batch_fill(&b, 1, -1, ids, targets), ARB_ERR_ARG, "grain -1");
  arb_text_deinit(&text);
}

static void test_valid_offsets(void **state) {
  (void)state;
  static const int64_t golden[] = {0, 249, 498, 747};
  int64_t at = -1;
  for (int64_t i = 0; i < 4; i++) {
    arb_assert_ok(arb_batch_valid_offset(LENGTH, CONTEXT, i, 4, &at));
    assert_int_equal(at, golden[i]);
  }
  for (int64_t length = 2; length < 60; length++)
    for (int64_t context = 1; context < length; context++) {
      const int64_t most = (length - 1) / context;
      for (int64_t total = 1; total <= most; total++) {
        int64_t before = -context, step = -1;
        for (int64_t i = 0; i < total; i++) {
          arb_assert_ok(arb_batch_valid_offset(length, context, i, total, &at));
          assert_true(at - before >= context && at + context <= length - 1); /* targets do not overlap, and exist */
          if (i >= 2) assert_int_equal(at - before, step);
          step = at - before;
          before = at;
        }
      }
      arb_assert_fails(arb_batch_valid_offset(length, context, 0, most + 1, &at), ARB_ERR_DATA, "need at least");
    }
}

static void test_valid(void **state) {
  (void)state;
  arb_text text = make_text(LENGTH);
  int32_t ids[CONTEXT], targets[CONTEXT];
  for (int64_t i = 0; i < 4; i++) {
    arb_assert_ok(arb_batch_valid(&text, CONTEXT, i, 4, ids, targets));
    for (int64_t t = 0; t < CONTEXT; t++) {
      assert_int_equal(ids[t], text.bytes[249 * i + t]);
      assert_int_equal(targets[t], text.bytes[249 * i + t + 1]);
    }
  }
  arb_assert_ok(arb_batch_valid(&text, CONTEXT, 82, 83, ids, targets)); /* 83 * 12 + 1 = 997 of 1000 bytes */
  arb_assert_fails(arb_batch_valid(&text, CONTEXT, 0, 84, ids, targets), ARB_ERR_DATA,
                   "has 1000 bytes; 84 windows of context 12 need at least 1009");
  arb_assert_fails(arb_batch_valid(&text, CONTEXT, 4, 4, ids, targets), ARB_ERR_ARG, "window 4 is not in 0..3");
  arb_assert_fails(arb_batch_valid(&text, CONTEXT, -1, 4, ids, targets), ARB_ERR_ARG, "window -1");
  arb_assert_fails(arb_batch_valid(&text, CONTEXT, 0, 0, ids, targets), ARB_ERR_ARG, "no valid request");
  arb_assert_fails(arb_batch_valid(&text, 0, 0, 1, ids, targets), ARB_ERR_ARG, "no valid request");
  arb_assert_fails(arb_batch_valid(&text, INT64_MAX, 0, 2, ids, targets), ARB_ERR_ARG, "no valid request");
  arb_text_deinit(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rows),   cmocka_unit_test(test_grain_size),    cmocka_unit_test(test_untouched),
      cmocka_unit_test(test_errors), cmocka_unit_test(test_valid_offsets), cmocka_unit_test(test_valid),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
