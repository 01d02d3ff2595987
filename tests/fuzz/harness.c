#define _GNU_SOURCE
#include "tests/fuzz/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *file_of(const void *bytes, size_t n) {
  static int fd = -1;
  static char path[64];
  if (fd < 0) {
    fd = memfd_create("fuzz", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  }
  if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, bytes, n, 0) != (ssize_t)n) abort();
  return path;
}

enum { NAMES = 8 };
static char folder[40], files[NAMES][120];

static void remove_folder(void) {
  for (int i = 0; i < NAMES && files[i][0] != '\0'; i++) remove(files[i]);
  remove(folder);
}

const char *named_file(const char *name, const void *bytes, size_t n) {
  char path[120];
  int i = 0;
  if (folder[0] == '\0') {
    strcpy(folder, "/dev/shm/arbdist-fuzz.XXXXXX");
    if (mkdtemp(folder) == NULL && mkdtemp(strcpy(folder, "/tmp/arbdist-fuzz.XXXXXX")) == NULL) abort();
    atexit(remove_folder);
  }
  snprintf(path, sizeof path, "%s/%s", folder, name);
  while (i < NAMES && files[i][0] != '\0' && strcmp(files[i], path) != 0) i++;
  if (i == NAMES) abort();
  strcpy(files[i], path);
  FILE *out = fopen(path, "wb");
  if (out == NULL || fwrite(bytes, 1, n, out) != n || fclose(out) != 0) abort();
  return files[i];
}
