#include "src/features/feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  arb_feed_sample sample;
  arb_status status;
  char message[1024];
  int ready;
} slot;

struct arb_feed {
  arb_feed_options o;
  pthread_mutex_t lock;
  pthread_cond_t turn;
  slot *slots;         /* [ahead]; job j lives in j % ahead */
  int64_t next, taken; /* jobs begun; jobs handed out, the last of which the caller still reads */
  int stop, started;
  pthread_t *threads;
};

/* One kind of one sample. */
static arb_status prepare_kind(const arb_feed_options *o, int kind, slot *s) {
  const arb_pair *pair = &o->pairs->pair[s->sample.sample];
  arb_encoder *e = o->encoder[kind];
  unsigned char *bytes = NULL;
  size_t size = 0;
  if (!e || !pair->file[kind]) return ARB_OK;
  s->sample.present[kind] = 1;
  if (o->cache[kind] && arb_feature_cache_get(o->cache[kind], pair->hash[kind], s->sample.q[kind], s->sample.s[kind]))
    return ARB_OK;
  ARB_TRY(arb_pairs_read(o->pairs, s->sample.sample, (arb_media_kind)kind, &bytes, &size));
  const arb_status st = arb_encoder_run(e, pair->file[kind], bytes, size, s->sample.q[kind], s->sample.s[kind]);
  free(bytes);
  if (st == ARB_OK) {
    if (o->cache[kind]) arb_feature_cache_put(o->cache[kind], pair->hash[kind], s->sample.q[kind], s->sample.s[kind]);
    return ARB_OK;
  }
  arb_fail_context("%s:%lld", o->pairs->path, (long long)pair->line);
  if (st != ARB_ERR_DATA) return st;
  s->sample.empty = 1;
  snprintf(s->sample.why, sizeof s->sample.why, "%s", arb_fail_message());
  arb_fail_clear();
  return ARB_OK;
}

static void prepare(const arb_feed_options *o, slot *s) {
  s->status = ARB_OK;
  s->sample.empty = 0;
  memset(s->sample.present, 0, sizeof s->sample.present);
  for (int k = 0; k < ARB_MEDIA_KINDS && s->status == ARB_OK && !s->sample.empty; k++) s->status = prepare_kind(o, k, s);
  if (s->sample.empty) memset(s->sample.present, 0, sizeof s->sample.present);
  if (s->status == ARB_OK) return;
  snprintf(s->message, sizeof s->message, "%s", arb_fail_message());
  arb_fail_clear();
}

static void *work(void *arg) {
  arb_feed *f = arg;
  pthread_mutex_lock(&f->lock);
  for (;;) {
    /* The slot of job `taken - 1` is still being read. */
    const int64_t oldest = f->taken > 0 ? f->taken - 1 : 0;
    if (f->stop || (f->o.jobs >= 0 && f->next >= f->o.jobs)) break;
    if (f->next - oldest >= f->o.ahead) {
      pthread_cond_wait(&f->turn, &f->lock);
      continue;
    }
    const int64_t job = f->next++;
    slot *s = &f->slots[job % f->o.ahead];
    pthread_mutex_unlock(&f->lock);
    s->sample.sample = f->o.sample_at(f->o.arg, job);
    prepare(&f->o, s);
    pthread_mutex_lock(&f->lock);
    s->ready = 1;
    pthread_cond_broadcast(&f->turn);
  }
  pthread_mutex_unlock(&f->lock);
  return NULL;
}

static arb_status allocate(arb_feed *f) {
  f->slots = calloc((size_t)f->o.ahead, sizeof *f->slots);
  f->threads = calloc((size_t)f->o.threads, sizeof *f->threads);
  ARB_REQUIRE(f->slots && f->threads, ARB_ERR_NOMEM, "out of host memory");
  for (int i = 0; i < f->o.ahead; i++)
    for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
      const arb_encoder *e = f->o.encoder[k];
      arb_feed_sample *s = &f->slots[i].sample;
      if (!e) continue;
      s->q[k] = malloc((size_t)(e->rows * e->width));
      s->s[k] = malloc((size_t)e->rows * sizeof *s->s[k]);
      ARB_REQUIRE(s->q[k] && s->s[k], ARB_ERR_NOMEM, "no memory for %d samples ahead", f->o.ahead);
    }
  while (f->started < f->o.threads) {
    const int rc = pthread_create(&f->threads[f->started], NULL, work, f);
    ARB_REQUIRE(rc == 0, ARB_ERR_IO, "a data thread cannot be started: %s", strerror(rc));
    f->started++;
  }
  return ARB_OK;
}

arb_status arb_feed_create(const arb_feed_options *o, arb_feed **out) {
  ARB_REQUIRE(o->threads >= 1 && o->ahead >= 2, ARB_ERR_ARG, "%d threads, %d samples ahead", o->threads, o->ahead);
  arb_feed *f = calloc(1, sizeof *f);
  ARB_REQUIRE(f, ARB_ERR_NOMEM, "out of host memory");
  f->o = *o;
  pthread_mutex_init(&f->lock, NULL);
  pthread_cond_init(&f->turn, NULL);
  const arb_status st = allocate(f);
  if (st != ARB_OK)
    arb_feed_destroy(&f);
  else
    *out = f;
  return st;
}

arb_status arb_feed_take(arb_feed *f, const arb_feed_sample **out) {
  ARB_REQUIRE(f->o.jobs < 0 || f->taken < f->o.jobs, ARB_ERR_ARG, "all %lld samples were taken", (long long)f->o.jobs);
  pthread_mutex_lock(&f->lock);
  if (f->taken > 0) f->slots[(f->taken - 1) % f->o.ahead].ready = 0; /* the one before is done with */
  slot *s = &f->slots[f->taken % f->o.ahead];
  f->taken++;
  pthread_cond_broadcast(&f->turn);
  while (!s->ready) pthread_cond_wait(&f->turn, &f->lock);
  pthread_mutex_unlock(&f->lock);
  *out = &s->sample;
  return s->status == ARB_OK ? ARB_OK : ARB_FAIL(s->status, "%s", s->message);
}

void arb_feed_destroy(arb_feed **feed) {
  if (!feed || !*feed) return;
  arb_feed *f = *feed;
  pthread_mutex_lock(&f->lock);
  f->stop = 1;
  pthread_cond_broadcast(&f->turn);
  pthread_mutex_unlock(&f->lock);
  for (int i = 0; i < f->started; i++) pthread_join(f->threads[i], NULL);
  for (int i = 0; f->slots && i < f->o.ahead; i++)
    for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
      free(f->slots[i].sample.q[k]);
      free(f->slots[i].sample.s[k]);
    }
  pthread_cond_destroy(&f->turn);
  pthread_mutex_destroy(&f->lock);
  free(f->slots);
  free(f->threads);
  free(f);
  *feed = NULL;
}
