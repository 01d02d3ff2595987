/* Sharded state: whose rows lie where, and the parts of an update that a rank does alone. Communication is src/train's. */
#include "dist/place.h"
#include "kernels/common/trit.h"
#include "src/model/state_impl.h"

void arb_state_shard(arb_state *s, int rank, int ranks) {
  arb_shard *h = &s->shard;
  h->rank = rank;
  h->ranks = ranks;
  h->trits = h->rows = h->members = h->sums = 0;
  for (int i = 0; i < s->tensor_count; i++) {
    arb_tensor *t = s->tensors[i];
    t->most = arb_place_rows_most(t->w.n, ranks);
    t->trits_at = h->trits;
    t->p_at = h->rows;
    h->trits += t->most * arb_packed_bytes(t->w.k);
    h->rows += t->most;
    h->members += t->w.members;
    h->sums += t->w.members * (t->w.k + 1);
  }
}

/* NULL while measuring. */
static int8_t *past(int8_t *base, int64_t offset) { return base ? base + offset : NULL; }

/* Bytes of a rank's votes of a tensor: rows past the last one, and what fills up to whole words of any kernel, stay zero. */
static int64_t own_votes(const arb_tensor *t) { return (t->most * t->w.k + 15) / 16 * 16; }

/* Votes are dead once they are reduced: this rank's sums take the place of its own rows' votes, so that the reductions of all
 * buckets are independent of each other. */
static void carve_votes(arb_state *s) {
  arb_shard *h = &s->shard;
  h->votes = 0;
  for (int first = 0, end; first < s->tensor_count; first = end) {
    int64_t own = 0, at = 0;
    for (end = first; end < s->tensor_count && s->tensors[end]->bucket == s->tensors[first]->bucket; end++)
      own += own_votes(s->tensors[end]);
    arb_arena_owner(&s->votes, s->tensors[first]->name);
    int8_t *const votes = arb_arena_take(&s->votes, ARB_I8, h->ranks * own);
    h->votes += own;
    for (int i = first; i < end; i++) {
      arb_tensor *t = s->tensors[i];
      t->w.votes = past(votes, at);
      t->w.groups = (arb_vote_groups){t->most, own};
      t->own.votes = past(votes, h->rank * own + at);
      at += own_votes(t);
    }
  }
}

void arb_shard_carve(arb_state *s) {
  arb_shard *h = &s->shard;
  h->packed = arb_arena_take(&h->copies, ARB_U8, h->ranks * h->trits);
  h->mine = arb_arena_take(&h->exchange, ARB_U8, h->trits);
  h->gathered_p = arb_arena_take(&h->exchange, ARB_I8, h->ranks * h->rows);
  h->p = arb_arena_take(&s->state, ARB_I8, h->rows);
  for (int i = 0; i < s->tensor_count; i++) {
    arb_tensor *t = s->tensors[i];
    arb_stack *w = &t->w, *own = &t->own;
    const arb_row_slice rows = arb_place_rows(w->n, h->rank, h->ranks);
    arb_arena_owner(&s->state, t->name);
    arb_arena_owner(&h->copies, t->name);
    w->code = NULL;
    w->r = NULL;
    w->e = arb_arena_take(&s->state, ARB_I8, w->n);
    w->p = arb_arena_take(&h->copies, ARB_I8, w->n);
    w->c = arb_arena_take(&s->state, ARB_I32, w->members * w->k);
    w->m = arb_arena_take(&s->state, ARB_I32, w->members);
    *own = arb_stack_slice(w, rows.first, rows.count);
    own->code = arb_arena_take(&s->state, ARB_U8, rows.count * w->k);
    own->r = arb_arena_take(&s->state, ARB_I32, t->most);
    own->e = past(w->e, rows.first);
    own->p = past(h->p, t->p_at);
    own->groups = (arb_vote_groups){0, 0};
  }
  carve_votes(s);
  for (int i = 0; i < s->norm_count; i++) {
    arb_arena_owner(&s->state, s->norms[i]->name);
    s->norms[i]->e = arb_arena_take(&s->state, ARB_I8, s->norms[i]->width);
  }
}

