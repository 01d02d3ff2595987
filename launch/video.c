#include "launch/video.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "src/media/image.h"
#include "src/safetensors/safetensors.h"
#include "src/safetensors/weights.h"
#include "src/sidecar/source.h"
#include "src/sidecar/wan.h"

bool arb_video_is_image(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot && (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0);
}

static void summarise(const char *what, const float *x, const int64_t *shape, FILE *out) {
  const int64_t n = shape[0] * shape[1] * shape[2] * shape[3];
  double sum = 0, magnitude = 0;
  for (int64_t i = 0; i < n; i++) {
    sum += (double)x[i];
    magnitude += fabs((double)x[i]);
  }
  fprintf(out, "  %s [%lld][%lld][%lld][%lld]: %.6f %.6f %.6f %.6f ... %.6f %.6f; mean %.7f, mean magnitude %.7f\n", what,
          (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3], (double)x[0], (double)x[1],
          (double)x[2], (double)x[3], (double)x[n - 2], (double)x[n - 1], sum / (double)n, magnitude / (double)n);
}

/* ---- frames ---- */

typedef struct {
  char **paths;
  int64_t count;
} listing;

static void listing_free(listing *l) {
  for (int64_t i = 0; i < l->count; i++) free(l->paths[i]);
  free(l->paths);
  *l = (listing){0};
}

