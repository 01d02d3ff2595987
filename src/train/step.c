/* One step, of any transport.
 *
 *   begin ......... the pass of this rank's grains is queued, with overlap its votes too
 *   agree ......... on what hosts know by now: failures, stop requests, counts of grains
 *   exchange ...... votes and the non-finite flag are summed, and the update is queued behind them: where the flag is up it
 *                   changes nothing, on any rank
 *   begin ......... of the next step, if it follows at once
 *   finish ........ the host waits, and ranks agree on what the devices found: loss, flips, the flag
 *
 * So a device waits for hosts only where something lies between two steps, and nothing is counted as done before every rank
 * knows that it is. Host backends do what they are told at once, in the same order. */
#include <string.h>

#include "dist/place.h"
#include "src/base/log.h"
#include "src/train/media.h"
#include "src/train/save.h"
#include "src/train/trainer_impl.h"

/* Summed over ranks once the pass is queued. SUM_REFUSED: a value is not finite, and the host had to ask for it. */
enum { SUM_FAILED, SUM_REFUSED, SUM_STOP, SUM_EMPTY, SUM_EMPTY_LAST, SUM_READY, SUM_USED };
/* Summed over ranks at the end. */
enum { FOUND_FAILED, FOUND_NONFINITE, FOUND_RESULTS, FOUND__COUNT = FOUND_RESULTS + ARB_RESULT__COUNT };

int arb_step_words(const arb_model *m) { return SUM_USED + m->state.tensor_count; }

void arb_trainer_wire(const arb_model *m, int64_t wire[ARB_TRAFFIC__COUNT]) {
  memset(wire, 0, ARB_TRAFFIC__COUNT * sizeof *wire);
  arb_exchange_wire(m, wire);
  wire[ARB_TRAFFIC_AGREE] += (int64_t)sizeof(int64_t) * (arb_step_words(m) + FOUND__COUNT);
}

/* A pass that is queued behind an update must not make the host wait for what other ranks do: not for decoded samples, nor for
 * memory of an upload that an earlier batch still has. A host backend would only do later steps' work first. */
int64_t arb_step_may_go_ahead(const arb_trainer *t) {
  const arb_model_spec *s = &t->model->spec;
  const arb_grain_set mine = arb_place_grains(t->cfg->train.grains, t->comm->rank, t->comm->size);
  return t->be->ops.replay && !t->media && !s->fused_update && !s->guards && !t->cfg->debug.poison &&
         mine.count <= s->grains_per_batch;
}

/* ---- the pass ---- */

typedef struct {
  arb_model *model;
  arb_pass *pass;
  const arb_bucket *bucket;
} pass_walk;

static arb_status forward(arb_trainer *t, void *arg) {
  (void)t;
  const pass_walk *w = arg;
  return arb_model_forward(w->model, w->pass);
}

static arb_status backward(arb_trainer *t, void *arg) {
  (void)t;
  const pass_walk *w = arg;
  return arb_model_backward(w->model, w->pass);
}

static arb_status forward_backward(arb_trainer *t, void *arg) {
  ARB_TRY(forward(t, arg));
  return backward(t, arg);
}

/* The modules of a bucket, after the forward pass if they are the last ones. */
static arb_status part(arb_trainer *t, void *arg) {
  const pass_walk *w = arg;
  if (w->bucket->past_module == w->model->module_count) ARB_TRY(forward(t, arg));
  return arb_model_backward_part(w->model, w->pass, w->bucket->first_module, w->bucket->past_module);
}

/* The last batch of a step: every part of its backward pass completes a bucket. */
static arb_status forward_backward_sent(arb_trainer *t, pass_walk *w) {
  const int replayed = t->be->ops.replay && t->warm;
  for (int i = 0; i < t->model->bucket_count; i++) {
    w->bucket = &t->model->buckets[i];
    ARB_TRY(arb_trainer_recorded(t, &t->parts_recorded[i], part, w));
    if (!replayed) ARB_TRY(t->be->ops.sync(t->be)); /* only a sequence's end says that its votes are cast */
    ARB_TRY(arb_votes_send_bucket(t));
  }
  return ARB_OK;
}

/* The only batch of a step whose backward pass updates: begun only when the forward pass was finite, since what is updated
 * cannot be taken back. */
static arb_status forward_backward_fused(arb_trainer *t, pass_walk *w) {
  int nonfinite;
  ARB_TRY(arb_trainer_recorded(t, &t->batches_recorded[0], forward, w));
  ARB_TRY(t->be->ops.take_nonfinite(t->be, &nonfinite));
  t->sums[SUM_REFUSED] = nonfinite;
  return nonfinite ? ARB_OK : arb_trainer_counted(t, t->sums + SUM_USED, backward, w);
}

