#include "src/model/state_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *arb_field_name(arb_field f) {
  static const char *const names[ARB_FIELD__COUNT] = {"code", "e", "p", "r", "c", "m"};
  return names[f];
}

void arb_state_init(arb_state *s, arb_backend *be) {
  memset(s, 0, sizeof *s);
  s->be = be;
}

void arb_state_deinit(arb_state *s) {
  if (!s->be) return;
  s->be->ops.free(s->be, s->state_memory);
  s->be->ops.free(s->be, s->votes_memory);
  s->be->ops.free(s->be, s->shard.copies_memory);
  s->be->ops.free(s->be, s->shard.exchange_memory);
  for (int i = 0; i < s->tensor_count; i++) free(s->tensors[i]);
  for (int i = 0; i < s->norm_count; i++) free(s->norms[i]);
  free(s->tensors);
  free(s->norms);
  memset(s, 0, sizeof *s);
}

/* FNV-1a of the name: a tensor keeps its random numbers and digest words when other modules come or go. */
static uint32_t id_of(const char *name) {
  uint32_t h = 2166136261u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
  return h;
}

static arb_status claim(const arb_state *s, const char *name, uint32_t *id) {
  *id = id_of(name);
  ARB_REQUIRE(strlen(name) < ARB_NAME_CHARS, ARB_ERR_ARG, "tensor name %s is too long", name);
  for (int i = 0; i < s->tensor_count; i++)
    ARB_REQUIRE(s->tensors[i]->w.id != *id, ARB_ERR_ARG, "tensors %s and %s share an id", name, s->tensors[i]->name);
  for (int i = 0; i < s->norm_count; i++)
    ARB_REQUIRE(s->norms[i]->id != *id, ARB_ERR_ARG, "tensors %s and %s share an id", name, s->norms[i]->name);
  return ARB_OK;
}

static arb_status append(void ***list, int *count, size_t bytes, void **out) {
  void **grown = realloc(*list, (size_t)(*count + 1) * sizeof *grown);
  ARB_REQUIRE(grown, ARB_ERR_NOMEM, "out of host memory");
  *list = grown;
  *out = grown[*count] = calloc(1, bytes);
  ARB_REQUIRE(*out, ARB_ERR_NOMEM, "out of host memory");
  (*count)++;
  return ARB_OK;
}

arb_status arb_state_stack(arb_state *s, const char *name, int members, const char *const *member_names, const int64_t *rows,
                           int64_t k, int uses, arb_tensor **out) {
  uint32_t id;
  void *memory;
  ARB_TRY(claim(s, name, &id));
  ARB_REQUIRE(members >= 1 && members <= ARB_MAX_MEMBERS && k >= 1 && k < (1 << 24), ARB_ERR_ARG, "stack %s: shape", name);
  ARB_TRY(append((void ***)&s->tensors, &s->tensor_count, sizeof(arb_tensor), &memory));
  arb_tensor *t = memory;
  snprintf(t->name, sizeof t->name, "%s", name);
  t->index = s->tensor_count - 1;
  t->w.id = id;
  t->w.uses = uses;
  t->w.members = members;
  t->w.k = k;
  for (int i = 0; i < members; i++) {
    t->w.begin[i + 1] = t->w.begin[i] + rows[i];
    if (member_names) snprintf(t->member[i], sizeof t->member[i], "%s", member_names[i]);
  }
  t->w.n = t->w.begin[members];
  *out = t;
  return ARB_OK;
}

arb_status arb_state_norm(arb_state *s, const char *name, int64_t width, arb_norm **out) {
  uint32_t id;
  void *memory;
  ARB_TRY(claim(s, name, &id));
  ARB_TRY(append((void ***)&s->norms, &s->norm_count, sizeof(arb_norm), &memory));
  arb_norm *n = memory;
  snprintf(n->name, sizeof n->name, "%s", name);
  n->id = id;
  n->width = width;
  *out = n;
  return ARB_OK;
}

static void carve(arb_state *s) {
  int64_t largest = 0;
  if (s->shard.ranks) {
    arb_shard_carve(s);
    return;
  }
  for (int i = 0; i < s->tensor_count; i++) {
    arb_stack *w = &s->tensors[i]->w;
    arb_arena_owner(&s->state, s->tensors[i]->name);
    arb_arena_owner(&s->votes, s->tensors[i]->name);
    w->code = arb_arena_take(&s->state, ARB_U8, w->n * w->k);
    w->e = arb_arena_take(&s->state, ARB_I8, w->n);
    w->p = arb_arena_take(&s->state, ARB_I8, w->n);
    w->r = arb_arena_take(&s->state, ARB_I32, w->n);
    w->c = arb_arena_take(&s->state, ARB_I32, w->members * w->k);
    w->m = arb_arena_take(&s->state, ARB_I32, w->members);
    if (!s->shared_votes) w->votes = arb_arena_take(&s->votes, ARB_I8, w->n * w->k);
    largest = w->n * w->k > largest ? w->n * w->k : largest;
  }
  if (s->shared_votes) {
    arb_arena_owner(&s->votes, "the shared buffer");
    int8_t *votes = arb_arena_take(&s->votes, ARB_I8, largest);
    for (int i = 0; i < s->tensor_count; i++) s->tensors[i]->w.votes = votes;
  }
  for (int i = 0; i < s->norm_count; i++) {
    arb_arena_owner(&s->state, s->norms[i]->name);
    s->norms[i]->e = arb_arena_take(&s->state, ARB_I8, s->norms[i]->width);
  }
}

