/* Malformed images (group 45): each is refused, with file and reason. */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/media/image.h"
#include "tests/media/make.h"
#include "tests/test.h"

/* Decoding these bytes under this name fails; the message begins with the name and holds the reason. Frees the bytes. */
static void refused(forge *f, const char *name, const char *reason) {
  arb_image image = {0};
  arb_fail_clear();
  /* An exact allocation, so that a sanitizer sees a read behind the end. */
  unsigned char *bytes = malloc(f->used > 0 ? f->used : 1);
  assert_non_null(bytes);
  if (f->used > 0) memcpy(bytes, f->bytes, f->used);
  const arb_status st = arb_image_decode(bytes, f->used, name, ARB_IMAGE_MAX_PIXELS, &image);
  if (st != ARB_ERR_DATA) fail_msg("%s (%s): %s, expected a refusal", name, reason, arb_status_name(st));
  assert_null(image.rgb);
  if (strncmp(arb_fail_message(), name, strlen(name)) != 0) fail_msg("'%s' does not name %s", arb_fail_message(), name);
  if (strstr(arb_fail_message(), reason) == NULL) fail_msg("message '%s' lacks '%s'", arb_fail_message(), reason);
  arb_fail_clear();
  free(bytes);
  free(f->bytes);
  *f = (forge){0};
}

/* ---- what the file is -------------------------------------------------------------------------------------------------- */

