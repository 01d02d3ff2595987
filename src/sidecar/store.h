/* The block of weights of a sidecar: planned and filled by one walk over its layers.
 *
 * A model gives a walk that declares its tensors in order. It is run twice: measuring, then over the block, where every tensor
 * is read, checked for its shape, quantised if its class asks for it, and put where the products want it. Counts are taken on
 * the way. The same code places the pointers in a process that shares a block which another one filled. */
#ifndef ARB_SRC_SIDECAR_STORE_H
#define ARB_SRC_SIDECAR_STORE_H

#include "kernels/dense/dense.h"
#include "src/base/arena.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"

enum { ARB_STORE_NAME = 160 };

/* A Linear, a convolution or a token table: y = x w' + bias. The k inputs of w are [taps][depth]: a convolution's kernel
 * positions, then its input channels (the file has the channels first). */
typedef struct {
  arb_dense_matrix w;
  const float *bias; /* NULL: none */
  int64_t taps, depth;
} arb_sidecar_layer;

typedef struct arb_sidecar_store {
  arb_arena arena;
  const arb_tensor_source *source; /* NULL: pointers only */
  const arb_sidecar_options *options;
  arb_sidecar_report *report; /* counted while assigning */
  const char *drop, *add;     /* the file's names: without this head, with that one */
  float *work;                /* the tensor in hand, and as many floats again */
  int64_t work_floats;        /* measured */
} arb_sidecar_store;

typedef arb_status (*arb_sidecar_walk)(void *model, arb_sidecar_store *s);

/* One tensor as it is, [shape], float32. */
ARB_NODISCARD arb_status arb_store_vector(arb_sidecar_store *s, arb_sidecar_class c, const char *name, int rank,
                                          const int64_t *shape, const float **out);
/* Reads a tensor that is not kept as it is: out [shape] is the caller's. Only while filling (s->source). Counted. */
ARB_NODISCARD arb_status arb_store_read(arb_sidecar_store *s, arb_sidecar_class c, const char *name, int rank,
                                        const int64_t *shape, float *out);
/* Float memory of the block for values that the walk computes; NULL while measuring. Counted as kept in class c. */
float *arb_store_floats(arb_sidecar_store *s, arb_sidecar_class c, int64_t count);
/* Linears NAME.weight [n][k] (and NAME.bias [n]), `count` of them read by the same input, stacked to one of count * n
 * outputs. */
ARB_NODISCARD arb_status arb_store_linear(arb_sidecar_store *s, const char *const *names, int count, int64_t n, int64_t k,
                                          bool bias, arb_sidecar_layer *out);
/* A convolution NAME.weight [out_channels][in_channels][kernel...], `dims` = 1, 2 or 3 kernel dimensions. */
ARB_NODISCARD arb_status arb_store_conv(arb_sidecar_store *s, const char *name, int64_t out_channels, int64_t in_channels,
                                        int dims, const int64_t *kernel, bool bias, arb_sidecar_layer *out);
/* A token table NAME.weight [n][k], also used as the output layer. */
ARB_NODISCARD arb_status arb_store_table(arb_sidecar_store *s, const char *name, int64_t n, int64_t k, arb_sidecar_layer *out);
/* Row `id` of a layer's weights as floats, [k]. */
void arb_layer_row(const arb_sidecar_layer *l, int64_t id, float *out);

/* The published scheme for one output row: *scale = absmax / 127, q = round half to even(w / scale); a row of zeros gets 0. */
void arb_quantise_row(const float *w, int64_t k, int8_t *q, float *scale);

/* A block, and the walk that filled it. */
typedef struct {
  void *base;
  size_t bytes;
  const arb_sidecar_memory *memory; /* NULL: malloc */
  arb_dense_device *device;         /* NULL, or whose memory the block is in */
  arb_sidecar_report report;
} arb_sidecar_block;

/* The file's names may lack `canonical` at their head, or have `other` before it ("" = none); `sample` is a tensor that tells.
 * Opens path, runs the walk, fills the report. */
ARB_NODISCARD arb_status arb_sidecar_block_open(const char *path, const arb_sidecar_options *o, const char *model_name,
                                                const char *canonical, const char *other, const char *sample,
                                                arb_sidecar_walk walk, void *model, arb_sidecar_block *out);
/* The block goes to a device's memory (NULL: it stays): the walk places the model's pointers there, the host's memory is given
 * back, which is collective as opening was. */
ARB_NODISCARD arb_status arb_sidecar_block_move(arb_sidecar_block *b, arb_dense_device *device, const arb_sidecar_options *o,
                                                arb_sidecar_walk walk, void *model);
/* Before the device is destroyed. */
void arb_sidecar_block_close(arb_sidecar_block *b);

#endif
