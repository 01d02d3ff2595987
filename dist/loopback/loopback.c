#include "dist/loopback/loopback.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dist/board_impl.h"
#include "dist/comm_impl.h"

typedef enum { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, BARRIER } call_kind;

/* What a rank brought to the collective: written by it before the ranks meet, read by all until they meet again. */
typedef struct {
  call_kind call;
  const void *in;
  void *out;
  int64_t count;
  arb_dtype type;
  int choice; /* reduction or root */
} post;

typedef struct {
  pthread_mutex_t lock;
  pthread_cond_t turn;
  int size, arrived;
  int64_t generation; /* times that all ranks have met */
  int gone;           /* the rank that left first, or -1 */
  arb_status gone_status;
  bool overflow, overflowed; /* of the collective at hand; of the one that ended with the newest meeting */
  arb_status worst;
  int worst_rank;
  char message[2048];
  arb_status (*body)(arb_comm *c, void *arg);
  void *arg;
  arb_board_slot board[ARB_LOOPBACK_RANKS];
  post posts[ARB_LOOPBACK_RANKS];
} block;

typedef struct {
  block *b;
  int rank;
} seat;

/* Waits until all ranks are here. Fails when one of them is gone for good. */
static arb_status meet(block *b, bool *overflowed) {
  pthread_mutex_lock(&b->lock);
  const int64_t generation = b->generation;
  if (b->gone < 0 && ++b->arrived == b->size) {
    b->arrived = 0;
    b->generation++;
    b->overflowed = b->overflow;
    b->overflow = false;
    pthread_cond_broadcast(&b->turn);
  }
  while (b->generation == generation && b->gone < 0) pthread_cond_wait(&b->turn, &b->lock);
  const bool met = b->generation != generation;
  const int gone = b->gone;
  const arb_status gone_status = b->gone_status;
  *overflowed = b->overflowed; /* stable: the next meeting needs this rank */
  pthread_mutex_unlock(&b->lock);
  ARB_REQUIRE(met, ARB_ERR_PEER, "rank %d has left with status '%s'", gone, arb_status_name(gone_status));
  return ARB_OK;
}

static bool is_signed(arb_dtype t) { return t == ARB_I8 || t == ARB_I16 || t == ARB_I32 || t == ARB_I64; }

static int64_t load_signed(const void *p, int64_t i, arb_dtype t) {
  switch (t) {
    case ARB_I8:
      return ((const int8_t *)p)[i];
    case ARB_I16:
      return ((const int16_t *)p)[i];
    case ARB_I32:
      return ((const int32_t *)p)[i];
    default:
      return ((const int64_t *)p)[i];
  }
}

static uint64_t load_unsigned(const void *p, int64_t i, arb_dtype t) {
  switch (t) {
    case ARB_U8:
      return ((const uint8_t *)p)[i];
    case ARB_U16:
      return ((const uint16_t *)p)[i];
    case ARB_U32:
      return ((const uint32_t *)p)[i];
    default:
      return ((const uint64_t *)p)[i];
  }
}

/* Keeps the low bytes. */
static void store(void *p, int64_t i, arb_dtype t, uint64_t v) {
  switch (arb_dtype_size(t)) {
    case 1:
      ((uint8_t *)p)[i] = (uint8_t)v;
      break;
    case 2:
      ((uint16_t *)p)[i] = (uint16_t)v;
      break;
    case 4:
      ((uint32_t *)p)[i] = (uint32_t)v;
      break;
    default:
      ((uint64_t *)p)[i] = v;
      break;
  }
}

static uint64_t reduce_signed(const block *b, int64_t i, arb_dtype t, arb_redop op, bool *overflow) {
  const int64_t most = (int64_t)(UINT64_MAX >> (65 - 8 * arb_dtype_size(t)));
  int64_t a = load_signed(b->posts[0].in, i, t);
  for (int r = 1; r < b->size; r++) {
    const int64_t v = load_signed(b->posts[r].in, i, t);
    if (op == ARB_MAX) {
      a = v > a ? v : a;
    } else if (op == ARB_MIN) {
      a = v < a ? v : a;
    } else {
      if (v > 0 ? a > most - v : a < -most - 1 - v) *overflow = true;
      a = (int64_t)((uint64_t)a + (uint64_t)v);
    }
  }
  return (uint64_t)a;
}

