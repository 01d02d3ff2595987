/* Saving and loading a training state as HDF5, crash-consistently.
 *
 * A checkpoint is a folder DIR/step-00001234/ holding state.h5 (readable with h5ls, h5dump, h5diff):
 *   /TENSOR/FIELD            one contiguous little-endian dataset [rows][columns] per array, attribute xxh3_128 = its digest
 *   /meta                    attributes format_version (1), step, samples, seed, digest, manifest
 *   /meta/identity, config   the two texts, u8 [1][length], with digests like the others
 * manifest is a digest of meta's numbers and of every dataset's name, type, shape and digest, so that nothing can be taken out,
 * added, renamed or exchanged unseen. Digests are XXH3-128 of the bytes in memory: against accidents, not against forgery.
 * Equal states give equal files.
 *
 * It is written into DIR/step-00001234.tmp-PID/, fsynced (HDF5's own close does not), renamed, and the parent fsynced: a folder
 * without ".tmp-" is complete or it does not verify. A save leaves no room for HDF5 to meet a full or failing disk: HDF5 makes
 * the layout in memory, and plain writes bring it and the data to the disk.
 *
 * A file is opened as if it came from a stranger: superblock 3 that agrees with the file's size, hard links only, no plugins,
 * filters, chunks, external or virtual storage, exact types, sizes that are really stored; and only then is data read.
 *
 * Serial HDF5 under one lock, so threads may load at the same time; only one rank writes to a DIR. HDF5's error printing and
 * plugin loading are switched off for the process. No function here is collective, and none knows MPI or a device: arrays are
 * host memory. */
#ifndef ARB_SRC_CHECKPOINT_CHECKPOINT_H
#define ARB_SRC_CHECKPOINT_CHECKPOINT_H

#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

/* One array of the state. Row-major [rows][columns]. Names are letters, digits, '_', '-' and '.', no leading dot, shorter than
 * 128 and 32 bytes; "meta" is taken. */
typedef struct {
  const char *tensor;    /* "layer0.memory.fcg" */
  const char *field;     /* "code", "e", "p", "r", "c", "m" */
  arb_dtype type;        /* U8, I8, I32; any integer type */
  int64_t rows, columns; /* may be 0 */
  void *host;            /* save: read; load: written */
} arb_ckpt_array;

typedef struct {
  int64_t step;    /* finished steps */
  int64_t samples; /* data position: training windows consumed */
  uint64_t seed;
  char digest[33];      /* the run's state digest, 32 lower-case hex digits */
  const char *identity; /* canonical "key=value" lines, all that the continuation depends on; loads refuse another text */
  const char *config;   /* resolved configuration, for people */
} arb_ckpt_meta;

/* Writes DIR/step-STEP. DIR is created. Errors: ARB_ERR_CHECKPOINT with the path and the operating system's reason; the folder
 * of an earlier checkpoint is never touched, the temporary one is removed. An existing step-STEP folder is replaced only after
 * the new one is complete. */
ARB_NODISCARD arb_status arb_ckpt_save(const char *dir, const arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count);

/* Finds the newest checkpoint in DIR whose file verifies (digest of every dataset, structure). found_step = -1 when there is
 * none (not an error; DIR may be absent). Skipped folders are reported through `report` (may be NULL), one line each. What says
 * nothing about a file (no memory, no descriptors) is an error, not a reason to fall back to an older one. Call it without a
 * pending failure message. */
ARB_NODISCARD arb_status arb_ckpt_latest(const char *dir, int64_t *found_step, void (*report)(const char *line, void *arg),
                                         void *arg);

/* Loads DIR/step-STEP into the arrays (every one must be there with this type and shape, and nothing else) and fills step,
 * samples, seed and digest of meta. meta->identity is input: a different one is ARB_ERR_CHECKPOINT with the lines that differ.
 * Buffers are unspecified after a failure. */
ARB_NODISCARD arb_status arb_ckpt_load(const char *dir, int64_t step, arb_ckpt_meta *meta, const arb_ckpt_array *arrays,
                                       int count);

/* Deletes all but the newest `keep` complete checkpoints (keep >= 1), and stale temporary folders of dead processes of this
 * host and of this process. Call after a save succeeded. When there are more than `keep`, it reads them from the newest on
 * until `keep` have verified; only what is older goes. Damaged newer ones stay, for people to look at. */
ARB_NODISCARD arb_status arb_ckpt_retain(const char *dir, int keep);

#endif
