/* Checked entries of the collectives: arguments, payload, ring of records, progress board and hook. Transports may assume
 * checked arguments. */
#include "dist/comm.h"

#include <stdbool.h>
#include <string.h>

#include "dist/board_impl.h"
#include "dist/comm_impl.h"

const char *arb_traffic_name(arb_traffic kind) {
  static const char *const names[ARB_TRAFFIC__COUNT] = {"votes",     "trits",  "rows",  "stats",
                                                        "agreement", "tokens", "graph", "control"};
  return (unsigned)kind < ARB_TRAFFIC__COUNT ? names[kind] : "unknown";
}

int arb_comm_severity(arb_status st) {
  if ((unsigned)st >= ARB_STATUS__COUNT) return arb_comm_severity(ARB_ERR_ARG); /* a status made of garbage is our bug */
  switch (st) {
    case ARB_OK:
      return 0;
    case ARB_REQUEUE:
      return 1;
    case ARB_ERR_PEER:
      return 2;
    default:
      return (int)st + 2;
  }
}

arb_status arb_comm_from_severity(int severity) {
  if (severity <= 0) return ARB_OK;
  if (severity <= 2) return severity == 1 ? ARB_REQUEUE : ARB_ERR_PEER;
  return (arb_status)(severity - 2);
}

/* A local check that fails leaves the peers waiting; it is a bug of ours, and the watchdog names this rank. */
static arb_status check_comm(const arb_comm *c, const char *op, int64_t elements, int64_t blocks, arb_dtype type,
                             arb_traffic kind) {
  ARB_REQUIRE(c != NULL, ARB_ERR_ARG, "%s: no communicator", op);
  ARB_REQUIRE((unsigned)kind < ARB_TRAFFIC__COUNT, ARB_ERR_ARG, "%s: traffic kind %d", op, (int)kind);
  ARB_REQUIRE((unsigned)type < ARB_DTYPE__COUNT, ARB_ERR_ARG, "%s: element type %d", op, (int)type);
  ARB_REQUIRE(elements >= 0 && elements <= INT64_MAX / blocks / (int64_t)arb_dtype_size(type), ARB_ERR_ARG,
              "%s: %lld elements a rank", op, (long long)elements);
  return ARB_OK;
}

static arb_status check_reduction(const char *op, arb_dtype type, arb_redop redop) {
  ARB_REQUIRE(!arb_dtype_is_float(type), ARB_ERR_ARG, "%s: %s is refused, only integers are reduced", op, arb_dtype_name(type));
  ARB_REQUIRE(redop == ARB_SUM || redop == ARB_MAX || redop == ARB_MIN, ARB_ERR_ARG, "%s: reduction %d", op, (int)redop);
  return ARB_OK;
}

static bool overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes) {
  const uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
  return a_bytes > 0 && b_bytes > 0 && x < y + (uintptr_t)b_bytes && y < x + (uintptr_t)a_bytes;
}

/* The record is complete before the hook sees it, and is not touched again until the hook's end was called. */
static void enter(arb_comm *c, const char *op, int64_t count, arb_dtype type, arb_traffic kind, int64_t bytes) {
  c->payload[kind] += bytes;
  const int64_t sequence = ++c->sequence;
  c->ring[(sequence - 1) % ARB_COMM_RING] = (arb_comm_record){sequence, count, op, kind, type};
  if (c->board != NULL) atomic_store_explicit(&c->board[c->local_rank].entered, sequence, memory_order_release);
  if (c->hook.begin != NULL) c->hook.begin(c->hook.ctx);
}

static arb_status leave(arb_comm *c, arb_status st, bool message_is_older) {
  if (c->hook.begin != NULL) c->hook.end(c->hook.ctx);
  if (c->board != NULL) atomic_store_explicit(&c->board[c->local_rank].left, c->sequence, memory_order_release);
  if (st != ARB_OK && !message_is_older) {
    const arb_comm_record *r = &c->ring[(c->sequence - 1) % ARB_COMM_RING];
    arb_fail_context("%s #%lld (%s)", r->op, (long long)r->sequence, arb_traffic_name(r->kind));
  }
  return st;
}

/* Whether the thread's message is about something before this collective: then it gets no context of ours. */
static bool has_message(void) { return arb_fail_message()[0] != '\0'; }