static void other_files(void **test) {
  static const struct {
    const char *bytes;
    size_t n;
    const char *name, *reason;
  } cases[] = {{"", 0, "x.png", "neither PNG nor JPEG: begins with 00 00 00 00"},
               {"\x89PNG\r\n", 6, "x.png", "neither PNG nor JPEG: begins with 89 50 4e 47"},
               {"\xff\xd8", 2, "x.jpg", "neither PNG nor JPEG"},
               {"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\2\0;", 25, "x.gif",
                "is a GIF file, expected PNG or JPEG"}, /* frame of no area */
               {"GIF89a\1\0\1\0", 10, "x.png", "is a GIF file"},
               {"BM\0\0\0\0", 6, "x.bmp", "is a BMP file"},
               {"RIFF\0\0\0\0WEBP", 12, "x.webp", "is a WebP file"},
               {"II*\0\10\0\0\0", 8, "x.tif", "is a TIFF file"},
               {"<svg></svg>", 11, "x.svg", "neither PNG nor JPEG: begins with 3c 73 76 67"},
               {"version https://git-lfs", 23, "x.png", "neither PNG nor JPEG"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    forge_bytes(&f, cases[i].bytes, cases[i].n);
    refused(&f, cases[i].name, cases[i].reason);
  }
  forge f = {0};
  png_image(&f, 1, 1, 8, 2, 0, NULL, 0, "\0\1\2\3", 4);
  refused(&f, "photo.jpeg", "is a PNG file, by its name JPEG");
  png_image(&f, 1, 1, 8, 2, 0, NULL, 0, "\0\1\2\3", 4);
  refused(&f, "anim.GIF", "is a PNG file, by its name GIF");
  jpeg_image(&f, 8, 8, 3, ONE_SCAN);
  refused(&f, "picture.PNG", "is a JPEG file, by its name PNG");
  (void)test;
}

static void no_regular_file(void **test) {
  arb_image image;
  const char *path = in_folder(*test, "pipe.png");
  assert_int_equal(mkfifo(path, 0600), 0);
  arb_assert_fails(arb_image_read(path, &image), ARB_ERR_DATA, "pipe.png: is a named pipe");
  arb_assert_fails(arb_image_read(*test, &image), ARB_ERR_DATA, "is a folder");
  arb_assert_fails(arb_image_read("/dev/zero", &image), ARB_ERR_DATA, "/dev/zero: is a character device");
  arb_assert_fails(arb_image_read(in_folder(*test, "none.png"), &image), ARB_ERR_DATA,
                   "none.png: cannot be opened: No such file");
  path = in_folder(*test, "loop.png");
  assert_int_equal(symlink("loop.png", path), 0);
  arb_assert_fails(arb_image_read(path, &image), ARB_ERR_DATA, "Too many levels");
  forge f = {0};
  path = in_folder(*test, "big.png");
  forge_text(&f, "x");
  forge_write(&f, path);
  assert_int_equal(truncate(path, (off_t)ARB_IMAGE_MAX_FILE + 1), 0);
  arb_assert_fails(arb_image_read(path, &image), ARB_ERR_DATA, "big.png: 268435457 bytes, limit 268435456");
  assert_null(image.rgb);
}

/* ---- PNG --------------------------------------------------------------------------------------------------------------- */

static void png_headers(void **test) {
  static const struct {
    uint32_t width, height;
    int depth, colour, interlace;
    const char *reason;
  } cases[] = {{0, 0, 8, 2, 0, "PNG: "},
               {0, 1, 8, 2, 0, "PNG: "},
               {1, 0, 8, 2, 0, "PNG: "},
               {0x7fffffff, 0x7fffffff, 8, 2, 0, "PNG: "},
               {0x7fffffff, 1, 1, 0, 0, "PNG: "},
               {0x80000000, 1, 8, 2, 0, "PNG: "},
               {UINT32_MAX, UINT32_MAX, 8, 2, 0, "PNG: "},
               {16385, 1, 8, 0, 0, "PNG: "},
               {1, 16385, 8, 0, 0, "PNG: "},
               {16384, 16384, 1, 0, 0, "PNG: 16384 x 16384 pixels, expected sides of 1 to 16384 and at most 67108864 in all"},
               {1, 1, 16, 2, 0, "PNG: 16 bits a channel, expected at most 8"},
               {1, 1, 16, 0, 0, "PNG: 16 bits a channel"},
               {1, 1, 3, 0, 0, "PNG: "},
               {1, 1, 0, 0, 0, "PNG: "},
               {1, 1, 4, 2, 0, "PNG: "},
               {1, 1, 8, 1, 0, "PNG: "},
               {1, 1, 8, 7, 0, "PNG: "},
               {1, 1, 16, 3, 0, "PNG: "},
               {1, 1, 8, 2, 2, "PNG: "}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    png_image(&f, cases[i].width, cases[i].height, cases[i].depth, cases[i].colour, cases[i].interlace, NULL, 0,
              "\0\1\2\3\4\5\6", 7);
    refused(&f, "x.png", cases[i].reason);
  }
  (void)test;
}

/* A bad CRC in each chunk, a critical chunk or not. */
static void png_crc(void **test) {
  static const char *const types[] = {"IHDR", "tEXt", "IDAT", "IEND"};
  for (size_t i = 0; i < 4; i++) {
    forge f = {0};
    png_signature(&f);
    png_ihdr(&f, 1, 1, 8, 2, 0);
    png_chunk(&f, "tEXt", "a\0b", 3);
    png_idat(&f, "\0\1\2\3", 4);
    png_chunk(&f, "IEND", "", 0);
    for (size_t at = 8; at + 4 < f.used; at++) {
      if (memcmp(f.bytes + at, types[i], 4) != 0) continue;
      const size_t n = (size_t)f.bytes[at - 2] << 8 | f.bytes[at - 1];
      f.bytes[at + 4 + n] ^= 1;
    }
    refused(&f, "x.png", "CRC error");
  }
  (void)test;
}

/* The palette: none, beyond 256 entries, of a broken length, an index behind its end (in each depth). */
static void png_palettes(void **test) {
  static const unsigned char colours[3 * 300] = {0};
  static const struct {
    int depth;
    size_t entries;
    const char *raw;
    const char *reason;
  } cases[] = {{8, 3, "\0\0\3", "a pixel beyond the palette"},
               {8, 3, "\0\xff\0", "a pixel beyond the palette"},
               {4, 3, "\0\x30", "a pixel beyond the palette"},
               {2, 3, "\0\xc0", "a pixel beyond the palette"},
               {1, 1, "\0\x40", "a pixel beyond the palette"},
               {8, 257, "\0\0\0", "PNG: "},
               {8, 0, "\0\0\0", "PNG: "}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    png_image(&f, 2, 1, cases[i].depth, 3, 0, colours, cases[i].entries, cases[i].raw, cases[i].depth == 8 ? 3 : 2);
    refused(&f, "x.png", cases[i].reason);
  }
  forge f = {0};
  png_image(&f, 2, 1, 8, 3, 0, NULL, 0, "\0\0\0", 3);
  refused(&f, "x.png", "PNG: ");
  png_signature(&f);
  png_ihdr(&f, 1, 1, 8, 3, 0);
  png_chunk(&f, "PLTE", colours, 4);
  png_idat(&f, "\0\0", 2);
  png_chunk(&f, "IEND", "", 0);
  refused(&f, "x.png", "PNG: ");
  (void)test;
}

static void png_pixels(void **test) {
  forge f = {0}, zeros = {0};
  png_image(&f, 1, 2, 8, 2, 0, NULL, 0, "\0\1\2\3", 4);
  refused(&f, "x.png", "PNG: "); /* a row too few */
  png_image(&f, 1, 1, 8, 2, 0, NULL, 0, "\0\1\2\3\0\1\2\3", 8);
  refused(&f, "x.png", "PNG: "); /* a row too many */
  png_image(&f, 1, 1, 8, 2, 0, NULL, 0, "\5\1\2\3", 4);
  refused(&f, "x.png", "bad adaptive filter value");
  /* A bomb: 8 x 8 pixels, and data that unpack to 200 MB. The limits bound the declared size, the decoder stops at its end. */
  forge_zeros(&zeros, 200000000);
  png_image(&f, 8, 8, 8, 2, 0, NULL, 0, zeros.bytes, zeros.used);
  free(zeros.bytes);
  const clock_t before = clock();
  refused(&f, "x.png", "PNG: ");
  assert_true((double)(clock() - before) / CLOCKS_PER_SEC < 1);
  /* Bytes that are no deflate stream; no IDAT at all; IDAT before IHDR. */
  png_signature(&f);
  png_ihdr(&f, 1, 1, 8, 2, 0);
  png_chunk(&f, "IDAT", "junk", 4);
  png_chunk(&f, "IEND", "", 0);
  refused(&f, "x.png", "PNG: ");
  png_signature(&f);
  png_ihdr(&f, 1, 1, 8, 2, 0);
  png_chunk(&f, "IEND", "", 0);
  refused(&f, "x.png", "PNG: ");
  png_signature(&f);
  png_idat(&f, "\0\1\2\3", 4);
  refused(&f, "x.png", "PNG: ");
  (void)test;
}

/* Profiles, EXIF and texts that claim 1 GB, and lengths beyond what the format allows. */
static void png_huge_chunks(void **test) {
  static const char *const types[] = {"iCCP", "eXIf", "zTXt", "iTXt", "abcd", "IDAT", "PLTE"};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    for (int beyond = 0; beyond < 2; beyond++) {
      forge f = {0};
      png_signature(&f);
      png_ihdr(&f, 1, 1, 8, 2, 0);
      png_chunk_head(&f, types[i], beyond ? UINT32_MAX : 1000000000);
      forge_zeros(&f, 1000);
      const clock_t before = clock();
      refused(&f, "x.png", "PNG: ");
      assert_true((double)(clock() - before) / CLOCKS_PER_SEC < 1);
    }
  }
  (void)test;
}

