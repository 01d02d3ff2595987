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
  /* Raised when the layout changes, or the arithmetic: going on from an older state would not be what a straight run gives. */
  ARB_CKPT_VERSION = 2,
  ARB_CKPT_PATH = 4096,
  ARB_CKPT_TENSOR = 128,    /* bytes of a tensor's name, NUL included */
  ARB_CKPT_FIELD = 32,      /* bytes of a field's name, NUL included */
  ARB_CKPT_HEX = 33,        /* 32 hex digits and NUL */
  ARB_CKPT_FILE = 24,       /* bytes of a file's name, NUL included */
  ARB_CKPT_SUPERBLOCK = 48, /* bytes of an HDF5 superblock of version 3 with 8-byte addresses */
  ARB_CKPT_META_ATTRIBUTES = 8,
  ARB_CKPT_ARRAY_ATTRIBUTES = 3,
  ARB_CKPT_MAX_RANKS = 1 << 20,
  ARB_CKPT_MAX_ARRAYS = 1 << 20,    /* more than any model has: a bound for what a damaged file may make us allocate */
  ARB_CKPT_MAX_TEXT = 16 << 20,     /* bytes of the identity or the config text */
  ARB_CKPT_MAX_MANIFEST = 64 << 20, /* bytes of manifest.json */
};

/* Names in the folder and inside the files. */
#define ARB_CKPT_MANIFEST "manifest.json"
#define ARB_CKPT_META "meta"
#define ARB_CKPT_IDENTITY "identity"
#define ARB_CKPT_CONFIG "config"
#define ARB_CKPT_DIGEST "xxh3_128"
#define ARB_CKPT_ROWS "global_rows"
#define ARB_CKPT_FIRST "first_row"

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
/* Is this the name of a type that a checkpoint may hold? */
bool arb_ckpt_type_of(const char *name, arb_dtype *type);
void arb_ckpt_hash_text(XXH128_hash_t hash, char hex[ARB_CKPT_HEX]);
void arb_ckpt_hash_bytes(const void *bytes, size_t count, char hex[ARB_CKPT_HEX]);
/* "rank-00007.h5" */
void arb_ckpt_file_name(int rank, char name[ARB_CKPT_FILE]);
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
/* Writes all of it. Returns 0 or errno. */
int arb_ckpt_write_at(int fd, const void *bytes, uint64_t count, uint64_t offset);
/* Reads exactly `bytes` at `offset`. Returns 0, errno, or -1 when the file ends early. */
int arb_ckpt_read_at(int fd, void *out, size_t bytes, uint64_t offset);
/* Opens a regular file for reading, follows no link in the last component, never waits for a FIFO. */
ARB_NODISCARD arb_status arb_ckpt_open_plain(const char *path, int *fd, uint64_t *size);
/* Removes a folder and the files in it; not its subfolders. Returns 0 (also when it is not there) or errno. */
int arb_ckpt_remove_folder(const char *dir);

/* ---- manifest.c ------------------------------------------------------------------------------------------------------- */

/* Rows of an array in a file. */
typedef struct {
  int array, file; /* numbers in the manifest */
  int64_t first, rows;
  uint64_t bytes, offset; /* offset 0 where bytes = 0 */
  char digest[ARB_CKPT_HEX];
} arb_ckpt_slice;

typedef struct {
  char tensor[ARB_CKPT_TENSOR], field[ARB_CKPT_FIELD];
  arb_dtype type;
  int64_t rows, columns;
  int slice, slices; /* the first of its slices, which follow each other by rows, and how many */
} arb_ckpt_item;

typedef struct {
  char name[ARB_CKPT_FILE];
  int rank; /* that wrote it */
  uint64_t bytes;
  char digest[ARB_CKPT_HEX];
} arb_ckpt_listed;

typedef struct {
  arb_ckpt_meta meta;     /* texts NULL */
  char run[ARB_CKPT_HEX]; /* digest of the identity: what the run is */
  int ranks;
  bool sharded;
  arb_ckpt_listed *files; /* by rank */
  int file_count;
  arb_ckpt_item *arrays; /* sorted by tensor, then field; meta's texts among them */
  int array_count;
  arb_ckpt_slice *slices; /* by array, then by rows */
  int slice_count;
} arb_ckpt_manifest;

/* Arrays sorted, slices contiguous and complete, in files that there are, none sharing bytes: what parsing and committing both
 * need. `path` names the manifest in messages; st is the status of a failure. */
ARB_NODISCARD arb_status arb_ckpt_manifest_check(const arb_ckpt_manifest *m, const char *path, arb_status st);
/* The text of manifest.json, malloc'd. */
ARB_NODISCARD arb_status arb_ckpt_manifest_text(const arb_ckpt_manifest *m, char **text, size_t *length);
/* Reads a text of `length` bytes (and one NUL behind it). `unverified`: its own digest may be another one, or missing. */
ARB_NODISCARD arb_status arb_ckpt_manifest_parse(const char *path, const char *text, size_t length, bool unverified,
                                                 arb_ckpt_manifest *out);
