/* Moonshine-base at full size with synthetic weights, against values of the original implementation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dense/dense.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"
#include "tests/sidecar/published.h"
#include "tests/test.h"

enum { SAMPLES = 15360, FRAMES = 38, WIDTH = ARB_MOONSHINE_WIDTH, VOCABULARY = ARB_MOONSHINE_VOCABULARY };
#define BOUND 1e-4
#define WHOLE_BOUND 2e-4

/* Results of the convolutions are published with the channels first. */
static const struct {
  const char *probe;
  int64_t rows, width;
  int channels_first;
  published_row row;
} probes[] = {
    {"conv1", 239, 416, 1, {"tanh(conv1)", {.888537, .645965, .860143, -.691330}, {.677692, .530004}, .0020946, .3890156}},
    {"group norm",
     239,
     416,
     1,
     {"group norm", {1.789613, 1.305773, 1.732979, -1.361629}, {1.391255, 1.097059}, -.0013325, .8478425}},
    {"conv2", 78, 832, 1, {"conv2", {-.113874, 1.256569, .559943, -.109777}, {.159288, .066772}, .2820287, .3980402}},
    {"conv3", 38, 416, 0, {"conv3", {.026520, .305586, .138529, -.139060}, {-.102787, .088261}, .1504240, .2644517}},
    {"encoder layer 0",
     38,
     416,
     0,
     {"encoder layer 0", {.610379, -.003145, -1.165998, -1.206427}, {.943538, -.242967}, .1311408, .7322141}},
    {"encoder output",
     38,
     416,
     0,
     {"encoder output", {1.690229, .034610, .311558, -.735670}, {-.466140, .655917}, -.0012360, .8030894}},
    {"decoder layer 0",
     4,
     416,
     0,
     {"decoder layer 0", {-.944435, .312284, -.405601, 1.619648}, {.081634, 2.328523}, .0576849, 1.1561683}},
    {"decoder output",
     4,
     416,
     0,
     {"decoder output", {-.281725, -1.117626, .478292, .971293}, {-.087024, -.114539}, .0031667, .8029816}},
};
enum { PROBES = sizeof probes / sizeof probes[0] };
static const published_row last_logits = {
    "logits of the last position", {-6.683566, -3.461176, 5.052381, 1.429021}, {-5.379564, 10.861465}, .0183212, 4.7220548};
static const published_row output_int8 = {
    "encoder output, int8", {1.674232, .038196, .313508, -.746900}, {-.475132, .652730}, -.001248, .802934};

static float samples[SAMPLES], encoded[FRAMES * WIDTH], logits[VOCABULARY];

static int fill_inputs(void **state) {
  (void)state;
  arb_synthetic_input("input.moon", SAMPLES, samples);
  return 0;
}

static void check_probe(void *arg, const char *name, const float *x, int64_t rows, int64_t width) {
  unsigned *seen = arg;
  for (int i = 0; i < PROBES; i++) {
    if (strcmp(name, probes[i].probe) != 0) continue;
    assert_int_equal(rows, probes[i].rows);
    assert_int_equal(width, probes[i].width);
    float *turned = published_transposed(x, rows, width);
    published_check(&probes[i].row, probes[i].channels_first ? turned : x, rows * width, BOUND);
    free(turned);
    *seen |= 1u << i;
  }
}

static void compare_whole(const float *x) {
  float *golden = published_golden("moonshine_input.moon_float.f32", (int64_t)FRAMES * WIDTH);
  if (golden == NULL) return;
  const double d = published_difference(x, golden, (int64_t)FRAMES * WIDTH);
  printf("moonshine_input.moon_float.f32: largest difference %.2e\n", d);
  if (!(d <= WHOLE_BOUND)) fail_msg("largest difference %g", d);
  free(golden);
}

static void test_float(void **state) {
  (void)state;
  static const int32_t ids[4] = {1, 5, 300, 32767};
  arb_moonshine *m = NULL;
  unsigned seen = 0;
  int64_t frames = 0;
  const arb_sidecar_options o = {
      .float_weights = true, .decoder = true, .threads = 2, .probe = check_probe, .probe_arg = &seen};
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &o, &m));
  arb_assert_ok(arb_moonshine_features(m, samples, SAMPLES, encoded, &frames));
  assert_int_equal(frames, FRAMES);
  compare_whole(encoded);
  arb_assert_ok(arb_moonshine_logits(m, encoded, FRAMES, ids, 4, logits));
  published_check(&last_logits, logits, VOCABULARY, BOUND);
  assert_int_equal(seen, (1u << PROBES) - 1);
  arb_moonshine_destroy(&m);
  assert_null(m);
}

static void test_int8(void **state) {
  (void)state;
  arb_moonshine *m = NULL;
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){.threads = 2}, &m));
  arb_assert_ok(arb_moonshine_features(m, samples, SAMPLES, encoded, NULL));
  published_check(&output_int8, encoded, (int64_t)FRAMES * WIDTH, BOUND);
  arb_moonshine_destroy(&m);
}

