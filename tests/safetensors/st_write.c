/* st_write FILE: writes a small safetensors file of known content through the writer. */
#include <stdio.h>

#include "src/safetensors/safetensors.h"

static arb_status write_file(const char *path) {
  static const int64_t wide[2] = {-1, INT64_MAX};
  static const float values[6] = {1, -2, 0.5f, 0x1p-149f, 0x1.fffffep127f, -0.0f};
  static const arb_st_tensor tensors[] = {
      {"i", ARB_I64, 1, {2}}, {"f", ARB_F32, 2, {2, 3}}, {"s", ARB_I8, 0, {0}}, {"t", ARB_U8, 4, {1, 3, 1, 1}}};
  static const arb_st_note notes[] = {{"format", "pt"}, {"note", "2^(E/8) \"x\" \xc3\xa9"}};
  arb_st_writer *w;
  ARB_TRY(arb_st_create(path, tensors, 4, notes, 2, &w));
  arb_status st = arb_st_put(w, wide, sizeof wide);
  if (st == ARB_OK) st = arb_st_put(w, values, sizeof values);
  if (st == ARB_OK) st = arb_st_put(w, "\xff\1\2\3", 4);
  if (st == ARB_OK) return arb_st_finish(&w);
  arb_st_abandon(&w);
  return st;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  if (write_file(argv[1]) == ARB_OK) return 0;
  fprintf(stderr, "%s\n", arb_fail_message());
  return 3;
}
