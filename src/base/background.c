#include "src/base/background.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct arb_background {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  arb_status (*work)(void *arg); /* NULL: no job */
  void *arg;
  bool stop;
  arb_status st; /* of the last job */
  char message[2048];
};

static void *run(void *arg) {
  arb_background *b = arg;
  pthread_mutex_lock(&b->lock);
  for (;;) {
    while (b->work == NULL && !b->stop) pthread_cond_wait(&b->changed, &b->lock);
    if (b->work == NULL) break;
    pthread_mutex_unlock(&b->lock); /* the owner changes neither work nor arg before it has ended */
    arb_fail_clear();
    const arb_status st = b->work(b->arg);
    pthread_mutex_lock(&b->lock);
    b->st = st;
    snprintf(b->message, sizeof b->message, "%s", arb_fail_message());
    b->work = NULL;
    pthread_cond_broadcast(&b->changed);
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

arb_status arb_background_create(arb_background **out) {
  sigset_t all, old;
  pthread_condattr_t clock;
  *out = NULL;
  arb_background *b = calloc(1, sizeof *b);
  ARB_REQUIRE(b != NULL, ARB_ERR_NOMEM, "out of host memory");
  pthread_mutex_init(&b->lock, NULL);
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_cond_init(&b->changed, &clock);
  pthread_condattr_destroy(&clock);
  sigfillset(&all); /* signals are for the main thread */
  pthread_sigmask(SIG_SETMASK, &all, &old);
  const int why = pthread_create(&b->thread, NULL, run, b);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (why != 0) {
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    free(b);
    return ARB_FAIL(ARB_ERR_IO, "cannot start a thread: %s", strerror(why));
  }
  *out = b;
  return ARB_OK;
}

void arb_background_destroy(arb_background **handle) {
  arb_background *b = *handle;
  if (b == NULL) return;
  pthread_mutex_lock(&b->lock);
  b->stop = true;
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
  pthread_join(b->thread, NULL);
  pthread_cond_destroy(&b->changed);
  pthread_mutex_destroy(&b->lock);
  free(b);
  *handle = NULL;
}

void arb_background_start(arb_background *b, arb_status (*work)(void *arg), void *arg) {
  pthread_mutex_lock(&b->lock);
  b->work = work;
  b->arg = arg;
  b->st = ARB_OK;
  b->message[0] = '\0';
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
}

bool arb_background_wait(arb_background *b, double seconds) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  const double nanoseconds = (double)until.tv_nsec + 1e9 * (seconds - (double)(time_t)seconds);
  until.tv_sec += (time_t)seconds + (nanoseconds >= 1e9);
  until.tv_nsec = (long)(nanoseconds >= 1e9 ? nanoseconds - 1e9 : nanoseconds);
  pthread_mutex_lock(&b->lock);
  int why = 0;
  while (b->work != NULL && seconds > 0 && why == 0) why = pthread_cond_timedwait(&b->changed, &b->lock, &until);
  const bool idle = b->work == NULL;
  pthread_mutex_unlock(&b->lock);
  return idle;
}

arb_status arb_background_take(arb_background *b) {
  pthread_mutex_lock(&b->lock);
  const arb_status st = b->st;
  if (st != ARB_OK) (void)ARB_FAIL(st, "%s", b->message);
  b->st = ARB_OK;
  pthread_mutex_unlock(&b->lock);
  return st;
}
