/* Progress board: one slot per rank of a node, in memory that all of them see (threads of a process, or a shared MPI
 * window). A rank bumps its own slot around every collective, so that a report can say which rank is behind. C only. */
#ifndef ARB_DIST_BOARD_IMPL_H
#define ARB_DIST_BOARD_IMPL_H

#include <stdatomic.h>
#include <stdint.h>

#include "dist/comm.h"

struct arb_board_slot {
  _Alignas(64) _Atomic int64_t entered; /* sequence of the newest collective entered; a cache line a rank */
  _Atomic int64_t left;                 /* sequence of the newest collective left */
  int32_t rank;                         /* in the communicator; written before the ranks meet for the first time */
};
_Static_assert(sizeof(struct arb_board_slot) == 64, "one cache line, the same in every process");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a lock would live in one process only");

static inline void arb_board_init(arb_board_slot *slot, int rank) {
  atomic_init(&slot->entered, 0);
  atomic_init(&slot->left, 0);
  slot->rank = rank;
}

#endif
