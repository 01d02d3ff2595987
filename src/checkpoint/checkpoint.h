/* Saving and loading a training state, crash-consistently, from any number of ranks onto any number of ranks.
 *
 * A checkpoint is a folder DIR/step-00001234/ holding
 *   rank-00000.h5, ...   one HDF5 file per writing rank, readable with h5ls, h5dump, h5diff:
 *     /TENSOR/FIELD        one contiguous little-endian dataset per array, the rows that this rank owns; attributes xxh3_128 =
 * its digest, global_rows = rows of the whole array, first_row = the first of them that is here /meta                attributes
 * format_version (2), step, samples, seed, digest, run, rank, ranks /meta/identity, config   (rank 0) the two texts, u8
 * [1][length], with digests like the others manifest.json        written last: all of meta's numbers, every file's size and
 * digest, every array's name, type, whole shape, and of each slice its file, rows, place in the file and digest; its last line
 * is the digest of what stands before that line. Digests of slices are taken from memory, not from what was written. Digests
 * are XXH3-128 (`xxhsum -H2` prints a file's): against accidents, not against forgery. Equal states give equal folders.
 *
 * It is written into DIR/step-00001234.tmp-PID/; every file and the folder are fsynced (HDF5's own close does not), the folder
 * is renamed, and the parent fsynced. The rename is the commit point: a folder without ".tmp-" is complete or it does not
 * verify. A save leaves no room for HDF5 to meet a full or failing disk: HDF5 makes the layout in memory, and plain writes
 * bring it and the data to the disk.
 *
 * Files are opened as if they came from a stranger: the manifest first, then each file's digest, then its structure (superblock
 * 3 that agrees with the file's size, hard links only, no plugins, filters, chunks, external or virtual storage, exact types,
 * sizes that are really stored, every dataset where the manifest says).
 *
 * Serial HDF5 under one lock, so threads may save and load at the same time. HDF5's error printing and plugin loading are
 * switched off for the process. No function here is collective, and none knows MPI or a device: arrays are host memory. */
#ifndef ARB_SRC_CHECKPOINT_CHECKPOINT_H
#define ARB_SRC_CHECKPOINT_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

/* Rows of one array of the state: row-major [count][columns], rows first .. first + count - 1 of `rows` in all. Names are
 * letters, digits, '_', '-' and '.', no leading dot, shorter than 128 and 32 bytes; "meta" is taken. */
typedef struct {
  const char *tensor;    /* "layer0.memory.fcg" */
  const char *field;     /* "code", "e", "p", "r", "c", "m" */
  arb_dtype type;        /* U8, I8, I32; any integer type */
  int64_t rows, columns; /* of the whole array; may be 0 */
  int64_t first, count;  /* the rows that host holds */
  void *host;            /* save: read; load: written */
} arb_ckpt_array;

/* An array that is here whole, as an initialiser. */
#define ARB_CKPT_WHOLE(tensor, field, type, rows, columns, host) \
  { tensor, field, type, rows, columns, 0, rows, host }

typedef struct {
  int64_t step;    /* finished steps */
  int64_t samples; /* data position: training windows consumed */
  uint64_t seed;
  char digest[33];      /* the run's state digest, 32 lower-case hex digits */
  const char *identity; /* canonical "key=value" lines, all that the continuation depends on; loads refuse another text */
  const char *config;   /* resolved configuration, for people */
} arb_ckpt_meta;

/* Who saves. */
typedef struct {
  int rank, ranks; /* of this process, and how many the run has */
  bool sharded;    /* every rank writes the rows that it owns; otherwise rank 0 writes everything */
} arb_ckpt_world;

/* One rank alone: prepare, write and commit in one call. Arrays are whole. Errors: ARB_ERR_CHECKPOINT with the path and the
 * operating system's reason; earlier checkpoints are never touched, the temporary folder is removed. An existing step-STEP
 * folder is replaced only after the new one is complete. */
ARB_NODISCARD arb_status arb_ckpt_save(const char *dir, const arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count);

/* The same save in parts, for several ranks; the caller carries names and parts between them (src/train/persist.c):
 *
 *   rank 0:      arb_ckpt_prepare(dir, step, folder)               makes DIR and DIR/folder; all ranks learn `folder`
 *   each writer: arb_ckpt_write(dir, folder, world, ..., &part)    its file, fsynced; what the manifest says of it
 *   all ranks agree that all of them wrote; rank 0 has all parts
 *   rank 0:      arb_ckpt_commit(dir, folder, ..., parts, n)       manifest, fsync, rename, fsync
 *   or, when anything failed, rank 0: arb_ckpt_abandon(dir, folder)
 */
enum { ARB_CKPT_FOLDER = 64 };
ARB_NODISCARD arb_status arb_ckpt_prepare(const char *dir, int64_t step, char folder[ARB_CKPT_FOLDER]);

/* What one writer wrote: one block of memory without pointers, to be sent as bytes between equal builds. free() it. */
typedef struct arb_ckpt_part arb_ckpt_part;
size_t arb_ckpt_part_bytes(const arb_ckpt_part *part);       /* of the block */
int64_t arb_ckpt_part_file_bytes(const arb_ckpt_part *part); /* of the file that it describes */
ARB_NODISCARD arb_status arb_ckpt_write(const char *dir, const char *folder, const arb_ckpt_world *world,
                                        const arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count,
                                        arb_ckpt_part **part);
/* parts in rank order. ARB_ERR_ARG when they leave a row of an array out, or have it twice. The temporary folder is removed
 * after a failure, unless its rename has happened already. */
ARB_NODISCARD arb_status arb_ckpt_commit(const char *dir, const char *folder, const arb_ckpt_world *world,
                                         const arb_ckpt_meta *meta, const arb_ckpt_part *const *parts, int count);
void arb_ckpt_abandon(const char *dir, const char *folder);

/* Finds the newest checkpoint in DIR that verifies: manifest, digest of every file and array, structure. found_step = -1 when
 * there is none (not an error; DIR may be absent). Skipped folders are reported through `report` (may be NULL), one line each.
 * What says nothing about a file (no memory, no descriptors) is an error, not a reason to fall back to an older one. Call it
 * without a pending failure message. */
ARB_NODISCARD arb_status arb_ckpt_latest(const char *dir, int64_t *found_step, void (*report)(const char *line, void *arg),
                                         void *arg);

/* Loads DIR/step-STEP into the arrays: whichever rows each asks for, whatever ranks wrote them. Every array must be there with
 * this type and whole shape, and nothing else. Fills step, samples, seed and digest of meta. meta->identity is input: a
 * different one is ARB_ERR_CHECKPOINT with the lines that differ. Buffers are unspecified after a failure. */
ARB_NODISCARD arb_status arb_ckpt_load(const char *dir, int64_t step, arb_ckpt_meta *meta, const arb_ckpt_array *arrays,
                                       int count);

/* Deletes all but the newest `keep` complete checkpoints (keep >= 1), and stale temporary folders of dead processes of this
 * host and of this process. Call after a save succeeded. When there are more than `keep`, it reads them from the newest on
 * until `keep` have verified; only what is older goes. Damaged newer ones stay, for people to look at. */
ARB_NODISCARD arb_status arb_ckpt_retain(const char *dir, int keep);

#endif
