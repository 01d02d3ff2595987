/* Communicators: one table of collectives, several transports.
 *
 * Transports: single (one rank), loopback (N ranks as threads of one process: sanitizers, tests), mpi (host memory), nccl
 * (device memory; joins with the CUDA backend). Library code above this layer sees only this header.
 *
 * Rules that every transport keeps:
 * - Every function marked "Collective" must be called by all ranks of the communicator, in the same order, with equal
 *   count, type and operation. Buffers may not alias unless "in place" is said.
 * - Only integers are reduced (docs/arithmetic.md, "Integers cross reductions; floats do not"): float types are refused,
 *   so a result cannot depend on the order in which ranks were summed.
 * - A sum and every partial sum must fit the element type: Open MPI's vector code saturates 8- and 16-bit sums where its
 *   scalar tail wraps. Only u32 and u64 sums wrap on every transport (digests). loopback reports an overflow.
 * - Counts are int64_t elements; transports with 32-bit counts chunk inside.
 * - A rank must not leave between two collectives while its peers go on: remember a local failure and let
 *   arb_comm_agree carry it. */
#ifndef ARB_DIST_COMM_H
#define ARB_DIST_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

typedef struct arb_comm arb_comm;

typedef enum { ARB_SUM, ARB_MAX, ARB_MIN } arb_redop;

/* What a collective carries; payload is counted by kind. */
typedef enum {
  ARB_TRAFFIC_VOTES,   /* int8 votes */
  ARB_TRAFFIC_TRITS,   /* packed trits of sharded state */
  ARB_TRAFFIC_ROWS,    /* row exponents p */
  ARB_TRAFFIC_STATS,   /* column sums and scalars of the update statistics */
  ARB_TRAFFIC_AGREE,   /* once-a-step agreement: status, flags, loss counts */
  ARB_TRAFFIC_TOKENS,  /* expert token rows */
  ARB_TRAFFIC_GRAPH,   /* graph source rows and gradients */
  ARB_TRAFFIC_CONTROL, /* start-up, evaluation, checkpoints, digests: not part of a step */
  ARB_TRAFFIC__COUNT
} arb_traffic;
const char *arb_traffic_name(arb_traffic kind);

/* Implemented by a transport. `buf`, `in`, `out` are in the transport's memory (host for single, loopback, mpi). */
typedef struct {
  const char *name;
  /* buf[count] is replaced by the reduction over ranks. */
  arb_status (*all_reduce)(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op);
  /* out[per_rank] = this rank's slice of the reduction of in[size * per_rank]. */
  arb_status (*reduce_scatter)(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type, arb_redop op);
  /* out[size * per_rank] = concatenation of in[per_rank] in rank order. */
  arb_status (*all_gather)(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type);
  arb_status (*broadcast)(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root);
  arb_status (*barrier)(arb_comm *c);
  void (*destroy)(arb_comm *c);
  /* Memory that the ranks of a node share; NULL: the transport has none. */
  arb_status (*share)(arb_comm *c, size_t bytes, void **base);
  arb_status (*unshare)(arb_comm *c, void *base);
  /* arb_comm_aside, _join, _mark, _batch_begin and _end; NULL: collectives are done when they return. */
  arb_status (*aside)(arb_comm *c);
  arb_status (*join)(arb_comm *c);
  arb_status (*mark)(arb_comm *c);
  arb_status (*batch_begin)(arb_comm *c);
  arb_status (*batch_end)(arb_comm *c);
  /* arb_comm_bare_sum; NULL: there is no library below. */
  arb_status (*bare_sum)(arb_comm *c, void *buf, int64_t bytes, int scatter);
} arb_comm_ops;

/* Blocks of shared memory that a communicator may have at a time. */
#define ARB_COMM_SHARED 8

/* Last collectives of a rank, #s at ring[(s - 1) % ARB_COMM_RING]: what a report names when a peer is silent. */
#define ARB_COMM_RING 32
typedef struct {
  int64_t sequence, count; /* the first collective is #1; elements, per rank where the call says so */
  const char *op;          /* a literal */
  arb_traffic kind;
  arb_dtype type;
} arb_comm_record;

/* Called by the checked entries around every collective, on the calling thread (dist/watchdog.h). begin == NULL: none. */
typedef struct {
  void (*begin)(void *ctx);
  void (*end)(void *ctx);
  void (*gone)(void *ctx); /* the communicator is about to be destroyed */
  void *ctx;
} arb_comm_hook;

