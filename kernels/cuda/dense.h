/* kernels/dense on an NVIDIA GPU. Contracts and bits: kernels/dense/device.h. */
#ifndef ARB_KERNELS_CUDA_DENSE_H
#define ARB_KERNELS_CUDA_DENSE_H

#include <stdio.h>

#include "kernels/dense/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* index: as the CUDA runtime counts. ARB_ERR_UNSUPPORTED, with versions, as arb_backend_cuda_create. */
ARB_NODISCARD arb_status arb_cuda_dense_open(int index, arb_dense_device **out);
/* Measuring: device time by kernel name; start clears, print ends. */
ARB_NODISCARD arb_status arb_cuda_dense_profile(arb_dense_device *d);
void arb_cuda_dense_profile_print(arb_dense_device *d, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
