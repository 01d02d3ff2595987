#include "src/train/trainer_impl.h"

#include <stdlib.h>
#include <string.h>

#include "dist/place.h"
#include "kernels/common/math.h"
#include "kernels/common/mix128.h"
#include "kernels/lockstep/lockstep.h"
#include "src/base/log.h"
#include "src/features/open.h"
#include "src/train/media.h"
#include "src/train/save.h"

#define ARITHMETIC_VERSION 2           /* raised whenever the same config would give other bits */
#define META_ARRAY 0xffffffffffffffffu /* array id of everything in the digest that is not an array */

void arb_trainer_path(const arb_config *cfg, const char *leaf, char *path, size_t size) {
  snprintf(path, size, "%s/%s%s%s", cfg->run.dir, cfg->run.name, leaf[0] ? "/" : "", leaf);
}

float arb_trainer_eta(const arb_config *cfg, int64_t t) {
  const float warm = t < cfg->train.warmup ? (float)t / (float)cfg->train.warmup : 1.0f;
  const float turn = arb_cosf(3.14159274f * ((float)t / (float)cfg->train.steps));
  const float floor = cfg->train.floor;
  return cfg->train.peak * warm * (floor + (1.0f - floor) * ((1.0f + turn) * 0.5f));
}

/* Everything that the bits of a continuation depend on, one "name=value" a line. */
static arb_status make_identity(arb_trainer *t) {
  const size_t size = ARB_CONFIG_RESOLVED_BYTES;
  t->identity = malloc(size);
  ARB_REQUIRE(t->identity, ARB_ERR_NOMEM, "out of host memory");
  ARB_TRY(arb_config_identity(t->cfg, t->identity, size));
  const size_t used = strlen(t->identity);
  char text[ARB_FINGERPRINT_CHARS] = "none";
  if (t->train.bytes) arb_fingerprint_print(&t->train.fingerprint, text);
  int n = 0; /* a run on texts has the lines that it always had */
  if (t->media) {
    arb_fingerprint pairs;
    arb_pairs_fingerprint(&t->media->train, &pairs);
    if (t->media->train.count) arb_fingerprint_print(&pairs, text);
    n = snprintf(t->identity + used, size - used, "data.pairs.fingerprint=%s\n", text);
    for (int k = 0; k < ARB_MEDIA_KINDS; k++)
      if (t->media->encoder[k])
        n += snprintf(t->identity + used + n, size - used - (size_t)n, "encoder.%s=%s; %s\n", arb_media_name((arb_media_kind)k),
                      t->media->encoder[k]->key, ARB_FEATURES_FORM);
    snprintf(text, sizeof text, "none");
  }
  snprintf(t->identity + used + n, size - used - (size_t)n, "data.train.fingerprint=%s\narithmetic=%d\n", text,
           ARITHMETIC_VERSION);
  return ARB_OK;
}

/* Puts the place of a setting in front of the message of a failure that it caused. */
static arb_status blame(arb_status st, const arb_config *cfg, const char *key) {
  if (st != ARB_OK) arb_fail_context("%s (%s)", arb_config_origin(cfg, key), key);
  return st;
}

static arb_status load_text(const arb_config *cfg, const char *key, const char *path, arb_text *out) {
  return blame(arb_text_load(path, out), cfg, key);
}

/* Adds what a config's encoders will give; a trainer's own encoders replace it. */
static void extend_spec(const arb_config *cfg, arb_model_spec *spec) {
  const int on[ARB_FEATURE_KINDS] = {cfg->model.image, cfg->model.audio};
  for (int k = 0; k < ARB_FEATURE_KINDS; k++) {
    int64_t rows, width;
    if (!on[k]) continue;
    arb_features_shape(k, &rows, &width);
    spec->features[k].windows = rows - ARB_FEATURE_SPAN + 1;
    spec->features[k].width = width;
    spec->context += spec->features[k].windows;
  }
  spec->rows_per_grain = cfg->train.sequences / cfg->train.grains * spec->context;
}

