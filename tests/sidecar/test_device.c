/* Encoders on a device, without one: a device whose memory the host cannot reach between operations, and whose operations are
 * the CPU's. The same bits as on the CPU mean that every value went through the device's table and nothing around it. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/sidecar/ops.h"
#include "src/sidecar/source.h"
#include "src/sidecar/wan.h"
#include "src/sidecar/wan_impl.h"
#include "tests/test.h"

/* ---- the device ---- */

#define ROOM ((size_t)3 << 30) /* addresses, not memory */

typedef struct {
  arb_ops host;
  unsigned char *memory;
  size_t used;
  int calls;
} mirror;

static mirror *enter(arb_dense_device *d) {
  mirror *m = d->ctx;
  m->calls++;
  assert_int_equal(mprotect(m->memory, m->used + 1, PROT_READ | PROT_WRITE), 0);
  return m;
}

static arb_status done(mirror *m) {
  assert_int_equal(mprotect(m->memory, m->used + 1, PROT_NONE), 0);
  return ARB_OK;
}

static arb_status alloc(arb_dense_device *d, size_t bytes, void **out) {
  mirror *m = d->ctx;
  *out = m->memory + m->used;
  m->used += (bytes + 4095) / 4096 * 4096; /* new pages are zeroed */
  assert_true(m->used < ROOM);
  return ARB_OK;
}
static void give_up(arb_dense_device *d, void *memory) { (void)d, (void)memory; }
static arb_status upload(arb_dense_device *d, void *to, const void *from, size_t bytes) {
  mirror *m = enter(d);
  memcpy(to, from, bytes);
  return done(m);
}
static arb_status copy(arb_dense_device *d, void *to, const void *from, size_t bytes) {
  mirror *m = enter(d);
  memmove(to, from, bytes);
  return done(m);
}
static size_t held(const arb_dense_device *d) { return d->ctx ? 0 : 1; }
static void destroy(arb_dense_device *d) {
  mirror *m = d->ctx;
  assert_true(m->calls > 0);
  arb_ops_destroy(&m->host);
  munmap(m->memory, ROOM);
  free(m);
  free(d);
}

static arb_status product(arb_dense_device *d, const arb_dense_reach *x, int64_t rows, const arb_dense_matrix *w,
                          const arb_dense_epilogue *e, float *y, int64_t ldy) {
  mirror *m = enter(d);
  const float **at = malloc((size_t)(x->taps * rows) * sizeof *at);
  float *scratch = malloc((size_t)arb_dense_scratch(x->depth) * sizeof *scratch);
  assert_true(at && scratch);
  for (int64_t t = 0; t < x->taps; t++)
    for (int64_t r = 0; r < rows; r++) at[t * rows + r] = x->at[t] + r / x->width * x->row + r % x->width * x->pixel;
  const arb_dense_input in = {.at = at, .stride = rows, .taps = x->taps, .depth = x->depth};
  for (int64_t r = 0; r < rows; r += ARB_DENSE_ROWS)
    for (int64_t p = 0; p < arb_dense_panels(w->n); p++)
      m->host.kernels->product(&in, r, r + ARB_DENSE_ROWS < rows ? r + ARB_DENSE_ROWS : rows, w, p, e, y, ldy, scratch);
  free((void *)at);
  free(scratch);
  return done(m);
}
static arb_status layer_norm(arb_dense_device *d, const float *x, int64_t ldx, int64_t m, int64_t width, const float *weight,
                             const float *bias, float eps, float *y, int64_t ldy) {
  mirror *k = enter(d);
  arb_ops_layer_norm(&k->host, x, ldx, m, width, weight, bias, eps, y, ldy);
  return done(k);
}
static arb_status append(arb_dense_device *d, const arb_dense_kv *kv, const float *k, int64_t ldk, const float *v, int64_t ldv,
                         int64_t m) {
  mirror *to = enter(d);
  arb_kv own = *kv;
  arb_ops_append(&to->host, &own, k, ldk, v, ldv, m);
  return done(to);
}
static arb_status attend(arb_dense_device *d, const arb_dense_kv *kv, const float *q, int64_t ldq, int64_t m, float scale,
                         int causal, float *out, int64_t ldo) {
  mirror *k = enter(d);
  arb_ops_attend(&k->host, kv, q, ldq, m, scale, causal != 0, out, ldo);
  return done(k);
}
static arb_status table(arb_dense_device *d, const arb_dense_matrix *w, const int32_t *ids, int64_t count, float *out,
                        int64_t ldo) {
  mirror *k = enter(d);
  const arb_sidecar_layer l = {.w = *w, .taps = 1, .depth = w->k};
  arb_ops_table(&k->host, &l, ids, count, out, ldo);
  return done(k);
}
static arb_status gate(arb_dense_device *d, const float *value, const float *open, int64_t ld, int64_t m, int64_t width,
                       float *out, int64_t ldo) {
  mirror *k = enter(d);
  arb_ops_gate(&k->host, value, open, ld, m, width, out, ldo);
  return done(k);
}
static arb_status rotate(arb_dense_device *d, float *x, int64_t ld, int64_t m, int64_t heads, int64_t width, int64_t pairs,
                         const float *turns) {
  mirror *k = enter(d);
  arb_ops_rotate(&k->host, x, ld, m, heads, width, pairs, turns);
  return done(k);
}
static arb_status group_norm(arb_dense_device *d, float *x, int64_t m, int64_t width, const float *weight, const float *bias,
                             float eps, float *sums) {
  mirror *k = enter(d);
  arb_ops_group_norm(&k->host, x, m, width, weight, bias, eps, sums);
  return done(k);
}
static arb_status frame(arb_dense_device *d, const arb_dense_frame *f, float *out) {
  mirror *k = enter(d);
  const arb_wan_gain gain = {.c = f->c, .gamma = f->gain};
  if (f->doubled)
    arb_wan_frame_doubled(&k->host, f->x, f->ldx, f->h, f->w, f->c, out);
  else
    arb_wan_frame(&k->host, f->x, f->ldx, f->h, f->w, f->c, f->gain ? &gain : NULL, out);
  return done(k);
}
static arb_status rms(arb_dense_device *d, const float *x, int64_t m, int64_t width, const float *gain, float *y) {
  mirror *k = enter(d);
  const arb_wan_gain g = {.c = (int)width, .gamma = gain};
  arb_wan_norm(&k->host, x, m, &g, y);
  return done(k);
}

