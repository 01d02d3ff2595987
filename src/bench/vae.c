/* Times the video VAE. */
#include <stdlib.h>

#include "src/bench/sidecar.h"
#include "src/bench/turns.h"
#include "src/sidecar/source.h"
#include "src/sidecar/wan.h"

enum { SIDE = 224, LATENT = SIDE / ARB_WAN_SCALE, LONG = 5, LONG_LATENT = 2, REPETITIONS = 5 };

typedef struct {
  const char *what;
  bool decode;
  int64_t frames; /* of what goes in */
} task;

/* Side 0 computes where the options say, side 1 on the CPU. */
typedef struct {
  arb_wan *v[2];
  const task *task;
  const float *in;
  float *out;
} bench;

static arb_status run(void *arg, int side) {
  const bench *b = arg;
  const int64_t frames = b->task->frames;
  return b->task->decode ? arb_wan_decode(b->v[side], b->in, frames, LATENT, LATENT, ARB_WAN_NORMALISED, true, b->out)
                         : arb_wan_encode(b->v[side], b->in, frames, SIDE, SIDE, ARB_WAN_NORMALISED, b->out, NULL);
}

static arb_status measure(FILE *out, bench *b, const task *k, int repetitions) {
  const int sides = b->v[1] ? 2 : 1;
  arb_bench_times t;
  b->task = k;
  ARB_TRY(arb_bench_turns(run, b, sides, 1, repetitions, &t));
  for (int side = 0; side < sides; side++) {
    const arb_bench_spread *s = &t.seconds[side];
    fprintf(out, "%-28s %9.2f ms (%.2f - %.2f), %9.2f ms of CPU", side == 0 ? k->what : "  on the CPU", 1e3 * s->median,
            1e3 * s->least, 1e3 * s->most, 1e3 * t.cpu_seconds[side]);
    if (side == 1) fprintf(out, "; %.2f times as long (%.2f - %.2f)", t.ratio.median, t.ratio.least, t.ratio.most);
    fprintf(out, "\n");
  }
  fflush(out);
  return ARB_OK;
}

arb_status arb_bench_vae(FILE *out, const char *path, const arb_sidecar_options *o, int repetitions) {
  static const task tasks[] = {{"encode 224 x 224", false, 1},
                               {"decode 224 x 224", true, 1},
                               {"encode 5 frames of 224 x 224", false, LONG},
                               {"decode 5 frames of 224 x 224", true, LONG_LATENT}};
  const int64_t pixels = 3 * LONG * SIDE * SIDE; /* latents are smaller */
  arb_sidecar_options here = *o;
  here.place = (arb_dense_place){0};
  float *const memory = malloc((size_t)(2 * pixels) * sizeof *memory);
  ARB_REQUIRE(memory, ARB_ERR_NOMEM, "out of host memory");
  arb_synthetic_input("input.vae", pixels, memory);
  bench b = {.in = memory, .out = memory + pixels};
  arb_status st = arb_wan_open(path, o, &b.v[0]);
  if (st == ARB_OK && o->place.open) st = arb_wan_open(path, &here, &b.v[1]);
  if (st == ARB_OK && o->place.open) fprintf(out, "device: %s; beside it, in turn, the CPU\n", arb_wan_report(b.v[0])->place);
  if (st == ARB_OK)
    fprintf(out, "video VAE: %s; kernels %s, %d threads; %.1f MB of weights\n", path, o->isa ? o->isa : "auto", o->threads,
            1e-6 * (double)arb_wan_report(b.v[0])->resident_bytes);
  for (size_t i = 0; i < sizeof tasks / sizeof tasks[0] && st == ARB_OK; i++)
    st = measure(out, &b, &tasks[i], repetitions > 0 ? repetitions : REPETITIONS);
  if (st == ARB_OK)
    fprintf(out, "activations and scratch: %.1f MB, whatever the length\n", 1e-6 * (double)arb_wan_report(b.v[0])->work_bytes);
  for (int side = 0; side < 2; side++) arb_wan_destroy(&b.v[side]);
  free(memory);
  return st;
}
