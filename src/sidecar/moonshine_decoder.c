/* Moonshine-base's decoder: tokens from frames, one at a time, with the keys and values of earlier tokens kept. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/sidecar/moonshine_impl.h"

enum {
  WIDTH = ARB_MOON_WIDTH,
  HIDDEN = ARB_MOON_HIDDEN,
  LD = WIDTH + 16,
  LD_QKV = 3 * WIDTH + 16,
  LD_HIDDEN = 2 * HIDDEN + 16,
  LD_GATED = HIDDEN + 16,
  START = 1,
  END = 2 /* tokens */
};

/* ---- weights ---- */

static arb_status linear(arb_sidecar_store *s, int layer, const char *part, int64_t n, int64_t k, bool bias,
                         arb_sidecar_layer *out) {
  char name[ARB_STORE_NAME];
  const char *const names[1] = {name};
  arb_moon_name(name, "decoder", layer, part);
  return arb_store_linear(s, names, 1, n, k, bias, out);
}

static arb_status walk_layer(int i, arb_moon_decoder_layer *l, arb_sidecar_store *s) {
  char q[ARB_STORE_NAME], k[ARB_STORE_NAME], v[ARB_STORE_NAME], name[ARB_STORE_NAME];
  const char *const qkv[3] = {q, k, v};
  arb_moon_name(name, "decoder", i, "input_layernorm.weight");
  ARB_TRY(arb_moon_norm(s, name, &l->norm1));
  arb_moon_name(name, "decoder", i, "post_attention_layernorm.weight");
  ARB_TRY(arb_moon_norm(s, name, &l->norm2));
  arb_moon_name(name, "decoder", i, "final_layernorm.weight");
  ARB_TRY(arb_moon_norm(s, name, &l->norm3));
  arb_moon_name(q, "decoder", i, "self_attn.q_proj");
  arb_moon_name(k, "decoder", i, "self_attn.k_proj");
  arb_moon_name(v, "decoder", i, "self_attn.v_proj");
  ARB_TRY(arb_store_linear(s, qkv, 3, WIDTH, WIDTH, false, &l->qkv));
  ARB_TRY(linear(s, i, "self_attn.o_proj", WIDTH, WIDTH, false, &l->o));
  ARB_TRY(linear(s, i, "encoder_attn.q_proj", WIDTH, WIDTH, false, &l->cross_q));
  arb_moon_name(k, "decoder", i, "encoder_attn.k_proj");
  arb_moon_name(v, "decoder", i, "encoder_attn.v_proj");
  ARB_TRY(arb_store_linear(s, qkv + 1, 2, WIDTH, WIDTH, false, &l->cross_kv));
  ARB_TRY(linear(s, i, "encoder_attn.o_proj", WIDTH, WIDTH, false, &l->cross_o));
  ARB_TRY(linear(s, i, "mlp.fc1", 2 * HIDDEN, WIDTH, true, &l->fc1));
  return linear(s, i, "mlp.fc2", WIDTH, HIDDEN, true, &l->fc2);
}

arb_status arb_moon_walk_decoder(arb_moonshine *m, arb_sidecar_store *s) {
  ARB_TRY(arb_store_table(s, "model.decoder.embed_tokens", ARB_MOONSHINE_VOCABULARY, WIDTH, &m->table));
  for (int i = 0; i < ARB_MOON_LAYERS; i++) ARB_TRY(walk_layer(i, &m->decoder[i], s));
  return arb_moon_norm(s, "model.decoder.norm.weight", &m->decoder_norm);
}

/* ---- one utterance ---- */

