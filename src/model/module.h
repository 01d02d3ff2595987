/* Modules: the parts a model is built of. Each declares its tensors, lays out what its backward pass must remember, and runs
 * forward and backward on one batch of grains. To add a part (a VQ bridge, an expert layer, a head): write a file beside
 * memory.c with these four functions and put it into the list of model.c. */
#ifndef ARB_SRC_MODEL_MODULE_H
#define ARB_SRC_MODEL_MODULE_H

#include "src/model/state.h"

/* Frozen encoders whose features a sequence may begin with, in the order in which they stand in it: [image][audio][text]. */
typedef enum { ARB_FEATURE_IMAGE, ARB_FEATURE_AUDIO, ARB_FEATURE_KINDS } arb_feature_kind;
#define ARB_FEATURE_SPAN 3 /* neighbouring features that make one row of the sequence */

/* Work buffers shared by all modules, as wide as the widest tensor; free to use within one call. */
typedef struct {
  uint16_t *g_wide; /* [m][widest] gradient of a stack's outputs */
  uint16_t *dx;     /* [m][widest input] gradient of a stack's input */
  uint16_t *dh;     /* [m][dim] */
  int8_t *hq;       /* [m][widest stack] gradient rows of the stack at work */
  float *sh;        /* [m] their scales */
  int8_t *hq_next;  /* a second pair: votes may still be made of the first while the next module's rows are written, so */
  float *sh_next;   /* arb_linear_backward swaps them */
  int32_t *cexp;    /* [uses][grains], most */
  int32_t *d;       /* [uses][grains][n][k] of the largest stack with several uses */
  uint8_t *plain;   /* [n][k] of the largest stack: state bytes made of trits; NULL: state is not sharded */
  uint16_t *y;      /* [m][dim] the running module's output, added by the next one */
} arb_work;

/* Updates as votes come: a tensor takes its step as soon as its votes are complete, and the next one casts its votes into the
 * same buffer. Needs all grains of a step in one batch on one rank. */
typedef struct {
  arb_update_work *work;
  int64_t *flips;      /* as arb_ops.update counts, backend memory */
  unsigned char *done; /* [tensors] of this backward pass */
} arb_fused;

/* One batch of grains on its way through the model. The residual stream is x + y: x fp32 (NULL at the start), y the last
 * module's bf16 output that nobody has added yet (NULL: nothing to add). */
typedef struct {
  arb_backend *be;
  arb_rows rows;
  int64_t context;        /* rows a sequence */
  const int32_t *ids;     /* of the text rows: [m] without features, else [sequences][text rows]; backend memory */
  const int32_t *targets; /* [m], negative: none */
  struct {
    const int8_t *q; /* [sequences][windows + span - 1][width]; an absent sample has s = 0 */
    const float *s;
  } features[ARB_FEATURE_KINDS];
  const int32_t *join;                         /* [m] row among the parts' outputs, or -1: a row in front of the sequence */
  const int32_t *split[ARB_FEATURE_KINDS + 1]; /* of each part's rows: their place in the stream, or -1: absent */
  int64_t used;                                /* grains that use the tensors of the running module */
  int64_t used_by[ARB_FEATURE_KINDS];          /* grains in which some sample has the feature */
  int backward;                                /* a backward pass will follow */
  int vmax;                                    /* largest vote of a grain */
  float weight;                                /* of one position in the loss: a power of two */
  const float *x;
  const uint16_t *y;
  float *g;               /* [m][dim] gradient of the residual stream */
  const arb_stack *below; /* backward: the stack whose output was added to the stream before the module at work */
  int64_t *loss, *count;  /* sums over this step: rint(loss * 2^20), targets; backend memory */
  const uint16_t *logits; /* [m][vocabulary], set by the head */
  arb_work work;
  const arb_shard *shard; /* NULL: state is not sharded */
  const arb_fused *fused; /* NULL: votes stay until all ranks' are summed */
} arb_pass;

/* What layouts depend on. */
typedef struct {
  int64_t rows; /* m of the largest batch */
  int32_t grains;
  int64_t dim;
} arb_shape;

typedef struct arb_module arb_module;
typedef struct {
  const char *kind;
  arb_status (*declare)(arb_module *m, arb_state *s);
  void (*layout)(arb_module *m, const arb_shape *shape, arb_arena *activations);
  arb_status (*forward)(arb_module *m, arb_pass *p);
  /* In: p->g after this module, and (p->work.hq, sh), its rows for this module's output stack. Out: p->g before it, and the
   * rows for p->below (norm_backward gives both). */
  arb_status (*backward)(arb_module *m, arb_pass *p);
  /* The stack whose output this module adds to the stream; NULL when it adds nothing. */
  const arb_stack *(*output)(const arb_module *m);
} arb_module_ops;

struct arb_module {
  const arb_module_ops *ops;
  char name[ARB_NAME_CHARS]; /* prefix of its tensors' names */
};

/* The tensor's stack with state bytes that products can read: as it is, or with sharded state a copy whose bytes are work
 * memory that the next call reuses. */
ARB_NODISCARD arb_status arb_pass_stack(const arb_pass *p, const arb_tensor *t, arb_stack *out);
/* y[m][n] = W (q, s). */
ARB_NODISCARD arb_status arb_linear_forward(arb_pass *p, const arb_tensor *t, const int8_t *q, const float *s, uint16_t *y);
/* Backward of y = W x from the gradient rows in p->work (hq, sh) and the stored input (q, s): votes of W, and the input's
 * gradient into dx [m][k] unless NULL. Afterwards (hq, sh) are others, free for the next rows. */
ARB_NODISCARD arb_status arb_linear_backward(arb_pass *p, const arb_tensor *t, const int8_t *q, const float *s, uint16_t *dx);

/* After the last use of a tensor in a backward pass, dx included: with p->fused the tensor takes its step and the vote buffer
 * is zero again; otherwise nothing. */
ARB_NODISCARD arb_status arb_votes_complete(arb_pass *p, const arb_tensor *t);

/* Constructors; destroyed with free(). */
ARB_NODISCARD arb_status arb_trigram_create(const char *name, int64_t channels, int64_t dim, int64_t vocabulary, int32_t pad,
                                            arb_module **out);
/* Sliding windows over a frozen encoder's features: norm, linear to the stream. windows: rows a sequence. */
ARB_NODISCARD arb_status arb_sequencer_create(const char *name, arb_feature_kind kind, int64_t windows, int64_t width,
                                              int64_t dim, arb_module **out);
/* Puts parts side by side into one sequence: part i gives rows[i] rows a sequence (0: there is none, parts[i] NULL). Parts are
 * borrowed; they are input modules of their own shorter sequences. */
ARB_NODISCARD arb_status arb_sequence_create(const char *name, arb_module *const parts[ARB_FEATURE_KINDS + 1],
                                             const int64_t rows[ARB_FEATURE_KINDS + 1], int64_t dim, arb_module **out);
/* MLGRU memory (Zhu et al. 2024, arXiv:2406.02528); bias: [dim] constants in backend memory. zero: an ablation that adds
 * nothing to the stream. */
ARB_NODISCARD arb_status arb_memory_create(const char *name, int64_t dim, const float *const *bias, int zero, arb_module **out);
/* Gated linear unit: d(norm(silu(u x) * v x)). */
ARB_NODISCARD arb_status arb_glu_create(const char *name, int64_t dim, int64_t hidden, arb_module **out);
/* Final norm, linear to the vocabulary, cross-entropy. */
ARB_NODISCARD arb_status arb_byte_head_create(const char *name, int64_t dim, int64_t vocabulary, arb_module **out);

#endif
