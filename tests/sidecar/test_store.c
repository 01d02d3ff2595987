/* The synthetic rule, the published scheme of int8, the bytes that a sidecar holds, and blocks that processes share. */
#include "src/sidecar/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

static void test_rule(void **state) {
  (void)state;
  static const double known[4] = {-0.44446599, 0.27573252, -0.17396283, -0.46108699};
  const uint64_t stream = arb_synthetic_stream("input.dino");
  for (uint64_t i = 0; i < 4; i++) assert_true(fabs(arb_synthetic_draw(stream, i) - known[i]) < 5e-9);
  static const struct {
    const char *name;
    double base, scale;
  } rules[] = {{"a.gamma", 1, 0.1},       {"layer_scale1.lambda1", 1, 0.1}, {"x.norm1.weight", 1, 0.1},
               {"x.norm1.bias", 0, 0.05}, {"embeddings.cls_token", 0, 0.5}, {"decoder.embed_tokens.weight", 0, 0.5},
               {"fc1.weight", 0, 0.5}}; /* sqrt(3 / 12) */
  const int64_t shape[3] = {2, 3, 4};
  for (size_t r = 0; r < sizeof rules / sizeof rules[0]; r++) {
    float x[24];
    arb_synthetic_tensor(rules[r].name, 3, shape, x);
    for (uint64_t i = 0; i < 24; i++)
      assert_true(x[i] == (float)(rules[r].base + rules[r].scale * arb_synthetic_draw(arb_synthetic_stream(rules[r].name), i)));
  }
}

static void test_published_int8(void **state) {
  (void)state;
  enum { N = 384 };
  static const int8_t known[8] = {90, 35, -107, -43, -19, -12, -79, -55};
  static float w[N * N];
  const int64_t shape[2] = {N, N};
  int64_t sum = 0;
  double worst = 0;
  arb_synthetic_tensor("encoder.layer.0.attention.attention.query.weight", 2, shape, w);
  for (int64_t row = 0; row < N; row++) {
    int8_t q[N];
    float s;
    arb_quantise_row(w + row * N, N, q, &s);
    if (row == 0) {
      assert_true(fabs((double)s - 6.94762217e-4) < 5e-13);
      assert_memory_equal(q, known, 8);
    }
    for (int i = 0; i < N; i++) {
      const double e = fabs((double)w[row * N + i] - (double)s * q[i]);
      sum += q[i];
      worst = e > worst ? e : worst;
    }
  }
  assert_int_equal(sum, -4917);
  assert_true(fabs(worst - 3.479e-4) < 5e-8);
}

static void test_rounding(void **state) {
  (void)state;
  /* absmax 127: the scale is 1, ties go to the even neighbour. */
  static const float w[8] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f, 0.49999997f}, zeros[3] = {0.0f, -0.0f, 0.0f};
  static const int8_t want[8] = {127, 0, 2, 2, 0, -2, -126, 0};
  int8_t q[8] = {9, 9, 9, 9, 9, 9, 9, 9};
  float s = 9.0f;
  arb_quantise_row(w, 8, q, &s);
  assert_true(s == 1.0f);
  assert_memory_equal(q, want, 8);
  arb_quantise_row(zeros, 3, q, &s);
  assert_true(s == 0.0f && q[0] == 0 && q[1] == 0 && q[2] == 0);
}

static void expect(const arb_sidecar_report *r, arb_sidecar_class c, int64_t modules, int64_t int8) {
  const arb_sidecar_count *a = &r->of[c];
  if (a->modules != modules || a->requested != int8 || a->quantized != int8 || a->quantized_int8 != int8)
    fail_msg("%s: %lld modules, requested %lld, quantized %lld, int8 %lld; expected %lld and %lld", arb_sidecar_class_name(c),
             (long long)a->modules, (long long)a->requested, (long long)a->quantized, (long long)a->quantized_int8,
             (long long)modules, (long long)int8);
  assert_true((a->int8_bytes > 0) == (int8 > 0));
}

/* Sum over the classes of what is in the block; the rest is alignment, below 256 bytes an array. */
static void expect_resident(const arb_sidecar_report *r, int64_t most) {
  const int64_t held = r->all.int8_bytes + r->all.scale_bytes + r->all.float_bytes;
  printf("%s: %lld int8 + %lld scales + %lld float = %lld bytes, allocated %lld\n", r->model, (long long)r->all.int8_bytes,
         (long long)r->all.scale_bytes, (long long)r->all.float_bytes, (long long)held, (long long)r->resident_bytes);
  assert_true(r->resident_bytes >= held && r->resident_bytes - held < 256 * (2 * r->all.tensors + 2));
  if (r->resident_bytes > most)
    fail_msg("%s: %lld bytes, at most %lld", r->model, (long long)r->resident_bytes, (long long)most);
}

