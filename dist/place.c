#include "dist/place.h"

arb_grain_set arb_place_grains(int64_t grains, int rank, int size) {
  const int64_t count = grains / size + (rank < grains % size);
  return (arb_grain_set){rank, size, count};
}

arb_row_slice arb_place_rows(int64_t rows, int rank, int size) {
  if (rows == 0) return (arb_row_slice){0, 0};
  const int64_t block = arb_place_rows_most(rows, size), whole = rows / block; /* ranks before this one have a whole block */
  if (rank > whole) return (arb_row_slice){rows, 0};
  return (arb_row_slice){block * rank, rank < whole ? block : rows - block * whole};
}

int arb_place_row_owner(int64_t rows, int64_t row, int size) { return (int)(row / arb_place_rows_most(rows, size)); }

int64_t arb_place_rows_most(int64_t rows, int size) { return rows / size + (rows % size != 0); }
