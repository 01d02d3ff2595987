/* The index of sharded weights, beside two sound shards. */
#include <stdio.h>
#include <string.h>

#include "tests/fuzz/weights.h"

static void write_shard(const char *name, char tensor) {
  unsigned char bytes[256] = {0};
  const int n = snprintf((char *)bytes + 8, 200, "{\"%c\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", tensor);
  const uint64_t header = (uint64_t)n;
  memcpy(bytes, &header, 8);
  named_file(name, bytes, 8 + (size_t)n + 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int ready;
  if (!ready) {
    write_shard("1.safetensors", 'a');
    write_shard("2.safetensors", 'b');
    ready = 1;
  }
  read_all(named_file("model.safetensors.index.json", data, size));
  return 0;
}
