/* N ranks as threads of one process: real multi-rank logic under ASan and TSan, and on a laptop. */
#ifndef ARB_DIST_LOOPBACK_LOOPBACK_H
#define ARB_DIST_LOOPBACK_LOOPBACK_H

#include "dist/comm.h"

#define ARB_LOOPBACK_RANKS 64 /* most ranks of one run */

/* Runs body(c, arg) on `ranks` threads, each with a communicator that lives for that call (the run destroys it), and waits
 * for all. Returns the worst status (arb_comm_agree says which is worse); the message of the first rank that returned it is
 * left on the calling thread, after "rank R: ". A rank that returns while others wait in a collective, or enter one later,
 * releases them with ARB_ERR_PEER. Ranks that call different collectives all get ARB_ERR_ARG. */
ARB_NODISCARD arb_status arb_loopback_run(int ranks, arb_status (*body)(arb_comm *c, void *arg), void *arg);

#endif
