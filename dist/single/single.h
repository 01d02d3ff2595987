/* One rank: every collective does the copies that its semantics demand, and nothing else. */
#ifndef ARB_DIST_SINGLE_SINGLE_H
#define ARB_DIST_SINGLE_SINGLE_H

#include "dist/comm.h"

/* The caller destroys *out with arb_comm_destroy. */
ARB_NODISCARD arb_status arb_comm_single_create(arb_comm **out);

#endif
