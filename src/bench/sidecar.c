#include "src/bench/sidecar.h"

#include <stdlib.h>

#include "src/bench/turns.h"
#include "src/sidecar/source.h"

enum { REPETITIONS = 15, SHORT = 15360, LONG = 160000, PIXELS = 3 * ARB_DINO_SIDE * ARB_DINO_SIDE, TOKENS = 16 };

/* Side 0 computes where the options say, side 1 on the CPU. */
typedef struct {
  arb_dino *dino[2];
  arb_moonshine *moonshine[2];
  const float *pixels, *samples;
  float *out;
} bench;

static arb_status encode_image(void *arg, int side) {
  const bench *b = arg;
  return arb_dino_features(b->dino[side], b->pixels, b->out);
}
static arb_status encode_short(void *arg, int side) {
  const bench *b = arg;
  return arb_moonshine_features(b->moonshine[side], b->samples, SHORT, b->out, NULL);
}
static arb_status encode_long(void *arg, int side) {
  const bench *b = arg;
  return arb_moonshine_features(b->moonshine[side], b->samples, LONG, b->out, NULL);
}
static arb_status transcribe(void *arg, int side) {
  const bench *b = arg;
  int32_t ids[TOKENS];
  int64_t count;
  return arb_moonshine_transcribe(b->moonshine[side], b->samples, SHORT, TOKENS, ids, &count);
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

typedef struct {
  const char *what;
  arb_status (*run)(void *arg, int side);
  double seconds_of_input, mac;
} task;

static arb_status measure(FILE *out, const task *k, bench *b, int repetitions) {
  const int sides = b->dino[1] ? 2 : 1;
  arb_bench_times t;
  ARB_TRY(arb_bench_turns(k->run, b, sides, 2, repetitions, &t));
  for (int side = 0; side < sides; side++) {
    const arb_bench_spread *s = &t.seconds[side];
    fprintf(out, "%-16s %9.2f ms (%.2f - %.2f), %9.2f ms of CPU", side == 0 ? k->what : "  on the CPU", 1e3 * s->median,
            1e3 * s->least, 1e3 * s->most, 1e3 * t.cpu_seconds[side]);
    if (k->mac > 0) fprintf(out, ", %.1f GFLOP/s", 2e-9 * k->mac / s->median);
    if (k->seconds_of_input > 0) fprintf(out, ", %.2f ms a second of speech", 1e3 * s->median / k->seconds_of_input);
    if (side == 1) fprintf(out, "; %.2f times as long (%.2f - %.2f)", t.ratio.median, t.ratio.least, t.ratio.most);
    fprintf(out, "\n");
  }
  fflush(out);
  return ARB_OK;
}

static arb_status measure_all(FILE *out, bench *b, int n) {
  const task tasks[] = {{"image", encode_image, 0, image_mac()},
                        {"speech 0.96 s", encode_short, 0.96, speech_mac(SHORT)},
                        {"speech 10 s", encode_long, 10, speech_mac(LONG)},
                        {"16 tokens", transcribe, 0, 0}};
  for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++) ARB_TRY(measure(out, &tasks[i], b, n));
  return ARB_OK;
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
  arb_sidecar_options here = with_decoder;
  here.place = (arb_dense_place){0};
  arb_status st = arb_dino_open(images, o, &b.dino[0]);
  if (st == ARB_OK) st = arb_moonshine_open(speech, &with_decoder, &b.moonshine[0]);
  if (st == ARB_OK && o->place.open) st = arb_dino_open(images, &here, &b.dino[1]);
  if (st == ARB_OK && o->place.open) st = arb_moonshine_open(speech, &here, &b.moonshine[1]);
  if (st == ARB_OK) {
    const int64_t bytes = arb_dino_report(b.dino[0])->resident_bytes + arb_moonshine_report(b.moonshine[0])->resident_bytes;
    if (o->place.open) fprintf(out, "device: %s; beside it, in turn, the CPU\n", arb_dino_report(b.dino[0])->place);
    fprintf(out, "encoders: %s, %s; kernels %s, %d threads; %.1f MB of weights, decoder included\n", images, speech,
            o->isa ? o->isa : "auto", o->threads, 1e-6 * (double)bytes);
    st = measure_all(out, &b, repetitions > 0 ? repetitions : REPETITIONS);
  }
  for (int side = 0; side < 2; side++) {
    arb_dino_destroy(&b.dino[side]);
    arb_moonshine_destroy(&b.moonshine[side]);
  }
  free(memory);
  return st;
}
