#include "launch/sidecar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "launch/device.h"
#include "launch/video.h"
#include "src/bench/sidecar.h"
#include "src/media/audio.h"
#include "src/media/image.h"
#include "src/safetensors/safetensors.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"
#include "src/sidecar/tokenizer.h"

static arb_status options_of(const arb_config *cfg, arb_sidecar_options *o) {
  static const char *const isa[] = {"auto", "scalar", "avx2", "avx512"};
  *o = (arb_sidecar_options){
      .conv_int8 = cfg->sidecars.conv_int8, .embed_int8 = cfg->sidecars.embed_int8, .isa = isa[cfg->run.isa]};
  (void)arb_device_expected(cfg, 1, &o->threads);
  return arb_device_place(cfg, 0, &o->place);
}

/* A few values and means of an array: enough to compare two machines by eye. */
static void summarise(const char *what, const float *x, int64_t rows, int64_t width, FILE *out) {
  const int64_t n = rows * width;
  double sum = 0, magnitude = 0;
  for (int64_t i = 0; i < n; i++) {
    sum += (double)x[i];
    magnitude += fabs((double)x[i]);
  }
  fprintf(out, "  %s [%lld][%lld]: %.6f %.6f %.6f %.6f ... %.6f %.6f; mean %.7f, mean magnitude %.7f\n", what, (long long)rows,
          (long long)width, (double)x[0], (double)x[1], (double)x[2], (double)x[3], (double)x[n - 2], (double)x[n - 1],
          sum / (double)n, magnitude / (double)n);
}

/* ---- check, audit ---- */

static arb_status check_dino(const char *path, const arb_sidecar_options *o, FILE *out) {
  enum { PIXELS = 3 * ARB_DINO_SIDE * ARB_DINO_SIDE, FEATURES = ARB_DINO_PATCHES * ARB_DINO_WIDTH };
  arb_dino *d = NULL;
  float *x = malloc((PIXELS + FEATURES) * sizeof *x);
  arb_status st = x ? arb_dino_open(path, o, &d) : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK) {
    arb_synthetic_input("input.dino", PIXELS, x);
    st = arb_dino_features(d, x, x + PIXELS);
  }
  if (st == ARB_OK) {
    arb_sidecar_print(arb_dino_report(d), out);
    summarise("features of the test input", x + PIXELS, ARB_DINO_PATCHES, ARB_DINO_WIDTH, out);
  }
  arb_dino_destroy(&d);
  free(x);
  return st;
}

static arb_status check_moonshine(const char *path, const arb_sidecar_options *o, FILE *out) {
  enum { SAMPLES = 15360 };
  arb_moonshine *m = NULL;
  int64_t frames = arb_moonshine_frames(SAMPLES);
  float *x = malloc((size_t)(SAMPLES + frames * ARB_MOONSHINE_WIDTH) * sizeof *x);
  arb_status st = x ? arb_moonshine_open(path, o, &m) : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK) {
    arb_synthetic_input("input.moon", SAMPLES, x);
    st = arb_moonshine_features(m, x, SAMPLES, x + SAMPLES, &frames);
  }
  if (st == ARB_OK) {
    arb_sidecar_print(arb_moonshine_report(m), out);
    summarise("features of the test input", x + SAMPLES, frames, ARB_MOONSHINE_WIDTH, out);
  }
  arb_moonshine_destroy(&m);
  free(x);
  return st;
}

static bool given(const arb_config *cfg) { return cfg->sidecars.dino[0] || cfg->sidecars.moonshine[0] || cfg->sidecars.vae[0]; }

arb_status arb_command_audit_sidecars(const arb_config *cfg, FILE *out) {
  arb_sidecar_options o;
  ARB_TRY(options_of(cfg, &o));
  fprintf(out, "\nimported sidecars: apart from the ternary state above, in no checkpoint, never trained\n");
  if (!given(cfg)) fprintf(out, "none: sidecars.dino, sidecars.moonshine and sidecars.vae are not given\n");
  if (cfg->sidecars.dino[0]) ARB_TRY(check_dino(cfg->sidecars.dino, &o, out));
  if (cfg->sidecars.moonshine[0]) ARB_TRY(check_moonshine(cfg->sidecars.moonshine, &o, out));
  return cfg->sidecars.vae[0] ? arb_video_check(cfg->sidecars.vae, &o, out) : ARB_OK;
}

