#include "src/model/module.h"

arb_status arb_linear_backward(arb_pass *p, const arb_tensor *t, const float *g, int64_t ldg, const int8_t *q, const float *s,
                               float *dx) {
  arb_backend *be = p->be;
  const arb_ops *o = &be->ops;
  arb_work *k = &p->work;
  ARB_TRY(o->grad_quant(be, &p->rows, g, ldg, &t->w, 0, s, dx ? k->hq : NULL, k->sh, k->tmax));
  ARB_TRY(o->dw_quant(be, &p->rows, g, ldg, &t->w, 0, s, k->tmax, k->cexp, k->tq));
  ARB_TRY(o->linear_dw_vote(be, &p->rows, k->tq, q, k->cexp, p->vmax, &t->w));
  if (dx) ARB_TRY(o->linear_dx(be, &p->rows, k->hq, k->sh, &t->w, dx));
  return arb_votes_complete(p, t);
}

arb_status arb_votes_complete(arb_pass *p, const arb_tensor *t) {
  const arb_fused *f = p->fused;
  const arb_ops *o = &p->be->ops;
  if (!f) return ARB_OK;
  f->done[t->index] = 1;
  ARB_TRY(o->vote_rows(p->be, &t->w, f->work));
  ARB_TRY(o->vote_columns(p->be, &t->w, f->work));
  ARB_TRY(o->update(p->be, &t->w, f->work, p->rows.grains, p->vmax, f->flips));
  return o->fill(p->be, t->w.votes, 0, (size_t)(t->w.n * t->w.k));
}
