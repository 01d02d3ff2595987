/* Inside of the video VAE: its steps and their weights, and the stream of frames through them. */
#ifndef ARB_SRC_SIDECAR_WAN_IMPL_H
#define ARB_SRC_SIDECAR_WAN_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/arena.h"
#include "src/sidecar/ops.h"
#include "src/sidecar/store.h"

enum { ARB_WAN_NAME = 96, ARB_WAN_STEPS = 18, ARB_WAN_WIDEST = 384 };

/* A convolution of nt x ny x nx taps. rank 5: a Conv3d; 4: a Conv2d, nt = 1. The taps of one (kt, ky) are one contiguous run of
 * nx * cin inputs, in the weights as in a row of pixels. */
typedef struct {
  int cin, cout, rank, nt, ny, nx;
  arb_sidecar_layer layer;
  char name[2][ARB_WAN_NAME]; /* without ".weight": in the original file and in diffusers' */
} arb_wan_conv;

/* The gain of an RMS norm over c channels: (c,1,1,1) in the file, or (c,1,1). */
typedef struct {
  int c, rank;
  const float *gamma;
  char name[2][ARB_WAN_NAME];
} arb_wan_gain;

typedef enum {
  ARB_WAN_RES,   /* x, or a 1 x 1 x 1 shortcut of it, plus conv(SiLU(RMS(conv(SiLU(RMS(x)))))) */
  ARB_WAN_ATTN,  /* one head over the pixels of a frame */
  ARB_WAN_DOWN2, /* half as high and wide */
  ARB_WAN_DOWN3, /* and one frame of two, after the first */
  ARB_WAN_UP2,   /* twice as high and wide */
  ARB_WAN_UP3    /* and two frames of one, after the first */
} arb_wan_kind;

typedef struct {
  arb_wan_kind kind;
  int cin, cout, gains, convs;
  char name[ARB_WAN_NAME]; /* in the original file */
  arb_wan_gain gain[2];    /* RES: before each convolution; ATTN: one */
  arb_wan_conv conv[3];    /* RES: first, second, shortcut where cin != cout; ATTN: qkv, projection; others: spatial, time */
} arb_wan_step;

enum { ARB_WAN_ENCODER, ARB_WAN_DECODER, ARB_WAN_HALVES };

/* First convolution, steps, head (RMS, SiLU, convolution), and the 1 x 1 x 1 convolution on the side of the latent. */
typedef struct {
  arb_wan_conv in, head, latent;
  arb_wan_gain head_gain;
  arb_wan_step step[ARB_WAN_STEPS];
  int steps;
} arb_wan_half;

typedef struct {
  arb_wan_half half[ARB_WAN_HALVES];
} arb_wan_model;

/* Shapes and names. */
void arb_wan_model_init(arb_wan_model *m);
/* An arb_sidecar_walk: every tensor once, encoder first. 61 Conv3d, 10 Conv2d, 52 gains. */
ARB_NODISCARD arb_status arb_wan_model_walk(void *model, arb_sidecar_store *s);

/* How a convolution reads its input: frame[kt] points at channel 0 of tap (0, 0) of output pixel (0, 0); NULL for a frame of
 * zeros, which can only be the first ones. */
typedef struct {
  const float *frame[3];
  int64_t row, pixel; /* floats from one input row, pixel to the next; pixel = cin if nx > 1 */
  int stride;         /* input pixels for an output pixel, both ways */
} arb_wan_input;

/* out[y][x][0 .. cout) = sum + bias, added to what is there if `add`; ldo floats a pixel. */
void arb_wan_convolve(arb_ops *ops, const arb_wan_conv *c, const arb_wan_input *in, int h, int w, float *out, int64_t ldo,
                      bool add);

/* A frame with a border of one zero pixel, [h + 2][w + 2][c], from pixels x[h][w] of ldx floats. Both write all of it. gain:
 * RMS norm and SiLU on the way; NULL: copied. */
void arb_wan_frame(arb_ops *ops, const float *x, int64_t ldx, int h, int w, int c, const arb_wan_gain *gain, float *frame);
/* The same with every pixel doubled both ways, [2 h + 2][2 w + 2][c]. */
void arb_wan_frame_doubled(arb_ops *ops, const float *x, int64_t ldx, int h, int w, int c, float *frame);
/* y[n][c] = RMS norm of x[n][c] */
void arb_wan_norm(arb_ops *ops, const float *x, int64_t n, const arb_wan_gain *gain, float *y);

/* The last three input frames of a causal convolution. */
typedef struct {
  float *slot[3];
  int64_t seen;
} arb_wan_ring;

typedef struct {
  int h, w;             /* of its input */
  arb_wan_ring ring[2]; /* RES: bordered inputs of both convolutions; DOWN3, UP3: bare inputs of the time convolution */
  int64_t frames;       /* DOWN3, UP3: that entered */
  float *out;           /* where the step makes a new frame: [h'][w'][cout] */
  float *timed;         /* UP3: [h][w][2 cin] */
} arb_wan_state;

/* A frame that comes out, in the host's memory: pixels [h][w] of ld floats, the first 32 (encoder) or 3 (decoder) of which
 * count. */
typedef void (*arb_wan_sink)(void *arg, const float *x, int64_t ld);

/* One clip on its way through a half, a frame at a time and depth first. What a step keeps is the frames that its causal
 * convolutions look back on (the "feature cache" of the original), so memory does not grow with the length of the clip, and a
 * frame that comes out depends on no later frame that goes in. */
typedef struct {
  arb_ops *ops;
  const arb_wan_half *half;
  int side;   /* ARB_WAN_ENCODER or ARB_WAN_DECODER */
  int h, w;   /* of frames that go in */
  bool still; /* one frame alone: nothing to look back on */
  arb_wan_ring first, last;
  arb_wan_state state[ARB_WAN_STEPS];
  float *pixels;                   /* [h][w][3 or 16]: what goes in, sent by the caller before each push */
  float *latent, *opened, *closed; /* outputs of the outer convolutions */
  float *scratch;                  /* the largest bordered frame */
  float *work;                     /* the largest bare frame in a residual block */
  float *normed, *qkv, *keys;      /* of attention */
  arb_wan_sink sink;
  void *sink_arg;
  arb_sidecar_probe probe; /* NULL, or told what leaves the first convolution and the residual blocks */
  void *probe_arg;
} arb_wan_stream;

/* Memory of a clip, from the arena. ops, half, side, h, w and still are set; everything else is. */
void arb_wan_stream_take(arb_wan_stream *s, arb_arena *arena);
/* Takes s->pixels; the sink gets every frame that is complete by it, unless an operation failed (arb_ops_status). */
void arb_wan_stream_push(arb_wan_stream *s);

#endif
