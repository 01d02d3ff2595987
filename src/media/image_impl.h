/* The formats behind image.h. Each decodes whole bytes in memory; messages do not name the file. */
#ifndef ARB_SRC_MEDIA_IMAGE_IMPL_H
#define ARB_SRC_MEDIA_IMAGE_IMPL_H

#include "src/media/image.h"

/* Checks the sides against the limits and allocates out->rgb. */
ARB_NODISCARD arb_status arb_image_allocate(int64_t width, int64_t height, int64_t max_pixels, arb_image *out);

/* After a failure out->rgb may be allocated: the caller frees it. */
ARB_NODISCARD arb_status arb_image_decode_png(const unsigned char *bytes, size_t n, int64_t max_pixels, arb_image *out);
ARB_NODISCARD arb_status arb_image_decode_jpeg(const unsigned char *bytes, size_t n, int64_t max_pixels, arb_image *out);

#endif
