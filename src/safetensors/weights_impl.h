/* What the parts of the reader share: the list of tensors, JSON with limits. */
#ifndef ARB_SRC_SAFETENSORS_WEIGHTS_IMPL_H
#define ARB_SRC_SAFETENSORS_WEIGHTS_IMPL_H

#include <jansson.h>
#include <stdbool.h>

#include "src/base/file.h"
#include "src/safetensors/weights.h"

enum { ARB_WEIGHTS_PATH = 4096, ARB_WEIGHTS_QUOTE = 100 };

struct arb_weights {
  const char *container;
  arb_file *files;
  int file_count;
  arb_weights_tensor *tensors; /* sorted by name once opening is over; names are malloc'd */
  int count, room;
};

/* ---- tensors.c ---- */

/* name[n] for a message: shortened, unprintable bytes replaced by '?'. */
const char *arb_weights_quote(const char *name, size_t n, char out[ARB_WEIGHTS_QUOTE]);
/* Checks the name and the shape, computes count and bytes, and takes a copy. offset, file, type, rank, shape are filled in. */
ARB_NODISCARD arb_status arb_weights_add(arb_weights *w, const char *name, size_t name_bytes, const arb_weights_tensor *t);
/* The tensors from `first` on lie one after the other in [begin, end), each beginning at a multiple of `align` (relative to
 * begin) with nothing but the padding between; the padding of the last may be missing. */
ARB_NODISCARD arb_status arb_weights_check_cover(const arb_weights *w, int first, uint64_t begin, uint64_t end, uint64_t align);
/* Sorts by name; ARB_ERR_DATA when a name occurs twice. */
ARB_NODISCARD arb_status arb_weights_sort(arb_weights *w);

/* ---- json.c ---- */

typedef struct {
  int depth;          /* nested objects and arrays, the outermost included */
  int64_t keys;       /* of the outermost object */
  int64_t items;      /* keys and elements of everything */
  bool whole_numbers; /* no number but 0 .. 2^53, written in digits alone */
} arb_weights_json_rules;

/* One JSON object that begins at the first byte and is followed by spaces only, by RFC 8259 without duplicate keys, NULs and
 * broken UTF-8. Limits are applied before anything is allocated. The caller frees with json_decref. */
ARB_NODISCARD arb_status arb_weights_json(const char *text, size_t bytes, const arb_weights_json_rules *rules, json_t **out);

/* ---- the containers: they append to w->tensors and leave w->files alone ---- */

ARB_NODISCARD arb_status arb_weights_parse_safetensors(arb_weights *w, int file);
ARB_NODISCARD arb_status arb_weights_parse_gguf(arb_weights *w, int file);
/* Opens the shards that an index names, into w->files, reads their headers and compares both. */
ARB_NODISCARD arb_status arb_weights_open_index(arb_weights *w, const char *path);
/* Appends to w->files. */
ARB_NODISCARD arb_status arb_weights_add_file(arb_weights *w, const char *path);

#endif
