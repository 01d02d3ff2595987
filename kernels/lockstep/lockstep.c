#include "kernels/lockstep/lockstep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/bits.h"
#include "kernels/lockstep/lockstep_impl.h"
#include "src/base/log.h"

enum { NAMES = 8192, OUTLIERS_A_STEP = 8, LEARNT = 64, OUTPUTS = 12 };

typedef struct {
  uint32_t id;
  const char *name;
} tensor_name;

typedef struct {
  const char *slot;
  char output[OUTPUTS][24];
  int count;
} learnt_slot;

struct arb_lockstep {
  arb_ops real;
  arb_backend *ref; /* NULL without lockstep */
  arb_lockstep_options o;
  tensor_name *names;
  int name_count;
  unsigned char *shadow, *seen; /* copies for the reference; what the real slot wrote */
  size_t shadow_bytes, seen_bytes;
  int32_t *ids; /* of the newest batch */
  int64_t id_count;
  int outliers; /* logged in this step */
  char spoil_slot[32], spoil_argument[24];
  learnt_slot learnt[LEARNT];
  int learnt_count;
};

static struct arb_lockstep *of(const arb_backend *be) { return be->watch; }

const arb_ops *arb_slot_real(const arb_backend *be) { return &of(be)->real; }

/* ---- what a call touches ---- */

/* Elements from the first of the first row to the last of the last. */
static int64_t extent(const arb_slot_array *a) { return a->rows > 0 ? (a->rows - 1) * a->ld + a->columns : 0; }
static size_t extent_bytes(const arb_slot_array *a) { return (size_t)extent(a) * arb_dtype_size(a->type); }

static void add(arb_slot_call *c, const char *owner, const char *member, void **target, const void *real, arb_dtype type,
                int64_t rows, int64_t columns, int64_t ld, int written) {
  if (!real || rows <= 0 || columns <= 0 || c->count == ARB_SLOT_ARRAYS) return;
  arb_slot_array *a = &c->array[c->count++];
  *a = (arb_slot_array){.real = real,
                        .target = target,
                        .type = type,
                        .rows = rows,
                        .columns = columns,
                        .ld = ld,
                        .wrap = columns,
                        .written = written};
  snprintf(a->name, sizeof a->name, "%s%s%s", owner, member[0] ? "->" : "", member);
}

typedef struct {
  unsigned bit;
  const char *name;
  void **target; /* in the copy, which still holds the real pointer */
  arb_dtype type;
  int64_t rows, columns;
} part;

/* Members that the slot does not touch are NULL in the copy. */
static void add_parts(arb_slot_call *c, const arb_slot_arg *a, const part *parts, int count) {
  for (int i = 0; i < count; i++) {
    const part *p = &parts[i];
    const void *real = *p->target;
    *p->target = NULL;
    if ((a->reads | a->writes) & p->bit)
      add(c, a->name, p->name, p->target, real, p->type, p->rows, p->columns, p->columns, (a->writes & p->bit) != 0);
  }
}

static void add_stack(arb_slot_call *c, const arb_slot_arg *a, const arb_stack *w, arb_stack *copy) {
  *copy = *w;
  const part parts[] = {{CODE, "code", (void **)&copy->code, ARB_U8, w->n, w->k},
                        {E, "e", (void **)&copy->e, ARB_I8, w->n, 1},
                        {P, "p", (void **)&copy->p, ARB_I8, w->n, 1},
                        {R, "r", (void **)&copy->r, ARB_I32, w->n, 1},
                        {C, "c", (void **)&copy->c, ARB_I32, w->members, w->k},
                        {M, "m", (void **)&copy->m, ARB_I32, w->members, 1},
                        {VOTES, "votes", (void **)&copy->votes, ARB_I8, w->n, w->k}};
  if (!c->stack) c->stack = w;
  add_parts(c, a, parts, (int)(sizeof parts / sizeof parts[0]));
  arb_slot_array *last = c->count ? &c->array[c->count - 1] : NULL;
  if (w->groups.rows == 0 || !last || last->target != (void **)&copy->votes) return;
  last->rows = (w->n + w->groups.rows - 1) / w->groups.rows;
  last->columns = w->groups.rows * w->k;
  last->ld = w->groups.stride;
}

