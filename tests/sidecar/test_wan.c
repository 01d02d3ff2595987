/* The Wan 2.1 video VAE at full size with synthetic weights, against values of the original implementation (Wan-Video/Wan2.1,
 * float weights). The int8 rows are our own: the same arithmetic written in PyTorch 2.15 on dequantised weights, which agrees
 * with the original's rows in float. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/sidecar/source.h"
#include "src/sidecar/wan.h"
#include "tests/sidecar/published.h"
#include "tests/test.h"

enum { H = 32, W = 48, LH = H / 8, LW = W / 8 };
/* Relative to the mean magnitude of the array. */
#define BOUND 1e-4

static const published_row opened = {
    "encoder.conv1", {.052245, .375515, .053005, .529654}, {.549998, -.664122}, -.0021529, .2598647};
static const published_row first_block = {
    "after downsamples.0", {.109309, .501836, -.134409, .669417}, {.156193, -.699762}, -.0048955, .3785561};
static const published_row mean1 = {
    "mean, T = 1", {.232954, -.132468, .110359, .110490}, {-.191434, -.276578}, .0198146, .2657922};
static const published_row variance1 = {
    "logvar, T = 1", {.021214, .415933, .074055, -.054928}, {-.110022, .256365}, .0588626, .2337668};
static const published_row normalised1 = {
    "normalised latent, T = 1", {.351282, .221626, .307784, .307831}, {.052539, .008102}, .0786253, .3194319};
static const published_row mean5 = {
    "mean, T = 5", {.035711, -.116409, .173366, -.080943}, {-.374340, .088833}, .0337623, .2843926};
static const published_row variance5 = {
    "logvar, T = 5", {.111456, .100099, .043002, .240206}, {-.462373, -.206117}, -.0322895, .3098274};
static const published_row mean9 = {
    "mean, T = 9", {.381418, -.552837, -.562188, .016933}, {.187920, -.059715}, .0362338, .3223720};
static const published_row decoded1 = {
    "decoded, T' = 1", {.088281, -.175741, -.365776, -.222731}, {-.202761, -.130896}, .0397477, .2118652};
static const published_row decoded2 = {
    "decoded, T' = 2", {.201117, .226628, .007632, -.064762}, {-.075017, -.234012}, .2471116, .4097045};
static const published_row decoded3 = {
    "decoded, T' = 3", {-.001355, -.027790, -.058333, .199549}, {.103332, -.055653}, .2994206, .4606149};

static const published_row int8_mean1 = {
    "int8 mean, T = 1", {.231694, -.131255, .110998, .109491}, {-.185591, -.276171}, .0195576, .2658300};
static const published_row int8_variance1 = {
    "int8 logvar, T = 1", {.020910, .416939, .071113, -.054432}, {-.111080, .261267}, .0586589, .2339232};
static const published_row int8_mean5 = {
    "int8 mean, T = 5", {.033741, -.114972, .174782, -.081538}, {-.376819, .081397}, .0336661, .2848008};
static const published_row int8_decoded2 = {
    "int8 decoded, T' = 2", {.199230, .231569, .010466, -.061397}, {-.074170, -.237726}, .2463134, .4092937};
static const published_row all_int8_mean5 = {
    "conv_int8 mean, T = 5", {.034646, -.116544, .174399, -.077273}, {-.373436, .084281}, .0339565, .2846827};
static const published_row all_int8_decoded2 = {
    "conv_int8 decoded, T' = 2", {.200998, .232667, .011548, -.063149}, {-.078212, -.238552}, .2467946, .4100157};

static void check(const published_row *row, const float *x, int64_t count) {
  published_check(row, x, count, BOUND * row->magnitude);
}

static float *input(const char *name, int64_t count) {
  float *x = malloc((size_t)count * sizeof *x);
  assert_non_null(x);
  arb_synthetic_input(name, count, x);
  return x;
}

static void check_probe(void *arg, const char *name, const float *x, int64_t rows, int64_t width) {
  int *seen = arg;
  const published_row *row = strcmp(name, "encoder.conv1") == 0           ? &opened
                             : strcmp(name, "encoder.downsamples.0") == 0 ? &first_block
                                                                          : NULL;
  if (row == NULL || (*seen)++ >= 2) return; /* of the first frame */
  float *planes = published_transposed(x, rows, width);
  check(row, planes, rows * width);
  free(planes);
}

static void encode(arb_wan *v, int64_t t, const char *name, arb_wan_form form, const published_row *mean,
                   const published_row *variance) {
  float *frames = input(name, 3 * t * H * W);
  const int64_t count = 16 * (1 + (t - 1) / 4) * LH * LW;
  float *latent = malloc((size_t)count * sizeof *latent), *logvar = malloc((size_t)count * sizeof *logvar);
  assert_true(latent && logvar);
  arb_assert_ok(arb_wan_encode(v, frames, t, H, W, form, latent, variance ? logvar : NULL));
  check(mean, latent, count);
  if (variance) check(variance, logvar, count);
  free(frames);
  free(latent);
  free(logvar);
}

