/* Samples on their way to the model: read, encoded or taken from the cache by threads that work ahead, and handed out in order.
 *
 * A sample that cannot be decoded leaves its slot empty: it is handed out as such, and the ones behind it do not move. What
 * ends the run is a file that cannot be read or has changed, and a feature that is not finite. */
#ifndef ARB_SRC_FEATURES_FEED_H
#define ARB_SRC_FEATURES_FEED_H

#include "src/data/pairs.h"
#include "src/features/cache.h"
#include "src/features/encoder.h"

typedef struct {
  const arb_pairs *pairs;                       /* borrowed, with hashes */
  arb_encoder *encoder[ARB_MEDIA_KINDS];        /* borrowed; NULL: samples' files of this kind are not looked at */
  arb_feature_cache *cache[ARB_MEDIA_KINDS];    /* borrowed; NULL: none */
  int threads, ahead;                           /* workers; samples in memory, at least 2 */
  int64_t jobs;                                 /* how many samples will be taken; -1: no end */
  int64_t (*sample_at)(void *arg, int64_t job); /* the sample of a job from 0; any thread */
  void *arg;
} arb_feed_options;

typedef struct {
  int64_t sample; /* in the manifest */
  int empty;      /* it could not be decoded: why says it */
  char why[512];
  int present[ARB_MEDIA_KINDS];
  int8_t *q[ARB_MEDIA_KINDS]; /* [rows][width] where present */
  float *s[ARB_MEDIA_KINDS];
} arb_feed_sample;

typedef struct arb_feed arb_feed;

/* o is copied. Starts the workers. */
ARB_NODISCARD arb_status arb_feed_create(const arb_feed_options *o, arb_feed **out);
/* The next sample in the order of jobs; valid until the next call. */
ARB_NODISCARD arb_status arb_feed_take(arb_feed *f, const arb_feed_sample **out);
/* Ends the workers; NULL-safe; nulls the handle. */
void arb_feed_destroy(arb_feed **f);

#endif
