/* DINOv2-small (Oquab et al. 2023): a vision transformer on 16 x 16 patches of 14 x 14 pixels. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/sidecar/hub.h"
#include "src/sidecar/ops.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/store.h"

enum {
  WIDTH = ARB_DINO_WIDTH,
  LAYERS = 12,
  HEADS = 6,
  HEAD = WIDTH / HEADS,
  HIDDEN = 4 * WIDTH,
  PATCH = 14,
  GRID = ARB_DINO_SIDE / PATCH, /* patches a side */
  TRAINED = 37,                 /* patches a side of the stored positions */
  TOKENS = ARB_DINO_PATCHES + 1,
  PIXELS = 3 * PATCH * PATCH,
  /* Rows a little apart from a power of two, so that neighbouring rows fall into different sets of the cache. */
  LD = WIDTH + 16,
  LD_QKV = 3 * WIDTH + 16,
  LD_HIDDEN = HIDDEN + 16
};
static const float EPSILON = 1e-6f;

typedef struct {
  const float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias, *scale1, *scale2;
  arb_sidecar_layer qkv, dense, fc1, fc2;
} layer;

struct arb_dino {
  arb_sidecar_block block;
  arb_ops ops;
  arb_sidecar_probe probe;
  void *probe_arg;
  bool old_positions;
  const float *first;     /* [384]: class token + its position */
  const float *positions; /* [256][384] */
  const float *norm_weight, *norm_bias;
  arb_sidecar_layer patch;
  layer layers[LAYERS];
  arb_kv kv;
  float *work, *patches, *h, *a, *qkv, *hidden;
  int64_t work_floats;
};

/* Weights of the four neighbours of a point that lies t after the second one: cubic convolution with a = -3/4 (Keys 1981). */
static void cubic(float t, float w[4]) {
  const float a = -0.75f, near[2] = {t, 1.0f - t}, far[2] = {1.0f + t, 2.0f - t};
  for (int i = 0; i < 2; i++) {
    w[1 + i] = ((a + 2.0f) * near[i] - (a + 3.0f)) * near[i] * near[i] + 1.0f;
    w[3 * i] = ((a * far[i] - 5.0f * a) * far[i] + 8.0f * a) * far[i] - 4.0f * a;
  }
}

/* The 37 x 37 map of positions at 16 x 16 points, without a low-pass filter, as the model was run when it was published. */
static void interpolate(const float *map, float ratio, float *out) {
  int tap[GRID][4];
  float w[GRID][4];
  for (int o = 0; o < GRID; o++) {
    const float at = ((float)o + 0.5f) * ratio - 0.5f, low = floorf(at);
    cubic(at - low, w[o]);
    for (int i = 0; i < 4; i++) {
      const int p = (int)low - 1 + i;
      tap[o][i] = p < 0 ? 0 : p >= TRAINED ? TRAINED - 1 : p;
    }
  }
  for (int y = 0; y < GRID; y++)
    for (int x = 0; x < GRID; x++)
      for (int c = 0; c < WIDTH; c++) {
        float sum = 0.0f;
        for (int i = 0; i < 4; i++) {
          const float *row = map + (int64_t)tap[y][i] * TRAINED * WIDTH + c;
          float along = 0.0f;
          for (int j = 0; j < 4; j++) along += w[x][j] * row[tap[x][j] * WIDTH];
          sum += w[y][i] * along;
        }
        out[((int64_t)y * GRID + x) * WIDTH + c] = sum;
      }
}

