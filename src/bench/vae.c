/* Times the video VAE. */
#include <stdlib.h>
#include <time.h>

#include "src/bench/sidecar.h"
#include "src/sidecar/source.h"
#include "src/sidecar/wan.h"

enum { SIDE = 224, LATENT = SIDE / ARB_WAN_SCALE, LONG = 5, LONG_LATENT = 2, REPETITIONS = 5 };

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
  const char *what;
  bool decode;
  int64_t frames; /* of what goes in */
} task;

static arb_status run(arb_wan *v, const task *k, const float *in, float *out) {
  return k->decode ? arb_wan_decode(v, in, k->frames, LATENT, LATENT, ARB_WAN_NORMALISED, true, out)
                   : arb_wan_encode(v, in, k->frames, SIDE, SIDE, ARB_WAN_NORMALISED, out, NULL);
}

static arb_status measure(FILE *out, arb_wan *v, const task *k, const float *in, float *result, int repetitions) {
  double *const t = malloc(2 * (size_t)repetitions * sizeof *t), *const cpu = t + repetitions;
  ARB_REQUIRE(t, ARB_ERR_NOMEM, "out of host memory");
  arb_status st = run(v, k, in, result);
  for (int i = 0; i < repetitions && st == ARB_OK; i++) {
    const double from = now_s(CLOCK_MONOTONIC), cpu_from = now_s(CLOCK_PROCESS_CPUTIME_ID);
    st = run(v, k, in, result);
    t[i] = now_s(CLOCK_MONOTONIC) - from;
    cpu[i] = now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu_from;
  }
  if (st == ARB_OK) {
    const int mid = repetitions / 2;
    qsort(t, (size_t)repetitions, sizeof *t, by_value);
    qsort(cpu, (size_t)repetitions, sizeof *cpu, by_value);
    fprintf(out, "%-28s %9.3f s (%.3f - %.3f), %9.3f s of CPU\n", k->what, t[mid], t[0], t[repetitions - 1], cpu[mid]);
    fflush(out);
  }
  free(t);
  return st;
}

arb_status arb_bench_vae(FILE *out, const char *path, const arb_sidecar_options *o, int repetitions) {
  static const task tasks[] = {{"encode 224 x 224", false, 1},
                               {"decode 224 x 224", true, 1},
                               {"encode 5 frames of 224 x 224", false, LONG},
                               {"decode 5 frames of 224 x 224", true, LONG_LATENT}};
  const int64_t pixels = 3 * LONG * SIDE * SIDE; /* latents are smaller */
  arb_wan *v = NULL;
  float *const memory = malloc((size_t)(2 * pixels) * sizeof *memory);
  ARB_REQUIRE(memory, ARB_ERR_NOMEM, "out of host memory");
  arb_synthetic_input("input.vae", pixels, memory);
  arb_status st = arb_wan_open(path, o, &v);
  if (st == ARB_OK)
    fprintf(out, "video VAE: %s; kernels %s, %d threads; %.1f MB of weights\n", path, o->isa ? o->isa : "auto", o->threads,
            1e-6 * (double)arb_wan_report(v)->resident_bytes);
  for (size_t i = 0; i < sizeof tasks / sizeof tasks[0] && st == ARB_OK; i++)
    st = measure(out, v, &tasks[i], memory, memory + pixels, repetitions > 0 ? repetitions : REPETITIONS);
  if (st == ARB_OK)
    fprintf(out, "activations and scratch: %.1f MB, whatever the length\n", 1e-6 * (double)arb_wan_report(v)->work_bytes);
  arb_wan_destroy(&v);
  free(memory);
  return st;
}
