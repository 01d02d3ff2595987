/* Which backend a rank computes on. */
#ifndef ARB_LAUNCH_DEVICE_H
#define ARB_LAUNCH_DEVICE_H

#include "dist/comm.h"
#include "kernels/backend.h"
#include "src/config/config.h"

/* Collective. The backend that run.device asks for: auto takes a GPU where the build and the machine have one, else the CPU. On
 * GPUs the rank takes the one of its number on the node, and several ranks get a communicator on device memory (else NULL).
 * The caller destroys both, the communicator first. */
ARB_NODISCARD arb_status arb_device_open(const arb_config *cfg, arb_comm *comm, arb_backend **be, arb_comm **device_comm);

/* Where encoders compute without a backend: as run.device says, on GPU `index` (auto: if it is there). Zeros: on the CPU. */
ARB_NODISCARD arb_status arb_device_place(const arb_config *cfg, int index, arb_dense_place *out);

/* The backend that arb_device_open would choose for one of `ranks` ranks of this machine, asking neither GPU nor transport;
 * with run.device = auto that of the build. threads: of the cpu backend. */
arb_backend_kind arb_device_expected(const arb_config *cfg, int ranks, int *threads);

#endif
