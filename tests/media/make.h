/* Makes image and sound files for the tests: PNG chunk by chunk, JPEG by libjpeg, WAV byte by byte. */
#ifndef ARB_TESTS_MEDIA_MAKE_H
#define ARB_TESTS_MEDIA_MAKE_H

#include <stddef.h>
#include <stdint.h>

#include "tests/forge.h"

/* rgb[(y * width + x) * 3 + c] = 7 x + 13 y + 50 c + x y modulo 256: the pattern of the values made with Pillow. */
void pattern(unsigned char *rgb, int width, int height);
/* FNV-1a, 64 bits. */
uint64_t fnv(const void *bytes, size_t n);

/* ---- PNG ---- */

void png_signature(forge *f);
/* length and CRC are computed. */
void png_chunk(forge *f, const char *type, const void *data, size_t n);
/* Length as given, whatever follows; no CRC. */
void png_chunk_head(forge *f, const char *type, uint32_t length);
void png_ihdr(forge *f, uint32_t width, uint32_t height, int depth, int colour, int interlace);
/* An IDAT chunk of raw, compressed; raw includes the filter bytes. */
void png_idat(forge *f, const void *raw, size_t n);
/* Signature to IEND of an image whose raw bytes (with filter bytes) are given. palette: 3 bytes an entry, or NULL. */
void png_image(forge *f, uint32_t width, uint32_t height, int depth, int colour, int interlace, const void *palette,
               size_t entries, const void *raw, size_t n);

/* ---- JPEG ---- */

/* How the data are cut into scans: one; one a component; progressive. */
typedef enum { ONE_SCAN, SCAN_EACH, PROGRESSIVE } jpeg_scans;

/* components: 1 grey, 3 RGB, 4 CMYK, of the pattern. */
void jpeg_image(forge *f, int width, int height, int components, jpeg_scans scans);
/* Offset of the first marker FF `code`, or the end. */
size_t jpeg_marker(const forge *f, int code);

/* ---- WAV ---- */

typedef struct {
  uint32_t kind, channels, rate, block, bits; /* of the fmt chunk */
  uint32_t data_bytes, data_claimed;          /* data_claimed 0: the true one */
  int64_t riff_error;                         /* added to the RIFF size */
} wav_spec;

/* data: data_bytes bytes, NULL for zeros. */
void wav_file(forge *f, const wav_spec *spec, const void *data);
void wav_chunk(forge *f, const char *type, const void *data, size_t n);
/* Sets the RIFF size to that of the file. */
void wav_close(forge *f);

#endif
