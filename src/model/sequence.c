/* A sequence of several parts, [image][audio][text]: each part runs as the input of its own short sequences, and its rows are
 * moved to their place in the stream; gradients take the same way back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/model/module.h"

#define PARTS (ARB_FEATURE_KINDS + 1)

typedef struct {
  arb_module base;
  arb_module *parts[PARTS];
  int64_t rows[PARTS], dim;
  int64_t context;  /* all parts' rows */
  uint16_t *joined; /* [m][dim] the stream */
  uint16_t *apart;  /* [m][dim] the parts' outputs, one part after the other */
  float *g;         /* [m][dim] a part's gradient */
} sequence;

static arb_status declare(arb_module *m, arb_state *s) {
  sequence *t = (sequence *)m;
  for (int i = 0; i < PARTS; i++)
    if (t->parts[i]) ARB_TRY(t->parts[i]->ops->declare(t->parts[i], s));
  return ARB_OK;
}

static void layout(arb_module *m, const arb_shape *shape, arb_arena *a) {
  sequence *t = (sequence *)m;
  t->joined = arb_arena_take(a, ARB_BF16, shape->rows * t->dim);
  t->apart = arb_arena_take(a, ARB_BF16, shape->rows * t->dim);
  t->g = arb_arena_take(a, ARB_F32, shape->rows * t->dim);
  for (int i = 0; i < PARTS; i++) {
    arb_shape part = *shape;
    part.rows = shape->rows / t->context * t->rows[i];
    if (t->parts[i]) t->parts[i]->ops->layout(t->parts[i], &part, a);
  }
}

/* The pass as part i sees it. Returns its rows. */
static int64_t pass_of(const sequence *t, const arb_pass *p, int i, arb_pass *part) {
  *part = *p;
  part->context = t->rows[i];
  if (i < ARB_FEATURE_KINDS) part->used = p->used_by[i];
  part->rows.rows_per_grain = p->rows.rows_per_grain / t->context * t->rows[i];
  return arb_rows_count(&part->rows);
}

static arb_status forward(arb_module *m, arb_pass *p) {
  sequence *t = (sequence *)m;
  arb_backend *be = p->be;
  int64_t done = 0;
  for (int i = 0; i < PARTS; i++) {
    if (!t->parts[i]) continue;
    arb_pass part;
    const int64_t rows = pass_of(t, p, i, &part);
    part.work.y = t->apart + done * t->dim;
    ARB_TRY(t->parts[i]->ops->forward(t->parts[i], &part));
    done += rows;
  }
  ARB_TRY(be->ops.gather_rows(be, arb_rows_count(&p->rows), t->dim * (int64_t)sizeof *t->apart, t->apart, p->join, t->joined));
  p->x = NULL;
  p->y = t->joined;
  return ARB_OK;
}

static arb_status backward(arb_module *m, arb_pass *p) {
  sequence *t = (sequence *)m;
  arb_backend *be = p->be;
  for (int i = 0; i < PARTS; i++) {
    if (!t->parts[i]) continue;
    arb_pass part;
    const int64_t rows = pass_of(t, p, i, &part);
    part.g = t->g;
    ARB_TRY(be->ops.gather_rows(be, rows, t->dim * (int64_t)sizeof *part.g, p->g, p->split[i], part.g));
    ARB_TRY(be->ops.grad_quant(be, &part.rows, part.g, NULL, t->dim, t->parts[i]->ops->output(t->parts[i]), 0, p->work.hq,
                               p->work.sh));
    ARB_TRY(t->parts[i]->ops->backward(t->parts[i], &part));
  }
  return ARB_OK;
}

/* Each part has a stack of its own: their rows are made here, from the fp32 gradient. */
static const arb_stack *output(const arb_module *m) {
  (void)m;
  return NULL;
}

static const arb_module_ops ops = {"sequence", declare, layout, forward, backward, output};

arb_status arb_sequence_create(const char *name, arb_module *const parts[PARTS], const int64_t rows[PARTS], int64_t dim,
                               arb_module **out) {
  sequence *t = calloc(1, sizeof *t);
  ARB_REQUIRE(t, ARB_ERR_NOMEM, "out of host memory");
  t->base.ops = &ops;
  snprintf(t->base.name, sizeof t->base.name, "%s", name);
  memcpy(t->parts, parts, sizeof t->parts);
  memcpy(t->rows, rows, sizeof t->rows);
  for (int i = 0; i < PARTS; i++) t->context += rows[i];
  t->dim = dim;
  *out = &t->base;
  return ARB_OK;
}
