#include "src/media/audio.h"

#include <inttypes.h>
#include <math.h>
#include <samplerate.h>
#include <sndfile.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "src/base/file.h"
#include "src/media/audio_impl.h"

void arb_audio_free(arb_audio *audio) {
  free(audio->samples);
  *audio = (arb_audio){0};
}

/* ---- libsndfile over memory -------------------------------------------------------------------------------------------- */

typedef struct {
  const unsigned char *bytes;
  sf_count_t size, at;
} memory_file;

static sf_count_t on_length(void *file) { return ((memory_file *)file)->size; }
static sf_count_t on_tell(void *file) { return ((memory_file *)file)->at; }

static sf_count_t on_seek(sf_count_t offset, int whence, void *file) {
  memory_file *m = file;
  const sf_count_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? m->at : m->size;
  if (offset < -base || offset > m->size - base) return -1;
  return m->at = base + offset;
}

static sf_count_t on_read(void *to, sf_count_t n, void *file) {
  memory_file *m = file;
  const sf_count_t used = n < 0 ? 0 : n < m->size - m->at ? n : m->size - m->at;
  memcpy(to, m->bytes + m->at, (size_t)used);
  m->at += used;
  return used;
}

static sf_count_t on_write(const void *from, sf_count_t n, void *file) {
  (void)from, (void)n, (void)file;
  return 0;
}

/* Averages the channels. */
static arb_status read_frames(SNDFILE *sound, const SF_INFO *info, arb_audio *out) {
  enum { BLOCK = 4096 };
  float block[BLOCK];
  const sf_count_t most = BLOCK / info->channels;
  while (out->count < info->frames) {
    const sf_count_t want = info->frames - out->count < most ? info->frames - out->count : most;
    const sf_count_t got = sf_readf_float(sound, block, want);
    ARB_REQUIRE(sf_error(sound) == SF_ERR_NO_ERROR, ARB_ERR_DATA, "corrupt near sample %" PRId64 ": %s", out->count,
                sf_strerror(sound));
    ARB_REQUIRE(got > 0 && got <= want, ARB_ERR_DATA, "ends early: %" PRId64 " samples of %" PRId64, out->count,
                (int64_t)info->frames);
    for (sf_count_t i = 0; i < got; i++) {
      double sum = 0;
      for (int c = 0; c < info->channels; c++) sum += (double)block[i * info->channels + c];
      const float mean = (float)(sum / info->channels);
      ARB_REQUIRE(isfinite(mean), ARB_ERR_DATA, "sample %" PRId64 " is not finite", out->count);
      out->samples[out->count++] = mean;
    }
  }
  return ARB_OK;
}

static arb_status check_info(const SF_INFO *info, int64_t max_frames) {
  ARB_REQUIRE(info->channels >= 1 && info->channels <= ARB_AUDIO_MAX_CHANNELS, ARB_ERR_DATA, "%d channels, expected 1 to %d",
              info->channels, ARB_AUDIO_MAX_CHANNELS);
  ARB_REQUIRE(info->samplerate >= ARB_AUDIO_MIN_RATE && info->samplerate <= ARB_AUDIO_MAX_RATE, ARB_ERR_DATA,
              "a rate of %d Hz, expected %d to %d", info->samplerate, ARB_AUDIO_MIN_RATE, ARB_AUDIO_MAX_RATE);
  ARB_REQUIRE(info->frames >= 1 && info->frames != SF_COUNT_MAX, ARB_ERR_DATA,
              "no samples, or their number is not in its header");
  ARB_REQUIRE(info->frames <= max_frames, ARB_ERR_DATA, "%" PRId64 " samples a channel, limit %" PRId64, (int64_t)info->frames,
              max_frames);
  return ARB_OK;
}

static arb_status decode(const unsigned char *bytes, size_t n, const arb_wav_format *wav, int64_t max_frames, arb_audio *out) {
  static SF_VIRTUAL_IO calls = {on_length, on_seek, on_read, on_write, on_tell};
  memory_file memory = {bytes, (sf_count_t)n, 0};
  SF_INFO info = {0};
  SNDFILE *sound = sf_open_virtual(&calls, SFM_READ, &info, &memory);
  ARB_REQUIRE(sound != NULL, ARB_ERR_DATA, "corrupt: %s", sf_strerror(NULL));
  arb_status st = check_info(&info, max_frames);
  if (st == ARB_OK && wav != NULL &&
      (info.channels != wav->channels || info.samplerate != wav->rate || info.frames != wav->frames))
    st = ARB_FAIL(ARB_ERR_DATA, "its chunks say %d channels, %d Hz, %" PRId64 " samples; libsndfile %d, %d, %" PRId64,
                  wav->channels, wav->rate, wav->frames, info.channels, info.samplerate, (int64_t)info.frames);
  if (st == ARB_OK) {
    out->samples = malloc((size_t)info.frames * sizeof *out->samples);
    out->rate = info.samplerate;
    st = out->samples != NULL ? read_frames(sound, &info, out)
                              : ARB_FAIL(ARB_ERR_NOMEM, "no memory for %" PRId64 " samples", (int64_t)info.frames);
  }
  sf_close(sound);
  return st;
}

