/* Watchdog: one thread a process that notices a collective which does not return, and says which rank is silent.
 *
 * A transport cannot be trusted to report a dead peer (NCCL does not inside one host, MPI waits for ever for a stopped
 * one). The thread reads the progress board of the node and the ring of this rank's last collectives; it calls into no
 * transport, so it works while the transport is stuck.
 *
 *   ARB_TRY(arb_watchdog_create(120.0, on_silence, arg, &dog));
 *   ARB_TRY(arb_watchdog_attach(dog, comm)); */
#ifndef ARB_DIST_WATCHDOG_H
#define ARB_DIST_WATCHDOG_H

#include <stddef.h>

#include "dist/comm.h"

#define ARB_WATCHDOG_COMMS 16  /* communicators that one watchdog can watch */
#define ARB_WATCHDOG_TEXT 2048 /* bytes of a report; fits one log line */

typedef struct arb_watchdog arb_watchdog;
/* Runs on the watchdog's thread, at most once a collective. `text` is borrowed for the call. launch/ logs it and aborts the
 * job; the stuck thread cannot be woken. */
typedef void (*arb_watchdog_report)(void *arg, const char *text);

/* Starts the thread. A collective longer than timeout_s (> 0) is reported within timeout_s + min(timeout_s / 4, 1 s). */
ARB_NODISCARD arb_status arb_watchdog_create(double timeout_s, arb_watchdog_report report, void *arg, arb_watchdog **out);
/* From now on every collective of c is watched. Call between two collectives, on the thread that uses c. A communicator
 * that is destroyed detaches itself. */
ARB_NODISCARD arb_status arb_watchdog_attach(arb_watchdog *w, arb_comm *c);
void arb_watchdog_detach(arb_watchdog *w, arb_comm *c);
/* Detaches what is attached and ends the thread; not while a collective of theirs runs, not from the report. NULL-safe;
 * nulls the handle. */
void arb_watchdog_destroy(arb_watchdog **w);

/* Writes the report of c's newest collective, which has lasted `seconds`, and returns its length: which rank is silent, and
 * the last collectives of this one. For the thread that uses c, or any other while that thread waits. */
size_t arb_watchdog_describe(const arb_comm *c, double seconds, char *text, size_t bytes);

#endif
