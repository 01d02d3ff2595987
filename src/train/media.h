/* Runs on manifests: samples of image, audio and text, their encoders and what feeds them to a step. Private to src/train. */
#ifndef ARB_SRC_TRAIN_MEDIA_H
#define ARB_SRC_TRAIN_MEDIA_H

#include "src/features/feed.h"
#include "src/train/trainer.h"

#define ARB_MEDIA_MASKS (1 << ARB_MEDIA_KINDS) /* which kinds a sample has: bit k for kind k */

typedef struct arb_media {
  arb_pairs train, valid; /* hashed */
  arb_encoder *encoder[ARB_MEDIA_KINDS];
  arb_feature_cache *cache[ARB_MEDIA_KINDS];
  /* training */
  arb_feed *feed;
  int64_t feed_last;                       /* the last step that it has samples for */
  int64_t feed_first, feed_step, feed_job; /* the step it began with; whose samples it gives next; samples taken */
  const arb_trainer *owner;
  unsigned char *listed; /* [train.count] was reported as corrupt */
  int64_t epoch, empty;  /* empty slots so far in this epoch, over all ranks */
  /* one batch, in host memory */
  int8_t *q[ARB_MEDIA_KINDS];
  float *s[ARB_MEDIA_KINDS];
  uint8_t *present[ARB_MEDIA_KINDS];
  arb_model_features features[ARB_FEATURE_KINDS];
  int64_t nodes;               /* machines among the ranks: replicas of the encoders' weights */
  double val[ARB_MEDIA_MASKS]; /* bits per byte of the last evaluation by kinds; negative: no such samples */
} arb_media;

/* Collective. Reads and hashes the manifests (each rank a share), takes or opens the encoders, opens the caches. encoders:
 * NULL, or [ARB_MEDIA_KINDS] of the caller's own, whose ownership passes. data: arb_trainer_data. */
ARB_NODISCARD arb_status arb_media_open(arb_trainer *t, int data, arb_encoder **encoders);
void arb_media_close(arb_trainer *t);
/* The rows that features add to a sequence. */
void arb_media_extend(const arb_media *m, arb_model_spec *spec);
/* Host buffers for batches of the model. */
ARB_NODISCARD arb_status arb_media_allocate(arb_trainer *t);

/* Fills ids, targets and features of this rank's next `count` grains; adds the numbers of empty slots: all, and those in the
 * epoch in which the step ends. */
ARB_NODISCARD arb_status arb_media_fill(arb_trainer *t, int64_t step, int64_t count, int64_t empty[2]);
/* After the sum over ranks: ARB_ERR_DATA when an epoch has more empty slots than data.corrupt_limit. */
ARB_NODISCARD arb_status arb_media_check(arb_trainer *t, int64_t step, const int64_t empty[2]);

/* The frozen encoders: their weights, one replica a node, and what each rank has of its own. */
void arb_media_audit(const arb_trainer *t, FILE *out);

/* A slot of the batch: features of a sample, or none. */
void arb_media_put(arb_media *m, int64_t slot, const arb_feed_sample *s);

/* Validation samples that an evaluation takes, and the k-th of them. */
int64_t arb_media_valid_count(const arb_trainer *t);
int64_t arb_media_valid_at(const arb_media *m, int64_t k);
/* The kinds of a sample that this run encodes. */
int arb_media_mask(const arb_media *m, const arb_pair *pair);
/* Collective. Bits per byte of the validation samples' texts; m->val by kinds. The same bits on any rank count. */
ARB_NODISCARD arb_status arb_media_evaluate(arb_trainer *t, double *bpb);

#endif
