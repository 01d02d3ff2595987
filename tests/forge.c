#define _GNU_SOURCE
#include "tests/forge.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/test.h"

int folder_setup(void **test) {
  char *path = strdup("/tmp/arbdist-test.XXXXXX");
  *test = path;
  return path != NULL && mkdtemp(path) != NULL ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk) {
  (void)info, (void)kind, (void)walk;
  return remove(path);
}

int folder_teardown(void **test) {
  const int result = nftw(*test, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
  free(*test);
  return result;
}

const char *in_folder(const char *folder, const char *name) {
  static char paths[4][512];
  static int turn;
  char *path = paths[turn++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

const char *in_memory(void) {
  static char path[64];
  if (path[0] == '\0') {
    const int fd = memfd_create("forge", 0);
    assert_true(fd >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  }
  return path;
}

void forge_bytes(forge *f, const void *bytes, size_t n) {
  if (n == 0) return;
  if (f->used + n > f->room) {
    f->room = 2 * (f->used + n);
    f->bytes = realloc(f->bytes, f->room);
    assert_non_null(f->bytes);
  }
  memcpy(f->bytes + f->used, bytes, n);
  f->used += n;
}

void forge_text(forge *f, const char *text) { forge_bytes(f, text, strlen(text)); }
void forge_u32(forge *f, uint32_t value) { forge_bytes(f, &value, sizeof value); }
void forge_u64(forge *f, uint64_t value) { forge_bytes(f, &value, sizeof value); }

void forge_zeros(forge *f, size_t n) {
  static const unsigned char zeros[256];
  for (; n > 0; n -= n < sizeof zeros ? n : sizeof zeros) forge_bytes(f, zeros, n < sizeof zeros ? n : sizeof zeros);
}

void forge_string(forge *f, const char *text) {
  forge_u64(f, strlen(text));
  forge_text(f, text);
}

void forge_write(forge *f, const char *path) {
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  if (f->used > 0) assert_int_equal(fwrite(f->bytes, 1, f->used, out), f->used);
  assert_int_equal(fclose(out), 0);
  free(f->bytes);
  *f = (forge){0};
}
