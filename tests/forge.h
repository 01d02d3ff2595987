/* Makes files byte by byte, sound and hostile, in a folder of their own. */
#ifndef ARB_TESTS_FORGE_H
#define ARB_TESTS_FORGE_H

#include <stddef.h>
#include <stdint.h>

/* cmocka fixtures: *test becomes the path of a fresh folder, removed at the end with everything in it. */
int folder_setup(void **test);
int folder_teardown(void **test);
/* "FOLDER/NAME" in one of four static buffers, used in turn. */
const char *in_folder(const char *folder, const char *name);

/* The path of a file in memory, the same for every call: for tests that write thousands of files. */
const char *in_memory(void);

/* A growing piece of a file. Zeroed by = {0}, freed by forge_write. */
typedef struct {
  unsigned char *bytes;
  size_t used, room;
} forge;

void forge_bytes(forge *f, const void *bytes, size_t n);
void forge_text(forge *f, const char *text);
void forge_zeros(forge *f, size_t n);
void forge_u32(forge *f, uint32_t value);
void forge_u64(forge *f, uint64_t value);
/* A GGUF string: u64 length and the bytes. */
void forge_string(forge *f, const char *text);
void forge_write(forge *f, const char *path);

#endif
