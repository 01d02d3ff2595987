/* How votes go on the wire: all of them after the backward pass, or, on transports of device memory, in buckets while it runs.
 *
 * A bucket holds the votes of neighbouring modules (src/model/model.c). The backward pass completes one after the other, and
 * each is sent as soon as it is complete, beside the work that completes the next. Votes are integers: the sums are those of
 * one call. */
#include "src/train/trainer_impl.h"

static arb_comm *carrier(const arb_trainer *t) { return t->device_comm ? t->device_comm : t->comm; }

void arb_trainer_overlap(arb_trainer *t, int on) {
  t->overlap = on && t->device_comm && !t->model->spec.fused_update && !t->be->watch; /* a watched slot is waited for anyway */
  if (t->begun) t->begun = ARB_TRAINER_FORGET;                                        /* its votes went the other way */
}

/* Replicated state: the votes lie in one block, and the gaps between them stay zero. */
static arb_status send_range(arb_trainer *t, int64_t at, int64_t bytes) {
  int8_t *votes = (int8_t *)t->model->state.votes_memory + at;
  return bytes ? arb_comm_all_reduce(carrier(t), votes, bytes, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES) : ARB_OK;
}

/* Replicated state: where a bucket lies in the block of votes. The block's first bytes may be a guard zone, which goes with the
 * first tensor. */
static int64_t begin_of(const arb_state *s, int tensor) {
  if (tensor == s->tensor_count) return (int64_t)s->votes.peak;
  return tensor ? s->tensors[tensor]->w.votes - (int8_t *)s->votes_memory : 0;
}

/* Sharded state: to every rank the sums of its rows, which lie together. */
static arb_status scatter(arb_trainer *t, const arb_bucket *b) {
  const arb_tensor *first = t->model->state.tensors[b->first_tensor];
  return arb_comm_reduce_scatter(carrier(t), first->w.votes, first->own.votes, first->w.groups.stride, ARB_I8, ARB_SUM,
                                 ARB_TRAFFIC_VOTES);
}

static arb_status scatter_all(arb_trainer *t) {
  arb_status st = ARB_OK;
  ARB_TRY(arb_comm_batch_begin(carrier(t)));
  for (int i = 0; i < t->model->bucket_count && st == ARB_OK; i++) st = scatter(t, &t->model->buckets[i]);
  const arb_status end = arb_comm_batch_end(carrier(t));
  ARB_TRY(st);
  return end;
}

static arb_status send_bucket(arb_trainer *t, const arb_bucket *b) {
  const arb_state *s = &t->model->state;
  const int64_t at = begin_of(s, b->first_tensor);
  return t->model->spec.ranks ? scatter(t, b) : send_range(t, at, begin_of(s, b->past_tensor) - at);
}

/* A value that is not finite on one rank keeps every rank from updating: the flag goes with the last votes. */
static arb_status end_with_flag(arb_trainer *t, arb_status st) {
  if (st == ARB_OK) st = arb_comm_all_reduce(carrier(t), t->be->flag, 1, ARB_I32, ARB_MAX, ARB_TRAFFIC_AGREE);
  const arb_status end = arb_comm_batch_end(carrier(t));
  ARB_TRY(st);
  return end;
}

arb_status arb_votes_send_bucket(arb_trainer *t) {
  const arb_bucket *b = &t->model->buckets[t->sent++];
  ARB_TRY(arb_comm_aside(t->device_comm));
  if (t->sent < t->model->bucket_count) return send_bucket(t, b);
  ARB_TRY(arb_comm_batch_begin(carrier(t)));
  return end_with_flag(t, send_bucket(t, b));
}

arb_status arb_votes_finish(arb_trainer *t) {
  while (t->sent < t->model->bucket_count) ARB_TRY(arb_votes_send_bucket(t));
  return ARB_OK;
}

arb_status arb_votes_sum(arb_trainer *t) {
  if (t->overlap) return arb_comm_join(t->device_comm);
  ARB_TRY(arb_comm_batch_begin(carrier(t)));
  return end_with_flag(t, arb_trainer_send_votes(t));
}

arb_status arb_votes_arrived(arb_trainer *t) { return t->device_comm ? arb_comm_barrier(t->device_comm) : ARB_OK; }

arb_status arb_trainer_send_votes(arb_trainer *t) {
  const arb_state *s = &t->model->state;
  if (!t->overlap) return t->model->spec.ranks ? scatter_all(t) : send_range(t, 0, (int64_t)s->votes.peak);
  for (t->sent = 0; t->sent < t->model->bucket_count;) ARB_TRY(arb_votes_send_bucket(t));
  return ARB_OK;
}
