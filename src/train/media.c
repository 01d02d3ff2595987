#include "src/train/media.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dist/place.h"
#include "src/base/log.h"
#include "src/features/open.h"
#include "src/train/trainer_impl.h"

_Static_assert((int)ARB_MEDIA_IMAGE == (int)ARB_FEATURE_IMAGE && (int)ARB_MEDIA_AUDIO == (int)ARB_FEATURE_AUDIO &&
                   (int)ARB_MEDIA_KINDS == (int)ARB_FEATURE_KINDS,
               "files and features are of the same kinds");
_Static_assert((int)ARB_PAIR_PAD == (int)ARB_ID_PAD && (int)ARB_PAIR_EOS < (int)ARB_VOCABULARY, "one vocabulary");

/* ---- opening ---- */

static arb_status load(const arb_config *c, const char *key, const char *path, arb_pairs *out) {
  arb_status st = arb_pairs_load(path, out);
  if (st == ARB_OK) st = arb_pairs_fit(out, c->train.context);
  const int wanted[ARB_MEDIA_KINDS] = {c->model.image, c->model.audio};
  for (int k = 0; k < ARB_MEDIA_KINDS && st == ARB_OK; k++) {
    const char *name = arb_media_name((arb_media_kind)k);
    const int64_t count = arb_pairs_with(out, (arb_media_kind)k);
    if (wanted[k] && count == 0) st = ARB_FAIL(ARB_ERR_DATA, "%s: model.%s = yes, but no sample has \"%s\"", path, name, name);
    if (!wanted[k] && count > 0)
      arb_log(ARB_LOG_WARN, "data", "%s: %lld samples have \"%s\", which is not looked at: model.%s = no", path,
              (long long)count, name, name);
  }
  if (st != ARB_OK) arb_fail_context("%s (%s)", arb_config_origin(c, key), key);
  return st;
}

static arb_status load_all(const arb_trainer *t, int data) {
  const arb_config *c = t->cfg;
  if (data & ARB_TRAINER_TRAIN) ARB_TRY(load(c, "data.pairs", c->data.pairs, &t->media->train));
  if ((data & ARB_TRAINER_VALID) && c->data.valid_pairs[0])
    ARB_TRY(load(c, "data.valid_pairs", c->data.valid_pairs, &t->media->valid));
  return ARB_OK;
}

/* Collective. Every rank reads its share of the files, and all get all hashes. */
static arb_status hash_together(arb_comm *comm, arb_pairs *p) {
  enum { WORDS = 2 * ARB_MEDIA_KINDS };
  uint64_t *words = calloc((size_t)(p->count + 1) * WORDS, sizeof *words); /* a manifest that is not there has none */
  arb_status st = words ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK) st = arb_pairs_hash(p, comm->rank, comm->size);
  ARB_TRY_OUT(st, arb_comm_agree(comm, st));
  for (int64_t i = 0; i < p->count; i++) memcpy(words + i * WORDS, p->pair[i].hash, WORDS * sizeof *words);
  ARB_TRY_OUT(st, arb_comm_all_reduce(comm, words, p->count * WORDS, ARB_U64, ARB_SUM, ARB_TRAFFIC_CONTROL));
  for (int64_t i = 0; i < p->count; i++) memcpy(p->pair[i].hash, words + i * WORDS, WORDS * sizeof *words);
out:
  free(words);
  return st;
}

/* Collective. That all ranks have manifests of one length, without which hashing them together makes no sense. */
static arb_status same_counts(const arb_trainer *t) {
  int64_t counts[4] = {t->media->train.count, t->media->valid.count, -t->media->train.count, -t->media->valid.count};
  ARB_TRY(arb_comm_all_reduce(t->comm, counts, 4, ARB_I64, ARB_MAX, ARB_TRAFFIC_CONTROL));
  for (int i = 0; i < 2; i++)
    ARB_REQUIRE(counts[i] == -counts[i + 2], ARB_ERR_DATA, "%s: rank %d has %lld samples, another rank %lld",
                i ? "data.valid_pairs" : "data.pairs", t->comm->rank,
                (long long)(i ? t->media->valid.count : t->media->train.count),
                (long long)(counts[i] != (i ? t->media->valid.count : t->media->train.count) ? counts[i] : -counts[i + 2]));
  return ARB_OK;
}

static arb_status open_caches(arb_trainer *t) {
  const char *dir = t->cfg->data.feature_cache;
  for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
    if (!dir[0] || !t->media->encoder[k]) continue;
    const arb_status st = arb_feature_cache_open(dir, t->media->encoder[k], &t->media->cache[k]);
    if (st != ARB_OK) arb_fail_context("%s (data.feature_cache)", arb_config_origin(t->cfg, "data.feature_cache"));
    ARB_TRY(st);
  }
  return ARB_OK;
}

