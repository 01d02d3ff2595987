#include "dist/watchdog.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dist/board_impl.h"

enum { NAMED_RANKS = 8, NAMED_RECORDS = 8 };

/* One communicator. While `armed`, its thread is inside a collective and writes neither ring nor sequence: `end` takes the
 * lock first, so whoever holds the lock may read them. */
typedef struct {
  arb_watchdog *dog;
  arb_comm *comm; /* NULL: free */
  bool armed, told;
  int64_t since;
} watch;

struct arb_watchdog {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake; /* only to stop: begin and end must stay cheap, so the thread looks at intervals */
  bool stop;
  int64_t timeout, interval;
  arb_watchdog_report report;
  void *arg;
  watch watches[ARB_WATCHDOG_COMMS];
};

static const int64_t second = 1000000000;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * second + t.tv_nsec;
}

typedef struct {
  char *text;
  size_t bytes, used;
} writer;

static void put(writer *w, const char *format, ...) ARB_PRINTF(2, 3);
static void put(writer *w, const char *format, ...) {
  if (w->used + 1 >= w->bytes) return;
  va_list args;
  va_start(args, format);
  const int n = vsnprintf(w->text + w->used, w->bytes - w->used, format, args);
  va_end(args);
  const size_t room = w->bytes - w->used - 1;
  if (n > 0) w->used += (size_t)n < room ? (size_t)n : room;
}

static const arb_comm_record *find(const arb_comm *c, int64_t sequence) {
  const bool kept = sequence >= 1 && sequence <= c->sequence && sequence > c->sequence - ARB_COMM_RING;
  return kept ? &c->ring[(sequence - 1) % ARB_COMM_RING] : NULL;
}

/* Ranks of this node that have not entered collective r. */
static void put_silent(writer *w, const arb_comm *c, const arb_comm_record *r) {
  int silent = 0;
  for (int i = 0; c->board != NULL && i < c->local_size; i++) {
    const int64_t entered = atomic_load_explicit(&c->board[i].entered, memory_order_acquire);
    if (entered >= r->sequence || ++silent > NAMED_RANKS) continue;
    put(w, "; rank %d has not entered %s #%lld (%s)", (int)c->board[i].rank, r->op, (long long)r->sequence,
        arb_traffic_name(r->kind));
    if (entered == 0) {
      put(w, ", nor any before it");
      continue;
    }
    const bool inside = atomic_load_explicit(&c->board[i].left, memory_order_acquire) < entered;
    put(w, ", last seen %s #%lld", inside ? "in" : "leaving", (long long)entered);
    const arb_comm_record *last = find(c, entered); /* ranks call the same collectives, so this rank's ring names it */
    if (last != NULL) put(w, " (%s, %s)", last->op, arb_traffic_name(last->kind));
  }
  if (silent > NAMED_RANKS) put(w, "; and %d more ranks of this node", silent - NAMED_RANKS);
  if (silent == 0 && c->local_size < c->size) put(w, "; every rank of this node has entered it: look at the other nodes");
  if (silent == 0 && c->local_size == c->size)
    put(w, "; every rank has entered it: a rank died inside, or the transport hangs");
}

size_t arb_watchdog_describe(const arb_comm *c, double seconds, char *text, size_t bytes) {
  if (bytes == 0) return 0;
  writer w = {text, bytes, 0};
  text[0] = '\0';
  const arb_comm_record *r = find(c, c->sequence);
  if (r == NULL) {
    put(&w, "rank %d has entered no collective", c->rank);
    return w.used;
  }
  put(&w, "rank %d of %d has been in %s #%lld (%s, %lld x %s, %s) for %.1f s", c->rank, c->size, r->op, (long long)r->sequence,
      arb_traffic_name(r->kind), (long long)r->count, arb_dtype_name(r->type), c->ops->name, seconds);
  put_silent(&w, c, r);
  put(&w, ". Newest first:");
  for (int i = 0; i < NAMED_RECORDS && (r = find(c, c->sequence - i)) != NULL; i++)
    put(&w, "%s #%lld %s %s %lld x %s", i > 0 ? "," : "", (long long)r->sequence, r->op, arb_traffic_name(r->kind),
        (long long)r->count, arb_dtype_name(r->type));
  return w.used;
}

static void begin(void *ctx) {
  watch *v = ctx;
  pthread_mutex_lock(&v->dog->lock);
  v->since = now();
  v->armed = true;
  v->told = false;
  pthread_mutex_unlock(&v->dog->lock);
}

static void end(void *ctx) {
  watch *v = ctx;
  pthread_mutex_lock(&v->dog->lock);
  v->armed = false;
  pthread_mutex_unlock(&v->dog->lock);
}

