#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/media/image_impl.h"

/* libpng reports through longjmp. Everything that must survive one lives here, not in locals. */
typedef struct {
  png_structp png;
  png_infop info;
  png_bytepp rows;
  jmp_buf failed;
  const unsigned char *bytes;
  size_t left;
  arb_image *out;
  int64_t max_pixels;
  arb_status status; /* of a failure of ours, which has its message already */
  FILE *file;        /* when writing */
  char message[160];
} context;

static _Noreturn void on_error(png_structp png, png_const_charp text) {
  context *c = png_get_error_ptr(png);
  snprintf(c->message, sizeof c->message, "%s", text);
  longjmp(c->failed, 1);
}

/* Benign errors are errors (png_set_benign_errors); what is left concerns chunks that are not used. */
static void on_warning(png_structp png, png_const_charp text) { (void)png, (void)text; }

static void on_read(png_structp png, png_bytep to, size_t n) {
  context *c = png_get_io_ptr(png);
  if (n > c->left) png_error(png, "ends early");
  memcpy(to, c->bytes, n);
  c->bytes += n;
  c->left -= n;
}

/* The indices lie in the last third of each row's place: a pixel is written behind those still to be read. */
static void look_up(context *c) {
  png_colorp palette;
  int entries = 0;
  if (png_get_PLTE(c->png, c->info, &palette, &entries) == 0) png_error(c->png, "no palette");
  for (int y = 0; y < c->out->height; y++) {
    unsigned char *to = c->out->rgb + (size_t)y * (size_t)c->out->width * 3;
    for (int x = 0; x < c->out->width; x++) {
      const int index = c->rows[y][x];
      if (index >= entries) png_error(c->png, "a pixel beyond the palette");
      to[3 * x] = palette[index].red;
      to[3 * x + 1] = palette[index].green;
      to[3 * x + 2] = palette[index].blue;
    }
  }
}

/* Fails by png_error or by c->status. */
static void read_image(context *c) {
  png_structp png = c->png;
  png_set_read_fn(png, c, on_read);
  png_set_user_limits(png, ARB_IMAGE_MAX_SIDE, ARB_IMAGE_MAX_SIDE);
  png_set_chunk_malloc_max(png, 1 << 20);
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_set_benign_errors(png, 0);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1); /* skip all but IHDR, PLTE, tRNS, IDAT, IEND */
  png_read_info(png, c->info);
  const png_uint_32 width = png_get_image_width(png, c->info), height = png_get_image_height(png, c->info);
  if (png_get_bit_depth(png, c->info) > 8) png_error(png, "16 bits a channel, expected at most 8");
  c->status = arb_image_allocate(width, height, c->max_pixels, c->out);
  if (c->status != ARB_OK) return;
  const bool indexed = png_get_color_type(png, c->info) == PNG_COLOR_TYPE_PALETTE;
  if (indexed) {
    png_set_packing(png); /* a byte a pixel; looked up below, because libpng makes black of what is beyond its palette */
  } else {
    png_set_expand(png); /* few bits and transparency become 8-bit channels … */
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png); /* … of which RGB is kept */
  }
  png_set_interlace_handling(png);
  png_read_update_info(png, c->info);
  const size_t line = (size_t)width * 3, used = indexed ? width : line;
  if (png_get_rowbytes(png, c->info) != used) png_error(png, "rows of an unexpected length");
  c->rows = malloc(height * sizeof *c->rows);
  if (c->rows == NULL) png_error(png, "no memory");
  for (png_uint_32 y = 0; y < height; y++) c->rows[y] = c->out->rgb + y * line + (line - used);
  png_read_image(png, c->rows);
  png_read_end(png, c->info);
  if (indexed) look_up(c);
}

/* Apart, so that nothing local to the function with setjmp changes. */
static arb_status guarded_read(context *c) {
  if (setjmp(c->failed) != 0) return ARB_FAIL(ARB_ERR_DATA, "%s", c->message);
  read_image(c);
  return c->status;
}

arb_status arb_image_decode_png(const unsigned char *bytes, size_t n, int64_t max_pixels, arb_image *out) {
  context c = {.bytes = bytes, .left = n, .out = out, .max_pixels = max_pixels};
  c.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &c, on_error, on_warning);
  c.info = c.png != NULL ? png_create_info_struct(c.png) : NULL;
  const arb_status st = c.info != NULL ? guarded_read(&c) : ARB_FAIL(ARB_ERR_NOMEM, "no memory for a decoder");
  png_destroy_read_struct(&c.png, &c.info, NULL);
  free(c.rows);
  return st;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------- */

static void on_write(png_structp png, png_bytep from, size_t n) {
  context *c = png_get_io_ptr(png);
  if (fwrite(from, 1, n, c->file) != n) png_error(png, strerror(errno));
}

static void on_flush(png_structp png) { (void)png; }

static void write_image(context *c, const unsigned char *rgb, int width, int height) {
  png_set_write_fn(c->png, c, on_write, on_flush);
  png_set_IHDR(c->png, c->info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(c->png, c->info);
  for (int y = 0; y < height; y++) png_write_row(c->png, rgb + (size_t)y * (size_t)width * 3);
  png_write_end(c->png, NULL);
}

static arb_status guarded_write(context *c, const char *path, const unsigned char *rgb, int width, int height) {
  if (setjmp(c->failed) != 0) return ARB_FAIL(ARB_ERR_IO, "%s: cannot be written: %s", path, c->message);
  write_image(c, rgb, width, height);
  return ARB_OK;
}

static arb_status write_file(context *c, const char *path, const unsigned char *rgb, int width, int height) {
  c->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, c, on_error, on_warning);
  c->info = c->png != NULL ? png_create_info_struct(c->png) : NULL;
  const arb_status st =
      c->info != NULL ? guarded_write(c, path, rgb, width, height) : ARB_FAIL(ARB_ERR_NOMEM, "no memory to write %s", path);
  png_destroy_write_struct(&c->png, &c->info);
  return st;
}

arb_status arb_image_write_png(const char *path, const unsigned char *rgb, int width, int height) {
  context c = {0};
  char temporary[4096];
  const int n = snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
  ARB_REQUIRE(n > 0 && n < (int)sizeof temporary, ARB_ERR_IO, "%.200s...: path too long", path);
  ARB_REQUIRE(width >= 1 && width <= ARB_IMAGE_MAX_SIDE && height >= 1 && height <= ARB_IMAGE_MAX_SIDE, ARB_ERR_ARG,
              "%s: %d x %d pixels", path, width, height);
  c.file = fopen(temporary, "wb");
  ARB_REQUIRE(c.file != NULL, ARB_ERR_IO, "%s: cannot be created: %s", temporary, strerror(errno));
  arb_status st = write_file(&c, path, rgb, width, height);
  if (fclose(c.file) != 0 && st == ARB_OK) st = ARB_FAIL(ARB_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
  if (st == ARB_OK && rename(temporary, path) != 0)
    st = ARB_FAIL(ARB_ERR_IO, "%s: cannot be renamed to %s: %s", temporary, path, strerror(errno));
  if (st != ARB_OK) unlink(temporary);
  return st;
}
