/* The three matrix products of a ternary linear on an NVIDIA GPU: int8 x trit -> exact int32 on the tensor cores.
 *
 * Shapes: m rows of activations, n outputs, k inputs, all row-major and contiguous; code [n][k] holds state bytes
 * (kernels/common/trit.h), T its trits. Values of q, hq and tq lie in [-127, 127]. m, n, k >= 1; m, n, k < 2^24.
 * All pointers are device memory; outputs at least 16 bytes aligned as a whole (cudaMalloc, an arena), inputs of any alignment
 * (16 is fast). Asynchronous on `stream`, may be captured in a CUDA graph. Nothing is allocated.
 * work: arb_cuda_gemm_work_bytes(...) bytes, 256 aligned, content unspecified before and after; calls on one stream may share
 * it.
 *
 * early: what precedes the call on the stream is a kernel, beside whose end this one may start (chain.cuh).
 *
 * Results depend on the arguments alone: sums are integers, and every float operation is the one of kernels/ref. */
#ifndef ARB_KERNELS_CUDA_GEMM_H
#define ARB_KERNELS_CUDA_GEMM_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/common/votes.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ARB_CUDA_GEMM_ROWS 131072 /* rows of a grain in one dw call: 131072 * 127 * 127 < 2^31 */

/* What changes from step to step, in device memory, so that a captured graph can be replayed. */
typedef struct {
  uint64_t seed;
  uint32_t step;
  float eta_units;
} arb_cuda_step;

/* Enough for each of the three forms with `grains` times up to rows_per_grain rows. */
size_t arb_cuda_gemm_work_bytes(int64_t rows_per_grain, int64_t grains, int64_t k, int64_t n);

/* y[m][n] = bf16(((float)sum_k q[m][k] T[n][k] * s[m]) * 2^(e[n] / 8)) */
cudaError_t arb_cuda_gemm_forward(cudaStream_t stream, int64_t m, int64_t k, int64_t n, const int8_t *q, const float *s,
                                  const uint8_t *code, const int8_t *e, uint16_t *y, void *work, int early);

/* dx[m][k] = bf16((float)sum_n hq[m][n] T[n][k] * sh[m]) */
cudaError_t arb_cuda_gemm_dx(cudaStream_t stream, int64_t m, int64_t k, int64_t n, const int8_t *hq, const float *sh,
                             const uint8_t *code, uint16_t *dx, void *work, int early);

/* Grain i = rows [i * rows_per_grain, ...) of hq and q, grain number first + i * stride of the step. For each grain the rows of
 * hq come to one scale 2^c (kernels/common/scale.h: weight = sh * s, draws of (DW, tensor, step, grain number)) as tq, then
 *   D[n][k] = sum over its rows of tq[row][n] * q[row][k],
 *   votes[n][k] += SR(clamp((float)D * arb_vote_scale(c - p[n]), -vmax, vmax))
 * with the 16-bit draw of (VOTE, tensor, step, grain number, element n * pad8(k) + column). */
typedef struct {
  int64_t rows_per_grain; /* 1 .. ARB_CUDA_GEMM_ROWS */
  int32_t grains, first, stride;
  int64_t n, k;
  const int8_t *hq; /* [grains * rows_per_grain][n] */
  const float *sh;  /* [grains * rows_per_grain] */
  const int8_t *q;  /* [grains * rows_per_grain][k] */
  const float *s;   /* [grains * rows_per_grain] */
  const int8_t *p;  /* [n] */
  int32_t vmax;     /* 1 .. 127 */
  uint32_t tensor;
  const arb_cuda_step *step;
  int8_t *votes; /* [n][k] */
  arb_vote_groups groups;
  int *nonfinite; /* set when a weight overflows */
} arb_cuda_dw;
cudaError_t arb_cuda_gemm_dw_votes(cudaStream_t stream, const arb_cuda_dw *dw, void *work);
/* Its two parts: the operands as the products want them, in work; then products and votes. Where _direct says 1 the first does
 * nothing and the second reads all of dw's arrays; else the second reads p, step and votes alone, so hq and q may change
 * meanwhile. */
int arb_cuda_gemm_dw_direct(const arb_cuda_dw *dw);
cudaError_t arb_cuda_gemm_dw_turn(cudaStream_t stream, const arb_cuda_dw *dw, void *work, int early);
cudaError_t arb_cuda_gemm_dw_cast(cudaStream_t stream, const arb_cuda_dw *dw, void *work, int early);

/* Which kernels the forms use: -1 = by the device's compute capability (the default), 0 = portable mma.sync, 1 = sm_90a.
 * 2 .. 6 force one tile of the sm_90a kernels (gemm.cu, tile_kind and vote_kind). For tests and measurements; process-wide.
 * Returns the path that the current device would take. */
int arb_cuda_gemm_path(int wanted);

#ifdef __cplusplus
}
#endif
#endif
