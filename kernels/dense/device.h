/* kernels/dense in another memory: what an encoder computes, on a device that the host cannot reach into.
 *
 * The same operations with the same bits: every output is one chain of fused multiply-adds over k ascending, row sums have the
 * order of kernels/common/reduce.h, functions are those of kernels/common/math.h. Operations only queue work, in order; upload
 * returns when the host's memory may be changed, download when it is filled. Pointers are the device's unless they say host.
 * A device belongs to one thread at a time, which may be another one from call to call. */
#ifndef ARB_KERNELS_DENSE_DEVICE_H
#define ARB_KERNELS_DENSE_DEVICE_H

#include "kernels/dense/dense.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ARB_DENSE_TAPS 9 /* most runs of neighbouring inputs of a convolution */

/* The rows that a product reads. Input k = tap * depth + i of row r is at[tap][r / width * row + r % width * pixel + i]. */
typedef struct {
  const float *at[ARB_DENSE_TAPS];
  int64_t taps, depth;
  int64_t width, row, pixel;
} arb_dense_reach;

/* Keys and values of an attention, packed as the products want them; rows may be appended. */
typedef struct {
  int64_t heads, width; /* head dimension */
  int64_t capacity, count;
  float *keys;   /* [heads][capacity / 32][width][32] */
  float *values; /* [heads][ceil(width / 32)][capacity][32] */
} arb_dense_kv;

/* A frame of pixels [h][w] of c channels, ldx floats apart, with a border of one zero pixel: [h + 2][w + 2][c]. gain [c]: RMS
 * norm and SiLU on the way (not with `doubled`); NULL: copied. doubled: every pixel twice both ways, [2 h + 2][2 w + 2][c]. */
typedef struct {
  const float *x;
  int64_t ldx;
  int h, w, c, doubled;
  const float *gain;
} arb_dense_frame;

typedef struct arb_dense_device arb_dense_device;
struct arb_dense_device {
  char name[64];
  void *ctx;

  /* Zeroed. ARB_ERR_NOMEM with sizes. */
  arb_status (*alloc)(arb_dense_device *d, size_t bytes, void **out);
  void (*free)(arb_dense_device *d, void *memory);
  arb_status (*upload)(arb_dense_device *d, void *to, const void *host, size_t bytes);
  arb_status (*download)(arb_dense_device *d, void *host, const void *from, size_t bytes);
  arb_status (*copy)(arb_dense_device *d, void *to, const void *from, size_t bytes);
  /* Bytes that the device keeps for the inside of its operations. */
  size_t (*held)(const arb_dense_device *d);
  void (*destroy)(arb_dense_device *d); /* frees d too; the caller has freed its memory */

  /* y[m][ldy] = epilogue(x . w), e->bias included. */
  arb_status (*product)(arb_dense_device *d, const arb_dense_reach *x, int64_t m, const arb_dense_matrix *w,
                        const arb_dense_epilogue *e, float *y, int64_t ldy);
  arb_status (*layer_norm)(arb_dense_device *d, const float *x, int64_t ldx, int64_t m, int64_t width, const float *weight,
                           const float *bias, float eps, float *y, int64_t ldy);
  /* m rows behind the kv->count that are there; count is the caller's. */
  arb_status (*append)(arb_dense_device *d, const arb_dense_kv *kv, const float *k, int64_t ldk, const float *v, int64_t ldv,
                       int64_t m);
  /* out[m][ldo] = softmax(scale q . keys') . values by head; causal: row i sees the first count - m + i + 1 keys. */
  arb_status (*attend)(arb_dense_device *d, const arb_dense_kv *kv, const float *q, int64_t ldq, int64_t m, float scale,
                       int causal, float *out, int64_t ldo);
  /* out[i][ldo] = row ids[i] of the matrix as floats; ids: host. */
  arb_status (*table)(arb_dense_device *d, const arb_dense_matrix *w, const int32_t *ids, int64_t count, float *out,
                      int64_t ldo);
  /* out[m][ldo] = silu(gate) * value, both of stride ld. */
  arb_status (*gate)(arb_dense_device *d, const float *value, const float *gate, int64_t ld, int64_t m, int64_t width,
                     float *out, int64_t ldo);
  /* In each of `heads` stretches of `width` columns the first `pairs` pairs of neighbours are turned: (a, b) to (a c - b s,
   * b c + a s); turns [m][2 pairs]: the c of a row, then its s. */
  arb_status (*rotate)(arb_dense_device *d, float *x, int64_t ld, int64_t m, int64_t heads, int64_t width, int64_t pairs,
                       const float *turns);
  /* x[m][width] in place: one mean and one variance over all of it; row sums are added in double. sums: m floats of work. */
  arb_status (*group_norm)(arb_dense_device *d, float *x, int64_t m, int64_t width, const float *weight, const float *bias,
                           float eps, float *sums);
  arb_status (*frame)(arb_dense_device *d, const arb_dense_frame *f, float *out);
  /* y[m][width] = x / max(||x||, 1e-12) * sqrt(width) * gain */
  arb_status (*rms)(arb_dense_device *d, const float *x, int64_t m, int64_t width, const float *gain, float *y);
};

/* Where an encoder computes: `open` gives a device of its own on the GPU of this number. open NULL: the host. */
typedef struct {
  arb_status (*open)(int index, arb_dense_device **out);
  int index;
} arb_dense_place;

#ifdef __cplusplus
}
#endif
#endif
