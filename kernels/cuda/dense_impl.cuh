/* What the files of kernels/dense on the GPU share. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_DENSE_IMPL_CUH
#define ARB_KERNELS_CUDA_DENSE_IMPL_CUH

#include "kernels/common/math.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/dense.h"

typedef struct {
  arb_backend *be; /* its stream, memory and messages */
  arb_cuda *cuda;
  float *scores; /* of attention */
  size_t score_bytes;
  int32_t *ids;
  int64_t id_count;
  float *moments; /* mean and 1 / deviation of a group norm */
} arb_cuda_dense;

static inline arb_cuda_dense *arb_cuda_dense_of(const arb_dense_device *d) { return (arb_cuda_dense *)d->ctx; }

/* The calling thread's device is this one from here on. */
static inline arb_status arb_cuda_dense_enter(const arb_dense_device *d, arb_cuda **c) {
  *c = arb_cuda_dense_of(d)->cuda;
  ARB_CUDA_TRY(cudaSetDevice((*c)->device), "choosing the GPU");
  return ARB_OK;
}

void arb_cuda_dense_fill_products(arb_dense_device *d);
void arb_cuda_dense_fill_rows(arb_dense_device *d);

static __device__ __forceinline__ float arb_dense_act(int act, float x) {
  if (act == ARB_DENSE_GELU) return 0.5f * x * (1.0f + arb_erff(x * 0x1.6a09e6p-1f));
  if (act == ARB_DENSE_SILU) return x * arb_sigmoidf(x);
  if (act == ARB_DENSE_TANH) return arb_tanhf(x);
  return x;
}

#endif