/* Room for `rows` tokens at a time and `tokens` in all over these frames; keys and values of the frames. */
static arb_status begin(arb_moonshine *m, const float *encoded, int64_t frames, int64_t tokens, int64_t rows) {
  float *self[ARB_MOON_LAYERS], *cross[ARB_MOON_LAYERS], *kv;
  float *room;
  arb_moon_part parts[2 * ARB_MOON_LAYERS + 8] = {{&room, m->ops.device ? frames * WIDTH : 0},
                                                  {&m->logits, m->ops.device ? ARB_MOONSHINE_VOCABULARY : 0},
                                                  {&m->h, rows * WIDTH},
                                                  {&m->a, rows * LD},
                                                  {&m->qkv, rows * LD_QKV},
                                                  {&m->hidden, rows * LD_HIDDEN},
                                                  {&m->gated, rows * LD_GATED},
                                                  {&kv, frames * 2 * WIDTH}};
  int count = 8;
  for (int i = 0; i < ARB_MOON_LAYERS; i++) {
    parts[count++] = (arb_moon_part){&self[i], arb_kv_floats(ARB_MOON_HEADS, ARB_MOON_HEAD, tokens)};
    parts[count++] = (arb_moon_part){&cross[i], arb_kv_floats(ARB_MOON_HEADS, ARB_MOON_HEAD, frames)};
  }
  ARB_TRY(arb_moon_positions(m, tokens));
  ARB_TRY(arb_moon_place(m, &m->decoder_room, parts, count));
  ARB_TRY(arb_ops_reserve(&m->ops, HIDDEN, frames > tokens ? frames : tokens));
  encoded = arb_ops_given(&m->ops, encoded, frames * WIDTH, room);
  for (int i = 0; i < ARB_MOON_LAYERS; i++) {
    arb_moon_decoder_layer *l = &m->decoder[i];
    arb_kv_place(&l->self, ARB_MOON_HEADS, ARB_MOON_HEAD, tokens, self[i]);
    arb_kv_place(&l->cross, ARB_MOON_HEADS, ARB_MOON_HEAD, frames, cross[i]);
    arb_ops_linear(&m->ops, encoded, WIDTH, frames, &l->cross_kv, NULL, kv, 2 * WIDTH);
    arb_ops_append(&m->ops, &l->cross, kv, 2 * WIDTH, kv + WIDTH, 2 * WIDTH, frames);
  }
  return ARB_OK;
}

static void run_layer(arb_moonshine *m, arb_moon_decoder_layer *l, int64_t rows) {
  arb_ops *ops = &m->ops;
  const arb_dense_epilogue add = {.residual = m->h, .ldr = WIDTH};
  arb_ops_layer_norm(ops, m->h, WIDTH, rows, WIDTH, l->norm1, NULL, ARB_MOON_EPSILON, m->a, LD);
  arb_ops_linear(ops, m->a, LD, rows, &l->qkv, NULL, m->qkv, LD_QKV);
  arb_moon_rotate(m, m->qkv, LD_QKV, rows, l->self.count);
  arb_ops_append(ops, &l->self, m->qkv + WIDTH, LD_QKV, m->qkv + 2 * WIDTH, LD_QKV, rows);
  arb_ops_attend(ops, &l->self, m->qkv, LD_QKV, rows, ARB_MOON_SCALE, true, m->a, LD);
  arb_ops_linear(ops, m->a, LD, rows, &l->o, &add, m->h, WIDTH);
  arb_ops_layer_norm(ops, m->h, WIDTH, rows, WIDTH, l->norm2, NULL, ARB_MOON_EPSILON, m->a, LD);
  arb_ops_linear(ops, m->a, LD, rows, &l->cross_q, NULL, m->qkv, LD_QKV);
  arb_ops_attend(ops, &l->cross, m->qkv, LD_QKV, rows, ARB_MOON_SCALE, false, m->a, LD);
  arb_ops_linear(ops, m->a, LD, rows, &l->cross_o, &add, m->h, WIDTH);
  arb_ops_layer_norm(ops, m->h, WIDTH, rows, WIDTH, l->norm3, NULL, ARB_MOON_EPSILON, m->a, LD);
  arb_ops_linear(ops, m->a, LD, rows, &l->fc1, NULL, m->hidden, LD_HIDDEN);
  arb_ops_gate(ops, m->hidden, m->hidden + HIDDEN, LD_HIDDEN, rows, HIDDEN, m->gated, LD_GATED);
  arb_ops_linear(ops, m->gated, LD_GATED, rows, &l->fc2, &add, m->h, WIDTH);
}

