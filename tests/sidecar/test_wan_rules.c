/* What holds of the video VAE whatever its weights: names, causality, independence of threads, instruction sets and sharing,
 * sizes it refuses, files it refuses. Synthetic weights in int8, small frames. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/sidecar/source.h"
#include "src/sidecar/wan.h"
#include "src/sidecar/wan_impl.h"
#include "tests/sidecar/published.h"
#include "tests/test.h"

enum { SIDE = PUBLISHED_QUICK ? 8 : 16, LATENT = SIDE / 8 };

/* One block of weights for all tests: the first to open fills it, the others share it. */
typedef struct {
  void *base;
  size_t bytes;
  int opened;
} shared_block;
static shared_block block;

static arb_status block_take(void *arg, size_t bytes, void **base, int *fill) {
  shared_block *b = arg;
  if (b->base == NULL) {
    b->base = aligned_alloc(ARB_ARENA_ALIGN, bytes);
    assert_non_null(b->base);
    memset(b->base, 0, bytes);
    b->bytes = bytes;
  }
  assert_int_equal(bytes, b->bytes);
  *base = b->base;
  *fill = b->opened++ == 0;
  return ARB_OK;
}
static arb_status block_filled(void *arg, arb_status st) {
  (void)arg;
  return st;
}
static void block_give_back(void *arg, void *base, size_t bytes) {
  (void)arg;
  (void)base;
  (void)bytes;
}
static const arb_sidecar_memory memory = {&block, block_take, block_filled, block_give_back};

static arb_wan *open_with(int threads, const char *isa) {
  arb_wan *v = NULL;
  arb_assert_ok(arb_wan_open(ARB_SIDECAR_SYNTHETIC,
                             &(arb_sidecar_options){.conv_int8 = true, .threads = threads, .isa = isa, .memory = &memory}, &v));
  return v;
}

static int free_block(void **state) {
  (void)state;
  free(block.base);
  return 0;
}

/* planes [planes][t][pixels] -> the first `first` of the t frames */
static float *first_frames(const float *x, int64_t planes, int64_t t, int64_t pixels, int64_t first) {
  float *out = malloc((size_t)(planes * first * pixels) * sizeof *out);
  assert_non_null(out);
  for (int64_t c = 0; c < planes; c++)
    memcpy(out + c * first * pixels, x + c * t * pixels, (size_t)(first * pixels) * sizeof *out);
  return out;
}

static float *encoded(arb_wan *v, const float *frames, int64_t t, int64_t h, int64_t w) {
  float *latent = malloc((size_t)(16 * (1 + (t - 1) / 4) * h / 8 * w / 8) * sizeof *latent);
  assert_non_null(latent);
  arb_assert_ok(arb_wan_encode(v, frames, t, h, w, ARB_WAN_NORMALISED, latent, NULL));
  return latent;
}

static float *decoded(arb_wan *v, const float *latent, int64_t t, int64_t h, int64_t w) {
  float *frames = malloc((size_t)(3 * (4 * t - 3) * 64 * h * w) * sizeof *frames);
  assert_non_null(frames);
  arb_assert_ok(arb_wan_decode(v, latent, t, h, w, ARB_WAN_NORMALISED, true, frames));
  return frames;
}

/* Does not depend on what comes later, or came before in another call. */
static void test_causality(void **state) {
  (void)state;
  enum { Z = PUBLISHED_QUICK ? 2 : 3, T = 4 * Z - 3 };
  static float frames[3 * T * SIDE * SIDE], latent[16 * Z * LATENT * LATENT];
  arb_synthetic_input("clip", 3 * T * SIDE * SIDE, frames);
  arb_synthetic_input("latent", 16 * Z * LATENT * LATENT, latent);
  arb_wan *v = open_with(2, "auto");
  float *whole = encoded(v, frames, T, SIDE, SIDE), *shown = decoded(v, latent, Z, LATENT, LATENT);
  for (int64_t z = 1; z < Z; z++) {
    const int64_t t = 4 * z - 3;
    float *part = first_frames(frames, 3, T, SIDE * SIDE, t), *want = first_frames(whole, 16, Z, LATENT * LATENT, z);
    float *got = encoded(v, part, t, SIDE, SIDE);
    assert_memory_equal(got, want, (size_t)(16 * z * LATENT * LATENT) * sizeof *got);
    free(part);
    free(want);
    free(got);
    part = first_frames(latent, 16, Z, LATENT * LATENT, z);
    want = first_frames(shown, 3, T, SIDE * SIDE, t);
    got = decoded(v, part, z, LATENT, LATENT);
    assert_memory_equal(got, want, (size_t)(3 * t * SIDE * SIDE) * sizeof *got);
    free(part);
    free(want);
    free(got);
  }
  free(whole);
  free(shown);
  arb_wan_destroy(&v);
}