static arb_status check(const arb_args *args, const arb_config *cfg, FILE *out) {
  arb_sidecar_options o;
  ARB_TRY(options_of(cfg, &o));
  arb_sidecar_kind kind;
  o.decoder = true;
  if (args->file == NULL) {
    ARB_REQUIRE(
        given(cfg), ARB_ERR_CONFIG,
        "sidecar check: expected a folder or file of weights, or --set sidecars.dino, sidecars.moonshine or sidecars.vae");
    if (cfg->sidecars.dino[0]) ARB_TRY(check_dino(cfg->sidecars.dino, &o, out));
    if (cfg->sidecars.moonshine[0]) ARB_TRY(check_moonshine(cfg->sidecars.moonshine, &o, out));
    return cfg->sidecars.vae[0] ? arb_video_check(cfg->sidecars.vae, &o, out) : ARB_OK;
  }
  ARB_TRY(arb_sidecar_identify(args->file, &kind));
  ARB_REQUIRE(kind != ARB_SIDECAR_UNKNOWN, ARB_ERR_DATA,
              "%s: none of DINOv2-small, Moonshine-base and the Wan 2.1 VAE by the names of its tensors", args->file);
  if (kind == ARB_SIDECAR_VAE) return arb_video_check(args->file, &o, out);
  return kind == ARB_SIDECAR_DINO ? check_dino(args->file, &o, out) : check_moonshine(args->file, &o, out);
}

/* ---- encode, transcribe ---- */

static arb_status store(const char *path, const char *from, const arb_sidecar_report *r, const float *x, int64_t rows,
                        int64_t width) {
  const arb_st_tensor tensor = {"features", ARB_F32, 2, {rows, width}};
  const arb_st_note notes[] = {{"model", r->model}, {"weights", r->digest}, {"input", from}};
  arb_st_writer *w = NULL;
  ARB_TRY(arb_st_create(path, &tensor, 1, notes, 3, &w));
  const arb_status st = arb_st_put(w, x, (uint64_t)(rows * width) * sizeof *x);
  if (st != ARB_OK) {
    arb_st_abandon(&w);
    return st;
  }
  return arb_st_finish(&w);
}

static arb_status show(const arb_args *args, const arb_sidecar_report *r, const float *x, int64_t rows, int64_t width,
                       FILE *out) {
  fprintf(out, "%s, weights %s\n", r->model, r->digest);
  summarise(args->file, x, rows, width, out);
  return args->out ? store(args->out, args->file, r, x, rows, width) : ARB_OK;
}

static arb_status encode_image(const arb_args *args, const arb_config *cfg, FILE *out) {
  enum { PIXELS = 3 * ARB_DINO_SIDE * ARB_DINO_SIDE, FEATURES = ARB_DINO_PATCHES * ARB_DINO_WIDTH };
  arb_sidecar_options o;
  ARB_TRY(options_of(cfg, &o));
  arb_image image = {0};
  arb_dino *d = NULL;
  ARB_REQUIRE(cfg->sidecars.dino[0], ARB_ERR_CONFIG,
              "sidecar encode: an image needs --set sidecars.dino=FOLDER or sidecars.vae=WEIGHTS");
  float *x = malloc((PIXELS + FEATURES) * sizeof *x);
  arb_status st = x ? arb_image_read(args->file, &image) : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK) st = arb_image_dino(&image, x);
  if (st == ARB_OK) st = arb_dino_open(cfg->sidecars.dino, &o, &d);
  if (st == ARB_OK) st = arb_dino_features(d, x, x + PIXELS);
  if (st == ARB_OK) st = show(args, arb_dino_report(d), x + PIXELS, ARB_DINO_PATCHES, ARB_DINO_WIDTH, out);
  arb_dino_destroy(&d);
  arb_image_free(&image);
  free(x);
  return st;
}

/* The file as 16 kHz mono of a length that Moonshine takes. */
static arb_status read_speech(const arb_args *args, const arb_config *cfg, arb_audio *audio) {
  ARB_REQUIRE(cfg->sidecars.moonshine[0], ARB_ERR_CONFIG, "sidecar %s: a sound needs --set sidecars.moonshine=FOLDER",
              args->action);
  ARB_TRY(arb_audio_read_speech(args->file, audio));
  ARB_REQUIRE(audio->count >= ARB_MOONSHINE_LEAST && audio->count <= ARB_MOONSHINE_MOST, ARB_ERR_DATA,
              "%s: %.3f s of sound; %.3f to %d s are possible", args->file, (double)audio->count / ARB_MOONSHINE_RATE,
              (double)ARB_MOONSHINE_LEAST / ARB_MOONSHINE_RATE, ARB_MOONSHINE_MOST / ARB_MOONSHINE_RATE);
  return ARB_OK;
}

