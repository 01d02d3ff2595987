#include "src/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/bits.h"

int64_t arb_model_text_rows(const arb_model_spec *spec) {
  int64_t rows = spec->context;
  for (int k = 0; k < ARB_FEATURE_KINDS; k++) rows -= spec->features[k].windows;
  return rows;
}

static int has_features(const arb_model_spec *spec) { return arb_model_text_rows(spec) != spec->context; }

float arb_model_position_weight(const arb_model_spec *spec) {
  const int64_t positions =
      has_features(spec) ? spec->rows_per_grain / spec->context * arb_model_text_rows(spec) : spec->rows_per_grain;
  int e = 0;
  while (((int64_t)1 << e) < positions) e++;
  return arb_pow2i(-e);
}

int arb_model_tensor_kind(const arb_model *m, int tensor) {
  static const char *const prefix[ARB_FEATURE_KINDS] = {"image.", "audio."};
  for (int k = 0; k < ARB_FEATURE_KINDS; k++)
    if (strncmp(m->state.tensors[tensor]->name, prefix[k], strlen(prefix[k])) == 0) return k;
  return -1;
}

/* The input of a sequence that may begin with features. */
static arb_status build_sequence(arb_model *m, arb_module **out) {
  static const char *const names[ARB_FEATURE_KINDS] = {"image", "audio"};
  const arb_model_spec *c = &m->spec;
  int64_t rows[ARB_FEATURE_KINDS + 1];
  for (int k = 0; k < ARB_FEATURE_KINDS; k++) {
    rows[k] = c->features[k].windows;
    if (rows[k])
      ARB_TRY(arb_sequencer_create(names[k], (arb_feature_kind)k, rows[k], c->features[k].width, c->dim, &m->parts[k]));
  }
  rows[ARB_FEATURE_KINDS] = arb_model_text_rows(c);
  ARB_REQUIRE(rows[ARB_FEATURE_KINDS] > 0, ARB_ERR_ARG, "a sequence of %lld rows has no room for text", (long long)c->context);
  ARB_TRY(arb_trigram_create("input", c->embed_channels, c->dim, ARB_VOCABULARY, ARB_ID_PAD, &m->parts[ARB_FEATURE_KINDS]));
  return arb_sequence_create("sequence", m->parts, rows, c->dim, out);
}

/* Blocks of eight random numbers are told apart by 32 bits: more elements than 2^35 would repeat them. */
static arb_status countable(const arb_model *m, const arb_tensor *t) {
  const int64_t most = (int64_t)1 << 35, k = arb_pad8(t->w.k), n = arb_pad8(t->w.n), uses = t->w.uses;
  ARB_REQUIRE(t->w.n <= most / k, ARB_ERR_CONFIG, "%s: %lld x %lld weights; random numbers tell 2^35 of a stack apart", t->name,
              (long long)t->w.n, (long long)t->w.k);
  ARB_REQUIRE(m->spec.rows_per_grain <= most / (uses * n), ARB_ERR_CONFIG,
              "%s: %lld rows a grain of %lld columns; random numbers tell 2^35 of a grain's gradients apart: set more "
              "train.grains, or fewer train.sequences",
              t->name, (long long)m->spec.rows_per_grain, (long long)t->w.n);
  return ARB_OK;
}

static int64_t weights_of(const arb_model *m, int module) {
  int64_t sum = 0;
  for (int i = m->first_tensor[module]; i < m->first_tensor[module + 1]; i++)
    sum += m->state.tensors[i]->w.n * m->state.tensors[i]->w.k;
  return sum;
}

/* The backward pass goes from the last module to the first. Votes of a bucket travel while it completes the next, and only the
 * last bucket is waited for, hence each is half of what the ones before it left; small ones cost more than they hide. */