arb_status arb_comm_all_reduce(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op, arb_traffic kind) {
  ARB_TRY(check_comm(c, "all_reduce", count, 1, type, kind));
  ARB_TRY(check_reduction("all_reduce", type, op));
  ARB_REQUIRE(buf != NULL || count == 0, ARB_ERR_ARG, "all_reduce: no buffer");
  const bool older = has_message();
  enter(c, "all_reduce", count, type, kind, count * (int64_t)arb_dtype_size(type));
  return leave(c, c->ops->all_reduce(c, buf, count, type, op), older);
}

arb_status arb_comm_reduce_scatter(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type, arb_redop op,
                                   arb_traffic kind) {
  ARB_TRY(check_comm(c, "reduce_scatter", per_rank, c != NULL ? c->size : 1, type, kind));
  ARB_TRY(check_reduction("reduce_scatter", type, op));
  ARB_REQUIRE((in != NULL && out != NULL) || per_rank == 0, ARB_ERR_ARG, "reduce_scatter: no buffer");
  const int64_t slice = per_rank * (int64_t)arb_dtype_size(type);
  const bool in_place = (uintptr_t)out == (uintptr_t)in + (uintptr_t)(c->rank * slice);
  ARB_REQUIRE(in_place || !overlap(in, slice * c->size, out, slice), ARB_ERR_ARG, "reduce_scatter: buffers overlap");
  const bool older = has_message();
  enter(c, "reduce_scatter", per_rank, type, kind, slice * c->size);
  return leave(c, c->ops->reduce_scatter(c, in, out, per_rank, type, op), older);
}

arb_status arb_comm_all_gather(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type, arb_traffic kind) {
  ARB_TRY(check_comm(c, "all_gather", per_rank, c != NULL ? c->size : 1, type, kind));
  ARB_REQUIRE((in != NULL && out != NULL) || per_rank == 0, ARB_ERR_ARG, "all_gather: no buffer");
  const int64_t slice = per_rank * (int64_t)arb_dtype_size(type);
  ARB_REQUIRE(!overlap(in, slice, out, slice * c->size), ARB_ERR_ARG, "all_gather: buffers overlap");
  const bool older = has_message();
  enter(c, "all_gather", per_rank, type, kind, slice);
  return leave(c, c->ops->all_gather(c, in, out, per_rank, type), older);
}

arb_status arb_comm_broadcast(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root, arb_traffic kind) {
  ARB_TRY(check_comm(c, "broadcast", count, 1, type, kind));
  ARB_REQUIRE(root >= 0 && root < c->size, ARB_ERR_ARG, "broadcast: root %d of %d ranks", root, c->size);
  ARB_REQUIRE(buf != NULL || count == 0, ARB_ERR_ARG, "broadcast: no buffer");
  const bool older = has_message();
  enter(c, "broadcast", count, type, kind, c->rank == root ? count * (int64_t)arb_dtype_size(type) : 0);
  return leave(c, c->ops->broadcast(c, buf, count, type, root), older);
}

arb_status arb_comm_barrier(arb_comm *c) {
  ARB_REQUIRE(c != NULL, ARB_ERR_ARG, "barrier: no communicator");
  const bool older = has_message();
  enter(c, "barrier", 0, ARB_U8, ARB_TRAFFIC_CONTROL, 0);
  return leave(c, c->ops->barrier(c), older);
}

arb_status arb_comm_aside(arb_comm *c) {
  ARB_REQUIRE(c != NULL, ARB_ERR_ARG, "aside: no communicator");
  return c->ops->aside != NULL ? c->ops->aside(c) : ARB_OK;
}

arb_status arb_comm_join(arb_comm *c) {
  ARB_REQUIRE(c != NULL, ARB_ERR_ARG, "join: no communicator");
  return c->ops->join != NULL ? c->ops->join(c) : ARB_OK;
}

arb_status arb_comm_mark(arb_comm *c) {
  ARB_REQUIRE(c != NULL, ARB_ERR_ARG, "mark: no communicator");
  return c->ops->mark != NULL ? c->ops->mark(c) : ARB_OK;
}

arb_status arb_comm_batch_begin(arb_comm *c) {
  ARB_REQUIRE(c != NULL, ARB_ERR_ARG, "batch: no communicator");
  return c->ops->batch_begin != NULL ? c->ops->batch_begin(c) : ARB_OK;
}