static void add_work(arb_slot_call *c, const arb_slot_arg *a, const arb_update_work *work, arb_update_work *copy) {
  const arb_stack *w = a->shape;
  *copy = *work;
  const part parts[] = {{S, "s", (void **)&copy->s, ARB_U64, w->n, 1},
                        {TOP, "top", (void **)&copy->top, ARB_I32, w->members, 1},
                        {LOW, "low", (void **)&copy->low, ARB_I32, w->members, 1},
                        {CSUM, "csum", (void **)&copy->csum, ARB_U64, w->members, w->k},
                        {MSUM, "msum", (void **)&copy->msum, ARB_U64, w->members, 1}};
  add_parts(c, a, parts, (int)(sizeof parts / sizeof parts[0]));
}

static void expand(const char *slot, const arb_slot_arg *args, int count, arb_slot_call *c) {
  memset(c, 0, sizeof *c);
  c->slot = slot;
  c->args = args;
  c->arg_count = count;
  int stacks = 0;
  for (int i = 0; i < count; i++) {
    const arb_slot_arg *a = &args[i];
    void **at = a->at;
    if (a->kind == ARB_SLOT_ARRAY) add(c, a->name, "", at, *at, a->type, a->rows, a->columns, a->ld, a->written);
    if (a->kind == ARB_SLOT_STACK && *at && stacks < 2) add_stack(c, a, *at, &c->shadow_stack[stacks++]);
    if (a->kind == ARB_SLOT_WORK) add_work(c, a, *at, &c->shadow_work);
    if (a->kind == ARB_SLOT_ROWS) c->rows = *at;
  }
}

static arb_status room(unsigned char **memory, size_t *held, size_t bytes) {
  if (bytes <= *held) return ARB_OK;
  free(*memory);
  *held = 0;
  *memory = malloc(bytes);
  ARB_REQUIRE(*memory, ARB_ERR_NOMEM, "%zu bytes of host memory to compare with the reference", bytes);
  *held = bytes;
  return ARB_OK;
}

/* Where outputs of every slot are known from their first call. */
static void learn(struct arb_lockstep *d, const arb_slot_call *c) {
  for (int i = 0; i < d->learnt_count; i++)
    if (strcmp(d->learnt[i].slot, c->slot) == 0) return;
  if (d->learnt_count == LEARNT) return;
  learnt_slot *l = &d->learnt[d->learnt_count++];
  l->slot = c->slot;
  for (int i = 0; i < c->count && l->count < OUTPUTS; i++)
    if (c->array[i].written) memcpy(l->output[l->count++], c->array[i].name, sizeof l->output[0]);
}

arb_status arb_slot_before(arb_backend *be, const char *slot, const arb_slot_arg *args, int count, arb_slot_call *c) {
  struct arb_lockstep *d = of(be);
  expand(slot, args, count, c);
  learn(d, c);
  if (!d->ref) return ARB_OK;
  size_t bytes = 0;
  for (int i = 0; i < c->count; i++) {
    c->array[i].shadow = bytes;
    bytes += (extent_bytes(&c->array[i]) + 255) / 256 * 256;
  }
  ARB_TRY(room(&d->shadow, &d->shadow_bytes, bytes + 256));
  for (int i = 0; i < c->count; i++)
    ARB_TRY(d->real.download(be, d->shadow + c->array[i].shadow, c->array[i].real, extent_bytes(&c->array[i])));
  return ARB_OK;
}

int64_t arb_slot_index_rows(arb_backend *be, const int32_t *index, int64_t count) {
  struct arb_lockstep *d = of(be);
  int64_t most = 0;
  const size_t bytes = (size_t)count * sizeof *index;
  if (room(&d->seen, &d->seen_bytes, bytes) != ARB_OK || d->real.download(be, d->seen, index, bytes) != ARB_OK) return 0;
  for (int64_t i = 0; i < count; i++) {
    int32_t row;
    memcpy(&row, d->seen + (size_t)i * sizeof row, sizeof row);
    most = row >= most ? row + 1 : most;
  }
  return most;
}

