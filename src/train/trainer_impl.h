/* Private to src/train. */
#ifndef ARB_SRC_TRAIN_TRAINER_IMPL_H
#define ARB_SRC_TRAIN_TRAINER_IMPL_H

#include "src/train/plan.h"
#include "src/train/trainer.h"

/* Collective. ARB_ERR_CONFIG or ARB_ERR_DATA, naming rank and key, unless all ranks have the same settings and texts. */
ARB_NODISCARD arb_status arb_trainer_same_everywhere(arb_trainer *t);

/* The model of a config as one rank of a job runs it: its share of the grains decides how many travel together. */
arb_model_spec arb_trainer_spec(const arb_config *cfg, int on_device, int rank, int ranks);
/* Bytes by kind that a rank hands to the transport in a step; measured or allocated model. What arb_trainer_step counts. */
void arb_trainer_wire(const arb_model *m, int64_t wire[ARB_TRAFFIC__COUNT]);

#endif