static arb_status walk_embeddings(arb_dino *d, arb_sidecar_store *s) {
  const int64_t token[3] = {1, 1, WIDTH}, mask[2] = {1, WIDTH}, stored[3] = {1, 1 + TRAINED * TRAINED, WIDTH};
  const int64_t kernel[2] = {PATCH, PATCH}, all = stored[1] * WIDTH;
  float *first = arb_store_floats(s, ARB_SIDECAR_OTHER, WIDTH);
  float *positions = arb_store_floats(s, ARB_SIDECAR_OTHER, (int64_t)GRID * GRID * WIDTH);
  d->first = first;
  d->positions = positions;
  if (s->arena.base == NULL && s->work_floats < all) s->work_floats = all;
  ARB_TRY(arb_store_read(s, ARB_SIDECAR_OTHER, "embeddings.mask_token", 2, mask, s->work)); /* only training uses it */
  ARB_TRY(arb_store_read(s, ARB_SIDECAR_OTHER, "embeddings.cls_token", 3, token, first));
  ARB_TRY(arb_store_read(s, ARB_SIDECAR_OTHER, "embeddings.position_embeddings", 3, stored, s->work));
  if (s->source && s->work) {
    for (int i = 0; i < WIDTH; i++) first[i] += s->work[i];
    interpolate(s->work + WIDTH, d->old_positions ? 37.0f / 16.1f : 37.0f / 16.0f, positions);
  }
  return arb_store_conv(s, "embeddings.patch_embeddings.projection", WIDTH, 3, 2, kernel, true, &d->patch);
}

static arb_status walk_layer(int index, layer *l, arb_sidecar_store *s) {
  char q[ARB_STORE_NAME], k[ARB_STORE_NAME], v[ARB_STORE_NAME], name[ARB_STORE_NAME];
  const char *const qkv[3] = {q, k, v}, *const one[1] = {name};
  const int64_t width = WIDTH;
  const struct {
    const char *name;
    const float **to;
  } vectors[] = {{"norm1.weight", &l->norm1_weight},   {"norm1.bias", &l->norm1_bias},
                 {"norm2.weight", &l->norm2_weight},   {"norm2.bias", &l->norm2_bias},
                 {"layer_scale1.lambda1", &l->scale1}, {"layer_scale2.lambda1", &l->scale2}};
  for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
    snprintf(name, sizeof name, "encoder.layer.%d.%s", index, vectors[i].name);
    ARB_TRY(arb_store_vector(s, ARB_SIDECAR_NORM, name, 1, &width, vectors[i].to));
  }
  snprintf(q, sizeof q, "encoder.layer.%d.attention.attention.query", index);
  snprintf(k, sizeof k, "encoder.layer.%d.attention.attention.key", index);
  snprintf(v, sizeof v, "encoder.layer.%d.attention.attention.value", index);
  ARB_TRY(arb_store_linear(s, qkv, 3, WIDTH, WIDTH, true, &l->qkv));
  snprintf(name, sizeof name, "encoder.layer.%d.attention.output.dense", index);
  ARB_TRY(arb_store_linear(s, one, 1, WIDTH, WIDTH, true, &l->dense));
  snprintf(name, sizeof name, "encoder.layer.%d.mlp.fc1", index);
  ARB_TRY(arb_store_linear(s, one, 1, HIDDEN, WIDTH, true, &l->fc1));
  snprintf(name, sizeof name, "encoder.layer.%d.mlp.fc2", index);
  return arb_store_linear(s, one, 1, WIDTH, HIDDEN, true, &l->fc2);
}

static arb_status walk(void *model, arb_sidecar_store *s) {
  static const arb_hub_rule rules[] = {{"model_type", "dinov2", 0},
                                       {"hidden_act", "gelu", 0},
                                       {"hidden_size", NULL, WIDTH},
                                       {"num_hidden_layers", NULL, LAYERS},
                                       {"num_attention_heads", NULL, HEADS},
                                       {"mlp_ratio", NULL, 4},
                                       {"layer_norm_eps", NULL, 1e-6},
                                       {"image_size", NULL, 518},
                                       {"patch_size", NULL, PATCH},
                                       {"num_channels", NULL, 3},
                                       {"qkv_bias", NULL, 1},
                                       {"use_swiglu_ffn", NULL, 0}};
  arb_dino *d = model;
  const int64_t width = WIDTH;
  if (s->source && s->source->close) /* a file */
    ARB_TRY(arb_hub_check(s->source->name, "DINOv2-small", rules, (int)(sizeof rules / sizeof rules[0])));
  ARB_TRY(walk_embeddings(d, s));
  for (int i = 0; i < LAYERS; i++) ARB_TRY(walk_layer(i, &d->layers[i], s));
  ARB_TRY(arb_store_vector(s, ARB_SIDECAR_NORM, "layernorm.weight", 1, &width, &d->norm_weight));
  return arb_store_vector(s, ARB_SIDECAR_NORM, "layernorm.bias", 1, &width, &d->norm_bias);
}

