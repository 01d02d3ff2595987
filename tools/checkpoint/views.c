#include "tools/checkpoint/views.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *arb_view_field_name(arb_view_field f) {
  static const char *const names[ARB_VIEW_FIELDS] = {"code", "e", "p", "r", "c", "m"};
  return names[f];
}

static arb_status add_array(const arb_ckpt *c, arb_view *v, int i) {
  const arb_ckpt_array a = arb_ckpt_array_at(c, i);
  for (int f = 0; f < ARB_VIEW_FIELDS; f++)
    if (strcmp(a.field, arb_view_field_name((arb_view_field)f)) == 0) {
      v->array[f] = i;
      return ARB_OK;
    }
  return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: %s.%s is not part of a training state", arb_ckpt_path_of(c), a.tensor, a.field);
}

static arb_status expect(const arb_ckpt *c, const arb_view *v, int f, arb_dtype type, int64_t rows, int64_t columns) {
  const char *path = arb_ckpt_path_of(c);
  ARB_REQUIRE(v->array[f] >= 0, ARB_ERR_CHECKPOINT, "%s: %s.%s is missing", path, v->name,
              arb_view_field_name((arb_view_field)f));
  const arb_ckpt_array a = arb_ckpt_array_at(c, v->array[f]);
  ARB_REQUIRE(a.type == type && a.rows == rows && a.columns == columns, ARB_ERR_CHECKPOINT,
              "%s: %s.%s is %s %" PRId64 " x %" PRId64 ", expected %s %" PRId64 " x %" PRId64, path, a.tensor, a.field,
              arb_dtype_name(a.type), a.rows, a.columns, arb_dtype_name(type), rows, columns);
  return ARB_OK;
}

static arb_status check_norm(const arb_ckpt *c, arb_view *v) {
  for (int f = 0; f < ARB_VIEW_FIELDS; f++)
    ARB_REQUIRE(f == ARB_VIEW_E || v->array[f] < 0, ARB_ERR_CHECKPOINT, "%s: %s has %s, but no code", arb_ckpt_path_of(c),
                v->name, arb_view_field_name((arb_view_field)f));
  v->n = arb_ckpt_array_at(c, v->array[ARB_VIEW_E]).rows;
  v->k = v->members = 0;
  return expect(c, v, ARB_VIEW_E, ARB_I8, v->n, 1);
}

static arb_status check(const arb_ckpt *c, arb_view *v) {
  if (v->array[ARB_VIEW_CODE] < 0) return check_norm(c, v);
  const arb_ckpt_array code = arb_ckpt_array_at(c, v->array[ARB_VIEW_CODE]);
  v->n = code.rows;
  v->k = code.columns;
  ARB_REQUIRE(v->n > 0 && v->k > 0, ARB_ERR_CHECKPOINT, "%s: %s.code is %" PRId64 " x %" PRId64 ", expected weights",
              arb_ckpt_path_of(c), v->name, v->n, v->k);
  v->members = v->array[ARB_VIEW_M] >= 0 ? arb_ckpt_array_at(c, v->array[ARB_VIEW_M]).rows : 1;
  ARB_REQUIRE(v->members > 0 && v->members <= v->n, ARB_ERR_CHECKPOINT, "%s: %s.m has %" PRId64 " rows for %" PRId64 " outputs",
              arb_ckpt_path_of(c), v->name, v->members, v->n);
  ARB_TRY(expect(c, v, ARB_VIEW_CODE, ARB_U8, v->n, v->k));
  ARB_TRY(expect(c, v, ARB_VIEW_E, ARB_I8, v->n, 1));
  ARB_TRY(expect(c, v, ARB_VIEW_P, ARB_I8, v->n, 1));
  ARB_TRY(expect(c, v, ARB_VIEW_R, ARB_I32, v->n, 1));
  ARB_TRY(expect(c, v, ARB_VIEW_C, ARB_I32, v->members, v->k));
  return expect(c, v, ARB_VIEW_M, ARB_I32, v->members, 1);
}

arb_status arb_views_init(arb_views *v, const arb_ckpt *c) {
  const int arrays = arb_ckpt_array_count(c);
  *v = (arb_views){.items = calloc((size_t)arrays + 1, sizeof *v->items)};
  ARB_REQUIRE(v->items != NULL, ARB_ERR_NOMEM, "no memory for a list of %d tensors", arrays);
  arb_status st = ARB_OK;
  for (int i = 0; i < arrays && st == ARB_OK; i++) {
    const arb_ckpt_array a = arb_ckpt_array_at(c, i);
    if (v->count == 0 || strcmp(v->items[v->count - 1].name, a.tensor) != 0)
      v->items[v->count++] = (arb_view){.name = a.tensor, .array = {-1, -1, -1, -1, -1, -1}};
    st = add_array(c, &v->items[v->count - 1], i);
  }
  for (int i = 0; i < v->count && st == ARB_OK; i++) st = check(c, &v->items[i]);
  if (st != ARB_OK) arb_views_deinit(v);
  return st;
}

void arb_views_deinit(arb_views *v) {
  free(v->items);
  *v = (arb_views){0};
}

const arb_view *arb_views_find(const arb_views *v, const char *name) {
  for (int i = 0; i < v->count; i++)
    if (strcmp(v->items[i].name, name) == 0) return &v->items[i];
  return NULL;
}
