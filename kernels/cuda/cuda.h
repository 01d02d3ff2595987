/* The CUDA backend: every slot of kernels/backend.h on one NVIDIA GPU, with the reference's bits.
 *
 * All work of a backend runs on one stream of one device. A backend belongs to the thread that created it. Slots only queue
 * work; download, sync, take_nonfinite, collect and digest wait, and so do large uploads. Kernels read seed, step and learning
 * rate from device memory that begin_step writes, so a captured step replays with new ones. Work memory grows on first use: run
 * a step once before capturing it. */
#ifndef ARB_KERNELS_CUDA_CUDA_H
#define ARB_KERNELS_CUDA_CUDA_H

#include <stdio.h>

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* device: index as the CUDA runtime counts. ARB_ERR_UNSUPPORTED, with versions, for no device, a driver that is too old, or a
 * GPU that this build has no code for. */
ARB_NODISCARD arb_status arb_backend_cuda_create(int device, arb_backend **out);
/* No driver or no GPU at all: nothing that one would want to hear of where a GPU is not asked for. */
int arb_cuda_absent(void);
/* Name, compute capability and driver's CUDA version of a GPU that a backend was created on. */
void arb_cuda_describe(int device, char *text, size_t bytes);
/* Debugging: wait after every launch, so that an error names the kernel that made it. Off at first. */
void arb_cuda_sync_launches(arb_backend *be, int on);
/* Debugging: plain kernels for the three products instead of the fast ones. Off at first. */
void arb_cuda_products_plain(arb_backend *be, int on);
/* Measuring: device time by kernel name, waiting after every launch. profile_start clears; profile_print writes one line a
 * kernel (calls, milliseconds) and stops. */
ARB_NODISCARD arb_status arb_cuda_profile_start(arb_backend *be);
void arb_cuda_profile_print(arb_backend *be, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
