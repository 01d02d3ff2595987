/* Moonshine-base (Jeffries et al. 2024): three convolutions over the samples, then a transformer over frames of 24 ms. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/sidecar/hub.h"
#include "src/sidecar/moonshine_impl.h"

enum {
  WIDTH = ARB_MOON_WIDTH,
  HIDDEN = ARB_MOON_HIDDEN,
  KERNEL1 = 127,
  STRIDE1 = 64,
  KERNEL2 = 7,
  STRIDE2 = 3,
  WIDTH2 = 2 * WIDTH,
  KERNEL3 = 3,
  STRIDE3 = 2,
  LD = WIDTH + 16,
  LD_QKV = 3 * WIDTH + 16,
  LD_HIDDEN = HIDDEN + 16
};

/* ---- weights ---- */

void arb_moon_name(char *out, const char *half, int index, const char *part) {
  snprintf(out, ARB_STORE_NAME, "model.%s.layers.%d.%s", half, index, part);
}

arb_status arb_moon_norm(arb_sidecar_store *s, const char *name, const float **out) {
  const int64_t width = WIDTH;
  return arb_store_vector(s, ARB_SIDECAR_NORM, name, 1, &width, out);
}

static arb_status walk_layer(int i, arb_moon_encoder_layer *l, arb_sidecar_store *s) {
  char q[ARB_STORE_NAME], k[ARB_STORE_NAME], v[ARB_STORE_NAME], name[ARB_STORE_NAME];
  const char *const qkv[3] = {q, k, v}, *const one[1] = {name};
  arb_moon_name(name, "encoder", i, "input_layernorm.weight");
  ARB_TRY(arb_moon_norm(s, name, &l->norm1));
  arb_moon_name(name, "encoder", i, "post_attention_layernorm.weight");
  ARB_TRY(arb_moon_norm(s, name, &l->norm2));
  arb_moon_name(q, "encoder", i, "self_attn.q_proj");
  arb_moon_name(k, "encoder", i, "self_attn.k_proj");
  arb_moon_name(v, "encoder", i, "self_attn.v_proj");
  ARB_TRY(arb_store_linear(s, qkv, 3, WIDTH, WIDTH, false, &l->qkv));
  arb_moon_name(name, "encoder", i, "self_attn.o_proj");
  ARB_TRY(arb_store_linear(s, one, 1, WIDTH, WIDTH, false, &l->o));
  arb_moon_name(name, "encoder", i, "mlp.fc1");
  ARB_TRY(arb_store_linear(s, one, 1, HIDDEN, WIDTH, true, &l->fc1));
  arb_moon_name(name, "encoder", i, "mlp.fc2");
  return arb_store_linear(s, one, 1, WIDTH, HIDDEN, true, &l->fc2);
}

static arb_status walk(void *model, arb_sidecar_store *s) {
  static const arb_hub_rule rules[] = {{"model_type", "moonshine", 0},
                                       {"encoder_hidden_act", "gelu", 0},
                                       {"decoder_hidden_act", "silu", 0},
                                       {"rope_type", "default", 0},
                                       {"hidden_size", NULL, WIDTH},
                                       {"intermediate_size", NULL, HIDDEN},
                                       {"vocab_size", NULL, ARB_MOONSHINE_VOCABULARY},
                                       {"encoder_num_hidden_layers", NULL, ARB_MOON_LAYERS},
                                       {"decoder_num_hidden_layers", NULL, ARB_MOON_LAYERS},
                                       {"encoder_num_attention_heads", NULL, ARB_MOON_HEADS},
                                       {"decoder_num_attention_heads", NULL, ARB_MOON_HEADS},
                                       {"encoder_num_key_value_heads", NULL, ARB_MOON_HEADS},
                                       {"decoder_num_key_value_heads", NULL, ARB_MOON_HEADS},
                                       {"attention_bias", NULL, 0},
                                       {"partial_rotary_factor", NULL, 0.62},
                                       {"rope_theta", NULL, 10000}};
  arb_moonshine *m = model;
  if (s->source && s->source->close) /* a file */
    ARB_TRY(arb_hub_check(s->source->name, "Moonshine-base", rules, (int)(sizeof rules / sizeof rules[0])));
  const int64_t width = WIDTH, kernels[3] = {KERNEL1, KERNEL2, KERNEL3};
  ARB_TRY(arb_store_conv(s, "model.encoder.conv1", WIDTH, 1, 1, &kernels[0], false, &m->conv1));
  ARB_TRY(arb_store_conv(s, "model.encoder.conv2", WIDTH2, WIDTH, 1, &kernels[1], true, &m->conv2));
  ARB_TRY(arb_store_conv(s, "model.encoder.conv3", WIDTH, WIDTH2, 1, &kernels[2], true, &m->conv3));
  ARB_TRY(arb_moon_norm(s, "model.encoder.groupnorm.weight", &m->group_weight));
  ARB_TRY(arb_store_vector(s, ARB_SIDECAR_NORM, "model.encoder.groupnorm.bias", 1, &width, &m->group_bias));
  for (int i = 0; i < ARB_MOON_LAYERS; i++) ARB_TRY(walk_layer(i, &m->encoder[i], s));
  ARB_TRY(arb_moon_norm(s, "model.encoder.layer_norm.weight", &m->encoder_norm));
  return m->has_decoder ? arb_moon_walk_decoder(m, s) : ARB_OK;
}

