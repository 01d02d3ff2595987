/* The training state: a registry of stacks and norms, and the two blocks of memory they live in.
 *
 * Modules declare what they need by name (arb_state_stack, arb_state_norm); arb_state_allocate then carves everything in
 * declaration order. "state" holds what is saved and digested: one byte a weight, E and p a byte a row, R a word a row, C and
 * M a word a column and matrix. "votes" is work memory of one step. Nothing here is float. */
#ifndef ARB_SRC_MODEL_STATE_H
#define ARB_SRC_MODEL_STATE_H

#include "kernels/backend.h"
#include "src/base/arena.h"

#define ARB_NAME_CHARS 64

typedef struct {
  char name[ARB_NAME_CHARS];                    /* "layer0.memory.fcg" */
  char member[ARB_MAX_MEMBERS][ARB_NAME_CHARS]; /* "f", "c", "g"; "" for a plain matrix */
  arb_stack w;
  int index; /* in arb_state.tensors */
} arb_tensor;

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
  int shared_votes; /* one vote buffer, as large as the largest stack, serves all tensors in turn; set before measuring */
  void *state_memory, *votes_memory;
} arb_state;

void arb_state_init(arb_state *s, arb_backend *be);
void arb_state_deinit(arb_state *s);

/* Declares a stack of `members` matrices with rows[i] outputs each and k inputs; uses: products a grain. The pointer stays
 * valid until deinit. member_names may be NULL for a plain matrix. ARB_ERR_ARG: a name (or the id made from it) taken twice. */
ARB_NODISCARD arb_status arb_state_stack(arb_state *s, const char *name, int members, const char *const *member_names,
                                         const int64_t *rows, int64_t k, int uses, arb_tensor **out);
ARB_NODISCARD arb_status arb_state_norm(arb_state *s, const char *name, int64_t width, arb_norm **out);
/* Sizes without allocating: fills s->state and s->votes as measuring walks. */
void arb_state_measure(arb_state *s);
/* Allocates and carves. */
ARB_NODISCARD arb_status arb_state_allocate(arb_state *s);
/* Fresh weights for a seed; gains 1. */
ARB_NODISCARD arb_status arb_state_fresh(arb_state *s, uint64_t seed);

/* Lists all arrays of the state. out holds arb_state_array_count(s). */
int arb_state_array_count(const arb_state *s);
void arb_state_arrays(const arb_state *s, arb_state_array *out);
/* Sum of mix128 over all arrays. */
ARB_NODISCARD arb_status arb_state_digest(const arb_state *s, arb_u128 *out);

int64_t arb_state_weights(const arb_state *s); /* logical ternary weights */
int64_t arb_state_norm_exponents(const arb_state *s);

#endif
