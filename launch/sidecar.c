#include "launch/sidecar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/device.h"
#include "src/bench/sidecar.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"

static arb_sidecar_options options_of(const arb_config *cfg) {
  static const char *const isa[] = {"auto", "scalar", "avx2", "avx512"};
  arb_sidecar_options o = {
      .conv_int8 = cfg->sidecars.conv_int8, .embed_int8 = cfg->sidecars.embed_int8, .isa = isa[cfg->run.isa]};
  (void)arb_device_expected(cfg, 1, &o.threads);
  return o;
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

arb_status arb_command_audit_sidecars(const arb_config *cfg, FILE *out) {
  const arb_sidecar_options o = options_of(cfg);
  fprintf(out, "\nimported sidecars: apart from the ternary state above, in no checkpoint, never trained\n");
  if (cfg->sidecars.dino[0] == '\0' && cfg->sidecars.moonshine[0] == '\0')
    fprintf(out, "none: sidecars.dino and sidecars.moonshine are not given\n");
  if (cfg->sidecars.dino[0]) ARB_TRY(check_dino(cfg->sidecars.dino, &o, out));
  if (cfg->sidecars.moonshine[0]) ARB_TRY(check_moonshine(cfg->sidecars.moonshine, &o, out));
  return ARB_OK;
}

static arb_status check(const arb_args *args, const arb_config *cfg, FILE *out) {
  arb_sidecar_options o = options_of(cfg);
  arb_sidecar_kind kind;
  o.decoder = true;
  if (args->file == NULL) {
    ARB_REQUIRE(cfg->sidecars.dino[0] || cfg->sidecars.moonshine[0], ARB_ERR_CONFIG,
                "sidecar check: expected a folder or file of weights, or --set sidecars.dino or sidecars.moonshine");
    if (cfg->sidecars.dino[0]) ARB_TRY(check_dino(cfg->sidecars.dino, &o, out));
    return cfg->sidecars.moonshine[0] ? check_moonshine(cfg->sidecars.moonshine, &o, out) : ARB_OK;
  }
  ARB_TRY(arb_sidecar_identify(args->file, &kind));
  ARB_REQUIRE(kind != ARB_SIDECAR_UNKNOWN, ARB_ERR_DATA,
              "%s: neither DINOv2-small nor Moonshine-base by the names of its tensors", args->file);
  return kind == ARB_SIDECAR_DINO ? check_dino(args->file, &o, out) : check_moonshine(args->file, &o, out);
}

/* ---- the commands ---- */

arb_status arb_command_sidecar(const arb_args *args, const arb_config *cfg, FILE *out) { return check(args, cfg, out); }

arb_status arb_command_bench_sidecar(const arb_config *cfg, FILE *out) {
  const arb_sidecar_options o = options_of(cfg);
  return arb_bench_sidecar(out, cfg->sidecars.dino, cfg->sidecars.moonshine, &o, 0);
}
