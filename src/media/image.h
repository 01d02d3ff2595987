/* Images from files, as 8-bit RGB, and the preprocessing of image encoders.
 *
 * PNG and JPEG, told apart by their content; a file name that claims the other format is an error. Alpha is dropped, grey and
 * palettes become RGB, colour profiles and orientation tags are ignored: what PIL's convert("RGB") does, on which the published
 * preprocessing rests. Refused: 16 bits a channel, 12-bit and CMYK JPEG, other formats, images of more than ARB_IMAGE_MAX_SIDE
 * a side or ARB_IMAGE_MAX_PIXELS in all, and everything truncated or corrupt that the libraries notice, their warnings
 * included. Messages name the file and the reason. Nothing here is collective; all functions are thread-safe. */
#ifndef ARB_SRC_MEDIA_IMAGE_H
#define ARB_SRC_MEDIA_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#define ARB_IMAGE_MAX_SIDE 16384
#define ARB_IMAGE_MAX_PIXELS ((int64_t)1 << 26)
#define ARB_IMAGE_MAX_FILE ((uint64_t)1 << 28) /* bytes */

#define ARB_IMAGE_DINO_SHORT 256
#define ARB_IMAGE_DINO_SIDE 224

/* Zeroed by = {0}; rgb is malloc'd, freed by arb_image_free. */
typedef struct {
  int width, height;
  unsigned char *rgb; /* [height][width][3], rows from the top */
} arb_image;

/* ARB_ERR_DATA: not there, not an image, refused; ARB_ERR_NOMEM; ARB_ERR_IO. *out is empty after a failure. */
ARB_NODISCARD arb_status arb_image_read(const char *path, arb_image *out);
/* The same for a file's bytes. name: for messages; its extension is checked too. max_pixels <= ARB_IMAGE_MAX_PIXELS. */
ARB_NODISCARD arb_status arb_image_decode(const unsigned char *bytes, size_t n, const char *name, int64_t max_pixels,
                                          arb_image *out);
/* NULL-safe inside; leaves {0}. */
void arb_image_free(arb_image *image);

/* Bicubic as in Pillow up to 12 (Resample.c), to the bit: a = -0.5, widened by the scale when shrinking, coefficients of 22
 * fractional bits, a horizontal and then a vertical pass, each rounded to 8 bits. (Pillow 13 takes the vertical pass first for
 * tall images, which changes some values; its two passes one by one give these.) Sides 1 to ARB_IMAGE_MAX_SIDE. */
ARB_NODISCARD arb_status arb_image_resize(const arb_image *in, int width, int height, arb_image *out);
/* Resized so that the short side has short_side pixels (the long one int(short_side * long / short)), then the centre of
 * side x side, from (height - side) / 2 and (width - side) / 2. Only the pixels of that window are computed. side <=
 * short_side. */
ARB_NODISCARD arb_status arb_image_resize_crop(const arb_image *in, int short_side, int side, arb_image *out);

/* The last steps of DINOv2's preprocessing (BitImageProcessor): times 1/255, minus mean, over deviation, channel by channel.
 * out: [3][height][width] float32. */
void arb_image_normalise(const arb_image *in, float *out);
/* All of it: short side 256, centre of 224 x 224, normalised. out: [3][224][224] float32. */
ARB_NODISCARD arb_status arb_image_dino(const arb_image *in, float *out);

/* An 8-bit RGB PNG of rgb [height][width][3]. Appears under its name only when complete. ARB_ERR_IO: path and reason. */
ARB_NODISCARD arb_status arb_image_write_png(const char *path, const unsigned char *rgb, int width, int height);

#endif
