/* One run: model, data, communicator and backend joined into steps, evaluations, checkpoints and samples.
 *
 * The result of a step does not depend on the rank count: grains are computed whole wherever they land, and only integers
 * (votes, counts) are summed over ranks. Everything marked Collective must be called by all ranks together. */
#ifndef ARB_SRC_TRAIN_TRAINER_H
#define ARB_SRC_TRAIN_TRAINER_H

#include <signal.h>
#include <stdio.h>

#include "dist/comm.h"
#include "src/config/config.h"
#include "src/data/batch.h"
#include "src/data/text.h"
#include "src/model/model.h"

#define ARB_TRAINER_BATCHES 31  /* grains a step at most, so batches too */
#define ARB_TRAINER_FORGET (-1) /* the pass under way is of a step that was not taken */

typedef struct {
  int64_t step;
  double train_bpb;                 /* mean over the step's targets, before the update */
  int64_t flips;                    /* trits that changed */
  int64_t saturated;                /* accumulators at the end of their range */
  int64_t wire[ARB_TRAFFIC__COUNT]; /* payload this rank handed to the transport, by kind; bytes */
  int stop;                         /* some rank was asked to stop */
  double val_by[2];                 /* validation bits per byte of texts with an image alone, a recording alone; or negative */
  int64_t targets;                  /* bytes that were predicted */
  int64_t empty;                    /* slots whose sample could not be decoded */
} arb_step_result;

struct arb_media;
struct arb_encoder;

/* Parts of an update that a backend may record: all of it, or what lies between the collectives of sharded state. */
typedef enum { ARB_UPDATE_ALL, ARB_UPDATE_ROWS, ARB_UPDATE_COLUMNS, ARB_UPDATE_SPREAD, ARB_UPDATE__COUNT } arb_update_part;

typedef struct {
  const arb_config *cfg; /* borrowed, like be and comm */
  arb_backend *be;
  arb_comm *comm;        /* host memory: agreement, control, and votes of a host backend */
  arb_comm *device_comm; /* votes of a backend on a device; NULL: comm carries them */
  arb_model *model;
  arb_text train, valid;
  arb_batches batches;
  struct arb_media *media; /* samples of manifests, instead of texts; or NULL */
  char *identity;          /* what a continuation depends on, as text; see docs/arithmetic.md */
  int64_t step;            /* finished steps */
  int vmax;
  int32_t *ids, *targets;                                                           /* host, one batch */
  int64_t *sums;                                                                    /* host, the step's agreement */
  void *batches_recorded[ARB_TRAINER_BATCHES], *update_recorded[ARB_UPDATE__COUNT]; /* sequences, once a step has run */
  int sent;    /* buckets of this step's votes that are on the wire */
  int overlap; /* votes go on the wire during the backward pass */
  void *parts_recorded[ARB_MODEL_BUCKETS];
  int64_t *recorded_used;                 /* host: the counts that the recorded update holds */
  int warm;                               /* a step has run: work memory has its size */
  size_t planned;                         /* bytes that the plan said this rank would hold */
  volatile sig_atomic_t *stop;            /* set by a signal handler, may be NULL */
  struct arb_save *save;                  /* save.h; NULL until the first */
  int save_ready;                         /* the last step found every rank ready to advance the save on its way */
  int64_t ahead;                          /* arb_trainer_step_on begins the next step; equal on all ranks, like begun */
  int64_t begun;                          /* the step whose pass is under way; 0: none; or ARB_TRAINER_FORGET */
  arb_status begun_status;                /* what beginning it gave on this rank, if it was begun ahead */
  int64_t wire_ahead[ARB_TRAFFIC__COUNT]; /* what it has handed to the transports */
} arb_trainer;
typedef struct arb_save arb_save;

typedef enum { ARB_TRAINER_TRAIN = 1, ARB_TRAINER_VALID = 2 } arb_trainer_data;

