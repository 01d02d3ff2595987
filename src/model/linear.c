#include "src/model/module.h"

arb_status arb_pass_stack(const arb_pass *p, const arb_tensor *t, arb_stack *out) {
  const arb_shard *h = p->shard;
  *out = t->w;
  if (!h) return ARB_OK;
  out->code = p->work.plain;
  return p->be->ops.unpack_trits(p->be, h->packed + t->trits_at, h->trits, t->most, t->w.n, t->w.k, out->code);
}

arb_status arb_linear_forward(arb_pass *p, const arb_tensor *t, const int8_t *q, const float *s, uint16_t *y) {
  arb_stack w;
  ARB_TRY(arb_pass_stack(p, t, &w));
  return p->be->ops.linear_forward(p->be, &p->rows, q, s, &w, y);
}

arb_status arb_linear_backward(arb_pass *p, const arb_tensor *t, const int8_t *q, const float *s, uint16_t *dx) {
  arb_backend *be = p->be;
  arb_work *k = &p->work;
  if (dx) {
    arb_stack w;
    ARB_TRY(arb_pass_stack(p, t, &w));
    ARB_TRY(be->ops.linear_dx(be, &p->rows, k->hq, k->sh, &w, dx));
  }
  ARB_TRY(be->ops.linear_dw_vote(be, &p->rows, k->hq, k->sh, q, s, p->vmax, &t->w));
  int8_t *const hq = k->hq;
  float *const sh = k->sh;
  k->hq = k->hq_next, k->sh = k->sh_next;
  k->hq_next = hq, k->sh_next = sh;
  return arb_votes_complete(p, t);
}

arb_status arb_votes_complete(arb_pass *p, const arb_tensor *t) {
  const arb_fused *f = p->fused;
  const arb_ops *o = &p->be->ops;
  if (!f) return ARB_OK;
  f->done[t->index] = 1;
  ARB_TRY(o->vote_rows(p->be, &t->w, f->work));
  ARB_TRY(o->vote_columns(p->be, &t->w, f->work));
  ARB_TRY(o->update(p->be, &t->w, f->work, p->used, p->vmax, f->flips));
  return o->fill(p->be, t->w.votes, 0, (size_t)(t->w.n * t->w.k));
}