/* How far a rank of this node has come; shared between the ranks, written by its own (dist/board_impl.h). */
typedef struct arb_board_slot arb_board_slot;

struct arb_comm {
  const arb_comm_ops *ops;
  int rank, size;
  int local_rank, local_size;          /* position among the ranks of this node */
  int64_t payload[ARB_TRAFFIC__COUNT]; /* bytes handed to the transport by this rank since the last reset */
  arb_comm_record ring[ARB_COMM_RING];
  int64_t sequence; /* collectives entered so far */
  int blamed;       /* rank that the last arb_comm_agree named, or -1 */
  arb_comm_hook hook;
  arb_board_slot *board; /* [local_size], borrowed from the transport; NULL: this rank is alone */
  void *ctx;
};

/* Collective, in place. */
ARB_NODISCARD arb_status arb_comm_all_reduce(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op,
                                             arb_traffic kind);
/* Collective. in holds size * per_rank elements, out per_rank. Payload counted: size * per_rank elements. `in` is kept. In
 * place: out may be this rank's own slice of in; the other slices are unspecified afterwards. */
ARB_NODISCARD arb_status arb_comm_reduce_scatter(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type,
                                                 arb_redop op, arb_traffic kind);
/* Collective. in holds per_rank elements, out size * per_rank. Payload counted: per_rank elements. */
ARB_NODISCARD arb_status arb_comm_all_gather(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type,
                                             arb_traffic kind);
/* Collective. Payload counted on the root only. */
ARB_NODISCARD arb_status arb_comm_broadcast(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root, arb_traffic kind);
/* Collective. Carries no payload. */
ARB_NODISCARD arb_status arb_comm_barrier(arb_comm *c);
/* Transports of device memory: collectives from here to the next join or barrier wait for what the backend's stream holds now,
 * but run beside what it gets later; join and barrier wait for them. May be called again, for what the stream has got since.
 * Elsewhere collectives are done when they return, and this does nothing, like join and mark. None of the three is a collective
 * by itself, but every rank calls them in the same places. */
ARB_NODISCARD arb_status arb_comm_aside(arb_comm *c);
/* What the backend's stream gets from here on waits for the collectives that went aside; the host does not. */
ARB_NODISCARD arb_status arb_comm_join(arb_comm *c);
/* The next barrier waits for what the backend's stream holds now, and for nothing that is queued after this. */
ARB_NODISCARD arb_status arb_comm_mark(arb_comm *c);
/* Collective. Between begin and end, collectives have separate buffers and may go out as one: none has an effect before the
 * end. end must be called after begin even when one of them failed. */
ARB_NODISCARD arb_status arb_comm_batch_begin(arb_comm *c);
ARB_NODISCARD arb_status arb_comm_batch_end(arb_comm *c);
/* Collective, in place. For measurements: the library's own sum of int8, as the transport's peer; one call whatever the size.
 * scatter: this rank's slice alone is summed, and bytes are a multiple of the ranks. ARB_ERR_UNSUPPORTED without a library. */
ARB_NODISCARD arb_status arb_comm_bare_sum(arb_comm *c, void *buf, int64_t bytes, int scatter);
/* Collective. Ends a phase in which ranks may have failed alone: returns ARB_OK on every rank, or, on every rank, the
 * worst status of any rank: ARB_REQUEUE weighs least, then ARB_ERR_PEER, then the others by their number. A rank that was
 * fine gets a message that names the failing rank ("rank 2 failed: data"); the failing rank keeps its own. With
 * ARB_ERR_COMM nothing is tried, because the transport is broken: it is returned at once. */
ARB_NODISCARD arb_status arb_comm_agree(arb_comm *c, arb_status mine);
/* Collective. One block of `bytes` > 0 zeroed bytes for all ranks of a node, aligned to 64 bytes; each gets its own address of
 * it. What a rank wrote is seen by the others after the next collective. Carries no payload. */
ARB_NODISCARD arb_status arb_comm_share(arb_comm *c, size_t bytes, void **base);
/* Collective. Gives back what arb_comm_share gave; the ranks of a node have all stopped using it when it returns. */
ARB_NODISCARD arb_status arb_comm_unshare(arb_comm *c, void *base);
void arb_comm_reset_payload(arb_comm *c);
/* NULL-safe; nulls the handle. Collective for mpi, and not watched: a barrier before it is. */
void arb_comm_destroy(arb_comm **c);

#endif
