/* Evaluation of runs on manifests. A sample's name is the last word of its text: what a picture or a sound is of. */
#include <stdlib.h>
#include <string.h>

#include "kernels/common/math.h"
#include "src/train/media.h"
#include "src/train/trainer_impl.h"

enum { TEXT, NAME, PARTS };      /* what is measured: all targets, or the bytes of the name */
enum { RIGHT, SHUFFLED, SIDES }; /* with whose features */
enum { LOSS, COUNT };

typedef struct {
  int64_t sum[PARTS][SIDES][2]; /* rint(loss * 2^20), targets */
  int64_t named, words, empty;  /* names generated right; names; samples that could not be decoded */
} figures;

/* The samples of a batch, and whose features each gets: its own or its partner's. */
typedef struct {
  int64_t *sample, *partner; /* [count] */
  int64_t count;
} batch;

/* Jobs of one mask's evaluation on this rank: for each batch its samples, then, if shuffled, their partners. */
typedef struct {
  int64_t *job;
  int64_t jobs;
} plan;

static int64_t plan_sample(void *arg, int64_t job) { return ((const plan *)arg)->job[job]; }

static double bits(const int64_t sum[2]) {
  return sum[COUNT] ? (double)sum[LOSS] / 1048576.0 / (double)sum[COUNT] / 0.69314718055994531 : 0.0;
}

/* One pass over the batch's slots; adds loss and targets. */
static arb_status measure(arb_trainer *t, int64_t slots, int64_t sum[2]) {
  arb_model *m = t->model;
  const arb_ops *o = &t->be->ops;
  const arb_rows r = {slots * m->spec.context, 1, 0, 1};
  int64_t got[2];
  arb_pass p;
  ARB_TRY(o->fill(t->be, m->loss, 0, sizeof *m->loss));
  ARB_TRY(o->fill(t->be, m->count, 0, sizeof *m->count));
  ARB_TRY(arb_model_pass_features(m, &r, t->ids, t->targets, t->media->features, 0, t->vmax, &p));
  ARB_TRY(arb_model_forward(m, &p));
  ARB_TRY(o->download(t->be, &got[LOSS], m->loss, sizeof got[LOSS]));
  ARB_TRY(o->download(t->be, &got[COUNT], m->count, sizeof got[COUNT]));
  sum[LOSS] += got[LOSS];
  sum[COUNT] += got[COUNT];
  return ARB_OK;
}

/* Takes the batch's features from the feed. A slot whose sample cannot be decoded stays empty: sample[slot] = -1. */
static arb_status take_features(arb_trainer *t, arb_feed *feed, const batch *b, int64_t *sample, int64_t *empty) {
  for (int64_t i = 0; i < b->count; i++) {
    const arb_feed_sample *s;
    ARB_TRY(arb_feed_take(feed, &s));
    arb_media_put(t->media, i, s);
    sample[i] = s->empty ? -1 : s->sample;
    *empty += s->empty;
  }
  return ARB_OK;
}

/* Rows of the texts; part NAME: only the name's bytes are targets. Slots with valid[i] < 0 stay empty. */
static void put_texts(arb_trainer *t, const batch *b, const int64_t *valid, int part) {
  const int64_t context = t->cfg->train.context;
  for (int64_t i = 0; i < b->count; i++) {
    int32_t *ids = t->ids + i * context, *targets = t->targets + i * context;
    const arb_pair *pair = &t->media->valid.pair[b->sample[i]];
    if (valid[i] < 0) {
      arb_pair_empty(context, ids, targets);
      continue;
    }
    arb_pair_rows(pair, context, ids, targets);
    if (part == TEXT) continue;
    for (int64_t at = 0; at < arb_pair_word(pair); at++) targets[at] = -1;
    targets[pair->length] = -1; /* the end is not part of the name */
  }
}

/* The likeliest of the bytes and the end; ties go to the lowest. */
static int likeliest(const uint16_t *logits) {
  int best = 0;
  for (int i = 1; i < 256; i++)
    if (arb_f32_of_bf16(logits[i]) > arb_f32_of_bf16(logits[best])) best = i;
  return arb_f32_of_bf16(logits[ARB_PAIR_EOS]) > arb_f32_of_bf16(logits[best]) ? ARB_PAIR_EOS : best;
}