/* Votes are summed over ranks with the gaps between them, which must be zero. */
static void guard(arb_state *s) {
  if (!s->guards) return;
  arb_arena_guard(&s->state, s->guards, ARB_GUARD_PATTERN);
  arb_arena_guard(&s->votes, s->guards, 0);
  if (!s->shard.ranks) return;
  arb_arena_guard(&s->shard.copies, s->guards, ARB_GUARD_PATTERN);
  arb_arena_guard(&s->shard.exchange, s->guards, ARB_GUARD_PATTERN);
}

void arb_state_measure(arb_state *s) {
  arb_arena_measure(&s->state, "state");
  arb_arena_measure(&s->votes, "votes");
  arb_arena_measure(&s->shard.copies, "copies");
  arb_arena_measure(&s->shard.exchange, "exchange");
  guard(s);
  carve(s);
}

arb_status arb_state_allocate(arb_state *s) {
  arb_state_measure(s);
  const struct {
    arb_arena *arena;
    void **memory;
  } block[] = {{&s->state, &s->state_memory},
               {&s->votes, &s->votes_memory},
               {&s->shard.copies, &s->shard.copies_memory},
               {&s->shard.exchange, &s->shard.exchange_memory}};
  const int count = s->shard.ranks ? 4 : 2;
  for (int i = 0; i < count; i++) {
    const size_t bytes = block[i].arena->peak;
    ARB_TRY(s->be->ops.alloc(s->be, bytes, block[i].memory));
    ARB_TRY(s->be->ops.fill(s->be, *block[i].memory, 0, bytes));
    arb_arena_assign(block[i].arena, block[i].arena->name, *block[i].memory, bytes);
  }
  guard(s);
  carve(s);
  for (int i = 0; i < count; i++) ARB_TRY(arb_arena_check(block[i].arena));
  return ARB_OK;
}

arb_status arb_state_fresh(arb_state *s, uint64_t seed) {
  ARB_TRY(s->be->ops.begin_step(s->be, seed, 0, 0.0f));
  for (int i = 0; i < s->tensor_count; i++)
    ARB_TRY(s->shard.ranks ? arb_shard_fresh(s, s->tensors[i]) : s->be->ops.init_stack(s->be, &s->tensors[i]->w));
  for (int i = 0; i < s->norm_count; i++) ARB_TRY(s->be->ops.fill(s->be, s->norms[i]->e, 0, (size_t)s->norms[i]->width));
  return ARB_OK;
}

int arb_state_array_count(const arb_state *s) { return s->tensor_count * ARB_FIELD__COUNT + s->norm_count; }

void arb_state_arrays(const arb_state *s, arb_state_array *out) {
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_tensor *t = s->tensors[i];
    const arb_stack *w = &t->w;
    const struct {
      arb_dtype type;
      int64_t rows, columns;
      void *data;
    } f[ARB_FIELD__COUNT] = {{ARB_U8, w->n, w->k, w->code}, {ARB_I8, w->n, 1, w->e},           {ARB_I8, w->n, 1, w->p},
                             {ARB_I32, w->n, 1, w->r},      {ARB_I32, w->members, w->k, w->c}, {ARB_I32, w->members, 1, w->m}};
    for (int j = 0; j < ARB_FIELD__COUNT; j++)
      *out++ = (arb_state_array){.tensor = t->name,
                                 .field = (arb_field)j,
                                 .array = (uint64_t)w->id * 16 + (uint64_t)j,
                                 .type = f[j].type,
                                 .rows = f[j].rows,
                                 .columns = f[j].columns,
                                 .count = f[j].rows,
                                 .data = f[j].data};
    if (s->shard.ranks) arb_shard_arrays(t, out - ARB_FIELD__COUNT);
  }
  for (int i = 0; i < s->norm_count; i++) {
    const arb_norm *n = s->norms[i];
    *out++ = (arb_state_array){.tensor = n->name,
                               .field = ARB_FIELD_E,
                               .array = (uint64_t)n->id * 16 + ARB_FIELD_E,
                               .type = ARB_I8,
                               .rows = n->width,
                               .columns = 1,
                               .count = n->width,
                               .data = n->e};
  }
}

arb_status arb_state_digest(const arb_state *s, arb_u128 *out) {
  const int count = arb_state_array_count(s);
  arb_state_array *arrays = calloc((size_t)count, sizeof *arrays);
  ARB_REQUIRE(arrays, ARB_ERR_NOMEM, "out of host memory");
  arb_state_arrays(s, arrays);
  arb_u128 sum = {0, 0}, part;
  arb_status st = ARB_OK;
  for (int i = 0; i < count; i++) {
    const arb_state_array *a = &arrays[i];
    if (s->shard.rank > 0 && !a->sharded) continue;
    ARB_TRY_OUT(st, s->be->ops.digest(s->be, a->array, a->data, a->count, a->columns * (int64_t)arb_dtype_size(a->type),
                                      a->first, &part));
    sum = arb_u128_add(sum, part);
  }
  *out = sum;
out:
  free(arrays);
  return st;
}

int64_t arb_state_weights(const arb_state *s) {
  int64_t sum = 0;
  for (int i = 0; i < s->tensor_count; i++) sum += s->tensors[i]->w.n * s->tensors[i]->w.k;
  return sum;
}

int64_t arb_state_norm_exponents(const arb_state *s) {
  int64_t sum = 0;
  for (int i = 0; i < s->norm_count; i++) sum += s->norms[i]->width;
  return sum;
}
