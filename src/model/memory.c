/* Recurrent memory: norm -> [f, c, g] -> h[t] = f h[t-1] + (1-f) c -> norm(h) * sigmoid(g) -> o, added to the stream. */
#include <stdio.h>
#include <stdlib.h>

#include "src/model/module.h"

typedef struct {
  arb_module base;
  int64_t dim;
  const float *const *bias; /* the model's ladder, allocated after the modules are made */
  int zero;
  arb_tensor *fcg, *o;
  arb_norm *norm_in, *norm_out;
  float *x;                               /* [m][dim] the stream as this module saw it */
  int8_t *q_in;                           /* [m][dim] */
  uint16_t *z;                            /* [m][3 dim]: f, c, g before their gates */
  float *h;                               /* [m][dim] */
  int8_t *q_out;                          /* [m][dim] */
  float *s_in, *inv_in, *s_out, *inv_out; /* [m] */
} memory;

static arb_status declare(arb_module *m, arb_state *s) {
  memory *t = (memory *)m;
  char name[2 * ARB_NAME_CHARS];
  const char *const members[] = {"f", "c", "g"};
  const int64_t rows[] = {t->dim, t->dim, t->dim};
  snprintf(name, sizeof name, "%s.norm_in", m->name);
  ARB_TRY(arb_state_norm(s, name, t->dim, &t->norm_in));
  snprintf(name, sizeof name, "%s.fcg", m->name);
  ARB_TRY(arb_state_stack(s, name, 3, members, rows, t->dim, 1, &t->fcg));
  snprintf(name, sizeof name, "%s.norm_out", m->name);
  ARB_TRY(arb_state_norm(s, name, t->dim, &t->norm_out));
  snprintf(name, sizeof name, "%s.o", m->name);
  return arb_state_stack(s, name, 1, NULL, &t->dim, t->dim, 1, &t->o);
}

static void layout(arb_module *m, const arb_shape *shape, arb_arena *a) {
  memory *t = (memory *)m;
  const int64_t full = shape->rows * t->dim;
  t->x = arb_arena_take(a, ARB_F32, full);
  t->q_in = arb_arena_take(a, ARB_I8, full);
  t->z = arb_arena_take(a, ARB_BF16, 3 * full);
  t->h = arb_arena_take(a, ARB_F32, full);
  t->q_out = arb_arena_take(a, ARB_I8, full);
  t->s_in = arb_arena_take(a, ARB_F32, shape->rows);
  t->inv_in = arb_arena_take(a, ARB_F32, shape->rows);
  t->s_out = arb_arena_take(a, ARB_F32, shape->rows);
  t->inv_out = arb_arena_take(a, ARB_F32, shape->rows);
}

static arb_status forward(arb_module *m, arb_pass *p) {
  memory *t = (memory *)m;
  arb_backend *be = p->be;
  const arb_ops *o = &be->ops;
  const int64_t d = t->dim;
  ARB_TRY(o->add_norm_quant(be, &p->rows, d, p->x, p->y, t->x, t->norm_in->e, t->q_in, t->s_in, t->inv_in));
  p->x = t->x;
  p->y = NULL;
  if (t->zero) return ARB_OK;
  ARB_TRY(arb_linear_forward(p, t->fcg, t->q_in, t->s_in, t->z));
  ARB_TRY(o->mlgru_forward(be, &p->rows, p->context, d, t->z, t->z + d, 3 * d, *t->bias, t->h));
  ARB_TRY(o->gate_norm_quant(be, &p->rows, d, t->h, t->z + 2 * d, 3 * d, t->norm_out->e, t->q_out, t->s_out, t->inv_out));
  ARB_TRY(arb_linear_forward(p, t->o, t->q_out, t->s_out, p->work.y));
  p->y = p->work.y;
  return ARB_OK;
}

static arb_status backward(arb_module *m, arb_pass *p) {
  memory *t = (memory *)m;
  arb_backend *be = p->be;
  const arb_ops *o = &be->ops;
  arb_work *k = &p->work;
  const int64_t d = t->dim;
  if (t->zero) return ARB_OK;
  uint16_t *gz = k->g_wide;
  ARB_TRY(arb_linear_backward(p, t->o, t->q_out, t->s_out, k->dx));
  ARB_TRY(o->gate_norm_backward(be, &p->rows, d, t->h, t->z + 2 * d, 3 * d, t->inv_out, t->norm_out->e, k->dx, k->dh,
                                gz + 2 * d, 3 * d));
  ARB_TRY(o->mlgru_backward(be, &p->rows, p->context, d, t->z, t->z + d, 3 * d, *t->bias, t->h, k->dh, gz, gz + d, 3 * d));
  ARB_TRY(o->grad_quant(be, &p->rows, NULL, gz, 3 * d, &t->fcg->w, 0, k->hq, k->sh));
  ARB_TRY(arb_linear_backward(p, t->fcg, t->q_in, t->s_in, k->dx));
  return o->norm_backward(be, &p->rows, d, t->x, t->inv_in, t->norm_in->e, k->dx, 1, p->g, p->below, k->hq, k->sh);
}

static const arb_stack *output(const arb_module *m) {
  const memory *t = (const memory *)m;
  return t->zero ? NULL : &t->o->w;
}

static const arb_module_ops ops = {"memory", declare, layout, forward, backward, output};

arb_status arb_memory_create(const char *name, int64_t dim, const float *const *bias, int zero, arb_module **out) {
  memory *t = calloc(1, sizeof *t);
  ARB_REQUIRE(t, ARB_ERR_NOMEM, "out of host memory");
  t->base.ops = &ops;
  snprintf(t->base.name, sizeof t->base.name, "%s", name);
  t->dim = dim;
  t->bias = bias;
  t->zero = zero;
  *out = &t->base;
  return ARB_OK;
}
