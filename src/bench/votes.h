/* Measures how votes travel: a trainer's own exchange beside one bare sum of the transport's library. */
#ifndef ARB_SRC_BENCH_VOTES_H
#define ARB_SRC_BENCH_VOTES_H

#include "src/train/trainer.h"

/* Collective; two ranks or more. Prints on out (NULL: silent rank) what the trainer's calls reach on its own vote buffers, all
 * at once and, where the transport can, in the buckets of dist.overlap, and what one bare call on the same bytes reaches in the
 * same run, in turn: GB/s as median (min - max) of `pairs`, and the median of the paired ratios. */
ARB_NODISCARD arb_status arb_bench_votes(arb_trainer *t, int pairs, FILE *out);

#endif
