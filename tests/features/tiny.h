/* Encoders for tests: features are a fixed function of a file's first bytes, a file that starts with 'X' is corrupt, one that
 * starts with 'N' gives a NaN. Fast, and different enough from file to file that a model can tell them apart. */
#ifndef ARB_TESTS_FEATURES_TINY_H
#define ARB_TESTS_FEATURES_TINY_H

#include <math.h>

#include "src/features/encoder.h"

enum { TINY_IMAGE_ROWS = 7, TINY_IMAGE_WIDTH = 12, TINY_AUDIO_ROWS = 5, TINY_AUDIO_WIDTH = 20 };

typedef struct {
  int64_t rows, width;
} tiny_shape;

static const tiny_shape tiny_image = {TINY_IMAGE_ROWS, TINY_IMAGE_WIDTH}, tiny_audio = {TINY_AUDIO_ROWS, TINY_AUDIO_WIDTH};

static arb_status tiny_encode(void *ctx, const char *name, const unsigned char *bytes, size_t size, float *out) {
  const tiny_shape *t = ctx;
  ARB_REQUIRE(size > 0 && bytes[0] != 'X', ARB_ERR_DATA, "%s: not a sample of this test", name);
  for (int64_t i = 0; i < t->rows * t->width; i++)
    out[i] = (float)((bytes[(size_t)i % size] * 31 + (int)(i * 17)) % 101 - 50) * 0.04f;
  if (bytes[0] == 'N') out[3] = NAN;
  return ARB_OK;
}
static void tiny_destroy(void *ctx) { (void)ctx; }

static inline arb_status tiny_open(const tiny_shape *t, const char *key, arb_encoder **out) {
  static const arb_encoder_ops ops = {tiny_encode, tiny_destroy};
  return arb_encoder_create(&ops, (void *)(uintptr_t)t, key, t->rows, t->width, out);
}

#endif
