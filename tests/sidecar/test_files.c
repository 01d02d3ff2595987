/* Sidecars from files: the published tensor lists, prefixes, what is refused; and the tokenizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/safetensors/safetensors.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"
#include "src/sidecar/tokenizer.h"
#include "tests/test.h"

enum { MOST = 300, NAME = 128 };
static char folder[] = "/tmp/arb_sidecar_XXXXXX";

static const char *in_folder(const char *leaf) {
  static char path[sizeof folder + 64];
  snprintf(path, sizeof path, "%s/%s", folder, leaf);
  return path;
}

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
  (void)state;
  return rmdir(folder);
}

static void store_text(const char *leaf, const char *text) {
  FILE *f = fopen(in_folder(leaf), "w");
  assert_non_null(f);
  fputs(text, f);
  assert_int_equal(fclose(f), 0);
}

/* One list of ../shared/spec/tensors; the number of tensors, 0 without that folder. */
static int read_list(const char *leaf, arb_st_tensor *tensors, char (*names)[NAME]) {
  char path[1024], shape[64];
  snprintf(path, sizeof path, "%s/../shared/spec/tensors/%s", ARB_ROOT, leaf);
  FILE *f = fopen(path, "r");
  if (f == NULL) {
    printf("NOT TESTED: no %s\n", path);
    return 0;
  }
  int count = 0;
  while (fscanf(f, "%127s (%63[0-9,]) %*d", names[count], shape) == 2) {
    arb_st_tensor *t = &tensors[count++];
    *t = (arb_st_tensor){.name = NULL, .type = ARB_F32};
    for (char *at = shape; *at; at += strspn(at, ",")) t->shape[t->rank++] = strtol(at, &at, 10);
    assert_true(count < MOST);
  }
  fclose(f);
  return count;
}

/* A safetensors file of synthetic tensors: the list without `drop` and with `add` at the head of every name. `keep`: 0 for
 * names that are left out; NULL: all stay. */
static void write_file(const char *path, const char *list, const char *drop, const char *add, int (*keep)(const char *name),
                       int *written) {
  static arb_st_tensor tensors[MOST];
  static char names[MOST][NAME], stored[MOST][NAME + 16];
  static const char *rule[MOST];
  const int all = read_list(list, tensors, names);
  int count = 0;
  arb_st_writer *w;
  *written = 0;
  if (all == 0) return;
  for (int i = 0; i < all; i++) {
    if (keep && !keep(names[i])) continue;
    tensors[count] = tensors[i];
    rule[count] = names[i];
    snprintf(stored[count], sizeof stored[count], "%.15s%.127s", add,
             names[i] + (strncmp(names[i], drop, strlen(drop)) == 0 ? strlen(drop) : 0));
    tensors[count].name = stored[count];
    count++;
  }
  arb_assert_ok(arb_st_create(path, tensors, count, NULL, 0, &w));
  for (int i = 0; i < count; i++) {
    int64_t n = 1;
    for (int r = 0; r < tensors[i].rank; r++) n *= tensors[i].shape[r];
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    arb_synthetic_tensor(rule[i], tensors[i].rank, tensors[i].shape, x);
    arb_assert_ok(arb_st_put(w, x, (uint64_t)n * sizeof *x));
    free(x);
  }
  arb_assert_ok(arb_st_finish(&w));
  *written = count;
}

static void dino_digest(const char *path, char *digest) {
  arb_dino *d = NULL;
  arb_assert_ok(arb_dino_open(path, &(arb_sidecar_options){0}, &d));
  snprintf(digest, ARB_SIDECAR_DIGEST, "%s", arb_dino_report(d)->digest);
  if (strcmp(path, ARB_SIDECAR_SYNTHETIC) != 0) assert_int_equal(strlen(arb_dino_report(d)->file_digest), 32);
  arb_dino_destroy(&d);
}

