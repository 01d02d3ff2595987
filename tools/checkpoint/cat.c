/* cat: values of one array as text. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/trit.h"
#include "tools/checkpoint/commands.h"
#include "tools/checkpoint/text.h"

/* "TENSOR.FIELD", or a tensor alone: its code, or its first array. Names have dots, so the longest tensor's name counts. -1:
 * none. */
static int find_array(const arb_ckpt *c, const char *what) {
  int found = -1;
  for (int i = 0; i < arb_ckpt_array_count(c); i++) {
    const arb_ckpt_array a = arb_ckpt_array_at(c, i);
    const size_t length = strlen(a.tensor);
    if (strcmp(what, a.tensor) == 0 && (found < 0 || strcmp(a.field, "code") == 0)) found = i;
    if (strncmp(what, a.tensor, length) == 0 && what[length] == '.' && strcmp(what + length + 1, a.field) == 0 && found < 0)
      found = i;
  }
  return found;
}

static int64_t integer_at(const unsigned char *data, arb_dtype type, int64_t i) {
  switch (type) {
    case ARB_U8:
      return data[i];
    case ARB_I8:
      return ((const int8_t *)data)[i];
    case ARB_U16:
      return ((const uint16_t *)(const void *)data)[i];
    case ARB_I16:
      return ((const int16_t *)(const void *)data)[i];
    case ARB_I32:
      return ((const int32_t *)(const void *)data)[i];
    case ARB_U32:
      return ((const uint32_t *)(const void *)data)[i];
    default:
      return ((const int64_t *)(const void *)data)[i];
  }
}

/* Codes are padded to one width; other fields are columns or rows of their own. */
static void print_value(FILE *out, const arb_ckpt_walk *w, int64_t i, arb_tool_show show) {
  const int code = w->array.type == ARB_U8 ? w->data[i] : 0;
  if (show != ARB_SHOW_VALUES && code == ARB_CODE_ILLEGAL)
    fputs(show == ARB_SHOW_TRITS ? " ?" : "  ?", out);
  else if (show == ARB_SHOW_TRITS)
    fprintf(out, "%2d", arb_code_trit((uint8_t)code));
  else if (show == ARB_SHOW_ACCUMULATORS)
    fprintf(out, "%3d", arb_code_accumulator((uint8_t)code));
  else if (w->array.type == ARB_U64)
    fprintf(out, "%" PRIu64, ((const uint64_t *)(const void *)w->data)[i]);
  else
    fprintf(out, w->array.type == ARB_U8 ? "%3" PRId64 : "%" PRId64, integer_at(w->data, w->array.type, i));
}

static void print_block(FILE *out, const arb_ckpt_walk *w, const arb_tool_args *args) {
  const int64_t columns = w->array.columns;
  for (int64_t r = 0; r < w->rows; r++) {
    if (w->first + r < args->begin || (args->end >= 0 && w->first + r >= args->end)) continue;
    for (int64_t k = 0; k < columns; k++) {
      if (k > 0) fputc(' ', out);
      print_value(out, w, r * columns + k, args->show);
    }
    fputc('\n', out);
  }
}

static arb_status walk_array(FILE *out, const arb_ckpt *c, int i, const arb_tool_args *args) {
  arb_ckpt_walk w;
  arb_status st;
  ARB_TRY(arb_ckpt_walk_begin(&w, c, i));
  while ((st = arb_ckpt_walk_next(&w)) == ARB_OK && w.rows > 0) print_block(out, &w, args);
  arb_ckpt_walk_end(&w);
  return st;
}

static arb_status print_text(FILE *out, const char *text) {
  char *clean = strdup(text);
  ARB_REQUIRE(clean != NULL, ARB_ERR_NOMEM, "no memory for a text");
  arb_clean(clean);
  fputs(clean, out);
  free(clean);
  return ARB_OK;
}

static arb_status print_array(FILE *out, const arb_ckpt *c, const void *arg, void *result) {
  (void)result;
  const arb_tool_args *args = arg;
  const arb_ckpt_meta *meta = arb_ckpt_meta_of(c);
  if (strcmp(args->what, "meta.identity") == 0) return print_text(out, meta->identity);
  if (strcmp(args->what, "meta.config") == 0) return print_text(out, meta->config);
  const int i = find_array(c, args->what);
  ARB_REQUIRE(i >= 0, ARB_ERR_CONFIG, "%s has no %s; see arbckpt ls --step %" PRId64, arb_ckpt_path_of(c), args->what,
              meta->step);
  const arb_ckpt_array a = arb_ckpt_array_at(c, i);
  const bool code = strcmp(a.field, "code") == 0 && a.type == ARB_U8;
  ARB_REQUIRE(args->show == ARB_SHOW_VALUES || code, ARB_ERR_CONFIG, "--trits and --accumulators are for codes, not for %s.%s",
              a.tensor, a.field);
  ARB_REQUIRE(args->begin < a.rows || args->begin == 0, ARB_ERR_CONFIG, "--rows: %s.%s has %" PRId64 " rows", a.tensor, a.field,
              a.rows);
  ARB_REQUIRE(args->end <= a.rows, ARB_ERR_CONFIG, "--rows: %s.%s has %" PRId64 " rows", a.tensor, a.field, a.rows);
  return walk_array(out, c, i, args);
}

arb_status arb_tool_cat(const arb_tool_args *args) {
  arb_place p;
  arb_place_work w = {.work = print_array, .arg = args, .direct = true};
  ARB_TRY(arb_place_find(args->dir, args->step, &p));
  p.unverified = args->unverified;
  ARB_TRY(arb_place_choose(&p));
  return arb_place_run(&p, &w);
}
