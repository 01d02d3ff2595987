/* Whether the NCCL that was found at run time will do, before anything is asked of it. Knows no nccl.h, so any build tests it.
 */
#ifndef ARB_DIST_NCCL_VERSION_H
#define ARB_DIST_NCCL_VERSION_H

#include <stdint.h>

#include "src/base/status.h"

/* built: NCCL_VERSION_CODE of the headers; found[ranks]: ncclGetVersion of every rank (22809 = 2.28.9; 2804 = 2.8.4).
 * ARB_ERR_UNSUPPORTED with the versions unless this rank's is of the same major version, of the same minor one or a
 * later (patches keep the interface), and the same as all others'. Local. */
ARB_NODISCARD arb_status arb_nccl_check_versions(int64_t built, const int64_t *found, int rank, int ranks);

#endif
