/* Input of a frozen encoder: windows over its features -> norm -> linear to the stream. Features have no gradient, so the
 * backward pass ends with the votes of the linear. */
#include <stdio.h>
#include <stdlib.h>

#include "src/model/module.h"

typedef struct {
  arb_module base;
  arb_feature_kind kind;
  int64_t windows, width, dim;
  arb_tensor *project;
  arb_norm *norm;
  int8_t *q; /* [m][span * width] */
  float *s;  /* [m] */
} sequencer;

static arb_status declare(arb_module *m, arb_state *s) {
  sequencer *t = (sequencer *)m;
  char name[2 * ARB_NAME_CHARS];
  snprintf(name, sizeof name, "%s.norm", m->name);
  ARB_TRY(arb_state_norm(s, name, ARB_FEATURE_SPAN * t->width, &t->norm));
  snprintf(name, sizeof name, "%s.project", m->name);
  return arb_state_stack(s, name, 1, NULL, &t->dim, ARB_FEATURE_SPAN * t->width, 1, &t->project);
}

static void layout(arb_module *m, const arb_shape *shape, arb_arena *a) {
  sequencer *t = (sequencer *)m;
  t->q = arb_arena_take(a, ARB_I8, shape->rows * ARB_FEATURE_SPAN * t->width);
  t->s = arb_arena_take(a, ARB_F32, shape->rows);
}

static arb_status forward(arb_module *m, arb_pass *p) {
  sequencer *t = (sequencer *)m;
  arb_backend *be = p->be;
  ARB_TRY(be->ops.window_norm_quant(be, &p->rows, t->windows, ARB_FEATURE_SPAN, t->width, p->features[t->kind].q,
                                    p->features[t->kind].s, t->norm->e, t->q, t->s));
  ARB_TRY(arb_linear_forward(p, t->project, t->q, t->s, p->work.y));
  p->x = NULL;
  p->y = p->work.y;
  return ARB_OK;
}

static arb_status backward(arb_module *m, arb_pass *p) {
  sequencer *t = (sequencer *)m;
  return arb_linear_backward(p, t->project, t->q, t->s, NULL);
}

static const arb_stack *output(const arb_module *m) { return &((const sequencer *)m)->project->w; }

static const arb_module_ops ops = {"sequencer", declare, layout, forward, backward, output};

arb_status arb_sequencer_create(const char *name, arb_feature_kind kind, int64_t windows, int64_t width, int64_t dim,
                                arb_module **out) {
  sequencer *t = calloc(1, sizeof *t);
  ARB_REQUIRE(t, ARB_ERR_NOMEM, "out of host memory");
  t->base.ops = &ops;
  snprintf(t->base.name, sizeof t->base.name, "%s", name);
  t->kind = kind;
  t->windows = windows;
  t->width = width;
  t->dim = dim;
  *out = &t->base;
  return ARB_OK;
}
