/* Measures whole training steps: time, where it goes, and how close the products come to their own measured rate. */
#ifndef ARB_SRC_BENCH_STEP_H
#define ARB_SRC_BENCH_STEP_H

#include "src/train/trainer.h"

/* Collective. Runs one step to warm up and `steps` timed ones (state changes; nothing is saved) and prints on out (NULL: silent
 * rank) median, minimum and maximum, the share of each operation of this rank's backend, and the products' part of the step. On
 * several GPUs more steps follow, with votes sent after the backward pass and during it in turn, and their ratio. */
ARB_NODISCARD arb_status arb_bench_step(arb_trainer *t, int steps, FILE *out);

#endif
