/* jpeglib.h uses FILE and size_t without including what declares them. */
#include <stddef.h>
#include <stdio.h>

#include <jerror.h>
#include <jpeglib.h>
#include <setjmp.h>
#include <stdbool.h>

#include "src/media/image_impl.h"

/* A progressive file may rewrite the whole image in every scan; real ones have about ten. */
enum { MAX_SCANS = 100 };

typedef struct {
  struct jpeg_error_mgr errors; /* first: libjpeg hands out its address */
  struct jpeg_decompress_struct jpeg;
  struct jpeg_progress_mgr progress;
  jmp_buf failed;
  arb_image *out;
  int64_t max_pixels;
  arb_status status; /* of a failure of ours, which has its message already */
  char message[JMSG_LENGTH_MAX];
} context;

static _Noreturn void on_error(j_common_ptr jpeg) {
  context *c = (context *)jpeg->err;
  if (c->message[0] == '\0') jpeg->err->format_message(jpeg, c->message);
  longjmp(c->failed, 1);
}

/* Level -1 is a warning: data that the library can only guess at, as after a cut. Two do no harm and occur in sound files. */
static void on_message(j_common_ptr jpeg, int level) {
  const int code = jpeg->err->msg_code;
  if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_JFIF_MAJOR) on_error(jpeg);
}

static void on_progress(j_common_ptr jpeg) {
  context *c = (context *)jpeg->err;
  if (c->jpeg.input_scan_number <= MAX_SCANS) return;
  snprintf(c->message, sizeof c->message, "more than %d scans", MAX_SCANS);
  on_error(jpeg);
}

/* Fails by longjmp or by c->status. */
static void read_image(context *c, const unsigned char *bytes, size_t n) {
  struct jpeg_decompress_struct *jpeg = &c->jpeg;
  jpeg_create_decompress(jpeg);
  c->progress.progress_monitor = on_progress;
  jpeg->progress = &c->progress;
  jpeg_mem_src(jpeg, bytes, n);
  jpeg_read_header(jpeg, TRUE);
  const bool known = jpeg->num_components == 1 || jpeg->num_components == 3;
  if (!known) {
    c->status = ARB_FAIL(ARB_ERR_DATA, "%d colour components%s, expected 1 (grey) or 3", jpeg->num_components,
                         jpeg->num_components == 4 ? " (CMYK)" : "");
    return;
  }
  c->status = arb_image_allocate(jpeg->image_width, jpeg->image_height, c->max_pixels, c->out);
  if (c->status != ARB_OK) return;
  jpeg->out_color_space = JCS_RGB;
  jpeg->dct_method = JDCT_ISLOW;
  jpeg_start_decompress(jpeg);
  while (jpeg->output_scanline < jpeg->output_height) {
    JSAMPROW row = c->out->rgb + (size_t)jpeg->output_scanline * jpeg->output_width * 3;
    jpeg_read_scanlines(jpeg, &row, 1);
  }
  jpeg_finish_decompress(jpeg);
}

/* Apart, so that nothing local to the function with setjmp changes. */
static arb_status guarded_read(context *c, const unsigned char *bytes, size_t n) {
  if (setjmp(c->failed) != 0) return ARB_FAIL(ARB_ERR_DATA, "%s", c->message);
  read_image(c, bytes, n);
  return c->status;
}

arb_status arb_image_decode_jpeg(const unsigned char *bytes, size_t n, int64_t max_pixels, arb_image *out) {
  context c = {.out = out, .max_pixels = max_pixels};
  c.jpeg.err = jpeg_std_error(&c.errors);
  c.errors.error_exit = on_error;
  c.errors.emit_message = on_message;
  const arb_status st = guarded_read(&c, bytes, n);
  jpeg_destroy_decompress(&c.jpeg);
  return st;
}
