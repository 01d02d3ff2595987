/* Looking at checkpoints without knowing the model: which there are, which arrays they hold, what is in them. Files are opened
 * with the checks of checkpoint.h, and whatever is read is compared with its digest. */
#ifndef ARB_SRC_CHECKPOINT_INSPECT_H
#define ARB_SRC_CHECKPOINT_INSPECT_H

#include <stdbool.h>

#include "src/checkpoint/checkpoint.h"

/* ---- folders ---------------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t step;
  long pid;      /* 0: a checkpoint; else the writer of a temporary folder, "step-00001234.tmp-PID" or ".old-PID" */
  bool replaced; /* .old: a complete one that a newer save of its step moved aside */
} arb_ckpt_folder;

/* Is this the name of such a folder? Only names that arb_ckpt_save would write. */
bool arb_ckpt_folder_name(const char *name, arb_ckpt_folder *out);
/* Those of dir: checkpoints from new to old, then temporary folders. None is opened. An absent dir has none. The caller frees
 * *out; it is NULL after a failure. */
ARB_NODISCARD arb_status arb_ckpt_list(const char *dir, arb_ckpt_folder **out, int *count);

/* ---- one checkpoint --------------------------------------------------------------------------------------------------- */

typedef struct arb_ckpt arb_ckpt; /* owns the manifest and the two texts */

/* Everything is read and verified. */
ARB_NODISCARD arb_status arb_ckpt_open(const char *dir, int64_t step, arb_ckpt **out);
/* For people who must rescue data: manifest and structure are checked as always, but no digest is compared; walks count what
 * does not have its digest. */
ARB_NODISCARD arb_status arb_ckpt_open_unverified(const char *dir, int64_t step, arb_ckpt **out);
void arb_ckpt_close(arb_ckpt **c); /* NULL-safe; nulls the handle */
/* Slices seen by walks without the digest that they were saved with; *first (may be NULL): the first of them, or "". */
int arb_ckpt_damaged(const arb_ckpt *c, const char **first);

const char *arb_ckpt_path_of(const arb_ckpt *c); /* the folder; borrowed, like everything below */
uint64_t arb_ckpt_file_bytes(const arb_ckpt *c); /* of all its files */
void arb_ckpt_world_of(const arb_ckpt *c, int *ranks, int *files);
const arb_ckpt_meta *arb_ckpt_meta_of(const arb_ckpt *c);   /* with its texts */
int arb_ckpt_array_count(const arb_ckpt *c);                /* meta's texts are none */
arb_ckpt_array arb_ckpt_array_at(const arb_ckpt *c, int i); /* sorted by tensor, then field; host is NULL */

/* A walk over the rows of one array, a block of whole rows at a time:
 *
 *   ARB_TRY(arb_ckpt_walk_begin(&w, c, i));
 *   while ((st = arb_ckpt_walk_next(&w)) == ARB_OK && w.rows > 0) use(w.data, w.first, w.rows);
 *   arb_ckpt_walk_end(&w);
 *
 * A slice's digest is compared when its last row is read, so of a long array nothing that was seen is certain before the end.
 * Arrays of one shape and type are cut into the same blocks, however they are sliced. */
typedef struct {
  const arb_ckpt *c;
  int index;
  arb_ckpt_array array;
  int64_t first, rows;       /* of this block; rows = 0: past the end */
  const unsigned char *data; /* [rows][columns], valid until the next call; NULL for rows without bytes */
  void *inside;
} arb_ckpt_walk;

ARB_NODISCARD arb_status arb_ckpt_walk_begin(arb_ckpt_walk *w, const arb_ckpt *c, int i);
ARB_NODISCARD arb_status arb_ckpt_walk_next(arb_ckpt_walk *w);
void arb_ckpt_walk_end(arb_ckpt_walk *w); /* also after a failure */

/* The state digest (docs/arithmetic.md, "Identity") of the content: what the run printed when it saved this. Reads every array.
 * `look` (may be NULL) sees each block as it passes. ARB_ERR_CHECKPOINT for a field that no training state has. */
ARB_NODISCARD arb_status arb_ckpt_state_digest(const arb_ckpt *c, void (*look)(const arb_ckpt_walk *w, void *arg), void *arg,
                                               char hex[33]);

#endif