arb_backend *arb_slot_swap(arb_backend *be, arb_slot_call *c) {
  struct arb_lockstep *d = of(be);
  if (!d->ref) return NULL;
  int stacks = 0;
  for (int i = 0; i < c->count; i++) *c->array[i].target = d->shadow + c->array[i].shadow;
  for (int i = 0; i < c->arg_count; i++) {
    const arb_slot_arg *a = &c->args[i];
    void **at = a->at;
    if (a->kind == ARB_SLOT_STACK && *at && stacks < 2) *at = &c->shadow_stack[stacks++];
    if (a->kind == ARB_SLOT_WORK) *at = &c->shadow_work;
  }
  return d->ref;
}

/* ---- reports ---- */

static const char *name_of(const struct arb_lockstep *d, uint32_t id) {
  for (int i = 0; i < d->name_count; i++)
    if (d->names[i].id == id) return d->names[i].name;
  return "a stack";
}

/* "step 3, rank 0, layer1.glu: glu_norm_quant, q at row 17 (grain 2, position 5, token 101 'e'), column 3" */
static void place(const arb_backend *be, const arb_slot_call *c, const arb_slot_array *a, int64_t row, int64_t column,
                  char *text, size_t size) {
  const struct arb_lockstep *d = of(be);
  row = row * (a->columns / a->wrap) + column / a->wrap;
  column %= a->wrap;
  size_t used = (size_t)snprintf(text, size, "step %u, rank %d, %s: %s", (unsigned)be->step, d->o.rank,
                                 be->where ? be->where : "outside modules", c->slot);
  if (c->stack && used < size) used += (size_t)snprintf(text + used, size - used, " of %s", name_of(d, c->stack->id));
  if (used < size) used += (size_t)snprintf(text + used, size - used, ", %s at row %lld", a->name, (long long)row);
  if (c->rows && a->rows == arb_rows_count(c->rows) && used < size) {
    const arb_rows *r = c->rows;
    const int64_t grain = r->first + row / r->rows_per_grain * r->stride;
    used += (size_t)snprintf(text + used, size - used, " (grain %lld, position %lld", (long long)grain,
                             (long long)(row % r->rows_per_grain));
    if (d->id_count == a->rows && used < size) {
      const int32_t id = d->ids[row];
      used += (size_t)snprintf(text + used, size - used, id >= 32 && id < 127 ? ", token %d '%c'" : ", token %d", (int)id, id);
    }
    if (used < size) used += (size_t)snprintf(text + used, size - used, ")");
  }
  if (a->wrap > 1 && used < size) snprintf(text + used, size - used, ", column %lld", (long long)column);
}

static float float_of(arb_dtype type, const unsigned char *at) {
  uint16_t half;
  float whole;
  memcpy(&half, at, sizeof half);
  if (type == ARB_BF16) return arb_f32_of_bf16(half);
  memcpy(&whole, at, sizeof whole);
  return whole;
}

static void value_text(arb_dtype type, const unsigned char *at, char *text, size_t size) {
  const size_t width = arb_dtype_size(type);
  uint64_t bits = 0;
  memcpy(&bits, at, width); /* little-endian */
  const int signed_type = type == ARB_I8 || type == ARB_I16 || type == ARB_I32 || type == ARB_I64;
  if (arb_dtype_is_float(type))
    snprintf(text, size, "%.9g (0x%0*llx)", (double)float_of(type, at), (int)(2 * width), (unsigned long long)bits);
  else if (signed_type)
    snprintf(text, size, "%lld", (long long)((int64_t)(bits << (64 - 8 * width)) >> (64 - 8 * width)));
  else
    snprintf(text, size, "%llu", (unsigned long long)bits);
}

/* ---- after the real slot ---- */

static arb_status fetch(arb_backend *be, const arb_slot_array *a) {
  struct arb_lockstep *d = of(be);
  ARB_TRY(room(&d->seen, &d->seen_bytes, extent_bytes(a)));
  return d->real.download(be, d->seen, a->real, extent_bytes(a));
}

