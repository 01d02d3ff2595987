/* Frames with a border of zeros, as convolutions read them, and the norm on the way there. */
#include <math.h>
#include <string.h>

#include "kernels/common/reduce.h"
#include "src/sidecar/wan_impl.h"

typedef struct {
  arb_ops *ops;
  const float *x;
  int64_t ldx;
  int h, w, c;
  const arb_wan_gain *gain;
  float *out;
} job;

static size_t bytes(int64_t pixels, int c) { return (size_t)pixels * (size_t)c * sizeof(float); }

/* y = x / max(||x||, 1e-12) * sqrt(c) * gamma */
static void norm_pixel(const float *restrict x, const arb_wan_gain *g, float *restrict y) {
  const float norm = sqrtf(arb_row_dot(x, x, g->c));
  const float inv = sqrtf((float)g->c) / (norm > 1e-12f ? norm : 1e-12f);
  for (int i = 0; i < g->c; i++) y[i] = x[i] * inv * g->gamma[i];
}

/* Task y makes row y of the frame; the first and the last are border. */
static void frame_row(void *arg, int task, int worker) {
  (void)worker;
  const job *const j = arg;
  float *const row = j->out + (int64_t)task * (j->w + 2) * j->c, *const inside = row + j->c;
  if (task == 0 || task == j->h + 1) {
    memset(row, 0, bytes(j->w + 2, j->c));
    return;
  }
  memset(row, 0, bytes(1, j->c));
  memset(inside + (int64_t)j->w * j->c, 0, bytes(1, j->c));
  for (int x = 0; x < j->w; x++) {
    const float *const from = j->x + ((int64_t)(task - 1) * j->w + x) * j->ldx;
    if (j->gain)
      norm_pixel(from, j->gain, inside + (int64_t)x * j->c);
    else
      memcpy(inside + (int64_t)x * j->c, from, bytes(1, j->c));
  }
  if (j->gain) j->ops->kernels->activate(ARB_DENSE_SILU, inside, (int64_t)j->w * j->c);
}

void arb_wan_frame(arb_ops *ops, const float *x, int64_t ldx, int h, int w, int c, const arb_wan_gain *gain, float *frame) {
  const arb_dense_frame f = {x, ldx, h, w, c, 0, gain ? gain->gamma : NULL};
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->frame(ops->device, &f, frame));
  job j = {ops, x, ldx, h, w, c, gain, frame};
  arb_ops_each(ops, frame_row, &j, h + 2);
}

static void doubled_row(void *arg, int task, int worker) {
  (void)worker;
  const job *const j = arg;
  const int w = 2 * j->w;
  float *const row = j->out + (int64_t)task * (w + 2) * j->c;
  if (task == 0 || task == 2 * j->h + 1) {
    memset(row, 0, bytes(w + 2, j->c));
    return;
  }
  memset(row, 0, bytes(1, j->c));
  memset(row + (int64_t)(w + 1) * j->c, 0, bytes(1, j->c));
  for (int x = 0; x < w; x++)
    memcpy(row + (int64_t)(x + 1) * j->c, j->x + ((int64_t)((task - 1) / 2) * j->w + x / 2) * j->ldx, bytes(1, j->c));
}

void arb_wan_frame_doubled(arb_ops *ops, const float *x, int64_t ldx, int h, int w, int c, float *frame) {
  const arb_dense_frame f = {x, ldx, h, w, c, 1, NULL};
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->frame(ops->device, &f, frame));
  job j = {ops, x, ldx, h, w, c, NULL, frame};
  arb_ops_each(ops, doubled_row, &j, 2 * h + 2);
}

enum { NORM_PIXELS = 32 };

static void norm_pixels(void *arg, int task, int worker) {
  (void)worker;
  const job *const j = arg;
  for (int i = task * NORM_PIXELS; i < j->h && i < (task + 1) * NORM_PIXELS; i++)
    norm_pixel(j->x + (int64_t)i * j->c, j->gain, j->out + (int64_t)i * j->c);
}

void arb_wan_norm(arb_ops *ops, const float *x, int64_t n, const arb_wan_gain *gain, float *y) {
  if (ops->device) ARB_OPS_ON_DEVICE(ops, ops->device->rms(ops->device, x, n, gain->c, gain->gamma, y));
  job j = {.ops = ops, .x = x, .h = (int)n, .c = gain->c, .gain = gain, .out = y};
  arb_ops_each(ops, norm_pixels, &j, (n + NORM_PIXELS - 1) / NORM_PIXELS);
}
