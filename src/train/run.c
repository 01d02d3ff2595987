/* The whole run: resume, steps, evaluations, checkpoints, samples, and the digest as the last line. */
#include "src/base/log.h"
#include "src/train/media.h"
#include "src/train/metrics.h"
#include "src/train/save.h"
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

/* Not the save's failure alone: nothing can be agreed on any more, or a contract was broken. */
static int run_must_end(arb_status st) { return st != ARB_ERR_CHECKPOINT && st != ARB_ERR_IO && st != ARB_ERR_NOMEM; }

/* A save that failed ends the run, or, where the configuration says so, is a warning. The last one of a run is never only that:
 * what it would have kept is lost. */
static arb_status failed(arb_trainer *t, arb_metrics *metrics, int64_t step, arb_status st, int last) {
  if (last || t->cfg->checkpoint.on_error == ARB_CONFIG_ON_ERROR_STOP || run_must_end(st)) return st;
  if (t->comm->blamed < 0 || t->comm->blamed == t->comm->rank)
    arb_log(ARB_LOG_WARN, "checkpoint", "step %lld was not saved, training goes on: %s", (long long)step, arb_fail_message());
  if (t->comm->rank == 0 && metrics->last_save >= 0)
    arb_log(ARB_LOG_WARN, "checkpoint", "the last checkpoint is that of step %lld", (long long)metrics->last_save);
  arb_fail_clear();
  return ARB_OK;
}

static arb_status report(arb_trainer *t, arb_metrics *metrics, const arb_save_outcome *o, FILE *out, int last) {
  if (o->step < 0) return ARB_OK;
  if (o->status != ARB_OK) return failed(t, metrics, o->step, o->status, last);
  metrics->last_save = o->step;
  if (out)
    fprintf(out, "saved step %lld: stall %.1f ms, written in %.3f s, %.1f MB/s, digest %s\n", (long long)o->step,
            1000.0 * o->stall_s, o->written_s, (double)o->bytes / 1e6 / (o->written_s > 0 ? o->written_s : 1e-9), o->digest);
  if (out) fflush(out);
  return ARB_OK;
}

static arb_status finish(arb_trainer *t, arb_metrics *metrics, FILE *out, int last) {
  arb_save_outcome outcome;
  ARB_TRY(arb_save_finish(t, &outcome));
  return report(t, metrics, &outcome, out, last);
}

/* The save on its way, as far as this step's agreement brought it. */
static arb_status advance(arb_trainer *t, arb_metrics *metrics, FILE *out) {
  arb_save_outcome outcome;
  if (!arb_save_active(t) || !t->save_ready) return ARB_OK;
  ARB_TRY(arb_save_advance(t, &outcome));
  return report(t, metrics, &outcome, out, 0);
}

/* wait: the end, or a stop request. */
static arb_status save(arb_trainer *t, arb_metrics *metrics, FILE *out, int wait) {
  ARB_TRY(finish(t, metrics, out, 0)); /* at most one at a time */
  const arb_status st = arb_save_begin(t);
  if (st != ARB_OK) return failed(t, metrics, t->step, st, wait);
  return wait || !t->cfg->checkpoint.async ? finish(t, metrics, out, wait) : ARB_OK;
}

/* Is there anything but the next step after this one? A stop request apart, which the step itself finds. */
static int rests_after(const arb_trainer *t, int64_t step, int evaluates) {
  const arb_config *c = t->cfg;
  return step == c->train.steps || (evaluates && due(c->eval.every, step)) || due(c->checkpoint.every, step) ||
         (c->sample.length > 0 && due(c->sample.every, step));
}

static arb_status steps(arb_trainer *t, arb_metrics *metrics, FILE *out) {
  const arb_config *c = t->cfg;
  const int evaluates = t->valid.bytes || (t->media && t->media->valid.count);
  while (t->step < c->train.steps) {
    arb_step_result r;
    double val = -1.0;
    ARB_TRY(rests_after(t, t->step + 1, evaluates) ? arb_trainer_step(t, &r) : arb_trainer_step_on(t, &r));
    const int last = r.step == c->train.steps;
    if (evaluates && (due(c->eval.every, r.step) || last)) ARB_TRY(arb_trainer_evaluate(t, &val));
    for (int k = 0; k < 2; k++) r.val_by[k] = t->media && val >= 0.0 ? t->media->val[1 << k] : -1.0;
    ARB_TRY(arb_comm_agree(t->comm, arb_metrics_step(metrics, c, &r, val)));
    ARB_TRY(advance(t, metrics, out));
    if (c->checkpoint.every > 0 && (due(c->checkpoint.every, r.step) || last || r.stop))
      ARB_TRY(save(t, metrics, out, last || r.stop));
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

static void finish_after_failure(arb_trainer *t, arb_metrics *metrics, FILE *out) {
  arb_save_outcome outcome;
  if (arb_save_finish(t, &outcome) == ARB_OK && outcome.status == ARB_OK) (void)report(t, metrics, &outcome, out, 0);
}

arb_status arb_trainer_run(arb_trainer *t, FILE *out) {
  const arb_config *c = t->cfg;
  arb_metrics metrics = {0};
  arb_status st = start(t, &metrics, out);
  if (st == ARB_OK) st = steps(t, &metrics, out);
  /* Every rank has this failure, and what was saved before it is worth having. */
  if (st == ARB_ERR_NUMERIC) finish_after_failure(t, &metrics, out);
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
