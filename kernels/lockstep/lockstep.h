/* A backend under watch: its table is replaced by one whose slots call the real ones and then look at what they did.
 *
 * lockstep: the reference runs beside it, slot by slot, on copies of the same inputs, and the first element that differs is
 *   named. finite: every slot is waited for, and a float that is not finite, or is larger than asked, is named. Rows are given
 *   as grain, position and, once ids are known, token. Both work with any backend; both are slow, and slots are never recorded.
 *
 * slots.inc describes every slot once: which arguments are arrays, of what shape, read or written. A new slot is one row there.
 */
#ifndef ARB_KERNELS_LOCKSTEP_LOCKSTEP_H
#define ARB_KERNELS_LOCKSTEP_LOCKSTEP_H

#include "kernels/backend.h"

typedef struct {
  int lockstep;
  int finite;
  float outlier; /* with finite: magnitudes above this are logged; 0: none are */
  int rank;      /* for messages */
} arb_lockstep_options;

/* From now on every slot of be is watched. ARB_ERR_ARG when it is already. arb_backend_destroy ends it. */
ARB_NODISCARD arb_status arb_lockstep_attach(arb_backend *be, const arb_lockstep_options *o);
/* Tells a tensor's name to messages; borrowed. Nothing unless attached. */
ARB_NODISCARD arb_status arb_lockstep_name(arb_backend *be, uint32_t id, const char *name);

/* For tests: the next call of `slot` that writes `argument` (as slots.inc names it) has its last element changed afterwards. */
void arb_lockstep_spoil(arb_backend *be, const char *slot, const char *argument);
/* For tests: the written arguments of a slot, one after the other; NULL past the last. Learnt when the slot is first called. */
const char *arb_lockstep_output(const arb_backend *be, const char *slot, int index);

#endif
