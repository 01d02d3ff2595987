/* NCCL transport: device memory, one rank a GPU. */
#ifndef ARB_DIST_NCCL_NCCL_H
#define ARB_DIST_NCCL_NCCL_H

#include "dist/comm.h"

/* Collective over `host`, a communicator on host memory with the same ranks, which carries NCCL's id and stays the one for
 * agreement and control; borrowed, must outlive *out. device: CUDA ordinal; stream: the backend's cudaStream_t. Collectives are
 * enqueued there, in order with the backend's own work, or, after arb_comm_aside, on a stream of the transport. Collectives
 * return after enqueueing; barrier waits until everything enqueued (or marked) is done, or until a peer is reported lost.
 * ARB_ERR_COMM with NCCL's text and version; ARB_ERR_UNSUPPORTED when two ranks would share a GPU. */
ARB_NODISCARD arb_status arb_comm_nccl_create(arb_comm *host, int device, void *stream, arb_comm **out);

#endif