/* A sharer of the block, other thread counts and levels give the bits of the first. */
static void same_bits(int threads, const char *isa, int64_t t, int64_t h, int64_t w) {
  if (arb_dense_pick(isa) == NULL) {
    printf("NOT COMPARED: this machine has no %s\n", isa);
    return;
  }
  const int64_t z = 1 + (t - 1) / 4;
  float *frames = malloc((size_t)(3 * t * h * w) * sizeof *frames);
  assert_non_null(frames);
  arb_synthetic_input("bits", 3 * t * h * w, frames);
  arb_wan *a = open_with(1, "auto"), *b = open_with(threads, isa);
  float *want = encoded(a, frames, t, h, w), *got = encoded(b, frames, t, h, w);
  assert_memory_equal(got, want, (size_t)(16 * z * h * w / 64) * sizeof *got);
  float *shown = decoded(a, want, z, h / 8, w / 8), *again = decoded(b, want, z, h / 8, w / 8);
  assert_memory_equal(again, shown, (size_t)(3 * t * h * w) * sizeof *again);
  arb_wan_destroy(&a);
  arb_wan_destroy(&b);
  free(frames);
  free(want);
  free(got);
  free(shown);
  free(again);
}

static void test_threads(void **state) {
  (void)state;
  same_bits(3, "auto", 5, SIDE, SIDE == 8 ? 8 : 24);
}

static void test_levels(void **state) {
  (void)state;
  same_bits(2, "avx2", SIDE == 8 ? 1 : 5, SIDE, 8);
  if (!PUBLISHED_QUICK) same_bits(2, "scalar", 1, 8, 8);
}

/* Decoding what was encoded undoes the normalisation: raw and normalised latents give the same pixels. */
static void test_forms(void **state) {
  (void)state;
  static float frames[3 * 64], raw[16], normalised[16], a[3 * 64], b[3 * 64];
  arb_synthetic_input("forms", 3 * 64, frames);
  arb_wan *v = open_with(1, "auto");
  arb_assert_ok(arb_wan_encode(v, frames, 1, 8, 8, ARB_WAN_RAW, raw, NULL));
  arb_assert_ok(arb_wan_encode(v, frames, 1, 8, 8, ARB_WAN_NORMALISED, normalised, NULL));
  arb_assert_ok(arb_wan_decode(v, raw, 1, 1, 1, ARB_WAN_RAW, false, a));
  arb_assert_ok(arb_wan_decode(v, normalised, 1, 1, 1, ARB_WAN_NORMALISED, false, b));
  for (int i = 0; i < 3 * 64; i++)
    if (!(fabsf(a[i] - b[i]) < 1e-4f)) fail_msg("pixel %d: %g and %g", i, (double)a[i], (double)b[i]);
  /* Clamping changes what is beyond [-1, 1] alone. */
  enum { PIXELS = 3 * 5 * SIDE * SIDE };
  static float latent[16 * 2 * LATENT * LATENT], open[PIXELS], clamped[PIXELS];
  arb_synthetic_input("clamp", 16 * 2 * LATENT * LATENT, latent);
  arb_assert_ok(arb_wan_decode(v, latent, 2, LATENT, LATENT, ARB_WAN_RAW, false, open));
  arb_assert_ok(arb_wan_decode(v, latent, 2, LATENT, LATENT, ARB_WAN_RAW, true, clamped));
  int beyond = 0;
  for (int i = 0; i < PIXELS; i++) {
    assert_true(clamped[i] == (open[i] < -1.0f ? -1.0f : open[i] > 1.0f ? 1.0f : open[i]));
    beyond += open[i] != clamped[i];
  }
  assert_true(beyond > 0);
  arb_wan_destroy(&v);
}

