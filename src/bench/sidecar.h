/* Measures the imported encoders. */
#ifndef ARB_SRC_BENCH_SIDECAR_H
#define ARB_SRC_BENCH_SIDECAR_H

#include <stdio.h>

#include "src/sidecar/sidecar.h"

/* A line each for a 224 x 224 image, 0.96 s and 10 s of speech, and a transcript of 0.96 s cut at 16 tokens: milliseconds as
 * median (min - max) of `repetitions` runs (0: 15) after two that are not counted, milliseconds of CPU of all threads, GFLOP/s
 * of the products. With o->place, a second line has the CPU's of the same turns, and how much longer they took (median, min -
 * max, turn by turn). dino, moonshine: paths, "" means synthetic. o->threads >= 1. */
ARB_NODISCARD arb_status arb_bench_sidecar(FILE *out, const char *dino, const char *moonshine, const arb_sidecar_options *o,
                                           int repetitions);
/* The same for the video VAE (0: 5 runs after one): a still and a clip of 5 frames of 224 x 224, encoded and decoded. */
ARB_NODISCARD arb_status arb_bench_vae(FILE *out, const char *path, const arb_sidecar_options *o, int repetitions);

#endif