static void plan_buckets(arb_model *m) {
  const int64_t least = m->spec.bucket_bytes;
  int64_t left = arb_state_weights(&m->state);
  for (int module = m->module_count; module > 0;) {
    arb_bucket *b = &m->buckets[m->bucket_count++];
    const int last = m->bucket_count == ARB_MODEL_BUCKETS;
    int64_t sum = 0;
    b->past_module = module;
    do sum += weights_of(m, --module);
    while (module > 0 && (last || 2 * sum < left || sum < least || left - sum < least));
    left -= sum;
    b->first_module = module;
    b->first_tensor = m->first_tensor[b->first_module];
    b->past_tensor = m->first_tensor[b->past_module];
    for (int i = b->first_tensor; i < b->past_tensor; i++) m->state.tensors[i]->bucket = m->bucket_count;
  }
}

static arb_status build(arb_model *m) {
  const arb_model_spec *c = &m->spec;
  char name[ARB_NAME_CHARS];
  m->modules = calloc((size_t)(2 * c->layers + 2), sizeof *m->modules);
  ARB_REQUIRE(m->modules, ARB_ERR_NOMEM, "out of host memory");
  int *n = &m->module_count;
  ARB_TRY(has_features(c)
              ? build_sequence(m, &m->modules[*n])
              : arb_trigram_create("input", c->embed_channels, c->dim, ARB_VOCABULARY, ARB_ID_PAD, &m->modules[*n]));
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
  m->first_tensor = calloc((size_t)m->module_count + 1, sizeof *m->first_tensor);
  ARB_REQUIRE(m->first_tensor, ARB_ERR_NOMEM, "out of host memory");
  for (int i = 0; i < m->module_count; i++) {
    ARB_TRY(m->modules[i]->ops->declare(m->modules[i], &m->state));
    m->first_tensor[i + 1] = m->state.tensor_count;
  }
  for (int i = 0; i < m->state.tensor_count; i++) ARB_TRY(countable(m, m->state.tensors[i]));
  plan_buckets(m);
  if (c->ranks) arb_state_shard(&m->state, c->rank, c->ranks);
  m->fused.done = calloc((size_t)m->state.tensor_count, sizeof *m->fused.done);
  ARB_REQUIRE(m->fused.done, ARB_ERR_NOMEM, "out of host memory");
  if (m->be->kind != ARB_BACKEND_CUDA || c->fused_update || c->ranks) return ARB_OK;
  m->each = calloc((size_t)m->state.tensor_count, sizeof *m->each);
  m->stacks = calloc((size_t)m->state.tensor_count, sizeof *m->stacks);
  ARB_REQUIRE(m->each && m->stacks, ARB_ERR_NOMEM, "out of host memory");
  for (int i = 0; i < m->state.tensor_count; i++) m->stacks[i] = &m->state.tensors[i]->w;
  return ARB_OK;
}

