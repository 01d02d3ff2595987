/* stat: what the numbers of a state look like. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/fixed.h"
#include "kernels/common/trit.h"
#include "tools/checkpoint/commands.h"
#include "tools/checkpoint/text.h"
#include "tools/checkpoint/views.h"

/* 169 accumulator positions -84 .. 84 in bins of 13. */
enum { ENDS = 2 * ARB_UNITS, BIN = 13, BINS = (2 * ENDS + 1) / BIN, BAR = 50 };

typedef struct {
  int64_t weights, trit[3], ends, illegal, bin[BINS];
} code_stat;

typedef struct {
  int64_t least, most, count, none; /* none: statistics that were never seen */
} range_stat;

typedef struct {
  code_stat code;
  range_stat field[ARB_VIEW_FIELDS]; /* of e, p, r, c, m */
} tensor_stat;

/* ---- counting --------------------------------------------------------------------------------------------------------- */

static void count_codes(const arb_ckpt_walk *w, int64_t count[256]) {
  const int64_t n = w->rows * w->array.columns;
  for (int64_t i = 0; i < n; i++) count[w->data[i]]++;
}

static void sum_codes(const int64_t count[256], code_stat *s) {
  for (int c = 0; c < 256; c++) {
    s->weights += count[c];
    if (c == ARB_CODE_ILLEGAL) {
      s->illegal += count[c];
      continue;
    }
    const int a = arb_code_accumulator((uint8_t)c);
    s->trit[arb_code_trit((uint8_t)c) + 1] += count[c];
    s->bin[(a + ENDS) / BIN] += count[c];
    if (a == ENDS || a == -ENDS) s->ends += count[c];
  }
}

static void add_range(range_stat *r, int64_t x) {
  r->least = r->count == 0 || x < r->least ? x : r->least;
  r->most = r->count == 0 || x > r->most ? x : r->most;
  r->count++;
}

static void count_range(const arb_ckpt_walk *w, range_stat *r) {
  const int64_t n = w->rows * w->array.columns;
  for (int64_t i = 0; i < n; i++) {
    if (w->array.type == ARB_I8) {
      add_range(r, ((const int8_t *)w->data)[i]);
      continue;
    }
    const int32_t x = ((const int32_t *)(const void *)w->data)[i];
    if (x == ARB_Q16_NONE)
      r->none++;
    else
      add_range(r, x);
  }
}

static arb_status count_tensor(const arb_ckpt *c, const arb_view *v, tensor_stat *s) {
  int64_t count[256] = {0};
  *s = (tensor_stat){.code = {0}};
  for (int f = 0; f < ARB_VIEW_FIELDS; f++) {
    arb_ckpt_walk w;
    arb_status st;
    if (v->array[f] < 0) continue;
    ARB_TRY(arb_ckpt_walk_begin(&w, c, v->array[f]));
    while ((st = arb_ckpt_walk_next(&w)) == ARB_OK && w.rows > 0) {
      if (f == ARB_VIEW_CODE)
        count_codes(&w, count);
      else
        count_range(&w, &s->field[f]);
    }
    arb_ckpt_walk_end(&w);
    ARB_TRY(st);
  }
  sum_codes(count, &s->code);
  return ARB_OK;
}

/* ---- all tensors ------------------------------------------------------------------------------------------------------ */

/* One character a bin, relative to the fullest. */
static void sparkline(const code_stat *s, char out[BINS + 1]) {
  static const char levels[] = " .:-=+*#";
  int64_t most = 1;
  for (int b = 0; b < BINS; b++) most = s->bin[b] > most ? s->bin[b] : most;
  for (int b = 0; b < BINS; b++) {
    const int level = (int)(7.0 * (double)s->bin[b] / (double)most + 0.5);
    out[b] = levels[level == 0 && s->bin[b] > 0 ? 1 : level];
  }
  out[BINS] = '\0';
}

static void print_codes(FILE *out, const char *name, const code_stat *s) {
  char line[BINS + 1];
  sparkline(s, line);
  fprintf(out, "%-26s %13s  %5s %5s %5s  |%s|  %7s %9s\n", name, arb_grouped(s->weights).text,
          arb_percent(s->trit[0], s->weights, 1).text, arb_percent(s->trit[1], s->weights, 1).text,
          arb_percent(s->trit[2], s->weights, 1).text, line, arb_percent(s->ends, s->weights, 3).text,
          arb_grouped(s->illegal).text);
}

