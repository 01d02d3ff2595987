/* Private to src/train. */
#ifndef ARB_SRC_TRAIN_TRAINER_IMPL_H
#define ARB_SRC_TRAIN_TRAINER_IMPL_H

#include "src/train/plan.h"
#include "src/train/trainer.h"

/* Collective. ARB_ERR_CONFIG or ARB_ERR_DATA, naming rank and key, unless all ranks have the same settings and texts. */
ARB_NODISCARD arb_status arb_trainer_same_everywhere(arb_trainer *t);

/* The model of a config as one rank of a job runs it: its share of the grains decides how many travel together. */
arb_model_spec arb_trainer_spec(const arb_config *cfg, int on_device, int rank, int ranks);
/* step.c: words of t->sums; what t->ahead is on this rank. */
int arb_step_words(const arb_model *m);
int64_t arb_step_may_go_ahead(const arb_trainer *t);
/* Collective. Before anything but a step uses the model's memory: waits for a pass that is under way and forgets it. */
ARB_NODISCARD arb_status arb_step_forget(arb_trainer *t);
double arb_bits_per_byte(int64_t loss_q20, int64_t count);
/* Bytes by kind that a rank hands to the transport in a step; measured or allocated model. What arb_trainer_step counts. */
void arb_trainer_wire(const arb_model *m, int64_t wire[ARB_TRAFFIC__COUNT]);

/* Runs `work`, on backends that can by replaying what an earlier step recorded: its calls are the same every step. */
ARB_NODISCARD arb_status arb_trainer_recorded(arb_trainer *t, void **sequence, arb_status (*work)(arb_trainer *t, void *arg),
                                              void *arg);
/* The same for ARB_UPDATE_ALL, which holds the counts of grains that used each tensor: a step with other counts (no image in a
 * grain, say) is called directly. */
ARB_NODISCARD arb_status arb_trainer_counted(arb_trainer *t, const int64_t *used, arb_status (*work)(arb_trainer *t, void *arg),
                                             void *arg);
/* Collective. Sends the next bucket, which is complete on the backend's stream, beside whatever that stream gets from now on.
 */
ARB_NODISCARD arb_status arb_votes_send_bucket(arb_trainer *t);
/* Collective. Sends the buckets that are left, whatever has become of this rank's work, since the others count on them. */
ARB_NODISCARD arb_status arb_votes_finish(arb_trainer *t);
/* Collective. Votes and the non-finite flag of all ranks are summed for what is queued from here on: those that were not sent
 * during the backward pass are sent. */
ARB_NODISCARD arb_status arb_votes_sum(arb_trainer *t);
/* Collective. Collectives on the device are only queued: this waits, up to a mark if there is one, so that a broken transport
 * shows. */
ARB_NODISCARD arb_status arb_votes_arrived(arb_trainer *t);
/* Collective. Sums the votes of all ranks, unless that was done during the backward pass, and updates the state, unless a value
 * is not finite on any of them; used[i]: grains in which tensor i had rows. On a device all of it is only queued. */
ARB_NODISCARD arb_status arb_trainer_exchange(arb_trainer *t, int64_t *used);
/* Collective. After the state was loaded: with sharded state, gives every rank the trits and p of the others' rows. */
ARB_NODISCARD arb_status arb_trainer_gather_copies(arb_trainer *t);
/* Adds what an exchange hands to the transport on this rank. */
void arb_exchange_wire(const arb_model *m, int64_t wire[ARB_TRAFFIC__COUNT]);

#endif
