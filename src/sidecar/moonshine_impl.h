/* Private to src/sidecar: what Moonshine's encoder and decoder share. */
#ifndef ARB_SRC_SIDECAR_MOONSHINE_IMPL_H
#define ARB_SRC_SIDECAR_MOONSHINE_IMPL_H

#include "src/sidecar/ops.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/store.h"

enum {
  ARB_MOON_WIDTH = ARB_MOONSHINE_WIDTH,
  ARB_MOON_LAYERS = 8, /* of either half */
  ARB_MOON_HEADS = 8,
  ARB_MOON_HEAD = ARB_MOON_WIDTH / ARB_MOON_HEADS, /* 52 */
  ARB_MOON_ROTATED = 32,                           /* dimensions of a head that carry the position */
  ARB_MOON_HIDDEN = 4 * ARB_MOON_WIDTH
};
#define ARB_MOON_EPSILON 1e-5f
#define ARB_MOON_SCALE 0x1.1c01aap-3f /* 1 / sqrt(52) */

typedef struct {
  const float *norm1, *norm2;
  arb_sidecar_layer qkv, o, fc1, fc2;
} arb_moon_encoder_layer;

typedef struct {
  const float *norm1, *norm2, *norm3;
  arb_sidecar_layer qkv, o, cross_q, cross_kv, cross_o, fc1, fc2;
  arb_kv self, cross;
} arb_moon_decoder_layer;

/* Memory for activations; what it holds is placed anew for every input. */
typedef struct {
  float *memory;
  int64_t floats;
} arb_moon_room;

struct arb_moonshine {
  arb_sidecar_block block;
  arb_ops ops;
  arb_sidecar_probe probe;
  void *probe_arg;
  bool has_decoder;
  float frequency[ARB_MOON_ROTATED / 2]; /* radians a position */
  float *turns;                          /* [positions][2][ARB_MOON_ROTATED / 2]: cosines, sines */
  int64_t positions;

  arb_sidecar_layer conv1, conv2, conv3;
  const float *group_weight, *group_bias, *encoder_norm;
  arb_moon_encoder_layer encoder[ARB_MOON_LAYERS];
  arb_moon_room encoder_room;

  arb_sidecar_layer table; /* token embeddings, and the output layer */
  const float *decoder_norm;
  arb_moon_decoder_layer decoder[ARB_MOON_LAYERS];
  arb_moon_room decoder_room;
  float *h, *a, *qkv, *hidden, *gated, *logits; /* in decoder_room; logits on a device alone */
};

/* A part of a planned room: where its pointer goes, and its size. */
typedef struct {
  float **to;
  int64_t floats;
} arb_moon_part;

/* Makes the room hold the parts, each at a multiple of 64 bytes; what it held is gone. */
ARB_NODISCARD arb_status arb_moon_place(arb_moonshine *m, arb_moon_room *room, const arb_moon_part *parts, int count);
/* Turns for positions below `count`. */
ARB_NODISCARD arb_status arb_moon_positions(arb_moonshine *m, int64_t count);

ARB_NODISCARD arb_status arb_moon_walk_decoder(arb_moonshine *m, arb_sidecar_store *s);
/* "model.HALF.layers.INDEX.PART" */
void arb_moon_name(char *out, const char *half, int index, const char *part);
/* One weight-only norm of that name. */
ARB_NODISCARD arb_status arb_moon_norm(arb_sidecar_store *s, const char *name, const float **out);
/* Rotary positions (Su et al. 2021, arXiv:2104.09864), neighbouring dimensions paired: rows x[rows][ld] at positions first,
 * first + 1, ... (arb_moon_positions) turned in every head of the two halves [0, 416) and [416, 832): queries and keys. */
void arb_moon_rotate(arb_moonshine *m, float *x, int64_t ld, int64_t rows, int64_t first);
void arb_moon_probe(arb_moonshine *m, const char *name, const float *x, int64_t rows, int64_t width);

#endif