static void test_dino_files(void **state) {
  (void)state;
  char want[ARB_SIDECAR_DIGEST], got[ARB_SIDECAR_DIGEST];
  int written;
  write_file(in_folder("model.safetensors"), "dinov2_small.tensors.tsv", "", "", NULL, &written);
  if (written == 0) skip();
  assert_int_equal(written, 223);
  dino_digest(ARB_SIDECAR_SYNTHETIC, want);
  dino_digest(folder, got); /* the folder */
  assert_string_equal(got, want);
  write_file(in_folder("model.safetensors"), "dinov2_small.tensors.tsv", "", "dinov2.", NULL, &written);
  dino_digest(in_folder("model.safetensors"), got); /* the file, as a classifier's body */
  assert_string_equal(got, want);
  unlink(in_folder("model.safetensors"));
}

static int encoder_only(const char *name) { return strstr(name, ".decoder.") == NULL; }
static int all_but_one(const char *name) {
  return encoder_only(name) && strcmp(name, "model.encoder.layers.7.mlp.fc2.bias") != 0;
}

static void test_moonshine_files(void **state) {
  (void)state;
  char want[ARB_SIDECAR_DIGEST];
  arb_moonshine *m = NULL;
  int written;
  write_file(in_folder("model.safetensors"), "moonshine_base.tensors.tsv", "model.", "", encoder_only, &written);
  if (written == 0) skip();
  arb_assert_ok(arb_moonshine_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){0}, &m));
  snprintf(want, sizeof want, "%s", arb_moonshine_report(m)->digest);
  arb_moonshine_destroy(&m);
  arb_assert_ok(arb_moonshine_open(folder, &(arb_sidecar_options){0}, &m));
  assert_string_equal(arb_moonshine_report(m)->digest, want);
  arb_moonshine_destroy(&m);
  arb_assert_fails(arb_moonshine_open(folder, &(arb_sidecar_options){.decoder = true}, &m), ARB_ERR_DATA, "embed_tokens");
  assert_null(m);
  write_file(in_folder("model.safetensors"), "moonshine_base.tensors.tsv", "", "", all_but_one, &written);
  arb_assert_fails(arb_moonshine_open(folder, &(arb_sidecar_options){0}, &m), ARB_ERR_DATA,
                   "model.encoder.layers.7.mlp.fc2.bias");
  unlink(in_folder("model.safetensors"));
}

static void small_file(int64_t width, float last) {
  const arb_st_tensor t = {"embeddings.mask_token", ARB_F32, 2, {1, width}};
  arb_st_writer *w;
  float x[400] = {0};
  x[width - 1] = last;
  arb_assert_ok(arb_st_create(in_folder("model.safetensors"), &t, 1, NULL, 0, &w));
  arb_assert_ok(arb_st_put(w, x, (uint64_t)width * sizeof *x));
  arb_assert_ok(arb_st_finish(&w));
}

static void refuse_dino(const char *reason) {
  arb_dino *d = NULL;
  arb_assert_fails(arb_dino_open(folder, &(arb_sidecar_options){0}, &d), ARB_ERR_DATA, reason);
  assert_null(d);
}

/* Weights of the right shapes that another configuration gives another meaning. */
static void test_configurations(void **state) {
  (void)state;
  static const char *const images[][2] = {
      {"{\"num_attention_heads\":12}", "config.json: num_attention_heads is 12, expected 6, as DINOv2-small has"},
      {"{\"hidden_act\":\"relu\"}", "config.json: hidden_act is \"relu\", expected \"gelu\""},
      {"{\"hidden_act\":7}", "hidden_act: expected \"gelu\""},
      {"{\"layer_norm_eps\":1e-5}", "layer_norm_eps is 1e-05, expected 1e-06"},
      {"{\"use_swiglu_ffn\":true}", "use_swiglu_ffn is 1, expected 0"},
      {"{\"qkv_bias\":\"yes\"}", "qkv_bias: expected 1"},
      {"{\"patch_size\":14", "config.json:1: "},
      {"[1]", "config.json: expected a JSON object"},
      {"{\"patch_size\":14,\"patch_size\":16}", "config.json:1: "},
      {"{\"num_attention_heads\":6,\"layer_norm_eps\":1e-06,\"qkv_bias\":true,\"hidden_act\":null,\"other\":{}}",
       "embeddings.cls_token"}};
  static const char *const speech[][2] = {
      {"{\"rope_parameters\":{\"partial_rotary_factor\":0.9}}",
       "partial_rotary_factor is 0.9, expected 0.62, as Moonshine-base has"},
      {"{\"rope_theta\":500}", "rope_theta is 500, expected 10000"},
      {"{\"encoder_num_key_value_heads\":4}", "encoder_num_key_value_heads is 4"},
      {"{\"rope_scaling\":null,\"rope_theta\":10000.0,\"pad_head_dim_to_multiple_of\":8}", "model.encoder.conv1.weight"}};
  small_file(384, 1.0f);
  for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
    store_text("config.json", images[i][0]);
    refuse_dino(images[i][1]);
  }
  for (size_t i = 0; i < sizeof speech / sizeof speech[0]; i++) {
    arb_moonshine *m = NULL;
    store_text("config.json", speech[i][0]);
    arb_assert_fails(arb_moonshine_open(folder, &(arb_sidecar_options){0}, &m), ARB_ERR_DATA, speech[i][1]);
    assert_null(m);
  }
  unlink(in_folder("config.json"));
  unlink(in_folder("model.safetensors"));
}

