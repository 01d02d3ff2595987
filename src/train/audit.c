/* What a run holds, counted on the arenas that its memory was carved from. */
#include "src/train/media.h"

static void row(FILE *out, const char *what, size_t bytes, int64_t weights) {
  fprintf(out, "  %-44s %14zu bytes  %8.4f a weight\n", what, bytes, (double)bytes / (double)weights);
}

arb_status arb_trainer_audit(const arb_trainer *t, FILE *out) {
  const arb_model *m = t->model;
  const arb_state *s = &m->state;
  const int64_t weights = arb_state_weights(s);
  fprintf(out, "tensors\n");
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_tensor *a = s->tensors[i];
    fprintf(out, "  %-20s %8lld x %-8lld %12lld weights", a->name, (long long)a->w.n, (long long)a->w.k,
            (long long)(a->w.n * a->w.k));
    for (int j = 0; j < a->w.members; j++) fprintf(out, "%s%s", j ? "," : "  ", a->member[j]);
    fprintf(out, "\n");
  }
  size_t rows = 0, columns = 0, norms = 0, codes = 0;
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_stack *w = &s->tensors[i]->w;
    const int64_t held = s->shard.ranks ? s->tensors[i]->most : w->n;
    codes += (size_t)((s->shard.ranks ? s->tensors[i]->own.n : w->n) * w->k);
    rows += (size_t)(w->n + held * 5);
    columns += (size_t)(w->members * (w->k + 1)) * 4;
  }
  for (int i = 0; i < s->norm_count; i++) norms += (size_t)s->norms[i]->width;
  const size_t state = arb_arena_payload(&s->state), floats = arb_arena_float_payload(&s->state);
  fprintf(out, "\nlogical ternary weights        %lld\n", (long long)weights);
  fprintf(out, "norm exponents                 %lld\n", (long long)arb_state_norm_exponents(s));
  fprintf(out, "trainable float parameters     %zu\n", floats / 4);
  fprintf(out, "float buffers                  %zu  (float arrays that live across steps and depend on training)\n",
          floats / 4);
  fprintf(out, "\nstate: everything the next step reads\n");
  if (s->shard.ranks)
    fprintf(out, "  sharded: rank %d of %d, which owns a share of the rows; E, C, M and norms are on every rank\n",
            s->shard.rank, s->shard.ranks);
  row(out, "state bytes (trit and accumulator)", codes, weights);
  row(out, "rows: E, p int8, R int32", rows, weights);
  row(out, "columns and matrices: C, M int32", columns, weights);
  row(out, "norm exponents", norms, weights);
  row(out, "state, sum", state, weights);
  row(out, "state, allocated (256-byte alignment)", s->state.capacity, weights);
  ARB_REQUIRE(codes + rows + columns + norms == state, ARB_ERR_ARG, "audit: parts give %zu bytes, the allocator %zu",
              codes + rows + columns + norms, state);
  if (s->shard.ranks) {
    fprintf(out,
            "\ncopies: what this rank knows of all ranks' rows, made of the owners' state after every update, never saved\n");
    row(out, "packed trits, 5 a byte; p", s->shard.copies.capacity, weights);
  }
  fprintf(out, "\nwork memory: rewritten every step, NaN-filled before each with debug.poison = yes\n");
  if (!s->shard.ranks) row(out, "packed trits (this backend reads state bytes)", 0, weights);
  row(out, "votes, int8", arb_arena_payload(&s->votes), weights);
  row(out, "activations kept for the backward pass", m->activations.capacity, weights);
  row(out, "gradients and products in flight", m->work.capacity, weights);
  row(out, "work memory of kernels", t->be->ops.held(t->be), weights);
  if (s->shard.ranks) row(out, "sent and received: packed trits, p", s->shard.exchange.capacity, weights);
  row(out, "update sums", m->update.capacity, weights);
  row(out, "constants (forget-gate ladder)", m->constants.capacity, weights);
  if (t->media) arb_media_audit(t, out);
  ARB_REQUIRE(floats == 0, ARB_ERR_ARG, "audit: the state holds %zu bytes of float", floats);
  return ARB_OK;
}
