/* Sequences of image, audio and text: where rows lie, that absent parts leave no trace, and that any split of the grains gives
 * the same votes. */
#include <stdlib.h>
#include <string.h>

#include "src/model/model.h"
#include "tests/test.h"

enum { TEXT = 6, IMAGE = 5, AUDIO = 3, CONTEXT = IMAGE + AUDIO + TEXT, SEQUENCES = 4, WI = 12, WA = 20, GRAINS = 2 };

static arb_backend *be;
static int32_t ids[SEQUENCES * TEXT], targets[SEQUENCES * TEXT];
static int8_t image_q[SEQUENCES * (IMAGE + 2) * WI], audio_q[SEQUENCES * (AUDIO + 2) * WA];
static float image_s[SEQUENCES * (IMAGE + 2)], audio_s[SEQUENCES * (AUDIO + 2)];

static arb_model_spec spec_of(int image, int audio, int64_t grains_per_batch) {
  arb_model_spec s = {.dim = 32,
                      .embed_channels = 8,
                      .layers = 2,
                      .glu_hidden = 64,
                      .context = TEXT + image * IMAGE + audio * AUDIO,
                      .grains_per_batch = (int32_t)grains_per_batch};
  s.rows_per_grain = s.context * SEQUENCES / GRAINS;
  if (image) s.features[ARB_FEATURE_IMAGE].windows = IMAGE, s.features[ARB_FEATURE_IMAGE].width = WI;
  if (audio) s.features[ARB_FEATURE_AUDIO].windows = AUDIO, s.features[ARB_FEATURE_AUDIO].width = WA;
  return s;
}

static arb_model *open_model(arb_model_spec spec) {
  arb_model *m;
  arb_assert_ok(arb_model_create(&spec, be, &m));
  arb_assert_ok(arb_model_allocate(m));
  arb_assert_ok(arb_state_fresh(&m->state, 9));
  arb_assert_ok(be->ops.begin_step(be, 9, 1, 5.0f));
  arb_assert_ok(arb_model_begin(m));
  return m;
}

/* Samples [first, first + count) as features; present masks are the caller's. */
static void features_of(arb_model_features f[ARB_FEATURE_KINDS], int first, const uint8_t *image, const uint8_t *audio) {
  f[ARB_FEATURE_IMAGE] = (arb_model_features){image_q + first * (IMAGE + 2) * WI, image_s + first * (IMAGE + 2), image};
  f[ARB_FEATURE_AUDIO] = (arb_model_features){audio_q + first * (AUDIO + 2) * WA, audio_s + first * (AUDIO + 2), audio};
}

static void fill(void) {
  for (int i = 0; i < SEQUENCES * TEXT; i++) ids[i] = 'a' + i * 5 % 26, targets[i] = 'a' + (i + 1) * 5 % 26;
  for (size_t i = 0; i < sizeof image_q; i++) image_q[i] = (int8_t)((int)(i * 7919 % 255) - 127);
  for (size_t i = 0; i < sizeof audio_q; i++) audio_q[i] = (int8_t)((int)(i * 6007 % 255) - 127);
  for (int i = 0; i < SEQUENCES * (IMAGE + 2); i++) image_s[i] = 0.02f;
  for (int i = 0; i < SEQUENCES * (AUDIO + 2); i++) audio_s[i] = 0.01f;
}

/* An absent sample has scale 0. */
static void clear(float *s, int rows, int sequence) { memset(s + sequence * rows, 0, (size_t)rows * sizeof *s); }

