/* Byte head: norm -> linear to the vocabulary -> softmax cross-entropy on the next id. */
#include <stdio.h>
#include <stdlib.h>

#include "src/model/module.h"

typedef struct {
  arb_module base;
  int64_t dim, vocabulary;
  arb_tensor *logits;
  arb_norm *norm;
  float *x;       /* [m][dim] */
  int8_t *q;      /* [m][dim] */
  uint16_t *z;    /* [m][vocabulary] */
  float *s, *inv; /* [m] */
} byte_head;

static arb_status declare(arb_module *m, arb_state *s) {
  byte_head *t = (byte_head *)m;
  char name[2 * ARB_NAME_CHARS];
  snprintf(name, sizeof name, "%s.norm", m->name);
  ARB_TRY(arb_state_norm(s, name, t->dim, &t->norm));
  snprintf(name, sizeof name, "%s.logits", m->name);
  return arb_state_stack(s, name, 1, NULL, &t->vocabulary, t->dim, 1, &t->logits);
}

static void layout(arb_module *m, const arb_shape *shape, arb_arena *a) {
  byte_head *t = (byte_head *)m;
  t->x = arb_arena_take(a, ARB_F32, shape->rows * t->dim);
  t->q = arb_arena_take(a, ARB_I8, shape->rows * t->dim);
  t->z = arb_arena_take(a, ARB_BF16, shape->rows * t->vocabulary);
  t->s = arb_arena_take(a, ARB_F32, shape->rows);
  t->inv = arb_arena_take(a, ARB_F32, shape->rows);
}

static arb_status forward(arb_module *m, arb_pass *p) {
  byte_head *t = (byte_head *)m;
  arb_backend *be = p->be;
  const arb_ops *o = &be->ops;
  ARB_TRY(o->add_norm_quant(be, &p->rows, t->dim, p->x, p->y, t->x, t->norm->e, t->q, t->s, t->inv));
  ARB_TRY(arb_linear_forward(p, t->logits, t->q, t->s, t->z));
  p->x = t->x;
  p->y = NULL;
  p->logits = t->z;
  if (!p->targets) return ARB_OK;
  return o->xent(be, &p->rows, t->z, p->targets, p->weight, &t->logits->w, p->backward ? p->work.hq : NULL, p->work.sh, p->loss,
                 p->count);
}

static arb_status backward(arb_module *m, arb_pass *p) {
  byte_head *t = (byte_head *)m;
  arb_backend *be = p->be;
  arb_work *k = &p->work;
  ARB_TRY(arb_linear_backward(p, t->logits, t->q, t->s, k->dx));
  return be->ops.norm_backward(be, &p->rows, t->dim, t->x, t->inv, t->norm->e, k->dx, 0, p->g, p->below, k->hq, k->sh);
}

static const arb_stack *output(const arb_module *m) {
  (void)m;
  return NULL;
}

static const arb_module_ops ops = {"byte_head", declare, layout, forward, backward, output};

arb_status arb_byte_head_create(const char *name, int64_t dim, int64_t vocabulary, arb_module **out) {
  byte_head *t = calloc(1, sizeof *t);
  ARB_REQUIRE(t, ARB_ERR_NOMEM, "out of host memory");
  t->base.ops = &ops;
  snprintf(t->base.name, sizeof t->base.name, "%s", name);
  t->dim = dim;
  t->vocabulary = vocabulary;
  *out = &t->base;
  return ARB_OK;
}
