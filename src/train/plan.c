#include "src/train/plan.h"

#include <string.h>

#include "dist/place.h"
#include "src/train/trainer_impl.h"

static const char *const names[ARB_PLAN__COUNT] = {"state",
                                                   "packed copies of trits",
                                                   "votes",
                                                   "activations",
                                                   "gradients and products in flight",
                                                   "work memory of kernels",
                                                   "update sums",
                                                   "constants",
                                                   "transport buffers"};

void arb_plan_of_model(const arb_model *m, int rank, int ranks, int64_t grains, arb_plan *out) {
  *out = (arb_plan){.device = m->be->ops.name,
                    .threads = arb_backend_threads(m->be),
                    .rank = rank,
                    .ranks = ranks,
                    .weights = arb_state_weights(&m->state),
                    .grains = grains,
                    .rows_per_grain = m->spec.rows_per_grain,
                    .local_grains = (int32_t)arb_place_grains(grains, rank, ranks).count,
                    .grains_at_once = m->spec.grains_per_batch};
  out->bytes[ARB_PLAN_STATE] = m->state.state.peak;
  out->bytes[ARB_PLAN_VOTES] = m->state.votes.peak;
  out->bytes[ARB_PLAN_ACTIVATIONS] = m->activations.peak;
  out->bytes[ARB_PLAN_WORK] = m->work.peak;
  out->bytes[ARB_PLAN_KERNELS] = m->kernel_work + m->kernel_scratch;
  out->bytes[ARB_PLAN_UPDATE] = m->update.peak;
  out->bytes[ARB_PLAN_CONSTANTS] = m->constants.peak;
  out->bytes[ARB_PLAN_PACKED] = m->state.shard.copies.peak;
  out->bytes[ARB_PLAN_TRANSPORT] = m->state.shard.exchange.peak;
  for (int i = 0; i < ARB_PLAN__COUNT; i++) out->total += out->bytes[i];
  arb_trainer_wire(m, out->wire);
}

arb_status arb_plan_make(const arb_config *cfg, arb_backend_kind device, int threads, int rank, int ranks, arb_plan *out) {
  arb_backend be;
  arb_model *m = NULL;
  ARB_REQUIRE(rank >= 0 && rank < ranks && threads >= 1, ARB_ERR_ARG, "a plan for rank %d of %d with %d threads", rank, ranks,
              threads);
  ARB_TRY(arb_config_check_ranks(cfg, ranks));
  arb_backend_stand_in(&be, device, threads);
  const arb_model_spec spec = arb_trainer_spec(cfg, be.on_device, rank, ranks);
  ARB_TRY(arb_model_create(&spec, &be, &m));
  arb_model_measure(m);
  arb_plan_of_model(m, rank, ranks, cfg->train.grains, out);
  arb_model_destroy(&m);
  return ARB_OK;
}

/* One line a kind and their sum. */
static size_t table(const arb_plan *p, char *text, size_t size) {
  size_t used = 0;
  for (int i = 0; i < ARB_PLAN__COUNT; i++)
    if (used < size)
      used += (size_t)snprintf(text + used, size - used, "  %-34s %18zu bytes  %8.4f a weight\n", names[i], p->bytes[i],
                               (double)p->bytes[i] / (double)p->weights);
  if (used < size)
    used += (size_t)snprintf(text + used, size - used, "  %-34s %18zu bytes  %8.4f a weight", "sum", p->total,
                             (double)p->total / (double)p->weights);
  return used;
}

arb_status arb_plan_fits(const arb_plan *p, arb_backend *be, int local_ranks) {
  size_t available, total;
  char text[1024];
  ARB_TRY(be->ops.memory(be, &available, &total));
  /* What a host counts as in use may be caches: only what the machine cannot have at all is refused there. */
  const size_t most = be->on_device ? available : total / (size_t)local_ranks;
  if (p->total <= most) return ARB_OK;
  (void)table(p, text, sizeof text);
  return ARB_FAIL(ARB_ERR_NOMEM,
                  "out of %s memory before the first step: %zu bytes are needed, %zu of %zu can be had%s; the plan:\n%s",
                  be->on_device ? "device" : "host", p->total, most, total,
                  !be->on_device && local_ranks > 1 ? " by each rank of this machine" : "", text);
}

void arb_plan_explain(const arb_plan *p) {
  char text[1024], message[1000];
  snprintf(message, sizeof message, "%s", arb_fail_message());
  (void)table(p, text, sizeof text);
  arb_fail_clear();
  (void)ARB_FAIL(ARB_ERR_NOMEM, "%s; before the first step; the plan:\n%s", message, text);
}

static int64_t wire_sum(const arb_plan *p) {
  int64_t sum = 0;
  for (int k = 0; k < ARB_TRAFFIC_CONTROL; k++) sum += p->wire[k];
  return sum;
}

void arb_plan_print(const arb_plan *p, FILE *out) {
  char text[1024];
  fprintf(out, "%lld ternary weights on %d rank%s, device %s", (long long)p->weights, p->ranks, p->ranks == 1 ? "" : "s",
          p->device);
  if (p->threads > 1) fprintf(out, ", %d threads a rank", p->threads);
  fprintf(out, "\n%lld grains of %lld rows; rank %d has %d, %d at a time\n", (long long)p->grains, (long long)p->rows_per_grain,
          p->rank, (int)p->local_grains, (int)p->grains_at_once);
  if (p->grains % p->ranks)
    fprintf(out, "the grains do not divide evenly among %d ranks: some ranks wait %.0f %% of the time\n", p->ranks,
            100.0 - 100.0 * (double)(p->grains / p->ranks) / (double)p->local_grains);
  (void)table(p, text, sizeof text);
  fprintf(out, "\nmemory of rank %d%s\n%s\n", p->rank, p->rank == 0 && p->ranks > 1 ? "; no rank needs more" : "", text);
  fprintf(out, "\npayload of rank %d a step%s\n", p->rank, p->ranks == 1 ? " (counted, though one rank sends nothing)" : "");
  for (int k = 0; k < ARB_TRAFFIC_CONTROL; k++)
    if (p->wire[k])
      fprintf(out, "  %-34s %18lld bytes  %8.4f a weight\n", arb_traffic_name((arb_traffic)k), (long long)p->wire[k],
              (double)p->wire[k] / (double)p->weights);
  fprintf(out, "  %-34s %18lld bytes  %8.4f a weight\n", "sum", (long long)wire_sum(p),
          (double)wire_sum(p) / (double)p->weights);
}

void arb_plan_summary(const arb_plan *p, FILE *out) {
  fprintf(out, "memory: %.4f bytes a weight on rank %d, %.1f MB:", (double)p->total / (double)p->weights, p->rank,
          (double)p->total / 1e6);
  const char *comma = "";
  for (int i = 0; i < ARB_PLAN__COUNT; i++)
    if (p->bytes[i]) {
      fprintf(out, "%s %s %.1f", comma, names[i], (double)p->bytes[i] / 1e6);
      comma = ",";
    }
  fprintf(out, "\nwire: %.4f bytes a weight and step:", (double)wire_sum(p) / (double)p->weights);
  comma = "";
  for (int k = 0; k < ARB_TRAFFIC_CONTROL; k++)
    if (p->wire[k]) {
      fprintf(out, "%s %s %.4f", comma, arb_traffic_name((arb_traffic)k), (double)p->wire[k] / (double)p->weights);
      comma = ",";
    }
  fprintf(out, "\n");
}