/* Queues this rank's grains; on a host they are done. */
static arb_status all_batches(arb_trainer *t, int64_t step) {
  const arb_config *c = t->cfg;
  arb_model *m = t->model;
  const arb_grain_set mine = arb_place_grains(c->train.grains, t->comm->rank, t->comm->size);
  if (c->debug.poison) ARB_TRY(arb_model_poison(m));
  ARB_TRY(t->be->ops.begin_step(t->be, c->run.seed, (uint32_t)step, arb_trainer_eta(c, step) * 42.0f));
  ARB_TRY(arb_model_begin(m));
  int batch = 0;
  for (int64_t done = 0; done < mine.count; batch++) {
    const int64_t left = mine.count - done;
    const int32_t count = left < m->spec.grains_per_batch ? (int32_t)left : m->spec.grains_per_batch;
    const int64_t first = mine.first + done * mine.stride;
    const arb_rows r = {m->spec.rows_per_grain, count, (int32_t)first, (int32_t)mine.stride};
    arb_pass p;
    if (t->media) ARB_TRY(arb_media_fill(t, step, count, &t->sums[SUM_EMPTY]));
    for (int32_t i = 0; i < count && !t->media; i++)
      ARB_TRY(arb_batch_fill(&t->batches, step, first + i * mine.stride, t->ids + i * r.rows_per_grain,
                             t->targets + i * r.rows_per_grain));
    ARB_TRY(arb_model_pass_features(m, &r, t->ids, t->targets, t->media ? t->media->features : NULL, 1, t->vmax, &p));
    for (int j = 0; j < m->state.tensor_count; j++) {
      const int kind = arb_model_tensor_kind(m, j);
      t->sums[SUM_USED + j] += kind < 0 ? p.used : p.used_by[kind];
    }
    pass_walk w = {m, &p, NULL};
    done += count;
    ARB_TRY(m->spec.fused_update               ? forward_backward_fused(t, &w)
            : t->overlap && done == mine.count ? forward_backward_sent(t, &w)
                                               : arb_trainer_recorded(t, &t->batches_recorded[batch], forward_backward, &w));
  }
  return ARB_OK;
}

/* Whatever becomes of this rank's own work, the votes that the others count on are sent. */
static arb_status begin(arb_trainer *t, int64_t step) {
  arb_model *m = t->model;
  memset(t->sums, 0, (size_t)arb_step_words(m) * sizeof *t->sums);
  t->sent = 0;
  t->begun = step;
  arb_status st = all_batches(t, step);
  if (t->overlap && arb_votes_finish(t) != ARB_OK) return ARB_ERR_COMM; /* its message, or that of what went before */
  if (m->spec.guards) {
    if (t->overlap && arb_votes_arrived(t) != ARB_OK) return ARB_ERR_COMM;
    if (st == ARB_OK) st = arb_model_check_guards(m);
  }
  if (st == ARB_OK && t->be->watch && !m->spec.fused_update) { /* the reference has no flags of other ranks */
    int nonfinite;
    ARB_TRY(t->be->ops.take_nonfinite(t->be, &nonfinite));
    t->sums[SUM_REFUSED] += nonfinite;
  }
  return st;
}

arb_status arb_step_forget(arb_trainer *t) {
  int nonfinite;
  if (!t->begun) return ARB_OK;
  if (t->begun > 0 && t->begun_status != ARB_OK) arb_fail_clear(); /* it is begun again */
  t->begun = 0;
  memset(t->wire_ahead, 0, sizeof t->wire_ahead);
  if (t->media) arb_feed_destroy(&t->media->feed); /* it has given this step's samples */
  ARB_TRY(arb_votes_arrived(t));
  return t->be->ops.take_nonfinite(t->be, &nonfinite);
}

/* ---- what all ranks know ---- */

static arb_status refused(const arb_trainer *t, int64_t step) {
  return ARB_FAIL(ARB_ERR_NUMERIC, "step %lld: a value is not finite; the step was refused and the state is that of step %lld",
                  (long long)step, (long long)t->step);
}

static arb_status agree(arb_trainer *t, int64_t step, arb_status mine) {
  t->sums[SUM_FAILED] = mine != ARB_OK;
  t->sums[SUM_STOP] = t->stop && *t->stop;
  t->sums[SUM_READY] = arb_save_ready(t, 0);
  ARB_TRY(arb_comm_all_reduce(t->comm, t->sums, arb_step_words(t->model), ARB_I64, ARB_SUM, ARB_TRAFFIC_AGREE));
  t->save_ready = t->sums[SUM_READY] == t->comm->size;
  if (t->sums[SUM_FAILED]) return arb_comm_agree(t->comm, mine);
  if (t->sums[SUM_REFUSED]) return refused(t, step);
  return t->media ? arb_media_check(t, step, &t->sums[SUM_EMPTY]) : ARB_OK;
}

