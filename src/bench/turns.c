#include "src/bench/turns.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now_s(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static arb_bench_spread spread_of(double *x, int count) {
  qsort(x, (size_t)count, sizeof *x, by_value);
  return (arb_bench_spread){x[count / 2], x[0], x[count - 1]};
}

arb_status arb_bench_turns(arb_status (*run)(void *arg, int side), void *arg, int sides, int warm, int turns,
                           arb_bench_times *out) {
  double *const wall = malloc(5 * (size_t)turns * sizeof *wall), *const cpu = wall + 2 * turns, *const ratio = cpu + 2 * turns;
  arb_status st = wall ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  memset(out, 0, sizeof *out);
  for (int i = -warm; i < turns && st == ARB_OK; i++)
    for (int side = 0; side < sides && st == ARB_OK; side++) {
      if (sides == 2 && (st = run(arg, side)) != ARB_OK) break;
      const double from = now_s(CLOCK_MONOTONIC), cpu_from = now_s(CLOCK_PROCESS_CPUTIME_ID);
      st = run(arg, side);
      if (i < 0) continue;
      wall[side * turns + i] = now_s(CLOCK_MONOTONIC) - from;
      cpu[side * turns + i] = now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu_from;
    }
  for (int i = 0; i < turns && st == ARB_OK && sides == 2; i++) ratio[i] = wall[turns + i] / wall[i];
  for (int side = 0; side < sides && st == ARB_OK; side++) {
    out->seconds[side] = spread_of(wall + side * turns, turns);
    out->cpu_seconds[side] = spread_of(cpu + side * turns, turns).median;
  }
  if (st == ARB_OK && sides == 2) out->ratio = spread_of(ratio, turns);
  free(wall);
  return st;
}
