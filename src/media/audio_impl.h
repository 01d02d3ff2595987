/* What a WAV file's own headers say, checked before any library sees them. */
#ifndef ARB_SRC_MEDIA_AUDIO_IMPL_H
#define ARB_SRC_MEDIA_AUDIO_IMPL_H

#include "src/media/audio.h"

typedef struct {
  int channels, rate, bits;
  int64_t frames;
} arb_wav_format;

/* Walks the chunks of a RIFF WAVE file. Messages do not name the file. */
ARB_NODISCARD arb_status arb_wav_check(const unsigned char *bytes, size_t n, arb_wav_format *out);

#endif
