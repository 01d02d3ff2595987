#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

/* How long a thread looks for news before it sleeps: a few microseconds of pauses, then some offers of the core to whoever
 * else is ready (other ranks share it). Long enough to bridge the gap between two slots of a step, short enough to be idle. */
#define SPIN_PAUSES 256
#define SPIN_YIELDS 16

typedef struct {
  arb_pool *pool;
  int index;
  pthread_t thread;
} worker;

struct arb_pool {
  int threads, spin;
  /* The job. Written under `lock` while it is closed and no worker is inside. */
  arb_pool_fn fn;
  void *arg;
  int tasks;
  atomic_int next;    /* first task not handed out */
  atomic_int inside;  /* workers that entered the job; changed under `lock` */
  atomic_uint serial; /* jobs so far; changed under `lock` */
  bool open, stop;    /* guarded by `lock` */
  int asleep;         /* workers waiting on `wake`; guarded by `lock` */
  pthread_mutex_t lock;
  pthread_cond_t wake, done;
  int started;
  worker workers[];
};

static void breathe(int i) {
  if (i >= SPIN_PAUSES) {
    sched_yield();
    return;
  }
#if defined(__SSE__)
  _mm_pause();
#endif
}

static void take_tasks(arb_pool *pool, int index) {
  for (;;) {
    const int task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (task >= pool->tasks) return;
    pool->fn(pool->arg, task, index);
  }
}

static void *work(void *arg) {
  const worker *self = arg;
  arb_pool *pool = self->pool;
#if defined(__SSE__)
  _mm_setcsr(0x1f80); /* nearest even, subnormals kept, no traps: the arithmetic of every backend */
#endif
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < pool->spin && atomic_load_explicit(&pool->serial, memory_order_relaxed) == seen; i++) breathe(i);
    pthread_mutex_lock(&pool->lock);
    while (!pool->stop && atomic_load_explicit(&pool->serial, memory_order_relaxed) == seen) {
      pool->asleep++;
      pthread_cond_wait(&pool->wake, &pool->lock);
      pool->asleep--;
    }
    if (pool->stop) break;
    seen = atomic_load_explicit(&pool->serial, memory_order_relaxed);
    if (!pool->open) { /* the others finished it without this thread */
      pthread_mutex_unlock(&pool->lock);
      continue;
    }
    atomic_fetch_add_explicit(&pool->inside, 1, memory_order_relaxed);
    pthread_mutex_unlock(&pool->lock);
    take_tasks(pool, self->index);
    pthread_mutex_lock(&pool->lock);
    if (atomic_fetch_sub_explicit(&pool->inside, 1, memory_order_release) == 1) pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
  }
  pthread_mutex_unlock(&pool->lock);
  return NULL;
}

void arb_pool_run(arb_pool *pool, arb_pool_fn fn, void *arg, int tasks) {
  if (pool->threads == 1 || tasks <= 1) {
    for (int task = 0; task < tasks; task++) fn(arg, task, 0);
    return;
  }
  pthread_mutex_lock(&pool->lock);
  pool->fn = fn;
  pool->arg = arg;
  pool->tasks = tasks;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  pool->open = true;
  atomic_fetch_add_explicit(&pool->serial, 1, memory_order_relaxed);
  if (pool->asleep > 0) pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);

  take_tasks(pool, 0);

  /* From here nobody enters; wait for those inside. The acquire pairs with their release: their writes are visible. */
  pthread_mutex_lock(&pool->lock);
  pool->open = false;
  pthread_mutex_unlock(&pool->lock);
  for (int i = 0; i < pool->spin && atomic_load_explicit(&pool->inside, memory_order_acquire) > 0; i++) breathe(i);
  if (atomic_load_explicit(&pool->inside, memory_order_acquire) == 0) return;
  pthread_mutex_lock(&pool->lock);
  while (atomic_load_explicit(&pool->inside, memory_order_acquire) > 0) pthread_cond_wait(&pool->done, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
}

int arb_pool_threads(const arb_pool *pool) { return pool->threads; }

arb_status arb_pool_create(int threads, arb_pool **out) {
  *out = NULL;
  ARB_REQUIRE(threads >= 1 && threads <= 4096, ARB_ERR_ARG, "a pool needs 1 to 4096 threads, not %d", threads);
  arb_pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->workers[0]);
  ARB_REQUIRE(pool != NULL, ARB_ERR_NOMEM, "no memory for a pool of %d threads", threads);
  pool->threads = threads;
  /* Spinning on a core that another thread of this pool needs only delays it. */
  pool->spin = threads <= sysconf(_SC_NPROCESSORS_ONLN) ? SPIN_PAUSES + SPIN_YIELDS : 0;
  atomic_init(&pool->next, 0);
  atomic_init(&pool->inside, 0);
  atomic_init(&pool->serial, 0);
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pthread_cond_init(&pool->done, NULL);
  for (int i = 1; i < threads; i++) {
    worker *w = &pool->workers[i];
    w->pool = pool;
    w->index = i;
    const int rc = pthread_create(&w->thread, NULL, work, w);
    if (rc != 0) {
      arb_pool_destroy(&pool);
      return ARB_FAIL(ARB_ERR_NOMEM, "cannot start thread %d of %d (error %d)", i, threads, rc);
    }
    pool->started = i;
  }
  *out = pool;
  return ARB_OK;
}

void arb_pool_destroy(arb_pool **pool) {
  arb_pool *p = *pool;
  if (p == NULL) return;
  pthread_mutex_lock(&p->lock);
  p->stop = true;
  atomic_fetch_add_explicit(&p->serial, 1, memory_order_relaxed); /* ends the spinning */
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
  for (int i = 1; i <= p->started; i++) pthread_join(p->workers[i].thread, NULL);
  pthread_cond_destroy(&p->done);
  pthread_cond_destroy(&p->wake);
  pthread_mutex_destroy(&p->lock);
  free(p);
  *pool = NULL;
}
