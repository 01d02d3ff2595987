/* MPI transport: host memory, one process a rank. */
#ifndef ARB_DIST_MPI_MPI_H
#define ARB_DIST_MPI_MPI_H

#include <stdbool.h>
#include <stdint.h>

#include "dist/comm.h"

/* Whether mpirun, or srun with a PMI, started this process. Reads the environment. */
bool arb_mpi_launched(void);
/* Collective over the job. Initialises MPI unless the program has, and makes the communicator of all ranks; without a
 * launcher it fails with ARB_ERR_UNSUPPORTED before MPI is touched (use single). Destroying *out finalises MPI if this call
 * initialised it: once a process. After a failure only arb_comm_mpi_abort is safe. */
ARB_NODISCARD arb_status arb_comm_mpi_create(int *argc, char ***argv, arb_comm **out);
/* Most elements that one MPI call may carry over all ranks: 1 to INT_MAX, which is the default. Equal on all ranks. */
void arb_comm_mpi_set_chunk(arb_comm *c, int64_t elements);
/* Ends the whole job with this exit code, from any thread, whatever state MPI is in. Does not return. For launch/ only. */
void arb_comm_mpi_abort(int code);

#endif
