/* DINOv2-small at full size with synthetic weights, against values of the original implementation. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dense/dense.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"
#include "tests/sidecar/published.h"
#include "tests/test.h"

enum { TOKENS = 257, WIDTH = ARB_DINO_WIDTH, PIXELS = 3 * 224 * 224 };
#define BOUND 1e-4
#define WHOLE_BOUND 2e-4

static const published_row embeddings = {
    "embeddings", {-.647835, -.632490, -.390275, -.034160}, {.433070, -.850253}, -.0031563, .4992971};
static const published_row layer0 = {
    "after layer 0", {-.410228, .113326, -.929611, .143586}, {-.887055, -.854898}, -.0069853, .7335746};
static const published_row last = {
    "last hidden state", {-.964761, .004185, -2.013402, .424568}, {.602840, .344568}, -.0016296, .7980719};
static const published_row last_old = {
    "last hidden state, old positions", {-.981018, .021164, -2.002413, .413312}, {.741242, .469072}, -.0016345, .7979553};
static const published_row last_int8 = {
    "last hidden state, int8", {-.957657, .013692, -2.010159, .398448}, {.597224, .343987}, -.001629, .797914};

static float pixels[PIXELS], hidden[TOKENS * WIDTH];

static int fill_inputs(void **state) {
  (void)state;
  arb_synthetic_input("input.dino", PIXELS, pixels);
  return 0;
}

static void check_probe(void *arg, const char *name, const float *x, int64_t rows, int64_t width) {
  int *seen = arg;
  if (strcmp(name, "embeddings") == 0) published_check(&embeddings, x, rows * width, BOUND);
  if (strcmp(name, "layer 0") == 0) published_check(&layer0, x, rows * width, BOUND);
  (*seen)++;
}

static void run(const arb_sidecar_options *o, float *out) {
  arb_dino *d = NULL;
  arb_assert_ok(arb_dino_open(ARB_SIDECAR_SYNTHETIC, o, &d));
  arb_assert_ok(arb_dino_hidden(d, pixels, out));
  arb_dino_destroy(&d);
  assert_null(d);
}

static void compare_whole(const char *name, const float *x) {
  float *golden = published_golden(name, TOKENS * WIDTH);
  if (golden == NULL) return;
  const double d = published_difference(x, golden, TOKENS * WIDTH);
  printf("%s: largest difference %.2e\n", name, d);
  if (!(d <= WHOLE_BOUND)) fail_msg("%s: largest difference %g", name, d);
  free(golden);
}

static void test_float(void **state) {
  (void)state;
  int seen = 0;
  run(&(arb_sidecar_options){.float_weights = true, .threads = 2, .probe = check_probe, .probe_arg = &seen}, hidden);
  assert_int_equal(seen, 13);
  published_check(&last, hidden, TOKENS * WIDTH, BOUND);
  compare_whole("dino_input.dino_float.f32", hidden);
}

static void test_old_positions(void **state) {
  (void)state;
  run(&(arb_sidecar_options){.float_weights = true, .old_positions = true, .threads = 2}, hidden);
  published_check(&last_old, hidden, TOKENS * WIDTH, BOUND);
}

static void test_int8(void **state) {
  (void)state;
  run(&(arb_sidecar_options){.threads = 2}, hidden);
  published_check(&last_int8, hidden, TOKENS * WIDTH, BOUND);
  compare_whole("dino_input.dino_int8.f32", hidden);
}

/* The same bits for any number of threads, on every level, and whatever was encoded before. */
static void test_same_bits(void **state) {
  (void)state;
  static float again[TOKENS * WIDTH], patches[ARB_DINO_PATCHES * WIDTH], upside_down[PIXELS];
  static const arb_sidecar_options others[] = {{.threads = 1}, {.threads = 3}, {.threads = 2, .isa = "avx2"}};
  run(&(arb_sidecar_options){.threads = 2}, hidden);
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    if (others[i].isa && arb_dense_pick(others[i].isa) == NULL) continue;
    arb_dino *d = NULL;
    arb_assert_ok(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &others[i], &d));
    for (int64_t j = 0; j < PIXELS; j++) upside_down[j] = pixels[PIXELS - 1 - j];
    arb_assert_ok(arb_dino_hidden(d, upside_down, again));
    assert_true(published_difference(again, hidden, TOKENS * WIDTH) > 0.1);
    arb_assert_ok(arb_dino_hidden(d, pixels, again));
    assert_memory_equal(again, hidden, sizeof hidden);
    arb_assert_ok(arb_dino_features(d, pixels, patches));
    assert_memory_equal(patches, hidden + WIDTH, sizeof patches);
    arb_dino_destroy(&d);
  }
}

static void test_not_finite(void **state) {
  (void)state;
  arb_dino *d = NULL;
  arb_assert_ok(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){.threads = 2}, &d));
  pixels[77] = NAN;
  arb_assert_fails(arb_dino_hidden(d, pixels, hidden), ARB_ERR_NUMERIC, "pixels: value 77");
  arb_dino_destroy(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_float),     cmocka_unit_test(test_old_positions), cmocka_unit_test(test_int8),
      cmocka_unit_test(test_same_bits), cmocka_unit_test(test_not_finite),
  };
  return cmocka_run_group_tests(tests, fill_inputs, NULL);
}
