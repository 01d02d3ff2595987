/* What a run reports: one console line now and then, and metrics.jsonl, a JSON object a line. */
#ifndef ARB_SRC_TRAIN_METRICS_H
#define ARB_SRC_TRAIN_METRICS_H

#include "src/train/trainer.h"

typedef struct {
  FILE *console; /* NULL: this rank is silent */
  FILE *jsonl;   /* NULL likewise */
  int terminal;  /* console is a terminal: draw a progress bar */
  int64_t first_step;
  double start, interval_start;
  int64_t weights, interval_steps, interval_flips, interval_targets;
  int64_t empty; /* slots whose sample could not be decoded, in this process's life */
  double interval_bpb;
  int64_t last_save; /* step, or -1 */
} arb_metrics;

/* Opens RUN/metrics.jsonl (created with its folder; appended to when resuming). Rank 0 only; others pass console NULL. */
ARB_NODISCARD arb_status arb_metrics_open(arb_metrics *m, const arb_config *cfg, int64_t weights, int64_t resumed_step,
                                          FILE *console);
void arb_metrics_close(arb_metrics *m);
/* Every step. val_bpb < 0: no evaluation after this step. Prints every train.log_every steps and after evaluations. */
ARB_NODISCARD arb_status arb_metrics_step(arb_metrics *m, const arb_config *cfg, const arb_step_result *r, double val_bpb);

double arb_clock_seconds(void); /* monotonic */

#endif
