/* Writing safetensors files: 8 bytes little-endian header length, a JSON header, the tensors one after the other.
 *
 * Strict: the header's length is padded with spaces to a multiple of 8, tensors follow each other without holes from offset 0
 * in the order of the list, each begins at a multiple of its element size, names are UTF-8 and unique. Nothing appears under
 * the final name before it is complete and on the disk: PATH.tmp-PID, fsync, rename, fsync of the folder. */
#ifndef ARB_SRC_SAFETENSORS_SAFETENSORS_H
#define ARB_SRC_SAFETENSORS_SAFETENSORS_H

#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

#define ARB_ST_MAX_RANK 4
#define ARB_ST_MAX_HEADER 100000000 /* bytes; readers refuse more */

typedef struct {
  const char *name; /* borrowed until create returns; "__metadata__" is taken */
  arb_dtype type;
  int rank; /* 0: a scalar */
  int64_t shape[ARB_ST_MAX_RANK];
} arb_st_tensor;

typedef struct {
  const char *key, *value; /* UTF-8 */
} arb_st_note;

typedef struct arb_st_writer arb_st_writer;

/* Checks the list, creates the temporary file and writes the header. Wide types come first in the list, so that every tensor
 * is aligned. ARB_ERR_ARG: a bad list; ARB_ERR_IO: the operating system, with path and reason. Nothing is left then. */
ARB_NODISCARD arb_status arb_st_create(const char *path, const arb_st_tensor *tensors, int count, const arb_st_note *notes,
                                       int note_count, arb_st_writer **out);
/* The next bytes of the data, in any portions. */
ARB_NODISCARD arb_status arb_st_put(arb_st_writer *w, const void *data, uint64_t bytes);
/* All bytes were put: publishes the file. Frees the writer, also after a failure; then the temporary file is gone. */
ARB_NODISCARD arb_status arb_st_finish(arb_st_writer **w);
/* Removes the temporary file. NULL-safe; nulls the handle. */
void arb_st_abandon(arb_st_writer **w);

#endif