/* Replicated state: every rank has the same flips, and rank 0 speaks for all. */
static arb_status finish(arb_trainer *t, int64_t step, arb_step_result *result) {
  const arb_model_spec *s = &t->model->spec;
  int64_t found[FOUND__COUNT] = {0};
  int64_t *results = found + FOUND_RESULTS;
  int nonfinite = 0;
  ARB_TRY(arb_votes_arrived(t)); /* a rank that hangs shows here */
  arb_status mine = t->be->ops.collect(t->be, results, &nonfinite);
  if (mine == ARB_OK && s->guards) mine = arb_model_check_guards(t->model);
  if (!s->ranks && t->comm->rank != 0) results[ARB_RESULT_FLIPS] = results[ARB_RESULT_SATURATED] = 0;
  found[FOUND_FAILED] = mine != ARB_OK;
  found[FOUND_NONFINITE] = nonfinite;
  ARB_TRY(arb_comm_all_reduce(t->comm, found, FOUND__COUNT, ARB_I64, ARB_SUM, ARB_TRAFFIC_AGREE));
  if (found[FOUND_FAILED]) return arb_comm_agree(t->comm, mine);
  ARB_REQUIRE(
      !s->fused_update || !found[FOUND_NONFINITE], ARB_ERR_NUMERIC,
      "step %lld: a value is not finite in the backward pass. With train.fused_update = yes some matrices had taken this "
      "step, so the state in memory is given up; the last checkpoint is intact",
      (long long)step);
  if (found[FOUND_NONFINITE]) return refused(t, step);
  result->train_bpb = arb_bits_per_byte(results[ARB_RESULT_LOSS], results[ARB_RESULT_COUNT]);
  result->targets = results[ARB_RESULT_COUNT];
  result->flips = results[ARB_RESULT_FLIPS];
  result->saturated = results[ARB_RESULT_SATURATED];
  return ARB_OK;
}

/* ---- the step ---- */

/* What was handed to the transports since the last reset. */
static void payload(const arb_trainer *t, int64_t wire[ARB_TRAFFIC__COUNT]) {
  for (int k = 0; k < ARB_TRAFFIC__COUNT; k++)
    wire[k] = t->comm->payload[k] + (t->device_comm ? t->device_comm->payload[k] : 0);
}

static void begin_next(arb_trainer *t, int64_t step) {
  int64_t before[ARB_TRAFFIC__COUNT];
  payload(t, before);
  t->begun_status = begin(t, step);
  payload(t, t->wire_ahead);
  for (int k = 0; k < ARB_TRAFFIC__COUNT; k++) t->wire_ahead[k] -= before[k];
}

static void warm_up(arb_trainer *t) {
  const size_t held = t->be->ops.held(t->be), planned = t->model->kernel_work + t->model->kernel_scratch;
  if (!t->warm && held > planned)
    arb_log(ARB_LOG_WARN, "memory", "the first step took %zu bytes of work memory, %zu were planned", held, planned);
  t->warm = 1;
}

static arb_status take_step(arb_trainer *t, int64_t step, int go_on, arb_step_result *result) {
  int64_t all[ARB_TRAFFIC__COUNT];
  arb_status mine = t->begun_status;
  if (t->begun != step) {
    mine = arb_step_forget(t);
    if (mine == ARB_ERR_COMM) return mine;
    const arb_status st = begin(t, step);
    if (mine == ARB_OK) mine = st;
  }
  memcpy(result->wire, t->wire_ahead, sizeof result->wire);
  memset(t->wire_ahead, 0, sizeof t->wire_ahead);
  if (mine == ARB_ERR_COMM) return mine; /* the transport is broken: nothing can be agreed on */
  ARB_TRY(agree(t, step, mine));
  result->stop = t->sums[SUM_STOP] != 0;
  result->empty = t->sums[SUM_EMPTY];
  if (!t->model->spec.fused_update) ARB_TRY(arb_trainer_exchange(t, t->sums + SUM_USED));
  ARB_TRY(t->be->ops.post(t->be, t->model->results, ARB_RESULT__COUNT));
  if (t->device_comm) ARB_TRY(arb_comm_mark(t->device_comm));
  warm_up(t);
  t->begun = 0;
  if (go_on && t->ahead && !result->stop) begin_next(t, step + 1);
  ARB_TRY(finish(t, step, result));
  payload(t, all);
  for (int k = 0; k < ARB_TRAFFIC__COUNT; k++) result->wire[k] += all[k] - t->wire_ahead[k];
  return ARB_OK;
}

static arb_status one_step(arb_trainer *t, int go_on, arb_step_result *result) {
  arb_step_result r = {.step = t->step + 1};
  arb_comm_reset_payload(t->comm);
  if (t->device_comm) arb_comm_reset_payload(t->device_comm);
  const arb_status st = take_step(t, r.step, go_on, &r);
  if (st != ARB_OK) {
    if (t->begun) t->begun = ARB_TRAINER_FORGET;
    return st;
  }
  t->step = r.step;
  *result = r;
  return ARB_OK;
}

arb_status arb_trainer_step(arb_trainer *t, arb_step_result *result) { return one_step(t, 0, result); }
arb_status arb_trainer_step_on(arb_trainer *t, arb_step_result *result) { return one_step(t, 1, result); }
