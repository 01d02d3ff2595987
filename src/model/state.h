/* The training state: a registry of stacks and norms, and the two blocks of memory they live in.
 *
 * Modules declare what they need by name (arb_state_stack, arb_state_norm); arb_state_allocate then carves everything in
 * declaration order. "state" holds what is saved and digested: one byte a weight, E and p a byte a row, R a word a row, C and
 * M a word a column and matrix. "votes" is work memory of one step. Nothing here is float.
 *
 * Sharded state (arb_state_shard): the rows of every stack are dealt to ranks (dist/place.h), and a rank has the state bytes, p
 * and R of its own rows alone. Of the others' rows it keeps the trits, 5 a byte, and p, which it needs for its own grains; both
 * are derived from the owners' state after every update (src/train/exchange.c), and never saved. E, C, M and norms are on every
 * rank. Products read state bytes that arb_pass_stack makes of the trits, one stack at a time. Votes lie by bucket, within it
 * by owner, and then by tensor, so that one reduce_scatter serves all tensors of a bucket. */
#ifndef ARB_SRC_MODEL_STATE_H
#define ARB_SRC_MODEL_STATE_H

#include "kernels/backend.h"
#include "src/base/arena.h"

#define ARB_NAME_CHARS 64

typedef struct {
  char name[ARB_NAME_CHARS];                    /* "layer0.memory.fcg" */
  char member[ARB_MAX_MEMBERS][ARB_NAME_CHARS]; /* "f", "c", "g"; "" for a plain matrix */
  arb_stack w;                                  /* sharded: code and r are NULL, p is a copy */
  int index;                                    /* in arb_state.tensors */
  /* Sharded state alone: */
  arb_stack own;          /* this rank's rows; votes: sums over ranks */
  arb_update_work work;   /* of own */
  int64_t most;           /* rows of a rank, the last ones perhaps less */
  int bucket;             /* votes of neighbouring tensors with the same number travel together; set before arb_state_shard */
  int64_t trits_at, p_at; /* where the tensor's rows begin in a rank's block of packed trits and of p */
} arb_tensor;

/* Sharded state: what a rank has besides its own rows. */
typedef struct {
  int rank, ranks;       /* ranks = 0: not sharded, the rest is empty */
  int64_t trits, rows;   /* bytes of a rank's block of packed trits; rows of a rank in all tensors, the last ranks' padded */
  int64_t members, sums; /* matrices; sums over columns and matrices, of all tensors */
  int64_t votes;         /* bytes of votes that a rank gets sums of */
  arb_arena copies;      /* of all ranks' rows: packed trits, p */
  arb_arena exchange;    /* what is sent and received in one step */
  void *copies_memory, *exchange_memory;
  uint8_t *packed;    /* [ranks][trits] */
  uint8_t *mine;      /* [trits] this rank's block, to be sent */
  int8_t *p;          /* [rows] of this rank, in the state */
  int8_t *gathered_p; /* [ranks][rows] */
  int32_t *top, *low; /* [members] of all tensors' update work, to be reduced over ranks; */
  uint64_t *stats;    /* [sums] likewise: csum, then msum, of each tensor */
} arb_shard;

/* Gains of one RMSNorm: T is +1 throughout, only an exponent per channel. */
typedef struct {
  char name[ARB_NAME_CHARS];
  uint32_t id;
  int64_t width;
  int8_t *e; /* [width] */
} arb_norm;

typedef enum { ARB_FIELD_CODE, ARB_FIELD_E, ARB_FIELD_P, ARB_FIELD_R, ARB_FIELD_C, ARB_FIELD_M, ARB_FIELD__COUNT } arb_field;
const char *arb_field_name(arb_field f);

/* One array of the state, [rows][columns], and what this rank has of it; what checkpoints, digests and inspection walk. */
typedef struct {
  const char *tensor;
  arb_field field;
  uint64_t array; /* id for the digest: tensor id * 16 + field */
  arb_dtype type;
  int64_t rows, columns; /* of the whole array, on any rank */
  int64_t first, count;  /* rows [first, first + count) are here; count may be 0 */
  int sharded;           /* rows are dealt to the ranks, and each saves its own; 0: equal on all ranks, rank 0 saves it */
  void *data;            /* [count][columns] in backend memory */
} arb_state_array;

typedef struct {
  arb_backend *be; /* borrowed */
  arb_tensor **tensors;
  int tensor_count;
  arb_norm **norms;
  int norm_count;
  arb_arena state, votes;
  arb_shard shard;
  arb_guards *guards; /* for the arenas, or NULL; set before measuring */
  int shared_votes;   /* one vote buffer, as large as the largest stack, serves all tensors in turn; set before measuring */
  void *state_memory, *votes_memory;
} arb_state;

void arb_state_init(arb_state *s, arb_backend *be);
void arb_state_deinit(arb_state *s);

/* Declares a stack of `members` matrices with rows[i] outputs each and k inputs; uses: products a grain. The pointer stays
 * valid until deinit. member_names may be NULL for a plain matrix. ARB_ERR_ARG: a name (or the id made from it) taken twice. */
ARB_NODISCARD arb_status arb_state_stack(arb_state *s, const char *name, int members, const char *const *member_names,
                                         const int64_t *rows, int64_t k, int uses, arb_tensor **out);
ARB_NODISCARD arb_status arb_state_norm(arb_state *s, const char *name, int64_t width, arb_norm **out);
/* Deals rows to `ranks` ranks, of which this is `rank`. After the last declaration, before measuring. */
void arb_state_shard(arb_state *s, int rank, int ranks);
/* Sizes without allocating: fills the arenas as measuring walks. */
void arb_state_measure(arb_state *s);
/* Allocates and carves. */
ARB_NODISCARD arb_status arb_state_allocate(arb_state *s);
/* Fresh weights for a seed; gains 1. Local: with sharded state every rank works out the others' trits too. */
ARB_NODISCARD arb_status arb_state_fresh(arb_state *s, uint64_t seed);

/* Lists all arrays of the state. out holds arb_state_array_count(s). */
int arb_state_array_count(const arb_state *s);
void arb_state_arrays(const arb_state *s, arb_state_array *out);
/* Sum of mix128 over all arrays; with sharded state this rank's part of it: its own rows, and on rank 0 what all ranks have.
 * The parts of all ranks add up to the digest. */
ARB_NODISCARD arb_status arb_state_digest(const arb_state *s, arb_u128 *out);

/* Sharded state: the parts of an update between which ranks meet. Votes of this rank's rows are in own.votes, summed over
 * ranks; top is then reduced to its maximum and low to its minimum over ranks, stats to its sum after arb_shard_columns. */
ARB_NODISCARD arb_status arb_shard_rows(arb_state *s);
ARB_NODISCARD arb_status arb_shard_columns(arb_state *s);
/* used and flips as in arb_ops.update; flips count this rank's rows. */
ARB_NODISCARD arb_status arb_shard_update(arb_state *s, const int64_t *used, int vmax, int64_t *flips);
/* Packs this rank's trits into `mine`; after the gathers, spreads p to the tensors. */
ARB_NODISCARD arb_status arb_shard_pack(arb_state *s);
ARB_NODISCARD arb_status arb_shard_spread(arb_state *s);
/* Takes the sums of the update from an arena, in the walk that measures or assigns it. */
void arb_shard_carve_sums(arb_state *s, arb_arena *update);

int64_t arb_state_weights(const arb_state *s); /* logical ternary weights */
int64_t arb_state_norm_exponents(const arb_state *s);

#endif
