/* Kernels that start while the one in front of them on the stream still runs (programmatic dependent launch, compute capability
 * 9 and up; elsewhere all of this is nothing). What a step pays between two kernels, the launch and the blocks' own
 * preparation, then hides behind the end of the first. A kernel launched so calls arb_previous_done() before it touches memory
 * that any kernel writes, in every thread and on every path: when it ends, all kernels before it have ended. */
#ifndef ARB_KERNELS_CUDA_CHAIN_CUH
#define ARB_KERNELS_CUDA_CHAIN_CUH

#include <cuda_runtime.h>

/* Until the kernels in front have ended and what they wrote is visible. */
__device__ __forceinline__ void arb_previous_done() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* When every block has called this or ended, the next kernel's blocks may take the places that are free. */
__device__ __forceinline__ void arb_next_may_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* early: the kernel calls arb_previous_done, and a kernel is what precedes it on the stream. */
template <typename... P, typename... A>
cudaError_t arb_cuda_chain(void (*kernel)(P...), cudaStream_t stream, dim3 grid, dim3 block, size_t shared, int cluster,
                           bool early, A... args) {
  cudaLaunchAttribute a[2];
  unsigned count = 0;
  if (early) {
    a[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    a[count].id = cudaLaunchAttributeClusterDimension;
    a[count].val.clusterDim.x = (unsigned)cluster, a[count].val.clusterDim.y = 1, a[count].val.clusterDim.z = 1;
    count++;
  }
  cudaLaunchConfig_t c = {};
  c.gridDim = grid, c.blockDim = block, c.dynamicSmemBytes = shared;
  c.stream = stream, c.attrs = a, c.numAttrs = count;
  return cudaLaunchKernelEx(&c, kernel, static_cast<P>(args)...);
}

#endif