static arb_status add_path(listing *l, const char *folder, const char *name) {
  if ((l->count & (l->count - 1)) == 0) { /* full at every power of two */
    char **more = realloc(l->paths, (size_t)(l->count ? 2 * l->count : 1) * sizeof *more);
    ARB_REQUIRE(more, ARB_ERR_NOMEM, "out of host memory");
    l->paths = more;
  }
  const size_t n = strlen(folder) + strlen(name) + 2;
  char *path = malloc(n);
  ARB_REQUIRE(path, ARB_ERR_NOMEM, "out of host memory");
  snprintf(path, n, "%s%s%s", folder, folder[0] ? "/" : "", name);
  l->paths[l->count++] = path;
  return ARB_OK;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static arb_status list_images(const char *path, listing *l) {
  DIR *d = opendir(path);
  if (d == NULL && errno == ENOTDIR) return add_path(l, "", path);
  ARB_REQUIRE(d, ARB_ERR_DATA, "%s: %s", path, strerror(errno));
  arb_status st = ARB_OK;
  for (const struct dirent *e; st == ARB_OK && (e = readdir(d)) != NULL;)
    if (e->d_name[0] != '.' && arb_video_is_image(e->d_name)) st = add_path(l, path, e->d_name);
  closedir(d);
  ARB_TRY(st);
  ARB_REQUIRE(l->count > 0, ARB_ERR_DATA, "%s: no image (.png, .jpg, .jpeg) in this folder", path);
  qsort(l->paths, (size_t)l->count, sizeof *l->paths, by_name);
  return ARB_OK;
}

/* frames [3][count][height][width] in [-1, 1], the caller's to free. */
static arb_status read_frames(const listing *l, float **frames, int64_t *height, int64_t *width) {
  arb_image image = {0};
  arb_status st = ARB_OK;
  for (int64_t t = 0; t < l->count && st == ARB_OK; t++) {
    ARB_TRY_OUT(st, arb_image_read(l->paths[t], &image));
    const int64_t pixels = (int64_t)image.width * image.height;
    if (t == 0) {
      *height = image.height;
      *width = image.width;
      *frames = malloc((size_t)(3 * l->count * pixels) * sizeof **frames);
      if (*frames == NULL) ARB_TRY_OUT(st, ARB_FAIL(ARB_ERR_NOMEM, "out of host memory: %lld frames", (long long)l->count));
    }
    if (image.height != *height || image.width != *width)
      ARB_TRY_OUT(st, ARB_FAIL(ARB_ERR_DATA, "%s: %d x %d pixels, unlike the first frame's %lld x %lld", l->paths[t],
                               image.width, image.height, (long long)*width, (long long)*height));
    for (int c = 0; c < 3; c++) {
      float *const plane = *frames + (c * l->count + t) * pixels;
      for (int64_t p = 0; p < pixels; p++) plane[p] = (float)image.rgb[p * 3 + c] / 127.5f - 1.0f;
    }
    arb_image_free(&image);
  }
out:
  arb_image_free(&image);
  return st;
}

static arb_status write_frame(const char *path, const float *frames, int64_t frame, int64_t count, int64_t height,
                              int64_t width) {
  const int64_t pixels = height * width;
  unsigned char *rgb = malloc((size_t)(3 * pixels));
  ARB_REQUIRE(rgb, ARB_ERR_NOMEM, "out of host memory");
  for (int c = 0; c < 3; c++) {
    const float *const plane = frames + (c * count + frame) * pixels;
    for (int64_t p = 0; p < pixels; p++) rgb[p * 3 + c] = (unsigned char)rintf((plane[p] + 1.0f) * 127.5f);
  }
  const arb_status st = arb_image_write_png(path, rgb, (int)width, (int)height);
  free(rgb);
  return st;
}

/* ---- latents ---- */

static arb_status store(const char *path, const char *from, const arb_sidecar_report *r, const float *x, const int64_t *shape) {
  const arb_st_tensor tensor = {"latent", ARB_F32, 4, {shape[0], shape[1], shape[2], shape[3]}};
  const arb_st_note notes[] = {{"model", r->model}, {"weights", r->digest}, {"input", from}, {"form", "normalised"}};
  arb_st_writer *w = NULL;
  ARB_TRY(arb_st_create(path, &tensor, 1, notes, 4, &w));
  const arb_status st = arb_st_put(w, x, (uint64_t)(shape[0] * shape[1] * shape[2] * shape[3]) * sizeof *x);
  if (st != ARB_OK) {
    arb_st_abandon(&w);
    return st;
  }
  return arb_st_finish(&w);
}

/* The latent of a file and its shape; the caller frees. */
static arb_status read_latent(const char *path, float **latent, int64_t shape[4]) {
  arb_weights *w = NULL;
  arb_weights_tensor t;
  arb_status st;
  ARB_TRY_OUT(st, arb_weights_open(path, &w));
  ARB_TRY_OUT(st, arb_weights_find(w, "latent", &t));
  if (t.rank != 4 || t.shape[0] != ARB_WAN_CHANNELS || t.count == 0)
    ARB_TRY_OUT(st, ARB_FAIL(ARB_ERR_DATA, "%s: latent: expected a shape (%d, frames, height, width)", path, ARB_WAN_CHANNELS));
  memcpy(shape, t.shape, 4 * sizeof *shape);
  *latent = malloc((size_t)t.count * sizeof **latent);
  if (*latent == NULL) ARB_TRY_OUT(st, ARB_FAIL(ARB_ERR_NOMEM, "out of host memory: %lld values", (long long)t.count));
  ARB_TRY_OUT(st, arb_weights_read_f32(w, "latent", 4, shape, *latent));
out:
  arb_weights_close(&w);
  return st;
}

/* ---- the commands ---- */

arb_status arb_video_encode(const arb_args *args, const arb_config *cfg, const arb_sidecar_options *o, FILE *out) {
  listing images = {0};
  arb_wan *v = NULL;
  float *frames = NULL, *latent = NULL;
  int64_t height = 0, width = 0;
  arb_status st;
  ARB_REQUIRE(cfg->sidecars.vae[0], ARB_ERR_CONFIG, "sidecar encode: a folder of frames needs --set sidecars.vae=WEIGHTS");
  ARB_TRY_OUT(st, list_images(args->file, &images));
  ARB_TRY_OUT(st, read_frames(&images, &frames, &height, &width));
  st = arb_wan_check_clip(images.count, height, width);
  if (st != ARB_OK) arb_fail_context("%s", args->file);
  if (st != ARB_OK) goto out;
  const int64_t shape[4] = {ARB_WAN_CHANNELS, 1 + (images.count - 1) / ARB_WAN_FRAMES, height / ARB_WAN_SCALE,
                            width / ARB_WAN_SCALE};
  latent = malloc((size_t)(shape[0] * shape[1] * shape[2] * shape[3] + 1) * sizeof *latent);
  if (latent == NULL) ARB_TRY_OUT(st, ARB_FAIL(ARB_ERR_NOMEM, "out of host memory"));
  ARB_TRY_OUT(st, arb_wan_open(cfg->sidecars.vae, o, &v));
  ARB_TRY_OUT(st, arb_wan_encode(v, frames, images.count, height, width, ARB_WAN_NORMALISED, latent, NULL));
  fprintf(out, "%s, weights %s\n", arb_wan_report(v)->model, arb_wan_report(v)->digest);
  summarise(args->file, latent, shape, out);
  if (args->out) ARB_TRY_OUT(st, store(args->out, args->file, arb_wan_report(v), latent, shape));
out:
  arb_wan_destroy(&v);
  listing_free(&images);
  free(frames);
  free(latent);
  return st;
}

/* A folder that is there and empty afterwards. */
static arb_status empty_folder(const char *path) {
  if (mkdir(path, 0777) == 0) return ARB_OK;
  ARB_REQUIRE(errno == EEXIST, ARB_ERR_IO, "%s: cannot make this folder: %s", path, strerror(errno));
  DIR *d = opendir(path);
  ARB_REQUIRE(d, ARB_ERR_CONFIG, "--out %s: expected a folder: %s", path, strerror(errno));
  int entries = 0;
  while (readdir(d)) entries++;
  closedir(d);
  ARB_REQUIRE(entries <= 2, ARB_ERR_CONFIG, "--out %s: expected a new or an empty folder", path);
  return ARB_OK;
}

static arb_status write_frames(const char *path, bool one, const float *frames, int64_t count, int64_t height, int64_t width) {
  if (one) return write_frame(path, frames, 0, count, height, width);
  ARB_TRY(empty_folder(path));
  for (int64_t t = 0; t < count; t++) {
    char name[4096];
    const int n = snprintf(name, sizeof name, "%s/frame-%05lld.png", path, (long long)t + 1);
    ARB_REQUIRE(n > 0 && n < (int)sizeof name, ARB_ERR_CONFIG, "--out: this path is too long");
    ARB_TRY(write_frame(name, frames, t, count, height, width));
  }
  return ARB_OK;
}

arb_status arb_video_decode(const arb_args *args, const arb_config *cfg, const arb_sidecar_options *o, FILE *out) {
  arb_wan *v = NULL;
  float *frames = NULL, *latent = NULL;
  int64_t shape[4];
  arb_status st;
  ARB_REQUIRE(cfg->sidecars.vae[0], ARB_ERR_CONFIG, "sidecar decode: expected --set sidecars.vae=WEIGHTS");
  ARB_REQUIRE(args->out, ARB_ERR_CONFIG, "sidecar decode: expected --out FOLDER, or --out NAME.png for a single image");
  const bool one = arb_video_is_image(args->out);
  ARB_TRY_OUT(st, read_latent(args->file, &latent, shape));
  const int64_t count = 1 + ARB_WAN_FRAMES * (shape[1] - 1), height = ARB_WAN_SCALE * shape[2],
                width = ARB_WAN_SCALE * shape[3];
  if (one && count > 1)
    ARB_TRY_OUT(st, ARB_FAIL(ARB_ERR_CONFIG, "--out %s: %s gives %lld frames, which need a folder", args->out, args->file,
                             (long long)count));
  if (!one) ARB_TRY_OUT(st, empty_folder(args->out));
  ARB_TRY_OUT(st, arb_wan_open(cfg->sidecars.vae, o, &v));
  /* Sizes beyond the VAE's are refused by decoding. */
  const bool possible = count <= ARB_WAN_LONGEST && height <= ARB_WAN_SIDE && width <= ARB_WAN_SIDE;
  if (possible) frames = malloc((size_t)(3 * count * height * width) * sizeof *frames);
  if (possible && frames == NULL)
    ARB_TRY_OUT(st, ARB_FAIL(ARB_ERR_NOMEM, "out of host memory: %lld frames of %lld x %lld", (long long)count,
                             (long long)width, (long long)height));
  st = arb_wan_decode(v, latent, shape[1], shape[2], shape[3], ARB_WAN_NORMALISED, true, frames);
  if (st != ARB_OK) arb_fail_context("%s", args->file);
  if (st != ARB_OK) goto out;
  ARB_TRY_OUT(st, write_frames(args->out, one, frames, count, height, width));
  fprintf(out, "%s, weights %s\n", arb_wan_report(v)->model, arb_wan_report(v)->digest);
  fprintf(out, "  %s: %lld image%s of %lld x %lld in %s\n", args->file, (long long)count, count > 1 ? "s" : "",
          (long long)width, (long long)height, args->out);
out:
  arb_wan_destroy(&v);
  free(frames);
  free(latent);
  return st;
}

arb_status arb_video_check(const char *path, const arb_sidecar_options *o, FILE *out) {
  enum { H = 32, W = 48 };
  static const int64_t latent_shape[4] = {ARB_WAN_CHANNELS, 1, H / ARB_WAN_SCALE, W / ARB_WAN_SCALE}, shape[4] = {3, 1, H, W};
  static float frames[3 * H * W], latent[ARB_WAN_CHANNELS * H * W / (ARB_WAN_SCALE * ARB_WAN_SCALE)];
  arb_wan *v = NULL;
  arb_synthetic_input("input.wan.T1", 3 * H * W, frames);
  arb_status st = arb_wan_open(path, o, &v);
  if (st == ARB_OK) st = arb_wan_encode(v, frames, 1, H, W, ARB_WAN_NORMALISED, latent, NULL);
  if (st == ARB_OK) st = arb_wan_decode(v, latent, 1, H / ARB_WAN_SCALE, W / ARB_WAN_SCALE, ARB_WAN_NORMALISED, true, frames);
  if (st == ARB_OK) {
    arb_sidecar_print(arb_wan_report(v), out);
    summarise("latent of the test input, normalised", latent, latent_shape, out);
    summarise("that latent decoded", frames, shape, out);
  }
  arb_wan_destroy(&v);
  return st;
}
