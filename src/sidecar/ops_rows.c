/* Operations of one row or value at a time. */
#include <math.h>

#include "kernels/common/reduce.h"
#include "src/sidecar/ops.h"

/* ---- rotary positions ---- */

typedef struct {
  float *x;
  int64_t ld, heads, width, pairs;
  const float *turns;
} rotation;

static void rotate_row(void *arg, int row, int worker) {
  const rotation *r = arg;
  const float *c = r->turns + (int64_t)row * 2 * r->pairs, *s = c + r->pairs;
  (void)worker;
  for (int64_t head = 0; head < r->heads; head++)
    for (int64_t i = 0; i < r->pairs; i++) {
      float *pair = r->x + (int64_t)row * r->ld + head * r->width + 2 * i;
      const float a = pair[0], b = pair[1];
      pair[0] = a * c[i] - b * s[i];
      pair[1] = b * c[i] + a * s[i];
    }
}

void arb_ops_rotate(arb_ops *ops, float *x, int64_t ld, int64_t m, int64_t heads, int64_t width, int64_t pairs,
                    const float *turns) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->rotate(ops->device, x, ld, m, heads, width, pairs, turns));
  rotation r = {x, ld, heads, width, pairs, turns};
  arb_ops_each(ops, rotate_row, &r, m);
}

/* ---- group norm ---- */

typedef struct {
  float *x, *sums;
  int64_t width;
  float mean, inv;
  const float *weight, *bias;
} group;

static void group_sum(void *arg, int row, int worker) {
  const group *g = arg;
  (void)worker;
  g->sums[row] = arb_row_sum(g->x + row * g->width, g->width);
}

static void group_centre(void *arg, int row, int worker) {
  const group *g = arg;
  float *x = g->x + row * g->width;
  (void)worker;
  for (int64_t i = 0; i < g->width; i++) x[i] -= g->mean;
  g->sums[row] = arb_row_dot(x, x, g->width);
}

static void group_scale(void *arg, int row, int worker) {
  const group *g = arg;
  float *x = g->x + row * g->width;
  (void)worker;
  for (int64_t i = 0; i < g->width; i++) x[i] = (x[i] * g->inv) * g->weight[i] + g->bias[i];
}

static double total(const float *sums, int64_t rows) {
  double all = 0.0;
  for (int64_t i = 0; i < rows; i++) all += (double)sums[i];
  return all;
}

void arb_ops_group_norm(arb_ops *ops, float *x, int64_t m, int64_t width, const float *weight, const float *bias, float eps,
                        float *sums) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->group_norm(ops->device, x, m, width, weight, bias, eps, sums));
  group g = {.x = x, .sums = sums, .width = width, .weight = weight, .bias = bias};
  const double count = (double)m * (double)width;
  arb_ops_each(ops, group_sum, &g, m);
  g.mean = (float)(total(sums, m) / count);
  arb_ops_each(ops, group_centre, &g, m);
  g.inv = (float)(1.0 / sqrt(total(sums, m) / count + (double)eps));
  arb_ops_each(ops, group_scale, &g, m);
}

/* ---- gates, tables ---- */

typedef struct {
  const arb_ops *ops;
  const float *value, *gate;
  int64_t ld, width, ldo;
  float *out;
} gating;

static void gate_row(void *arg, int row, int worker) {
  const gating *g = arg;
  (void)worker;
  g->ops->kernels->gate(g->value + row * g->ld, g->gate + row * g->ld, g->width, g->out + row * g->ldo);
}

void arb_ops_gate(arb_ops *ops, const float *value, const float *gate, int64_t ld, int64_t m, int64_t width, float *out,
                  int64_t ldo) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->gate(ops->device, value, gate, ld, m, width, out, ldo));
  gating g = {ops, value, gate, ld, width, ldo, out};
  arb_ops_each(ops, gate_row, &g, m);
}

void arb_ops_table(arb_ops *ops, const arb_sidecar_layer *l, const int32_t *ids, int64_t count, float *out, int64_t ldo) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->table(ops->device, &l->w, ids, count, out, ldo));
  for (int64_t r = 0; r < count; r++) arb_layer_row(l, ids[r], out + r * ldo);
}