arb_model_spec arb_trainer_spec(const arb_config *cfg, int on_device, int rank, int ranks) {
  const int64_t local = arb_place_grains(cfg->train.grains, rank, ranks).count;
  const int together = on_device || cfg->train.fused_update;
  const int64_t wanted = cfg->run.grains_at_once ? cfg->run.grains_at_once : (together ? local : 1);
  arb_model_spec spec = {.dim = cfg->model.dim,
                         .embed_channels = cfg->model.embed_channels,
                         .layers = cfg->model.layers,
                         .glu_hidden = cfg->model.glu_hidden,
                         .memory_zero = cfg->model.memory == ARB_CONFIG_MEMORY_ZERO,
                         .context = cfg->train.context,
                         .rows_per_grain = cfg->train.sequences / cfg->train.grains * cfg->train.context,
                         .grains_per_batch = (int32_t)(wanted < local ? wanted : local),
                         .rank = rank,
                         .ranks = cfg->dist.shard_state && ranks > 1 ? ranks : 0,
                         .guards = cfg->debug.guards,
                         .fused_update = cfg->train.fused_update,
                         .bucket_bytes = 1000000 * cfg->dist.bucket_mb};
  extend_spec(cfg, &spec);
  return spec;
}

/* Allocates the model; where memory is short, the message is the plan, and nothing was started. */
static arb_status allocate(arb_trainer *t) {
  arb_plan plan;
  arb_model_measure(t->model);
  arb_plan_of_model(t->model, t->comm->rank, t->comm->size, t->cfg->train.grains, &plan);
  ARB_TRY(arb_plan_fits(&plan, t->be, t->comm->local_size));
  const arb_status st = arb_model_allocate(t->model);
  if (st == ARB_ERR_NOMEM) arb_plan_explain(&plan);
  t->planned = plan.total;
  return st;
}

/* debug.synchronous and debug.lockstep. */
static arb_status watch(arb_trainer *t) {
  const arb_config *c = t->cfg;
  const arb_lockstep_options o = {.lockstep = c->debug.lockstep,
                                  .finite = c->debug.synchronous,
                                  .outlier = c->debug.outlier_log2 ? arb_pow2i((int)c->debug.outlier_log2) : 0.0f,
                                  .rank = t->comm->rank};
  return o.lockstep || o.finite ? arb_lockstep_attach(t->be, &o) : ARB_OK;
}

static arb_status load_texts(arb_trainer *t, int data) {
  const arb_config *c = t->cfg;
  if (data & ARB_TRAINER_TRAIN) {
    ARB_TRY(load_text(c, "data.train", c->data.train, &t->train));
    ARB_TRY(blame(arb_batches_init(&t->batches, &t->train, c->run.seed, c->train.context, c->train.sequences,
                                   c->train.sequences / c->train.grains),
                  c, "data.train"));
  }
  if ((data & ARB_TRAINER_VALID) && c->data.valid[0]) {
    int64_t offset;
    ARB_TRY(load_text(c, "data.valid", c->data.valid, &t->valid));
    ARB_TRY(blame(arb_batch_valid_offset(t->valid.length, c->train.context, 0, c->eval.sequences, &offset), c, "data.valid"));
  }
  return ARB_OK;
}