void arb_ckpt_manifest_deinit(arb_ckpt_manifest *m);
/* Order of tensor, then field, by bytes. */
int arb_ckpt_item_order(const void *a, const void *b);
/* NULL when there is none. */
const arb_ckpt_item *arb_ckpt_manifest_find(const arb_ckpt_manifest *m, const char *tensor, const char *field);

/* ---- write.c: one rank's file ----------------------------------------------------------------------------------------- */

/* One dataset of the file: rows first .. first + count - 1 of TENSOR/FIELD. */
typedef struct {
  char tensor[ARB_CKPT_TENSOR], field[ARB_CKPT_FIELD];
  arb_dtype type;
  int64_t rows, columns, first, count;
  uint64_t bytes, offset; /* offset in the file */
  char digest[ARB_CKPT_HEX];
  const void *host;
} arb_ckpt_entry;

struct arb_ckpt_part {
  uint64_t size; /* of this block, bytes */
  int rank, count;
  uint64_t bytes; /* of the file */
  char digest[ARB_CKPT_HEX];
  arb_ckpt_entry entries[];
};

/* Errors of a caller in meta. */
ARB_NODISCARD arb_status arb_ckpt_check_meta(const arb_ckpt_meta *meta);

/* ---- layout.c: what HDF5 makes of it, in memory ----------------------------------------------------------------------- */

typedef struct {
  char name[ARB_CKPT_PATH]; /* how HDF5 opens it */
  int fd;                   /* -1: none */
  bool in_memory;
} arb_ckpt_image;

typedef struct {
  const arb_ckpt_meta *meta;
  char run[ARB_CKPT_HEX];
  int32_t rank, ranks;
} arb_ckpt_head;

/* Makes a sparse file with all metadata and holes for the data, and sets the entries' offsets. `path` is for messages, `folder`
 * for where memory files are missing. The caller drops the image, also after a failure. */
ARB_NODISCARD arb_status arb_ckpt_lay_out(const char *path, const char *folder, const arb_ckpt_head *head,
                                          arb_ckpt_entry *entries, int count, arb_ckpt_image *image);
ARB_NODISCARD arb_status arb_ckpt_image_drop(arb_ckpt_image *image);

/* ---- open.c ----------------------------------------------------------------------------------------------------------- */

/* Rows of an array on their way from a file. */
typedef struct {
  void (*take)(void *arg, const arb_ckpt_slice *s, uint64_t at, const unsigned char *bytes, size_t count);
  void *arg;
} arb_ckpt_sink;

typedef struct {
  char path[ARB_CKPT_PATH];     /* DIR/step-XXXXXXXX */
  char manifest[ARB_CKPT_PATH]; /* DIR/step-XXXXXXXX/manifest.json */
  uint64_t bytes;               /* of all files */
  bool unverified;              /* digests are not compared */
  arb_ckpt_manifest m;
} arb_ckpt_opened;

/* Reads the manifest alone. */
ARB_NODISCARD arb_status arb_ckpt_manifest_open(arb_ckpt_opened *f, const char *dir, int64_t step, bool unverified);
/* Then every file: its bytes past the digests of file and slices, and into `sink` (may be NULL), then its structure. Where f is
 * unverified, the structure alone. */
ARB_NODISCARD arb_status arb_ckpt_files_check(const arb_ckpt_opened *f, const arb_ckpt_sink *sink);
void arb_ckpt_folder_close(arb_ckpt_opened *f);
/* Opens the file that holds a slice; its size must be what it was. */
ARB_NODISCARD arb_status arb_ckpt_file_of(const arb_ckpt_opened *f, int file, char path[ARB_CKPT_PATH], int *fd,
                                          uint64_t *size);

/* ---- structure.c ------------------------------------------------------------------------------------------------------ */

/* The HDF5 structure of file number `file` against the manifest. fd: the same file, opened by us. */
ARB_NODISCARD arb_status arb_ckpt_structure_check(const arb_ckpt_manifest *m, int file, const char *path, int fd, uint64_t size,
                                                  bool unverified);

/* ---- read.c, identity.c ----------------------------------------------------------------------------------------------- */

/* Reads identity or config from its slice. The caller frees *out; it is NULL after a failure. */
ARB_NODISCARD arb_status arb_ckpt_read_text(const arb_ckpt_opened *f, const char *field, char **out);
/* Everything of a checkpoint, read and compared with its digests. */
ARB_NODISCARD arb_status arb_ckpt_verify(const char *dir, int64_t step);
/* ARB_ERR_CHECKPOINT with the settings that differ. */
ARB_NODISCARD arb_status arb_ckpt_compare_identity(const char *path, const char *saved, const char *mine);

#endif
