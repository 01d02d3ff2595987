#include "src/features/open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/media/audio.h"
#include "src/media/image.h"
#include "src/sidecar/sidecar.h"

enum { IMAGE, AUDIO };

/* Raised when preprocessing or an encoder's arithmetic changes: part of the key of every cache. */
#define IMAGE_STEPS "short side 256 bicubic, centre 224, arbdist 1"
#define AUDIO_STEPS "mono 16 kHz, 15360 samples cut or zero-padded, arbdist 1"

void arb_features_shape(int kind, int64_t *rows, int64_t *width) {
  *rows = kind == IMAGE ? ARB_DINO_PATCHES : arb_moonshine_frames(ARB_FEATURES_SAMPLES);
  *width = kind == IMAGE ? ARB_DINO_WIDTH : ARB_MOONSHINE_WIDTH;
}

/* ---- one block of weights a node ---- */

typedef struct {
  arb_comm *comm;
  arb_sidecar_memory memory;
} shared;

static arb_status take(void *arg, size_t bytes, void **base, int *fill) {
  shared *s = arg;
  *fill = s->comm->local_rank == 0;
  return arb_comm_share(s->comm, bytes, base);
}

static arb_status filled(void *arg, arb_status st) { return arb_comm_agree(((shared *)arg)->comm, st); }

static void give_back(void *arg, void *base, size_t bytes) {
  (void)bytes;
  if (arb_comm_unshare(((shared *)arg)->comm, base) != ARB_OK) arb_fail_clear(); /* the communicator's end frees it too */
}

/* ---- the two encoders ---- */

typedef struct {
  shared share;
  arb_dino *dino;
  arb_moonshine *moonshine;
  float *input; /* pixels or samples */
} encoder;

static arb_status encode_image(void *ctx, const char *name, const unsigned char *bytes, size_t size, float *out) {
  encoder *e = ctx;
  arb_image image = {0};
  arb_status st = arb_image_decode(bytes, size, name, ARB_IMAGE_MAX_PIXELS, &image);
  if (st == ARB_OK) st = arb_image_dino(&image, e->input);
  if (st == ARB_OK) st = arb_dino_features(e->dino, e->input, out);
  arb_image_free(&image);
  return st;
}

static arb_status encode_audio(void *ctx, const char *name, const unsigned char *bytes, size_t size, float *out) {
  encoder *e = ctx;
  arb_audio raw = {0}, speech = {0};
  arb_status st = arb_audio_decode(bytes, size, name, ARB_AUDIO_MAX_FRAMES, &raw);
  if (st == ARB_OK) st = arb_audio_resample(&raw, ARB_AUDIO_SPEECH_RATE, &speech);
  if (st == ARB_OK) {
    const int64_t kept = speech.count < ARB_FEATURES_SAMPLES ? speech.count : ARB_FEATURES_SAMPLES;
    memset(e->input, 0, ARB_FEATURES_SAMPLES * sizeof *e->input);
    memcpy(e->input, speech.samples, (size_t)kept * sizeof *e->input);
    st = arb_moonshine_features(e->moonshine, e->input, ARB_FEATURES_SAMPLES, out, NULL);
  }
  arb_audio_free(&raw);
  arb_audio_free(&speech);
  return st;
}

static void destroy(void *ctx) {
  encoder *e = ctx;
  arb_dino_destroy(&e->dino);
  arb_moonshine_destroy(&e->moonshine);
  free(e->input);
  free(e);
}

/* Collective. */
static arb_status open_one(const arb_config *cfg, arb_comm *comm, arb_dense_place place, int kind, arb_encoder **out) {
  static const arb_encoder_ops ops[2] = {{encode_image, destroy}, {encode_audio, destroy}};
  const char *key = kind == IMAGE ? "sidecars.dino" : "sidecars.moonshine";
  const char *path = kind == IMAGE ? cfg->sidecars.dino : cfg->sidecars.moonshine;
  const size_t inputs = kind == IMAGE ? 3 * ARB_IMAGE_DINO_SIDE * ARB_IMAGE_DINO_SIDE : ARB_FEATURES_SAMPLES;
  encoder *e = calloc(1, sizeof *e);
  arb_status st = e && (e->input = calloc(inputs, sizeof *e->input)) ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  st = arb_comm_agree(comm, st);
  if (st != ARB_OK) {
    if (e) free(e->input);
    free(e);
    return st;
  }
  e->share = (shared){comm, {&e->share, take, filled, give_back}};
  const arb_sidecar_options o = {.conv_int8 = cfg->sidecars.conv_int8,
                                 .embed_int8 = cfg->sidecars.embed_int8,
                                 .threads = (int)cfg->data.threads,
                                 .memory = &e->share.memory,
                                 .place = place};
  st = kind == IMAGE ? arb_dino_open(path, &o, &e->dino) : arb_moonshine_open(path, &o, &e->moonshine);
  if (st != ARB_OK) arb_fail_context("%s (%s)", arb_config_origin(cfg, key), key);
  st = arb_comm_agree(comm, st);
  if (st != ARB_OK) {
    destroy(e);
    return st;
  }
  const arb_sidecar_report *r = kind == IMAGE ? arb_dino_report(e->dino) : arb_moonshine_report(e->moonshine);
  char text[ARB_ENCODER_KEY];
  int64_t rows, width;
  arb_features_shape(kind, &rows, &width);
  snprintf(text, sizeof text, "%s %s; %s", r->model, r->digest, kind == IMAGE ? IMAGE_STEPS : AUDIO_STEPS);
  ARB_TRY(arb_comm_agree(comm, arb_encoder_create(&ops[kind], e, text, rows, width, out)));
  const int synthetic = strcmp(path, ARB_SIDECAR_SYNTHETIC) == 0;
  snprintf((*out)->model, sizeof(*out)->model, "%s, %s weights", r->model, synthetic ? "synthetic" : "published");
  snprintf((*out)->place, sizeof(*out)->place, "%s", r->place);
  (*out)->on_device = place.open != NULL;
  (*out)->weight_bytes = r->resident_bytes;
  (*out)->private_bytes = r->work_bytes;
  return ARB_OK;
}

arb_status arb_encoders_open(const arb_config *cfg, arb_comm *comm, arb_dense_place place, arb_encoder *out[2]) {
  out[IMAGE] = out[AUDIO] = NULL;
  if (cfg->model.image) ARB_TRY(open_one(cfg, comm, place, IMAGE, &out[IMAGE]));
  if (cfg->model.audio) ARB_TRY(open_one(cfg, comm, place, AUDIO, &out[AUDIO]));
  return ARB_OK;
}
