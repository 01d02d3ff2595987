/* Saves of a run, while it goes on: the state is copied to host memory, a thread writes the copy, and at a later step boundary
 * all ranks agree on what became of it. At most one save is on its way.
 *
 *   begin ............ collective: copy; rank 0's thread makes the temporary folder and, where it is the only writer, goes on
 *   advance .......... collective, with sharded state, once rank 0 is ready: every rank's thread writes what it owns
 *   advance .......... collective, once every rank is ready: all wrote; rank 0 collects what the manifest needs, and its thread
 *                      writes it, renames, and deletes old checkpoints
 *   advance .......... collective, once rank 0 is ready again: the outcome
 *
 * The step's own agreement counts the ranks that are ready, so a save costs no collective until there is something to agree on.
 * Threads never communicate. */
#ifndef ARB_SRC_TRAIN_SAVE_H
#define ARB_SRC_TRAIN_SAVE_H

#include <stdbool.h>
#include <stdint.h>

#include "src/train/trainer.h"

typedef struct {
  int64_t step;      /* of the save that ended; -1: none has */
  char digest[33];   /* of its state */
  int64_t bytes;     /* of all files */
  double stall_s;    /* that the run waited for it */
  double written_s;  /* of its threads: the slowest file and the commit */
  arb_status status; /* equal on all ranks; its message is this rank's */
} arb_save_outcome;

/* Is a save on its way? Equal on all ranks. */
bool arb_save_active(const arb_trainer *t);
/* Nothing of a save runs on this rank. Local. */
bool arb_save_ready(arb_trainer *t, double wait_seconds);
/* Collective; no save may be on its way. ARB_OK, or the failure on every rank. */
ARB_NODISCARD arb_status arb_save_begin(arb_trainer *t);
/* Collective; every rank is ready. ARB_ERR_COMM and the like; what became of the save itself is in *out. */
ARB_NODISCARD arb_status arb_save_advance(arb_trainer *t, arb_save_outcome *out);
/* Collective. Waits for the save on its way, if there is one. */
ARB_NODISCARD arb_status arb_save_finish(arb_trainer *t, arb_save_outcome *out);
/* Waits for this rank's thread, forgets a save that is on its way and removes its folder. Local; NULL-safe. */
void arb_save_destroy(arb_save **s);

#endif
