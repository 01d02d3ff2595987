/* A byte n-gram table with Witten-Bell interpolation: the plain model that a trained one is measured against.
 *
 *   P_n(b | c) = (count(c b) + types(c) * P_{n-1}(b | c without its first byte)) / (total(c) + types(c))
 *
 * c: the n bytes before; total(c): how often c was followed by any byte; types(c): by how many different ones. P_{-1} is
 * uniform, 1/256. A context that was never seen passes P_{n-1} through. (Witten, Bell 1991, method C; interpolated as in
 * Chen, Goodman 1998.) Doubles, host memory, one thread; no part of training. */
#ifndef ARB_SRC_DATA_NGRAM_H
#define ARB_SRC_DATA_NGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/data/text.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ARB_NGRAM_MAX_ORDER 5

typedef struct arb_ngram arb_ngram; /* owns its table; does not keep the text */

/* Counts the text for the orders 0..order, order in [0, ARB_NGRAM_MAX_ORDER] (ARB_ERR_ARG). ARB_ERR_DATA: a text of 2^32
 * bytes or more. ARB_ERR_NOMEM. On failure *out is NULL. Release with arb_ngram_destroy. */
ARB_NODISCARD arb_status arb_ngram_create(const arb_text *text, int order, arb_ngram **out);
/* NULL-safe; nulls the handle. */
void arb_ngram_destroy(arb_ngram **n);
/* Bytes the table takes. */
size_t arb_ngram_memory(const arb_ngram *n);

/* P_0..P_order of byte bytes[at], given the bytes before it; p holds [order + 1]. Where fewer than n bytes stand before,
 * P_n is the longest that they allow. */
void arb_ngram_probabilities(const arb_ngram *n, const unsigned char *bytes, int64_t at, double *p);

/* Mean of -log2 P_n over every target of the validation windows of arb_batch_valid(text, context, 0..windows-1, windows),
 * for each n in 0..order; bpb holds [order + 1]. The context may reach into the bytes before a window's start, which a
 * model that sees only the window cannot do: a comparison favours the table. Errors as arb_batch_valid_offset. */
ARB_NODISCARD arb_status arb_ngram_bits_per_byte(const arb_ngram *n, const arb_text *text, int64_t context, int64_t windows,
                                                 double *bpb);

#ifdef __cplusplus
}
#endif
#endif
