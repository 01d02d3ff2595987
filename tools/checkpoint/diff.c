/* diff: what changed from one checkpoint to another. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/trit.h"
#include "tools/checkpoint/commands.h"
#include "tools/checkpoint/text.h"
#include "tools/checkpoint/views.h"

typedef struct {
  int64_t weights, flips, moved; /* moved: other accumulator */
  int64_t distance;              /* sum of |dA| */
  int64_t illegal;               /* weights without a legal code on both sides: not counted in the others */
  int64_t changed[ARB_VIEW_FIELDS];
} changes;

/* ---- counting --------------------------------------------------------------------------------------------------------- */

static void compare_codes(const arb_ckpt_walk *a, const arb_ckpt_walk *b, changes *d) {
  const int64_t n = a->rows * a->array.columns;
  for (int64_t i = 0; i < n; i++) {
    const uint8_t x = a->data[i], y = b->data[i];
    if (x == y) continue;
    d->changed[ARB_VIEW_CODE]++;
    if (x == ARB_CODE_ILLEGAL || y == ARB_CODE_ILLEGAL) {
      d->illegal++;
      continue;
    }
    const int move = arb_code_accumulator(y) - arb_code_accumulator(x);
    d->flips += arb_code_trit(x) != arb_code_trit(y);
    d->moved += move != 0;
    d->distance += move < 0 ? -move : move;
  }
}

static int64_t compare_values(const arb_ckpt_walk *a, const arb_ckpt_walk *b) {
  const int64_t n = a->rows * a->array.columns;
  const size_t size = arb_dtype_size(a->array.type);
  int64_t changed = 0;
  for (int64_t i = 0; i < n; i++) changed += memcmp(a->data + (size_t)i * size, b->data + (size_t)i * size, size) != 0;
  return changed;
}

/* Arrays of one type and shape: both walks have the same blocks. */
static arb_status compare_arrays(const arb_ckpt *a, int i, const arb_ckpt *b, int j, int field, changes *d) {
  arb_ckpt_walk x, y = {0};
  arb_status st;
  ARB_TRY(arb_ckpt_walk_begin(&x, a, i));
  st = arb_ckpt_walk_begin(&y, b, j);
  while (st == ARB_OK) {
    st = arb_ckpt_walk_next(&x);
    if (st == ARB_OK) st = arb_ckpt_walk_next(&y);
    if (st != ARB_OK || x.rows == 0) break;
    if (field == ARB_VIEW_CODE)
      compare_codes(&x, &y, d);
    else
      d->changed[field] += compare_values(&x, &y);
  }
  arb_ckpt_walk_end(&x);
  arb_ckpt_walk_end(&y);
  return st;
}

/* ---- the table -------------------------------------------------------------------------------------------------------- */

static void print_changes(FILE *out, const char *name, const changes *d) {
  char mean[24] = "-";
  const bool norm = d->weights == 0;
  if (!norm) snprintf(mean, sizeof mean, "%.3f", (double)d->distance / (double)d->weights);
  fprintf(out, "%-26s %12s %10s %7s %12s %6s %5s %6s %8s\n", name, norm ? "-" : arb_grouped(d->weights).text,
          norm ? "-" : arb_grouped(d->flips).text, arb_percent(d->flips, d->weights, 3).text,
          norm ? "-" : arb_grouped(d->moved).text, mean, arb_grouped(d->changed[ARB_VIEW_E]).text,
          norm ? "-" : arb_grouped(d->changed[ARB_VIEW_P]).text,
          norm ? "-" : arb_grouped(d->changed[ARB_VIEW_R] + d->changed[ARB_VIEW_C] + d->changed[ARB_VIEW_M]).text);
  if (d->illegal > 0) fprintf(out, "%-26s %s illegal codes changed, too\n", "", arb_grouped(d->illegal).text);
}

static bool any(const changes *d) {
  int64_t sum = 0;
  for (int f = 0; f < ARB_VIEW_FIELDS; f++) sum += d->changed[f];
  return sum > 0;
}

static void add(changes *sum, const changes *d) {
  sum->weights += d->weights;
  sum->flips += d->flips;
  sum->moved += d->moved;
  sum->distance += d->distance;
  sum->illegal += d->illegal;
  for (int f = 0; f < ARB_VIEW_FIELDS; f++) sum->changed[f] += d->changed[f];
}

typedef struct {
  FILE *out;
  const arb_ckpt *a, *b;
  changes sum;
  int same; /* tensors without a difference: not listed */
  bool differ;
} comparison;

static arb_status compare_tensor(comparison *c, const arb_view *a, const arb_view *b) {
  if (a->n != b->n || a->k != b->k || a->members != b->members) {
    fprintf(c->out, "%-26s %" PRId64 " x %" PRId64 " in a, %" PRId64 " x %" PRId64 " in b\n", a->name, a->n, a->k, b->n, b->k);
    c->differ = true;
    return ARB_OK;
  }
  changes d = {.weights = arb_view_weights(a)};
  for (int f = 0; f < ARB_VIEW_FIELDS; f++)
    if (a->array[f] >= 0) ARB_TRY(compare_arrays(c->a, a->array[f], c->b, b->array[f], f, &d));
  if (any(&d)) print_changes(c->out, a->name, &d);
  add(&c->sum, &d);
  c->same += !any(&d);
  c->differ |= any(&d);
  return ARB_OK;
}

