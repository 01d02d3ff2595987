/* A safetensors file. First byte even: the rest is the file. Odd: the rest is the header, and the harness adds the length
 * before it and 64 bytes of data, so that mutations reach the JSON. */
#include <string.h>

#include "tests/fuzz/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static unsigned char file[1 << 16];
  if (size < 1 || size > sizeof file - 80) return 0;
  const uint64_t header = size - 1;
  if (data[0] % 2 == 0) {
    read_all(file_of(data + 1, size - 1));
    return 0;
  }
  memcpy(file, &header, 8);
  memcpy(file + 8, data + 1, size - 1);
  memset(file + 8 + header, 0, 64);
  read_all(file_of(file, 8 + header + 64));
  return 0;
}
