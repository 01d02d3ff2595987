/* A PNG or JPEG. First byte even: the rest is the file. Odd: a PNG whose checksums the harness mends, so that mutations get
 * behind them. At most a megapixel, so that an input takes milliseconds. */
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "src/media/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t big_endian(const unsigned char *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static void mend(unsigned char *png, size_t n) {
  for (size_t at = 8; at + 12 <= n;) {
    const size_t length = big_endian(png + at);
    if (length > n - at - 12) return;
    const uint32_t sum = (uint32_t)crc32(crc32(0, NULL, 0), png + at + 4, (unsigned)length + 4);
    for (int i = 0; i < 4; i++) png[at + 8 + length + (size_t)i] = (unsigned char)(sum >> (24 - 8 * i));
    at += 12 + length;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  arb_image image, window;
  if (size < 1) return 0;
  unsigned char *file = malloc(size > 1 ? size - 1 : 1); /* exact: a read behind the end is seen */
  if (file == NULL) abort();
  memcpy(file, data + 1, size - 1);
  if (data[0] % 2 == 1) mend(file, size - 1);
  arb_fail_clear();
  if (arb_image_decode(file, size - 1, "x", 1 << 20, &image) != ARB_OK) {
    if (image.rgb != NULL || strncmp(arb_fail_message(), "x: ", 3) != 0) abort();
  } else {
    if (arb_image_resize_crop(&image, 16, 14, &window) != ARB_OK) abort();
    arb_image_free(&window);
    arb_image_free(&image);
  }
  free(file);
  return 0;
}
