/* Shared by the files of this folder only. */
#ifndef ARB_SRC_CHECKPOINT_CHECKPOINT_IMPL_H
#define ARB_SRC_CHECKPOINT_CHECKPOINT_IMPL_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/hdf5_lock.h"

enum {
  ARB_CKPT_VERSION = 1,
  ARB_CKPT_PATH = 4096,
  ARB_CKPT_TENSOR = 128,    /* bytes of a tensor's name, NUL included */
  ARB_CKPT_FIELD = 32,      /* bytes of a field's name, NUL included */
  ARB_CKPT_HEX = 33,        /* 32 hex digits and NUL */
  ARB_CKPT_SUPERBLOCK = 48, /* bytes of an HDF5 superblock of version 3 with 8-byte addresses */
  ARB_CKPT_META_ATTRIBUTES = 6,
  ARB_CKPT_MAX_ARRAYS = 1 << 20, /* more than any model has: a bound for what a damaged file may make us allocate */
  ARB_CKPT_MAX_TEXT = 16 << 20,  /* bytes of the identity or the config text */
};

/* Names inside the file. */
#define ARB_CKPT_FILE "state.h5"
#define ARB_CKPT_META "meta"
#define ARB_CKPT_IDENTITY "identity"
#define ARB_CKPT_CONFIG "config"
#define ARB_CKPT_DIGEST "xxh3_128"

/* One dataset of the file: TENSOR/FIELD, [rows][columns]. */
typedef struct {
  char tensor[ARB_CKPT_TENSOR], field[ARB_CKPT_FIELD];
  arb_dtype type;
  int64_t rows, columns;
  uint64_t bytes, offset; /* offset in the file: reading only */
  char digest[ARB_CKPT_HEX];
  const void *host; /* writing only */
} arb_ckpt_entry;

/* ---- hdf5.c: the library, under one lock ------------------------------------------------------------------------------ */

/* A file access list for both directions, or a negative id. in_memory: for a Linux memory file, whose name under /proc is a
 * link to nowhere; the sec2 driver wants to resolve it, the stdio driver does not. */
hid_t arb_ckpt_h5_access(bool in_memory);
/* The file type of an element type; negative for floats, which no checkpoint holds. Borrowed. */
hid_t arb_ckpt_h5_type(arb_dtype type);
/* The type of a digest attribute (32 characters, no terminator). The caller closes it. */
hid_t arb_ckpt_h5_hex_type(void);
/* Closes an id if it is one. */
void arb_ckpt_h5_drop(hid_t id, herr_t (*close)(hid_t));

/* ---- format.c: pure functions ----------------------------------------------------------------------------------------- */

/* rows * columns * element size; false when it is negative or leaves int64. */
bool arb_ckpt_bytes(arb_dtype type, int64_t rows, int64_t columns, uint64_t *bytes);
/* Letters, digits, '_', '-', '.'; not empty, no leading dot, shorter than `size`. */
bool arb_ckpt_name_ok(const char *name, size_t size);
bool arb_ckpt_hex_ok(const char hex[ARB_CKPT_HEX]);
/* Order of tensor, then field, by bytes; for qsort and bsearch. */
int arb_ckpt_entry_order(const void *a, const void *b);
void arb_ckpt_hash_text(XXH128_hash_t hash, char hex[ARB_CKPT_HEX]);
/* The digest of the metadata: the numbers of meta and, of every dataset, name, type, shape and digest. Entries are sorted. It
 * makes a dataset that was taken out, renamed or exchanged visible without knowing the model. */
ARB_NODISCARD arb_status arb_ckpt_manifest(const arb_ckpt_meta *meta, const arb_ckpt_entry *entries, int count,
                                           char hex[ARB_CKPT_HEX]);
/* Checks the first bytes of a file of `size` bytes: HDF5 signature at 0, superblock version 3, closed properly, nothing in
 * front, no extension, and the end that it states is the end of the file. Its checksum is for HDF5 to check. */
ARB_NODISCARD arb_status arb_ckpt_superblock(const char *path, const unsigned char *head, uint64_t size);

/* ---- files.c: the operating system ------------------------------------------------------------------------------------ */

ARB_NODISCARD arb_status arb_ckpt_path(char out[ARB_CKPT_PATH], const char *format, ...) ARB_PRINTF(2, 3);
/* Creates the folder and its parents, each made durable. */
ARB_NODISCARD arb_status arb_ckpt_make_folders(const char *dir);
ARB_NODISCARD arb_status arb_ckpt_sync_folder(const char *dir);
/* fsync; a failure is final, since the kernel may have dropped the pages. Returns 0 or errno. */
int arb_ckpt_sync(int fd);
/* Reads exactly `bytes` at `offset`. Returns 0, errno, or -1 when the file ends early. */
int arb_ckpt_read_at(int fd, void *out, size_t bytes, uint64_t offset);
/* Opens a regular file for reading, follows no link in the last component, never waits for a FIFO. */
ARB_NODISCARD arb_status arb_ckpt_open_plain(const char *path, int *fd, uint64_t *size);
/* Removes a folder and the files in it; not its subfolders. Returns 0 (also when it is not there) or errno. */
int arb_ckpt_remove_folder(const char *dir);

/* ---- open.c ----------------------------------------------------------------------------------------------------------- */

/* A checkpoint file whose structure and metadata digest are right. Data is not read yet. */
typedef struct {
  char path[ARB_CKPT_PATH];
  int fd; /* ours, not HDF5's */
  uint64_t size;
  arb_ckpt_entry *entries; /* sorted by name */
  int count;
  arb_ckpt_meta meta; /* texts NULL */
} arb_ckpt_file;

ARB_NODISCARD arb_status arb_ckpt_file_open(arb_ckpt_file *f, const char *dir, int64_t step);
void arb_ckpt_file_close(arb_ckpt_file *f);
/* NULL when there is none. */
const arb_ckpt_entry *arb_ckpt_file_find(const arb_ckpt_file *f, const char *tensor, const char *field);

/* ---- read.c ----------------------------------------------------------------------------------------------------------- */

/* Reads a dataset into host, or, where host is NULL, past a buffer, and compares its digest. */
ARB_NODISCARD arb_status arb_ckpt_read_dataset(const arb_ckpt_file *f, const arb_ckpt_entry *e, void *host);
/* Reads identity or config. The caller frees *out; it is NULL after a failure. */
ARB_NODISCARD arb_status arb_ckpt_read_text(const arb_ckpt_file *f, const char *field, char **out);
/* Everything of a checkpoint, read and compared with its digests. */
ARB_NODISCARD arb_status arb_ckpt_verify(const char *dir, int64_t step);

#endif
