#include "src/sidecar/wan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/sidecar/wan_impl.h"

static const float latent_mean[ARB_WAN_CHANNELS] = {-0.7571f, -0.7089f, -0.9113f, 0.1075f,  -0.1745f, 0.9653f,
                                                    -0.1517f, 1.5508f,  0.4134f,  -0.0715f, 0.5517f,  -0.3632f,
                                                    -0.1922f, -0.9497f, 0.2503f,  -0.2921f};
static const float latent_deviation[ARB_WAN_CHANNELS] = {2.8184f, 1.4541f, 2.3275f, 2.6558f, 1.2196f, 1.7708f,
                                                         2.6052f, 2.0743f, 3.2687f, 2.1526f, 2.8652f, 1.5579f,
                                                         1.6382f, 1.1253f, 2.8251f, 1.9160f};

struct arb_wan {
  arb_wan_model model;
  arb_sidecar_block block;
  arb_sidecar_options options;
  arb_ops ops;
  float *memory; /* of the stream, where it runs; kept for the next clip */
  size_t bytes;
};

arb_status arb_wan_open(const char *path, const arb_sidecar_options *o, arb_wan **out) {
  *out = NULL;
  arb_wan *v = calloc(1, sizeof *v);
  ARB_REQUIRE(v, ARB_ERR_NOMEM, "out of host memory");
  arb_wan_model_init(&v->model);
  v->options = *o;
  arb_status st = arb_sidecar_block_open(path, o, "wan-2.1-vae", "", "", "decoder.middle.0.residual.0.gamma",
                                         arb_wan_model_walk, &v->model, &v->block);
  if (st == ARB_OK) st = arb_ops_create(&v->options, 3 * ARB_WAN_WIDEST, 0, &v->ops);
  if (st == ARB_OK) st = arb_sidecar_block_move(&v->block, v->ops.device, o, arb_wan_model_walk, &v->model);
  if (st == ARB_OK)
    *out = v;
  else
    arb_wan_destroy(&v);
  return st;
}

void arb_wan_destroy(arb_wan **v) {
  if (*v == NULL) return;
  arb_ops_free(&(*v)->ops, (*v)->memory);
  arb_sidecar_block_close(&(*v)->block);
  arb_ops_destroy(&(*v)->ops);
  free(*v);
  *v = NULL;
}

const arb_sidecar_report *arb_wan_report(const arb_wan *v) { return &v->block.report; }

/* ---- a clip ---- */

static arb_status start(arb_wan *v, int side, int64_t t, int64_t h, int64_t w, arb_wan_sink sink, void *arg,
                        arb_wan_stream *s) {
  const int64_t pixels = side == ARB_WAN_ENCODER ? h * w / (ARB_WAN_SCALE * ARB_WAN_SCALE) : h * w;
  memset(s, 0, sizeof *s);
  s->ops = &v->ops;
  s->half = &v->model.half[side];
  s->side = side;
  s->h = (int)h;
  s->w = (int)w;
  s->still = t == 1;
  s->sink = sink;
  s->sink_arg = arg;
  s->probe = v->options.probe;
  s->probe_arg = v->options.probe_arg;
  ARB_TRY(arb_ops_reserve(&v->ops, 3 * ARB_WAN_WIDEST, pixels));
  arb_arena arena;
  arb_arena_measure(&arena, "wan-2.1-vae activations");
  arb_wan_stream_take(s, &arena);
  if (arena.used > v->bytes) {
    arb_ops_free(&v->ops, v->memory);
    v->bytes = 0;
    const arb_status st = arb_ops_alloc(&v->ops, (int64_t)((arena.used + sizeof(float) - 1) / sizeof(float)), &v->memory);
    if (st != ARB_OK)
      arb_fail_context("%.0f MB of activations for frames of %lld x %lld", (double)arena.used * 1e-6,
                       (long long)(side == ARB_WAN_ENCODER ? w : w * ARB_WAN_SCALE),
                       (long long)(side == ARB_WAN_ENCODER ? h : h * ARB_WAN_SCALE));
    ARB_TRY(st);
    v->bytes = arena.used;
  }
  arb_arena_assign(&arena, "wan-2.1-vae activations", v->memory, v->bytes);
  arb_wan_stream_take(s, &arena);
  return arb_arena_check(&arena);
}

/* What the stream's operations came to. */
static arb_status end(arb_wan *v) {
  v->block.report.work_bytes = (int64_t)v->bytes + arb_ops_bytes(&v->ops);
  return arb_ops_status(&v->ops);
}

typedef struct {
  int64_t done, frames, pixels; /* frames out so far, in all; pixels of one */
  arb_wan_form form;
  bool clamp;
  float *out, *log_variance;
} collector;

static void collect_latent(void *arg, const float *x, int64_t ld) {
  collector *const k = arg;
  for (int c = 0; c < ARB_WAN_CHANNELS; c++) {
    const int64_t at = (c * k->frames + k->done) * k->pixels;
    for (int64_t p = 0; p < k->pixels; p++) {
      const float mean = x[p * ld + c], log_variance = x[p * ld + ARB_WAN_CHANNELS + c];
      k->out[at + p] = k->form == ARB_WAN_NORMALISED ? (mean - latent_mean[c]) / latent_deviation[c] : mean;
      if (k->log_variance) k->log_variance[at + p] = fminf(fmaxf(log_variance, -30.0f), 20.0f);
    }
  }
  k->done++;
}

