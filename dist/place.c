#include "dist/place.h"

arb_grain_set arb_place_grains(int64_t grains, int rank, int size) {
  const int64_t count = grains / size + (rank < grains % size);
  return (arb_grain_set){rank, size, count};
}

arb_row_slice arb_place_rows(int64_t rows, int rank, int size) {
  const int64_t each = rows / size, longer = rows % size; /* the first `longer` ranks take one row more */
  return (arb_row_slice){each * rank + (rank < longer ? rank : longer), each + (rank < longer)};
}

int arb_place_row_owner(int64_t rows, int64_t row, int size) {
  const int64_t each = rows / size, longer = rows % size, border = longer * (each + 1);
  return (int)(row < border ? row / (each + 1) : longer + (row - border) / each);
}

int64_t arb_place_rows_most(int64_t rows, int size) { return rows / size + (rows % size != 0); }
