/* What belongs to which rank: index arithmetic without memory or communication. Every function is total over
 * 0 <= rank < size and counts >= 0, and its parts are disjoint and cover everything. */
#ifndef ARB_DIST_PLACE_H
#define ARB_DIST_PLACE_H

#include <stdint.h>

/* Indices first, first + stride, ...: `count` of them. */
typedef struct {
  int64_t first, stride, count;
} arb_grain_set;

/* Rows [first, first + count) of a tensor. */
typedef struct {
  int64_t first, count;
} arb_row_slice;

/* Grain g belongs to rank g % size. */
arb_grain_set arb_place_grains(int64_t grains, int rank, int size);
/* Contiguous whole rows in rank order, in blocks of arb_place_rows_most rows; the last ranks take what is left, perhaps
 * nothing. So rank r's rows begin at block r of an array as it lies, and an equal-count collective moves it without repacking.
 */
arb_row_slice arb_place_rows(int64_t rows, int rank, int size);
/* The rank whose slice holds `row`. */
int arb_place_row_owner(int64_t rows, int64_t row, int size);
/* The longest slice of any rank, ceil(rows / size): what an equal-count collective needs a rank. */
int64_t arb_place_rows_most(int64_t rows, int size);

#endif
