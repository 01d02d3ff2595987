/* Frozen encoders on a GPU against the CPU: the same bits, at full size, with synthetic weights. */
#include "tests/gpu/encoder_test.h"

enum { PIXELS = 3 * ARB_DINO_SIDE * ARB_DINO_SIDE, HIDDEN = (ARB_DINO_PATCHES + 1) * ARB_DINO_WIDTH };

/* ---- DINOv2 ---- */

static void test_dino(bool floating) {
  arb_sidecar_options c = on_cpu(), g = on_gpu();
  trace t = {.model = floating ? "dino, float weights" : "dino"};
  arb_dino *cpu = NULL, *gpu = NULL;
  float *pixels = floats(PIXELS), *want = floats(HIDDEN), *got = floats(HIDDEN);
  c.float_weights = g.float_weights = floating;
  c.probe = keep, g.probe = compare;
  c.probe_arg = g.probe_arg = &t;
  MUST(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &c, &cpu));
  MUST(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &g, &gpu));
  arb_synthetic_input("input.dino", PIXELS, pixels);
  MUST(arb_dino_hidden(cpu, pixels, want));
  MUST(arb_dino_hidden(gpu, pixels, got));
  same(t.model, want, got, HIDDEN);
  gpu_check(strcmp(arb_dino_report(cpu)->digest, arb_dino_report(gpu)->digest) == 0, "the digest of the weights");
  printf("dino: %lld bytes of weights, %lld of activations and scratch on %s\n",
         (long long)arb_dino_report(gpu)->resident_bytes, (long long)arb_dino_report(gpu)->work_bytes,
         arb_dino_report(gpu)->place);
  arb_dino_destroy(&cpu);
  arb_dino_destroy(&gpu);
  trace_free(&t);

  /* Several images in one process, without looking inside. */
  c.probe = g.probe = NULL;
  MUST(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &c, &cpu));
  MUST(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &g, &gpu));
  for (int i = 0; i < 4; i++) {
    char name[32];
    snprintf(name, sizeof name, "image %d", i);
    arb_synthetic_input(name, PIXELS, pixels);
    if (i == 3) memset(pixels, 0, PIXELS * sizeof *pixels);
    MUST(arb_dino_features(cpu, pixels, want));
    MUST(arb_dino_features(gpu, pixels, got));
    same(name, want, got, HIDDEN - ARB_DINO_WIDTH);
  }
  pixels[5] = INFINITY;
  gpu_check(arb_dino_features(gpu, pixels, got) == ARB_ERR_NUMERIC, "an infinite pixel is refused");
  pixels[5] = 3e38f; /* finite, but a sum overflows */
  const arb_status st = arb_dino_features(cpu, pixels, want);
  gpu_check(arb_dino_features(gpu, pixels, got) == st, "an overflow ends alike");
  arb_fail_clear();
  arb_synthetic_input("image 0", PIXELS, pixels);
  MUST(arb_dino_features(cpu, pixels, want));
  MUST(arb_dino_features(gpu, pixels, got));
  same("an image after them", want, got, HIDDEN - ARB_DINO_WIDTH);
  arb_dino_destroy(&cpu);
  arb_dino_destroy(&gpu);
  free(pixels), free(want), free(got);
}

/* ---- Moonshine ---- */

static void test_moonshine_encoder(void) {
  static const int64_t lengths[] = {15360, 160000, ARB_MOONSHINE_LEAST, 48017, 15360};
  enum { COUNT = sizeof lengths / sizeof lengths[0] };
  const int64_t most = arb_moonshine_frames(160000) * ARB_MOONSHINE_WIDTH;
  arb_sidecar_options c = on_cpu(), g = on_gpu();
  trace t = {.model = "moonshine"};
  arb_moonshine *cpu = NULL, *gpu = NULL;
  float *samples = floats(160000), *want = floats(most), *got = floats(most);
  arb_synthetic_input("input.moon", 160000, samples);
  c.probe = keep, g.probe = compare;
  c.probe_arg = g.probe_arg = &t;
  MUST(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &c, &cpu));
  MUST(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &g, &gpu));
  for (int i = 0; i < COUNT; i++) {
    char what[64];
    int64_t frames = 0;
    snprintf(what, sizeof what, "moonshine, %lld samples", (long long)lengths[i]);
    t.n = t.at = 0;
    MUST(arb_moonshine_features(cpu, samples, lengths[i], want, NULL));
    MUST(arb_moonshine_features(gpu, samples, lengths[i], got, &frames));
    gpu_check(frames == arb_moonshine_frames(lengths[i]), "frames");
    same(what, want, got, frames * ARB_MOONSHINE_WIDTH);
    trace_free(&t);
    t.model = "moonshine";
  }
  printf("moonshine: %lld bytes of weights, %lld of activations and scratch on %s\n",
         (long long)arb_moonshine_report(gpu)->resident_bytes, (long long)arb_moonshine_report(gpu)->work_bytes,
         arb_moonshine_report(gpu)->place);
  arb_moonshine_destroy(&cpu);
  arb_moonshine_destroy(&gpu);
  free(samples), free(want), free(got);
}

static void test_moonshine_decoder(bool embed_int8) {
  enum { SAMPLES = 32000, TOKENS = 37, MOST = 24 };
  const int64_t frames = arb_moonshine_frames(SAMPLES);
  arb_sidecar_options c = on_cpu(), g = on_gpu();
  arb_moonshine *cpu = NULL, *gpu = NULL;
  float *samples = floats(SAMPLES), *encoded = floats(frames * ARB_MOONSHINE_WIDTH), *want = floats(ARB_MOONSHINE_VOCABULARY),
        *got = floats(ARB_MOONSHINE_VOCABULARY);
  int32_t ids[TOKENS], text[2][MOST];
  int64_t count[2] = {0, 0};
  c.decoder = g.decoder = true;
  c.embed_int8 = g.embed_int8 = embed_int8;
  arb_synthetic_input("input.moon", SAMPLES, samples);
  for (int i = 0; i < TOKENS; i++) ids[i] = i == 0 ? 1 : (i * 7919 + 13) % ARB_MOONSHINE_VOCABULARY;
  MUST(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &c, &cpu));
  MUST(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &g, &gpu));
  MUST(arb_moonshine_features(cpu, samples, SAMPLES, encoded, NULL));
  for (int n = 1; n <= TOKENS; n += n < 6 ? 1 : 31) {
    char what[64];
    snprintf(what, sizeof what, "logits after %d tokens%s", n, embed_int8 ? ", int8 table" : "");
    MUST(arb_moonshine_logits(cpu, encoded, frames, ids, n, want));
    MUST(arb_moonshine_logits(gpu, encoded, frames, ids, n, got));
    same(what, want, got, ARB_MOONSHINE_VOCABULARY);
  }
  MUST(arb_moonshine_transcribe(cpu, samples, SAMPLES, MOST, text[0], &count[0]));
  MUST(arb_moonshine_transcribe(gpu, samples, SAMPLES, MOST, text[1], &count[1]));
  gpu_check(count[0] == count[1] && memcmp(text[0], text[1], (size_t)count[0] * sizeof text[0][0]) == 0, "transcripts");
  arb_moonshine_destroy(&cpu);
  arb_moonshine_destroy(&gpu);
  free(samples), free(encoded), free(want), free(got);
}

int main(void) {
  arb_backend *be = gpu_backend(); /* or exit 77 */
  arb_backend_destroy(&be);
  test_dino(false);
  test_dino(true);
  test_moonshine_encoder();
  test_moonshine_decoder(false);
  test_moonshine_decoder(true);
  return gpu_totals();
}