static void add_codes(code_stat *sum, const code_stat *s) {
  sum->weights += s->weights;
  sum->ends += s->ends;
  sum->illegal += s->illegal;
  for (int t = 0; t < 3; t++) sum->trit[t] += s->trit[t];
  for (int b = 0; b < BINS; b++) sum->bin[b] += s->bin[b];
}

/* Exponents as they are, statistics in octaves. */
static arb_number range_text(const range_stat *r, bool octaves) {
  arb_number out = {"-"};
  const double least = (double)r->least / 65536, most = (double)r->most / 65536;
  if (r->count == 0) return out;
  if (octaves)
    snprintf(out.text, sizeof out.text, r->least == r->most ? "%.1f" : "%.1f .. %.1f", least, most);
  else
    snprintf(out.text, sizeof out.text, r->least == r->most ? "%" PRId64 : "%" PRId64 " .. %" PRId64, r->least, r->most);
  return out;
}

static void print_ranges(FILE *out, const char *name, const range_stat field[ARB_VIEW_FIELDS]) {
  fprintf(out, "%-26s %10s %11s %16s %16s %14s\n", name, range_text(&field[ARB_VIEW_E], false).text,
          range_text(&field[ARB_VIEW_P], false).text, range_text(&field[ARB_VIEW_R], true).text,
          range_text(&field[ARB_VIEW_C], true).text, range_text(&field[ARB_VIEW_M], true).text);
}

static void print_all_codes(FILE *out, const arb_views *views, const tensor_stat *stats) {
  code_stat sum = {0};
  fprintf(out, "%-26s %13s  %17s  %15s  %7s\n", "", "", "trits, %     ", "accumulators ", "at the");
  fprintf(out, "%-26s %13s  %5s %5s %5s  %15s  %7s %9s\n", "tensor", "weights", "-1", "0", "+1", "-84    0     84", "ends, %",
          "illegal");
  for (int i = 0; i < views->count; i++) {
    if (arb_view_is_norm(&views->items[i])) continue;
    print_codes(out, views->items[i].name, &stats[i].code);
    add_codes(&sum, &stats[i].code);
  }
  print_codes(out, "sum", &sum);
}

/* Gains do not learn yet, so that norms that are all alike share one line. */
static void print_all_ranges(FILE *out, const arb_views *views, const tensor_stat *stats) {
  range_stat norms[ARB_VIEW_FIELDS] = {{0}};
  int norm_count = 0;
  char name[32];
  fprintf(out, "\n%-26s %10s %11s %16s %16s %14s\n", "", "E", "p", "R", "C", "M");
  fprintf(out, "%-26s %10s %11s %16s %16s %14s\n", "tensor", "octaves/8", "octaves", "octaves", "octaves", "octaves");
  for (int i = 0; i < views->count; i++) {
    const range_stat *e = &stats[i].field[ARB_VIEW_E];
    if (arb_view_is_norm(&views->items[i]) && e->least == e->most && (norm_count == 0 || e->least == norms[ARB_VIEW_E].least))
      norms[ARB_VIEW_E] = *e, norm_count++;
    else
      print_ranges(out, views->items[i].name, stats[i].field);
  }
  snprintf(name, sizeof name, "%d norm%s", norm_count, norm_count == 1 ? "" : "s, all");
  if (norm_count > 0) print_ranges(out, name, norms);
}

static arb_status stat_all(FILE *out, const arb_ckpt *c, const arb_views *views) {
  tensor_stat *stats = calloc((size_t)views->count + 1, sizeof *stats);
  ARB_REQUIRE(stats != NULL, ARB_ERR_NOMEM, "no memory for %d tensors", views->count);
  arb_status st = ARB_OK;
  for (int i = 0; i < views->count && st == ARB_OK; i++) st = count_tensor(c, &views->items[i], &stats[i]);
  if (st == ARB_OK) print_all_codes(out, views, stats);
  if (st == ARB_OK) print_all_ranges(out, views, stats);
  free(stats);
  return st;
}

/* ---- one tensor ------------------------------------------------------------------------------------------------------- */