/* What the batch holds may be started here alone, so this is watched like a collective. */
arb_status arb_comm_batch_end(arb_comm *c) {
  ARB_REQUIRE(c != NULL, ARB_ERR_ARG, "batch: no communicator");
  if (c->ops->batch_end == NULL) return ARB_OK;
  const bool older = has_message();
  enter(c, "batch", 0, ARB_U8, ARB_TRAFFIC_CONTROL, 0);
  return leave(c, c->ops->batch_end(c), older);
}

arb_status arb_comm_bare_sum(arb_comm *c, void *buf, int64_t bytes, int scatter) {
  ARB_TRY(check_comm(c, "bare_sum", bytes, 1, ARB_I8, ARB_TRAFFIC_CONTROL));
  ARB_REQUIRE(buf != NULL && (!scatter || bytes % c->size == 0), ARB_ERR_ARG, "bare_sum: %lld bytes on %d ranks",
              (long long)bytes, c->size);
  ARB_REQUIRE(c->ops->bare_sum != NULL, ARB_ERR_UNSUPPORTED, "%s has no library below it to compare with", c->ops->name);
  const bool older = has_message();
  enter(c, "bare_sum", bytes, ARB_I8, ARB_TRAFFIC_CONTROL, 0);
  return leave(c, c->ops->bare_sum(c, buf, bytes, scatter), older);
}

arb_status arb_comm_agree(arb_comm *c, arb_status mine) {
  ARB_REQUIRE(c != NULL, ARB_ERR_ARG, "agree: no communicator");
  c->blamed = -1;
  if (mine == ARB_ERR_COMM) return mine;
  /* The largest word is the worst status and, among its ranks, the lowest. */
  int64_t word = ((int64_t)arb_comm_severity(mine) << 32) + (c->size - 1 - c->rank);
  const bool older = has_message();
  enter(c, "agree", 1, ARB_I64, ARB_TRAFFIC_AGREE, (int64_t)sizeof word);
  const arb_status st = leave(c, c->ops->all_reduce(c, &word, 1, ARB_I64, ARB_MAX), older);
  /* This rank's own failure came first and owns the message. */
  if (st != ARB_OK) return mine != ARB_OK && mine != ARB_REQUEUE ? mine : st;
  const arb_status worst = arb_comm_from_severity((int)(word >> 32));
  c->blamed = worst == ARB_OK ? -1 : c->size - 1 - (int)(word & INT32_MAX);
  if (worst == ARB_OK || mine != ARB_OK) return worst;
  arb_fail_clear(); /* of a failure that this rank has dealt with */
  return ARB_FAIL(worst, "rank %d %s: %s", c->size - 1 - (int)(word & INT32_MAX),
                  worst == ARB_REQUEUE ? "asks to stop" : "failed", arb_status_name(worst));
}

arb_status arb_comm_share(arb_comm *c, size_t bytes, void **base) {
  *base = NULL;
  ARB_REQUIRE(c != NULL && bytes > 0 && bytes <= PTRDIFF_MAX, ARB_ERR_ARG, "share: %zu bytes", bytes);
  ARB_REQUIRE(c->ops->share != NULL, ARB_ERR_UNSUPPORTED, "share: %s has no memory of a node", c->ops->name);
  const bool older = has_message();
  enter(c, "share", (int64_t)bytes, ARB_U8, ARB_TRAFFIC_CONTROL, 0);
  return leave(c, c->ops->share(c, bytes, base), older);
}

arb_status arb_comm_unshare(arb_comm *c, void *base) {
  ARB_REQUIRE(c != NULL && base != NULL && c->ops->unshare != NULL, ARB_ERR_ARG, "unshare: no block");
  const bool older = has_message();
  enter(c, "unshare", 0, ARB_U8, ARB_TRAFFIC_CONTROL, 0);
  return leave(c, c->ops->unshare(c, base), older);
}

void arb_comm_reset_payload(arb_comm *c) { memset(c->payload, 0, sizeof c->payload); }

void arb_comm_destroy(arb_comm **c) {
  if (c == NULL || *c == NULL) return;
  if ((*c)->hook.begin != NULL) (*c)->hook.gone((*c)->hook.ctx);
  (*c)->ops->destroy(*c);
  *c = NULL;
}
