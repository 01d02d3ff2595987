/* Sound from files, as mono float32 of raw amplitude (full scale is 1; nothing is normalised, dithered or filtered).
 *
 * WAV (PCM of 8, 16, 24 or 32 bits, float of 32 or 64) and FLAC, told apart by their content; a file name that claims the other
 * is an error. Channels are averaged. Refused: compressed WAV, files cut or with sizes that were never filled in (streamed WAV,
 * FLAC of unknown length), samples that are not finite, and what the limits below exclude. Messages name the file and the
 * reason. Nothing here is collective; all functions are thread-safe. */
#ifndef ARB_SRC_MEDIA_AUDIO_H
#define ARB_SRC_MEDIA_AUDIO_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#define ARB_AUDIO_MAX_FILE ((uint64_t)1 << 28)  /* bytes */
#define ARB_AUDIO_MAX_FRAMES ((int64_t)1 << 26) /* 70 minutes at 16 kHz; before and after resampling */
#define ARB_AUDIO_MAX_CHANNELS 8
#define ARB_AUDIO_MIN_RATE 4000 /* Hz */
#define ARB_AUDIO_MAX_RATE 384000
#define ARB_AUDIO_SPEECH_RATE 16000

/* Zeroed by = {0}; samples is malloc'd, freed by arb_audio_free. */
typedef struct {
  float *samples;
  int64_t count; /* at least 1 */
  int rate;      /* Hz */
} arb_audio;

/* The file at its own rate, mono. ARB_ERR_DATA: not there, not a sound file, refused; ARB_ERR_NOMEM; ARB_ERR_IO. *out is empty
 * after a failure. */
ARB_NODISCARD arb_status arb_audio_read(const char *path, arb_audio *out);
/* The same for a file's bytes. name: for messages; its extension is checked too. max_frames <= ARB_AUDIO_MAX_FRAMES. */
ARB_NODISCARD arb_status arb_audio_decode(const unsigned char *bytes, size_t n, const char *name, int64_t max_frames,
                                          arb_audio *out);
/* To another rate by libsamplerate's SRC_SINC_BEST_QUALITY (band-limited interpolation, 145 dB, 97 % of the band); at the same
 * rate a copy. About count * rate / in->rate samples. ARB_ERR_DATA: a rate or a length beyond the limits. */
ARB_NODISCARD arb_status arb_audio_resample(const arb_audio *in, int rate, arb_audio *out);
/* Both, to 16 kHz: what the speech encoder takes. */
ARB_NODISCARD arb_status arb_audio_read_speech(const char *path, arb_audio *out);
/* Leaves {0}. */
void arb_audio_free(arb_audio *audio);

#endif
