/* Where the votes of a matrix lie. Rows are together in groups of the size that a rank owns, and between two groups may be
 * those of other matrices, so that what goes to one rank is one run of memory (src/model/state.h). */
#ifndef ARB_KERNELS_COMMON_VOTES_H
#define ARB_KERNELS_COMMON_VOTES_H

#include <stdint.h>

#include "kernels/common/bits.h"

typedef struct {
  int64_t rows;   /* of a group; 0: all rows are together, the usual case */
  int64_t stride; /* from one group to the next, in bytes */
} arb_vote_groups;

/* Offset of row n's k votes. */
ARB_HD int64_t arb_votes_at(arb_vote_groups g, int64_t n, int64_t k) {
  if (g.rows == 0) return n * k;
  const uint32_t group = (uint32_t)n / (uint32_t)g.rows; /* rows are counted in 24 bits */
  return group * g.stride + (n - group * g.rows) * k;
}

#endif