/* The first value that is not finite is an error; the largest of the others is logged when it is an outlier. */
static arb_status look(arb_backend *be, const arb_slot_call *c, const arb_slot_array *a) {
  struct arb_lockstep *d = of(be);
  const size_t width = arb_dtype_size(a->type);
  float most = 0.0f;
  int64_t most_row = 0, most_column = 0;
  char where[400];
  ARB_TRY(fetch(be, a));
  for (int64_t row = 0; row < a->rows; row++)
    for (int64_t column = 0; column < a->columns; column++) {
      const float x = arb_fabsf(float_of(a->type, d->seen + (size_t)(row * a->ld + column) * width));
      if (arb_bits_of_f32(x) >= 0x7f800000u) {
        place(be, c, a, row, column, where, sizeof where);
        return ARB_FAIL(ARB_ERR_NUMERIC, "%s is %s", where, x == x ? "infinite" : "not a number");
      }
      if (x <= most) continue;
      most = x;
      most_row = row;
      most_column = column;
    }
  if (d->o.outlier > 0.0f && most > d->o.outlier && d->outliers++ < OUTLIERS_A_STEP) {
    place(be, c, a, most_row, most_column, where, sizeof where);
    arb_log(ARB_LOG_WARN, "outlier", "%s is %g in magnitude, the largest there", where, (double)most);
  }
  return ARB_OK;
}

/* Tests see that a difference is found: the last element of an output changes by its lowest bit. */
static arb_status spoil(arb_backend *be, const arb_slot_call *c) {
  struct arb_lockstep *d = of(be);
  for (int i = 0; i < c->count; i++) {
    const arb_slot_array *a = &c->array[i];
    if (!a->written || strcmp(a->name, d->spoil_argument) != 0) continue;
    const size_t at = (size_t)(extent(a) - 1) * arb_dtype_size(a->type);
    ARB_TRY(fetch(be, a));
    d->seen[at] ^= 1;
    d->spoil_slot[0] = '\0';
    return d->real.upload(be, (unsigned char *)(uintptr_t)a->real + at, d->seen + at, arb_dtype_size(a->type));
  }
  return ARB_OK;
}

arb_status arb_slot_after(arb_backend *be, arb_slot_call *c) {
  struct arb_lockstep *d = of(be);
  const arb_status st = d->real.sync(be);
  if (st != ARB_OK) {
    arb_fail_context("step %u, %s: %s", (unsigned)be->step, be->where ? be->where : "outside modules", c->slot);
    return st;
  }
  if (d->spoil_slot[0] && strcmp(d->spoil_slot, c->slot) == 0) ARB_TRY(spoil(be, c));
  for (int i = 0; i < c->count; i++) {
    const arb_slot_array *a = &c->array[i];
    if (a->type == ARB_I32 && strcmp(a->name, "ids") == 0 && strcmp(c->slot, "embed_forward") == 0) {
      free(d->ids);
      d->id_count = 0;
      d->ids = malloc(extent_bytes(a));
      ARB_REQUIRE(d->ids, ARB_ERR_NOMEM, "out of host memory");
      ARB_TRY(d->real.download(be, d->ids, a->real, extent_bytes(a)));
      d->id_count = a->rows;
    }
    if (d->o.finite && a->written && arb_dtype_is_float(a->type)) ARB_TRY(look(be, c, a));
  }
  return ARB_OK;
}

arb_status arb_slot_compare(arb_backend *be, const arb_slot_call *c) {
  struct arb_lockstep *d = of(be);
  for (int i = 0; i < c->count; i++) {
    const arb_slot_array *a = &c->array[i];
    const size_t width = arb_dtype_size(a->type);
    if (!a->written) continue;
    ARB_TRY(fetch(be, a));
    const unsigned char *want = d->shadow + a->shadow;
    if (memcmp(d->seen, want, extent_bytes(a)) == 0) continue;
    for (int64_t row = 0; row < a->rows; row++)
      for (int64_t column = 0; column < a->columns; column++) {
        const size_t at = (size_t)(row * a->ld + column) * width;
        if (memcmp(d->seen + at, want + at, width) == 0) continue;
        char where[400], mine[64], theirs[64];
        place(be, c, a, row, column, where, sizeof where);
        value_text(a->type, d->seen + at, mine, sizeof mine);
        value_text(a->type, want + at, theirs, sizeof theirs);
        return ARB_FAIL(ARB_ERR_NUMERIC, "lockstep: %s: %s gives %s, the reference %s", where, be->ops.name, mine, theirs);
      }
  }
  return ARB_OK;
}

