/* export: trits and exponents as safetensors. A matrix is two int8 tensors, NAME.trit [n][k] and NAME.exponent [n]; a norm is
 * NAME.exponent. Rows of a stack belong to its members in equal parts, named by the letters of the stack's last word:
 * layer0.memory.fcg is layer0.memory.f, .c and .g. A stack that is named otherwise stays whole. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/common/trit.h"
#include "src/safetensors/safetensors.h"
#include "tools/checkpoint/commands.h"
#include "tools/checkpoint/views.h"

enum { NAME = 160, PARTS = 26 };

typedef struct {
  char (*names)[NAME];
  arb_st_tensor *tensors;
  int count, capacity;
} list;

/* 1 where the stack stays whole. */
static int64_t parts_of(const arb_view *v) {
  const char *dot = strrchr(v->name, '.'), *letters = dot != NULL ? dot + 1 : v->name;
  const bool named = v->members > 1 && v->members <= PARTS && strlen(letters) == (size_t)v->members && v->n % v->members == 0;
  for (int64_t i = 0; named && i < v->members; i++)
    if (strchr(letters + i + 1, letters[i]) != NULL) return 1;
  return named ? v->members : 1;
}

static void add(list *l, const arb_view *v, int64_t part, int64_t parts, const char *leaf) {
  const char *dot = strrchr(v->name, '.'), *letters = dot != NULL ? dot + 1 : v->name;
  char *name = l->names[l->count];
  if (parts > 1)
    snprintf(name, NAME, "%.*s%c.%s", (int)(letters - v->name), v->name, letters[part], leaf);
  else
    snprintf(name, NAME, "%s.%s", v->name, leaf);
  const bool trits = strcmp(leaf, "trit") == 0;
  l->tensors[l->count++] =
      (arb_st_tensor){.name = name, .type = ARB_I8, .rank = trits ? 2 : 1, .shape = {v->n / parts, trits ? v->k : 0}};
}

/* The file's order: a view's trits by member, then its exponents by member, so that each array is read once. */
static void add_view(list *l, const arb_view *v) {
  const int64_t parts = arb_view_is_norm(v) ? 1 : parts_of(v);
  for (int64_t i = 0; i < parts && !arb_view_is_norm(v); i++) add(l, v, i, parts, "trit");
  for (int64_t i = 0; i < parts; i++) add(l, v, i, parts, "exponent");
}

static arb_status make_list(list *l, const arb_views *views) {
  for (int i = 0; i < views->count; i++)
    l->capacity += arb_view_is_norm(&views->items[i]) ? 1 : 2 * (int)parts_of(&views->items[i]);
  l->names = calloc((size_t)l->capacity + 1, sizeof *l->names);
  l->tensors = calloc((size_t)l->capacity + 1, sizeof *l->tensors);
  ARB_REQUIRE(l->names != NULL && l->tensors != NULL, ARB_ERR_NOMEM, "no memory for a list of %d tensors", l->capacity);
  for (int i = 0; i < views->count; i++) add_view(l, &views->items[i]);
  return ARB_OK;
}

static arb_status put_trits(arb_st_writer *w, const arb_ckpt *c, const arb_ckpt_walk *walk) {
  int8_t trits[4096];
  const int64_t n = walk->rows * walk->array.columns;
  for (int64_t i = 0; i < n;) {
    const int64_t many = n - i < (int64_t)sizeof trits ? n - i : (int64_t)sizeof trits;
    for (int64_t j = 0; j < many; j++) {
      const uint8_t code = walk->data[i + j];
      ARB_REQUIRE(code != ARB_CODE_ILLEGAL, ARB_ERR_CHECKPOINT, "%s: %s has an illegal code", arb_ckpt_path_of(c),
                  walk->array.tensor);
      trits[j] = (int8_t)arb_code_trit(code);
    }
    ARB_TRY(arb_st_put(w, trits, (uint64_t)many));
    i += many;
  }
  return ARB_OK;
}

static arb_status put_array(arb_st_writer *w, const arb_ckpt *c, int i, bool code) {
  arb_ckpt_walk walk;
  arb_status st;
  ARB_TRY(arb_ckpt_walk_begin(&walk, c, i));
  while ((st = arb_ckpt_walk_next(&walk)) == ARB_OK && walk.rows > 0) {
    st = code ? put_trits(w, c, &walk) : arb_st_put(w, walk.data, (uint64_t)(walk.rows * walk.array.columns));
    if (st != ARB_OK) break;
  }
  arb_ckpt_walk_end(&walk);
  return st;
}

static arb_status put_views(arb_st_writer *w, const arb_ckpt *c, const arb_views *views) {
  for (int i = 0; i < views->count; i++) {
    const arb_view *v = &views->items[i];
    if (!arb_view_is_norm(v)) ARB_TRY(put_array(w, c, v->array[ARB_VIEW_CODE], true));
    ARB_TRY(put_array(w, c, v->array[ARB_VIEW_E], false));
  }
  return ARB_OK;
}

static arb_status export_views(const arb_ckpt *c, const arb_views *views, const list *l, const char *path, bool unverified) {
  const arb_ckpt_meta *meta = arb_ckpt_meta_of(c);
  arb_st_writer *w;
  char step[24], digest[33];
  ARB_TRY(arb_ckpt_state_digest(c, NULL, NULL, digest));
  ARB_REQUIRE(unverified || strcmp(digest, meta->digest) == 0, ARB_ERR_CHECKPOINT,
              "%s: its state digest is %s, its content gives %s", arb_ckpt_path_of(c), meta->digest, digest);
  snprintf(step, sizeof step, "%" PRId64, meta->step);
  const arb_st_note notes[] = {
      {"format", "arbdist ternary 1"},
      {"step", step},
      {"digest", digest},
      {"scale", "W = 2^(E/8) * T"},
      {"layout", "NAME.trit int8 [n][k] is T, NAME.exponent int8 [n] is E of its rows; a norm's T is 1"}};
  ARB_TRY(arb_st_create(path, l->tensors, l->count, notes, sizeof notes / sizeof *notes, &w));
  const arb_status st = put_views(w, c, views);
  if (st == ARB_OK) return arb_st_finish(&w);
  arb_st_abandon(&w);
  return st;
}

static arb_status export_work(FILE *out, const arb_ckpt *c, const void *arg, void *result) {
  (void)result;
  const arb_tool_args *args = arg;
  const char *path = args->what;
  list l = {0};
  arb_views views;
  ARB_TRY(arb_views_init(&views, c));
  arb_status st = make_list(&l, &views);
  if (st == ARB_OK) st = export_views(c, &views, &l, path, args->unverified);
  if (st == ARB_OK) fprintf(out, "%s: %d tensors of step %" PRId64 "\n", path, l.count, arb_ckpt_meta_of(c)->step);
  free(l.names);
  free(l.tensors);
  arb_views_deinit(&views);
  return st;
}

arb_status arb_tool_export(const arb_tool_args *args) {
  arb_place p;
  arb_place_work w = {.work = export_work, .arg = args};
  char temporary[ARB_PLACE_PATH + 64];
  ARB_TRY(arb_place_find(args->dir, args->step, &p));
  p.unverified = args->unverified;
  ARB_TRY(arb_place_choose(&p));
  const arb_status st = arb_place_run(&p, &w);
  if (st == ARB_OK) return st;
  /* A child that crashed could not tidy up. */
  snprintf(temporary, sizeof temporary, "%s.tmp-%ld", args->what, w.pid);
  unlink(temporary);
  return st;
}