arb_status arb_model_create(const arb_model_spec *spec, arb_backend *be, arb_model **out) {
  arb_model *m = calloc(1, sizeof *m);
  ARB_REQUIRE(m, ARB_ERR_NOMEM, "out of host memory");
  m->spec = *spec;
  m->be = be;
  arb_state_init(&m->state, be);
  m->state.shared_votes = spec->fused_update;
  m->state.guards = spec->guards ? &m->guards : NULL;
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
  for (int i = 0; i <= ARB_FEATURE_KINDS; i++) free(m->parts[i]);
  free(m->first_tensor);
  free(m->host_rows);
  free(m->fused.done);
  free(m->each);
  free(m->stacks);
  arb_guards_deinit(&m->guards);
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
  for (int i = 0; i < m->module_count; i++) {
    arb_arena_owner(&m->activations, m->modules[i]->name);
    m->modules[i]->ops->layout(m->modules[i], &shape, &m->activations);
  }

  int64_t n = 0, k = 0, d = 0, uses = 0, members = 0, columns = 0, largest = 0;
  for (int i = 0; i < m->state.tensor_count; i++) {
    const arb_stack *w = &m->state.tensors[i]->w;
    n = w->n > n ? w->n : n;
    k = w->k > k ? w->k : k;
    members = w->members > members ? w->members : members;
    columns = w->members * w->k > columns ? w->members * w->k : columns;
    largest = w->n * w->k > largest ? w->n * w->k : largest;
    uses = w->uses > uses ? w->uses : uses;
    const int64_t product = w->uses > 1 ? w->uses * shape.grains * w->n * w->k : 0;
    d = product > d ? product : d;
  }
  const int64_t widest = n > k ? n : k; /* the input's embedding gradient is as wide as its projection's input */
  m->widest = widest;
  arb_arena_owner(&m->work, "all modules");
  arb_arena_owner(&m->update, "all tensors");
  arb_arena_owner(&m->constants, "all layers");
  arb_arena *a = &m->work;
  m->ids = arb_arena_take(a, ARB_I32, shape.rows);
  m->targets = arb_arena_take(a, ARB_I32, shape.rows);
  if (has_features(c)) {
    const int64_t sequences = shape.rows / c->context;
    m->join = arb_arena_take(a, ARB_I32, shape.rows);
    for (int f = 0; f < ARB_FEATURE_KINDS; f++) {
      const int64_t rows = sequences * (c->features[f].windows + ARB_FEATURE_SPAN - 1);
      if (c->features[f].windows == 0) continue;
      m->split[f] = arb_arena_take(a, ARB_I32, sequences * c->features[f].windows);
      m->features_q[f] = arb_arena_take(a, ARB_I8, rows * c->features[f].width);
      m->features_s[f] = arb_arena_take(a, ARB_F32, rows);
    }
    m->split[ARB_FEATURE_KINDS] = arb_arena_take(a, ARB_I32, sequences * arb_model_text_rows(c));
  }
  m->g = arb_arena_take(a, ARB_F32, shape.rows * shape.dim);
  m->buffers.y = arb_arena_take(a, ARB_BF16, shape.rows * shape.dim);
  m->buffers.g_wide = arb_arena_take(a, ARB_BF16, shape.rows * widest);
  m->buffers.dx = arb_arena_take(a, ARB_BF16, shape.rows * k);
  m->buffers.dh = arb_arena_take(a, ARB_BF16, shape.rows * shape.dim);
  m->buffers.hq = arb_arena_take(a, ARB_I8, shape.rows * n);
  m->buffers.sh = arb_arena_take(a, ARB_F32, shape.rows);
  m->buffers.hq_next = arb_arena_take(a, ARB_I8, shape.rows * n);
  m->buffers.sh_next = arb_arena_take(a, ARB_F32, shape.rows);
  m->buffers.cexp = arb_arena_take(a, ARB_I32, uses * shape.grains);
  m->buffers.d = arb_arena_take(a, ARB_I32, d);
  if (c->ranks) m->buffers.plain = arb_arena_take(a, ARB_U8, largest);

  a = &m->update;
  m->results = arb_arena_take(a, ARB_I64, ARB_RESULT__COUNT);
  m->loss = m->results ? m->results + ARB_RESULT_LOSS : NULL;
  m->count = m->results ? m->results + ARB_RESULT_COUNT : NULL;
  m->flips = m->results ? m->results + ARB_RESULT_FLIPS : NULL;
  if (c->ranks) arb_shard_carve_sums(&m->state, a);
  m->update_work.s = arb_arena_take(a, ARB_U64, n);
  m->update_work.top = arb_arena_take(a, ARB_I32, members);
  m->update_work.low = arb_arena_take(a, ARB_I32, members);
  m->update_work.csum = arb_arena_take(a, ARB_U64, columns);
  m->update_work.msum = arb_arena_take(a, ARB_U64, members);
  for (int i = 0; m->each && i < m->state.tensor_count; i++) {
    const arb_stack *w = m->stacks[i];
    m->each[i].s = arb_arena_take(a, ARB_U64, w->n);
    m->each[i].top = arb_arena_take(a, ARB_I32, w->members);
    m->each[i].low = arb_arena_take(a, ARB_I32, w->members);
    m->each[i].csum = arb_arena_take(a, ARB_U64, w->members * w->k);
    m->each[i].msum = arb_arena_take(a, ARB_U64, w->members);
    m->each[i].factors = arb_arena_take(a, ARB_F32, arb_update_factors(w));
  }
  m->fused.work = &m->update_work;
  m->fused.flips = m->flips;

  m->bias = arb_arena_take(&m->constants, ARB_F32, shape.dim);
}

