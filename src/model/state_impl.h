/* Private to src/model: what state.c leaves to shard.c. */
#ifndef ARB_SRC_MODEL_STATE_IMPL_H
#define ARB_SRC_MODEL_STATE_IMPL_H

#include "src/model/state.h"

/* The walk over the arenas of sharded state. */
void arb_shard_carve(arb_state *s);
/* Fresh state of this rank's rows, and what every rank knows of the others'. */
ARB_NODISCARD arb_status arb_shard_fresh(arb_state *s, arb_tensor *t);
/* Puts this rank's rows into the tensor's arrays [ARB_FIELD__COUNT]. */
void arb_shard_arrays(const arb_tensor *t, arb_state_array *arrays);

#endif