static arb_status make_work(arb_dino *d) {
  const int64_t parts[] = {(int64_t)ARB_DINO_PATCHES * PIXELS, (int64_t)TOKENS * WIDTH,     (int64_t)TOKENS * LD,
                           (int64_t)TOKENS * LD_QKV,           (int64_t)TOKENS * LD_HIDDEN, arb_kv_floats(HEADS, HEAD, TOKENS)};
  float **const to[] = {&d->patches, &d->h, &d->a, &d->qkv, &d->hidden, NULL};
  int64_t all = 0;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) all += (parts[i] + 15) / 16 * 16;
  ARB_TRY(arb_ops_alloc(&d->ops, all, &d->work));
  d->work_floats = all;
  float *at = d->work;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    if (to[i])
      *to[i] = at;
    else
      arb_kv_place(&d->kv, HEADS, HEAD, TOKENS, at);
    at += (parts[i] + 15) / 16 * 16;
  }
  d->block.report.work_bytes = all * (int64_t)sizeof *d->work + arb_ops_bytes(&d->ops);
  return ARB_OK;
}

arb_status arb_dino_open(const char *path, const arb_sidecar_options *o, arb_dino **out) {
  *out = NULL;
  arb_dino *d = calloc(1, sizeof *d);
  ARB_REQUIRE(d, ARB_ERR_NOMEM, "out of host memory");
  d->probe = o->probe;
  d->probe_arg = o->probe_arg;
  d->old_positions = o->old_positions;
  arb_status st = arb_sidecar_block_open(path, o, "dinov2-small", "", "dinov2.", "embeddings.cls_token", walk, d, &d->block);
  if (st == ARB_OK) st = arb_ops_create(o, HIDDEN, TOKENS, &d->ops);
  if (st == ARB_OK) st = arb_sidecar_block_move(&d->block, d->ops.device, o, walk, d);
  if (st == ARB_OK) st = make_work(d);
  if (st != ARB_OK) {
    arb_dino_destroy(&d);
    return st;
  }
  *out = d;
  return ARB_OK;
}

static void report_probe(arb_dino *d, const char *name, const float *x, int64_t rows) {
  const float *seen = d->probe ? arb_ops_read(&d->ops, x, rows * WIDTH) : NULL;
  if (seen) d->probe(d->probe_arg, name, seen, rows, WIDTH);
}

/* The pixels of every patch, [256][14][14][3]: the order of the weights. */
static void gather(const float *pixels, float *out) {
  const int64_t plane = (int64_t)ARB_DINO_SIDE * ARB_DINO_SIDE;
  for (int64_t p = 0; p < ARB_DINO_PATCHES; p++)
    for (int64_t t = 0; t < PATCH * PATCH; t++) {
      const int64_t y = p / GRID * PATCH + t / PATCH, x = p % GRID * PATCH + t % PATCH;
      for (int64_t c = 0; c < 3; c++) out[p * PIXELS + t * 3 + c] = pixels[c * plane + y * ARB_DINO_SIDE + x];
    }
}