static void print_share(FILE *out, const char *name, int64_t part, int64_t all, int64_t most) {
  fprintf(out, "  %-12s %15s %7s %%  ", name, arb_grouped(part).text, arb_percent(part, all, 2).text);
  arb_print_bar(out, most > 0 ? (double)part / (double)most : 0, BAR);
  fputc('\n', out);
}

static void print_charts(FILE *out, const code_stat *s) {
  static const char *const trits[3] = {"-1", " 0", "+1"};
  int64_t most = 0;
  char name[32];
  fprintf(out, "\ntrits\n");
  for (int t = 0; t < 3; t++) print_share(out, trits[t], s->trit[t], s->weights, s->weights);
  fprintf(out, "\naccumulators; a trit step is %d\n", ARB_UNITS);
  for (int b = 0; b < BINS; b++) most = s->bin[b] > most ? s->bin[b] : most;
  for (int b = 0; b < BINS; b++) {
    snprintf(name, sizeof name, "%3d .. %3d", b * BIN - ENDS, b * BIN - ENDS + BIN - 1);
    print_share(out, name, s->bin[b], s->weights, most);
  }
  fprintf(out, "  at the ends %16s %7s %%\n", arb_grouped(s->ends).text, arb_percent(s->ends, s->weights, 2).text);
  fprintf(out, "  illegal     %16s %7s %%\n", arb_grouped(s->illegal).text, arb_percent(s->illegal, s->weights, 2).text);
}

static void print_field(FILE *out, const char *name, const range_stat *r, bool octaves, const char *unit) {
  if (r->count + r->none == 0) return;
  fprintf(out, "  %-26s %s %s", name, range_text(r, octaves).text, unit);
  if (r->none > 0) fprintf(out, ", %s of %s never seen", arb_grouped(r->none).text, arb_grouped(r->none + r->count).text);
  fputc('\n', out);
}

static arb_status stat_one(FILE *out, const arb_ckpt *c, const arb_view *v) {
  tensor_stat s;
  ARB_TRY(count_tensor(c, v, &s));
  if (arb_view_is_norm(v))
    fprintf(out, "%s: a norm of %s channels\n", v->name, arb_grouped(v->n).text);
  else
    fprintf(out, "%s: %" PRId64 " x %" PRId64 ", %s weights in %" PRId64 " matri%s\n", v->name, v->n, v->k,
            arb_grouped(v->n * v->k).text, v->members, v->members == 1 ? "x" : "ces");
  if (!arb_view_is_norm(v)) print_charts(out, &s.code);
  fputc('\n', out);
  print_field(out, "E, row exponents", &s.field[ARB_VIEW_E], false, "eighths of an octave");
  print_field(out, "p, vote exponents", &s.field[ARB_VIEW_P], false, "octaves");
  print_field(out, "R, mean square of rows", &s.field[ARB_VIEW_R], true, "octaves");
  print_field(out, "C, of columns", &s.field[ARB_VIEW_C], true, "octaves");
  print_field(out, "M, of matrices", &s.field[ARB_VIEW_M], true, "octaves");
  return ARB_OK;
}

static arb_status stat_work(FILE *out, const arb_ckpt *c, const void *arg, void *result) {
  (void)result;
  const char *name = arg;
  arb_views views;
  ARB_TRY(arb_views_init(&views, c));
  const arb_view *v = name != NULL ? arb_views_find(&views, name) : NULL;
  arb_status st;
  if (name != NULL && v == NULL) {
    st = ARB_FAIL(ARB_ERR_CONFIG, "%s has no tensor %s; see arbckpt ls --step %" PRId64, arb_ckpt_path_of(c), name,
                  arb_ckpt_meta_of(c)->step);
  } else {
    fprintf(out, "step %s, digest %s\n%s", arb_grouped(arb_ckpt_meta_of(c)->step).text, arb_ckpt_meta_of(c)->digest,
            v != NULL ? "" : "\n");
    st = v != NULL ? stat_one(out, c, v) : stat_all(out, c, &views);
  }
  arb_views_deinit(&views);
  return st;
}

arb_status arb_tool_stat(const arb_tool_args *args) {
  arb_place p;
  arb_place_work w = {.work = stat_work, .arg = args->what};
  ARB_TRY(arb_place_find(args->dir, args->step, &p));
  p.unverified = args->unverified;
  ARB_TRY(arb_place_choose(&p));
  return arb_place_run(&p, &w);
}