arb_status arb_moonshine_open(const char *path, const arb_sidecar_options *o, arb_moonshine **out) {
  *out = NULL;
  arb_moonshine *m = calloc(1, sizeof *m);
  ARB_REQUIRE(m, ARB_ERR_NOMEM, "out of host memory");
  m->probe = o->probe;
  m->probe_arg = o->probe_arg;
  m->has_decoder = o->decoder;
  const double root = sqrt(sqrt(sqrt(sqrt(10000.0)))); /* square roots are the same on every machine */
  double power = 1.0;
  for (int i = 0; i < ARB_MOON_ROTATED / 2; i++, power *= root) m->frequency[i] = 1.0f / (float)power;
  arb_status st = arb_sidecar_block_open(path, o, o->decoder ? "moonshine-base" : "moonshine-base encoder", "model.", "",
                                         "model.encoder.conv1.weight", walk, m, &m->block);
  if (st == ARB_OK) st = arb_ops_create(o, KERNEL2 * WIDTH, 0, &m->ops);
  if (st == ARB_OK) st = arb_sidecar_block_move(&m->block, m->ops.device, o, walk, m);
  if (st != ARB_OK) {
    arb_moonshine_destroy(&m);
    return st;
  }
  *out = m;
  return ARB_OK;
}

void arb_moonshine_destroy(arb_moonshine **m) {
  if (*m == NULL) return;
  arb_ops_free(&(*m)->ops, (*m)->encoder_room.memory);
  arb_ops_free(&(*m)->ops, (*m)->decoder_room.memory);
  arb_ops_free(&(*m)->ops, (*m)->turns);
  arb_sidecar_block_close(&(*m)->block);
  arb_ops_destroy(&(*m)->ops);
  free(*m);
  *m = NULL;
}

const arb_sidecar_report *arb_moonshine_report(const arb_moonshine *m) { return &m->block.report; }

void arb_moon_probe(arb_moonshine *m, const char *name, const float *x, int64_t rows, int64_t width) {
  const float *seen = m->probe ? arb_ops_read(&m->ops, x, rows * width) : NULL;
  if (seen) m->probe(m->probe_arg, name, seen, rows, width);
}

/* ---- memory ---- */

arb_status arb_moon_place(arb_moonshine *m, arb_moon_room *room, const arb_moon_part *parts, int count) {
  int64_t all = 0;
  for (int i = 0; i < count; i++) all += (parts[i].floats + 15) / 16 * 16;
  if (all > room->floats) {
    arb_ops_free(&m->ops, room->memory);
    room->floats = 0;
    ARB_TRY(arb_ops_alloc(&m->ops, all, &room->memory));
    room->floats = all;
  }
  float *at = room->memory;
  for (int i = 0; i < count; i++) {
    *parts[i].to = at;
    at += (parts[i].floats + 15) / 16 * 16;
  }
  return ARB_OK;
}