static arb_status prepare(arb_trainer *t, int data) {
  const arb_config *c = t->cfg;
  const int64_t rows = c->train.sequences / c->train.grains * c->train.context;
  ARB_TRY(arb_config_check_ranks(c, t->comm->size));
  ARB_REQUIRE(!t->be->on_device || t->comm->size == 1 || t->device_comm, ARB_ERR_UNSUPPORTED,
              "%d ranks on GPUs need NCCL, which this build does not have", t->comm->size);
  arb_model_spec spec = arb_trainer_spec(c, t->be->on_device, t->comm->rank, t->comm->size);
  if (t->media) arb_media_extend(t->media, &spec);
  const int64_t at_once = spec.grains_per_batch;
  if (!t->media) ARB_TRY(load_texts(t, data));
  ARB_TRY(make_identity(t));
  ARB_TRY(watch(t));
  ARB_TRY(arb_model_create(&spec, t->be, &t->model));
  for (int i = 0; i < t->model->state.tensor_count; i++)
    ARB_TRY(arb_lockstep_name(t->be, t->model->state.tensors[i]->w.id, t->model->state.tensors[i]->name));
  ARB_TRY(allocate(t));
  ARB_TRY(arb_state_fresh(&t->model->state, c->run.seed));
  arb_trainer_overlap(t, c->dist.overlap);
  t->ahead = arb_step_may_go_ahead(t);
  t->vmax = 127 / (int)c->train.grains;
  t->ids = calloc((size_t)(rows * at_once), sizeof *t->ids);
  t->targets = calloc((size_t)(rows * at_once), sizeof *t->targets);
  t->sums = calloc((size_t)arb_step_words(t->model), sizeof *t->sums);
  t->recorded_used = calloc((size_t)t->model->state.tensor_count, sizeof *t->recorded_used);
  ARB_REQUIRE(t->ids && t->targets && t->sums && t->recorded_used, ARB_ERR_NOMEM, "out of host memory");
  return t->media ? arb_media_allocate(t) : ARB_OK;
}

arb_status arb_trainer_create(const arb_config *cfg, arb_backend *be, arb_comm *comm, arb_comm *device_comm, int data,
                              arb_trainer **out) {
  return arb_trainer_create_encoded(cfg, be, comm, device_comm, data, NULL, out);
}

arb_status arb_trainer_create_encoded(const arb_config *cfg, arb_backend *be, arb_comm *comm, arb_comm *device_comm, int data,
                                      arb_encoder *encoders[2], arb_trainer **out) {
  arb_trainer *t = calloc(1, sizeof *t);
  arb_status st = t ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (t) {
    t->cfg = cfg;
    t->be = be;
    t->comm = comm;
    t->device_comm = device_comm;
  }
  st = arb_comm_agree(comm, st);
  if (st == ARB_OK && (arb_config_paired(cfg) || cfg->model.image || cfg->model.audio)) st = arb_media_open(t, data, encoders);
  if (st == ARB_OK) st = arb_comm_agree(comm, prepare(t, data));
  for (int k = 0; k < ARB_MEDIA_KINDS && encoders; k++) arb_encoder_destroy(&encoders[k]); /* unless they were taken */
  if (st == ARB_OK) st = arb_trainer_same_everywhere(t);
  if (st == ARB_OK) st = arb_comm_all_reduce(comm, &t->ahead, 1, ARB_I64, ARB_MIN, ARB_TRAFFIC_CONTROL);
  if (st != ARB_OK)
    arb_trainer_destroy(&t);
  else
    *out = t;
  return st;
}

void arb_trainer_destroy(arb_trainer **trainer) {
  if (!trainer || !*trainer) return;
  arb_trainer *t = *trainer;
  arb_save_destroy(&t->save);
  if (t->be->ops.sequence_free) {
    for (int i = 0; i < ARB_TRAINER_BATCHES; i++) t->be->ops.sequence_free(t->be, t->batches_recorded[i]);
    for (int i = 0; i < ARB_MODEL_BUCKETS; i++) t->be->ops.sequence_free(t->be, t->parts_recorded[i]);
    for (int i = 0; i < ARB_UPDATE__COUNT; i++) t->be->ops.sequence_free(t->be, t->update_recorded[i]);
  }
  arb_model_destroy(&t->model);
  arb_media_close(t);
  arb_text_deinit(&t->train);
  arb_text_deinit(&t->valid);
  free(t->identity);
  free(t->ids);
  free(t->targets);
  free(t->sums);
  free(t->recorded_used);
  free(t);
  *trainer = NULL;
}

double arb_bits_per_byte(int64_t loss_q20, int64_t count) {
  return count ? (double)loss_q20 / 1048576.0 / (double)count / 0.69314718055994531 : 0.0;
}

