/* A manifest of samples: text, and the image or recording that it belongs to.
 *
 * JSON lines: one object a line, UTF-8, lines of blanks ignored, plain or packed by xz.
 *   {"image": "test/cat/0007.jpg", "text": "a photo of a cat"}
 *   {"audio": "train/7_theo_12.wav", "text": "seven"}
 * "text" is required and not empty; "image" and "audio" are optional. A relative path is relative to the manifest's folder.
 * Other keys and repeated keys are errors: a misspelt key would silently train on less.
 *
 * What identifies a data set is its content: texts, and the XXH3-128 of every file, in the order of the lines. Where it lies
 * does not matter. */
#ifndef ARB_SRC_DATA_PAIRS_H
#define ARB_SRC_DATA_PAIRS_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/data/order.h"
#include "src/data/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { ARB_MEDIA_IMAGE, ARB_MEDIA_AUDIO, ARB_MEDIA_KINDS } arb_media_kind;
/* "image", "audio". */
const char *arb_media_name(arb_media_kind kind);

/* Ids of a text that stands for itself: it begins with BOS, ends with EOS, and PAD fills the rest. */
enum { ARB_PAIR_PAD = 256, ARB_PAIR_BOS = 257, ARB_PAIR_EOS = 258 };

typedef struct {
  char *file[ARB_MEDIA_KINDS]; /* NULL: none */
  uint64_t hash[ARB_MEDIA_KINDS][2];
  char *text;
  int64_t length; /* bytes of text, at least 1 */
  int64_t line;   /* in the manifest, from 1 */
} arb_pair;

/* Owns everything. Zero-initialised = no manifest. */
typedef struct {
  char *path;
  arb_pair *pair; /* [count] */
  int64_t count;
} arb_pairs;

/* Reads and checks the manifest; hashes are not there yet. ARB_ERR_DATA with "MANIFEST:LINE: what". Release with
 * arb_pairs_deinit. */
ARB_NODISCARD arb_status arb_pairs_load(const char *path, arb_pairs *out);
void arb_pairs_deinit(arb_pairs *p);

/* Reads the files of samples first, first + stride, ... and keeps their hashes; a missing or unreadable file is ARB_ERR_DATA.
 */
ARB_NODISCARD arb_status arb_pairs_hash(arb_pairs *p, int64_t first, int64_t stride);
/* Of a manifest with all its hashes; length is the number of samples. */
void arb_pairs_fingerprint(const arb_pairs *p, arb_fingerprint *out);
/* Every text fits `context` rows: its bytes and one more. ARB_ERR_DATA names the first that does not. */
ARB_NODISCARD arb_status arb_pairs_fit(const arb_pairs *p, int64_t context);
/* Samples that name a file of this kind. */
int64_t arb_pairs_with(const arb_pairs *p, arb_media_kind kind);

/* Reads a sample's file whole; *bytes is the caller's to free. ARB_ERR_DATA if it is not what was hashed. */
ARB_NODISCARD arb_status arb_pairs_read(const arb_pairs *p, int64_t index, arb_media_kind kind, unsigned char **bytes,
                                        size_t *size);
/* Reads any file whole, as arb_pairs_read does, and hashes it. */
ARB_NODISCARD arb_status arb_media_read(const char *path, unsigned char **bytes, size_t *size, uint64_t hash[2]);

/* The text as rows, ids and targets [context]: BOS and the bytes predict the bytes and EOS; other rows are PAD without a target
 * (-1). */
void arb_pair_rows(const arb_pair *pair, int64_t context, int32_t *ids, int32_t *targets);
/* The rows of an empty slot: PAD without targets. */
void arb_pair_empty(int64_t context, int32_t *ids, int32_t *targets);
/* Byte at which the last word of the text begins: what stands for the picture or the sound in "a photo of a cat". */
int64_t arb_pair_word(const arb_pair *pair);

/* The sample that global index i visits: each once an epoch, in an order drawn for that epoch. */
int64_t arb_pairs_at(const arb_pairs *p, uint64_t seed, int64_t i);

#ifdef __cplusplus
}
#endif
#endif
