/* arbckpt_fixture DIR KIND: checkpoints for arbckpt.sh. KIND "good" makes steps 3 and 5, whose differences arbckpt.sh knows,
 * and beside DIR the files trits, accumulators and e with what cat has to print; every other kind makes step 3 with one thing
 * wrong that only looking at the content shows, or that HDF5 itself would follow. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/checkpoint/inspect.h"
#include "tests/checkpoint/resign.h"

#define NEED(cond)                                                                       \
  do {                                                                                   \
    if (!(cond)) {                                                                       \
      fprintf(stderr, "%s:%d: %s\n%s\n", __FILE__, __LINE__, #cond, arb_fail_message()); \
      exit(1);                                                                           \
    }                                                                                    \
  } while (0)

enum { UV_ROWS = 6, UV_COLUMNS = 5, B_ROWS = 3, B_COLUMNS = 20, ARRAYS = 13 };

/* Trit and accumulator of the weights, from which the codes follow: docs/arithmetic.md, "The state byte". */
static int trit[UV_ROWS * UV_COLUMNS], accumulator[UV_ROWS * UV_COLUMNS];
static unsigned char uv_code[UV_ROWS * UV_COLUMNS], b_code[B_ROWS * B_COLUMNS], extra[4];
static signed char uv_e[UV_ROWS], uv_p[UV_ROWS], b_e[B_ROWS], b_p[B_ROWS], norm_e[4];
static int uv_r[UV_ROWS], uv_c[2 * UV_COLUMNS], uv_m[2], b_r[B_ROWS], b_c[B_COLUMNS], b_m[1];

static unsigned char code_of(int t, int a) { return (unsigned char)(85 * (t + 1) + a - (t < 0 ? -84 : t == 0 ? -42 : 0)); }

static void fill(void) {
  for (int i = 0; i < UV_ROWS * UV_COLUMNS; i++) {
    trit[i] = (i * i + i / 4) % 3 - 1; /* no two rows alike */
    accumulator[i] = trit[i] < 0 ? -(i * 5 % 85) : trit[i] == 0 ? i * 11 % 85 - 42 : i * 13 % 85;
  }
  trit[0] = -1, accumulator[0] = 0;
  trit[7] = 0, accumulator[7] = 35;
  trit[9] = -1, accumulator[9] = -20;
  trit[11] = 1, accumulator[11] = 84;
  for (int i = 0; i < UV_ROWS * UV_COLUMNS; i++) uv_code[i] = code_of(trit[i], accumulator[i]);
  for (int i = 0; i < B_ROWS * B_COLUMNS; i++) b_code[i] = code_of(i % 3 - 1, i % 3 == 0 ? -i : i % 40);
  for (int i = 0; i < UV_ROWS; i++) uv_e[i] = (signed char)(-20 - i), uv_p[i] = (signed char)(i - 3), uv_r[i] = -65536 * i - 1;
  for (int i = 0; i < B_ROWS; i++) b_e[i] = (signed char)(i - 128), b_p[i] = (signed char)-i, b_r[i] = 65536 * i;
  for (int i = 0; i < 2 * UV_COLUMNS; i++) uv_c[i] = i == 0 ? INT32_MIN : -i;
  for (int i = 0; i < B_COLUMNS; i++) b_c[i] = -32768 * i;
  uv_m[0] = -7, uv_m[1] = -9, b_m[0] = 65536;
  b_code[4] = code_of(0, 42);
}

/* From step 3 to step 5. */
static void advance(void) {
  uv_code[0] = code_of(0, 1);   /* flips, A by 1 */
  uv_code[7] = code_of(0, 25);  /* A by 10 */
  uv_code[9] = code_of(0, -20); /* flips where it stands */
  b_code[4] = code_of(1, 43);
  b_e[1]++, uv_p[2]--, b_r[0]++, uv_c[3]++, uv_m[1]++;
}

