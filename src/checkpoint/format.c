#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/checkpoint/checkpoint_impl.h"

bool arb_ckpt_bytes(arb_dtype type, int64_t rows, int64_t columns, uint64_t *bytes) {
  if (rows < 0 || columns < 0) return false;
  const int64_t limit = INT64_MAX / (int64_t)arb_dtype_size(type);
  if (columns != 0 && rows > limit / columns) return false;
  *bytes = (uint64_t)(rows * columns) * arb_dtype_size(type);
  return true;
}

bool arb_ckpt_name_ok(const char *name, size_t size) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
  const size_t good = strspn(name, letters);
  return good > 0 && good < size && name[good] == '\0' && name[0] != '.';
}

bool arb_ckpt_hex_ok(const char hex[ARB_CKPT_HEX]) {
  return strspn(hex, "0123456789abcdef") == ARB_CKPT_HEX - 1 && hex[ARB_CKPT_HEX - 1] == '\0';
}

void arb_ckpt_hash_text(XXH128_hash_t hash, char hex[ARB_CKPT_HEX]) {
  XXH128_canonical_t bytes; /* big-endian, what xxhsum -H2 prints */
  XXH128_canonicalFromHash(&bytes, hash);
  for (size_t i = 0; i < sizeof bytes.digest; i++) snprintf(hex + 2 * i, 3, "%02x", bytes.digest[i]);
}

void arb_ckpt_hash_bytes(const void *bytes, size_t count, char hex[ARB_CKPT_HEX]) {
  arb_ckpt_hash_text(XXH3_128bits(bytes, count), hex);
}

void arb_ckpt_file_name(int rank, char name[ARB_CKPT_FILE]) { snprintf(name, ARB_CKPT_FILE, "rank-%05d.h5", rank); }

bool arb_ckpt_type_of(const char *name, arb_dtype *type) {
  for (int t = 0; t < ARB_DTYPE__COUNT; t++) {
    if (arb_dtype_is_float((arb_dtype)t) || strcmp(name, arb_dtype_name((arb_dtype)t)) != 0) continue;
    *type = (arb_dtype)t;
    return true;
  }
  return false;
}

static uint64_t le64(const unsigned char *b) {
  uint64_t v = 0;
  for (int i = 7; i >= 0; i--) v = v << 8 | b[i];
  return v;
}

/* "HDF5 File Format Specification 3.0", II.A: signature[8], version, size of offsets, size of lengths, consistency flags, base
 * address[8], extension address[8], end of file[8], root object header[8], checksum[4]. */
arb_status arb_ckpt_superblock(const char *path, const unsigned char *head, uint64_t size) {
  static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  ARB_REQUIRE(memcmp(head, signature, sizeof signature) == 0, ARB_ERR_CHECKPOINT,
              "%s: is not an HDF5 file (no signature in its first 8 bytes)", path);
  ARB_REQUIRE(head[8] == 3, ARB_ERR_CHECKPOINT, "%s: has an HDF5 superblock of version %d, expected 3", path, head[8]);
  ARB_REQUIRE(head[9] == 8 && head[10] == 8, ARB_ERR_CHECKPOINT, "%s: has %d-byte addresses and %d-byte lengths, expected 8",
              path, head[9], head[10]);
  ARB_REQUIRE(head[11] == 0, ARB_ERR_CHECKPOINT, "%s: was not closed by its writer (consistency flags %d)", path, head[11]);
  ARB_REQUIRE(le64(head + 12) == 0, ARB_ERR_CHECKPOINT, "%s: starts its HDF5 part at byte %" PRIu64 ", expected 0", path,
              le64(head + 12));
  /* Extensions carry cached metadata, drivers and free space lists, none of which we write. */
  ARB_REQUIRE(le64(head + 20) == UINT64_MAX, ARB_ERR_CHECKPOINT, "%s: has a superblock extension, expected none", path);
  ARB_REQUIRE(le64(head + 28) == size, ARB_ERR_CHECKPOINT, "%s: has %" PRIu64 " bytes, but its superblock says %" PRIu64, path,
              size, le64(head + 28));
  return ARB_OK;
}