/* Logits of the text rows, [SEQUENCES][TEXT][vocabulary]. */
static uint16_t *text_logits(arb_model *m, const arb_model_features *f) {
  const arb_rows r = {m->spec.context * SEQUENCES / GRAINS, GRAINS, 0, 1};
  uint16_t *out = calloc(SEQUENCES * TEXT * ARB_VOCABULARY, sizeof *out);
  arb_pass p;
  arb_assert_ok(arb_model_pass_features(m, &r, ids, targets, f, 0, 1, &p));
  arb_assert_ok(arb_model_forward(m, &p));
  for (int j = 0; j < SEQUENCES; j++)
    memcpy(out + j * TEXT * ARB_VOCABULARY, p.logits + ((j + 1) * m->spec.context - TEXT) * ARB_VOCABULARY,
           TEXT * ARB_VOCABULARY * sizeof *out);
  return out;
}

static void same_logits(const uint16_t *a, const uint16_t *b, int sequence, int equal) {
  const size_t size = TEXT * ARB_VOCABULARY;
  const int same = memcmp(a + (size_t)sequence * size, b + (size_t)sequence * size, size * sizeof *a) == 0;
  if (same != equal) fail_msg("the logits of sequence %d are %s", sequence, same ? "equal" : "different");
}

/* Tensors keep their names, so all these models have the same weights where they have the same parts. */
static void test_absent(void **state) {
  (void)state;
  fill();
  arb_model *text = open_model(spec_of(0, 0, GRAINS)), *image = open_model(spec_of(1, 0, GRAINS));
  arb_model *audio = open_model(spec_of(0, 1, GRAINS)), *both = open_model(spec_of(1, 1, GRAINS));
  uint8_t image_there[SEQUENCES] = {0, 1, 0, 1}, audio_there[SEQUENCES] = {0, 0, 1, 1}, all[SEQUENCES] = {1, 1, 1, 1};
  clear(image_s, IMAGE + 2, 0), clear(image_s, IMAGE + 2, 2);
  clear(audio_s, AUDIO + 2, 0), clear(audio_s, AUDIO + 2, 1);
  arb_model_features f[ARB_FEATURE_KINDS];
  uint16_t *from_text = text_logits(text, NULL), *nothing = text_logits(both, NULL);
  for (int j = 0; j < SEQUENCES; j++) same_logits(from_text, nothing, j, 1);
  features_of(f, 0, image_there, audio_there);
  uint16_t *mixed = text_logits(both, f);
  features_of(f, 0, all, all);
  uint16_t *from_image = text_logits(image, f), *from_audio = text_logits(audio, f);
  same_logits(mixed, from_text, 0, 1);
  same_logits(mixed, from_image, 1, 1);
  same_logits(mixed, from_audio, 2, 1);
  same_logits(mixed, from_text, 1, 0);
  same_logits(mixed, from_audio, 3, 0);
  same_logits(mixed, from_image, 3, 0);
  free(from_text), free(nothing), free(mixed), free(from_image), free(from_audio);
  arb_model_destroy(&text), arb_model_destroy(&image), arb_model_destroy(&audio), arb_model_destroy(&both);
}

