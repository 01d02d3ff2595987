#include "tests/media/make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <zlib.h>

#include "tests/test.h"

void pattern(unsigned char *rgb, int width, int height) {
  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++)
      for (int c = 0; c < 3; c++)
        rgb[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)c] = (unsigned char)(x * 7 + y * 13 + c * 50 + x * y);
}

uint64_t fnv(const void *bytes, size_t n) {
  const unsigned char *p = bytes;
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
  return h;
}

/* ---- PNG --------------------------------------------------------------------------------------------------------------- */

static void big_endian(forge *f, uint32_t value) {
  const unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16), (unsigned char)(value >> 8),
                                  (unsigned char)value};
  forge_bytes(f, bytes, 4);
}

void png_signature(forge *f) { forge_bytes(f, "\x89PNG\r\n\x1a\n", 8); }

void png_chunk_head(forge *f, const char *type, uint32_t length) {
  big_endian(f, length);
  forge_bytes(f, type, 4);
}

void png_chunk(forge *f, const char *type, const void *data, size_t n) {
  png_chunk_head(f, type, (uint32_t)n);
  forge_bytes(f, data, n);
  big_endian(f, (uint32_t)crc32(crc32(0, (const unsigned char *)type, 4), data, (unsigned)n));
}

void png_ihdr(forge *f, uint32_t width, uint32_t height, int depth, int colour, int interlace) {
  forge h = {0};
  big_endian(&h, width);
  big_endian(&h, height);
  const unsigned char rest[5] = {(unsigned char)depth, (unsigned char)colour, 0, 0, (unsigned char)interlace};
  forge_bytes(&h, rest, 5);
  png_chunk(f, "IHDR", h.bytes, h.used);
  free(h.bytes);
}

void png_idat(forge *f, const void *raw, size_t n) {
  uLongf used = compressBound(n);
  unsigned char *packed = malloc(used);
  assert_non_null(packed);
  assert_int_equal(compress2(packed, &used, raw, n, 6), Z_OK);
  png_chunk(f, "IDAT", packed, used);
  free(packed);
}

void png_image(forge *f, uint32_t width, uint32_t height, int depth, int colour, int interlace, const void *palette,
               size_t entries, const void *raw, size_t n) {
  png_signature(f);
  png_ihdr(f, width, height, depth, colour, interlace);
  if (palette != NULL) png_chunk(f, "PLTE", palette, entries * 3);
  png_idat(f, raw, n);
  png_chunk(f, "IEND", "", 0);
}

/* ---- JPEG -------------------------------------------------------------------------------------------------------------- */

void jpeg_image(forge *f, int width, int height, int components, jpeg_scans scans) {
  static const jpeg_scan_info each[3] = {{1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
  struct jpeg_error_mgr errors;
  struct jpeg_compress_struct jpeg = {.err = jpeg_std_error(&errors)};
  unsigned char *bytes = NULL, *row = malloc((size_t)width * 4), *rgb = malloc((size_t)width * (size_t)height * 3);
  unsigned long n = 0;
  assert_true(row != NULL && rgb != NULL);
  pattern(rgb, width, height);
  jpeg_create_compress(&jpeg);
  jpeg_mem_dest(&jpeg, &bytes, &n);
  jpeg.image_width = (JDIMENSION)width;
  jpeg.image_height = (JDIMENSION)height;
  jpeg.input_components = components;
  jpeg.in_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, 100, TRUE);
  if (scans == PROGRESSIVE) jpeg_simple_progression(&jpeg);
  if (scans == SCAN_EACH) {
    jpeg.scan_info = each;
    jpeg.num_scans = components;
  }
  jpeg_start_compress(&jpeg, TRUE);
  for (int y = 0; y < height; y++) {
    for (int i = 0; i < width * components; i++) {
      const int x = i / components, c = i % components;
      row[i] = rgb[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)(c % 3)];
    }
    JSAMPROW line = row;
    jpeg_write_scanlines(&jpeg, &line, 1);
  }
  jpeg_finish_compress(&jpeg);
  forge_bytes(f, bytes, n);
  jpeg_destroy_compress(&jpeg);
  free(bytes);
  free(row);
  free(rgb);
}

size_t jpeg_marker(const forge *f, int code) {
  for (size_t i = 0; i + 1 < f->used; i++)
    if (f->bytes[i] == 0xff && f->bytes[i + 1] == code) return i;
  return f->used;
}

/* ---- WAV --------------------------------------------------------------------------------------------------------------- */

static void little(forge *f, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; i++) forge_bytes(f, &(unsigned char){(unsigned char)(value >> (8 * i))}, 1);
}

void wav_chunk(forge *f, const char *type, const void *data, size_t n) {
  forge_bytes(f, type, 4);
  little(f, (uint32_t)n, 4);
  if (data != NULL) {
    forge_bytes(f, data, n);
  } else {
    forge_zeros(f, n);
  }
  forge_zeros(f, n % 2);
}

void wav_close(forge *f) {
  const uint32_t size = (uint32_t)f->used - 8;
  memcpy(f->bytes + 4, &size, 4);
}

void wav_file(forge *f, const wav_spec *spec, const void *data) {
  forge_text(f, "RIFF....WAVE");
  forge_text(f, "fmt ");
  little(f, 16, 4);
  little(f, spec->kind, 2);
  little(f, spec->channels, 2);
  little(f, spec->rate, 4);
  little(f, spec->rate * spec->block, 4);
  little(f, spec->block, 2);
  little(f, spec->bits, 2);
  wav_chunk(f, "data", data, spec->data_bytes);
  if (spec->data_claimed != 0) memcpy(f->bytes + 40, &spec->data_claimed, 4);
  const uint32_t size = (uint32_t)((int64_t)f->used - 8 + spec->riff_error);
  memcpy(f->bytes + 4, &size, 4);
}
