/* Private to src/train. */
#ifndef ARB_SRC_TRAIN_TRAINER_IMPL_H
#define ARB_SRC_TRAIN_TRAINER_IMPL_H

#include "src/train/trainer.h"

/* Collective. ARB_ERR_CONFIG or ARB_ERR_DATA, naming rank and key, unless all ranks have the same settings and texts. */
ARB_NODISCARD arb_status arb_trainer_same_everywhere(arb_trainer *t);

#endif
