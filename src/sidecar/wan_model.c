/* The steps of the Wan 2.1 video VAE and the names of their tensors: those of the original files (Wan2.1_VAE.pth,
 * wan_2.1_vae.safetensors, pig_wan_vae GGUF) and those of diffusers' AutoencoderKLWan. */
#include <stdio.h>
#include <string.h>

#include "src/sidecar/wan_impl.h"

/* Both names of what lies under both prefixes. */
static void name_of(char name[2][ARB_WAN_NAME], const char *const prefix[2], const char *original, const char *diffusers) {
  snprintf(name[0], ARB_WAN_NAME, "%s%s", prefix[0], original);
  snprintf(name[1], ARB_WAN_NAME, "%s%s", prefix[1], diffusers);
}

static void conv_of(arb_wan_conv *c, const char *const prefix[2], const char *original, const char *diffusers, int cin,
                    int cout, int rank, int nt, int ny, int nx) {
  *c = (arb_wan_conv){.cin = cin, .cout = cout, .rank = rank, .nt = nt, .ny = ny, .nx = nx};
  name_of(c->name, prefix, original, diffusers);
}

static void gain_of(arb_wan_gain *g, const char *const prefix[2], const char *original, const char *diffusers, int c,
                    int rank) {
  *g = (arb_wan_gain){.c = c, .rank = rank};
  name_of(g->name, prefix, original, diffusers);
}

static void step_of(arb_wan_step *s, arb_wan_kind kind, int cin, int cout, const char *original, const char *diffusers) {
  const char *const prefix[2] = {original, diffusers};
  *s = (arb_wan_step){.kind = kind, .cin = cin, .cout = cout};
  snprintf(s->name, sizeof s->name, "%s", original);
  switch (kind) {
    case ARB_WAN_RES:
      gain_of(&s->gain[0], prefix, ".residual.0.gamma", ".norm1.gamma", cin, 4);
      gain_of(&s->gain[1], prefix, ".residual.3.gamma", ".norm2.gamma", cout, 4);
      conv_of(&s->conv[0], prefix, ".residual.2", ".conv1", cin, cout, 5, 3, 3, 3);
      conv_of(&s->conv[1], prefix, ".residual.6", ".conv2", cout, cout, 5, 3, 3, 3);
      if (cin != cout) conv_of(&s->conv[2], prefix, ".shortcut", ".conv_shortcut", cin, cout, 5, 1, 1, 1);
      s->gains = 2;
      s->convs = cin != cout ? 3 : 2;
      break;
    case ARB_WAN_ATTN:
      gain_of(&s->gain[0], prefix, ".norm.gamma", ".norm.gamma", cin, 3);
      conv_of(&s->conv[0], prefix, ".to_qkv", ".to_qkv", cin, 3 * cin, 4, 1, 1, 1);
      conv_of(&s->conv[1], prefix, ".proj", ".proj", cin, cin, 4, 1, 1, 1);
      s->gains = 1;
      s->convs = 2;
      break;
    default:
      conv_of(&s->conv[0], prefix, ".resample.1", ".resample.1", cin, cout, 4, 1, 3, 3);
      if (kind == ARB_WAN_DOWN3) conv_of(&s->conv[1], prefix, ".time_conv", ".time_conv", cin, cin, 5, 3, 1, 1);
      if (kind == ARB_WAN_UP3) conv_of(&s->conv[1], prefix, ".time_conv", ".time_conv", cin, 2 * cin, 5, 3, 1, 1);
      s->convs = kind == ARB_WAN_DOWN3 || kind == ARB_WAN_UP3 ? 2 : 1;
  }
}

typedef struct {
  arb_wan_kind kind;
  int cin, cout;
} plan;

static void middle(arb_wan_half *h, const char *side) {
  for (int i = 0; i < 3; i++) {
    char original[96], diffusers[96];
    snprintf(original, sizeof original, "%s.middle.%d", side, i);
    if (i == 1)
      snprintf(diffusers, sizeof diffusers, "%s.mid_block.attentions.0", side);
    else
      snprintf(diffusers, sizeof diffusers, "%s.mid_block.resnets.%d", side, i / 2);
    step_of(&h->step[h->steps++], i == 1 ? ARB_WAN_ATTN : ARB_WAN_RES, 384, 384, original, diffusers);
  }
}

static void ends_of(arb_wan_half *h, const char *side, const char *latent, const char *quant, int in, int first, int last,
                    int out, int z) {
  const char *const prefix[2] = {side, side}, *const whole[2] = {"", ""};
  conv_of(&h->in, prefix, ".conv1", ".conv_in", in, first, 5, 3, 3, 3);
  gain_of(&h->head_gain, prefix, ".head.0.gamma", ".norm_out.gamma", last, 4);
  conv_of(&h->head, prefix, ".head.2", ".conv_out", last, out, 5, 3, 3, 3);
  conv_of(&h->latent, whole, latent, quant, z, z, 5, 1, 1, 1);
}

static void encoder(arb_wan_half *h) {
  static const plan steps[11] = {{ARB_WAN_RES, 96, 96},   {ARB_WAN_RES, 96, 96},   {ARB_WAN_DOWN2, 96, 96},
                                 {ARB_WAN_RES, 96, 192},  {ARB_WAN_RES, 192, 192}, {ARB_WAN_DOWN3, 192, 192},
                                 {ARB_WAN_RES, 192, 384}, {ARB_WAN_RES, 384, 384}, {ARB_WAN_DOWN3, 384, 384},
                                 {ARB_WAN_RES, 384, 384}, {ARB_WAN_RES, 384, 384}};
  ends_of(h, "encoder", "conv1", "quant_conv", 3, 96, 384, 32, 32);
  for (int k = 0; k < 11; k++) {
    char original[96], diffusers[96];
    snprintf(original, sizeof original, "encoder.downsamples.%d", k);
    snprintf(diffusers, sizeof diffusers, "encoder.down_blocks.%d", k);
    step_of(&h->step[h->steps++], steps[k].kind, steps[k].cin, steps[k].cout, original, diffusers);
  }
  middle(h, "encoder");
}