static void gone(void *ctx) {
  watch *v = ctx;
  arb_watchdog_detach(v->dog, v->comm);
}

/* The first overdue watch that was not reported yet, or NULL. Under the lock. */
static watch *overdue(arb_watchdog *w, int64_t at) {
  for (int i = 0; i < ARB_WATCHDOG_COMMS; i++) {
    watch *v = &w->watches[i];
    if (v->armed && !v->told && at - v->since >= w->timeout) return v;
  }
  return NULL;
}

static void *patrol(void *arg) {
  arb_watchdog *w = arg;
  char text[ARB_WATCHDOG_TEXT];
  pthread_mutex_lock(&w->lock);
  while (!w->stop) {
    const int64_t at = now();
    watch *v = overdue(w, at);
    if (v != NULL) {
      v->told = true;
      arb_watchdog_describe(v->comm, (double)(at - v->since) / (double)second, text, sizeof text);
      pthread_mutex_unlock(&w->lock); /* the report may take long, or never return */
      w->report(w->arg, text);
      pthread_mutex_lock(&w->lock);
      continue;
    }
    const int64_t until = at + w->interval;
    const struct timespec t = {.tv_sec = (time_t)(until / second), .tv_nsec = (long)(until % second)};
    pthread_cond_timedwait(&w->wake, &w->lock, &t);
  }
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

/* Signals belong to the program's own threads, never to the watchdog's. */
static int start(arb_watchdog *w) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int rc = pthread_create(&w->thread, NULL, patrol, w);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return rc;
}

static void release(arb_watchdog *w) {
  pthread_cond_destroy(&w->wake);
  pthread_mutex_destroy(&w->lock);
  free(w);
}

arb_status arb_watchdog_create(double timeout_s, arb_watchdog_report report, void *arg, arb_watchdog **out) {
  *out = NULL;
  ARB_REQUIRE(isfinite(timeout_s) && timeout_s >= 0.001 && timeout_s <= 1e8 && report != NULL, ARB_ERR_ARG,
              "watchdog: timeout of %g s", timeout_s);
  arb_watchdog *w = calloc(1, sizeof *w);
  ARB_REQUIRE(w != NULL, ARB_ERR_NOMEM, "watchdog: out of memory");
  w->timeout = (int64_t)(timeout_s * (double)second);
  w->interval = w->timeout / 4 < second ? w->timeout / 4 : second;
  w->report = report;
  w->arg = arg;
  for (int i = 0; i < ARB_WATCHDOG_COMMS; i++) w->watches[i].dog = w;
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* a set wall clock must not end the job */
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->wake, &attributes);
  pthread_condattr_destroy(&attributes);
  const int rc = start(w);
  if (rc != 0) {
    release(w);
    return ARB_FAIL(ARB_ERR_IO, "watchdog: no thread: %s", strerror(rc));
  }
  *out = w;
  return ARB_OK;
}

arb_status arb_watchdog_attach(arb_watchdog *w, arb_comm *c) {
  ARB_REQUIRE(c->hook.begin == NULL, ARB_ERR_ARG, "watchdog: the communicator is watched already");
  watch *v = NULL;
  pthread_mutex_lock(&w->lock);
  for (int i = 0; i < ARB_WATCHDOG_COMMS && v == NULL; i++)
    if (w->watches[i].comm == NULL) v = &w->watches[i];
  if (v != NULL) v->comm = c;
  pthread_mutex_unlock(&w->lock);
  ARB_REQUIRE(v != NULL, ARB_ERR_ARG, "watchdog: more than %d communicators", ARB_WATCHDOG_COMMS);
  c->hook = (arb_comm_hook){begin, end, gone, v};
  return ARB_OK;
}

void arb_watchdog_detach(arb_watchdog *w, arb_comm *c) {
  pthread_mutex_lock(&w->lock);
  for (int i = 0; i < ARB_WATCHDOG_COMMS; i++) {
    watch *v = &w->watches[i];
    if (v->comm != c) continue;
    v->comm = NULL;
    v->armed = false;
    c->hook = (arb_comm_hook){NULL, NULL, NULL, NULL};
  }
  pthread_mutex_unlock(&w->lock);
}

void arb_watchdog_destroy(arb_watchdog **w) {
  if (w == NULL || *w == NULL) return;
  for (int i = 0; i < ARB_WATCHDOG_COMMS; i++)
    if ((*w)->watches[i].comm != NULL) arb_watchdog_detach(*w, (*w)->watches[i].comm);
  pthread_mutex_lock(&(*w)->lock);
  (*w)->stop = true;
  pthread_cond_signal(&(*w)->wake);
  pthread_mutex_unlock(&(*w)->lock);
  pthread_join((*w)->thread, NULL);
  release(*w);
  *w = NULL;
}
