/* Token ids to text, by a HuggingFace tokenizer.json with SentencePiece pieces, as Moonshine's is. */
#ifndef ARB_SRC_SIDECAR_TOKENIZER_H
#define ARB_SRC_SIDECAR_TOKENIZER_H

#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct arb_tokenizer arb_tokenizer;

/* path: the file, or weights beside which a tokenizer.json lies (their folder, or a file in it). *out stays NULL without an
 * error where there is none. At most 64 MiB, ids below `vocabulary`. ARB_ERR_DATA with file and reason. */
ARB_NODISCARD arb_status arb_tokenizer_open(const char *path, int64_t vocabulary, arb_tokenizer **out);
/* The text of ids [count]: special tokens left out, bytes joined, the first blank removed; control characters other than
 * newline and tab become '?'. An id that the file lacks is written as <ID>. *out is the caller's to free. */
ARB_NODISCARD arb_status arb_tokenizer_text(const arb_tokenizer *t, const int32_t *ids, int64_t count, char **out);
/* NULL-safe; nulls the handle. */
void arb_tokenizer_close(arb_tokenizer **t);

#ifdef __cplusplus
}
#endif
#endif
