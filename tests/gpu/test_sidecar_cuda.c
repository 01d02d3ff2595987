/* Frozen encoders on a GPU against the CPU: the same bits, at full size, with synthetic weights. */
#include <math.h>
#include <time.h>

#include "kernels/cuda/dense.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"
#include "tests/gpu/gpu_test.h"

enum { PIXELS = 3 * ARB_DINO_SIDE * ARB_DINO_SIDE, HIDDEN = (ARB_DINO_PATCHES + 1) * ARB_DINO_WIDTH, TURNS = 15 };

static arb_sidecar_options on_cpu(void) {
  const long n = 16;
  return (arb_sidecar_options){.threads = (int)n};
}

static arb_sidecar_options on_gpu(void) {
  arb_sidecar_options o = on_cpu();
  o.place = (arb_dense_place){arb_cuda_dense_open, 0};
  return o;
}

static float *floats(int64_t count) {
  float *x = calloc((size_t)count, sizeof *x);
  if (x) return x;
  printf("out of host memory\n");
  exit(1);
}

/* Equal bits; else the first difference, and how many there are. */
static void same(const char *what, const float *cpu, const float *gpu, int64_t count) {
  int64_t first = -1, different = 0;
  double largest = 0.0, magnitude = 0.0;
  for (int64_t i = 0; i < count; i++) {
    magnitude += fabs((double)cpu[i]);
    if (memcmp(&cpu[i], &gpu[i], sizeof *cpu) == 0) continue;
    const double by = fabs((double)cpu[i] - (double)gpu[i]);
    if (first < 0) first = i;
    if (!(by <= largest)) largest = by;
    different++;
  }
  gpu_check(different == 0 && magnitude > 0.0, what);
  if (different)
    printf("  %s: %lld of %lld differ, the first at %lld: %.9g, on the GPU %.9g; largest difference %g\n", what,
           (long long)different, (long long)count, (long long)first, (double)cpu[first], (double)gpu[first], largest);
}

/* ---- where the first difference arises ---- */

typedef struct {
  float *kept[64];
  int64_t count[64];
  int n, at;
  const char *model;
} trace;

static void keep(void *arg, const char *name, const float *x, int64_t rows, int64_t width) {
  trace *t = arg;
  (void)name;
  if (t->n == 64) return;
  t->kept[t->n] = floats(rows * width);
  memcpy(t->kept[t->n], x, (size_t)(rows * width) * sizeof *x);
  t->count[t->n++] = rows * width;
}

static void compare(void *arg, const char *name, const float *x, int64_t rows, int64_t width) {
  trace *t = arg;
  char what[128];
  snprintf(what, sizeof what, "%s: %s", t->model, name);
  if (t->at < t->n && t->count[t->at] == rows * width)
    same(what, t->kept[t->at], x, rows * width);
  else
    gpu_check(0, what);
  t->at++;
}

static void trace_free(trace *t) {
  for (int i = 0; i < t->n; i++) free(t->kept[i]);
  *t = (trace){0};
}

/* ---- times ---- */

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef arb_status (*encoder)(void *model, const float *in, int64_t n, float *out);

static double median_ms(encoder run, void *model, const float *in, int64_t n, float *out, double *least, double *most) {
  double t[TURNS];
  for (int i = -2; i < TURNS; i++) {
    const double from = now_ms();
    MUST(run(model, in, n, out));
    if (i >= 0) t[i] = now_ms() - from;
  }
  qsort(t, TURNS, sizeof *t, by_value);
  *least = t[0];
  *most = t[TURNS - 1];
  return t[TURNS / 2];
}

static void times(const char *what, encoder run, void *cpu, void *gpu, const float *in, int64_t n, float *out) {
  double low[2], high[2];
  const double c = median_ms(run, cpu, in, n, out, &low[0], &high[0]), g = median_ms(run, gpu, in, n, out, &low[1], &high[1]);
  printf("time: %-16s CPU %9.3f ms (%.3f - %.3f), GPU %9.3f ms (%.3f - %.3f), ratio %.1f\n", what, c, low[0], high[0], g,
         low[1], high[1], c / g);
}

static arb_status run_dino(void *model, const float *in, int64_t n, float *out) {
  (void)n;
  return arb_dino_features(model, in, out);
}

static arb_status run_moonshine(void *model, const float *in, int64_t n, float *out) {
  return arb_moonshine_features(model, in, n, out, NULL);
}

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
  if (!floating) times("image", run_dino, cpu, gpu, pixels, 0, got);
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
  arb_moonshine_destroy(&cpu);
  arb_moonshine_destroy(&gpu);
  c.probe = g.probe = NULL;
  MUST(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &c, &cpu));
  MUST(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &g, &gpu));
  times("speech 0.96 s", run_moonshine, cpu, gpu, samples, 15360, got);
  times("speech 10 s", run_moonshine, cpu, gpu, samples, 160000, got);
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
