#include "src/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/bits.h"

float arb_model_position_weight(const arb_model_spec *spec) {
  int e = 0;
  while (((int64_t)1 << e) < spec->rows_per_grain) e++;
  return arb_pow2i(-e);
}

static arb_status build(arb_model *m) {
  const arb_model_spec *c = &m->spec;
  char name[ARB_NAME_CHARS];
  m->modules = calloc((size_t)(2 * c->layers + 2), sizeof *m->modules);
  ARB_REQUIRE(m->modules, ARB_ERR_NOMEM, "out of host memory");
  int *n = &m->module_count;
  ARB_TRY(arb_trigram_create("input", c->embed_channels, c->dim, ARB_VOCABULARY, ARB_ID_PAD, &m->modules[*n]));
  ++*n;
  for (int64_t layer = 0; layer < c->layers; layer++) {
    snprintf(name, sizeof name, "layer%lld.memory", (long long)layer);
    ARB_TRY(arb_memory_create(name, c->dim, (const float *const *)&m->bias, c->memory_zero, &m->modules[*n]));
    ++*n;
    snprintf(name, sizeof name, "layer%lld.glu", (long long)layer);
    ARB_TRY(arb_glu_create(name, c->dim, c->glu_hidden, &m->modules[*n]));
    ++*n;
  }
  ARB_TRY(arb_byte_head_create("head", c->dim, ARB_VOCABULARY, &m->modules[*n]));
  ++*n;
  for (int i = 0; i < m->module_count; i++) ARB_TRY(m->modules[i]->ops->declare(m->modules[i], &m->state));
  return ARB_OK;
}

arb_status arb_model_create(const arb_model_spec *spec, arb_backend *be, arb_model **out) {
  arb_model *m = calloc(1, sizeof *m);
  ARB_REQUIRE(m, ARB_ERR_NOMEM, "out of host memory");
  m->spec = *spec;
  m->be = be;
  arb_state_init(&m->state, be);
  const arb_status st = build(m);
  if (st != ARB_OK)
    arb_model_destroy(&m);
  else
    *out = m;
  return st;
}

void arb_model_destroy(arb_model **model) {
  if (!model || !*model) return;
  arb_model *m = *model;
  for (int i = 0; i < m->module_count; i++) free(m->modules[i]);
  free(m->modules);
  arb_state_deinit(&m->state);
  m->be->ops.free(m->be, m->activation_memory);
  m->be->ops.free(m->be, m->work_memory);
  m->be->ops.free(m->be, m->constant_memory);
  m->be->ops.free(m->be, m->update_memory);
  free(m);
  *model = NULL;
}

/* Widest stack, input, and so on over all tensors: the work buffers fit any module. */
static void carve(arb_model *m) {
  const arb_model_spec *c = &m->spec;
  const arb_shape shape = {c->rows_per_grain * c->grains_per_batch, c->grains_per_batch, c->dim};
  for (int i = 0; i < m->module_count; i++) m->modules[i]->ops->layout(m->modules[i], &shape, &m->activations);

  int64_t n = 0, k = 0, d = 0, scales = 0, members = 0, columns = 0;
  for (int i = 0; i < m->state.tensor_count; i++) {
    const arb_stack *w = &m->state.tensors[i]->w;
    n = w->n > n ? w->n : n;
    k = w->k > k ? w->k : k;
    members = w->members > members ? w->members : members;
    columns = w->members * w->k > columns ? w->members * w->k : columns;
    const int64_t s = (int64_t)w->uses * shape.grains * w->members;
    scales = s > scales ? s : scales;
    const int64_t product = w->uses > 1 ? w->uses * shape.grains * w->n * w->k : 0;
    d = product > d ? product : d;
  }
  const int64_t widest = n > k ? n : k; /* the input's embedding gradient is as wide as its projection's input */
  arb_arena *a = &m->work;
  m->ids = arb_arena_take(a, ARB_I32, shape.rows);
  m->targets = arb_arena_take(a, ARB_I32, shape.rows);
  m->g = arb_arena_take(a, ARB_F32, shape.rows * shape.dim);
  m->buffers.y = arb_arena_take(a, ARB_BF16, shape.rows * shape.dim);
  m->buffers.g_wide = arb_arena_take(a, ARB_F32, shape.rows * widest);
  m->buffers.dx = arb_arena_take(a, ARB_F32, shape.rows * k);
  m->buffers.dh = arb_arena_take(a, ARB_F32, shape.rows * shape.dim);
  m->buffers.hq = arb_arena_take(a, ARB_I8, shape.rows * n);
  m->buffers.tq = arb_arena_take(a, ARB_I8, shape.rows * n);
  m->buffers.sh = arb_arena_take(a, ARB_F32, shape.rows);
  m->buffers.tmax = arb_arena_take(a, ARB_U32, scales);
  m->buffers.cexp = arb_arena_take(a, ARB_I32, scales);
  m->buffers.d = arb_arena_take(a, ARB_I32, d);

  a = &m->update;
  m->loss = arb_arena_take(a, ARB_I64, 1);
  m->count = arb_arena_take(a, ARB_I64, 1);
  m->flips = arb_arena_take(a, ARB_I64, 2);
  m->update_work.s = arb_arena_take(a, ARB_U64, n);
  m->update_work.top = arb_arena_take(a, ARB_I32, members);
  m->update_work.low = arb_arena_take(a, ARB_I32, members);
  m->update_work.csum = arb_arena_take(a, ARB_U64, columns);
  m->update_work.msum = arb_arena_take(a, ARB_U64, members);

  m->bias = arb_arena_take(&m->constants, ARB_F32, shape.dim);
}

