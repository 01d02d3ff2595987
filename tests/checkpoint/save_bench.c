/* save_bench DIR MEBIBYTES: saves a state of this size once and prints the seconds that it took; for bench.sh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/checkpoint/checkpoint.h"

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const int64_t rows = atoll(argv[2]) * 1024;
  unsigned char *bytes = malloc((size_t)rows * 1024);
  if (rows <= 0 || bytes == NULL) return 2;
  for (int64_t i = 0; i < rows * 1024; i++) bytes[i] = (unsigned char)(i * 2654435761 >> 11);
  const arb_ckpt_array array = ARB_CKPT_WHOLE("w", "code", ARB_U8, rows, 1024, bytes);
  const arb_ckpt_meta meta = {.step = 1, .digest = "00000000000000000000000000000000", .identity = "", .config = ""};
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  const arb_status st = arb_ckpt_save(argv[1], &meta, &array, 1);
  clock_gettime(CLOCK_MONOTONIC, &b);
  if (st != ARB_OK) fprintf(stderr, "%s\n", arb_fail_message());
  printf("%.4f\n", (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec));
  free(bytes);
  return st == ARB_OK ? 0 : 1;
}
