/* The whole run: resume, steps, evaluations, checkpoints, samples, and the digest as the last line. */
#include "src/base/log.h"
#include "src/train/media.h"
#include "src/train/metrics.h"
#include "src/train/plan.h"
#include "src/train/trainer.h"

static int due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

static arb_status print_digest(arb_trainer *t, FILE *out, const char *before) {
  char hex[33];
  ARB_TRY(arb_trainer_digest(t, hex));
  if (out) fprintf(out, "%sdigest %s\n", before, hex);
  if (out) fflush(out);
  return ARB_OK;
}

/* Collective. Rank 0 has the console; a failure of it must reach the others. */
static arb_status start(arb_trainer *t, arb_metrics *metrics, FILE *out) {
  const arb_config *c = t->cfg;
  const int64_t weights = arb_state_weights(&t->model->state);
  int64_t resumed = -1;
  if (c->checkpoint.resume) ARB_TRY(arb_trainer_resume(t, &resumed));
  ARB_TRY(arb_comm_agree(t->comm, arb_metrics_open(metrics, c, weights, resumed, out)));
  if (out) {
    fprintf(out, "%lld ternary weights, %.4f state bytes a weight; %s on %d rank%s; %lld %s; %lld grains of %lld %s\n",
            (long long)weights, (double)arb_arena_payload(&t->model->state.state) / (double)weights, t->be->ops.name,
            t->comm->size, t->comm->size == 1 ? "" : "s", (long long)(t->media ? t->media->train.count : t->train.length),
            t->media ? "samples" : "bytes of text", (long long)c->train.grains, (long long)t->model->spec.rows_per_grain,
            t->media ? "rows" : "bytes");
    if (c->train.grains % t->comm->size)
      fprintf(out, "%lld grains do not divide evenly among %d ranks: some wait\n", (long long)c->train.grains, t->comm->size);
    arb_plan plan;
    arb_plan_of_model(t->model, t->comm->rank, t->comm->size, c->train.grains, &plan);
    arb_plan_summary(&plan, out);
    if (resumed >= 0) fprintf(out, "resumed at step %lld\n", (long long)resumed);
  }
  return print_digest(t, out, "start: ");
}

static arb_status save(arb_trainer *t, arb_metrics *metrics, FILE *out) {
  const double before = arb_clock_seconds();
  ARB_TRY(arb_trainer_save(t));
  metrics->last_save = t->step;
  char text[96];
  snprintf(text, sizeof text, "saved step %lld in %.0f ms: ", (long long)t->step, 1000.0 * (arb_clock_seconds() - before));
  return print_digest(t, out, text);
}

static arb_status steps(arb_trainer *t, arb_metrics *metrics, FILE *out) {
  const arb_config *c = t->cfg;
  while (t->step < c->train.steps) {
    arb_step_result r;
    double val = -1.0;
    ARB_TRY(arb_trainer_step(t, &r));
    const int last = r.step == c->train.steps;
    if ((t->valid.bytes || (t->media && t->media->valid.count)) && (due(c->eval.every, r.step) || last))
      ARB_TRY(arb_trainer_evaluate(t, &val));
    for (int k = 0; k < 2; k++) r.val_by[k] = t->media && val >= 0.0 ? t->media->val[1 << k] : -1.0;
    ARB_TRY(arb_comm_agree(t->comm, arb_metrics_step(metrics, c, &r, val)));
    if (c->checkpoint.every > 0 && (due(c->checkpoint.every, r.step) || last || r.stop)) ARB_TRY(save(t, metrics, out));
    if (out && c->sample.length > 0 && due(c->sample.every, r.step) && !last) {
      fprintf(out, "--- sample after step %lld\n", (long long)r.step);
      ARB_TRY(arb_trainer_sample(t, c->sample.prompt, out));
    }
    if (r.stop) {
      if (out)
        fprintf(
            out, "stopped after step %lld on request%s\n", (long long)r.step,
            c->checkpoint.every > 0 ? "; run the same command again to continue" : "; nothing was saved: checkpoint.every = 0");
      ARB_TRY(print_digest(t, out, ""));
      return ARB_REQUEUE;
    }
  }
  return ARB_OK;
}

arb_status arb_trainer_run(arb_trainer *t, FILE *out) {
  const arb_config *c = t->cfg;
  arb_metrics metrics = {0};
  arb_status st = start(t, &metrics, out);
  if (st == ARB_OK) st = steps(t, &metrics, out);
  arb_metrics_close(&metrics);
  if (st != ARB_OK) return st;
  if (out && c->sample.length > 0) {
    fprintf(out, "--- sample after step %lld\n", (long long)t->step);
    st = arb_trainer_sample(t, c->sample.prompt, out);
    fprintf(out, "---\n");
  }
  ARB_TRY(arb_comm_agree(t->comm, st));
  return print_digest(t, out, "");
}
