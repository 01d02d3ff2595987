/* Gated linear unit: norm -> [u, v] -> norm(silu(u) * v) -> d, added to the stream. */
#include <stdio.h>
#include <stdlib.h>

#include "src/model/module.h"

typedef struct {
  arb_module base;
  int64_t dim, hidden;
  arb_tensor *uv, *d;
  arb_norm *norm_in, *norm_hidden;
  float *x;                                     /* [m][dim] the stream as this module saw it */
  int8_t *q_in;                                 /* [m][dim] */
  uint16_t *z;                                  /* [m][2 hidden]: u, v */
  int8_t *q_hidden;                             /* [m][hidden] */
  float *s_in, *inv_in, *s_hidden, *inv_hidden; /* [m] */
} glu;

static arb_status declare(arb_module *m, arb_state *s) {
  glu *t = (glu *)m;
  char name[2 * ARB_NAME_CHARS];
  const char *const members[] = {"u", "v"};
  const int64_t rows[] = {t->hidden, t->hidden};
  snprintf(name, sizeof name, "%s.norm_in", m->name);
  ARB_TRY(arb_state_norm(s, name, t->dim, &t->norm_in));
  snprintf(name, sizeof name, "%s.uv", m->name);
  ARB_TRY(arb_state_stack(s, name, 2, members, rows, t->dim, 1, &t->uv));
  snprintf(name, sizeof name, "%s.norm_hidden", m->name);
  ARB_TRY(arb_state_norm(s, name, t->hidden, &t->norm_hidden));
  snprintf(name, sizeof name, "%s.d", m->name);
  return arb_state_stack(s, name, 1, NULL, &t->dim, t->hidden, 1, &t->d);
}

static void layout(arb_module *m, const arb_shape *shape, arb_arena *a) {
  glu *t = (glu *)m;
  t->x = arb_arena_take(a, ARB_F32, shape->rows * t->dim);
  t->q_in = arb_arena_take(a, ARB_I8, shape->rows * t->dim);
  t->z = arb_arena_take(a, ARB_BF16, shape->rows * 2 * t->hidden);
  t->q_hidden = arb_arena_take(a, ARB_I8, shape->rows * t->hidden);
  t->s_in = arb_arena_take(a, ARB_F32, shape->rows);
  t->inv_in = arb_arena_take(a, ARB_F32, shape->rows);
  t->s_hidden = arb_arena_take(a, ARB_F32, shape->rows);
  t->inv_hidden = arb_arena_take(a, ARB_F32, shape->rows);
}

static arb_status forward(arb_module *m, arb_pass *p) {
  glu *t = (glu *)m;
  arb_backend *be = p->be;
  const arb_ops *o = &be->ops;
  ARB_TRY(o->add_norm_quant(be, &p->rows, t->dim, p->x, p->y, t->x, t->norm_in->e, t->q_in, t->s_in, t->inv_in));
  ARB_TRY(arb_linear_forward(p, t->uv, t->q_in, t->s_in, t->z));
  ARB_TRY(o->glu_norm_quant(be, &p->rows, t->hidden, t->z, t->z + t->hidden, 2 * t->hidden, t->norm_hidden->e, t->q_hidden,
                            t->s_hidden, t->inv_hidden));
  ARB_TRY(arb_linear_forward(p, t->d, t->q_hidden, t->s_hidden, p->work.y));
  p->x = t->x;
  p->y = p->work.y;
  return ARB_OK;
}

static arb_status backward(arb_module *m, arb_pass *p) {
  glu *t = (glu *)m;
  arb_backend *be = p->be;
  const arb_ops *o = &be->ops;
  arb_work *k = &p->work;
  const int64_t h = t->hidden;
  ARB_TRY(arb_linear_backward(p, t->d, t->q_hidden, t->s_hidden, k->dx));
  ARB_TRY(o->glu_norm_backward(be, &p->rows, h, t->z, t->z + h, 2 * h, t->inv_hidden, t->norm_hidden->e, k->dx, &t->uv->w,
                               k->hq, k->sh));
  ARB_TRY(arb_linear_backward(p, t->uv, t->q_in, t->s_in, k->dx));
  return o->norm_backward(be, &p->rows, t->dim, t->x, t->inv_in, t->norm_in->e, k->dx, 1, p->g, p->below, k->hq, k->sh);
}

static const arb_stack *output(const arb_module *m) { return &((const glu *)m)->d->w; }

static const arb_module_ops ops = {"glu", declare, layout, forward, backward, output};

arb_status arb_glu_create(const char *name, int64_t dim, int64_t hidden, arb_module **out) {
  glu *t = calloc(1, sizeof *t);
  ARB_REQUIRE(t, ARB_ERR_NOMEM, "out of host memory");
  t->base.ops = &ops;
  snprintf(t->base.name, sizeof t->base.name, "%s", name);
  t->dim = dim;
  t->hidden = hidden;
  *out = &t->base;
  return ARB_OK;
}
