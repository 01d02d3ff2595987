/* The chunks of a WAV file. libsndfile forgives much: sizes never filled in, a file cut, samples that do not fill their block.
 * Here each is an error, since a training set should not change silently with the version of a library. */
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "src/media/audio_impl.h"

enum { PCM = 1, FLOAT = 3, EXTENSIBLE = 0xfffe };

static uint32_t u16_at(const unsigned char *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32_at(const unsigned char *p) { return u16_at(p) | u16_at(p + 2) << 16; }

static arb_status check_format(const unsigned char *p, uint32_t bytes, arb_wav_format *out) {
  ARB_REQUIRE(bytes >= 16, ARB_ERR_DATA, "a fmt chunk of %" PRIu32 " bytes, expected 16 or more", bytes);
  uint32_t kind = u16_at(p);
  const uint32_t channels = u16_at(p + 2), rate = u32_at(p + 4), block = u16_at(p + 12), bits = u16_at(p + 14);
  if (kind == EXTENSIBLE) {
    ARB_REQUIRE(bytes >= 40, ARB_ERR_DATA, "a fmt chunk of %" PRIu32 " bytes, expected 40 for its extensible format", bytes);
    kind = u16_at(p + 24);
  }
  ARB_REQUIRE(kind == PCM || kind == FLOAT, ARB_ERR_DATA, "encoding %" PRIu32 ", expected PCM (1) or float (3)", kind);
  ARB_REQUIRE(channels >= 1 && channels <= ARB_AUDIO_MAX_CHANNELS, ARB_ERR_DATA, "%" PRIu32 " channels, expected 1 to %d",
              channels, ARB_AUDIO_MAX_CHANNELS);
  ARB_REQUIRE(rate >= ARB_AUDIO_MIN_RATE && rate <= ARB_AUDIO_MAX_RATE, ARB_ERR_DATA,
              "a rate of %" PRIu32 " Hz, expected %d to %d", rate, ARB_AUDIO_MIN_RATE, ARB_AUDIO_MAX_RATE);
  const bool good = kind == PCM ? bits == 8 || bits == 16 || bits == 24 || bits == 32 : bits == 32 || bits == 64;
  ARB_REQUIRE(good, ARB_ERR_DATA, "%" PRIu32 " bits a sample, expected %s", bits, kind == PCM ? "8, 16, 24 or 32" : "32 or 64");
  ARB_REQUIRE(block == channels * bits / 8, ARB_ERR_DATA,
              "blocks of %" PRIu32 " bytes, but %" PRIu32 " channels of %" PRIu32 " bits need %" PRIu32, block, channels, bits,
              channels * bits / 8);
  out->channels = (int)channels;
  out->rate = (int)rate;
  out->bits = (int)bits;
  return ARB_OK;
}

static arb_status check_data(uint32_t bytes, arb_wav_format *out) {
  ARB_REQUIRE(out->channels > 0, ARB_ERR_DATA, "no fmt chunk before the data");
  ARB_REQUIRE(out->frames < 0, ARB_ERR_DATA, "two data chunks");
  const uint32_t block = (uint32_t)(out->channels * out->bits / 8);
  ARB_REQUIRE(bytes > 0, ARB_ERR_DATA, "no samples: a data chunk of 0 bytes");
  ARB_REQUIRE(bytes % block == 0, ARB_ERR_DATA, "%" PRIu32 " bytes of data are not a multiple of the block of %" PRIu32, bytes,
              block);
  out->frames = bytes / block;
  return ARB_OK;
}

arb_status arb_wav_check(const unsigned char *bytes, size_t n, arb_wav_format *out) {
  *out = (arb_wav_format){.frames = -1};
  ARB_REQUIRE(n >= 12, ARB_ERR_DATA, "ends early, in the RIFF header");
  const uint32_t riff = u32_at(bytes + 4);
  ARB_REQUIRE(riff != 0 && riff != UINT32_MAX, ARB_ERR_DATA, "its size was never filled in: a streamed file");
  ARB_REQUIRE((uint64_t)riff + 8 <= n, ARB_ERR_DATA, "ends early: %zu bytes, its header says %" PRIu64, n, (uint64_t)riff + 8);
  ARB_REQUIRE((uint64_t)riff + 8 == n, ARB_ERR_DATA, "%" PRIu64 " bytes after the end of the RIFF chunk", n - riff - 8);
  for (size_t at = 12; at < n;) {
    ARB_REQUIRE(n - at >= 8, ARB_ERR_DATA, "%zu bytes where a chunk should begin, at byte %zu", n - at, at);
    const unsigned char *chunk = bytes + at;
    const uint32_t size = u32_at(chunk + 4);
    bool plain = true;
    for (int i = 0; i < 4; i++) plain &= chunk[i] >= ' ' && chunk[i] <= '~';
    ARB_REQUIRE(plain, ARB_ERR_DATA, "no chunk at byte %zu (an odd chunk before it without its pad byte?)", at);
    ARB_REQUIRE(size <= n - at - 8, ARB_ERR_DATA, "the %.4s chunk at byte %zu has %" PRIu32 " bytes, %zu are left",
                (const char *)chunk, at, size, n - at - 8);
    if (memcmp(chunk, "fmt ", 4) == 0) {
      ARB_REQUIRE(out->channels == 0, ARB_ERR_DATA, "two fmt chunks");
      ARB_TRY(check_format(chunk + 8, size, out));
    }
    if (memcmp(chunk, "data", 4) == 0) ARB_TRY(check_data(size, out));
    at += 8 + (size_t)size;
    ARB_REQUIRE(size % 2 == 0 || at < n, ARB_ERR_DATA, "an odd chunk without its pad byte at the end");
    at += size % 2;
  }
  ARB_REQUIRE(out->frames > 0, ARB_ERR_DATA, "no data chunk");
  return ARB_OK;
}
