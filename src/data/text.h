/* A text file as bytes in memory: plain, or packed by xz. The content decides which, never the name. */
#ifndef ARB_SRC_DATA_TEXT_H
#define ARB_SRC_DATA_TEXT_H

#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What identifies a text: XXH3-128 of its (unpacked) bytes in canonical big-endian form, and their number. */
typedef struct {
  unsigned char hash[16];
  int64_t length;
} arb_fingerprint;

/* Chars of the printed form with its 0: "xxh3-128:" + 32 hex digits + ":" + decimal length. */
#define ARB_FINGERPRINT_CHARS 64

/* Owns bytes. Zero-initialised = no text. */
typedef struct {
  unsigned char *bytes; /* [length] */
  int64_t length;       /* at least 1 after a successful load */
  arb_fingerprint fingerprint;
} arb_text;

/* How much a text file may cost: a small hostile file fails here instead of filling the machine. */
typedef struct {
  int64_t text_bytes;    /* the file as it lies, and the text unpacked from it */
  int64_t decoder_bytes; /* working memory of the xz decoder; "xz -9" needs 65 MiB */
} arb_text_limits;

/* 4 GiB - 1 of text, 128 MiB of decoder. */
arb_text_limits arb_text_default_limits(void);

/* Reads the whole file. An xz file may hold several streams, as `cat a.xz b.xz` makes them; anything else after a stream is
 * refused. ARB_ERR_DATA, with the path and the reason: missing, unreadable, not a regular file (never opens a FIFO for
 * waiting), empty, over a limit, truncated, corrupt. ARB_ERR_NOMEM, ARB_ERR_IO: the machine. On failure *out holds nothing.
 * Release with arb_text_deinit. */
ARB_NODISCARD arb_status arb_text_load(const char *path, arb_text *out);
/* The same under other limits (both at least 1). */
ARB_NODISCARD arb_status arb_text_load_limited(const char *path, arb_text_limits limits, arb_text *out);
/* A text from memory: copies bytes[length], length at least 1 (ARB_ERR_DATA: empty). */
ARB_NODISCARD arb_status arb_text_copy(const void *bytes, int64_t length, arb_text *out);
/* Frees the bytes; NULL-safe, and harmless on an empty or already released text. */
void arb_text_deinit(arb_text *text);

/* Writes the printed form, for manifests and messages. */
void arb_fingerprint_print(const arb_fingerprint *f, char out[ARB_FINGERPRINT_CHARS]);
/* 1 when hash and length agree. */
int arb_fingerprint_equal(const arb_fingerprint *a, const arb_fingerprint *b);

#ifdef __cplusplus
}
#endif
#endif