/* Continues every text from where its name begins, by the likeliest id, and counts the names that come out right. */
static arb_status generate_names(arb_trainer *t, const batch *b, const int64_t *valid, figures *f) {
  const arb_pairs *pairs = &t->media->valid;
  arb_model *m = t->model;
  const int64_t context = t->cfg->train.context;
  int64_t open = 0;
  int64_t *at = calloc((size_t)b->count, sizeof *at); /* row whose logits come next; -1: done */
  uint16_t logits[ARB_VOCABULARY];
  arb_status st = at ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  put_texts(t, b, valid, TEXT);
  for (int64_t i = 0; i < b->count && st == ARB_OK; i++) {
    const int64_t word = arb_pair_word(&pairs->pair[b->sample[i]]);
    at[i] = valid[i] < 0 ? -1 : word;
    open += valid[i] >= 0;
    f->words += valid[i] >= 0;
    for (int64_t k = word + 1; k < context; k++) t->ids[i * context + k] = ARB_PAIR_PAD;
  }
  while (open > 0 && st == ARB_OK) {
    const arb_rows r = {b->count * m->spec.context, 1, 0, 1};
    arb_pass p;
    ARB_TRY_OUT(st, arb_model_pass_features(m, &r, t->ids, NULL, t->media->features, 0, t->vmax, &p));
    ARB_TRY_OUT(st, arb_model_forward(m, &p));
    for (int64_t i = 0; i < b->count; i++) {
      if (at[i] < 0) continue;
      const arb_pair *pair = &pairs->pair[b->sample[i]];
      const int64_t row = (i + 1) * m->spec.context - context + at[i];
      ARB_TRY_OUT(st, t->be->ops.download(t->be, logits, p.logits + row * ARB_VOCABULARY, sizeof logits));
      const int id = likeliest(logits), end = at[i] == pair->length;
      const int right = end ? id == ARB_PAIR_EOS : id == (unsigned char)pair->text[at[i]];
      if (right && !end) {
        t->ids[i * context + ++at[i]] = id;
        continue;
      }
      f->named += right; /* to the end and not a byte further */
      at[i] = -1;
      open--;
    }
  }
out:
  free(at);
  return st;
}

/* ---- which samples ---- */

/* The next sample after the k-th with other features of the same kinds; itself if there is none. */
static int64_t partner_of(const arb_trainer *t, int64_t k, int64_t count, int mask) {
  const arb_media *m = t->media;
  for (int64_t d = 1; d < count; d++) {
    const int64_t other = arb_media_valid_at(m, (k + d) % count);
    if (arb_media_mask(m, &m->valid.pair[other]) == mask) return other;
  }
  return arb_media_valid_at(m, k);
}

static arb_status run_mask(arb_trainer *t, int mask, int full, figures *f) {
  arb_media *m = t->media;
  const int64_t count = arb_media_valid_count(t), ranks = t->comm->size;
  const int64_t most = t->model->spec.rows_per_grain * t->model->spec.grains_per_batch / t->model->spec.context;
  const int shuffle = full && mask != 0;
  int64_t *memory = calloc((size_t)(4 * count + 2 * most + 4), sizeof *memory);
  ARB_REQUIRE(memory, ARB_ERR_NOMEM, "out of host memory");
  int64_t *samples = memory, *partners = samples + count, *valid = partners + count, *other = valid + most;
  plan jobs = {other + most, 0};
  int64_t mine = 0, turn = 0;
  for (int64_t k = 0; k < count; k++) { /* every rank takes its turn among the samples of this mask */
    const int64_t sample = arb_media_valid_at(m, k);
    if (arb_media_mask(m, &m->valid.pair[sample]) != mask || turn++ % ranks != t->comm->rank) continue;
    partners[mine] = shuffle ? partner_of(t, k, count, mask) : sample;
    samples[mine++] = sample;
  }
  for (int64_t done = 0; done < mine; done += most) {
    const int64_t n = mine - done < most ? mine - done : most;
    for (int64_t i = 0; i < n; i++) jobs.job[jobs.jobs++] = samples[done + i];
    for (int64_t i = 0; shuffle && i < n; i++) jobs.job[jobs.jobs++] = partners[done + i];
  }
  arb_feed *feed = NULL;
  const arb_feed_options o = {.pairs = &m->valid,
                              .encoder = {m->encoder[0], m->encoder[1]},
                              .cache = {m->cache[0], m->cache[1]},
                              .threads = (int)t->cfg->data.threads,
                              .ahead = (int)(2 * most < 256 ? 2 * most + 1 : 256),
                              .jobs = jobs.jobs,
                              .sample_at = plan_sample,
                              .arg = &jobs};
  arb_status st = mine ? arb_feed_create(&o, &feed) : ARB_OK;
  for (int64_t done = 0; done < mine && st == ARB_OK; done += most) {
    const batch b = {samples + done, partners + done, mine - done < most ? mine - done : most};
    ARB_TRY_OUT(st, take_features(t, feed, &b, valid, &f->empty));
    put_texts(t, &b, valid, TEXT);
    ARB_TRY_OUT(st, measure(t, b.count, f->sum[TEXT][RIGHT]));
    if (!full) continue;
    put_texts(t, &b, valid, NAME);
    ARB_TRY_OUT(st, measure(t, b.count, f->sum[NAME][RIGHT]));
    ARB_TRY_OUT(st, generate_names(t, &b, valid, f));
    if (!shuffle) continue;
    int64_t none = 0;
    ARB_TRY_OUT(st, take_features(t, feed, &b, other, &none));
    for (int64_t i = 0; i < b.count; i++) valid[i] = other[i] < 0 ? -1 : valid[i];
    put_texts(t, &b, valid, TEXT);
    ARB_TRY_OUT(st, measure(t, b.count, f->sum[TEXT][SHUFFLED]));
    put_texts(t, &b, valid, NAME);
    ARB_TRY_OUT(st, measure(t, b.count, f->sum[NAME][SHUFFLED]));
  }
  int nonfinite = 0;
  if (st == ARB_OK) st = t->be->ops.take_nonfinite(t->be, &nonfinite);
  if (st == ARB_OK && nonfinite)
    st = ARB_FAIL(ARB_ERR_NUMERIC, "evaluation after step %lld: a value is not finite", (long long)t->step);
out:
  arb_feed_destroy(&feed);
  free(memory);
  return st;
}

