/* How votes go on the wire: all of them after the backward pass, or, on transports of device memory, in buckets while it runs.
 *
 * A bucket holds the votes of neighbouring modules. The backward pass goes from the last module to the first, so the buckets
 * are complete one after the other, and each is sent as soon as it is, beside the work that completes the next. Votes are
 * integers: the sums are those of one call. Only what is left after the last module is waited for, hence each bucket is half of
 * what the ones before it left. */
#include "src/train/trainer_impl.h"

static arb_comm *carrier(const arb_trainer *t) { return t->device_comm ? t->device_comm : t->comm; }

static int64_t weights_of(const arb_model *m, int module) {
  int64_t sum = 0;
  for (int i = m->first_tensor[module]; i < m->first_tensor[module + 1]; i++)
    sum += m->state.tensors[i]->w.n * m->state.tensors[i]->w.k;
  return sum;
}

void arb_votes_plan(arb_trainer *t) {
  const arb_model *m = t->model;
  const arb_state *s = &m->state;
  int64_t left = arb_state_weights(s), end = (int64_t)s->votes.peak;
  t->bucket_count = 0;
  for (int module = m->module_count; module > 0;) {
    arb_bucket *b = &t->buckets[t->bucket_count++];
    const int last = t->bucket_count == ARB_TRAINER_BUCKETS;
    int64_t sum = 0;
    b->past_module = module;
    do sum += weights_of(m, --module);
    while (module > 0 && (last || 2 * sum < left));
    left -= sum;
    b->first_module = module;
    b->first_tensor = m->first_tensor[b->first_module];
    b->past_tensor = m->first_tensor[b->past_module];
    /* The block's first bytes may be a guard zone, which goes with the first tensor. */
    b->at = b->first_tensor > 0 ? s->tensors[b->first_tensor]->w.votes - (int8_t *)s->votes_memory : 0;
    b->bytes = end - b->at;
    end = b->at;
  }
}

void arb_trainer_overlap(arb_trainer *t, int on) { t->overlap = on && t->device_comm && !t->model->spec.fused_update; }

/* Replicated state: the votes lie in one block, and the gaps between them stay zero. */
static arb_status send_range(arb_trainer *t, int64_t at, int64_t bytes) {
  int8_t *votes = (int8_t *)t->model->state.votes_memory + at;
  return bytes ? arb_comm_all_reduce(carrier(t), votes, bytes, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES) : ARB_OK;
}

/* Sharded state: to every rank the sums of its rows. */
static arb_status scatter_each(arb_trainer *t, int first, int past) {
  for (int i = first; i < past; i++) {
    const arb_tensor *a = t->model->state.tensors[i];
    ARB_TRY(
        arb_comm_reduce_scatter(carrier(t), a->w.votes, a->own.votes, a->most * a->w.k, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES));
  }
  return ARB_OK;
}

static arb_status scatter(arb_trainer *t, int first, int past) {
  ARB_TRY(arb_comm_batch_begin(carrier(t)));
  const arb_status st = scatter_each(t, first, past), end = arb_comm_batch_end(carrier(t));
  ARB_TRY(st);
  return end;
}

arb_status arb_votes_send_bucket(arb_trainer *t) {
  const arb_bucket *b = &t->buckets[t->sent++];
  ARB_TRY(arb_comm_aside(t->device_comm));
  return t->model->spec.ranks ? scatter(t, b->first_tensor, b->past_tensor) : send_range(t, b->at, b->bytes);
}

arb_status arb_votes_finish(arb_trainer *t) {
  while (t->sent < t->bucket_count) ARB_TRY(arb_votes_send_bucket(t));
  return arb_comm_barrier(t->device_comm);
}

arb_status arb_votes_arrived(arb_trainer *t) { return t->device_comm ? arb_comm_barrier(t->device_comm) : ARB_OK; }

arb_status arb_trainer_send_votes(arb_trainer *t) {
  const arb_state *s = &t->model->state;
  if (!t->overlap) return t->model->spec.ranks ? scatter(t, 0, s->tensor_count) : send_range(t, 0, (int64_t)s->votes.peak);
  for (t->sent = 0; t->sent < t->bucket_count;) ARB_TRY(arb_votes_send_bucket(t));
  return ARB_OK;
}