static bool named(const char *name, const char *extension) {
  const char *dot = strrchr(name, '.');
  return dot != NULL && strcasecmp(dot, extension) == 0;
}

static arb_status decode_any(const unsigned char *bytes, size_t n, const char *name, int64_t max_frames, arb_audio *out) {
  arb_wav_format format;
  const unsigned char head[4] = {n > 0 ? bytes[0] : 0, n > 1 ? bytes[1] : 0, n > 2 ? bytes[2] : 0, n > 3 ? bytes[3] : 0};
  const bool wav = n >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WAVE", 4) == 0;
  const bool flac = n >= 4 && memcmp(bytes, "fLaC", 4) == 0;
  ARB_REQUIRE(wav || flac, ARB_ERR_DATA, "neither WAV nor FLAC: begins with %02x %02x %02x %02x", head[0], head[1], head[2],
              head[3]);
  ARB_REQUIRE(!wav || !named(name, ".flac"), ARB_ERR_DATA, "is a WAV file, by its name FLAC");
  ARB_REQUIRE(!flac || !(named(name, ".wav") || named(name, ".wave")), ARB_ERR_DATA, "is a FLAC file, by its name WAV");
  arb_status st = wav ? arb_wav_check(bytes, n, &format) : ARB_OK;
  if (st == ARB_OK) st = decode(bytes, n, wav ? &format : NULL, max_frames, out);
  if (st != ARB_OK) arb_fail_context(wav ? "WAV" : "FLAC");
  return st;
}

arb_status arb_audio_decode(const unsigned char *bytes, size_t n, const char *name, int64_t max_frames, arb_audio *out) {
  *out = (arb_audio){0};
  const arb_status st = decode_any(bytes, n, name, max_frames, out);
  if (st != ARB_OK) {
    arb_fail_context("%s", name);
    arb_audio_free(out);
  }
  return st;
}

arb_status arb_audio_read(const char *path, arb_audio *out) {
  unsigned char *bytes;
  size_t n;
  *out = (arb_audio){0};
  ARB_TRY(arb_file_slurp(path, ARB_AUDIO_MAX_FILE, &bytes, &n));
  const arb_status st = arb_audio_decode(bytes, n, path, ARB_AUDIO_MAX_FRAMES, out);
  free(bytes);
  return st;
}

/* ---- resampling -------------------------------------------------------------------------------------------------------- */

static arb_status resample(const arb_audio *in, int rate, int64_t room, arb_audio *out) {
  SRC_DATA job = {.data_in = in->samples,
                  .data_out = out->samples,
                  .input_frames = (long)in->count,
                  .output_frames = (long)room,
                  .src_ratio = (double)rate / in->rate};
  const int why = src_simple(&job, SRC_SINC_BEST_QUALITY, 1);
  ARB_REQUIRE(why == 0, ARB_ERR_IO, "resampling from %d to %d Hz: %s", in->rate, rate, src_strerror(why));
  ARB_REQUIRE(job.input_frames_used == in->count && job.output_frames_gen >= 1, ARB_ERR_DATA,
              "%" PRId64 " samples at %d Hz are too few for %d Hz", in->count, in->rate, rate);
  out->count = job.output_frames_gen;
  return ARB_OK;
}

arb_status arb_audio_resample(const arb_audio *in, int rate, arb_audio *out) {
  *out = (arb_audio){0};
  ARB_REQUIRE(rate >= ARB_AUDIO_MIN_RATE && rate <= ARB_AUDIO_MAX_RATE, ARB_ERR_DATA, "a rate of %d Hz, expected %d to %d",
              rate, ARB_AUDIO_MIN_RATE, ARB_AUDIO_MAX_RATE);
  const int64_t expected = (in->count * rate + in->rate - 1) / in->rate, room = expected + 16;
  ARB_REQUIRE(expected <= ARB_AUDIO_MAX_FRAMES, ARB_ERR_DATA, "%" PRId64 " samples after resampling, limit %" PRId64, expected,
              ARB_AUDIO_MAX_FRAMES);
  out->samples = malloc((size_t)room * sizeof *out->samples);
  ARB_REQUIRE(out->samples != NULL, ARB_ERR_NOMEM, "no memory for %" PRId64 " samples", room);
  out->rate = rate;
  arb_status st = ARB_OK;
  if (rate == in->rate) {
    memcpy(out->samples, in->samples, (size_t)in->count * sizeof *out->samples);
    out->count = in->count;
  } else {
    st = resample(in, rate, room, out);
  }
  if (st != ARB_OK) arb_audio_free(out);
  return st;
}

arb_status arb_audio_read_speech(const char *path, arb_audio *out) {
  arb_audio own;
  *out = (arb_audio){0};
  ARB_TRY(arb_audio_read(path, &own));
  if (own.rate == ARB_AUDIO_SPEECH_RATE) {
    *out = own;
    return ARB_OK;
  }
  const arb_status st = arb_audio_resample(&own, ARB_AUDIO_SPEECH_RATE, out);
  if (st != ARB_OK) arb_fail_context("%s", path);
  arb_audio_free(&own);
  return st;
}
