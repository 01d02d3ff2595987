/* The index of sharded weights, beside two sound shards. */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/weights.h"

static void write_file(const char *path, const void *bytes, size_t n) {
  FILE *out = fopen(path, "wb");
  if (out == NULL || fwrite(bytes, 1, n, out) != n || fclose(out) != 0) abort();
}

static char folder[40];

static void remove_folder(void) {
  static const char *const names[] = {"1.safetensors", "2.safetensors", "model.safetensors.index.json", ""};
  char path[80];
  for (int i = 0; i < 4; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    remove(path);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static char path[80], shard[80];
  if (path[0] == '\0') {
    strcpy(folder, "/dev/shm/arbdist-fuzz.XXXXXX");
    if (mkdtemp(folder) == NULL && mkdtemp(strcpy(folder, "/tmp/arbdist-fuzz.XXXXXX")) == NULL) abort();
    atexit(remove_folder);
    for (int i = 1; i <= 2; i++) {
      unsigned char bytes[256];
      const int n =
          snprintf((char *)bytes + 8, 200, "{\"%c\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 'a' + i - 1);
      const uint64_t header = (uint64_t)n;
      memcpy(bytes, &header, 8);
      memset(bytes + 8 + n, 0, 4);
      snprintf(shard, sizeof shard, "%s/%d.safetensors", folder, i);
      write_file(shard, bytes, (size_t)n + 12);
    }
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
  }
  write_file(path, data, size);
  read_all(path);
  return 0;
}