static uint64_t reduce_unsigned(const block *b, int64_t i, arb_dtype t, arb_redop op, bool *overflow) {
  uint64_t a = load_unsigned(b->posts[0].in, i, t);
  for (int r = 1; r < b->size; r++) {
    const uint64_t v = load_unsigned(b->posts[r].in, i, t);
    if (op == ARB_MAX) {
      a = v > a ? v : a;
    } else if (op == ARB_MIN) {
      a = v < a ? v : a;
    } else {
      a += v; /* 32- and 64-bit sums wrap by contract; narrow ones have no room to wrap here */
      if (arb_dtype_size(t) < 4 && a >> (8 * arb_dtype_size(t)) != 0) *overflow = true;
    }
  }
  return a;
}

/* Element i of the reduction over what the ranks posted. */
static uint64_t reduce_at(const block *b, int64_t i, arb_dtype t, arb_redop op, bool *overflow) {
  return is_signed(t) ? reduce_signed(b, i, t, op, overflow) : reduce_unsigned(b, i, t, op, overflow);
}

/* Each rank reduces its own stretch and writes it to everybody: no element is touched by two ranks. */
static bool do_all_reduce(block *b, int rank, const post *p) {
  bool overflow = false;
  const int64_t each = p->count / b->size, first = each * rank;
  const int64_t past = rank == b->size - 1 ? p->count : first + each;
  for (int64_t i = first; i < past; i++) {
    const uint64_t v = reduce_at(b, i, p->type, (arb_redop)p->choice, &overflow);
    for (int r = 0; r < b->size; r++) store(b->posts[r].out, i, p->type, v);
  }
  return overflow;
}

/* In place too: a rank reads and writes its own slice of every buffer alone. */
static bool do_reduce_scatter(block *b, int rank, const post *p) {
  bool overflow = false;
  for (int64_t i = 0; i < p->count; i++)
    store(p->out, i, p->type, reduce_at(b, p->count * rank + i, p->type, (arb_redop)p->choice, &overflow));
  return overflow;
}

static void do_copies(block *b, int rank, const post *p) {
  const size_t bytes = (size_t)p->count * arb_dtype_size(p->type);
  if (bytes == 0) return;
  if (p->call == BROADCAST && rank != p->choice) memcpy(p->out, b->posts[p->choice].in, bytes);
  if (p->call != ALL_GATHER) return;
  for (int r = 0; r < b->size; r++) memcpy((unsigned char *)p->out + (size_t)r * bytes, b->posts[r].in, bytes);
}

static arb_status check_same(const block *b, int rank) {
  static const char *const names[] = {"all_reduce", "reduce_scatter", "all_gather", "broadcast", "barrier"};
  const post *mine = &b->posts[rank];
  for (int r = 0; r < b->size; r++) {
    const post *p = &b->posts[r];
    const bool same = p->call == mine->call && p->count == mine->count && p->type == mine->type && p->choice == mine->choice;
    ARB_REQUIRE(same, ARB_ERR_ARG, "ranks differ: rank %d brings %s of %lld x %s (%d), rank %d %s of %lld x %s (%d)", rank,
                names[mine->call], (long long)mine->count, arb_dtype_name(mine->type), mine->choice, r, names[p->call],
                (long long)p->count, arb_dtype_name(p->type), p->choice);
  }
  return ARB_OK;
}

/* Post, meet, work on what all have posted, meet again: then buffers and posts belong to their ranks once more. If two
 * posts differ, every rank sees one that differs from its own; they fail together, after the second meeting. */
static arb_status collective(arb_comm *c, post p) {
  const seat *s = c->ctx;
  block *b = s->b;
  bool overflowed;
  b->posts[c->rank] = p;
  ARB_TRY(meet(b, &overflowed));
  const arb_status same = check_same(b, c->rank);
  bool overflow = false;
  if (same == ARB_OK) {
    if (p.call == ALL_REDUCE) overflow = do_all_reduce(b, c->rank, &p);
    if (p.call == REDUCE_SCATTER) overflow = do_reduce_scatter(b, c->rank, &p);
    do_copies(b, c->rank, &p);
  }
  if (overflow) {
    pthread_mutex_lock(&b->lock);
    b->overflow = true;
    pthread_mutex_unlock(&b->lock);
  }
  ARB_TRY(meet(b, &overflowed));
  ARB_TRY(same);
  ARB_REQUIRE(!overflowed, ARB_ERR_ARG, "a sum does not fit %s", arb_dtype_name(p.type));
  return ARB_OK;
}

static arb_status all_reduce(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op) {
  return collective(c, (post){ALL_REDUCE, buf, buf, count, type, (int)op});
}
static arb_status reduce_scatter(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type, arb_redop op) {
  return collective(c, (post){REDUCE_SCATTER, in, out, per_rank, type, (int)op});
}
static arb_status all_gather(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type) {
  return collective(c, (post){ALL_GATHER, in, out, per_rank, type, 0});
}
static arb_status broadcast(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root) {
  return collective(c, (post){BROADCAST, buf, buf, count, type, root});
}
static arb_status barrier(arb_comm *c) { return collective(c, (post){BARRIER, NULL, NULL, 0, ARB_U8, 0}); }

