/* Frozen encoders as the trainer sees them, and the one stored form of what they give.
 *
 * A sample is one call of fixed shape: the bytes of a file in, `rows` features of `width` floats out. What the model sees is
 * always the stored form, int8 rows with an fp32 scale each (docs/arithmetic.md, "Features"), whether the encoder has just run
 * or a cache was read: so a run gives the same bits either way. */
#ifndef ARB_SRC_FEATURES_ENCODER_H
#define ARB_SRC_FEATURES_ENCODER_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

typedef struct arb_encoder arb_encoder;

typedef struct {
  /* out [rows][width]; name: of the file, for messages, and its ending may be looked at. ARB_ERR_DATA: the bytes are no sample
   * (corrupt, another format); anything else ends the run. */
  arb_status (*encode)(void *ctx, const char *name, const unsigned char *bytes, size_t size, float *out);
  void (*destroy)(void *ctx);
} arb_encoder_ops;

enum { ARB_ENCODER_KEY = 240 }; /* bytes of a key, NUL included */

struct arb_encoder {
  const arb_encoder_ops *ops;
  void *ctx;
  char key[ARB_ENCODER_KEY]; /* all that features depend on besides the sample: weights, preprocessing, implementation */
  int64_t rows, width;
  pthread_mutex_t lock; /* an encoder serves one thread at a time */
  float *raw;           /* [rows][width] */
  int64_t encoded;      /* samples so far; guarded by lock */
  /* What the audit says of it. */
  char model[64];                      /* "dinov2-small, synthetic" */
  char place[64];                      /* "host", or the name of this rank's device */
  int on_device;                       /* each rank has the weights on its own; else a node's ranks share them */
  int64_t weight_bytes, private_bytes; /* weights; activations and scratch of this rank */
};

/* Takes ownership of ctx, also on failure. */
ARB_NODISCARD arb_status arb_encoder_create(const arb_encoder_ops *ops, void *ctx, const char *key, int64_t rows, int64_t width,
                                            arb_encoder **out);
/* NULL-safe; nulls the handle. */
void arb_encoder_destroy(arb_encoder **e);

/* Encodes a sample into its stored form, q [rows][width], s [rows]; any thread. ARB_ERR_NUMERIC: a feature is not finite. */
ARB_NODISCARD arb_status arb_encoder_run(arb_encoder *e, const char *name, const unsigned char *bytes, size_t size, int8_t *q,
                                         float *s);

/* Samples encoded so far; any thread. */
int64_t arb_encoder_count(arb_encoder *e);

/* The stored form of features: a = max |x| of a row; a < 2^-100: zeros; else q = rint(clamp(x * (127 / a), -127, 127)),
 * s = a / 127. Returns 0 if a value is not finite. */
int arb_features_store(const float *x, int64_t rows, int64_t width, int8_t *q, float *s);
/* Its name, part of what a cache is keyed by. */
#define ARB_FEATURES_FORM "int8 rows, fp32 scale"

#endif
