/* ls: the checkpoints of a folder, or the tensors of one. */
#define _DEFAULT_SOURCE /* localtime_r */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/checkpoint/commands.h"
#include "tools/checkpoint/text.h"

/* ---- one checkpoint --------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t weights, bytes, exponents;
  int tensors, arrays;
} totals;

static int64_t bytes_of(const arb_ckpt_array *a) { return a->rows * a->columns * (int64_t)arb_dtype_size(a->type); }

/* The arrays begin .. end of one tensor. Its shape is that of its weights, or of its only array. */
static void print_tensor(FILE *out, const arb_ckpt *c, int begin, int end, totals *sum) {
  arb_ckpt_array shape = arb_ckpt_array_at(c, begin);
  int64_t weights = 0, bytes = 0;
  char fields[64] = "", size[64], share[24] = "-";
  for (int i = begin; i < end; i++) {
    const arb_ckpt_array a = arb_ckpt_array_at(c, i);
    const size_t used = strlen(fields);
    bytes += bytes_of(&a);
    snprintf(fields + used, sizeof fields - used, "%s%s", used > 0 ? " " : "", a.field);
    if (strcmp(a.field, "code") != 0) continue;
    shape = a;
    weights = a.rows * a.columns;
  }
  if (weights == 0 && end - begin == 1 && strcmp(shape.field, "e") == 0) sum->exponents += shape.rows;
  snprintf(size, sizeof size, "%" PRId64 " x %" PRId64, shape.rows, shape.columns);
  if (weights > 0) snprintf(share, sizeof share, "%.4f", (double)bytes / (double)weights);
  fprintf(out, "%-26s %14s %14s %14s %12s  %s\n", shape.tensor, size, weights > 0 ? arb_grouped(weights).text : "-",
          arb_grouped(bytes).text, share, fields);
  sum->weights += weights;
  sum->bytes += bytes;
  sum->arrays += end - begin;
  sum->tensors++;
}

static arb_status list_tensors(FILE *out, const arb_ckpt *c, const void *arg, void *result) {
  (void)arg, (void)result;
  const arb_ckpt_meta *meta = arb_ckpt_meta_of(c);
  const int count = arb_ckpt_array_count(c);
  totals sum = {0};
  char share[24] = "-", arrays[40];
  fprintf(out, "step %s, %s samples, seed %" PRIu64 ", digest %s\n\n", arb_grouped(meta->step).text,
          arb_grouped(meta->samples).text, meta->seed, meta->digest);
  fprintf(out, "%-26s %14s %14s %14s %12s  %s\n", "tensor", "shape", "weights", "bytes", "bytes/weight", "arrays");
  for (int begin = 0, end; begin < count; begin = end) {
    const char *tensor = arb_ckpt_array_at(c, begin).tensor;
    for (end = begin + 1; end < count && strcmp(arb_ckpt_array_at(c, end).tensor, tensor) == 0;) end++;
    print_tensor(out, c, begin, end, &sum);
  }
  if (sum.weights > 0) snprintf(share, sizeof share, "%.4f", (double)sum.bytes / (double)sum.weights);
  snprintf(arrays, sizeof arrays, "%d tensors", sum.tensors);
  fprintf(out, "%-26s %14s %14s %14s %12s  %d arrays\n", "sum", arrays, arb_grouped(sum.weights).text,
          arb_grouped(sum.bytes).text, share, sum.arrays);
  return ARB_OK;
}

/* ---- a folder --------------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t samples;
  char digest[33];
} facts;

static arb_status find_facts(FILE *out, const arb_ckpt *c, const void *arg, void *result) {
  (void)out, (void)arg;
  facts *f = result;
  f->samples = arb_ckpt_meta_of(c)->samples;
  memcpy(f->digest, arb_ckpt_meta_of(c)->digest, sizeof f->digest);
  return ARB_OK; /* opening verified it */
}

/* The reason without the path that the line names anyway. */
static void print_refusal(const arb_place_file *file) {
  const char *why = arb_fail_message();
  const size_t length = strlen(file->path);
  if (strncmp(why, file->path, length) == 0 && strncmp(why + length, ": ", 2) == 0) why += length + 2;
  if (strncmp(why, file->path, length) == 0 && why[length] == '/') why += length + 1;
  arb_print_wrapped(stdout, 10, why);
}

static arb_status list_one(const arb_place *p) {
  facts f = {.digest = "-"};
  arb_place_file file;
  arb_place_work w = {.work = find_facts, .result = &f, .result_bytes = sizeof f};
  char date[32] = "-";
  struct tm local;
  arb_place_look(p, &file);
  const arb_status st = arb_place_run(p, &w);
  if (st != ARB_OK && st != ARB_ERR_CHECKPOINT) return st;
  f.digest[32] = '\0';
  const time_t when = (time_t)file.time;
  if (file.time != 0 && localtime_r(&when, &local) != NULL) strftime(date, sizeof date, "%Y-%m-%d %H:%M", &local);
  printf("%8" PRId64 "  %11s  %-32s  %14s  %-16s  %s\n", p->step, st == ARB_OK ? arb_grouped(f.samples).text : "-", f.digest,
         arb_grouped((int64_t)file.bytes).text, date, st == ARB_OK ? "verified" : "refused:");
  if (st != ARB_OK) print_refusal(&file);
  arb_fail_clear();
  return ARB_OK;
}

static arb_status list_folder(arb_place *p) {
  arb_ckpt_folder *list;
  int count;
  ARB_TRY(arb_ckpt_list(p->dir, &list, &count));
  arb_status st = ARB_OK;
  if (count == 0)
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: no checkpoints; expected a run's folder, its checkpoints folder, or a step folder",
                  p->dir);
  else
    printf("%8s  %11s  %-32s  %14s  %-16s  %s\n", "step", "samples", "digest", "bytes", "saved", "state");
  for (int i = count - 1; i >= 0 && st == ARB_OK; i--) { /* the newest last, next to the prompt */
    if (list[i].pid != 0) continue;
    p->step = list[i].step;
    st = list_one(p);
  }
  for (int i = 0; i < count && st == ARB_OK; i++)
    if (list[i].pid != 0)
      printf("%8" PRId64 "  %s: step-%08" PRId64 ".%s-%ld\n", list[i].step,
             list[i].replaced ? "moved aside for a newer save of its step" : "a save that did not finish", list[i].step,
             list[i].replaced ? "old" : "tmp", list[i].pid);
  free(list);
  return st;
}

arb_status arb_tool_ls(const arb_tool_args *args) {
  arb_place p;
  arb_place_work w = {.work = list_tensors};
  ARB_TRY(arb_place_find(args->dir, args->step, &p));
  p.unverified = args->unverified;
  ARB_REQUIRE(p.step >= 0 || !p.unverified, ARB_ERR_CONFIG, "--unverified needs a step folder or --step N");
  return p.step < 0 ? list_folder(&p) : arb_place_run(&p, &w);
}