static void test_sizes(void **state) {
  (void)state;
  float x[3 * 64] = {0}, z[16];
  arb_wan *v = open_with(1, "auto");
  static const int64_t lengths[] = {0, -3, 2, 3, 4, 6, 8, 65541};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
    arb_assert_fails(arb_wan_encode(v, x, lengths[i], 8, 8, ARB_WAN_RAW, z, NULL), ARB_ERR_DATA, "1, 5, 9, ...");
  static const int64_t sides[] = {0, 4, 12, 225, 4104, -8};
  for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
    arb_assert_fails(arb_wan_encode(v, x, 1, sides[i], 8, ARB_WAN_RAW, z, NULL), ARB_ERR_DATA, "multiples of 8");
    arb_assert_fails(arb_wan_encode(v, x, 1, 8, sides[i], ARB_WAN_RAW, z, NULL), ARB_ERR_DATA, "multiples of 8");
  }
  arb_assert_fails(arb_wan_decode(v, z, 0, 1, 1, ARB_WAN_RAW, true, x), ARB_ERR_DATA, "0 frames");
  arb_assert_fails(arb_wan_decode(v, z, 1, 513, 1, ARB_WAN_RAW, true, x), ARB_ERR_DATA, "1 x 513");
  x[77] = NAN;
  arb_assert_fails(arb_wan_encode(v, x, 1, 8, 8, ARB_WAN_RAW, z, NULL), ARB_ERR_NUMERIC, "value 77");
  memset(z, 0, sizeof z);
  z[3] = INFINITY;
  arb_assert_fails(arb_wan_decode(v, z, 1, 1, 1, ARB_WAN_RAW, true, x), ARB_ERR_NUMERIC, "value 3");
  arb_wan_destroy(&v);
}

/* ---- names ---- */

enum { TENSORS = 194 };
typedef struct {
  char name[2][ARB_WAN_NAME + 8], shape[48];
} named;

static int name_conv(named *to, const arb_wan_conv *c) {
  for (int i = 0; i < 2; i++) {
    snprintf(to[0].name[i], sizeof to[0].name[i], "%s.weight", c->name[i]);
    snprintf(to[1].name[i], sizeof to[1].name[i], "%s.bias", c->name[i]);
  }
  if (c->rank == 5)
    snprintf(to[0].shape, sizeof to[0].shape, "(%d,%d,%d,%d,%d)", c->cout, c->cin, c->nt, c->ny, c->nx);
  else
    snprintf(to[0].shape, sizeof to[0].shape, "(%d,%d,%d,%d)", c->cout, c->cin, c->ny, c->nx);
  snprintf(to[1].shape, sizeof to[1].shape, "(%d)", c->cout);
  return 2;
}

static int name_gain(named *to, const arb_wan_gain *g) {
  for (int i = 0; i < 2; i++) snprintf(to->name[i], sizeof to->name[i], "%s", g->name[i]);
  snprintf(to->shape, sizeof to->shape, g->rank == 4 ? "(%d,1,1,1)" : "(%d,1,1)", g->c);
  return 1;
}

static void all_names(named *to) {
  static arb_wan_model m;
  int n = 0;
  arb_wan_model_init(&m);
  for (int side = 0; side < ARB_WAN_HALVES; side++) {
    const arb_wan_half *h = &m.half[side];
    n += name_conv(to + n, &h->in);
    for (int i = 0; i < h->steps; i++) {
      for (int j = 0; j < h->step[i].gains; j++) n += name_gain(to + n, &h->step[i].gain[j]);
      for (int j = 0; j < h->step[i].convs; j++) n += name_conv(to + n, &h->step[i].conv[j]);
    }
    n += name_gain(to + n, &h->head_gain);
    n += name_conv(to + n, &h->head);
    n += name_conv(to + n, &h->latent);
  }
  assert_int_equal(n, TENSORS);
}

static void test_names(void **state) {
  (void)state;
  static named ours[TENSORS];
  all_names(ours);
  FILE *f = fopen(ARB_ROOT "/../shared/spec/tensors/wan21_vae.tensors.tsv", "r");
  if (f == NULL) {
    printf("NOT COMPARED WITH THE LIST OF TENSORS: no ../shared/spec/tensors\n");
    skip();
  }
  char line[512], a[128], b[128], shape[64];
  int rows = 0;
  assert_non_null(fgets(line, sizeof line, f));
  while (fgets(line, sizeof line, f)) {
    assert_int_equal(sscanf(line, "%127s %127s %63s", a, b, shape), 3);
    int i = 0;
    while (i < TENSORS && strcmp(ours[i].name[0], a) != 0) i++;
    if (i == TENSORS) fail_msg("%s is not among ours", a);
    assert_string_equal(ours[i].name[1], b);
    assert_string_equal(ours[i].shape, shape);
    rows++;
  }
  fclose(f);
  assert_int_equal(rows, TENSORS);
}