static arb_ckpt_array arrays[ARRAYS + 1] = {ARB_CKPT_WHOLE("a.uv", "code", ARB_U8, UV_ROWS, UV_COLUMNS, uv_code),
                                            ARB_CKPT_WHOLE("a.uv", "e", ARB_I8, UV_ROWS, 1, uv_e),
                                            ARB_CKPT_WHOLE("a.uv", "p", ARB_I8, UV_ROWS, 1, uv_p),
                                            ARB_CKPT_WHOLE("a.uv", "r", ARB_I32, UV_ROWS, 1, uv_r),
                                            ARB_CKPT_WHOLE("a.uv", "c", ARB_I32, 2, UV_COLUMNS, uv_c),
                                            ARB_CKPT_WHOLE("a.uv", "m", ARB_I32, 2, 1, uv_m),
                                            ARB_CKPT_WHOLE("b", "code", ARB_U8, B_ROWS, B_COLUMNS, b_code),
                                            ARB_CKPT_WHOLE("b", "e", ARB_I8, B_ROWS, 1, b_e),
                                            ARB_CKPT_WHOLE("b", "p", ARB_I8, B_ROWS, 1, b_p),
                                            ARB_CKPT_WHOLE("b", "r", ARB_I32, B_ROWS, 1, b_r),
                                            ARB_CKPT_WHOLE("b", "c", ARB_I32, 1, B_COLUMNS, b_c),
                                            ARB_CKPT_WHOLE("b", "m", ARB_I32, 1, 1, b_m),
                                            ARB_CKPT_WHOLE("b.norm", "e", ARB_I8, 4, 1, norm_e)};

/* Saved twice: the digest of the content needs a checkpoint to be computed from. */
static void save(const char *dir, int64_t step, int count, const char *identity, const char *digest) {
  arb_ckpt_meta meta = {.step = step, .samples = 8 * step, .seed = 11, .identity = identity};
  arb_ckpt *c;
  char config[200];
  snprintf(config, sizeof config, "[run]\nname = t\ndir = /runs/%lld\n\n[train]\npeak = %s\n", (long long)step,
           strstr(identity, "0x1p-3") != NULL ? "0.125" : "0.1");
  meta.config = config;
  snprintf(meta.digest, sizeof meta.digest, "%032d", 0);
  NEED(arb_ckpt_save(dir, &meta, arrays, count) == ARB_OK);
  if (digest == NULL) {
    NEED(arb_ckpt_open(dir, step, &c) == ARB_OK);
    NEED(arb_ckpt_state_digest(c, NULL, NULL, meta.digest) == ARB_OK);
    arb_ckpt_close(&c);
    NEED(arb_ckpt_save(dir, &meta, arrays, count) == ARB_OK);
  }
}

static void print(const char *dir, const char *name, const int *values, const signed char *bytes, int rows, int columns) {
  char path[1200];
  snprintf(path, sizeof path, "%s.%s", dir, name);
  FILE *out = fopen(path, "w");
  NEED(out != NULL);
  for (int i = 0; i < rows * columns; i++)
    fprintf(out, "%d%c", values != NULL ? values[i] : bytes[i], i % columns == columns - 1 ? '\n' : ' ');
  NEED(fclose(out) == 0);
}

