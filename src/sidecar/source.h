/* Where the tensors of a sidecar come from: a file, or a rule. */
#ifndef ARB_SRC_SIDECAR_SOURCE_H
#define ARB_SRC_SIDECAR_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"

typedef struct arb_tensor_source {
  void *ctx;
  char name[1024]; /* for messages: the path */
  char digest[33]; /* of the file's bytes, 32 hexadecimal digits; "synthetic" */
  /* A tensor of this name exists. */
  bool (*has)(void *ctx, const char *name);
  /* All values, row-major, as float32. ARB_ERR_DATA with file, tensor and what was expected if it is missing or its shape is
   * another. */
  arb_status (*read_f32)(void *ctx, const char *name, int rank, const int64_t *shape, float *out);
  void (*close)(void *ctx); /* NULL: nothing to do */
} arb_tensor_source;

/* path: ARB_SIDECAR_SYNTHETIC, or a file or folder of tensors. */
ARB_NODISCARD arb_status arb_tensor_source_open(const char *path, arb_tensor_source *out);
void arb_tensor_source_close(arb_tensor_source *s);

/* Draw i of a named stream, in [-1, 1): SplitMix64 (Steele, Lea, Flood 2014) of the FNV-1a hash of the name. */
uint64_t arb_synthetic_stream(const char *name);
double arb_synthetic_draw(uint64_t stream, uint64_t i);
/* A synthetic tensor: by the end of its name a gain (1 + v/10), a bias (v/20), an embedding (v/2), else a weight of variance
 * 1 / fan-in. v is the draw; the value is computed in double and rounded once. */
void arb_synthetic_tensor(const char *name, int rank, const int64_t *shape, float *out);
/* The draws themselves, as float: inputs of tests. */
void arb_synthetic_input(const char *name, int64_t count, float *out);

#endif