/* Collective. device_comm: a transport of device memory over the same ranks, or NULL; needed when be is on a device and there
 * is more than one rank. Loads the data that `data` names (flags of arb_trainer_data), declares the model, allocates, and
 * starts from fresh weights. Errors on any rank fail all. */
ARB_NODISCARD arb_status arb_trainer_create(const arb_config *cfg, arb_backend *be, arb_comm *comm, arb_comm *device_comm,
                                            int data, arb_trainer **out);
/* The same with the caller's encoders of images and of recordings (either may be NULL) in place of those of [sidecars]; takes
 * ownership of them, also on failure. */
ARB_NODISCARD arb_status arb_trainer_create_encoded(const arb_config *cfg, arb_backend *be, arb_comm *comm,
                                                    arb_comm *device_comm, int data, struct arb_encoder *encoders[2],
                                                    arb_trainer **out);
/* NULL-safe; nulls the handle. Collective where the run has encoders: ranks of a node share their weights. */
void arb_trainer_destroy(arb_trainer **t);

/* Step size in trit steps of step t = 1 .. steps: linear warm-up, then half a cosine down to train.floor of the peak. */
float arb_trainer_eta(const arb_config *cfg, int64_t t);

/* Collective. One step: forward, backward, votes, agreement, sum over ranks, update. ARB_ERR_NUMERIC on every rank, and no
 * state byte changed, when any rank saw a non-finite value. */
ARB_NODISCARD arb_status arb_trainer_step(arb_trainer *t, arb_step_result *result);

/* Collective. The same for a caller who takes the next step at once: its pass is queued behind this step's update, where the
 * backend queues work, and the device need not wait for the host. The caller may do other things first, except take a sample;
 * what needs the model's memory then costs that pass, which is begun again. */
ARB_NODISCARD arb_status arb_trainer_step_on(arb_trainer *t, arb_step_result *result);

/* The same on all ranks, between two steps: whether votes go on the wire during the backward pass (dist.overlap says it first).
 * Only transports of device memory can. */
void arb_trainer_overlap(arb_trainer *t, int on);
/* Collective, for measurements. Hands all votes to the transport, as a step does after its backward pass or, with overlap,
 * during it, and waits for nothing; votes are sums afterwards. */
ARB_NODISCARD arb_status arb_trainer_send_votes(arb_trainer *t);

/* Collective. Bits per byte on the fixed validation windows; the same bits on any rank count. */
ARB_NODISCARD arb_status arb_trainer_evaluate(arb_trainer *t, double *bpb);

/* Collective; runs on manifests. Prints, on rank 0, bits a byte of texts and names (the last word of a text) with the right and
 * with another sample's image or recording, and the share of names that are generated right. */
ARB_NODISCARD arb_status arb_trainer_report(arb_trainer *t, FILE *out);

/* Collective. The state digest as 32 hex digits: state arrays, seed, step, data position, identity. Equal on all ranks. */
ARB_NODISCARD arb_status arb_trainer_digest(arb_trainer *t, char hex[33]);

/* Collective. Continues from the newest checkpoint that verifies; resumed_step = -1 if there is none. Rank 0 reads. */
ARB_NODISCARD arb_status arb_trainer_resume(arb_trainer *t, int64_t *resumed_step);

/* Writes sample.length bytes that continue the prompt, after it. Local. */
ARB_NODISCARD arb_status arb_trainer_sample(arb_trainer *t, const char *prompt, FILE *out);

/* Collective. The whole run: resume, steps, logs, evaluations, checkpoints, sample, digest. Rank 0 prints to out.
 * ARB_REQUEUE after a stop request: saved, run me again. */
ARB_NODISCARD arb_status arb_trainer_run(arb_trainer *t, FILE *out);

/* Prints what the run holds: weights, exponents, float counts, and memory by kind, from the allocations themselves. */
ARB_NODISCARD arb_status arb_trainer_audit(const arb_trainer *t, FILE *out);

/* "DIR/NAME" or "DIR/NAME/leaf" of the run. */
void arb_trainer_path(const arb_config *cfg, const char *leaf, char *path, size_t size);

#endif
