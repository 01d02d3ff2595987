/* Between the votes of a rank's grains and the state after the step: how ranks meet.
 *
 * Replicated state: all votes are summed on every rank, and every rank updates its copy. Sharded state: a rank gets the sums of
 * its own rows and updates them; what belongs to whole matrices (column sums, largest and smallest p) is reduced as integers,
 * so its value is that of the replicated update; then the new trits and p of all rows go to every rank. */
#include <string.h>

#include "src/train/trainer_impl.h"

static arb_comm *carrier(const arb_trainer *t) { return t->device_comm ? t->device_comm : t->comm; }

arb_status arb_trainer_recorded(arb_trainer *t, void **sequence, arb_status (*work)(arb_trainer *t, void *arg), void *arg) {
  const arb_ops *o = &t->be->ops;
  if (!o->replay || !t->warm) return work(t, arg);
  if (!*sequence) {
    ARB_TRY(o->record_begin(t->be));
    const arb_status st = work(t, arg), end = o->record_end(t->be, sequence);
    ARB_TRY(st);
    ARB_TRY(end);
  }
  return o->replay(t->be, *sequence);
}

arb_status arb_trainer_counted(arb_trainer *t, const int64_t *used, arb_status (*work)(arb_trainer *t, void *arg), void *arg) {
  const size_t bytes = (size_t)t->model->state.tensor_count * sizeof *used;
  void **sequence = &t->update_recorded[ARB_UPDATE_ALL];
  if (!*sequence) memcpy(t->recorded_used, used, bytes);
  return memcmp(t->recorded_used, used, bytes) == 0 ? arb_trainer_recorded(t, sequence, work, arg) : work(t, arg);
}

static arb_status update_all(arb_trainer *t, void *used) { return arb_model_update(t->model, used, t->vmax); }
static arb_status sum_rows(arb_trainer *t, void *arg) {
  (void)arg;
  return arb_shard_rows(&t->model->state);
}
static arb_status sum_columns(arb_trainer *t, void *arg) {
  (void)arg;
  return arb_shard_columns(&t->model->state);
}
static arb_status update_own(arb_trainer *t, void *used) {
  ARB_TRY(arb_shard_update(&t->model->state, used, t->vmax, t->model->flips));
  return arb_shard_pack(&t->model->state);
}
static arb_status spread(arb_trainer *t, void *arg) {
  (void)arg;
  return arb_shard_spread(&t->model->state);
}

/* From the packed trits of this rank's rows on. Only queued. */
static arb_status gather(arb_trainer *t) {
  const arb_shard *h = &t->model->state.shard;
  arb_comm *c = carrier(t);
  ARB_TRY(arb_comm_all_gather(c, h->mine, h->packed, h->trits, ARB_U8, ARB_TRAFFIC_TRITS));
  ARB_TRY(arb_comm_all_gather(c, h->p, h->gathered_p, h->rows, ARB_I8, ARB_TRAFFIC_ROWS));
  return arb_trainer_recorded(t, &t->update_recorded[ARB_UPDATE_SPREAD], spread, NULL);
}

arb_status arb_trainer_gather_copies(arb_trainer *t) {
  if (!t->model->spec.ranks) return ARB_OK;
  arb_status st = arb_shard_pack(&t->model->state);
  if (st == ARB_OK) st = t->be->ops.sync(t->be);
  ARB_TRY(arb_comm_agree(t->comm, st));
  ARB_TRY(gather(t));
  return arb_votes_arrived(t);
}

static arb_status exchange_rows(arb_trainer *t, int64_t *used) {
  const arb_shard *h = &t->model->state.shard;
  arb_comm *c = carrier(t);
  ARB_TRY(arb_trainer_recorded(t, &t->update_recorded[ARB_UPDATE_ROWS], sum_rows, NULL));
  ARB_TRY(arb_comm_all_reduce(c, h->top, h->members, ARB_I32, ARB_MAX, ARB_TRAFFIC_STATS));
  ARB_TRY(arb_comm_all_reduce(c, h->low, h->members, ARB_I32, ARB_MIN, ARB_TRAFFIC_STATS));
  ARB_TRY(arb_trainer_recorded(t, &t->update_recorded[ARB_UPDATE_COLUMNS], sum_columns, NULL));
  ARB_TRY(arb_comm_all_reduce(c, h->stats, h->sums, ARB_U64, ARB_SUM, ARB_TRAFFIC_STATS));
  ARB_TRY(arb_trainer_counted(t, used, update_own, used));
  return gather(t);
}

arb_status arb_trainer_exchange(arb_trainer *t, int64_t *used) {
  ARB_TRY(arb_votes_sum(t));
  return t->model->spec.ranks ? exchange_rows(t, used) : arb_trainer_counted(t, used, update_all, used);
}

void arb_exchange_wire(const arb_model *m, int64_t wire[ARB_TRAFFIC__COUNT]) {
  const arb_state *s = &m->state;
  const arb_shard *h = &s->shard;
  if (m->spec.fused_update) return; /* of one rank */
  wire[ARB_TRAFFIC_AGREE] = sizeof *m->be->flag;
  if (!m->spec.ranks) {
    wire[ARB_TRAFFIC_VOTES] = (int64_t)s->votes.peak;
    return;
  }
  wire[ARB_TRAFFIC_VOTES] = h->ranks * h->votes;
  wire[ARB_TRAFFIC_TRITS] = h->trits;
  wire[ARB_TRAFFIC_ROWS] = h->rows;
  wire[ARB_TRAFFIC_STATS] = 2 * (int64_t)sizeof(int32_t) * h->members + (int64_t)sizeof(uint64_t) * h->sums;
}