/* ---- positions ---- */

arb_status arb_moon_positions(arb_moonshine *m, int64_t count) {
  enum { PAIRS = ARB_MOON_ROTATED / 2 };
  if (count <= m->positions) return ARB_OK;
  arb_ops_free(&m->ops, m->turns);
  m->turns = NULL;
  m->positions = 0;
  ARB_TRY(arb_ops_alloc(&m->ops, count * 2 * PAIRS, &m->turns));
  float *turns = arb_ops_host(&m->ops, m->turns, count * 2 * PAIRS);
  if (turns == NULL) return arb_ops_status(&m->ops);
  for (int64_t row = 0; row < count; row++, turns += 2 * PAIRS)
    for (int i = 0; i < PAIRS; i++) {
      const float angle = (float)row * m->frequency[i]; /* rounded to float, as the model was trained */
      turns[i] = (float)cos((double)angle);
      turns[PAIRS + i] = (float)sin((double)angle);
    }
  arb_ops_sent(&m->ops, m->turns, count * 2 * PAIRS);
  m->positions = count;
  return arb_ops_status(&m->ops);
}

void arb_moon_rotate(arb_moonshine *m, float *x, int64_t ld, int64_t rows, int64_t first) {
  arb_ops_rotate(&m->ops, x, ld, rows, 2 * ARB_MOON_HEADS, ARB_MOON_HEAD, ARB_MOON_ROTATED / 2,
                 m->turns + first * ARB_MOON_ROTATED);
}

/* ---- encoder ---- */

typedef struct {
  int64_t l1, l2, l3; /* rows after each convolution */
  float *samples, *c1, *c2, *h, *a, *qkv, *hidden, *kv_memory, *sums;
  arb_kv kv;
} encoding;

int64_t arb_moonshine_frames(int64_t n) {
  if (n < ARB_MOONSHINE_LEAST) return 0;
  const int64_t l1 = (n - KERNEL1) / STRIDE1 + 1, l2 = (l1 - KERNEL2) / STRIDE2 + 1;
  return (l2 - KERNEL3) / STRIDE3 + 1;
}

/* A convolution without padding over rows of `depth` values is a product whose rows overlap. */
static void convolve(arb_moonshine *m, const float *x, int64_t depth, int64_t stride, const arb_sidecar_layer *l,
                     arb_dense_activation act, int64_t rows, float *y) {
  const arb_dense_epilogue e = {.act = act};
  arb_ops_linear(&m->ops, x, stride * depth, rows, l, &e, y, l->w.n);
}

static void run_layer(arb_moonshine *m, const arb_moon_encoder_layer *l, encoding *e) {
  arb_ops *ops = &m->ops;
  const int64_t n = e->l3;
  const arb_dense_epilogue gelu = {.act = ARB_DENSE_GELU}, add = {.residual = e->h, .ldr = WIDTH};
  arb_ops_layer_norm(ops, e->h, WIDTH, n, WIDTH, l->norm1, NULL, ARB_MOON_EPSILON, e->a, LD);
  arb_ops_linear(ops, e->a, LD, n, &l->qkv, NULL, e->qkv, LD_QKV);
  arb_moon_rotate(m, e->qkv, LD_QKV, n, 0);
  e->kv.count = 0;
  arb_ops_append(ops, &e->kv, e->qkv + WIDTH, LD_QKV, e->qkv + 2 * WIDTH, LD_QKV, n);
  arb_ops_attend(ops, &e->kv, e->qkv, LD_QKV, n, ARB_MOON_SCALE, false, e->a, LD);
  arb_ops_linear(ops, e->a, LD, n, &l->o, &add, e->h, WIDTH);
  arb_ops_layer_norm(ops, e->h, WIDTH, n, WIDTH, l->norm2, NULL, ARB_MOON_EPSILON, e->a, LD);
  arb_ops_linear(ops, e->a, LD, n, &l->fc1, &gelu, e->hidden, LD_HIDDEN);
  arb_ops_linear(ops, e->hidden, LD_HIDDEN, n, &l->fc2, &add, e->h, WIDTH);
}