arb_status arb_media_open(arb_trainer *t, int data, arb_encoder **encoders) {
  arb_status st = ARB_OK;
  t->media = calloc(1, sizeof *t->media);
  if (t->media) {
    for (int k = 0; k < ARB_MEDIA_KINDS && encoders; k++) {
      t->media->encoder[k] = encoders[k];
      encoders[k] = NULL;
    }
    t->media->owner = t;
    st = load_all(t, data);
  } else {
    st = ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  }
  ARB_TRY(arb_comm_agree(t->comm, st));
  ARB_TRY(same_counts(t));
  ARB_TRY(hash_together(t->comm, &t->media->train));
  ARB_TRY(hash_together(t->comm, &t->media->valid));
  t->media->nodes = t->comm->local_rank == 0;
  ARB_TRY(arb_comm_all_reduce(t->comm, &t->media->nodes, 1, ARB_I64, ARB_SUM, ARB_TRAFFIC_CONTROL));
  if (!encoders) ARB_TRY(arb_encoders_open(t->cfg, t->comm, t->be->encoders, t->media->encoder));
  return arb_comm_agree(t->comm, open_caches(t));
}

void arb_media_close(arb_trainer *t) {
  arb_media *m = t->media;
  if (!m) return;
  arb_feed_destroy(&m->feed);
  for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
    arb_feature_cache_close(&m->cache[k]);
    arb_encoder_destroy(&m->encoder[k]);
    free(m->q[k]);
    free(m->s[k]);
    free(m->present[k]);
  }
  arb_pairs_deinit(&m->train);
  arb_pairs_deinit(&m->valid);
  free(m->listed);
  free(m);
  t->media = NULL;
}

void arb_media_extend(const arb_media *m, arb_model_spec *spec) {
  const int64_t sequences = spec->rows_per_grain / spec->context, text = arb_model_text_rows(spec);
  spec->context = text;
  for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
    const arb_encoder *e = m->encoder[k];
    spec->features[k].windows = e ? e->rows - ARB_FEATURE_SPAN + 1 : 0;
    spec->features[k].width = e ? e->width : 0;
    spec->context += spec->features[k].windows;
  }
  spec->rows_per_grain = sequences * spec->context;
}

arb_status arb_media_allocate(arb_trainer *t) {
  arb_media *m = t->media;
  const arb_model_spec *spec = &t->model->spec;
  const size_t slots = (size_t)(spec->rows_per_grain / spec->context * spec->grains_per_batch);
  m->listed = calloc((size_t)m->train.count + 1, 1);
  ARB_REQUIRE(m->listed, ARB_ERR_NOMEM, "out of host memory");
  for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
    const arb_encoder *e = m->encoder[k];
    if (!e) continue;
    m->q[k] = calloc(slots, (size_t)(e->rows * e->width));
    m->s[k] = calloc(slots, (size_t)e->rows * sizeof *m->s[k]);
    m->present[k] = calloc(slots, 1);
    ARB_REQUIRE(m->q[k] && m->s[k] && m->present[k], ARB_ERR_NOMEM, "out of host memory");
    m->features[k] = (arb_model_features){m->q[k], m->s[k], m->present[k]};
  }
  return ARB_OK;
}

void arb_media_audit(const arb_trainer *t, FILE *out) {
  const arb_media *m = t->media;
  fprintf(out, "\nfrozen encoders: imported, quantised, without gradients; not part of the state\n");
  for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
    const arb_encoder *e = m->encoder[k];
    if (!e) continue;
    const int64_t replicas = e->on_device ? t->comm->size : m->nodes;
    fprintf(out, "  %-44s %14lld bytes, %lld replica%s for %d rank%s on %lld node%s\n", e->model, (long long)e->weight_bytes,
            (long long)replicas, replicas == 1 ? "" : "s", t->comm->size, t->comm->size == 1 ? "" : "s", (long long)m->nodes,
            m->nodes == 1 ? "" : "s");
    fprintf(out, "  %-44s %14lld bytes a rank\n", "  its activations and scratch", (long long)e->private_bytes);
    if (e->on_device) fprintf(out, "  %-44s %14s\n", "  in the memory of", e->place);
  }
}

/* ---- training ---- */

/* The global index of this rank's job: grains in the order in which the rank works on them, sequences in theirs. */
static int64_t train_index(const arb_media *m, int64_t job) {
  const arb_trainer *t = m->owner;
  const arb_config *c = t->cfg;
  const arb_grain_set mine = arb_place_grains(c->train.grains, t->comm->rank, t->comm->size);
  const int64_t per_grain = c->train.sequences / c->train.grains, per_step = mine.count * per_grain;
  const int64_t step = m->feed_first + job / per_step, grain = mine.first + job % per_step / per_grain * mine.stride;
  return (step - 1) * c->train.sequences + grain * per_grain + job % per_grain;
}

static int64_t train_sample(void *arg, int64_t job) {
  const arb_media *m = arg;
  return arb_pairs_at(&m->train, m->owner->cfg->run.seed, train_index(m, job));
}