/* Every beginning of an interlaced and of a plain file. */
static void png_truncated(void **test) {
  for (int interlace = 0; interlace < 2; interlace++) {
    /* passes of 2x2, 2x2, 4x2, 4x4, 8x4, 8x8, 16x8 pixels, a filter byte a row */
    const size_t n = interlace ? 2 * 7 + 2 * 7 + 2 * 13 + 4 * 13 + 4 * 25 + 8 * 25 + 8 * 49 : 16 * 49;
    unsigned char *pixels = calloc(n, 1);
    assert_non_null(pixels);
    forge whole = {0};
    png_image(&whole, 16, 16, 8, 2, interlace, NULL, 0, pixels, n);
    free(pixels);
    arb_image image;
    arb_assert_ok(arb_image_decode(whole.bytes, whole.used, "x.png", 256, &image));
    arb_image_free(&image);
    for (size_t cut = 8; cut < whole.used; cut++) {
      forge f = {0};
      forge_bytes(&f, whole.bytes, cut);
      refused(&f, "x.png", "PNG: ends early");
    }
    free(whole.bytes);
  }
  (void)test;
}

/* ---- JPEG -------------------------------------------------------------------------------------------------------------- */

enum { SOF0 = 0xc0, SOF2 = 0xc2, DHT = 0xc4, EOI = 0xd9, SOS = 0xda, DQT = 0xdb };

