/* The model: a list of modules over one residual stream, the state they declared, and the work memory of a step. */
#ifndef ARB_SRC_MODEL_MODEL_H
#define ARB_SRC_MODEL_MODEL_H

#include "src/model/module.h"

/* Ids: 0..255 bytes, 256..287 text control (256 PAD, 257 BOS, 258 EOS), 288..296 modality marks. */
#define ARB_VOCABULARY 297
#define ARB_ID_PAD 256

typedef struct {
  int64_t dim, embed_channels, layers, glu_hidden;
  int memory_zero; /* ablation: memory layers add nothing */
  int64_t context; /* rows a sequence, of features and text together */
  struct {
    int64_t windows, width; /* rows a sequence and channels of a feature; 0: the model has no such input */
  } features[ARB_FEATURE_KINDS];
  int64_t rows_per_grain;   /* a multiple of context */
  int32_t grains_per_batch; /* grains that travel together */
  int rank, ranks;          /* sharded state: rows are dealt to this many ranks; ranks = 0: the whole state is here */
  int guards;               /* leave guard zones around every array (debugging) */
  int fused_update;         /* tensors take their step during the backward pass of the only batch of a step */
  int64_t bucket_bytes;     /* votes of a bucket at least, where there are as many */
} arb_model_spec;

/* Features of the sequences of a pass, in host memory. A sequence has its present parts side by side at its end, text last;
 * rows in front of them are zero and leave no trace in what follows. */
typedef struct {
  const int8_t *q;        /* [sequences][windows + 2][width] */
  const float *s;         /* [sequences][windows + 2] */
  const uint8_t *present; /* [sequences]; NULL: none is. Where it is 0, s must be 0 throughout */
} arb_model_features;

#define ARB_MODEL_BUCKETS 4 /* parts of a backward pass, each of which completes a bucket of votes */

/* Votes that are complete when the backward pass has come through some neighbouring modules: first .. past - 1. */
typedef struct {
  int first_module, past_module, first_tensor, past_tensor;
} arb_bucket;

/* What a step counts. */
enum { ARB_RESULT_LOSS, ARB_RESULT_COUNT, ARB_RESULT_FLIPS, ARB_RESULT_SATURATED, ARB_RESULT__COUNT };

typedef struct {
  arb_model_spec spec;
  arb_backend *be; /* borrowed */
  arb_state state;
  arb_module *parts[ARB_FEATURE_KINDS + 1]; /* of a sequence with features */
  arb_module **modules;
  int module_count;
  int *first_tensor; /* [module_count + 1] module i declared tensors first_tensor[i] .. first_tensor[i + 1] - 1 */
  arb_bucket buckets[ARB_MODEL_BUCKETS]; /* as the backward pass completes them */
  int bucket_count;
  arb_arena activations, work, constants, update;
  void *activation_memory, *work_memory, *constant_memory, *update_memory;
  size_t kernel_work, kernel_scratch; /* bytes that the backend's slots need inside: work memory, rows of scratch */
  int64_t widest;                     /* elements of the widest row of any tensor */
  float *bias;                        /* [dim] forget-gate ladder 1 .. 5, constant */
  int32_t *ids, *targets;             /* [rows of a batch] */
  int8_t *features_q[ARB_FEATURE_KINDS];
  float *features_s[ARB_FEATURE_KINDS];
  int32_t *join, *split[ARB_FEATURE_KINDS + 1];
  int32_t *host_rows;            /* [2][rows of a batch], to build maps and targets in; NULL without features */
  float *g;                      /* [rows][dim] */
  int64_t *results;              /* [ARB_RESULT__COUNT], side by side so that they travel as one: */
  int64_t *loss, *count, *flips; /* flips[2] */
  arb_work buffers;
  arb_update_work update_work;
  arb_update_work *each;    /* [tensors] work of update_many; NULL: tensors are updated one by one */
  const arb_stack **stacks; /* [tensors] the same tensors' stacks */
  arb_fused fused;
  arb_guards guards; /* of all arenas, once allocated with spec.guards */
} arb_model;

/* Declares everything; allocates no device memory. be is borrowed. */
ARB_NODISCARD arb_status arb_model_create(const arb_model_spec *spec, arb_backend *be, arb_model **out);
/* Measures every arena, and the backend's own work memory, without allocating (arenas' peak and payload are then valid). A
 * stand-in for a backend is enough (kernels/backend.h). */
void arb_model_measure(arb_model *m);
/* Allocates all memory a run needs, the backend's work memory included: no step allocates. */
ARB_NODISCARD arb_status arb_model_allocate(arb_model *m);
/* NULL-safe; nulls the handle. */
void arb_model_destroy(arb_model **m);

/* Zeroes votes, losses and flip counters before a step's first batch. */
ARB_NODISCARD arb_status arb_model_begin(arb_model *m);
/* Rows of text a sequence: what ids and targets count. */
int64_t arb_model_text_rows(const arb_model_spec *spec);
/* The feature that a tensor belongs to, or -1: every sequence uses it. */
int arb_model_tensor_kind(const arb_model *m, int tensor);
/* Prepares a pass over `rows` rows laid out as `r`, with host ids and targets [sequences][text rows] (targets NULL: no loss)
 * copied in. Without features every sequence is text alone. */
ARB_NODISCARD arb_status arb_model_pass(arb_model *m, const arb_rows *r, const int32_t *ids, const int32_t *targets,
                                        int backward, int vmax, arb_pass *p);
/* The same with features[ARB_FEATURE_KINDS]; kinds that the model does not have are not looked at. */
ARB_NODISCARD arb_status arb_model_pass_features(arb_model *m, const arb_rows *r, const int32_t *ids, const int32_t *targets,
                                                 const arb_model_features *features, int backward, int vmax, arb_pass *p);
ARB_NODISCARD arb_status arb_model_forward(arb_model *m, arb_pass *p);
/* With spec.fused_update this is also the update, for every tensor. A non-finite value that appears in it stops the updates of
 * the tensors that come after, but not of those before: check the forward pass first. */
ARB_NODISCARD arb_status arb_model_backward(arb_model *m, arb_pass *p);
/* A part of it: modules past - 1 down to first, whose votes are complete afterwards. The parts of a pass follow each other from
 * the last module to the first. Not with spec.fused_update. */
ARB_NODISCARD arb_status arb_model_backward_part(arb_model *m, arb_pass *p, int first, int past);
/* Statistics and update of every tensor from its summed votes; used[i] = grains in which tensor i had rows. Adds to flips. Not
 * with sharded state: there ranks meet between the parts (arb_shard_rows ...). */
ARB_NODISCARD arb_status arb_model_update(arb_model *m, const int64_t *used, int vmax);
/* Looks at every guard zone. ARB_ERR_ARG names the array that was overrun (or underrun), and the first byte. */
ARB_NODISCARD arb_status arb_model_check_guards(arb_model *m);
/* Fills activations and work memory with a NaN pattern: nothing in it may live across steps. */
ARB_NODISCARD arb_status arb_model_poison(arb_model *m);
/* Loss weight of one position: 2^-ceil(log2(text rows of a grain)). */
float arb_model_position_weight(const arb_model_spec *spec);

#endif
