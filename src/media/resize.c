/* Pillow's bicubic resampling (src/libImaging/Resample.c), to the bit, for any window of the result; and what DINOv2 makes of
 * it. */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/media/image_impl.h"

enum { FRACTION = 22 }; /* bits of a coefficient: 32 less 8 of the pixel and 2 for overshoot */

/* The taps of one output coordinate: pixels first … first + count - 1, coefficients at k[index * width]. */
typedef struct {
  int *first, *count;
  int32_t *k;
  int width; /* most taps of a coordinate */
} filter;

/* Keys' cubic, a = -0.5. */
static double cubic(double x) {
  const double a = -0.5;
  x = fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

static void filter_free(filter *f) {
  free(f->first);
  free(f->count);
  free(f->k);
}

/* Output coordinates from … from + n - 1 of a side that goes from `in` to `out` pixels. */
static arb_status filter_make(int in, int out, int from, int n, filter *f) {
  const double scale = (double)in / out, stretch = scale < 1 ? 1 : scale, support = 2 * stretch;
  *f = (filter){.width = (int)ceil(support) * 2 + 1};
  double *weights = malloc((size_t)f->width * sizeof *weights);
  f->first = malloc((size_t)n * sizeof *f->first);
  f->count = malloc((size_t)n * sizeof *f->count);
  f->k = calloc((size_t)n * (size_t)f->width, sizeof *f->k);
  if (weights == NULL || f->first == NULL || f->count == NULL || f->k == NULL) {
    free(weights);
    filter_free(f);
    return ARB_FAIL(ARB_ERR_NOMEM, "no memory to resize from %d to %d pixels", in, out);
  }
  for (int i = 0; i < n; i++) {
    const double centre = (from + i + 0.5) * scale;
    const int low = (int)(centre - support + 0.5), high = (int)(centre + support + 0.5);
    const int first = low < 0 ? 0 : low, end = high > in ? in : high;
    double sum = 0;
    for (int x = first; x < end; x++) sum += weights[x - first] = cubic((x - centre + 0.5) * (1 / stretch));
    for (int x = first; x < end; x++) {
      const double w = (sum != 0 ? weights[x - first] / sum : weights[x - first]) * (1 << FRACTION);
      f->k[(size_t)i * (size_t)f->width + (size_t)(x - first)] = (int32_t)(w < 0 ? -0.5 + w : 0.5 + w);
    }
    f->first[i] = first;
    f->count[i] = end - first;
  }
  free(weights);
  return ARB_OK;
}

static unsigned char clip(int32_t sum) {
  const int32_t value = sum >> FRACTION;
  return (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* One output pixel: taps `step` bytes apart. */
static void mix(const unsigned char *from, size_t step, const int32_t *k, int taps, unsigned char *to) {
  int32_t r = 1 << (FRACTION - 1), g = r, b = r;
  for (int i = 0; i < taps; i++, from += step) {
    r += from[0] * k[i];
    g += from[1] * k[i];
    b += from[2] * k[i];
  }
  to[0] = clip(r);
  to[1] = clip(g);
  to[2] = clip(b);
}

/* Window [top, top + h) x [left, left + w) of the image resized to height x width, into out [h][w][3]. */
static arb_status resize_window(const arb_image *in, int width, int height, int left, int top, int w, int h,
                                unsigned char *out) {
  filter across, down;
  ARB_TRY(filter_make(in->width, width, left, w, &across));
  const arb_status st = filter_make(in->height, height, top, h, &down);
  if (st != ARB_OK) {
    filter_free(&across);
    return st;
  }
  const int first = down.first[0],
            rows = down.first[h - 1] + down.count[h - 1] - first; /* of the input, that the window needs */
  const size_t line = (size_t)w * 3;
  unsigned char *narrow = malloc((size_t)rows * line);
  for (int y = 0; y < rows && narrow != NULL; y++) {
    const unsigned char *from = in->rgb + (size_t)(first + y) * (size_t)in->width * 3;
    for (int x = 0; x < w; x++)
      mix(from + (size_t)across.first[x] * 3, 3, across.k + (size_t)x * (size_t)across.width, across.count[x],
          narrow + (size_t)y * line + (size_t)x * 3);
  }
  for (int y = 0; y < h && narrow != NULL; y++)
    for (int x = 0; x < w; x++)
      mix(narrow + (size_t)(down.first[y] - first) * line + (size_t)x * 3, line, down.k + (size_t)y * (size_t)down.width,
          down.count[y], out + (size_t)y * line + (size_t)x * 3);
  filter_free(&across);
  filter_free(&down);
  ARB_REQUIRE(narrow != NULL, ARB_ERR_NOMEM, "no memory to resize %d x %d pixels", in->width, in->height);
  free(narrow);
  return ARB_OK;
}

static arb_status resize_into(const arb_image *in, int width, int height, int left, int top, int w, int h, arb_image *out) {
  *out = (arb_image){0};
  ARB_TRY(arb_image_allocate(w, h, ARB_IMAGE_MAX_PIXELS, out));
  const arb_status st = resize_window(in, width, height, left, top, w, h, out->rgb);
  if (st != ARB_OK) arb_image_free(out);
  return st;
}

arb_status arb_image_resize(const arb_image *in, int width, int height, arb_image *out) {
  return resize_into(in, width, height, 0, 0, width, height, out);
}

arb_status arb_image_resize_crop(const arb_image *in, int short_side, int side, arb_image *out) {
  ARB_REQUIRE(side >= 1 && side <= short_side && short_side <= ARB_IMAGE_MAX_SIDE, ARB_ERR_ARG, "a window of %d in %d", side,
              short_side);
  const bool wide = in->width > in->height;
  const int64_t s = wide ? in->height : in->width, l = wide ? in->width : in->height;
  const int longer = (int)(short_side * l / s); /* at most 2^14 * 2^14 */
  const int width = wide ? longer : short_side, height = wide ? short_side : longer;
  return resize_into(in, width, height, (width - side) / 2, (height - side) / 2, side, side, out);
}

void arb_image_normalise(const arb_image *in, float *out) {
  static const float mean[3] = {0.485f, 0.456f, 0.406f}, deviation[3] = {0.229f, 0.224f, 0.225f};
  const size_t pixels = (size_t)in->width * (size_t)in->height;
  for (size_t c = 0; c < 3; c++) {
    float value[256]; /* rescaled in float64, then float32: as the original does */
    for (int v = 0; v < 256; v++) value[v] = ((float)(v * 0.00392156862745098) - mean[c]) / deviation[c];
    for (size_t i = 0; i < pixels; i++) out[c * pixels + i] = value[in->rgb[3 * i + c]];
  }
}

arb_status arb_image_dino(const arb_image *in, float *out) {
  arb_image window;
  ARB_TRY(arb_image_resize_crop(in, ARB_IMAGE_DINO_SHORT, ARB_IMAGE_DINO_SIDE, &window));
  arb_image_normalise(&window, out);
  arb_image_free(&window);
  return ARB_OK;
}