void arb_model_measure(arb_model *m) {
  arb_state_measure(&m->state);
  arb_arena_measure(&m->activations, "activations");
  arb_arena_measure(&m->work, "work");
  arb_arena_measure(&m->constants, "constants");
  arb_arena_measure(&m->update, "update");
  carve(m);
}

arb_status arb_model_allocate(arb_model *m) {
  arb_backend *be = m->be;
  arb_model_measure(m);
  const struct {
    arb_arena *arena;
    void **memory;
  } block[] = {{&m->activations, &m->activation_memory},
               {&m->work, &m->work_memory},
               {&m->constants, &m->constant_memory},
               {&m->update, &m->update_memory}};
  ARB_TRY(arb_state_allocate(&m->state));
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) {
    const size_t bytes = block[i].arena->peak;
    ARB_TRY(be->ops.alloc(be, bytes, block[i].memory));
    ARB_TRY(be->ops.fill(be, *block[i].memory, 0, bytes));
    arb_arena_assign(block[i].arena, block[i].arena->name, *block[i].memory, bytes);
  }
  carve(m);
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) ARB_TRY(arb_arena_check(block[i].arena));

  const int64_t dim = m->spec.dim;
  float *ladder = calloc((size_t)dim, sizeof *ladder);
  ARB_REQUIRE(ladder, ARB_ERR_NOMEM, "out of host memory");
  for (int64_t d = 0; d < dim; d++) ladder[d] = 1.0f + (4.0f * (float)d) / (float)(dim - 1);
  const arb_status st = be->ops.upload(be, m->bias, ladder, (size_t)dim * sizeof *ladder);
  free(ladder);
  return st;
}

arb_status arb_model_begin(arb_model *m) {
  arb_backend *be = m->be;
  ARB_TRY(be->ops.fill(be, m->state.votes_memory, 0, m->state.votes.peak));
  ARB_TRY(be->ops.fill(be, m->loss, 0, sizeof *m->loss));
  ARB_TRY(be->ops.fill(be, m->count, 0, sizeof *m->count));
  return be->ops.fill(be, m->flips, 0, 2 * sizeof *m->flips);
}

arb_status arb_model_pass(arb_model *m, const arb_rows *r, const int32_t *ids, const int32_t *targets, int backward, int vmax,
                          arb_pass *p) {
  arb_backend *be = m->be;
  const int64_t rows = arb_rows_count(r);
  ARB_REQUIRE(rows <= m->spec.rows_per_grain * m->spec.grains_per_batch && r->grains <= m->spec.grains_per_batch, ARB_ERR_ARG,
              "a pass of %lld rows in a model planned for %lld", (long long)rows,
              (long long)(m->spec.rows_per_grain * m->spec.grains_per_batch));
  ARB_TRY(be->ops.upload(be, m->ids, ids, (size_t)rows * sizeof *ids));
  if (targets) ARB_TRY(be->ops.upload(be, m->targets, targets, (size_t)rows * sizeof *targets));
  *p = (arb_pass){.be = be,
                  .rows = *r,
                  .context = m->spec.context,
                  .ids = m->ids,
                  .targets = targets ? m->targets : NULL,
                  .backward = backward,
                  .vmax = vmax,
                  .weight = arb_model_position_weight(&m->spec),
                  .g = m->g,
                  .loss = m->loss,
                  .count = m->count,
                  .work = m->buffers};
  return ARB_OK;
}

arb_status arb_model_forward(arb_model *m, arb_pass *p) {
  for (int i = 0; i < m->module_count; i++) ARB_TRY(m->modules[i]->ops->forward(m->modules[i], p));
  return ARB_OK;
}

arb_status arb_model_backward(arb_model *m, arb_pass *p) {
  for (int i = m->module_count - 1; i >= 0; i--) ARB_TRY(m->modules[i]->ops->backward(m->modules[i], p));
  return ARB_OK;
}

arb_status arb_model_update(arb_model *m, const int64_t *used, int vmax) {
  arb_backend *be = m->be;
  for (int i = 0; i < m->state.tensor_count; i++) {
    const arb_stack *w = &m->state.tensors[i]->w;
    if (used[i] == 0) continue;
    ARB_TRY(be->ops.vote_rows(be, w, &m->update_work));
    ARB_TRY(be->ops.vote_columns(be, w, &m->update_work));
    ARB_TRY(be->ops.update(be, w, &m->update_work, used[i], vmax, m->flips));
  }
  return ARB_OK;
}

arb_status arb_model_poison(arb_model *m) {
  arb_backend *be = m->be;
  ARB_TRY(be->ops.fill(be, m->activation_memory, 0xff, m->activations.peak));
  return be->ops.fill(be, m->work_memory, 0xff, m->work.peak);
}
