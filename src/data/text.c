#include "src/data/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

static const unsigned char xz_magic[6] = {0xFD, '7', 'z', 'X', 'Z', 0x00};

typedef struct {
  unsigned char *bytes;
  size_t used, capacity;
} buffer;

arb_text_limits arb_text_default_limits(void) {
  return (arb_text_limits){.text_bytes = UINT32_MAX, .decoder_bytes = (int64_t)128 << 20};
}

/* Takes over bytes[length] from malloc. */
static void text_adopt(arb_text *out, unsigned char *bytes, size_t length) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, length));
  _Static_assert(sizeof canonical.digest == sizeof out->fingerprint.hash, "XXH3-128 has 16 bytes");
  memcpy(out->fingerprint.hash, canonical.digest, sizeof canonical.digest);
  out->fingerprint.length = out->length = (int64_t)length;
  out->bytes = bytes;
}

/* ---- the file --------------------------------------------------------------------------------------------------------- */

static const char *kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

static arb_status open_regular(const char *path, int *fd, int64_t *size) {
  /* O_NONBLOCK: opening a FIFO without a writer would wait for ever. It changes nothing for regular files. */
  *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (*fd < 0) {
    const int why = errno;
    const int ours = why == EMFILE || why == ENFILE || why == ENOMEM;
    return ARB_FAIL(ours ? ARB_ERR_IO : ARB_ERR_DATA, "%s: cannot be opened: %s", path, strerror(why));
  }
  struct stat info;
  if (fstat(*fd, &info) != 0) return ARB_FAIL(ARB_ERR_IO, "%s: fstat: %s", path, strerror(errno));
  ARB_REQUIRE(S_ISREG(info.st_mode), ARB_ERR_DATA, "%s: is %s, expected a regular file", path, kind_of(info.st_mode));
  ARB_REQUIRE(info.st_size > 0, ARB_ERR_DATA, "%s: is empty", path);
  *size = (int64_t)info.st_size;
  return ARB_OK;
}

/* Fills bytes[size]; a file that changes its size meanwhile is refused, since nobody knows which text it was. */
static arb_status read_exact(const char *path, int fd, unsigned char *bytes, size_t size) {
  size_t used = 0;
  unsigned char beyond;
  for (;;) {
    const size_t want = used < size ? size - used : 1;
    const ssize_t got = read(fd, used < size ? bytes + used : &beyond, want);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ARB_FAIL(ARB_ERR_IO, "%s: read: %s", path, strerror(errno));
    if (got == 0) break;
    used += (size_t)got;
    if (used > size) break;
  }
  ARB_REQUIRE(used == size, ARB_ERR_DATA, "%s: changed its size while it was read (expected %zu bytes)", path, size);
  return ARB_OK;
}

static arb_status read_whole(const char *path, arb_text_limits limits, buffer *out) {
  int fd = -1;
  int64_t size = 0;
  arb_status st;
  ARB_TRY_OUT(st, open_regular(path, &fd, &size));
  if (size > limits.text_bytes) {
    st = ARB_FAIL(ARB_ERR_DATA, "%s: has %" PRId64 " bytes, more than the limit of %" PRId64, path, size, limits.text_bytes);
    goto out;
  }
  out->bytes = malloc((size_t)size);
  out->used = out->capacity = (size_t)size;
  if (out->bytes == NULL) {
    st = ARB_FAIL(ARB_ERR_NOMEM, "%s: no memory for %" PRId64 " bytes", path, size);
    goto out;
  }
  st = read_exact(path, fd, out->bytes, (size_t)size);
out:
  if (fd >= 0) close(fd);
  return st;
}

/* ---- xz --------------------------------------------------------------------------------------------------------------- */

static int is_xz(const buffer *file) {
  /* A file cut inside the magic counts as xz too: its first byte starts no sensible text, and "truncated" says more. */
  const size_t n = file->used < sizeof xz_magic ? file->used : sizeof xz_magic;
  return memcmp(file->bytes, xz_magic, n) == 0;
}

/* Makes room after out->used, by doubling, up to one byte over the limit: that byte tells "too large" from "just fits". */
static arb_status grow(const char *path, arb_text_limits limits, buffer *out) {
  const size_t most = (size_t)limits.text_bytes + 1;
  ARB_REQUIRE(out->used < most, ARB_ERR_DATA, "%s: unpacks to more than the limit of %" PRId64 " bytes", path,
              limits.text_bytes);
  size_t capacity = out->capacity < 65536 ? 65536 : out->capacity * 2;
  if (capacity > most) capacity = most;
  unsigned char *bytes = realloc(out->bytes, capacity);
  ARB_REQUIRE(bytes != NULL, ARB_ERR_NOMEM, "%s: no memory to unpack to %zu bytes", path, capacity);
  out->bytes = bytes;
  out->capacity = capacity;
  return ARB_OK;
}

static arb_status xz_failure(const char *path, arb_text_limits limits, lzma_stream *s, lzma_ret why, size_t at) {
  switch (why) {
    case LZMA_BUF_ERROR:
      return ARB_FAIL(ARB_ERR_DATA, "%s: truncated: the xz data ends early, at byte %zu", path, at);
    case LZMA_FORMAT_ERROR:
      return ARB_FAIL(ARB_ERR_DATA, "%s: no xz stream at byte %zu", path, at);
    case LZMA_DATA_ERROR:
      return ARB_FAIL(ARB_ERR_DATA, "%s: corrupt xz data near byte %zu", path, at);
    case LZMA_OPTIONS_ERROR:
      return ARB_FAIL(ARB_ERR_DATA, "%s: xz options unknown to this liblzma, or a corrupt header", path);
    case LZMA_UNSUPPORTED_CHECK:
      return ARB_FAIL(ARB_ERR_DATA, "%s: an xz integrity check unknown to this liblzma; expected CRC32, CRC64 or SHA-256",
                      path);
    case LZMA_MEMLIMIT_ERROR:
      return ARB_FAIL(ARB_ERR_DATA, "%s: unpacking needs %" PRIu64 " bytes of working memory, more than the limit of %" PRId64,
                      path, lzma_memusage(s), limits.decoder_bytes);
    case LZMA_MEM_ERROR:
      return ARB_FAIL(ARB_ERR_NOMEM, "%s: no memory for the xz decoder", path);
    default:
      return ARB_FAIL(ARB_ERR_DATA, "%s: xz decoder failed with code %d", path, (int)why);
  }
}

