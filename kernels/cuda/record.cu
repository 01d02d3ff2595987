/* Recorded sequences as CUDA graphs: a step's hundreds of launches cost the host one call. Kernels read seed, step and learning
 * rate from device memory, so a graph stays valid from step to step. */
#include "kernels/cuda/context.h"

static arb_status record_begin(arb_backend *be) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_CUDA_TRY(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal), "recording");
  c->recording = 1;
  c->side_busy = 0;
  c->chained = 0;
  return ARB_OK;
}

static arb_status record_end(arb_backend *be, void **sequence) {
  cudaGraph_t graph = NULL;
  cudaGraphExec_t exec = NULL;
  arb_cuda *c = arb_cuda_of(be);
  *sequence = NULL;
  const arb_status joined = arb_cuda_join_side(c);
  c->recording = 0;
  ARB_CUDA_TRY(cudaStreamEndCapture(c->stream, &graph), "recording");
  if (joined != ARB_OK) {
    (void)cudaGraphDestroy(graph);
    return joined;
  }
  const cudaError_t code = cudaGraphInstantiate(&exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  ARB_CUDA_TRY(code, "recording");
  *sequence = exec;
  return ARB_OK;
}

static arb_status replay(arb_backend *be, void *sequence) {
  arb_cuda_of(be)->chained = 0;
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