static arb_status open_mirror(int index, arb_dense_device **out) {
  const arb_sidecar_options o = {.threads = 2};
  arb_dense_device *d = calloc(1, sizeof *d);
  mirror *m = calloc(1, sizeof *m);
  assert_true(d && m);
  assert_int_equal(index, 7);
  m->memory = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  assert_true(m->memory != MAP_FAILED);
  arb_assert_ok(arb_ops_create(&o, 7 * ARB_MOONSHINE_WIDTH, 1024, &m->host));
  *d = (arb_dense_device){"mirror",   m,      alloc,  give_up, upload, upload, copy,       held,  destroy, product,
                          layer_norm, append, attend, table,   gate,   rotate, group_norm, frame, rms};
  *out = d;
  return ARB_OK;
}

static arb_status open_none(int index, arb_dense_device **out) {
  (void)index;
  *out = NULL;
  return ARB_FAIL(ARB_ERR_UNSUPPORTED, "no such device");
}

/* ---- the encoders ---- */

static const arb_sidecar_options here = {.threads = 2, .decoder = true};
static const arb_sidecar_options there = {.threads = 2, .decoder = true, .place = {open_mirror, 7}};

static float *floats(int64_t count) {
  float *x = calloc((size_t)count, sizeof *x);
  assert_non_null(x);
  return x;
}

static void same(const float *a, const float *b, int64_t count) { assert_memory_equal(a, b, (size_t)count * sizeof *a); }

static void test_dino(void **state) {
  enum { PIXELS = 3 * ARB_DINO_SIDE * ARB_DINO_SIDE, FEATURES = ARB_DINO_PATCHES * ARB_DINO_WIDTH };
  arb_dino *a = NULL, *b = NULL;
  float *pixels = floats(PIXELS), *want = floats(FEATURES), *got = floats(FEATURES);
  (void)state;
  arb_synthetic_input("input.dino", PIXELS, pixels);
  arb_assert_ok(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &here, &a));
  arb_assert_ok(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &there, &b));
  arb_assert_ok(arb_dino_features(a, pixels, want));
  arb_assert_ok(arb_dino_features(b, pixels, got));
  same(want, got, FEATURES);
  assert_string_equal(arb_dino_report(a)->digest, arb_dino_report(b)->digest);
  assert_string_equal(arb_dino_report(a)->place, "host");
  assert_string_equal(arb_dino_report(b)->place, "mirror");
  assert_int_equal(arb_dino_report(a)->all.int8_bytes, arb_dino_report(b)->all.int8_bytes);
  arb_dino_destroy(&a);
  arb_dino_destroy(&b);
  free(pixels), free(want), free(got);
}

