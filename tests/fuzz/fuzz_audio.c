/* A WAV or FLAC file. First byte even: the rest is the file. Odd: the harness writes the true size into the RIFF header. At
 * most a million frames, so that an input takes milliseconds. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/media/audio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  arb_audio audio, speech;
  if (size < 1) return 0;
  unsigned char *file = malloc(size > 1 ? size - 1 : 1); /* exact: a read behind the end is seen */
  if (file == NULL) abort();
  memcpy(file, data + 1, size - 1);
  if (data[0] % 2 == 1 && size - 1 >= 8) {
    const uint32_t riff = (uint32_t)(size - 9);
    memcpy(file + 4, &riff, 4);
  }
  arb_fail_clear();
  if (arb_audio_decode(file, size - 1, "x", 1 << 20, &audio) != ARB_OK) {
    if (audio.samples != NULL || strncmp(arb_fail_message(), "x: ", 3) != 0) abort();
  } else {
    for (int64_t i = 0; i < audio.count; i++)
      if (!isfinite(audio.samples[i])) abort();
    if (audio.count > 2000) audio.count = 2000; /* resampling is not a parser, and slow under sanitizers */
    if (arb_audio_resample(&audio, 16000, &speech) == ARB_OK) arb_audio_free(&speech);
    arb_audio_free(&audio);
  }
  free(file);
  return 0;
}