/* All ranks are threads of one process: rank 0's block is everybody's. */
static arb_status share(arb_comm *c, size_t bytes, void **base) {
  const size_t padded = (bytes + 63) / 64 * 64;
  void *mine = c->rank == 0 ? aligned_alloc(64, padded) : NULL;
  if (mine != NULL) memset(mine, 0, padded);
  const arb_status st = broadcast(c, &mine, (int64_t)sizeof mine, ARB_U8, 0);
  if (st != ARB_OK) {
    if (c->rank == 0) free(mine);
    return st;
  }
  ARB_REQUIRE(mine != NULL, ARB_ERR_NOMEM, "%zu bytes of shared memory", bytes);
  *base = mine;
  return ARB_OK;
}

static arb_status unshare(arb_comm *c, void *base) {
  ARB_TRY(barrier(c));
  if (c->rank == 0) free(base);
  return ARB_OK;
}

static void destroy(arb_comm *c) { free(c); }

/* A rank is done: keeps its status, and its message when it is the worst so far, and releases whoever waits. */
static void depart(block *b, int rank, arb_status st, const char *message) {
  pthread_mutex_lock(&b->lock);
  if (arb_comm_severity(st) > arb_comm_severity(b->worst)) {
    b->worst = st;
    b->worst_rank = rank;
    snprintf(b->message, sizeof b->message, "%s", message);
  }
  if (b->gone < 0) {
    b->gone = rank;
    b->gone_status = st;
  }
  pthread_cond_broadcast(&b->turn);
  pthread_mutex_unlock(&b->lock);
}

static void *run_rank(void *arg) {
  static const arb_comm_ops ops = {.name = "loopback",
                                   .all_reduce = all_reduce,
                                   .reduce_scatter = reduce_scatter,
                                   .all_gather = all_gather,
                                   .broadcast = broadcast,
                                   .barrier = barrier,
                                   .destroy = destroy,
                                   .share = share,
                                   .unshare = unshare};
  seat *s = arg;
  arb_comm *c = calloc(1, sizeof *c);
  arb_status st;
  if (c == NULL) {
    st = ARB_FAIL(ARB_ERR_NOMEM, "communicator: out of memory");
  } else {
    c->ops = &ops;
    c->rank = c->local_rank = s->rank;
    c->size = c->local_size = s->b->size;
    c->board = s->b->board;
    c->ctx = s;
    st = s->b->body(c, s->b->arg);
  }
  depart(s->b, s->rank, st, arb_fail_message());
  arb_comm_destroy(&c);
  return NULL;
}

arb_status arb_loopback_run(int ranks, arb_status (*body)(arb_comm *c, void *arg), void *arg) {
  ARB_REQUIRE(ranks >= 1 && ranks <= ARB_LOOPBACK_RANKS && body != NULL, ARB_ERR_ARG, "loopback: %d ranks, 1 to %d are allowed",
              ranks, ARB_LOOPBACK_RANKS);
  block *b = aligned_alloc(_Alignof(block), sizeof *b);
  ARB_REQUIRE(b != NULL, ARB_ERR_NOMEM, "loopback: out of memory");
  memset(b, 0, sizeof *b);
  pthread_mutex_init(&b->lock, NULL);
  pthread_cond_init(&b->turn, NULL);
  b->size = ranks;
  b->gone = -1;
  b->body = body;
  b->arg = arg;
  pthread_t threads[ARB_LOOPBACK_RANKS];
  seat seats[ARB_LOOPBACK_RANKS];
  int started = 0;
  for (int r = 0; r < ranks; r++) {
    arb_board_init(&b->board[r], r);
    seats[r] = (seat){b, r};
  }
  int rc = 0;
  while (started < ranks && (rc = pthread_create(&threads[started], NULL, run_rank, &seats[started])) == 0) started++;
  if (rc != 0) depart(b, started, ARB_ERR_IO, strerror(rc)); /* releases the ranks that have started */
  for (int r = 0; r < started; r++) pthread_join(threads[r], NULL);
  const arb_status st = b->worst;
  if (st != ARB_OK) {
    arb_fail_clear();
    (void)ARB_FAIL(st, "rank %d: %s", b->worst_rank, b->message);
  }
  pthread_cond_destroy(&b->turn);
  pthread_mutex_destroy(&b->lock);
  free(b);
  return st;
}