/* The next `rows` tokens, and the logits after the last of them. */
static arb_status decode(arb_moonshine *m, const int32_t *ids, int64_t rows, float *logits) {
  for (int64_t r = 0; r < rows; r++)
    ARB_REQUIRE(ids[r] >= 0 && ids[r] < ARB_MOONSHINE_VOCABULARY, ARB_ERR_DATA, "token %lld is %d, expected 0 to %d",
                (long long)r, ids[r], ARB_MOONSHINE_VOCABULARY - 1);
  arb_ops_table(&m->ops, &m->table, ids, rows, m->h, WIDTH);
  for (int i = 0; i < ARB_MOON_LAYERS; i++) {
    run_layer(m, &m->decoder[i], rows);
    if (i == 0) arb_moon_probe(m, "decoder layer 0", m->h, rows, WIDTH);
  }
  arb_ops_layer_norm(&m->ops, m->h, WIDTH, rows, WIDTH, m->decoder_norm, NULL, ARB_MOON_EPSILON, m->h, WIDTH);
  arb_moon_probe(m, "decoder output", m->h, rows, WIDTH);
  float *there = m->ops.device ? m->logits : logits;
  arb_ops_linear(&m->ops, m->h + (rows - 1) * WIDTH, WIDTH, 1, &m->table, NULL, there, ARB_MOONSHINE_VOCABULARY);
  if (m->ops.device) ARB_TRY(arb_ops_get(&m->ops, there, ARB_MOONSHINE_VOCABULARY, 1, ARB_MOONSHINE_VOCABULARY, logits));
  return arb_ops_finite(logits, ARB_MOONSHINE_VOCABULARY, "logits");
}

static arb_status need_decoder(const arb_moonshine *m) {
  ARB_REQUIRE(m->has_decoder, ARB_ERR_ARG, "this Moonshine was opened without its decoder");
  return ARB_OK;
}

arb_status arb_moonshine_logits(arb_moonshine *m, const float *encoded, int64_t frames, const int32_t *ids, int64_t count,
                                float *logits) {
  ARB_TRY(need_decoder(m));
  ARB_REQUIRE(frames >= 1 && count >= 1 && count <= ARB_MOONSHINE_POSITIONS, ARB_ERR_ARG, "%lld frames, %lld tokens",
              (long long)frames, (long long)count);
  ARB_TRY(begin(m, encoded, frames, count, count));
  return decode(m, ids, count, logits);
}

arb_status arb_moonshine_transcribe(arb_moonshine *m, const float *samples, int64_t n, int64_t most, int32_t *ids,
                                    int64_t *count) {
  ARB_TRY(need_decoder(m));
  ARB_REQUIRE(most >= 0 && most < ARB_MOONSHINE_POSITIONS, ARB_ERR_ARG, "%lld tokens, expected at most %d", (long long)most,
              ARB_MOONSHINE_POSITIONS - 1);
  if (most == 0) most = 1 + n * 13 / (2 * ARB_MOONSHINE_RATE);
  if (most > ARB_MOONSHINE_POSITIONS - 1) most = ARB_MOONSHINE_POSITIONS - 1;
  *count = 0;
  int64_t frames = arb_moonshine_frames(n);
  const int64_t encoded_floats = (frames > 0 ? frames : 1) * WIDTH;
  float *encoded = malloc((size_t)(encoded_floats + ARB_MOONSHINE_VOCABULARY) * sizeof *encoded);
  ARB_REQUIRE(encoded, ARB_ERR_NOMEM, "out of host memory");
  float *logits = encoded + encoded_floats;
  int32_t token = START;
  arb_status st;
  ARB_TRY_OUT(st, arb_moonshine_features(m, samples, n, encoded, &frames));
  ARB_TRY_OUT(st, begin(m, encoded, frames, most, 1));
  while (*count < most) {
    ARB_TRY_OUT(st, decode(m, &token, 1, logits));
    token = 0;
    for (int32_t i = 1; i < ARB_MOONSHINE_VOCABULARY; i++)
      if (logits[i] > logits[token]) token = i;
    if (token == END) break;
    ids[(*count)++] = token;
  }
out:
  free(encoded);
  return st;
}