void arb_shard_carve_sums(arb_state *s, arb_arena *update) {
  arb_shard *h = &s->shard;
  h->top = arb_arena_take(update, ARB_I32, h->members);
  h->low = arb_arena_take(update, ARB_I32, h->members);
  h->stats = arb_arena_take(update, ARB_U64, h->sums);
  int64_t member = 0, sum = 0;
  for (int i = 0; i < s->tensor_count; i++) {
    arb_tensor *t = s->tensors[i];
    const int64_t columns = t->w.members * t->w.k;
    t->work.s = arb_arena_take(update, ARB_U64, t->most);
    if (!h->top || !h->low || !h->stats) continue;
    t->work.top = h->top + member;
    t->work.low = h->low + member;
    t->work.csum = h->stats + sum;
    t->work.msum = t->work.csum + columns;
    member += t->w.members;
    sum += columns + t->w.members;
  }
}

/* Rows of the others in turn, in memory that is free before the first step: codes where votes will be summed, R where this
 * rank's own comes last. */
arb_status arb_shard_fresh(arb_state *s, arb_tensor *t) {
  const arb_shard *h = &s->shard;
  const arb_ops *o = &s->be->ops;
  for (int i = 1; i <= h->ranks; i++) {
    const int rank = (h->rank + i) % h->ranks;
    const arb_row_slice rows = arb_place_rows(t->w.n, rank, h->ranks);
    arb_stack slice = arb_stack_slice(&t->w, rows.first, rows.count);
    slice.code = rank == h->rank ? t->own.code : (uint8_t *)t->own.votes;
    slice.r = t->own.r;
    slice.e = t->w.e + rows.first;
    slice.p = t->w.p + rows.first;
    ARB_TRY(o->init_stack(s->be, &slice));
    ARB_TRY(o->pack_trits(s->be, slice.code, rows.count, t->w.k, h->packed + rank * h->trits + t->trits_at));
  }
  return o->fill(s->be, t->own.p, 0, (size_t)t->most);
}

void arb_shard_arrays(const arb_tensor *t, arb_state_array *arrays) {
  void *const data[] = {t->own.code, t->own.p, t->own.r};
  static const arb_field fields[] = {ARB_FIELD_CODE, ARB_FIELD_P, ARB_FIELD_R};
  for (int i = 0; i < 3; i++) {
    arb_state_array *a = &arrays[fields[i]];
    a->first = t->own.first;
    a->count = t->own.n;
    a->sharded = 1;
    a->data = data[i];
  }
}

arb_status arb_shard_rows(arb_state *s) {
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_tensor *t = s->tensors[i];
    ARB_TRY(s->be->ops.vote_rows(s->be, &t->own, &t->work));
  }
  return ARB_OK;
}

arb_status arb_shard_columns(arb_state *s) {
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_tensor *t = s->tensors[i];
    ARB_TRY(s->be->ops.vote_columns(s->be, &t->own, &t->work));
  }
  return ARB_OK;
}

arb_status arb_shard_update(arb_state *s, const int64_t *used, int vmax, int64_t *flips) {
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_tensor *t = s->tensors[i];
    ARB_TRY(s->be->ops.update(s->be, &t->own, &t->work, used[i], vmax, flips));
  }
  return ARB_OK;
}

arb_status arb_shard_pack(arb_state *s) {
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_tensor *t = s->tensors[i];
    ARB_TRY(s->be->ops.pack_trits(s->be, t->own.code, t->own.n, t->w.k, s->shard.mine + t->trits_at));
  }
  return ARB_OK;
}

arb_status arb_shard_spread(arb_state *s) {
  const arb_shard *h = &s->shard;
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_tensor *t = s->tensors[i];
    ARB_TRY(s->be->ops.join_rows(s->be, h->gathered_p + t->p_at, h->rows, t->most, t->w.n, 1, t->w.p));
  }
  return ARB_OK;
}