static arb_status encode_sound(const arb_args *args, const arb_config *cfg, FILE *out) {
  arb_sidecar_options o;
  ARB_TRY(options_of(cfg, &o));
  arb_audio audio = {0};
  arb_moonshine *m = NULL;
  float *x = NULL;
  arb_status st = read_speech(args, cfg, &audio);
  const int64_t frames = arb_moonshine_frames(audio.count);
  if (st == ARB_OK && (x = malloc((size_t)frames * ARB_MOONSHINE_WIDTH * sizeof *x)) == NULL)
    st = ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK) st = arb_moonshine_open(cfg->sidecars.moonshine, &o, &m);
  if (st == ARB_OK) st = arb_moonshine_features(m, audio.samples, audio.count, x, NULL);
  if (st == ARB_OK) st = show(args, arb_moonshine_report(m), x, frames, ARB_MOONSHINE_WIDTH, out);
  arb_moonshine_destroy(&m);
  arb_audio_free(&audio);
  free(x);
  return st;
}

static arb_status encode(const arb_args *args, const arb_config *cfg, FILE *out) {
  static const char *const sounds[] = {".wav", ".flac"};
  const char *dot = strrchr(args->file, '.');
  arb_sidecar_options o;
  ARB_TRY(options_of(cfg, &o));
  struct stat info;
  if (stat(args->file, &info) == 0 && S_ISDIR(info.st_mode)) return arb_video_encode(args, cfg, &o, out);
  if (arb_video_is_image(args->file)) {
    ARB_REQUIRE(!cfg->sidecars.dino[0] || !cfg->sidecars.vae[0], ARB_ERR_CONFIG,
                "sidecar encode: sidecars.dino and sidecars.vae both encode images; give one");
    return cfg->sidecars.vae[0] ? arb_video_encode(args, cfg, &o, out) : encode_image(args, cfg, out);
  }
  for (size_t i = 0; dot && i < sizeof sounds / sizeof sounds[0]; i++)
    if (strcasecmp(dot, sounds[i]) == 0) return encode_sound(args, cfg, out);
  return ARB_FAIL(ARB_ERR_DATA, "%s: expected an image (.png, .jpg, .jpeg), a folder of them or a sound (.wav, .flac)",
                  args->file);
}

static arb_status write_text(const arb_config *cfg, const int32_t *ids, int64_t count, FILE *out) {
  arb_tokenizer *t = NULL;
  char *text = NULL;
  ARB_TRY(arb_tokenizer_open(cfg->sidecars.moonshine, ARB_MOONSHINE_VOCABULARY, &t));
  if (t == NULL) {
    fprintf(out, "tokens (no tokenizer.json beside the weights):");
    for (int64_t i = 0; i < count; i++) fprintf(out, " %d", ids[i]);
    fprintf(out, "\n");
    return ARB_OK;
  }
  const arb_status st = arb_tokenizer_text(t, ids, count, &text);
  if (st == ARB_OK) fprintf(out, "%s\n", text);
  free(text);
  arb_tokenizer_close(&t);
  return st;
}

static arb_status transcribe(const arb_args *args, const arb_config *cfg, FILE *out) {
  int32_t ids[ARB_MOONSHINE_POSITIONS];
  int64_t count = 0;
  arb_sidecar_options o;
  ARB_TRY(options_of(cfg, &o));
  arb_audio audio = {0};
  arb_moonshine *m = NULL;
  o.decoder = true;
  arb_status st = read_speech(args, cfg, &audio);
  if (st == ARB_OK) st = arb_moonshine_open(cfg->sidecars.moonshine, &o, &m);
  if (st == ARB_OK) st = arb_moonshine_transcribe(m, audio.samples, audio.count, 0, ids, &count);
  if (st == ARB_OK) st = write_text(cfg, ids, count, out);
  arb_moonshine_destroy(&m);
  arb_audio_free(&audio);
  return st;
}

/* ---- the commands ---- */

arb_status arb_command_sidecar(const arb_args *args, const arb_config *cfg, FILE *out) {
  if (strcmp(args->action, "check") == 0) return check(args, cfg, out);
  if (strcmp(args->action, "decode") == 0) {
    arb_sidecar_options o;
    ARB_TRY(options_of(cfg, &o));
    return arb_video_decode(args, cfg, &o, out);
  }
  return strcmp(args->action, "encode") == 0 ? encode(args, cfg, out) : transcribe(args, cfg, out);
}

arb_status arb_command_bench_sidecar(const arb_config *cfg, FILE *out) {
  arb_sidecar_options o;
  ARB_TRY(options_of(cfg, &o));
  if (cfg->sidecars.vae[0]) return arb_bench_vae(out, cfg->sidecars.vae, &o, 0);
  return arb_bench_sidecar(out, cfg->sidecars.dino, cfg->sidecars.moonshine, &o, 0);
}
