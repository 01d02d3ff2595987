/* Input of bytes: an embedding read at positions i-2, i-1, i (three uses of one tensor), norm, linear to the stream. */
#include <stdio.h>
#include <stdlib.h>

#include "src/model/module.h"

#define SLOTS 3

typedef struct {
  arb_module base;
  int64_t channels, dim, vocabulary;
  int32_t pad;
  arb_tensor *embed, *project;
  arb_norm *norm;
  uint16_t *emb;  /* [m][SLOTS * channels] */
  int8_t *q;      /* the same, normalised */
  float *s, *inv; /* [m] */
} trigram;

static arb_status declare(arb_module *m, arb_state *s) {
  trigram *t = (trigram *)m;
  char name[2 * ARB_NAME_CHARS];
  snprintf(name, sizeof name, "%s.embed", m->name);
  ARB_TRY(arb_state_stack(s, name, 1, NULL, &t->channels, t->vocabulary, SLOTS, &t->embed));
  snprintf(name, sizeof name, "%s.norm", m->name);
  ARB_TRY(arb_state_norm(s, name, SLOTS * t->channels, &t->norm));
  snprintf(name, sizeof name, "%s.project", m->name);
  return arb_state_stack(s, name, 1, NULL, &t->dim, SLOTS * t->channels, 1, &t->project);
}

static void layout(arb_module *m, const arb_shape *shape, arb_arena *a) {
  trigram *t = (trigram *)m;
  t->emb = arb_arena_take(a, ARB_BF16, shape->rows * SLOTS * t->channels);
  t->q = arb_arena_take(a, ARB_I8, shape->rows * SLOTS * t->channels);
  t->s = arb_arena_take(a, ARB_F32, shape->rows);
  t->inv = arb_arena_take(a, ARB_F32, shape->rows);
}

static arb_status forward(arb_module *m, arb_pass *p) {
  trigram *t = (trigram *)m;
  arb_backend *be = p->be;
  arb_stack embed;
  ARB_TRY(arb_pass_stack(p, t->embed, &embed));
  ARB_TRY(be->ops.embed_forward(be, &p->rows, p->context, p->ids, SLOTS, t->pad, &embed, t->emb));
  ARB_TRY(be->ops.add_norm_quant(be, &p->rows, SLOTS * t->channels, NULL, t->emb, NULL, t->norm->e, t->q, t->s, t->inv));
  ARB_TRY(arb_linear_forward(p, t->project, t->q, t->s, p->work.y));
  p->x = NULL;
  p->y = p->work.y;
  return ARB_OK;
}

static arb_status backward(arb_module *m, arb_pass *p) {
  trigram *t = (trigram *)m;
  arb_backend *be = p->be;
  arb_work *k = &p->work;
  const int64_t width = SLOTS * t->channels;
  ARB_TRY(arb_linear_backward(p, t->project, t->q, t->s, k->dx));
  ARB_TRY(be->ops.input_norm_backward(be, &p->rows, width, t->emb, t->inv, t->norm->e, k->dx, k->g_wide));
  const arb_stack *w = &t->embed->w;
  for (int slot = 0; slot < SLOTS; slot++) {
    const int64_t at = (int64_t)slot * p->rows.grains;
    ARB_TRY(be->ops.grad_quant(be, &p->rows, NULL, k->g_wide + slot * t->channels, width, w, slot, k->hq, k->sh));
    ARB_TRY(be->ops.embed_dw(be, &p->rows, p->context, p->ids, SLOTS, slot, t->pad, k->hq, k->sh, w, k->cexp + at,
                             k->d + at * w->n * w->k));
  }
  ARB_TRY(be->ops.vote_join(be, &p->rows, k->d, k->cexp, p->vmax, w));
  return arb_votes_complete(p, t->embed);
}

static const arb_stack *output(const arb_module *m) { return &((const trigram *)m)->project->w; }

static const arb_module_ops ops = {"trigram", declare, layout, forward, backward, output};

arb_status arb_trigram_create(const char *name, int64_t channels, int64_t dim, int64_t vocabulary, int32_t pad,
                              arb_module **out) {
  trigram *t = calloc(1, sizeof *t);
  ARB_REQUIRE(t, ARB_ERR_NOMEM, "out of host memory");
  t->base.ops = &ops;
  snprintf(t->base.name, sizeof t->base.name, "%s", name);
  t->channels = channels;
  t->dim = dim;
  t->vocabulary = vocabulary;
  t->pad = pad;
  *out = &t->base;
  return ARB_OK;
}
