/* The only place where a CUDA error becomes an arb_status. Kernels are started through ARB_CUDA_LAUNCH, which checks the
 * launch, names the kernel in the message, and waits or measures when asked to. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_CUDA_STATUS_H
#define ARB_KERNELS_CUDA_CUDA_STATUS_H

#include <cuda_runtime.h>

#include "src/base/status.h"

static inline arb_status arb_cuda_status_of(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return ARB_OK;
    case cudaErrorMemoryAllocation:
      return ARB_ERR_NOMEM;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidDevicePointer:
      return ARB_ERR_ARG;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return ARB_ERR_UNSUPPORTED;
    default:
      return ARB_ERR_IO;
  }
}

/* Also clears the runtime's sticky copy of an error that it can clear. */
static inline arb_status arb_cuda_check(cudaError_t error, const char *what, const char *file, int line) {
  if (error == cudaSuccess) return ARB_OK;
  (void)cudaGetLastError();
  return arb_fail(arb_cuda_status_of(error), file, line, "CUDA: %s: %s (%s)", what, cudaGetErrorString(error),
                  cudaGetErrorName(error));
}

#define ARB_CUDA_TRY(call, what) ARB_TRY(arb_cuda_check((call), (what), __FILE__, __LINE__))

#endif
