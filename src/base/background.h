/* One thread beside the caller's that does one job at a time: what may take long while the caller goes on.
 *
 *   ARB_TRY(arb_background_create(&b));
 *   arb_background_start(b, work, arg);             only after the job before it was taken
 *   while (!arb_background_wait(b, 0.1)) ...;       or asked now and then: wait(b, 0)
 *   ARB_TRY(arb_background_take(b));                its status; its message becomes the caller's
 *
 * What the job touches belongs to it from start to take. One owner calls all of these. */
#ifndef ARB_SRC_BASE_BACKGROUND_H
#define ARB_SRC_BASE_BACKGROUND_H

#include <stdbool.h>

#include "src/base/status.h"

typedef struct arb_background arb_background;

ARB_NODISCARD arb_status arb_background_create(arb_background **out);
/* Waits for a job that runs. NULL-safe; nulls the handle. */
void arb_background_destroy(arb_background **b);
void arb_background_start(arb_background *b, arb_status (*work)(void *arg), void *arg);
/* Is no job running? Waits for that at most so long; 0: does not wait. */
bool arb_background_wait(arb_background *b, double seconds);
/* The status of the job that ended last; ARB_OK when there was none. */
ARB_NODISCARD arb_status arb_background_take(arb_background *b);

#endif
