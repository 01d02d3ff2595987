/* Reading published weights: a .safetensors file, a .gguf file, or a HuggingFace folder (one file, or shards with an index).
 *
 * The container is told by its content. Files are hostile until proven otherwise: every rule of the format is checked when they
 * are opened, before any size in them is believed, and nothing is mapped: a file that shrinks while it is read is an error, not
 * a signal. Every message names the file, the tensor where there is one, and the reason. Not collective; one handle may be read
 * by several threads at once, closing excepted.
 *
 * safetensors: at most 10^8 bytes of header; a JSON object without blanks before it, and only spaces after it; keys unique;
 * exact whole numbers up to 2^53; tensors cover the data from first to last byte, without hole or overlap (the format's own
 * rules, which several readers leave out). GGUF: versions 2 and 3, little-endian, element types without blocks; the order of
 * dimensions is reversed to the row-major order used here, names stay. In both: names of 1 to 256 printable ASCII characters
 * without blanks,
 * '/' and '\', at most 50,000 tensors of rank 0 to 8. */
#ifndef ARB_SRC_SAFETENSORS_WEIGHTS_H
#define ARB_SRC_SAFETENSORS_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#define ARB_WEIGHTS_MAX_RANK 8
#define ARB_WEIGHTS_MAX_TENSORS 50000 /* of all files together */
#define ARB_WEIGHTS_MAX_FILES 256     /* shards */
#define ARB_WEIGHTS_MAX_NAME 256
#define ARB_WEIGHTS_DIGEST 33 /* 32 hexadecimal digits and the NUL */

typedef enum {
  ARB_WEIGHTS_BOOL,
  ARB_WEIGHTS_U8,
  ARB_WEIGHTS_I8,
  ARB_WEIGHTS_F8_E5M2,
  ARB_WEIGHTS_F8_E4M3,
  ARB_WEIGHTS_U16,
  ARB_WEIGHTS_I16,
  ARB_WEIGHTS_F16,
  ARB_WEIGHTS_BF16,
  ARB_WEIGHTS_U32,
  ARB_WEIGHTS_I32,
  ARB_WEIGHTS_F32,
  ARB_WEIGHTS_F64,
  ARB_WEIGHTS_I64,
  ARB_WEIGHTS_U64,
  ARB_WEIGHTS_TYPE__COUNT
} arb_weights_type;

/* "F32", "BF16", …: the spelling of safetensors. */
const char *arb_weights_type_name(arb_weights_type type);
size_t arb_weights_type_size(arb_weights_type type);

typedef struct arb_weights arb_weights;

typedef struct {
  const char *name; /* owned by the arb_weights */
  arb_weights_type type;
  int rank; /* 0: a scalar */
  int64_t shape[ARB_WEIGHTS_MAX_RANK];
  int64_t count;   /* elements */
  uint64_t bytes;  /* count * size of the type */
  uint64_t offset; /* of its first byte in its file */
  int file;        /* 0 .. arb_weights_file_count - 1 */
} arb_weights_tensor;

/* path: a file, an index (NAME.safetensors.index.json), or a folder. In a folder model.safetensors or
 * model.safetensors.index.json is taken; without them the only *.safetensors or *.gguf file. Symbolic links are followed (the
 * HuggingFace cache is made of them), but an index cannot lead out of its own folder. *out is NULL after a failure.
 * ARB_ERR_DATA: missing, not a regular file, malformed or ambiguous; ARB_ERR_IO: the system refused; ARB_ERR_NOMEM. */
ARB_NODISCARD arb_status arb_weights_open(const char *path, arb_weights **out);
/* NULL-safe; nulls the handle. */
void arb_weights_close(arb_weights **w);

/* "safetensors" or "GGUF", a literal. */
const char *arb_weights_container(const arb_weights *w);
/* Tensors of all files, in the order of their names (by bytes). */
int arb_weights_count(const arb_weights *w);
/* 0 <= index < count. Borrowed until close. */
const arb_weights_tensor *arb_weights_at(const arb_weights *w, int index);
/* Whether there is a tensor of this name: for layouts with an optional prefix or an optional tensor. */
bool arb_weights_has(const arb_weights *w, const char *name);
/* ARB_ERR_DATA: no tensor of this name. */
ARB_NODISCARD arb_status arb_weights_find(const arb_weights *w, const char *name, arb_weights_tensor *out);

/* The tensor's bytes as they lie in the file: little-endian, row-major. bytes: the tensor's, else ARB_ERR_ARG. */
ARB_NODISCARD arb_status arb_weights_read(const arb_weights *w, const char *name, void *out, uint64_t bytes);
/* A float tensor as float32, row-major. F32, F16 and BF16 are exact, F64 is rounded once (to nearest, ties to even). The tensor
 * must have exactly this shape. ARB_ERR_DATA: missing, another shape, not F16, BF16, F32 or F64, or a value is not finite. */
ARB_NODISCARD arb_status arb_weights_read_f32(const arb_weights *w, const char *name, int rank, const int64_t *shape,
                                              float *out);
/* The same for `count` elements from element `first` on, in bounded memory whatever the tensor's size. */
ARB_NODISCARD arb_status arb_weights_read_f32_part(const arb_weights *w, const arb_weights_tensor *t, int64_t first,
                                                   int64_t count, float *out);

/* The files behind the handle, shards in the order of their names. Borrowed until close. */
int arb_weights_file_count(const arb_weights *w);
const char *arb_weights_file_path(const arb_weights *w, int file);
uint64_t arb_weights_file_bytes(const arb_weights *w, int file);
/* XXH3-128 of all bytes of a file, as xxhsum -H2 prints it. Reads the file; fails if it changed since it was opened. */
ARB_NODISCARD arb_status arb_weights_file_digest(const arb_weights *w, int file, char hex[ARB_WEIGHTS_DIGEST]);
/* The digest of the only file; with several, XXH3-128 of the files' digests (32 digits each), one after the other. */
ARB_NODISCARD arb_status arb_weights_digest(const arb_weights *w, char hex[ARB_WEIGHTS_DIGEST]);

#endif