/* ---- files ---- */

static char path[64];

/* A safetensors file of zeros with these tensors, F16. A hole in the file stands for the zeros. */
static void write_file(const named *tensors, int count, int naming) {
  char *header = malloc(64 * 1024);
  assert_non_null(header);
  int n = sprintf(header, "{");
  int64_t at = 0;
  for (int i = 0; i < count; i++) {
    char shape[48];
    int64_t bytes = 2;
    snprintf(shape, sizeof shape, "%.*s", (int)strlen(tensors[i].shape) - 2, tensors[i].shape + 1);
    for (char *p = shape; *p; p++) {
      bytes *= strtoll(p, &p, 10);
      if (*p == '\0') break;
    }
    n += sprintf(header + n, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[%s],\"data_offsets\":[%lld,%lld]}", i ? "," : "",
                 tensors[i].name[naming], shape, (long long)at, (long long)(at + bytes));
    at += bytes;
  }
  n += sprintf(header + n, "}");
  while (n % 8) header[n++] = ' ';
  const uint64_t length = (uint64_t)n;
  snprintf(path, sizeof path, "wan-%d.safetensors", (int)getpid());
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(&length, 8, 1, f), 1);
  assert_int_equal(fwrite(header, 1, (size_t)n, f), n);
  fclose(f);
  assert_int_equal(truncate(path, 8 + n + at), 0);
  free(header);
}

/* Both namings load, to the last tensor. */
static void test_files(void **state) {
  (void)state;
  static named ours[TENSORS];
  all_names(ours);
  for (int naming = PUBLISHED_QUICK; naming < 2; naming++) {
    arb_wan *v = NULL;
    write_file(ours, TENSORS, naming);
    const arb_status st = arb_wan_open(path, &(arb_sidecar_options){.conv_int8 = true}, &v);
    unlink(path);
    arb_assert_ok(st);
    assert_int_equal(arb_wan_report(v)->all.parameters, 126892531);
    arb_wan_destroy(&v);
  }
}

static void refused(const named *tensors, int count, const char *message) {
  arb_wan *v = NULL;
  write_file(tensors, count, 0);
  arb_assert_fails(arb_wan_open(path, &(arb_sidecar_options){.conv_int8 = true}, &v), ARB_ERR_DATA, message);
  unlink(path);
  assert_null(v);
}

static void test_other_files(void **state) {
  (void)state;
  static named ours[TENSORS];
  all_names(ours);
  arb_wan *v = NULL;
  arb_assert_fails(arb_wan_open("no such file", &(arb_sidecar_options){0}, &v), ARB_ERR_DATA, "no such file");
  const named wan22 = {.name = {"decoder.upsamples.0.upsamples.0.residual.2.weight"}, .shape = "(8)"};
  refused(&wan22, 1, "Wan 2.2");
  const named hunyuan = {.name = {"decoder.conv_in.conv.weight"}, .shape = "(8)"};
  refused(&hunyuan, 1, "HunyuanVideo");
  const named flat = {.name = {"decoder.conv_in.weight"}, .shape = "(8)"};
  refused(&flat, 1, "another autoencoder");
  const named none = {.name = {"lm_head.weight"}, .shape = "(8)"};
  refused(&none, 1, "not a Wan 2.1 VAE");
  /* The right tensors but one. */
  const named last = ours[TENSORS - 1];
  refused(ours, TENSORS - 1, last.name[0]);
  strcpy(ours[TENSORS - 1].shape, "(17)");
  refused(ours, TENSORS, last.name[0]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_names),  cmocka_unit_test(test_causality),   cmocka_unit_test(test_threads),
      cmocka_unit_test(test_levels), cmocka_unit_test(test_forms),       cmocka_unit_test(test_sizes),
      cmocka_unit_test(test_files),  cmocka_unit_test(test_other_files),
  };
  return cmocka_run_group_tests(tests, NULL, free_block);
}