/* Unpacks the one stream that starts at *at and moves *at behind it. */
static arb_status unpack_stream(const char *path, arb_text_limits limits, const buffer *file, size_t *at, buffer *out) {
  lzma_stream s = LZMA_STREAM_INIT;
  arb_status st = ARB_OK;
  lzma_ret ret = lzma_stream_decoder(&s, (uint64_t)limits.decoder_bytes, LZMA_TELL_UNSUPPORTED_CHECK);
  s.next_in = file->bytes + *at;
  s.avail_in = file->used - *at;
  while (ret == LZMA_OK) { /* room for output at every call, so LZMA_BUF_ERROR can only mean that input is missing */
    if (out->used == out->capacity) ARB_TRY_OUT(st, grow(path, limits, out));
    s.next_out = out->bytes + out->used;
    s.avail_out = out->capacity - out->used;
    ret = lzma_code(&s, LZMA_FINISH);
    out->used = out->capacity - s.avail_out;
  }
  *at = file->used - s.avail_in;
  if (ret != LZMA_STREAM_END) st = xz_failure(path, limits, &s, ret, *at);
out:
  lzma_end(&s);
  return st;
}

static arb_status unpack(const char *path, arb_text_limits limits, const buffer *file, buffer *out) {
  size_t at = 0;
  while (at < file->used) {
    ARB_TRY(unpack_stream(path, limits, file, &at, out));
    const size_t end = at;
    while (at < file->used && file->bytes[at] == 0) at++;
    const int padded = (at - end) % 4 == 0; /* the format pads between streams by whole groups of four zeros */
    const int next = file->used - at >= sizeof xz_magic && memcmp(file->bytes + at, xz_magic, sizeof xz_magic) == 0;
    ARB_REQUIRE(padded && (next || at == file->used), ARB_ERR_DATA, "%s: %zu bytes of garbage after the end of the xz stream",
                path, file->used - end);
  }
  ARB_REQUIRE(out->used > 0, ARB_ERR_DATA, "%s: unpacks to an empty text", path);
  ARB_REQUIRE(out->used <= (size_t)limits.text_bytes, ARB_ERR_DATA, "%s: unpacks to more than the limit of %" PRId64 " bytes",
              path, limits.text_bytes);
  return ARB_OK;
}

/* ---- the text --------------------------------------------------------------------------------------------------------- */

arb_status arb_text_load_limited(const char *path, arb_text_limits limits, arb_text *out) {
  buffer file = {0}, text = {0};
  arb_status st;
  memset(out, 0, sizeof *out);
  ARB_REQUIRE(limits.text_bytes > 0 && limits.decoder_bytes > 0, ARB_ERR_ARG, "text limits must be positive");
  ARB_TRY_OUT(st, read_whole(path, limits, &file));
  if (is_xz(&file)) {
    ARB_TRY_OUT(st, unpack(path, limits, &file, &text));
    unsigned char *fitted = realloc(text.bytes, text.used);
    if (fitted != NULL) text.bytes = fitted; /* shrinking cannot fail in a way that matters */
    text_adopt(out, text.bytes, text.used);
    text.bytes = NULL;
  } else {
    text_adopt(out, file.bytes, file.used);
    file.bytes = NULL;
  }
out:
  free(file.bytes);
  free(text.bytes);
  return st;
}

arb_status arb_text_load(const char *path, arb_text *out) {
  return arb_text_load_limited(path, arb_text_default_limits(), out);
}

arb_status arb_text_copy(const void *bytes, int64_t length, arb_text *out) {
  memset(out, 0, sizeof *out);
  ARB_REQUIRE(length > 0, ARB_ERR_DATA, "the text is empty");
  unsigned char *copy = malloc((size_t)length);
  ARB_REQUIRE(copy != NULL, ARB_ERR_NOMEM, "no memory for a text of %" PRId64 " bytes", length);
  memcpy(copy, bytes, (size_t)length);
  text_adopt(out, copy, (size_t)length);
  return ARB_OK;
}

void arb_text_deinit(arb_text *text) {
  if (text == NULL) return;
  free(text->bytes);
  memset(text, 0, sizeof *text);
}

void arb_fingerprint_print(const arb_fingerprint *f, char out[ARB_FINGERPRINT_CHARS]) {
  int used = snprintf(out, ARB_FINGERPRINT_CHARS, "xxh3-128:");
  for (size_t i = 0; i < sizeof f->hash; i++)
    used += snprintf(out + used, (size_t)(ARB_FINGERPRINT_CHARS - used), "%02x", f->hash[i]);
  snprintf(out + used, (size_t)(ARB_FINGERPRINT_CHARS - used), ":%" PRId64, f->length);
}

int arb_fingerprint_equal(const arb_fingerprint *a, const arb_fingerprint *b) {
  return a->length == b->length && memcmp(a->hash, b->hash, sizeof a->hash) == 0;
}