static void run_layer(arb_dino *d, const layer *l) {
  arb_ops *ops = &d->ops;
  const arb_dense_epilogue gelu = {.act = ARB_DENSE_GELU};
  const arb_dense_epilogue add1 = {.residual = d->h, .ldr = WIDTH, .gain = l->scale1};
  const arb_dense_epilogue add2 = {.residual = d->h, .ldr = WIDTH, .gain = l->scale2};
  arb_ops_layer_norm(ops, d->h, WIDTH, TOKENS, WIDTH, l->norm1_weight, l->norm1_bias, EPSILON, d->a, LD);
  arb_ops_linear(ops, d->a, LD, TOKENS, &l->qkv, NULL, d->qkv, LD_QKV);
  d->kv.count = 0;
  arb_ops_append(ops, &d->kv, d->qkv + WIDTH, LD_QKV, d->qkv + 2 * WIDTH, LD_QKV, TOKENS);
  arb_ops_attend(ops, &d->kv, d->qkv, LD_QKV, TOKENS, 0.125f, false, d->a, LD);
  arb_ops_linear(ops, d->a, LD, TOKENS, &l->dense, &add1, d->h, WIDTH);
  arb_ops_layer_norm(ops, d->h, WIDTH, TOKENS, WIDTH, l->norm2_weight, l->norm2_bias, EPSILON, d->a, LD);
  arb_ops_linear(ops, d->a, LD, TOKENS, &l->fc1, &gelu, d->hidden, LD_HIDDEN);
  arb_ops_linear(ops, d->hidden, LD_HIDDEN, TOKENS, &l->fc2, &add2, d->h, WIDTH);
}

/* Leaves the normalised last hidden state in d->a, [257] rows of stride LD. */
static arb_status run(arb_dino *d, const float *pixels) {
  const arb_dense_epilogue at_place = {.residual = d->positions, .ldr = WIDTH};
  const arb_dense_input patches = {.x = d->patches, .ld = PIXELS, .taps = 1, .depth = PIXELS};
  ARB_TRY(arb_ops_finite(pixels, 3 * (int64_t)ARB_DINO_SIDE * ARB_DINO_SIDE, "pixels"));
  float *gathered = arb_ops_host(&d->ops, d->patches, (int64_t)ARB_DINO_PATCHES * PIXELS);
  if (gathered == NULL) return arb_ops_status(&d->ops);
  gather(pixels, gathered);
  arb_ops_sent(&d->ops, d->patches, (int64_t)ARB_DINO_PATCHES * PIXELS);
  arb_ops_copy(&d->ops, d->h, d->first, WIDTH);
  arb_ops_product(&d->ops, &patches, ARB_DINO_PATCHES, &d->patch, &at_place, d->h + WIDTH, WIDTH);
  report_probe(d, "embeddings", d->h, TOKENS);
  for (int i = 0; i < LAYERS; i++) {
    char name[32];
    run_layer(d, &d->layers[i]);
    snprintf(name, sizeof name, "layer %d", i);
    report_probe(d, name, d->h, TOKENS);
  }
  arb_ops_layer_norm(&d->ops, d->h, WIDTH, TOKENS, WIDTH, d->norm_weight, d->norm_bias, EPSILON, d->a, LD);
  return ARB_OK;
}

static arb_status copy_rows(arb_dino *d, int64_t first, float *out) {
  ARB_TRY(arb_ops_get(&d->ops, d->a + first * LD, LD, TOKENS - first, WIDTH, out));
  d->block.report.work_bytes = d->work_floats * (int64_t)sizeof *d->work + arb_ops_bytes(&d->ops);
  return arb_ops_finite(out, (TOKENS - first) * WIDTH, "image features");
}

arb_status arb_dino_features(arb_dino *d, const float *pixels, float *out) {
  ARB_TRY(run(d, pixels));
  return copy_rows(d, 1, out);
}

arb_status arb_dino_hidden(arb_dino *d, const float *pixels, float *out) {
  ARB_TRY(run(d, pixels));
  return copy_rows(d, 0, out);
}

const arb_sidecar_report *arb_dino_report(const arb_dino *d) { return &d->block.report; }

void arb_dino_destroy(arb_dino **d) {
  if (*d == NULL) return;
  arb_ops_free(&(*d)->ops, (*d)->work);
  arb_sidecar_block_close(&(*d)->block);
  arb_ops_destroy(&(*d)->ops);
  free(*d);
  *d = NULL;
}
