#include "src/bench/step.h"

#include <stdlib.h>
#include <string.h>

#include "src/train/metrics.h"

#define MAX_OPS 64

typedef struct {
  const char *name;
  double seconds;
  int64_t calls;
} line;

static int by_seconds(const void *a, const void *b) {
  const double x = ((const line *)a)->seconds, y = ((const line *)b)->seconds;
  return (x < y) - (x > y);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Integer operations (multiply and add counted apart) of all products of one step, over all grains. */
static double product_operations(const arb_trainer *t) {
  const arb_state *s = &t->model->state;
  const double rows = (double)(t->cfg->train.sequences * t->cfg->train.context);
  double sum = 0.0;
  for (int i = 0; i < s->tensor_count; i++) {
    const arb_stack *w = &s->tensors[i]->w;
    if (w->uses == 1) sum += 3.0 * 2.0 * rows * (double)w->n * (double)w->k; /* the embedding is a lookup */
  }
  return sum;
}

static int is_product(const char *name) { return strncmp(name, "linear_", 7) == 0; }

static arb_status print_operations(const arb_trainer *t, int steps, double total, FILE *out) {
  arb_backend *be = t->be;
  line lines[MAX_OPS];
  int count = 0;
  double products = 0.0, known = 0.0;
  while (count < MAX_OPS &&
         be->ops.profile(be, count, 0, &lines[count].name, &lines[count].seconds, &lines[count].calls) == ARB_OK)
    count++;
  for (int i = 0; i < count; i++) {
    known += lines[i].seconds;
    if (is_product(lines[i].name)) products += lines[i].seconds;
  }
  qsort(lines, (size_t)count, sizeof *lines, by_seconds);
  fprintf(out, "\n%-22s %10s %8s %8s\n", "operation", "ms/step", "share", "calls");
  for (int i = 0; i < count; i++)
    if (lines[i].calls)
      fprintf(out, "%-22s %10.2f %7.1f%% %8lld\n", lines[i].name, 1e3 * lines[i].seconds / steps,
              100.0 * lines[i].seconds / total, (long long)lines[i].calls / steps);
  fprintf(out, "%-22s %10.2f %7.1f%%\n", "outside operations", 1e3 * (total - known) / steps, 100.0 * (total - known) / total);
  const double operations = product_operations(t) / t->comm->size; /* even shares */
  fprintf(out, "\nproducts: %.3f TOP a step on this rank, %.1f%% of its time, %.1f GOP/s while they run\n", operations / 1e12,
          100.0 * products / total, operations / 1e9 / (products / steps));
  return ARB_OK;
}

/* What is held for a weight, by the backend's own count and, on a device, by the driver's. */
static void print_memory(const arb_trainer *t, FILE *out) {
  const double weights = (double)arb_state_weights(&t->model->state);
  const size_t held = t->be->allocated + t->be->ops.held(t->be);
  size_t available, total;
  fprintf(out, "memory: %.0f ternary weights; %zu bytes held, %.4f a weight; %zu planned", weights, held,
          (double)held / weights, t->planned);
  if (t->be->on_device && t->be->ops.memory(t->be, &available, &total) == ARB_OK)
    fprintf(out, "; %zu of %zu bytes of the device in use, %.4f a weight", total - available, total,
            (double)(total - available) / weights);
  fprintf(out, "\n");
}

static arb_status print_step(const arb_trainer *t, int steps, const double *seconds, double total, FILE *out) {
  const double median = seconds[steps / 2], bytes = (double)(t->cfg->train.sequences * t->cfg->train.context);
  fprintf(out, "step: %s, %d rank%s, %d threads a rank; median of %d: %.1f ms (%.1f - %.1f), %.1f kB/s\n", t->be->ops.name,
          t->comm->size, t->comm->size == 1 ? "" : "s", arb_backend_threads(t->be), steps, 1e3 * median, 1e3 * seconds[0],
          1e3 * seconds[steps - 1], bytes / median / 1e3);
  print_memory(t, out);
  return t->be->ops.profile ? print_operations(t, steps, total, out) : ARB_OK;
}

/* Collective. The same steps with votes sent after the backward pass and during it, in turn; ratios of neighbours. Each turn
 * goes on from a step of its own kind, as in a run. */
static arb_status compare_overlap(arb_trainer *t, int steps, double *seconds, FILE *out) {
  arb_step_result r;
  double *after = seconds, *during = seconds + steps, *ratio = seconds + 2 * steps;
  const int overlap = t->overlap;
  for (int i = -2; i < steps; i++) /* the first two of each record */
    for (int on = 0; on < 2; on++) {
      arb_trainer_overlap(t, on);
      ARB_TRY(arb_trainer_step_on(t, &r));
      ARB_TRY(arb_comm_barrier(t->comm));
      const double start = arb_clock_seconds();
      ARB_TRY(arb_trainer_step_on(t, &r));
      if (i >= 0) (on ? during : after)[i] = arb_clock_seconds() - start;
    }
  arb_trainer_overlap(t, overlap);
  if (!out) return ARB_OK;
  for (int i = 0; i < steps; i++) ratio[i] = after[i] / during[i];
  for (int k = 0; k < 3; k++) qsort(seconds + k * steps, (size_t)steps, sizeof *seconds, by_value);
  fprintf(out,
          "overlap: votes sent during the backward pass %.2f ms (%.2f - %.2f), after it %.2f ms (%.2f - %.2f): %.3f x (%.3f - "
          "%.3f), medians of %d\n",
          1e3 * during[steps / 2], 1e3 * during[0], 1e3 * during[steps - 1], 1e3 * after[steps / 2], 1e3 * after[0],
          1e3 * after[steps - 1], ratio[steps / 2], ratio[0], ratio[steps - 1], steps);
  return ARB_OK;
}

arb_status arb_bench_step(arb_trainer *t, int steps, FILE *out) {
  arb_step_result r;
  const int pairs = 4 * steps + 1;
  double *seconds = calloc((size_t)(3 * pairs), sizeof *seconds);
  arb_status st = arb_comm_agree(t->comm, seconds ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory"));
  if (st != ARB_OK) goto out;
  for (int i = 0; i < 2; i++) ARB_TRY_OUT(st, arb_trainer_step_on(t, &r)); /* the first takes memory, the second records */
  if (t->be->ops.profile) ARB_TRY_OUT(st, t->be->ops.profile(t->be, 0, 1, NULL, NULL, NULL));
  double total = 0.0;
  for (int i = 0; i < steps; i++) {
    const double start = arb_clock_seconds();
    ARB_TRY_OUT(st, arb_trainer_step_on(t, &r));
    total += seconds[i] = arb_clock_seconds() - start;
  }
  if (out) {
    qsort(seconds, (size_t)steps, sizeof *seconds, by_value);
    st = print_step(t, steps, seconds, total, out);
  }
  st = arb_comm_agree(t->comm, st);
  if (st == ARB_OK && t->device_comm) st = compare_overlap(t, pairs, seconds, out);
  if (st == ARB_OK && t->begun) st = arb_trainer_step(t, &r); /* so that nothing is under way when a rank leaves */
out:
  free(seconds);
  return st;
}