static const char *base_name(const char *path) { return strrchr(path, '/') ? strrchr(path, '/') + 1 : path; }

static void guard(arb_model *m) {
  arb_arena *const arena[] = {&m->activations, &m->work, &m->constants, &m->update};
  for (int i = 0; m->spec.guards && i < 4; i++) arb_arena_guard(arena[i], &m->guards, ARB_GUARD_PATTERN);
}

static arb_status write_guards(arb_model *m) {
  for (int i = 0; i < m->guards.count; i++) {
    const arb_guard_zone *z = &m->guards.zone[i];
    ARB_TRY(m->be->ops.fill(m->be, z->at, z->pattern, z->bytes));
  }
  return ARB_OK;
}

arb_status arb_model_check_guards(arb_model *m) {
  unsigned char seen[2 * ARB_ARENA_ALIGN];
  for (int i = 0; i < m->guards.count; i++) {
    const arb_guard_zone *z = &m->guards.zone[i];
    ARB_TRY(m->be->ops.download(m->be, seen, z->at, z->bytes));
    for (size_t j = 0; j < z->bytes; j++) {
      if (seen[j] == z->pattern) continue;
      ARB_REQUIRE(z->file, ARB_ERR_ARG, "guard zone before the first array of %s: byte %zu of it was overwritten with 0x%02x",
                  z->arena, j, seen[j]);
      return ARB_FAIL(
          ARB_ERR_ARG, "guard zone of %s, %s: %lld x %s taken at %s:%d: byte %zu past its end was overwritten with 0x%02x",
          z->arena, z->owner, (long long)z->count, arb_dtype_name(z->type), base_name(z->file), z->line, j, seen[j]);
    }
  }
  return ARB_OK;
}

void arb_model_measure(arb_model *m) {
  arb_state_measure(&m->state);
  arb_arena_measure(&m->activations, "activations");
  arb_arena_measure(&m->work, "work");
  arb_arena_measure(&m->constants, "constants");
  arb_arena_measure(&m->update, "update");
  guard(m);
  carve(m);
  const int64_t grain = m->spec.rows_per_grain, rows = grain * m->spec.grains_per_batch;
  size_t work = 0, side = 0;
  for (int i = 0; i < m->state.tensor_count; i++) {
    const arb_stack *w = &m->state.tensors[i]->w;
    const size_t bytes = arb_backend_work_bytes(m->be, rows, grain, w), beside = arb_backend_side_bytes(m->be, rows, grain, w);
    work = bytes > work ? bytes : work;
    side = beside > side ? beside : side;
  }
  m->kernel_work = work + side;
  m->kernel_scratch = arb_backend_scratch_bytes(m->be, m->widest);
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
  guard(m);
  carve(m);
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) ARB_TRY(arb_arena_check(block[i].arena));
  ARB_TRY(be->ops.reserve(be, m->kernel_work, m->widest));
  ARB_REQUIRE(m->guards.lost == 0, ARB_ERR_NOMEM, "out of host memory");
  ARB_TRY(write_guards(m));

  if (has_features(&m->spec)) {
    m->host_rows = calloc((size_t)(2 * m->spec.rows_per_grain * m->spec.grains_per_batch), sizeof *m->host_rows);
    ARB_REQUIRE(m->host_rows, ARB_ERR_NOMEM, "out of host memory");
  }
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
  return be->ops.fill(be, m->results, 0, ARB_RESULT__COUNT * sizeof *m->results);
}