static arb_status compare_tensors(comparison *c, const arb_views *a, const arb_views *b) {
  fprintf(c->out, "%-26s %12s %10s %7s %12s %6s %5s %6s %8s\n", "", "", "trits", "% of", "accumulators", "mean", "E", "p",
          "R, C, M");
  fprintf(c->out, "%-26s %12s %10s %7s %12s %6s %5s %6s %8s\n", "tensor", "weights", "flipped", "weights", "changed", "|dA|",
          "chgd", "chgd", "changed");
  for (int i = 0, j = 0; i < a->count || j < b->count;) {
    const int order = i == a->count ? 1 : j == b->count ? -1 : strcmp(a->items[i].name, b->items[j].name);
    if (order == 0) {
      ARB_TRY(compare_tensor(c, &a->items[i++], &b->items[j++]));
      continue;
    }
    fprintf(c->out, "%-26s only in %s\n", order < 0 ? a->items[i++].name : b->items[j++].name, order < 0 ? "a" : "b");
    c->differ = true;
  }
  print_changes(c->out, "sum", &c->sum);
  if (c->same > 0) fprintf(c->out, "%d of %d tensors: no change\n", c->same, a->count);
  return ARB_OK;
}

/* ---- the rest --------------------------------------------------------------------------------------------------------- */

static void print_pair(FILE *out, const char *name, const char *a, const char *b) {
  fprintf(out, "%-10s %-36s %s%s\n", name, a, b, strcmp(a, b) == 0 ? "" : "  *");
}

static void print_heads(FILE *out, const arb_ckpt_meta *a, const arb_ckpt_meta *b) {
  char x[24], y[24];
  fprintf(out, "%-10s %-36s %s\n", "", "a", "b");
  print_pair(out, "step", arb_grouped(a->step).text, arb_grouped(b->step).text);
  print_pair(out, "samples", arb_grouped(a->samples).text, arb_grouped(b->samples).text);
  snprintf(x, sizeof x, "%" PRIu64, a->seed);
  snprintf(y, sizeof y, "%" PRIu64, b->seed);
  print_pair(out, "seed", x, y);
  print_pair(out, "digest", a->digest, b->digest);
  fputc('\n', out);
}

static arb_status compare_texts(comparison *c, const arb_ckpt_meta *a, const arb_ckpt_meta *b) {
  c->differ |= strcmp(a->identity, b->identity) != 0;
  const int identity = arb_settings_diff(c->out, "identity: key: a, b", a->identity, b->identity, NULL);
  const int config =
      arb_settings_diff(c->out, "settings that do not decide the state: key: a, b", a->config, b->config, a->identity);
  ARB_REQUIRE(identity >= 0 && config >= 0, ARB_ERR_NOMEM, "no memory for the settings");
  if (identity == 0 && strcmp(a->identity, b->identity) != 0) fputs("\nidentity: other order of the same lines\n", c->out);
  return ARB_OK;
}

static arb_status compare_open(FILE *out, const arb_ckpt *a, const arb_ckpt *b, bool *differ) {
  comparison c = {.out = out, .a = a, .b = b};
  const arb_ckpt_meta *x = arb_ckpt_meta_of(a), *y = arb_ckpt_meta_of(b);
  arb_views u = {0}, v = {0};
  arb_status st;
  ARB_TRY_OUT(st, arb_views_init(&u, a));
  ARB_TRY_OUT(st, arb_views_init(&v, b));
  c.differ = x->step != y->step || x->samples != y->samples || x->seed != y->seed || strcmp(x->digest, y->digest) != 0;
  print_heads(out, x, y);
  ARB_TRY_OUT(st, compare_tensors(&c, &u, &v));
  ARB_TRY_OUT(st, compare_texts(&c, x, y));
  fprintf(out, "\n%s\n", c.differ ? "a and b differ" : "a and b are equal: every array, step, samples, seed and identity");
  *differ = c.differ;
out:
  arb_views_deinit(&u);
  arb_views_deinit(&v);
  return st;
}

static arb_status diff_work(FILE *out, void *arg, void *result) {
  const arb_place *p = arg;
  arb_ckpt *a = NULL, *b = NULL;
  arb_status st;
  ARB_TRY_OUT(st, arb_place_open(&p[0], &a));
  ARB_TRY_OUT(st, arb_place_open(&p[1], &b));
  ARB_TRY_OUT(st, compare_open(out, a, b, result));
  arb_place_warn(a);
  arb_place_warn(b);
out:
  arb_ckpt_close(&a);
  arb_ckpt_close(&b);
  return st;
}

arb_status arb_tool_diff(const arb_tool_args *args, int *answer) {
  arb_place p[2];
  arb_place_file file[2];
  bool differ = false;
  for (int i = 0; i < 2; i++) {
    ARB_TRY(arb_place_find(i == 0 ? args->dir : args->what, args->step, &p[i]));
    p[i].unverified = args->unverified;
    ARB_TRY(arb_place_choose(&p[i]));
    arb_place_look(&p[i], &file[i]);
  }
  char both[2 * sizeof file[0].path + 8];
  snprintf(both, sizeof both, "%s or %s", file[0].path, file[1].path);
  arb_guard g = {.work = diff_work,
                 .arg = p,
                 .result = &differ,
                 .result_bytes = sizeof differ,
                 .path = both,
                 .bytes = file[0].bytes + file[1].bytes};
  ARB_TRY(arb_guard_run(&g));
  *answer = differ ? 1 : 0;
  return ARB_OK;
}