static void jpeg_truncated(void **test) {
  for (int scans = ONE_SCAN; scans <= PROGRESSIVE; scans++) {
    forge whole = {0};
    jpeg_image(&whole, 24, 16, 3, (jpeg_scans)scans);
    for (size_t cut = 3; cut < whole.used; cut++) { /* the last one lacks the D9 of EOI, the one before all of it */
      forge f = {0};
      forge_bytes(&f, whole.bytes, cut);
      refused(&f, "x.jpg", "JPEG: ");
    }
    free(whole.bytes);
  }
  (void)test;
}

static void jpeg_headers(void **test) {
  static const struct {
    int marker, at;
    unsigned char value;
    const char *reason;
  } cases[] = {
      {SOF0, 4, 12, "JPEG: Unsupported JPEG data precision 12"},
      {SOF0, 4, 16, "JPEG: Unsupported JPEG data precision 16"},
      {SOF0, 4, 0, "JPEG: Unsupported JPEG data precision 0"},
      {SOF0, 9, 2, "JPEG: "}, /* components */
      {SOF0, 9, 0, "JPEG: "},
      {SOF0, 11, 0x00, "JPEG: "}, /* sampling factors */
      {SOF0, 11, 0xff, "JPEG: "},
      {SOF0, 3, 3, "JPEG: "}, /* length of the segment */
      {DQT, 4, 0x0f, "JPEG: "},
      {DHT, 4, 0x1f, "JPEG: "},
      {DHT, 5, 255, "JPEG: "},
      {SOS, 4, 9, "JPEG: "},
      {SOS, 6, 0x33, "JPEG: "},
      {EOI, 1, 0xd8, "JPEG: "}, /* a second SOI in place of EOI */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    jpeg_image(&f, 24, 16, 3, ONE_SCAN);
    const size_t at = jpeg_marker(&f, cases[i].marker) + (size_t)cases[i].at;
    assert_true(at < f.used);
    f.bytes[at] = cases[i].value;
    refused(&f, "x.jpg", cases[i].reason);
  }
  (void)test;
}

static void set_size(forge *f, unsigned width, unsigned height) {
  unsigned char *sof = f->bytes + jpeg_marker(f, SOF0);
  sof[5] = (unsigned char)(height >> 8);
  sof[6] = (unsigned char)height;
  sof[7] = (unsigned char)(width >> 8);
  sof[8] = (unsigned char)width;
}

static void jpeg_sizes(void **test) {
  forge f = {0};
  static const struct {
    unsigned width, height;
    const char *reason;
  } cases[] = {{0, 16, "JPEG: "},
               {24, 0, "JPEG: "},
               {65535, 65535, "JPEG: "},
               {16385, 1, "JPEG: 16385 x 1 pixels, expected sides"},
               {16384, 16384, "JPEG: 16384 x 16384 pixels, expected sides"},
               {24, 64, "JPEG: "},
               {640, 480, "JPEG: "}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    jpeg_image(&f, 24, 16, 3, ONE_SCAN);
    set_size(&f, cases[i].width, cases[i].height);
    refused(&f, "x.jpg", cases[i].reason);
  }
  /* A second SOF with other sizes, behind the first. */
  forge whole = {0};
  jpeg_image(&whole, 24, 16, 3, ONE_SCAN);
  const size_t sof = jpeg_marker(&whole, SOF0), sof_bytes = 2 + (size_t)whole.bytes[sof + 3], sos = jpeg_marker(&whole, SOS);
  forge_bytes(&f, whole.bytes, sos);
  const size_t second = f.used;
  forge_bytes(&f, whole.bytes + sof, sof_bytes);
  f.bytes[second + 6] = 200;
  forge_bytes(&f, whole.bytes + sos, whole.used - sos);
  free(whole.bytes);
  refused(&f, "x.jpg", "two SOF markers");
  /* Four components. */
  jpeg_image(&f, 24, 16, 4, ONE_SCAN);
  refused(&f, "x.jpg", "JPEG: 4 colour components (CMYK), expected 1 (grey) or 3");
  (void)test;
}