/* Collective. All masks, summed over ranks. */
static arb_status run_all(arb_trainer *t, int full, figures f[ARB_MEDIA_MASKS]) {
  arb_status st = arb_step_forget(t);
  if (st == ARB_OK) st = arb_model_begin(t->model);
  memset(f, 0, ARB_MEDIA_MASKS * sizeof *f);
  for (int mask = 0; mask < ARB_MEDIA_MASKS && st == ARB_OK; mask++) st = run_mask(t, mask, full, &f[mask]);
  ARB_TRY(arb_comm_agree(t->comm, st));
  return arb_comm_all_reduce(t->comm, f, (int64_t)(ARB_MEDIA_MASKS * sizeof *f / sizeof(int64_t)), ARB_I64, ARB_SUM,
                             ARB_TRAFFIC_CONTROL);
}

arb_status arb_media_evaluate(arb_trainer *t, double *bpb) {
  figures f[ARB_MEDIA_MASKS];
  int64_t all[2] = {0, 0};
  ARB_TRY(run_all(t, 0, f));
  for (int mask = 0; mask < ARB_MEDIA_MASKS; mask++) {
    const int64_t *sum = f[mask].sum[TEXT][RIGHT];
    all[LOSS] += sum[LOSS];
    all[COUNT] += sum[COUNT];
    t->media->val[mask] = sum[COUNT] ? bits(sum) : -1.0;
  }
  *bpb = bits(all);
  return ARB_OK;
}

/* The share of the most frequent name: what always saying it would reach. */
static double chance(const arb_trainer *t, int mask) {
  const arb_media *m = t->media;
  const int64_t count = arb_media_valid_count(t);
  int64_t most = 0, all = 0;
  for (int64_t a = 0; a < count; a++) {
    const arb_pair *pair = &m->valid.pair[arb_media_valid_at(m, a)];
    if (arb_media_mask(m, pair) != mask) continue;
    all++;
    int64_t same = 0;
    for (int64_t b = 0; b < count; b++) {
      const arb_pair *other = &m->valid.pair[arb_media_valid_at(m, b)];
      same +=
          arb_media_mask(m, other) == mask && strcmp(other->text + arb_pair_word(other), pair->text + arb_pair_word(pair)) == 0;
    }
    most = same > most ? same : most;
  }
  return all ? (double)most / (double)all : 0.0;
}

arb_status arb_trainer_report(arb_trainer *t, FILE *out) {
  static const char *const of[ARB_MEDIA_MASKS] = {"text alone", "an image", "a recording", "an image and a recording"};
  static const char *const part[PARTS] = {"text", "name"};
  figures f[ARB_MEDIA_MASKS];
  ARB_TRY(run_all(t, 1, f));
  for (int mask = 0; mask < ARB_MEDIA_MASKS && out; mask++) {
    const figures *g = &f[mask];
    if (g->words + g->empty == 0) continue;
    fprintf(out, "step %lld: %lld validation samples with %s", (long long)t->step, (long long)g->words, of[mask]);
    if (g->empty) fprintf(out, ", and %lld that cannot be decoded", (long long)g->empty);
    fprintf(out, "\n  bits a byte %10s %10s %12s\n", "right", mask ? "shuffled" : "", mask ? "difference" : "");
    for (int i = 0; i < PARTS; i++) {
      fprintf(out, "  %-11s %10.4f", part[i], bits(g->sum[i][RIGHT]));
      if (mask) fprintf(out, " %10.4f %12.4f", bits(g->sum[i][SHUFFLED]), bits(g->sum[i][SHUFFLED]) - bits(g->sum[i][RIGHT]));
      fprintf(out, "\n");
    }
    const double right = g->words ? (double)g->named / (double)g->words : 0.0, by_chance = chance(t, mask);
    fprintf(out, "  %.1f %% of the names are generated right; the most frequent one is %.1f %%: %.2f x\n", 100.0 * right,
            100.0 * by_chance, by_chance > 0.0 ? right / by_chance : 0.0);
  }
  for (int k = 0; k < ARB_MEDIA_KINDS && out; k++) {
    if (!t->media->encoder[k]) continue;
    fprintf(out, "encoder of %ss: %s\n", k ? "recording" : "image", t->media->encoder[k]->model);
    if (strstr(t->media->encoder[k]->model, "synthetic"))
      fprintf(out, "published weights: not run (sidecars.%s names their folder)\n", k ? "moonshine" : "dino");
  }
  return ARB_OK;
}
