/* Recorded sequences as CUDA graphs: a step's hundreds of launches cost the host one call. Kernels read seed, step and learning
 * rate from device memory, so a graph stays valid from step to step. */
#include "kernels/cuda/context.h"

static arb_status record_begin(arb_backend *be) {
  ARB_CUDA_TRY(cudaStreamBeginCapture(arb_cuda_of(be)->stream, cudaStreamCaptureModeThreadLocal), "recording");
  return ARB_OK;
}

static arb_status record_end(arb_backend *be, void **sequence) {
  cudaGraph_t graph = NULL;
  cudaGraphExec_t exec = NULL;
  *sequence = NULL;
  ARB_CUDA_TRY(cudaStreamEndCapture(arb_cuda_of(be)->stream, &graph), "recording");
  const cudaError_t code = cudaGraphInstantiate(&exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  ARB_CUDA_TRY(code, "recording");
  *sequence = exec;
  return ARB_OK;
}

static arb_status replay(arb_backend *be, void *sequence) {
  ARB_CUDA_TRY(cudaGraphLaunch((cudaGraphExec_t)sequence, arb_cuda_of(be)->stream), "replay");
  return ARB_OK;
}

static void sequence_free(arb_backend *be, void *sequence) {
  (void)be;
  if (sequence) (void)cudaGraphExecDestroy((cudaGraphExec_t)sequence);
}

void arb_cuda_fill_record(arb_ops *ops) {
  ops->record_begin = record_begin;
  ops->record_end = record_end;
  ops->replay = replay;
  ops->sequence_free = sequence_free;
}
