/* A folder of features that were encoded before: one HDF5 file a sample.
 *
 *   DIR/<digest of the encoder's key>/ab/<hash of the sample's file>.h5     datasets q int8 [rows][width], s float [rows]
 *
 * The encoder's key names weights, preprocessing and implementation; the stored form is part of the folder's digest too, so
 * nothing stale can be found. Files are written under another name and renamed: any number of processes and machines may fill
 * one folder at a time, and a reader sees a whole file or none. In front of the HDF5 part (its user block, 512 bytes that h5ls
 * and h5dump skip) stands the digest of everything behind it, checked before HDF5 sees a byte; a file that fails counts as
 * absent and is written anew. */
#ifndef ARB_SRC_FEATURES_CACHE_H
#define ARB_SRC_FEATURES_CACHE_H

#include <pthread.h>
#include <stdint.h>

#include "src/features/encoder.h"

typedef struct {
  char dir[1400]; /* of this encoder */
  char key[ARB_ENCODER_KEY + 64];
  int64_t rows, width;
  pthread_mutex_t lock;
  int64_t hits, misses, rejected, writes; /* guarded by lock */
  int warned;                             /* a write failed, and that was said */
} arb_feature_cache;

/* Creates the folders. ARB_ERR_IO with path and reason. */
ARB_NODISCARD arb_status arb_feature_cache_open(const char *dir, const arb_encoder *e, arb_feature_cache **out);
/* NULL-safe; nulls the handle. */
void arb_feature_cache_close(arb_feature_cache **c);

/* 1: q and s hold the features of this sample. 0: they are not there, or the file is damaged (said once a file, as a warning).
 * Any thread. */
int arb_feature_cache_get(arb_feature_cache *c, const uint64_t hash[2], int8_t *q, float *s);
/* Stores them. A failure (disk full, no permission) is said once and costs nothing but the speed. Any thread. */
void arb_feature_cache_put(arb_feature_cache *c, const uint64_t hash[2], const int8_t *q, const float *s);
/* The file of a sample. */
void arb_feature_cache_path(const arb_feature_cache *c, const uint64_t hash[2], char *path, size_t size);

#endif