static void test_places(void **state) {
  (void)state;
  fill();
  arb_model *m = open_model(spec_of(1, 1, GRAINS));
  const uint8_t image_there[SEQUENCES] = {1, 1, 0, 0}, audio_there[SEQUENCES] = {1, 0, 1, 0};
  const arb_rows r = {CONTEXT * SEQUENCES / GRAINS, GRAINS, 0, 1};
  arb_model_features f[ARB_FEATURE_KINDS];
  arb_pass p;
  features_of(f, 0, image_there, audio_there);
  arb_assert_ok(arb_model_pass_features(m, &r, ids, targets, f, 1, 1, &p));
  for (int j = 0; j < SEQUENCES; j++) {
    int at = j * CONTEXT;
    for (int pad = (1 - image_there[j]) * IMAGE + (1 - audio_there[j]) * AUDIO; pad > 0; pad--, at++) {
      assert_int_equal(p.join[at], -1);
      assert_int_equal(p.targets[at], -1);
    }
    for (int i = 0; i < IMAGE; i++) {
      assert_int_equal(p.split[0][j * IMAGE + i], image_there[j] ? at : -1);
      if (!image_there[j]) continue;
      assert_int_equal(p.targets[at], -1);
      assert_int_equal(p.join[at++], j * IMAGE + i);
    }
    for (int i = 0; i < AUDIO; i++) {
      assert_int_equal(p.split[1][j * AUDIO + i], audio_there[j] ? at : -1);
      if (audio_there[j]) assert_int_equal(p.join[at++], SEQUENCES * IMAGE + j * AUDIO + i);
    }
    for (int i = 0; i < TEXT; i++) {
      assert_int_equal(p.split[2][j * TEXT + i], at);
      assert_int_equal(p.targets[at], targets[j * TEXT + i]);
      assert_int_equal(p.join[at++], SEQUENCES * (IMAGE + AUDIO) + j * TEXT + i);
    }
    assert_int_equal(at, (j + 1) * CONTEXT);
  }
  assert_int_equal(p.used, GRAINS);
  assert_int_equal(p.used_by[ARB_FEATURE_IMAGE], 1); /* sequences 0 and 1 are one grain */
  assert_int_equal(p.used_by[ARB_FEATURE_AUDIO], 2);
  assert_true(arb_model_position_weight(&m->spec) == 0x1p-4f); /* 12 text rows a grain */
  assert_int_equal(arb_model_tensor_kind(m, 0), ARB_FEATURE_IMAGE);
  assert_int_equal(arb_model_tensor_kind(m, 1), ARB_FEATURE_AUDIO);
  assert_int_equal(arb_model_tensor_kind(m, 2), -1);
  arb_model_destroy(&m);
}

static void run_grains(arb_model *m, int first, int count, int stride) {
  static const uint8_t image_there[SEQUENCES] = {1, 0, 1, 1}, audio_there[SEQUENCES] = {1, 1, 0, 1};
  const arb_rows r = {CONTEXT * SEQUENCES / GRAINS, count, first, stride};
  const int at = first * SEQUENCES / GRAINS;
  arb_model_features f[ARB_FEATURE_KINDS];
  arb_pass p;
  features_of(f, at, image_there + at, audio_there + at);
  arb_assert_ok(arb_model_pass_features(m, &r, ids + at * TEXT, targets + at * TEXT, f, 1, 63, &p));
  arb_assert_ok(arb_model_forward(m, &p));
  arb_assert_ok(arb_model_backward(m, &p));
}

static void test_grains(void **state) {
  (void)state;
  fill();
  clear(image_s, IMAGE + 2, 1), clear(audio_s, AUDIO + 2, 2);
  arb_model *together = open_model(spec_of(1, 1, GRAINS)), *apart = open_model(spec_of(1, 1, GRAINS));
  run_grains(together, 0, 2, 1);
  arb_assert_ok(arb_model_poison(apart));
  run_grains(apart, 1, 1, 1);
  run_grains(apart, 0, 1, 1);
  assert_memory_equal(together->state.votes_memory, apart->state.votes_memory, together->state.votes.peak);
  assert_int_equal(*together->loss, *apart->loss);
  assert_int_equal(*together->count, SEQUENCES * TEXT);
  for (int i = 0; i < together->state.tensor_count; i++) { /* every tensor has votes */
    const arb_stack *w = &together->state.tensors[i]->w;
    int64_t some = 0;
    for (int64_t j = 0; j < w->n * w->k; j++) some += w->votes[j] != 0;
    if (some == 0) fail_msg("%s has no votes", together->state.tensors[i]->name);
  }
  const arb_rows bad = {CONTEXT + 1, 1, 0, 1};
  arb_pass p;
  arb_assert_fails(arb_model_pass(together, &bad, ids, targets, 0, 1, &p), ARB_ERR_ARG, "not whole sequences");
  arb_model_destroy(&together), arb_model_destroy(&apart);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_absent), cmocka_unit_test(test_places),
                                     cmocka_unit_test(test_grains)};
  if (arb_backend_ref_create(&be) != ARB_OK) return 1;
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  arb_backend_destroy(&be);
  return failed;
}
