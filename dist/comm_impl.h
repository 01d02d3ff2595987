/* Shared by the checked entries and the transports; private to dist/. */
#ifndef ARB_DIST_COMM_IMPL_H
#define ARB_DIST_COMM_IMPL_H

#include "dist/comm.h"

/* Weight of a status where ranks must settle on one: 0 for ARB_OK, ARB_REQUEUE, ARB_ERR_PEER (only an echo of another
 * rank's failure), then the others by their number. */
int arb_comm_severity(arb_status st);
arb_status arb_comm_from_severity(int severity);

#endif
