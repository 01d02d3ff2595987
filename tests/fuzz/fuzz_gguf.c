/* A GGUF file; the magic is the harness's. */
#include <string.h>

#include "tests/fuzz/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static unsigned char file[1 << 16] = "GGUF";
  if (size > sizeof file - 4) return 0;
  memcpy(file + 4, data, size);
  read_all(file_of(file, 4 + size));
  return 0;
}
