/* Times one thing on one or two sides, turn by turn in one run. */
#ifndef ARB_SRC_BENCH_TURNS_H
#define ARB_SRC_BENCH_TURNS_H

#include "src/base/status.h"

typedef struct {
  double median, least, most;
} arb_bench_spread;

typedef struct {
  arb_bench_spread seconds[2];
  double cpu_seconds[2];  /* of all threads of the process: medians */
  arb_bench_spread ratio; /* side 1 / side 0, of the two times of a turn */
} arb_bench_times;

/* run(arg, side) for every side below `sides` (1 or 2) in turn: `turns` of them after `warm` that are not counted. With
 * two sides each runs once more right before it is timed, so that no time is paid for what the other side left in caches. */
ARB_NODISCARD arb_status arb_bench_turns(arb_status (*run)(void *arg, int side), void *arg, int sides, int warm, int turns,
                                         arb_bench_times *out);

#endif