static void test_refused(void **state) {
  (void)state;
  small_file(383, 0.0f);
  refuse_dino("embeddings.mask_token");
  small_file(384, 1.0f / 0.0f);
  refuse_dino("not finite");
  small_file(384, 1.0f);
  refuse_dino("embeddings.cls_token");
  unlink(in_folder("model.safetensors"));
  arb_dino *d = NULL;
  arb_assert_fails(arb_dino_open(in_folder("nothing"), &(arb_sidecar_options){0}, &d), ARB_ERR_DATA, in_folder("nothing"));
  arb_assert_fails(arb_dino_open(ARB_SIDECAR_SYNTHETIC, &(arb_sidecar_options){.isa = "neon9"}, &d), ARB_ERR_UNSUPPORTED,
                   "neon9");
  assert_null(d);
}

/* ---- tokenizer ---- */

static void test_tokenizer(void **state) {
  (void)state;
  arb_tokenizer *t = NULL;
  char *text = NULL;
  arb_assert_ok(arb_tokenizer_open(folder, 16, &t)); /* none there */
  assert_null(t);
  store_text(
      "tokenizer.json",
      "{\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":9,\"content\":\"<x>\",\"special\":false}],"
      "\"decoder\":{\"type\":\"Sequence\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":1,\"\\u2581he\":3,\"llo\":4,"
      "\"\\u2581\":5,\"<0xC3>\":6,\"<0xA9>\":7,\"\\u001b\":8}}}");
  arb_assert_ok(arb_tokenizer_open(in_folder("model.safetensors"), 16, &t)); /* beside a file of weights */
  assert_non_null(t);
  static const int32_t ids[] = {1, 3, 4, 5, 6, 7, 8, 9, 2, 1};
  arb_assert_ok(arb_tokenizer_text(t, ids, 10, &text));
  assert_string_equal(text, "hello \xc3\xa9?<x><2>");
  free(text);
  arb_assert_ok(arb_tokenizer_text(t, ids, 0, &text));
  assert_string_equal(text, "");
  free(text);
  arb_tokenizer_close(&t);
  static const char *const bad[][2] = {{"{", "tokenizer.json:"},
                                       {"{\"model\":{}}", "model.vocab"},
                                       {"{\"model\":{\"vocab\":{\"a\":16}}}", "'a': expected an id from 0 to 15"},
                                       {"{\"model\":{\"vocab\":{\"a\":-1}}}", "'a'"},
                                       {"{\"model\":{\"vocab\":{\"a\":\"1\"}}}", "'a'"},
                                       {"{\"model\":{\"vocab\":{\"a\":1,\"b\":1}}}", "same id 1"},
                                       {"{\"model\":{\"vocab\":{\"a\":1,\"a\":2}}}", "tokenizer.json:"},
                                       {"{\"model\":{\"vocab\":{}},\"decoder\":{\"type\":\"ByteLevel\"}}", "SentencePiece"}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    store_text("tokenizer.json", bad[i][0]);
    arb_assert_fails(arb_tokenizer_open(folder, 16, &t), ARB_ERR_DATA, bad[i][1]);
    assert_null(t);
  }
  unlink(in_folder("tokenizer.json"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_dino_files), cmocka_unit_test(test_moonshine_files), cmocka_unit_test(test_configurations),
      cmocka_unit_test(test_refused),    cmocka_unit_test(test_tokenizer),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