/* Scans without end: each rewrites its component, in a file of some kilobytes. Repeated in a progressive file they contradict
 * each other as well. */
static void jpeg_repeated_scans(void **test) {
  for (int kind = SCAN_EACH; kind <= PROGRESSIVE; kind++) {
    for (int many = 50; many <= 500; many += 450) {
      forge whole = {0}, f = {0};
      arb_image image;
      jpeg_image(&whole, 24, 16, 3, (jpeg_scans)kind);
      const size_t sos = jpeg_marker(&whole, SOS);
      size_t end = sos + 2;
      while (!(whole.bytes[end] == 0xff && whole.bytes[end + 1] != 0)) end++; /* behind the first scan */
      forge_bytes(&f, whole.bytes, sos);
      for (int i = 0; i < many; i++) forge_bytes(&f, whole.bytes + sos, end - sos);
      forge_bytes(&f, whole.bytes + end, whole.used - end);
      free(whole.bytes);
      if (kind == SCAN_EACH && many == 50) {
        arb_assert_ok(arb_image_decode(f.bytes, f.used, "x.jpg", 24 * 16, &image));
        arb_image_free(&image);
        free(f.bytes);
      } else {
        refused(&f, "x.jpg", kind == SCAN_EACH ? "JPEG: more than 100 scans" : "JPEG: ");
      }
    }
  }
  (void)test;
}

/* Any byte, changed: an answer and no more; what is refused names the file. */
static void flipped_bytes(void **test) {
  for (int kind = 0; kind < 3; kind++) {
    forge whole = {0};
    if (kind < 2) {
      jpeg_image(&whole, 24, 16, 3, kind == 1 ? PROGRESSIVE : ONE_SCAN);
    } else {
      unsigned char raw[4 * 13] = {0};
      png_image(&whole, 4, 4, 8, 2, 0, NULL, 0, raw, sizeof raw);
    }
    for (size_t at = 0; at < whole.used; at++) {
      for (int bit = 0; bit < 8; bit += 3) {
        arb_image image;
        whole.bytes[at] ^= (unsigned char)(1 << bit);
        arb_fail_clear();
        const arb_status st = arb_image_decode(whole.bytes, whole.used, "x", ARB_IMAGE_MAX_PIXELS, &image);
        assert_true(st == ARB_OK || (st == ARB_ERR_DATA && strncmp(arb_fail_message(), "x: ", 3) == 0));
        arb_image_free(&image);
        whole.bytes[at] ^= (unsigned char)(1 << bit);
      }
    }
    free(whole.bytes);
  }
  arb_fail_clear();
  (void)test;
}

#define FOLDER(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(other_files),     FOLDER(no_regular_file),         cmocka_unit_test(png_headers),
      cmocka_unit_test(png_crc),         cmocka_unit_test(png_palettes),  cmocka_unit_test(png_pixels),
      cmocka_unit_test(png_huge_chunks), cmocka_unit_test(png_truncated), cmocka_unit_test(jpeg_truncated),
      cmocka_unit_test(jpeg_headers),    cmocka_unit_test(jpeg_sizes),    cmocka_unit_test(jpeg_repeated_scans),
      cmocka_unit_test(flipped_bytes)};
  return cmocka_run_group_tests_name("hostile_image", tests, NULL, NULL);
}