/* Where the rows of every part lie in the stream, and the features themselves. Slots of absent parts have zero features and no
 * place. */
static arb_status place_parts(arb_model *m, int64_t sequences, const arb_model_features *features, arb_pass *p) {
  const arb_model_spec *c = &m->spec;
  arb_backend *be = m->be;
  int32_t *join = m->host_rows, *split = join + c->rows_per_grain * c->grains_per_batch;
  for (int64_t i = 0; i < sequences * c->context; i++) join[i] = -1;
  int64_t first = 0; /* of the part's rows among all parts' */
  for (int k = 0; k <= ARB_FEATURE_KINDS; k++) {
    const int text = k == ARB_FEATURE_KINDS;
    const int64_t rows = text ? arb_model_text_rows(c) : c->features[k].windows;
    if (rows == 0) continue;
    for (int64_t j = 0; j < sequences; j++) {
      int64_t at = (j + 1) * c->context - rows; /* parts behind this one push it forward */
      for (int later = k + 1; !text && later <= ARB_FEATURE_KINDS; later++) {
        if (later == ARB_FEATURE_KINDS)
          at -= arb_model_text_rows(c);
        else if (features && features[later].present && features[later].present[j])
          at -= c->features[later].windows;
      }
      const int there = text || (features && features[k].present && features[k].present[j]);
      for (int64_t i = 0; i < rows; i++) {
        split[j * rows + i] = there ? (int32_t)(at + i) : -1;
        if (there) join[at + i] = (int32_t)(first + j * rows + i);
      }
    }
    ARB_TRY(be->ops.upload(be, m->split[k], split, (size_t)(sequences * rows) * sizeof *split));
    p->split[k] = m->split[k];
    for (int64_t j = 0, last = -1; !text && j < sequences; j++) { /* grains with a sample that has this part */
      const int64_t grain = j / (sequences / p->rows.grains);
      if (split[j * rows] < 0 || grain == last) continue;
      p->used_by[k]++;
      last = grain;
    }
    first += sequences * rows;
    if (text) continue;
    const size_t count = (size_t)(sequences * (rows + ARB_FEATURE_SPAN - 1)), bytes = count * (size_t)c->features[k].width;
    const int any = features && features[k].present;
    ARB_TRY(any ? be->ops.upload(be, m->features_q[k], features[k].q, bytes) : be->ops.fill(be, m->features_q[k], 0, bytes));
    ARB_TRY(any ? be->ops.upload(be, m->features_s[k], features[k].s, count * sizeof(float))
                : be->ops.fill(be, m->features_s[k], 0, count * sizeof(float)));
    p->features[k].q = m->features_q[k];
    p->features[k].s = m->features_s[k];
  }
  p->join = m->join;
  return be->ops.upload(be, m->join, join, (size_t)(sequences * c->context) * sizeof *join);
}

/* Targets stand on text rows, which end every sequence. */
static const int32_t *spread_targets(arb_model *m, int64_t sequences, const int32_t *targets) {
  const int64_t context = m->spec.context, text = arb_model_text_rows(&m->spec);
  int32_t *to = m->host_rows;
  for (int64_t j = 0; j < sequences; j++) {
    for (int64_t i = 0; i < context - text; i++) to[j * context + i] = -1;
    memcpy(to + (j + 1) * context - text, targets + j * text, (size_t)text * sizeof *to);
  }
  return to;
}

arb_status arb_model_pass(arb_model *m, const arb_rows *r, const int32_t *ids, const int32_t *targets, int backward, int vmax,
                          arb_pass *p) {
  return arb_model_pass_features(m, r, ids, targets, NULL, backward, vmax, p);
}