static void test_moonshine(void **state) {
  enum { SAMPLES = 15360, MOST = 4 };
  static const int32_t ids[3] = {1, 4711, 32767};
  const int64_t features = arb_moonshine_frames(SAMPLES) * ARB_MOONSHINE_WIDTH;
  arb_moonshine *a = NULL, *b = NULL;
  float *samples = floats(SAMPLES), *want = floats(ARB_MOONSHINE_VOCABULARY), *got = floats(ARB_MOONSHINE_VOCABULARY);
  int32_t text[2][MOST];
  int64_t frames, count[2];
  (void)state;
  arb_synthetic_input("input.moon", SAMPLES, samples);
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &here, &a));
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &there, &b));
  arb_assert_ok(arb_moonshine_features(a, samples, SAMPLES, want, &frames));
  arb_assert_ok(arb_moonshine_features(b, samples, SAMPLES, got, NULL));
  same(want, got, features);
  float *encoded = floats(features);
  memcpy(encoded, want, (size_t)features * sizeof *encoded);
  arb_assert_ok(arb_moonshine_logits(a, encoded, frames, ids, 3, want));
  arb_assert_ok(arb_moonshine_logits(b, encoded, frames, ids, 3, got));
  same(want, got, ARB_MOONSHINE_VOCABULARY);
  arb_assert_ok(arb_moonshine_transcribe(a, samples, SAMPLES, MOST, text[0], &count[0]));
  arb_assert_ok(arb_moonshine_transcribe(b, samples, SAMPLES, MOST, text[1], &count[1]));
  assert_int_equal(count[0], count[1]);
  assert_memory_equal(text[0], text[1], (size_t)count[0] * sizeof text[0][0]);
  arb_moonshine_destroy(&a);
  arb_moonshine_destroy(&b);
  free(samples), free(want), free(got), free(encoded);
}

static void test_wan(void **state) {
  enum { T = 5, H = 8, W = 16, PIXELS = 3 * T * H * W, LATENTS = ARB_WAN_CHANNELS * 2 * (H / 8) * (W / 8) };
  arb_wan *v[2] = {NULL, NULL};
  arb_sidecar_options o[2] = {here, there};
  static float frames[PIXELS], latent[2][LATENTS], variance[2][LATENTS], decoded[2][PIXELS];
  (void)state;
  arb_synthetic_input("input.wan.T5", PIXELS, frames);
  for (int i = 0; i < 2; i++) {
    o[i].conv_int8 = true; /* fewer pages to guard */
    arb_assert_ok(arb_wan_open(ARB_SIDECAR_SYNTHETIC, &o[i], &v[i]));
    arb_assert_ok(arb_wan_encode(v[i], frames, 1, H, W, ARB_WAN_RAW, latent[i], NULL));
    arb_assert_ok(arb_wan_encode(v[i], frames, T, H, W, ARB_WAN_NORMALISED, latent[i], variance[i]));
    arb_assert_ok(arb_wan_decode(v[i], latent[i], 2, H / 8, W / 8, ARB_WAN_NORMALISED, true, decoded[i]));
    arb_wan_destroy(&v[i]);
  }
  same(latent[0], latent[1], LATENTS);
  same(variance[0], variance[1], LATENTS);
  same(decoded[0], decoded[1], PIXELS);
}

/* A shared block's calls, which are collective: as many on a rank that fails as on one that does not. */
typedef struct {
  int taken, filled, given_back;
} calls;

static arb_status take(void *arg, size_t bytes, void **base, int *fill) {
  ((calls *)arg)->taken++;
  *fill = 1;
  *base = aligned_alloc(64, (bytes + 63) / 64 * 64);
  assert_non_null(*base);
  memset(*base, 0, bytes);
  return ARB_OK;
}
static arb_status filled(void *arg, arb_status st) {
  ((calls *)arg)->filled++;
  return st;
}
static void give_back(void *arg, void *base, size_t bytes) {
  (void)bytes;
  ((calls *)arg)->given_back++;
  free(base);
}

static void test_shared(void **state) {
  calls c = {0};
  const arb_sidecar_memory memory = {&c, take, filled, give_back};
  arb_sidecar_options o = there;
  arb_dino *d = NULL;
  arb_wan *v = NULL;
  (void)state;
  o.memory = &memory;
  arb_assert_ok(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &o, &d));
  assert_true(c.taken == 1 && c.filled == 1 && c.given_back == 1); /* the weights are on the device alone */
  arb_dino_destroy(&d);
  assert_int_equal(c.given_back, 1);
  o.place.open = open_none;
  assert_int_equal(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &o, &d), ARB_ERR_UNSUPPORTED);
  assert_null(d);
  assert_true(c.taken == 2 && c.filled == 2 && c.given_back == 2);
  assert_int_equal(arb_wan_open(ARB_SIDECAR_SYNTHETIC, &o, &v), ARB_ERR_UNSUPPORTED);
  assert_null(v);
  assert_true(c.taken == 3 && c.filled == 3 && c.given_back == 3);
  arb_fail_clear();
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_dino), cmocka_unit_test(test_moonshine), cmocka_unit_test(test_wan),
                                     cmocka_unit_test(test_shared)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