arb_status arb_wan_check_clip(int64_t t, int64_t h, int64_t w) {
  ARB_REQUIRE(t >= 1 && t <= ARB_WAN_LONGEST && (t - 1) % ARB_WAN_FRAMES == 0, ARB_ERR_DATA,
              "a clip of %lld frames; the video VAE takes 1, 5, 9, ... (1 + 4 k, at most %d)", (long long)t, ARB_WAN_LONGEST);
  ARB_REQUIRE(h >= ARB_WAN_SCALE && w >= ARB_WAN_SCALE && h % ARB_WAN_SCALE == 0 && w % ARB_WAN_SCALE == 0 &&
                  h <= ARB_WAN_SIDE && w <= ARB_WAN_SIDE,
              ARB_ERR_DATA, "frames of %lld x %lld pixels; the video VAE takes multiples of %d up to %d", (long long)w,
              (long long)h, ARB_WAN_SCALE, ARB_WAN_SIDE);
  return ARB_OK;
}

arb_status arb_wan_encode(arb_wan *v, const float *frames, int64_t t, int64_t h, int64_t w, arb_wan_form form, float *latent,
                          float *log_variance) {
  ARB_TRY(arb_wan_check_clip(t, h, w));
  ARB_TRY(arb_ops_finite(frames, 3 * t * h * w, "frames"));
  const int64_t pixels = h * w;
  collector k = {.frames = 1 + (t - 1) / ARB_WAN_FRAMES,
                 .pixels = pixels / (ARB_WAN_SCALE * ARB_WAN_SCALE),
                 .form = form,
                 .out = latent,
                 .log_variance = log_variance};
  arb_wan_stream s;
  ARB_TRY(start(v, ARB_WAN_ENCODER, t, h, w, collect_latent, &k, &s));
  for (int64_t f = 0; f < t; f++) {
    float *const to = arb_ops_host(&v->ops, s.pixels, 3 * pixels);
    if (to == NULL) break;
    for (int c = 0; c < 3; c++)
      for (int64_t p = 0; p < pixels; p++) to[p * 3 + c] = frames[(c * t + f) * pixels + p];
    arb_ops_sent(&v->ops, s.pixels, 3 * pixels);
    arb_wan_stream_push(&s);
  }
  ARB_TRY(end(v));
  return arb_ops_finite(latent, ARB_WAN_CHANNELS * k.frames * k.pixels, "latent");
}

static void collect_frame(void *arg, const float *x, int64_t ld) {
  collector *const k = arg;
  for (int c = 0; c < 3; c++) {
    float *const out = k->out + (c * k->frames + k->done) * k->pixels;
    for (int64_t p = 0; p < k->pixels; p++) {
      const float y = x[p * ld + c];
      out[p] = k->clamp && y < -1.0f ? -1.0f : k->clamp && y > 1.0f ? 1.0f : y;
    }
  }
  k->done++;
}

arb_status arb_wan_decode(arb_wan *v, const float *latent, int64_t t, int64_t h, int64_t w, arb_wan_form form, bool clamp,
                          float *frames) {
  const int64_t longest = 1 + (ARB_WAN_LONGEST - 1) / ARB_WAN_FRAMES, side = ARB_WAN_SIDE / ARB_WAN_SCALE;
  ARB_REQUIRE(t >= 1 && t <= longest && h >= 1 && w >= 1 && h <= side && w <= side, ARB_ERR_DATA,
              "a latent of %lld frames of %lld x %lld; the video VAE takes 1 to %lld frames of 1 to %lld each way",
              (long long)t, (long long)w, (long long)h, (long long)longest, (long long)side);
  const int64_t pixels = h * w;
  ARB_TRY(arb_ops_finite(latent, ARB_WAN_CHANNELS * t * pixels, "latent"));
  collector k = {
      .frames = 1 + ARB_WAN_FRAMES * (t - 1), .pixels = pixels * ARB_WAN_SCALE * ARB_WAN_SCALE, .clamp = clamp, .out = frames};
  arb_wan_stream s;
  ARB_TRY(start(v, ARB_WAN_DECODER, t, h, w, collect_frame, &k, &s));
  for (int64_t f = 0; f < t; f++) {
    float *const to = arb_ops_host(&v->ops, s.pixels, ARB_WAN_CHANNELS * pixels);
    if (to == NULL) break;
    for (int c = 0; c < ARB_WAN_CHANNELS; c++)
      for (int64_t p = 0; p < pixels; p++) {
        const float z = latent[(c * t + f) * pixels + p];
        to[p * ARB_WAN_CHANNELS + c] = form == ARB_WAN_NORMALISED ? z * latent_deviation[c] + latent_mean[c] : z;
      }
    arb_ops_sent(&v->ops, s.pixels, ARB_WAN_CHANNELS * pixels);
    arb_wan_stream_push(&s);
  }
  ARB_TRY(end(v));
  return arb_ops_finite(frames, 3 * k.frames * k.pixels, "decoded frames");
}