arb_status arb_model_pass_features(arb_model *m, const arb_rows *r, const int32_t *ids, const int32_t *targets,
                                   const arb_model_features *features, int backward, int vmax, arb_pass *p) {
  arb_backend *be = m->be;
  const int64_t rows = arb_rows_count(r);
  ARB_REQUIRE(rows <= m->spec.rows_per_grain * m->spec.grains_per_batch && r->grains <= m->spec.grains_per_batch, ARB_ERR_ARG,
              "a pass of %lld rows in a model planned for %lld", (long long)rows,
              (long long)(m->spec.rows_per_grain * m->spec.grains_per_batch));
  const int mixed = has_features(&m->spec);
  const int64_t sequences = rows / m->spec.context, text = mixed ? sequences * arb_model_text_rows(&m->spec) : rows;
  ARB_REQUIRE(!mixed || r->rows_per_grain % m->spec.context == 0, ARB_ERR_ARG, "a pass of %lld rows is not whole sequences",
              (long long)r->rows_per_grain);
  ARB_TRY(be->ops.upload(be, m->ids, ids, (size_t)text * sizeof *ids));
  if (mixed && targets) targets = spread_targets(m, sequences, targets);
  if (targets) ARB_TRY(be->ops.upload(be, m->targets, targets, (size_t)rows * sizeof *targets));
  *p = (arb_pass){.be = be,
                  .rows = *r,
                  .context = m->spec.context,
                  .used = r->grains,
                  .ids = m->ids,
                  .targets = targets ? m->targets : NULL,
                  .backward = backward,
                  .vmax = vmax,
                  .weight = arb_model_position_weight(&m->spec),
                  .g = m->g,
                  .loss = m->loss,
                  .count = m->count,
                  .work = m->buffers,
                  .shard = m->spec.ranks ? &m->state.shard : NULL,
                  .fused = m->spec.fused_update ? &m->fused : NULL};
  return mixed ? place_parts(m, sequences, features, p) : ARB_OK;
}

arb_status arb_model_forward(arb_model *m, arb_pass *p) {
  for (int i = 0; i < m->module_count; i++) {
    m->be->where = m->modules[i]->name;
    ARB_TRY(m->modules[i]->ops->forward(m->modules[i], p));
  }
  m->be->where = NULL;
  return ARB_OK;
}

arb_status arb_model_backward_part(arb_model *m, arb_pass *p, int first, int past) {
  for (int i = past - 1; i >= first; i--) {
    p->below = NULL;
    for (int j = i - 1; j >= 0 && !p->below; j--) p->below = m->modules[j]->ops->output(m->modules[j]);
    m->be->where = m->modules[i]->name;
    ARB_TRY(m->modules[i]->ops->backward(m->modules[i], p));
  }
  m->be->where = NULL;
  return ARB_OK;
}

arb_status arb_model_backward(arb_model *m, arb_pass *p) {
  memset(m->fused.done, 0, (size_t)m->state.tensor_count);
  ARB_TRY(arb_model_backward_part(m, p, 0, m->module_count));
  /* A tensor that nothing voted for takes its step too: its statistics decay. */
  for (int i = 0; p->fused && i < m->state.tensor_count; i++)
    if (!m->fused.done[i]) ARB_TRY(arb_votes_complete(p, m->state.tensors[i]));
  return ARB_OK;
}

arb_status arb_model_update(arb_model *m, const int64_t *used, int vmax) {
  arb_backend *be = m->be;
  ARB_REQUIRE(!m->spec.ranks, ARB_ERR_ARG, "sharded state is updated in parts");
  if (m->each && be->ops.update_many)
    return be->ops.update_many(be, m->stacks, m->each, used, m->state.tensor_count, vmax, m->flips);
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
  ARB_TRY(arb_model_check_guards(m)); /* before their zones are written anew */
  ARB_TRY(be->ops.fill(be, m->activation_memory, 0xff, m->activations.peak));
  if (m->spec.ranks) ARB_TRY(be->ops.fill(be, m->state.shard.exchange_memory, 0xff, m->state.shard.exchange.peak));
  ARB_TRY(be->ops.fill(be, m->work_memory, 0xff, m->work.peak));
  return write_guards(m);
}
