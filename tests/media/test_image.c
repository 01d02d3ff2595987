/* Decoding of every kind of sound PNG and JPEG, Pillow's resampling to the bit, preprocessing, writing. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/media/image.h"
#include "tests/media/make.h"
#include "tests/test.h"

static arb_image make_pattern(int width, int height) {
  arb_image image = {width, height, malloc((size_t)width * (size_t)height * 3)};
  assert_non_null(image.rgb);
  pattern(image.rgb, width, height);
  return image;
}

/* ---- PNG --------------------------------------------------------------------------------------------------------------- */

/* Two rows of two pixels in every kind of 8 bits or fewer. */
static void kinds_of_png(void **test) {
  static const struct {
    int depth, colour;
    const char *raw;
    size_t n;
    unsigned char expected[12];
  } cases[] = {
      {1, 0, "\0\x40\0\x80", 4, {0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0}},
      {2, 0, "\0\x10\0\xb0", 4, {0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255}},
      {4, 0, "\0\x01\0\xf8", 4, {0, 0, 0, 17, 17, 17, 255, 255, 255, 136, 136, 136}},
      {8, 0, "\0\x01\x02\0\xfe\xff", 6, {1, 1, 1, 2, 2, 2, 254, 254, 254, 255, 255, 255}},
      {8, 2, "\0\1\2\3\4\5\6\0\7\10\11\12\13\14", 14, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
      {8, 2, "\0\1\2\3\4\5\6\2\1\1\1\1\1\1", 14, {1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 7}}, /* filter: the row above */
      {8, 3, "\0\0\1\0\2\1", 6, {10, 20, 30, 40, 50, 60, 70, 80, 90, 40, 50, 60}},
      {2, 3, "\0\x10\0\x90", 4, {10, 20, 30, 40, 50, 60, 70, 80, 90, 40, 50, 60}},
      {8, 4, "\0\1\0\2\xff\0\3\x80\4\0", 10, {1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4}}, /* alpha is dropped, not blended */
      {8, 6, "\0\1\2\3\0\4\5\6\xff\0\7\10\11\x80\12\13\14\1", 18, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
  };
  static const unsigned char palette[] = {10, 20, 30, 40, 50, 60, 70, 80, 90};
  arb_image image;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    png_image(&f, 2, 2, cases[i].depth, cases[i].colour, 0, cases[i].colour == 3 ? palette : NULL, 3, cases[i].raw, cases[i].n);
    arb_assert_ok(arb_image_decode(f.bytes, f.used, "x.png", 4, &image));
    assert_true(image.width == 2 && image.height == 2);
    assert_memory_equal(image.rgb, cases[i].expected, 12);
    arb_image_free(&image);
    assert_null(image.rgb);
    free(f.bytes);
  }
  (void)test;
}

/* Chunks that carry no pixels change nothing: transparency, gamma, a colour profile that is none, a text that would unpack to
 * 100 MB. */
static void other_chunks(void **test) {
  forge f = {0}, text = {0};
  arb_image image;
  unsigned char raw[] = {0, 1, 2, 3};
  forge zeros = {0};
  forge_zeros(&zeros, 100000000);
  png_idat(&text, zeros.bytes, zeros.used); /* borrowed for its compression */
  free(zeros.bytes);
  png_signature(&f);
  png_ihdr(&f, 1, 1, 8, 2, 0);
  png_chunk(&f, "gAMA", "\0\0\0\1", 4);
  png_chunk(&f, "iCCP", "name\0\0junk", 10);
  png_chunk(&f, "tRNS", "\0\1\0\2\0\3", 6);
  png_chunk(&f, "eXIf", "MM\0*\0\0\0\x08", 8);
  forge z = {0};
  forge_bytes(&z, "key\0\0", 5);
  forge_bytes(&z, text.bytes + 8, text.used - 12);
  png_chunk(&f, "zTXt", z.bytes, z.used);
  png_idat(&f, raw, 4);
  png_chunk(&f, "IEND", "", 0);
  arb_assert_ok(arb_image_decode(f.bytes, f.used, "x.png", 1, &image));
  assert_memory_equal(image.rgb, raw + 1, 3);
  arb_image_free(&image);
  free(f.bytes);
  free(z.bytes);
  free(text.bytes);
  (void)test;
}

static void write_and_read(void **test) {
  static const int sides[][2] = {{1, 1}, {3, 2}, {224, 224}, {1000, 7}};
  for (size_t i = 0; i < 4; i++) {
    arb_image image = make_pattern(sides[i][0], sides[i][1]), back;
    const char *path = in_folder(*test, "frame.png");
    arb_assert_ok(arb_image_write_png(path, image.rgb, image.width, image.height));
    arb_assert_ok(arb_image_read(path, &back));
    assert_true(back.width == image.width && back.height == image.height);
    assert_memory_equal(back.rgb, image.rgb, (size_t)image.width * (size_t)image.height * 3);
    arb_image_free(&back);
    arb_image_free(&image);
  }
  arb_image image = make_pattern(2, 2);
  arb_assert_fails(arb_image_write_png(in_folder(*test, "no/x.png"), image.rgb, 2, 2), ARB_ERR_IO, "No such file");
  assert_int_equal(mkdir(in_folder(*test, "folder"), 0700), 0);
  arb_assert_fails(arb_image_write_png(in_folder(*test, "folder"), image.rgb, 2, 2), ARB_ERR_IO, "cannot be renamed");
  arb_assert_fails(arb_image_write_png("/dev/full", image.rgb, 0, 2), ARB_ERR_ARG, "0 x 2 pixels");
  arb_image_free(&image);
}

/* ---- JPEG -------------------------------------------------------------------------------------------------------------- */

/* At quality 100 the error of a smooth image is small; the pattern is not smooth, so a flat one is asked about. */
static void kinds_of_jpeg(void **test) {
  arb_image image;
  for (int kind = 0; kind < 4; kind++) {
    forge f = {0};
    const int components = kind < 2 ? 3 : 1;
    jpeg_image(&f, 33, 17, components, kind % 2 == 1 ? PROGRESSIVE : SCAN_EACH);
    arb_assert_ok(arb_image_decode(f.bytes, f.used, kind % 2 ? "photo.JPEG" : "photo.jpg", 33 * 17, &image));
    assert_true(image.width == 33 && image.height == 17);
    unsigned char rgb[33 * 17 * 3];
    pattern(rgb, 33, 17);
    double error = 0;
    for (int i = 0; i < 33 * 17 * 3; i++) {
      const int expected = components == 3 ? rgb[i] : rgb[i / 3 * 3];
      error += fabs((double)(image.rgb[i] - expected)) / (33 * 17 * 3);
    }
    assert_true(error < (components == 3 ? 40 : 2)); /* colour is stored at half the resolution */
    if (components == 1) assert_true(image.rgb[0] == image.rgb[1] && image.rgb[1] == image.rgb[2]);
    arb_image_free(&image);
    free(f.bytes);
  }
  (void)test;
}

/* ---- resampling: expected values made with Pillow 12.3.0 by Image.resize(size, BICUBIC) of the pattern ------------------ */

static void pillow_small(void **test) {
  static const unsigned char shrunk[] = {8,  58,  108, 20, 70,  120, 33, 83,  133, 46, 96,  146, 30, 80,  130, 45,  95,  145,
                                         61, 111, 161, 76, 126, 176, 51, 101, 151, 70, 120, 170, 89, 139, 189, 107, 157, 207};
  static const unsigned char grown[] = {0,  48, 98,  1,  51, 101, 6,  56, 106, 11, 61, 111, 14, 64, 114,
                                        2,  52, 102, 5,  55, 105, 10, 60, 110, 15, 65, 115, 18, 68, 118,
                                        10, 59, 109, 12, 62, 112, 18, 68, 118, 24, 74, 124, 27, 77, 127,
                                        13, 63, 113, 16, 66, 116, 22, 72, 122, 28, 78, 128, 31, 81, 131};
  arb_image in = make_pattern(7, 5), out;
  arb_assert_ok(arb_image_resize(&in, 4, 3, &out));
  assert_memory_equal(out.rgb, shrunk, sizeof shrunk);
  arb_image_free(&out);
  arb_image_free(&in);
  in = make_pattern(3, 2);
  arb_assert_ok(arb_image_resize(&in, 5, 4, &out));
  assert_memory_equal(out.rgb, grown, sizeof grown);
  arb_image_free(&out);
  arb_image_free(&in);
  (void)test;
}

static void pillow_large(void **test) {
  static const struct {
    int width, height, to_width, to_height;
    uint64_t digest;
  } cases[] = {{300, 200, 97, 131, 0x48e12730fdeeed69u}, {64, 48, 640, 480, 0x41e8554e78c37430u},
               {1000, 3, 50, 700, 0xa9f8f86194f3a05au},  {1, 1, 9, 5, 0x169c6efe6e789b59u},
               {2, 333, 2, 100, 0x917a6a979babd39fu},    {333, 2, 100, 2, 0x87d5a915e770a0e1u},
               {500, 375, 500, 200, 0x3474af240ea72b37u}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arb_image in = make_pattern(cases[i].width, cases[i].height), out;
    arb_assert_ok(arb_image_resize(&in, cases[i].to_width, cases[i].to_height, &out));
    assert_true(fnv(out.rgb, (size_t)out.width * (size_t)out.height * 3) == cases[i].digest);
    arb_image_free(&out);
    arb_image_free(&in);
  }
  (void)test;
}

/* resize, then crop, in Pillow; here only the window is computed. */
static void pillow_crops(void **test) {
  static const struct {
    int width, height;
    uint64_t digest;
  } cases[] = {{300, 200, 0xf2752f5c8941442fu},  {200, 301, 0x515b36d14682dc90u}, {32, 32, 0x99876e603083d418u},
               {257, 1023, 0x7f6d7662ab67e562u}, {640, 480, 0x3122331b0ccbe79bu}, {5, 99, 0x868a035f6fe8e392u},
               {224, 224, 0xd154ebef90275030u},  {256, 256, 0xc94d6cae486c65a5u}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arb_image in = make_pattern(cases[i].width, cases[i].height), out;
    arb_assert_ok(arb_image_resize_crop(&in, 256, 224, &out));
    assert_true(out.width == 224 && out.height == 224);
    assert_true(fnv(out.rgb, 224 * 224 * 3) == cases[i].digest);
    arb_image_free(&out);
    arb_image_free(&in);
  }
  /* A line of pixels: 4 million pixels long when its short side has 256. */
  arb_image line = make_pattern(1, ARB_IMAGE_MAX_SIDE), out;
  arb_assert_ok(arb_image_resize_crop(&line, 256, 224, &out));
  arb_image_free(&out);
  arb_image_free(&line);
  (void)test;
}

static void dino(void **test) {
  arb_image in = make_pattern(300, 200), window;
  float *pixels = malloc(3 * 224 * 224 * sizeof *pixels), *direct = malloc(3 * 224 * 224 * sizeof *direct);
  assert_true(pixels != NULL && direct != NULL);
  arb_assert_ok(arb_image_dino(&in, pixels));
  assert_true(pixels[0] == -0x1.cdd906p-1f);
  assert_true(pixels[(1 * 224 + 100) * 224 + 57] == 0x1.016f2ap-1f);
  assert_true(pixels[(2 * 224 + 223) * 224 + 223] == 0x1.d43aa8p-1f);
  arb_assert_ok(arb_image_resize_crop(&in, 256, 224, &window));
  arb_image_normalise(&window, direct);
  assert_memory_equal(pixels, direct, 3 * 224 * 224 * sizeof *pixels);
  arb_image_free(&window);
  arb_image_free(&in);
  free(pixels);
  free(direct);
  (void)test;
}

#define FOLDER(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(kinds_of_png), cmocka_unit_test(other_chunks),
                                     FOLDER(write_and_read),         cmocka_unit_test(kinds_of_jpeg),
                                     cmocka_unit_test(pillow_small), cmocka_unit_test(pillow_large),
                                     cmocka_unit_test(pillow_crops), cmocka_unit_test(dino)};
  return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