typedef struct {
  int calls;
  float last[8][WIDTH]; /* the decoder's output after the last token, call by call */
} outputs;

static void keep_output(void *arg, const char *name, const float *x, int64_t rows, int64_t width) {
  outputs *o = arg;
  if (strcmp(name, "decoder output") != 0) return;
  assert_true(o->calls < 8);
  memcpy(o->last[o->calls++], x + (rows - 1) * width, WIDTH * sizeof *x);
}

/* Greedy decoding, one token at a time over kept keys and values, gives the bits of the whole sequence at once. */
static void test_transcribe(void **state) {
  (void)state;
  enum { MOST_TOKENS = 6 };
  static float whole[VOCABULARY];
  static outputs stepwise, at_once;
  int32_t ids[MOST_TOKENS + 1] = {1}, again[ARB_MOONSHINE_POSITIONS];
  int64_t count = 0, by_time = 0;
  arb_moonshine *m = NULL, *other = NULL;
  arb_sidecar_options o = {.threads = 2, .decoder = true, .probe = keep_output, .probe_arg = &stepwise};
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &o, &m));
  arb_assert_ok(arb_moonshine_transcribe(m, samples, SAMPLES, MOST_TOKENS, ids + 1, &count));
  assert_true(count >= 2 && count <= MOST_TOKENS && stepwise.calls >= count);
  arb_assert_ok(arb_moonshine_transcribe(m, samples, SAMPLES, 1, again, &by_time));
  assert_true(by_time == 1 && again[0] == ids[1]);
  o.probe_arg = &at_once;
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &o, &other));
  arb_assert_ok(arb_moonshine_features(other, samples, SAMPLES, encoded, NULL));
  for (int64_t i = 1; i <= count; i++) {
    int32_t best = 0;
    arb_assert_ok(arb_moonshine_logits(other, encoded, FRAMES, ids, i, whole));
    for (int32_t j = 1; j < VOCABULARY; j++)
      if (whole[j] > whole[best]) best = j;
    assert_int_equal(best, ids[i]);
    assert_memory_equal(stepwise.last[i - 1], at_once.last[i - 1], sizeof stepwise.last[0]);
  }
  arb_moonshine_destroy(&other);
  stepwise.calls = 0;
  arb_assert_ok(arb_moonshine_transcribe(m, samples, SAMPLES, 0, again, &by_time)); /* 6.5 a second and one */
  assert_true(by_time <= 7 && memcmp(again, ids + 1, (size_t)(count < by_time ? count : by_time) * sizeof *again) == 0);
  const int32_t outside = VOCABULARY;
  arb_assert_fails(arb_moonshine_logits(m, encoded, FRAMES, &outside, 1, whole), ARB_ERR_DATA, "token 0 is 32768");
  arb_moonshine_destroy(&m);
}

/* The same bits for any number of threads, on every level, and after a longer input. */
static void test_same_bits(void **state) {
  (void)state;
  enum { LONG = 40000 };
  static float again[FRAMES * WIDTH], longer[LONG], unused[104 * WIDTH];
  static const arb_sidecar_options others[] = {{.threads = 1}, {.threads = 3}, {.threads = 2, .isa = "avx2"}};
  arb_moonshine *m = NULL;
  arb_synthetic_input("longer", LONG, longer);
  assert_true(arb_moonshine_frames(LONG) <= 104);
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){.threads = 2}, &m));
  arb_assert_ok(arb_moonshine_features(m, samples, SAMPLES, encoded, NULL));
  arb_assert_fails(arb_moonshine_transcribe(m, samples, SAMPLES, 1, NULL, NULL), ARB_ERR_ARG, "without its decoder");
  arb_assert_fails(arb_moonshine_features(m, samples, 894, encoded, NULL), ARB_ERR_DATA, "894 samples");
  arb_moonshine_destroy(&m);
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    if (others[i].isa && arb_dense_pick(others[i].isa) == NULL) continue;
    arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &others[i], &m));
    arb_assert_ok(arb_moonshine_features(m, longer, LONG, unused, NULL));
    arb_assert_ok(arb_moonshine_features(m, samples, SAMPLES, again, NULL));
    assert_memory_equal(again, encoded, sizeof encoded);
    arb_moonshine_destroy(&m);
  }
}

static void test_frames(void **state) {
  (void)state;
  static const int64_t known[][2] = {{15360, 38},   {16000, 40},    {8000, 19}, {24000, 61}, {32000, 82},
                                     {160000, 415}, {480000, 1248}, {895, 1},   {894, 0},    {0, 0}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) assert_int_equal(arb_moonshine_frames(known[i][0]), known[i][1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_float),     cmocka_unit_test(test_int8),   cmocka_unit_test(test_transcribe),
      cmocka_unit_test(test_same_bits), cmocka_unit_test(test_frames),
  };
  return cmocka_run_group_tests(tests, fill_inputs, NULL);
}