static void decode(arb_wan *v, int64_t t, const char *name, const published_row *row) {
  float *latent = input(name, 16 * t * LH * LW);
  const int64_t count = 3 * (4 * t - 3) * H * W;
  float *frames = malloc((size_t)count * sizeof *frames);
  assert_non_null(frames);
  arb_assert_ok(arb_wan_decode(v, latent, t, LH, LW, ARB_WAN_RAW, false, frames));
  check(row, frames, count);
  free(latent);
  free(frames);
}

static void test_published(void **state) {
  (void)state;
  arb_wan *v = NULL;
  int seen = 0;
  const arb_sidecar_options o = {.float_weights = true, .threads = 2, .probe = check_probe, .probe_arg = &seen};
  arb_assert_ok(arb_wan_open(ARB_SIDECAR_SYNTHETIC, &o, &v));
  encode(v, 1, "input.wan.T1", ARB_WAN_RAW, &mean1, &variance1);
  assert_int_equal(seen, 2);
  encode(v, 1, "input.wan.T1", ARB_WAN_NORMALISED, &normalised1, NULL);
  decode(v, 1, "input.wanz.T1", &decoded1);
  if (!PUBLISHED_QUICK) {
    encode(v, 5, "input.wan.T5", ARB_WAN_RAW, &mean5, &variance5);
    encode(v, 9, "input.wan.T9", ARB_WAN_RAW, &mean9, NULL);
    decode(v, 2, "input.wanz.T2", &decoded2);
    decode(v, 3, "input.wanz.T3", &decoded3);
  }
  const arb_sidecar_report *r = arb_wan_report(v);
  assert_int_equal(r->all.tensors, 194);
  assert_int_equal(r->all.parameters, 126892531);
  assert_int_equal(r->all.quantized, 0);
  arb_wan_destroy(&v);
  assert_null(v);
}

/* The published scheme: Conv2d in int8, Conv3d left alone. */
static void test_int8(void **state) {
  (void)state;
  arb_wan *v = NULL;
  arb_assert_ok(arb_wan_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){.threads = 2}, &v));
  encode(v, 1, "input.wan.T1", ARB_WAN_RAW, &int8_mean1, &int8_variance1);
  if (!PUBLISHED_QUICK) {
    encode(v, 5, "input.wan.T5", ARB_WAN_RAW, &int8_mean5, NULL);
    decode(v, 2, "input.wanz.T2", &int8_decoded2);
  }
  const arb_sidecar_report *r = arb_wan_report(v);
  const arb_sidecar_count *flat = &r->of[ARB_SIDECAR_CONV2D], *deep = &r->of[ARB_SIDECAR_CONV3D];
  assert_int_equal(flat->modules, 10);
  assert_int_equal(flat->requested, 10);
  assert_int_equal(flat->quantized, 10);
  assert_int_equal(flat->quantized_int8, 10);
  assert_int_equal(flat->int8_bytes, 4414464);
  assert_int_equal(flat->float_bytes, 0);
  assert_int_equal(deep->modules, 61);
  assert_int_equal(deep->requested, 0);
  assert_int_equal(deep->quantized, 0);
  assert_int_equal(r->of[ARB_SIDECAR_NORM].tensors, 52);
  assert_int_equal(r->of[ARB_SIDECAR_BIAS].tensors, 71);
  assert_int_equal(r->all.parameters, 126892531);
  arb_wan_destroy(&v);
}

/* Our stricter option. */
static void test_conv_int8(void **state) {
  (void)state;
  arb_wan *v = NULL;
  arb_assert_ok(arb_wan_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){.threads = 2, .conv_int8 = true}, &v));
  if (!PUBLISHED_QUICK) {
    encode(v, 5, "input.wan.T5", ARB_WAN_RAW, &all_int8_mean5, NULL);
    decode(v, 2, "input.wanz.T2", &all_int8_decoded2);
  }
  const arb_sidecar_report *r = arb_wan_report(v);
  assert_int_equal(r->all.quantized_int8, 71);
  /* One byte each; the last panels of conv_out (3 of 32 outputs) and of the 16-channel convolution are not full. */
  const int64_t weights = r->of[ARB_SIDECAR_CONV2D].parameters + r->of[ARB_SIDECAR_CONV3D].parameters;
  assert_int_equal(r->all.int8_bytes, weights + 29 * 27 * 96 + 16 * 16);
  assert_true(r->resident_bytes < 128 * 1000 * 1000);
  arb_wan_destroy(&v);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_published),
      cmocka_unit_test(test_int8),
      cmocka_unit_test(test_conv_int8),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
