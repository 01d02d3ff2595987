/* What a rank will hold and send, known before anything is allocated: the model is declared and its memory measured by the walk
 * that later carves it, on a stand-in for the backend. Needs neither GPU nor MPI, so a login node can plan for a cluster.
 * Sizes are exact for what arbdist itself takes; the GPU's context, its kernels and NCCL's own buffers come on top. */
#ifndef ARB_SRC_TRAIN_PLAN_H
#define ARB_SRC_TRAIN_PLAN_H

#include <stdio.h>

#include "dist/comm.h"
#include "src/config/config.h"
#include "src/model/model.h"

typedef enum {
  ARB_PLAN_STATE,       /* what is saved and digested */
  ARB_PLAN_PACKED,      /* sharded state: packed trits and p of all rows; otherwise none, products read state bytes */
  ARB_PLAN_VOTES,       /* this step's votes */
  ARB_PLAN_ACTIVATIONS, /* kept for the backward pass */
  ARB_PLAN_WORK,        /* gradients and quantised operands in flight */
  ARB_PLAN_KERNELS,     /* inside one operation: expanded trits, tables, row scratch */
  ARB_PLAN_UPDATE,      /* sums of the update, step counters */
  ARB_PLAN_CONSTANTS,
  ARB_PLAN_TRANSPORT, /* sharded state: what is sent and received; otherwise none, votes travel from where they lie */
  ARB_PLAN__COUNT
} arb_plan_kind;

typedef struct {
  const char *device; /* a literal or borrowed from the backend */
  int threads, rank, ranks;
  int64_t weights, grains, rows_per_grain;
  int32_t local_grains, grains_at_once;
  size_t bytes[ARB_PLAN__COUNT], total; /* of this rank, padding included */
  int64_t wire[ARB_TRAFFIC__COUNT];     /* payload of this rank a step */
} arb_plan;

/* The plan of one rank of `ranks`; rank 0 has the largest share. threads: of the cpu device. */
ARB_NODISCARD arb_status arb_plan_make(const arb_config *cfg, arb_backend_kind device, int threads, int rank, int ranks,
                                       arb_plan *out);
/* The same of a model that was measured. */
void arb_plan_of_model(const arb_model *m, int rank, int ranks, int64_t grains, arb_plan *out);
/* ARB_ERR_NOMEM with the plan in the message unless the memory of be can hold local_ranks (those that share it; one a GPU)
 * such plans. */
ARB_NODISCARD arb_status arb_plan_fits(const arb_plan *p, arb_backend *be, int local_ranks);
/* Puts the plan behind the message of a failure: memory ran out. */
void arb_plan_explain(const arb_plan *p);
/* Tables of memory and of traffic. */
void arb_plan_print(const arb_plan *p, FILE *out);
/* Two lines for a run's console. */
void arb_plan_summary(const arb_plan *p, FILE *out);

#endif
