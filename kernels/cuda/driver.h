/* Whether driver, GPU and build fit each other, said in words. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_DRIVER_H
#define ARB_KERNELS_CUDA_DRIVER_H

#include <cuda_runtime.h>

#include "src/base/status.h"

/* Makes GPU `device` the thread's own and reads its properties. kernel: one of this build's, to see whether the GPU can run it.
 * ARB_ERR_UNSUPPORTED, with the driver's and the build's version of CUDA and what to do about it. */
ARB_NODISCARD arb_status arb_cuda_find_device(int device, const void *kernel, cudaDeviceProp *properties);

#endif