/* This rank's share of the validation windows, a grain's worth of sequences at a time. */
static arb_status local_evaluation(arb_trainer *t, int64_t sums[2]) {
  const arb_config *c = t->cfg;
  arb_model *m = t->model;
  const int64_t context = c->train.context, batch = m->spec.rows_per_grain * m->spec.grains_per_batch / context;
  ARB_TRY(arb_step_forget(t));
  ARB_TRY(arb_model_begin(m));
  for (int64_t i = t->comm->rank; i < c->eval.sequences;) {
    int64_t filled = 0;
    for (; filled < batch && i < c->eval.sequences; filled++, i += t->comm->size)
      ARB_TRY(
          arb_batch_valid(&t->valid, context, i, c->eval.sequences, t->ids + filled * context, t->targets + filled * context));
    const arb_rows r = {filled * context, 1, 0, 1};
    arb_pass p;
    ARB_TRY(arb_model_pass(m, &r, t->ids, t->targets, 0, t->vmax, &p));
    ARB_TRY(arb_model_forward(m, &p));
  }
  int nonfinite;
  ARB_TRY(t->be->ops.take_nonfinite(t->be, &nonfinite));
  ARB_REQUIRE(!nonfinite, ARB_ERR_NUMERIC, "evaluation after step %lld: a value is not finite", (long long)t->step);
  ARB_TRY(t->be->ops.download(t->be, &sums[0], m->loss, sizeof *m->loss));
  return t->be->ops.download(t->be, &sums[1], m->count, sizeof *m->count);
}

arb_status arb_trainer_evaluate(arb_trainer *t, double *bpb) {
  int64_t sums[2] = {0, 0};
  if (t->media) return arb_media_evaluate(t, bpb);
  ARB_TRY(arb_comm_agree(t->comm, local_evaluation(t, sums)));
  ARB_TRY(arb_comm_all_reduce(t->comm, sums, 2, ARB_I64, ARB_SUM, ARB_TRAFFIC_CONTROL));
  *bpb = arb_bits_per_byte(sums[0], sums[1]);
  return ARB_OK;
}

/* Modulo 2^128, in pieces of 32 bits: sums of 64-bit halves would lose their carries. */
static arb_status sum_over_ranks(arb_trainer *t, arb_u128 *sum) {
  uint64_t piece[4] = {(uint32_t)sum->lo, sum->lo >> 32, (uint32_t)sum->hi, sum->hi >> 32};
  ARB_TRY(arb_comm_all_reduce(t->comm, piece, 4, ARB_U64, ARB_SUM, ARB_TRAFFIC_CONTROL));
  for (int i = 0; i < 3; i++) piece[i + 1] += piece[i] >> 32;
  sum->lo = (piece[1] << 32) | (uint32_t)piece[0];
  sum->hi = (piece[3] << 32) | (uint32_t)piece[2];
  return ARB_OK;
}

arb_status arb_trainer_digest(arb_trainer *t, char hex[33]) {
  arb_u128 sum;
  arb_status st = arb_state_digest(&t->model->state, &sum);
  if (t->model->spec.ranks) {
    ARB_TRY(arb_comm_agree(t->comm, st));
    ARB_TRY(sum_over_ranks(t, &sum));
  }
  ARB_TRY(st);
  uint64_t index = 0;
  const uint64_t head[3] = {t->cfg->run.seed, (uint64_t)t->step, (uint64_t)(t->step * t->cfg->train.sequences)};
  for (int i = 0; i < 3; i++) sum = arb_u128_add(sum, arb_mix128(META_ARRAY, index++, head[i]));
  const size_t length = strlen(t->identity);
  for (size_t i = 0; i < length; i += 8) {
    uint64_t word = 0;
    memcpy(&word, t->identity + i, length - i < 8 ? length - i : 8);
    sum = arb_u128_add(sum, arb_mix128(META_ARRAY, index++, word));
  }
  snprintf(hex, 33, "%016llx%016llx", (unsigned long long)sum.hi, (unsigned long long)sum.lo);
  return ARB_OK;
}
