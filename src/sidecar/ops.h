/* The operations of a sidecar's forward pass: kernels/dense over a pool of threads, or on a device (kernels/dense/device.h),
 * with the same bits. Row-major floats; ld in elements.
 *
 * Pointers are into the memory where the operations run, from arb_ops_alloc; inputs and results of the host go through
 * arb_ops_host, arb_ops_read and arb_ops_get. On a device the operations only queue work; after a failure the next ones do
 * nothing, and arb_ops_read, arb_ops_get and arb_ops_status say what failed. */
#ifndef ARB_SRC_SIDECAR_OPS_H
#define ARB_SRC_SIDECAR_OPS_H

#include "kernels/cpu/pool.h"
#include "kernels/dense/dense.h"
#include "kernels/dense/device.h"
#include "src/sidecar/store.h"

typedef struct {
  const arb_dense_kernels *kernels;
  arb_pool *pool;
  float *scratch;           /* [threads][scratch_floats] */
  int64_t scratch_floats;   /* of a thread */
  arb_dense_device *device; /* NULL: the host */
  arb_status failed;        /* the device's first failure */
  float *stage;             /* host memory between it and the device */
  int64_t stage_floats;
} arb_ops;

/* Threads and level of the options; scratch for products whose taps are at most `depth` deep and for attention over at most
 * `keys` keys (0: none). */
ARB_NODISCARD arb_status arb_ops_create(const arb_sidecar_options *o, int64_t depth, int64_t keys, arb_ops *out);
/* More scratch, for a longer input. */
ARB_NODISCARD arb_status arb_ops_reserve(arb_ops *ops, int64_t depth, int64_t keys);
/* Everything from arb_ops_alloc is given back before. */
void arb_ops_destroy(arb_ops *ops);

/* ---- memory ---- */

/* Floats where the operations run, aligned to ARB_ARENA_ALIGN, content unspecified. */
ARB_NODISCARD arb_status arb_ops_alloc(arb_ops *ops, int64_t floats, float **out);
/* NULL-safe. */
void arb_ops_free(arb_ops *ops, float *memory);
/* Where the host writes `count` floats that are meant for x; NULL without memory, which arb_ops_status tells. arb_ops_sent,
 * with the same arguments, once they are written. */
float *arb_ops_host(arb_ops *ops, float *x, int64_t count);
void arb_ops_sent(arb_ops *ops, float *x, int64_t count);
/* A host's array where the operations can read it: itself, or copied to `room`. */
const float *arb_ops_given(arb_ops *ops, const float *host, int64_t count, float *room);
/* x[count] where the host can read it, valid until the next call of these functions; NULL: arb_ops_status tells. */
const float *arb_ops_read(arb_ops *ops, const float *x, int64_t count);
/* Rows x[m][ldx] to the host's out[m][width]. */
ARB_NODISCARD arb_status arb_ops_get(arb_ops *ops, const float *x, int64_t ldx, int64_t m, int64_t width, float *out);
/* to[count] = from[count], both where the operations run. */
void arb_ops_copy(arb_ops *ops, float *to, const float *from, int64_t count);
/* The first failure of a device's operation, after which none ran; a new input starts with ARB_OK. */
ARB_NODISCARD arb_status arb_ops_status(arb_ops *ops);
/* Bytes of scratch. */
int64_t arb_ops_bytes(const arb_ops *ops);
/* Notes an outcome of a device's operation; true if more may run. */
bool arb_ops_note(arb_ops *ops, arb_status st);
#define ARB_OPS_ON_DEVICE(ops, call)                                \
  do {                                                              \
    if ((ops)->failed == ARB_OK) (void)arb_ops_note((ops), (call)); \
    return;                                                         \
  } while (0)

/* ---- operations ---- */

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

typedef arb_dense_kv arb_kv;

/* Floats of keys and values together; capacity is rounded up to a multiple of 32. */
int64_t arb_kv_floats(int64_t heads, int64_t width, int64_t capacity);
void arb_kv_place(arb_kv *kv, int64_t heads, int64_t width, int64_t capacity, float *memory);
/* m more rows k[m][ldk], v[m][ldv], head j in columns [j * width, (j + 1) * width). */
void arb_ops_append(arb_ops *ops, arb_kv *kv, const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t m);
/* out[m][ldo] = softmax(scale q . keys') . values by head. causal: row i of m sees the first count - m + i + 1 keys, else all.
 */
void arb_ops_attend(arb_ops *ops, const arb_kv *kv, const float *q, int64_t ldq, int64_t m, float scale, bool causal,
                    float *out, int64_t ldo);

/* In place, x[m][ld]: see kernels/dense/device.h for turns. */
void arb_ops_rotate(arb_ops *ops, float *x, int64_t ld, int64_t m, int64_t heads, int64_t width, int64_t pairs,
                    const float *turns);
/* x[m][width] in place: one mean and one variance over all of it (group norm of one group). sums [m]. */
void arb_ops_group_norm(arb_ops *ops, float *x, int64_t m, int64_t width, const float *weight, const float *bias, float eps,
                        float *sums);
/* out[m][ldo] = silu(gate) * value, both of stride ld. */
void arb_ops_gate(arb_ops *ops, const float *value, const float *gate, int64_t ld, int64_t m, int64_t width, float *out,
                  int64_t ldo);
/* out[count][ldo]: rows ids (the host's) of a layer's weights as floats. */
void arb_ops_table(arb_ops *ops, const arb_sidecar_layer *l, const int32_t *ids, int64_t count, float *out, int64_t ldo);

/* ARB_ERR_NUMERIC naming `what` if a value is not finite. */
ARB_NODISCARD arb_status arb_ops_finite(const float *x, int64_t count, const char *what);

#endif