/* Another object in the place of /b/p, with a digest attribute of the right form. */
static void forge(const char *dir, const char *kind) {
  char path[1200];
  const hsize_t shape[2] = {B_ROWS, 1}, bomb[2] = {(hsize_t)1 << 31, (hsize_t)1 << 20};
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS), how = H5Pcreate(H5P_DATASET_CREATE);
  snprintf(path, sizeof path, "%s/step-00000003/rank-00000.h5", dir);
  NEED(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0);
  const hid_t file = H5Fopen(path, H5F_ACC_RDWR, access);
  NEED(file >= 0 && H5Ldelete(file, "b/p", H5P_DEFAULT) >= 0);
  if (strcmp(kind, "external_link") == 0) {
    NEED(H5Lcreate_external("/etc/passwd", "/x", file, "b/p", H5P_DEFAULT, H5P_DEFAULT) >= 0);
  } else if (strcmp(kind, "soft_link") == 0) {
    NEED(H5Lcreate_soft("/b/e", file, "b/p", H5P_DEFAULT, H5P_DEFAULT) >= 0);
  } else {
    if (strcmp(kind, "external_storage") == 0) NEED(H5Pset_external(how, "/etc/passwd", 0, B_ROWS) >= 0);
    if (strcmp(kind, "gzip") == 0) NEED(H5Pset_chunk(how, 2, shape) >= 0 && H5Pset_deflate(how, 9) >= 0);
    const hid_t space = H5Screate_simple(2, strcmp(kind, "bomb") == 0 ? bomb : shape, NULL);
    const hid_t id = H5Dcreate2(file, "b/p", H5T_STD_I8LE, space, H5P_DEFAULT, how, H5P_DEFAULT);
    NEED(id >= 0);
    H5Dclose(id);
    H5Sclose(space);
  }
  NEED(H5Fclose(file) >= 0);
  H5Pclose(how);
  H5Pclose(access);
  manifest_resign(dir, 3); /* so that the structure itself has to be refused */
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const char *dir = argv[1], *kind = argv[2], *identity = "run.seed=11\ntrain.peak=0x1.99999ap-4\n";
  fill();
  if (strcmp(kind, "good") == 0) {
    save(dir, 3, ARRAYS, identity, NULL);
    print(dir, "trits", trit, NULL, UV_ROWS, UV_COLUMNS);
    print(dir, "accumulators", accumulator, NULL, UV_ROWS, UV_COLUMNS);
    print(dir, "e", NULL, b_e, B_ROWS, 1);
    advance();
    save(dir, 5, ARRAYS, identity, NULL);
  } else if (strcmp(kind, "other") == 0) { /* the state of step 3 under other settings, with a control sequence in one */
    char text[1000];
    snprintf(text, sizeof text, "run.seed=11\ntrain.peak=0x1p-3\ntrain.title=\x1b[31mred\n[\n=\n%0300d=%0300d\n[%0200d]\n", 1,
             2, 3);
    save(dir, 3, ARRAYS, text, NULL);
  } else if (strcmp(kind, "same_digest") == 0) { /* of kind "digest", with another identity */
    save(dir, 3, ARRAYS, "run.seed=11\ntrain.peak=0x1p-3\n", "zeros");
  } else if (strcmp(kind, "illegal") == 0) {
    b_code[17] = b_code[50] = 255;
    save(dir, 3, ARRAYS, identity, NULL);
  } else if (strcmp(kind, "digest") == 0) {
    save(dir, 3, ARRAYS, identity, "zeros");
  } else if (strcmp(kind, "missing") == 0) {
    arrays[8] = arrays[12];
    save(dir, 3, ARRAYS - 1, identity, NULL);
  } else if (strcmp(kind, "misfit") == 0) {
    arrays[7].rows = arrays[7].count = 2;
    save(dir, 3, ARRAYS, identity, NULL);
  } else if (strcmp(kind, "type") == 0) {
    arrays[7].type = ARB_U8;
    save(dir, 3, ARRAYS, identity, NULL);
  } else if (strcmp(kind, "field") == 0) {
    arrays[ARRAYS] = (arb_ckpt_array)ARB_CKPT_WHOLE("b", "x", ARB_U8, 4, 1, extra);
    save(dir, 3, ARRAYS + 1, identity, "zeros");
  } else if (strcmp(kind, "shape") == 0) { /* another shape of b, for diff */
    arrays[6].columns = arrays[10].columns = B_COLUMNS - 1;
    arrays[12].tensor = "c.norm";
    save(dir, 3, ARRAYS, identity, NULL);
  } else {
    save(dir, 3, ARRAYS, identity, NULL);
    forge(dir, kind);
  }
  return 0;
}