/* The feed for this step: the one at hand, or one that begins here. */
static arb_status feed_for(arb_trainer *t, int64_t step) {
  arb_media *m = t->media;
  if (m->feed && m->feed_step == step && step <= m->feed_last) return ARB_OK;
  arb_feed_destroy(&m->feed);
  m->feed_last = step <= t->cfg->train.steps ? t->cfg->train.steps : INT64_MAX; /* a benchmark may go on */
  m->feed_first = m->feed_step = step;
  m->feed_job = 0;
  const int64_t mine = arb_place_grains(t->cfg->train.grains, t->comm->rank, t->comm->size).count;
  const int64_t one_step = mine * (t->cfg->train.sequences / t->cfg->train.grains), two_steps = 2 * one_step;
  const arb_feed_options o = {.pairs = &m->train,
                              .encoder = {m->encoder[0], m->encoder[1]},
                              .cache = {m->cache[0], m->cache[1]},
                              .threads = (int)t->cfg->data.threads,
                              .ahead = (int)(two_steps < 256 ? two_steps + 1 : 256),
                              .jobs = m->feed_last == INT64_MAX ? -1 : (m->feed_last - step + 1) * one_step,
                              .sample_at = train_sample,
                              .arg = m};
  return arb_feed_create(&o, &m->feed);
}

void arb_media_put(arb_media *m, int64_t slot, const arb_feed_sample *s) {
  for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
    const arb_encoder *e = m->encoder[k];
    if (!e) continue;
    const size_t q = (size_t)(e->rows * e->width), rows = (size_t)e->rows;
    int8_t *to_q = m->q[k] + (size_t)slot * q;
    float *to_s = m->s[k] + (size_t)slot * rows;
    m->present[k][slot] = s != NULL && s->present[k];
    if (m->present[k][slot]) {
      memcpy(to_q, s->q[k], q);
      memcpy(to_s, s->s[k], rows * sizeof *to_s);
    } else {
      memset(to_q, 0, q);
      memset(to_s, 0, rows * sizeof *to_s);
    }
  }
}

static int64_t last_epoch(const arb_media *m, int64_t step) {
  return (step * m->owner->cfg->train.sequences - 1) / m->train.count;
}

arb_status arb_media_fill(arb_trainer *t, int64_t step, int64_t count, int64_t empty[2]) {
  arb_media *m = t->media;
  const int64_t context = t->cfg->train.context, slots = count * (t->cfg->train.sequences / t->cfg->train.grains);
  ARB_TRY(feed_for(t, step));
  for (int64_t slot = 0; slot < slots; slot++) {
    const arb_feed_sample *s;
    ARB_TRY(arb_feed_take(m->feed, &s));
    arb_media_put(m, slot, s);
    const int64_t epoch = train_index(m, m->feed_job++) / m->train.count;
    if (!s->empty) {
      arb_pair_rows(&m->train.pair[s->sample], context, t->ids + slot * context, t->targets + slot * context);
      continue;
    }
    arb_pair_empty(context, t->ids + slot * context, t->targets + slot * context);
    ++empty[0];
    empty[1] += epoch == last_epoch(m, step);
    if (!m->listed[s->sample]) arb_log(ARB_LOG_WARN, "data", "skipped: %s", s->why);
    m->listed[s->sample] = 1;
  }
  return ARB_OK;
}

static arb_status check_epoch(const arb_trainer *t, int64_t step, int64_t epoch, int64_t empty) {
  const int64_t limit = t->cfg->data.corrupt_limit;
  ARB_REQUIRE(
      empty <= limit, ARB_ERR_DATA,
      "step %lld: %lld samples of epoch %lld cannot be decoded, more than data.corrupt_limit = %lld; they are listed above",
      (long long)step, (long long)empty, (long long)epoch + 1, (long long)limit);
  return ARB_OK;
}

arb_status arb_media_check(arb_trainer *t, int64_t step, const int64_t empty[2]) {
  arb_media *m = t->media;
  const int64_t epoch = last_epoch(m, step), earlier = empty[0] - empty[1];
  m->feed_step = step + 1;
  if (epoch != m->epoch) { /* the step began in an older epoch */
    ARB_TRY(check_epoch(t, step, m->epoch, m->empty + earlier));
    m->empty = 0;
  }
  m->epoch = epoch;
  m->empty += empty[1];
  return check_epoch(t, step, epoch, m->empty);
}

/* ---- validation ---- */

int64_t arb_media_valid_count(const arb_trainer *t) {
  const int64_t count = t->media->valid.count;
  return t->cfg->eval.sequences < count ? t->cfg->eval.sequences : count;
}

/* One shuffled order for all runs, so that a part of the samples is like all of them. */
int64_t arb_media_valid_at(const arb_media *m, int64_t k) { return arb_pairs_at(&m->valid, 0, k); }

int arb_media_mask(const arb_media *m, const arb_pair *pair) {
  int mask = 0;
  for (int k = 0; k < ARB_MEDIA_KINDS; k++) mask |= (m->encoder[k] && pair->file[k]) << k;
  return mask;
}
