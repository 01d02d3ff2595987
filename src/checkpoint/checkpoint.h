/* Saving and loading a training state as HDF5, crash-consistently.
 *
 * A checkpoint is a folder DIR/step-00001234/ holding state.h5 (readable with h5ls, h5dump, h5diff): one dataset per array
 * under its tensor's name, attributes for the rest. It is written into DIR/step-00001234.tmp-PID/, fsynced (HDF5's own close
 * does not), renamed, and the parent fsynced: a folder without ".tmp-" is complete or it does not verify.
 * Serial HDF5; only one rank writes. No function here is collective, and none knows MPI or a device: arrays are host memory. */
#ifndef ARB_SRC_CHECKPOINT_CHECKPOINT_H
#define ARB_SRC_CHECKPOINT_CHECKPOINT_H

#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

/* One array of the state. Row-major [rows][columns]. */
typedef struct {
  const char *tensor; /* "layer0.memory.fcg" */
  const char *field;  /* "code", "e", "p", "r", "c", "m" */
  arb_dtype type;     /* U8, I8, I32 */
  int64_t rows, columns;
  void *host; /* save: read; load: written */
} arb_ckpt_array;

typedef struct {
  int64_t step;    /* finished steps */
  int64_t samples; /* data position: training windows consumed */
  uint64_t seed;
  char digest[33];      /* the run's state digest, 32 hex digits */
  const char *identity; /* canonical text of everything that the continuation depends on; loads refuse another one */
  const char *config;   /* resolved configuration, for people */
} arb_ckpt_meta;

/* Writes DIR/step-STEP. DIR is created. Errors: ARB_ERR_CHECKPOINT with the path and the operating system's reason; the folder
 * of an earlier checkpoint is never touched, the temporary one is removed. An existing step-STEP folder is replaced only after
 * the new one is complete. */
ARB_NODISCARD arb_status arb_ckpt_save(const char *dir, const arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count);

/* Finds the newest checkpoint in DIR whose file verifies (digest of every dataset, structure). found_step = -1 when there is
 * none (not an error; DIR may be absent). Skipped folders are reported through `report` (may be NULL), one line each. */
ARB_NODISCARD arb_status arb_ckpt_latest(const char *dir, int64_t *found_step, void (*report)(const char *line, void *arg),
                                         void *arg);

/* Loads DIR/step-STEP into the arrays (every one must be there with this type and shape, and nothing else) and fills step,
 * samples, seed and digest of meta. meta->identity is input: a different one is ARB_ERR_CHECKPOINT with the lines that differ.
 * Buffers are unspecified after a failure. */
ARB_NODISCARD arb_status arb_ckpt_load(const char *dir, int64_t step, arb_ckpt_meta *meta, const arb_ckpt_array *arrays,
                                       int count);

/* Deletes all but the newest `keep` complete checkpoints (keep >= 1), and stale temporary folders of dead processes. Call
 * after a save succeeded. */
ARB_NODISCARD arb_status arb_ckpt_retain(const char *dir, int keep);

#endif
