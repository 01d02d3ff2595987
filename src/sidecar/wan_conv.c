/* Convolutions of frames that lie as [y][x][channel]: kernels/dense over the runs that a pixel meets, one run for each frame
 * and row of the kernel. Frames of zeros are left out: a sum that starts at +0 is the same without them. */
#include "src/sidecar/wan_impl.h"

typedef struct {
  arb_ops *ops;
  const arb_wan_conv *c;
  const arb_wan_input *in;
  int64_t pixels, panels, chunks, ldo;
  int w, skip; /* frames left out */
  float *out;
  bool add;
} job;

/* The weights of frames that are left out come first in every panel; panels stay k apart. */
static arb_dense_matrix weights(const arb_wan_conv *c, int skip) {
  arb_dense_matrix w = c->layer.w;
  const int64_t left_out = (int64_t)skip * c->ny * c->nx * c->cin * ARB_DENSE_PANEL;
  if (w.q) w.q += left_out;
  if (w.f) w.f += left_out;
  return w;
}

static void convolve(void *arg, int task, int worker) {
  const job *const j = arg;
  const arb_wan_conv *const c = j->c;
  const int64_t chunk = task / j->panels, from = j->pixels * chunk / j->chunks;
  const int rows = (int)(j->pixels * (chunk + 1) / j->chunks - from), runs = (c->nt - j->skip) * c->ny;
  const float *at[ARB_DENSE_TAPS * ARB_DENSE_ROWS];
  int64_t y = from / j->w, x = from % j->w;
  for (int r = 0; r < rows; r++) {
    const int64_t pixel = j->in->stride * (y * j->in->row + x * j->in->pixel);
    for (int i = 0; i < runs; i++) at[i * rows + r] = j->in->frame[j->skip + i / c->ny] + i % c->ny * j->in->row + pixel;
    if (++x == j->w) {
      x = 0;
      y++;
    }
  }
  const arb_dense_input input = {.at = at, .stride = rows, .taps = runs, .depth = (int64_t)c->nx * c->cin};
  float *const out = j->out + from * j->ldo;
  const arb_dense_epilogue e = {.bias = c->layer.bias, .residual = j->add ? out : NULL, .ldr = j->ldo};
  const arb_dense_matrix w = weights(c, j->skip);
  j->ops->kernels->product(&input, 0, rows, &w, task % j->panels, &e, out, j->ldo,
                           j->ops->scratch + worker * j->ops->scratch_floats);
}

static void on_device(const job *j, int h) {
  const arb_wan_conv *const c = j->c;
  const arb_wan_input *const in = j->in;
  arb_dense_reach x = {.taps = (int64_t)(c->nt - j->skip) * c->ny,
                       .depth = (int64_t)c->nx * c->cin,
                       .width = j->w,
                       .row = in->stride * in->row,
                       .pixel = in->stride * in->pixel};
  for (int64_t i = 0; i < x.taps; i++) x.at[i] = in->frame[j->skip + i / c->ny] + i % c->ny * in->row;
  const arb_dense_epilogue e = {.bias = c->layer.bias, .residual = j->add ? j->out : NULL, .ldr = j->ldo};
  const arb_dense_matrix w = weights(c, j->skip);
  arb_dense_device *const d = j->ops->device;
  ARB_OPS_ON_DEVICE(j->ops, d->product(d, &x, (int64_t)h * j->w, &w, &e, j->out, j->ldo));
}

void arb_wan_convolve(arb_ops *ops, const arb_wan_conv *c, const arb_wan_input *in, int h, int w, float *out, int64_t ldo,
                      bool add) {
  job j = {.ops = ops, .c = c, .in = in, .pixels = (int64_t)h * w, .ldo = ldo, .w = w, .out = out, .add = add};
  j.panels = arb_dense_panels(c->cout);
  j.chunks = (j.pixels + ARB_DENSE_ROWS - 1) / ARB_DENSE_ROWS;
  while (in->frame[j.skip] == NULL) j.skip++;
  if (ops->device)
    on_device(&j, h);
  else
    arb_ops_each(ops, convolve, &j, j.panels * j.chunks);
}