static arb_status place_encoding(arb_moonshine *m, int64_t n, encoding *e) {
  *e = (encoding){.l1 = (n - KERNEL1) / STRIDE1 + 1};
  e->l2 = (e->l1 - KERNEL2) / STRIDE2 + 1;
  e->l3 = (e->l2 - KERNEL3) / STRIDE3 + 1;
  const arb_moon_part parts[] = {{&e->samples, m->ops.device ? n : 0},
                                 {&e->c1, e->l1 * WIDTH},
                                 {&e->c2, e->l2 * WIDTH2},
                                 {&e->h, e->l3 * WIDTH},
                                 {&e->a, e->l3 * LD},
                                 {&e->qkv, e->l3 * LD_QKV},
                                 {&e->hidden, e->l3 * LD_HIDDEN},
                                 {&e->sums, e->l1},
                                 {&e->kv_memory, arb_kv_floats(ARB_MOON_HEADS, ARB_MOON_HEAD, e->l3)}};
  ARB_TRY(arb_moon_positions(m, e->l3));
  ARB_TRY(arb_moon_place(m, &m->encoder_room, parts, (int)(sizeof parts / sizeof parts[0])));
  ARB_TRY(arb_ops_reserve(&m->ops, KERNEL2 * WIDTH, e->l3));
  arb_kv_place(&e->kv, ARB_MOON_HEADS, ARB_MOON_HEAD, e->l3, e->kv_memory);
  m->block.report.work_bytes =
      (m->encoder_room.floats + m->decoder_room.floats + m->positions * ARB_MOON_ROTATED) * (int64_t)sizeof(float) +
      arb_ops_bytes(&m->ops);
  return ARB_OK;
}

arb_status arb_moonshine_features(arb_moonshine *m, const float *samples, int64_t n, float *out, int64_t *frames) {
  encoding e;
  ARB_REQUIRE(n >= ARB_MOONSHINE_LEAST && n <= ARB_MOONSHINE_MOST, ARB_ERR_DATA,
              "%lld samples of sound; %d to %d are possible (16 kHz)", (long long)n, ARB_MOONSHINE_LEAST, ARB_MOONSHINE_MOST);
  ARB_TRY(arb_ops_finite(samples, n, "samples"));
  ARB_TRY(place_encoding(m, n, &e));
  convolve(m, arb_ops_given(&m->ops, samples, n, e.samples), 1, STRIDE1, &m->conv1, ARB_DENSE_TANH, e.l1, e.c1);
  arb_moon_probe(m, "conv1", e.c1, e.l1, WIDTH);
  arb_ops_group_norm(&m->ops, e.c1, e.l1, WIDTH, m->group_weight, m->group_bias, ARB_MOON_EPSILON, e.sums);
  arb_moon_probe(m, "group norm", e.c1, e.l1, WIDTH);
  convolve(m, e.c1, WIDTH, STRIDE2, &m->conv2, ARB_DENSE_GELU, e.l2, e.c2);
  arb_moon_probe(m, "conv2", e.c2, e.l2, WIDTH2);
  convolve(m, e.c2, WIDTH2, STRIDE3, &m->conv3, ARB_DENSE_GELU, e.l3, e.h);
  arb_moon_probe(m, "conv3", e.h, e.l3, WIDTH);
  for (int i = 0; i < ARB_MOON_LAYERS; i++) {
    char name[32];
    run_layer(m, &m->encoder[i], &e);
    snprintf(name, sizeof name, "encoder layer %d", i);
    arb_moon_probe(m, name, e.h, e.l3, WIDTH);
  }
  arb_ops_layer_norm(&m->ops, e.h, WIDTH, e.l3, WIDTH, m->encoder_norm, NULL, ARB_MOON_EPSILON, e.h, WIDTH);
  arb_moon_probe(m, "encoder output", e.h, e.l3, WIDTH);
  if (frames) *frames = e.l3;
  ARB_TRY(arb_ops_get(&m->ops, e.h, WIDTH, e.l3, WIDTH, out));
  return arb_ops_finite(out, e.l3 * WIDTH, "sound features");
}
