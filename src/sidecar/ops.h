/* The operations of a sidecar's forward pass: kernels/dense over a pool of threads. Row-major floats; ld in elements. */
#ifndef ARB_SRC_SIDECAR_OPS_H
#define ARB_SRC_SIDECAR_OPS_H

#include "kernels/cpu/pool.h"
#include "kernels/dense/dense.h"
#include "src/sidecar/store.h"

typedef struct {
  const arb_dense_kernels *kernels;
  arb_pool *pool;
  float *scratch;         /* [threads][scratch_floats] */
  int64_t scratch_floats; /* of a thread */
} arb_ops;

/* Threads and level of the options; scratch for products whose taps are at most `depth` deep and for attention over at most
 * `keys` keys (0: none). */
ARB_NODISCARD arb_status arb_ops_create(const arb_sidecar_options *o, int64_t depth, int64_t keys, arb_ops *out);
/* More scratch, for a longer input. */
ARB_NODISCARD arb_status arb_ops_reserve(arb_ops *ops, int64_t depth, int64_t keys);
void arb_ops_destroy(arb_ops *ops);

/* fn(arg, i, worker) for every i in [0, count), shared by the threads. */
void arb_ops_each(arb_ops *ops, arb_pool_fn fn, void *arg, int64_t count);

/* y[m][ldy] = epilogue(x . layer). The layer's bias is used; e NULL: nothing else is done. e->bias is ignored. */
void arb_ops_product(arb_ops *ops, const arb_dense_input *x, int64_t m, const arb_sidecar_layer *l, const arb_dense_epilogue *e,
                     float *y, int64_t ldy);
/* The same from rows x[m][ld] of k values. */
void arb_ops_linear(arb_ops *ops, const float *x, int64_t ld, int64_t m, const arb_sidecar_layer *l,
                    const arb_dense_epilogue *e, float *y, int64_t ldy);
/* Rows x[m][ldx] to y[m][ldy]; bias may be NULL. */
void arb_ops_layer_norm(arb_ops *ops, const float *x, int64_t ldx, int64_t m, int64_t width, const float *weight,
                        const float *bias, float eps, float *y, int64_t ldy);

/* Keys and values of an attention, packed as the products want them; rows may be appended. */
typedef struct {
  int64_t heads, width; /* head dimension */
  int64_t capacity, count;
  float *keys;   /* [heads][capacity / 32][width][32] */
  float *values; /* [heads][ceil(width / 32)][capacity][32] */
} arb_kv;

/* Floats of keys and values together; capacity is rounded up to a multiple of 32. */
int64_t arb_kv_floats(int64_t heads, int64_t width, int64_t capacity);
void arb_kv_place(arb_kv *kv, int64_t heads, int64_t width, int64_t capacity, float *memory);
/* m more rows k[m][ldk], v[m][ldv], head j in columns [j * width, (j + 1) * width). */
void arb_ops_append(arb_ops *ops, arb_kv *kv, const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t m);
/* out[m][ldo] = softmax(scale q . keys') . values by head. causal: row i of m sees the first count - m + i + 1 keys, else all.
 */
void arb_ops_attend(arb_ops *ops, const arb_kv *kv, const float *q, int64_t ldq, int64_t m, float scale, bool causal,
                    float *out, int64_t ldo);

/* ARB_ERR_NUMERIC naming `what` if a value is not finite. */
ARB_NODISCARD arb_status arb_ops_finite(const float *x, int64_t count, const char *what);

#endif