static void decoder(arb_wan_half *h) {
  static const plan steps[15] = {{ARB_WAN_RES, 384, 384}, {ARB_WAN_RES, 384, 384}, {ARB_WAN_RES, 384, 384},
                                 {ARB_WAN_UP3, 384, 192}, {ARB_WAN_RES, 192, 384}, {ARB_WAN_RES, 384, 384},
                                 {ARB_WAN_RES, 384, 384}, {ARB_WAN_UP3, 384, 192}, {ARB_WAN_RES, 192, 192},
                                 {ARB_WAN_RES, 192, 192}, {ARB_WAN_RES, 192, 192}, {ARB_WAN_UP2, 192, 96},
                                 {ARB_WAN_RES, 96, 96},   {ARB_WAN_RES, 96, 96},   {ARB_WAN_RES, 96, 96}};
  ends_of(h, "decoder", "conv2", "post_quant_conv", 16, 384, 96, 3, 16);
  middle(h, "decoder");
  for (int k = 0; k < 15; k++) {
    char original[96], diffusers[96];
    snprintf(original, sizeof original, "decoder.upsamples.%d", k);
    if (k % 4 == 3)
      snprintf(diffusers, sizeof diffusers, "decoder.up_blocks.%d.upsamplers.0", k / 4);
    else
      snprintf(diffusers, sizeof diffusers, "decoder.up_blocks.%d.resnets.%d", k / 4, k % 4);
    step_of(&h->step[h->steps++], steps[k].kind, steps[k].cin, steps[k].cout, original, diffusers);
  }
}

void arb_wan_model_init(arb_wan_model *m) {
  memset(m, 0, sizeof *m);
  encoder(&m->half[ARB_WAN_ENCODER]);
  decoder(&m->half[ARB_WAN_DECODER]);
}

/* Which names the file has: 0, the original's, or 1, diffusers'. Other video VAEs are told by what they have instead. */
static arb_status tell_naming(const arb_tensor_source *f, int *naming) {
  *naming = 0;
  if (strcmp(f->name, ARB_SIDECAR_SYNTHETIC) == 0) return ARB_OK;
  ARB_REQUIRE(!f->has(f->ctx, "decoder.upsamples.0.upsamples.0.residual.2.weight"), ARB_ERR_DATA,
              "%s: these are the tensors of the Wan 2.2 VAE (48 latent channels), expected those of Wan 2.1 (16)", f->name);
  if (f->has(f->ctx, "decoder.middle.0.residual.0.gamma")) return ARB_OK;
  *naming = 1;
  if (f->has(f->ctx, "encoder.down_blocks.0.norm1.gamma")) return ARB_OK;
  ARB_REQUIRE(!f->has(f->ctx, "decoder.conv_in.conv.weight"), ARB_ERR_DATA,
              "%s: these are the tensors of a HunyuanVideo-type VAE, expected those of the Wan 2.1 VAE", f->name);
  ARB_REQUIRE(!f->has(f->ctx, "decoder.conv_in.weight"), ARB_ERR_DATA,
              "%s: these are the tensors of another autoencoder (of images, or a later Wan), expected those of the Wan 2.1 VAE",
              f->name);
  return ARB_FAIL(ARB_ERR_DATA,
                  "%s: not a Wan 2.1 VAE: neither decoder.middle.0.residual.0.gamma (original names) nor "
                  "encoder.down_blocks.0.norm1.gamma (diffusers names) is there",
                  f->name);
}

static arb_status read_conv(arb_wan_conv *c, int naming, arb_sidecar_store *s) {
  const int64_t kernel[3] = {c->nt, c->ny, c->nx};
  return arb_store_conv(s, c->name[naming], c->cout, c->cin, c->rank - 2, kernel + (5 - c->rank), true, &c->layer);
}

static arb_status read_gain(arb_wan_gain *g, int naming, arb_sidecar_store *s) {
  const int64_t shape[4] = {g->c, 1, 1, 1};
  return arb_store_vector(s, ARB_SIDECAR_NORM, g->name[naming], g->rank, shape, &g->gamma);
}

arb_status arb_wan_model_walk(void *model, arb_sidecar_store *s) {
  arb_wan_model *const m = model;
  int naming = 0;
  if (s->source) ARB_TRY(tell_naming(s->source, &naming));
  for (int side = 0; side < ARB_WAN_HALVES; side++) {
    arb_wan_half *const h = &m->half[side];
    ARB_TRY(read_conv(&h->in, naming, s));
    for (int i = 0; i < h->steps; i++) {
      for (int j = 0; j < h->step[i].gains; j++) ARB_TRY(read_gain(&h->step[i].gain[j], naming, s));
      for (int j = 0; j < h->step[i].convs; j++) ARB_TRY(read_conv(&h->step[i].conv[j], naming, s));
    }
    ARB_TRY(read_gain(&h->head_gain, naming, s));
    ARB_TRY(read_conv(&h->head, naming, s));
    ARB_TRY(read_conv(&h->latent, naming, s));
  }
  return ARB_OK;
}
