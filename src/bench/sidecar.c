#include "src/bench/sidecar.h"

#include <stdlib.h>
#include <time.h>

#include "src/sidecar/source.h"

enum { REPETITIONS = 15, SHORT = 15360, LONG = 160000, PIXELS = 3 * ARB_DINO_SIDE * ARB_DINO_SIDE, TOKENS = 16 };

static double now_s(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef struct {
  arb_dino *dino;
  arb_moonshine *moonshine;
  const float *pixels, *samples;
  float *out;
} bench;

static arb_status encode_image(const bench *b) { return arb_dino_features(b->dino, b->pixels, b->out); }
static arb_status encode_short(const bench *b) { return arb_moonshine_features(b->moonshine, b->samples, SHORT, b->out, NULL); }
static arb_status encode_long(const bench *b) { return arb_moonshine_features(b->moonshine, b->samples, LONG, b->out, NULL); }
static arb_status transcribe(const bench *b) {
  int32_t ids[TOKENS];
  int64_t count;
  return arb_moonshine_transcribe(b->moonshine, b->samples, SHORT, TOKENS, ids, &count);
}

/* Multiply-adds of the products. */
static double image_mac(void) {
  const double n = 257, w = 384;
  return 256 * 588 * w + 12 * (n * w * w * 12 + 2 * n * n * w);
}
static double speech_mac(int64_t samples) {
  const double l1 = (double)((samples - 127) / 64 + 1), l2 = (double)(((int64_t)l1 - 7) / 3 + 1);
  const double n = (double)arb_moonshine_frames(samples), w = 416;
  return l1 * 127 * w + l2 * 7 * w * 2 * w + n * 3 * 2 * w * w + 8 * (n * w * w * 12 + 2 * n * n * w);
}

static arb_status measure(FILE *out, const char *what, arb_status (*run)(const bench *), const bench *b, int repetitions,
                          double seconds_of_input, double mac) {
  double *t = malloc(2 * (size_t)repetitions * sizeof *t), *cpu = t + repetitions;
  ARB_REQUIRE(t, ARB_ERR_NOMEM, "out of host memory");
  arb_status st = ARB_OK;
  for (int i = -2; i < repetitions && st == ARB_OK; i++) {
    const double from = now_s(CLOCK_MONOTONIC), cpu_from = now_s(CLOCK_PROCESS_CPUTIME_ID);
    st = run(b);
    if (i < 0) continue;
    t[i] = 1e3 * (now_s(CLOCK_MONOTONIC) - from);
    cpu[i] = 1e3 * (now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu_from);
  }
  if (st == ARB_OK) {
    qsort(t, (size_t)repetitions, sizeof *t, by_value);
    qsort(cpu, (size_t)repetitions, sizeof *cpu, by_value);
    const double mid = t[repetitions / 2];
    fprintf(out, "%-16s %9.2f ms (%.2f - %.2f), %9.2f ms of CPU", what, mid, t[0], t[repetitions - 1], cpu[repetitions / 2]);
    if (mac > 0) fprintf(out, ", %.1f GFLOP/s", 2e-6 * mac / mid);
    if (seconds_of_input > 0) fprintf(out, ", %.2f ms a second of speech", mid / seconds_of_input);
    fprintf(out, "\n");
    fflush(out);
  }
  free(t);
  return st;
}

static arb_status measure_all(FILE *out, const bench *b, int n) {
  ARB_TRY(measure(out, "image", encode_image, b, n, 0, image_mac()));
  ARB_TRY(measure(out, "speech 0.96 s", encode_short, b, n, 0.96, speech_mac(SHORT)));
  ARB_TRY(measure(out, "speech 10 s", encode_long, b, n, 10, speech_mac(LONG)));
  return measure(out, "16 tokens", transcribe, b, n, 0, 0);
}

arb_status arb_bench_sidecar(FILE *out, const char *dino, const char *moonshine, const arb_sidecar_options *o,
                             int repetitions) {
  const char *images = dino[0] ? dino : ARB_SIDECAR_SYNTHETIC, *speech = moonshine[0] ? moonshine : ARB_SIDECAR_SYNTHETIC;
  const int64_t most = arb_moonshine_frames(LONG) * ARB_MOONSHINE_WIDTH, least = (int64_t)ARB_DINO_PATCHES * ARB_DINO_WIDTH;
  arb_sidecar_options with_decoder = *o;
  bench b = {0};
  with_decoder.decoder = true;
  float *memory = malloc((size_t)(PIXELS + LONG + (most > least ? most : least)) * sizeof *memory);
  ARB_REQUIRE(memory, ARB_ERR_NOMEM, "out of host memory");
  arb_synthetic_input("input.dino", PIXELS, memory);
  arb_synthetic_input("input.moon", LONG, memory + PIXELS);
  b.pixels = memory;
  b.samples = memory + PIXELS;
  b.out = memory + PIXELS + LONG;
  arb_status st = arb_dino_open(images, o, &b.dino);
  if (st == ARB_OK) st = arb_moonshine_open(speech, &with_decoder, &b.moonshine);
  if (st == ARB_OK) {
    const int64_t bytes = arb_dino_report(b.dino)->resident_bytes + arb_moonshine_report(b.moonshine)->resident_bytes;
    fprintf(out, "encoders: %s, %s; kernels %s, %d threads; %.1f MB of weights, decoder included\n", images, speech,
            o->isa ? o->isa : "auto", o->threads, 1e-6 * (double)bytes);
    st = measure_all(out, &b, repetitions > 0 ? repetitions : REPETITIONS);
  }
  arb_dino_destroy(&b.dino);
  arb_moonshine_destroy(&b.moonshine);
  free(memory);
  return st;
}
