/* media_print image PATH | resize PATH WIDTH HEIGHT | crop PATH | sound PATH | speech PATH: the decoded bytes on standard
 * output: RGB, or float32 samples. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/media/audio.h"
#include "src/media/image.h"

static arb_status print_image(const char *what, const char *path, int width, int height) {
  arb_image image, other;
  ARB_TRY(arb_image_read(path, &image));
  if (strcmp(what, "image") != 0) {
    const arb_status st = strcmp(what, "crop") == 0 ? arb_image_resize_crop(&image, 256, 224, &other)
                                                    : arb_image_resize(&image, width, height, &other);
    arb_image_free(&image);
    ARB_TRY(st);
    image = other;
  }
  fwrite(image.rgb, 3, (size_t)image.width * (size_t)image.height, stdout);
  arb_image_free(&image);
  return ARB_OK;
}

static arb_status print_sound(const char *what, const char *path) {
  arb_audio audio;
  ARB_TRY(strcmp(what, "speech") == 0 ? arb_audio_read_speech(path, &audio) : arb_audio_read(path, &audio));
  fwrite(audio.samples, sizeof *audio.samples, (size_t)audio.count, stdout);
  arb_audio_free(&audio);
  return ARB_OK;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  const bool sound = argv[1][0] == 's';
  const arb_status st = sound ? print_sound(argv[1], argv[2])
                              : print_image(argv[1], argv[2], argc > 3 ? atoi(argv[3]) : 1, argc > 4 ? atoi(argv[4]) : 1);
  if (st == ARB_OK) return 0;
  fprintf(stderr, "%s\n", arb_fail_message());
  return 3;
}