/* ---- the control side ---- */

static arb_status begin_step(arb_backend *be, uint64_t seed, uint32_t step, float eta_units) {
  struct arb_lockstep *d = of(be);
  d->outliers = 0;
  ARB_TRY(d->real.begin_step(be, seed, step, eta_units));
  be->step = step;
  return d->ref ? d->ref->ops.begin_step(d->ref, seed, step, eta_units) : ARB_OK;
}

static arb_status same_flag(arb_backend *be, int flag) {
  struct arb_lockstep *d = of(be);
  int theirs = 0;
  if (!d->ref) return ARB_OK;
  ARB_TRY(d->ref->ops.take_nonfinite(d->ref, &theirs));
  ARB_REQUIRE(flag == theirs, ARB_ERR_NUMERIC,
              "lockstep: step %u, rank %d: the non-finite flag of %s is %d, the reference's %d", (unsigned)be->step, d->o.rank,
              be->ops.name, flag, theirs);
  return ARB_OK;
}

static arb_status take_nonfinite(arb_backend *be, int *flag) {
  ARB_TRY(of(be)->real.take_nonfinite(be, flag));
  return same_flag(be, *flag);
}

static arb_status collect(arb_backend *be, int64_t *host, int *flag) {
  ARB_TRY(of(be)->real.collect(be, host, flag));
  return same_flag(be, *flag);
}

static void destroy(arb_backend *be) {
  struct arb_lockstep *d = of(be);
  be->ops = d->real;
  be->watch = NULL;
  arb_backend_destroy(&d->ref);
  free(d->names);
  free(d->shadow);
  free(d->seen);
  free(d->ids);
  free(d);
  be->ops.destroy(be);
}

arb_status arb_lockstep_attach(arb_backend *be, const arb_lockstep_options *o) {
  ARB_REQUIRE(!be->watch, ARB_ERR_ARG, "backend %s is watched already", be->ops.name);
  struct arb_lockstep *d = calloc(1, sizeof *d);
  arb_status st = d ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK && o->lockstep) st = arb_backend_ref_create(&d->ref);
  if (st != ARB_OK) {
    free(d);
    return st;
  }
  d->real = be->ops;
  d->o = *o;
  be->watch = d;
  arb_slot_wrap(&be->ops);
  be->ops.begin_step = begin_step;
  be->ops.take_nonfinite = take_nonfinite;
  be->ops.collect = collect;
  be->ops.destroy = destroy;
  be->ops.record_begin = NULL;
  be->ops.record_end = NULL;
  be->ops.replay = NULL;
  return ARB_OK;
}

arb_status arb_lockstep_name(arb_backend *be, uint32_t id, const char *name) {
  struct arb_lockstep *d = of(be);
  if (!d) return ARB_OK;
  if (!d->names) d->names = calloc(NAMES, sizeof *d->names);
  ARB_REQUIRE(d->names, ARB_ERR_NOMEM, "out of host memory");
  if (d->name_count < NAMES) d->names[d->name_count++] = (tensor_name){id, name};
  return ARB_OK;
}

void arb_lockstep_spoil(arb_backend *be, const char *slot, const char *argument) {
  struct arb_lockstep *d = of(be);
  snprintf(d->spoil_slot, sizeof d->spoil_slot, "%s", slot);
  snprintf(d->spoil_argument, sizeof d->spoil_argument, "%s", argument);
}

const char *arb_lockstep_output(const arb_backend *be, const char *slot, int index) {
  const struct arb_lockstep *d = of(be);
  for (int i = 0; i < d->learnt_count; i++)
    if (strcmp(d->learnt[i].slot, slot) == 0) return index < d->learnt[i].count ? d->learnt[i].output[index] : NULL;
  return NULL;
}
