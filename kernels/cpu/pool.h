/* A fixed set of threads that share the tasks of one call at a time. The calling thread works too, so a pool of one thread
 * starts none. One owner: calls of arb_pool_run on the same pool never overlap or nest. */
#ifndef ARB_KERNELS_CPU_POOL_H
#define ARB_KERNELS_CPU_POOL_H

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct arb_pool arb_pool;
/* worker in [0, threads): at most one task of a worker runs at a time, so it may index private buffers. */
typedef void (*arb_pool_fn)(void *arg, int task, int worker);

/* threads >= 1, the caller included. On failure *out stays NULL. */
ARB_NODISCARD arb_status arb_pool_create(int threads, arb_pool **out);
/* Calls fn(arg, task, worker) once for every task in [0, tasks), in any order, and returns when all are done. What the caller
 * wrote before is visible to the tasks, what they wrote is visible afterwards. */
void arb_pool_run(arb_pool *pool, arb_pool_fn fn, void *arg, int tasks);
int arb_pool_threads(const arb_pool *pool);
/* NULL-safe; nulls the handle. */
void arb_pool_destroy(arb_pool **pool);

#ifdef __cplusplus
}
#endif
#endif