static void test_bytes(void **state) {
  (void)state;
  arb_dino *d = NULL;
  arb_moonshine *m = NULL;
  int64_t images, speech;
  arb_assert_ok(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){0}, &d));
  const arb_sidecar_report *r = arb_dino_report(d);
  assert_int_equal(r->all.tensors, 223);
  assert_int_equal(r->all.parameters, 22056576);
  assert_int_equal(r->all.int8_bytes, 21459456); /* one byte a weight */
  expect(r, ARB_SIDECAR_LINEAR, 72, 72);
  expect(r, ARB_SIDECAR_CONV2D, 1, 1);
  expect_resident(r, 23000000);
  images = r->resident_bytes;
  arb_dino_destroy(&d);

  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){0}, &m));
  r = arb_moonshine_report(m);
  assert_int_equal(r->all.parameters, 20153120);
  expect(r, ARB_SIDECAR_LINEAR, 48, 48);
  expect(r, ARB_SIDECAR_CONV1D, 3, 0);
  expect_resident(r, 56000000 - images);
  arb_moonshine_destroy(&m);

  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){.decoder = true}, &m));
  r = arb_moonshine_report(m);
  assert_int_equal(r->all.tensors, 210);
  assert_int_equal(r->all.parameters, 61513920);
  assert_int_equal(r->all.int8_bytes, 44302336);
  expect(r, ARB_SIDECAR_LINEAR, 128, 128);
  expect(r, ARB_SIDECAR_CONV1D, 3, 0);
  expect(r, ARB_SIDECAR_EMBEDDING, 1, 0);
  expect_resident(r, 138000000 - images);
  arb_moonshine_destroy(&m);

  const arb_sidecar_options strict = {.decoder = true, .conv_int8 = true, .embed_int8 = true};
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &strict, &m));
  r = arb_moonshine_report(m);
  expect(r, ARB_SIDECAR_CONV1D, 3, 3);
  expect(r, ARB_SIDECAR_EMBEDDING, 1, 1);
  expect_resident(r, 90000000 - images);
  speech = r->resident_bytes;
  printf("strictest, all: %lld bytes\n", (long long)(images + speech));
  arb_moonshine_destroy(&m);
}

/* ---- sharing ---- */

typedef struct {
  void *base;
  size_t bytes;
  int taken, filled, given_back;
  arb_status failure; /* of a sharer elsewhere */
} shared;

static arb_status share_take(void *arg, size_t bytes, void **base, int *fill) {
  shared *s = arg;
  *fill = s->taken++ == 0;
  if (*fill) {
    s->bytes = bytes;
    s->base = calloc(1, bytes + 64);
  }
  assert_int_equal(bytes, s->bytes);
  *base = (void *)(((uintptr_t)s->base + 63) & ~(uintptr_t)63);
  return ARB_OK;
}

static arb_status share_filled(void *arg, arb_status st) {
  shared *s = arg;
  s->filled++;
  if (st == ARB_OK && s->failure != ARB_OK) return ARB_FAIL(s->failure, "the filler failed");
  return st;
}

static void share_give_back(void *arg, void *base, size_t bytes) {
  shared *s = arg;
  (void)base;
  assert_int_equal(bytes, s->bytes);
  s->given_back++;
}

static void test_sharing(void **state) {
  (void)state;
  enum { SAMPLES = 4000 };
  static float samples[SAMPLES], a[16 * ARB_MOONSHINE_WIDTH], b[16 * ARB_MOONSHINE_WIDTH];
  shared s = {0};
  const arb_sidecar_memory memory = {&s, share_take, share_filled, share_give_back};
  const arb_sidecar_options o = {.memory = &memory};
  arb_moonshine *first = NULL, *second = NULL, *none = NULL;
  arb_synthetic_input("input.moon", SAMPLES, samples);
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &o, &first));
  arb_assert_ok(arb_moonshine_open("/nowhere", &o, &second)); /* one that does not fill reads no file */
  arb_assert_ok(arb_moonshine_features(first, samples, SAMPLES, a, NULL));
  arb_assert_ok(arb_moonshine_features(second, samples, SAMPLES, b, NULL));
  assert_memory_equal(a, b, (size_t)arb_moonshine_frames(SAMPLES) * ARB_MOONSHINE_WIDTH * sizeof a[0]);
  const arb_sidecar_report *r1 = arb_moonshine_report(first), *r2 = arb_moonshine_report(second);
  assert_string_equal(r1->digest, r2->digest);
  assert_int_equal(strlen(r1->digest), 32);
  assert_memory_equal(&r1->all, &r2->all, sizeof r1->all);
  s.failure = ARB_ERR_DATA;
  arb_assert_fails(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &o, &none), ARB_ERR_DATA, "the filler failed");
  assert_null(none);
  arb_moonshine_destroy(&first);
  arb_moonshine_destroy(&second);
  assert_true(s.taken == 3 && s.filled == 3 && s.given_back == 3);
  free(s.base);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rule),  cmocka_unit_test(test_published_int8), cmocka_unit_test(test_rounding),
      cmocka_unit_test(test_bytes), cmocka_unit_test(test_sharing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
