#include "src/media/image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "src/base/file.h"
#include "src/media/image_impl.h"

enum { PNG, JPEG, FORMATS };

static const struct {
  const char *name;
  unsigned char magic[8];
  size_t magic_bytes;
  const char *extensions[3];
} formats[] = {{"PNG", {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, 8, {".png"}},
               {"JPEG", {0xff, 0xd8, 0xff}, 3, {".jpg", ".jpeg", ".jpe"}},
               {"GIF", {'G', 'I', 'F', '8'}, 4, {".gif"}},
               {"BMP", {'B', 'M'}, 2, {".bmp"}},
               {"WebP", {'R', 'I', 'F', 'F'}, 4, {".webp"}},
               {"TIFF", {'I', 'I', '*', 0}, 4, {".tif", ".tiff"}},
               {"TIFF", {'M', 'M', 0, '*'}, 4, {".tif", ".tiff"}}};
enum { KNOWN = sizeof formats / sizeof *formats };

static int format_of(const unsigned char *bytes, size_t n) {
  for (int k = 0; k < KNOWN; k++)
    if (n >= formats[k].magic_bytes && memcmp(bytes, formats[k].magic, formats[k].magic_bytes) == 0) return k;
  return -1;
}

/* The format that the name claims, or -1. */
static int format_by_name(const char *name) {
  const char *dot = strrchr(name, '.');
  for (int k = 0; k < KNOWN && dot != NULL; k++)
    for (int i = 0; i < 3 && formats[k].extensions[i] != NULL; i++)
      if (strcasecmp(dot, formats[k].extensions[i]) == 0) return k;
  return -1;
}

arb_status arb_image_allocate(int64_t width, int64_t height, int64_t max_pixels, arb_image *out) {
  ARB_REQUIRE(
      width >= 1 && width <= ARB_IMAGE_MAX_SIDE && height >= 1 && height <= ARB_IMAGE_MAX_SIDE && width * height <= max_pixels,
      ARB_ERR_DATA, "%" PRId64 " x %" PRId64 " pixels, expected sides of 1 to %d and at most %" PRId64 " in all", width, height,
      ARB_IMAGE_MAX_SIDE, max_pixels);
  out->rgb = malloc((size_t)(width * height) * 3);
  ARB_REQUIRE(out->rgb != NULL, ARB_ERR_NOMEM, "no memory for %" PRId64 " x %" PRId64 " pixels", width, height);
  out->width = (int)width;
  out->height = (int)height;
  return ARB_OK;
}

void arb_image_free(arb_image *image) {
  free(image->rgb);
  *image = (arb_image){0};
}

static arb_status decode(const unsigned char *bytes, size_t n, const char *name, int64_t max_pixels, arb_image *out) {
  const int format = format_of(bytes, n), named = format_by_name(name);
  const unsigned char head[4] = {n > 0 ? bytes[0] : 0, n > 1 ? bytes[1] : 0, n > 2 ? bytes[2] : 0, n > 3 ? bytes[3] : 0};
  ARB_REQUIRE(format >= 0, ARB_ERR_DATA, "neither PNG nor JPEG: begins with %02x %02x %02x %02x", head[0], head[1], head[2],
              head[3]);
  ARB_REQUIRE(format < FORMATS, ARB_ERR_DATA, "is a %s file, expected PNG or JPEG", formats[format].name);
  ARB_REQUIRE(named < 0 || named == format, ARB_ERR_DATA, "is a %s file, by its name %s", formats[format].name,
              formats[named].name);
  const arb_status st =
      format == PNG ? arb_image_decode_png(bytes, n, max_pixels, out) : arb_image_decode_jpeg(bytes, n, max_pixels, out);
  if (st != ARB_OK) arb_fail_context("%s", formats[format].name);
  return st;
}

arb_status arb_image_decode(const unsigned char *bytes, size_t n, const char *name, int64_t max_pixels, arb_image *out) {
  *out = (arb_image){0};
  const arb_status st = decode(bytes, n, name, max_pixels, out);
  if (st != ARB_OK) {
    arb_fail_context("%s", name);
    arb_image_free(out);
  }
  return st;
}

arb_status arb_image_read(const char *path, arb_image *out) {
  unsigned char *bytes;
  size_t n;
  *out = (arb_image){0};
  ARB_TRY(arb_file_slurp(path, ARB_IMAGE_MAX_FILE, &bytes, &n));
  const arb_status st = arb_image_decode(bytes, n, path, ARB_IMAGE_MAX_PIXELS, out);
  free(bytes);
  return st;
}
