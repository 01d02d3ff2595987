/* weights_print PATH [TENSOR]: reads weights and prints a line a tensor: name, type, shape, and its bytes in hexadecimal; or
 * the values of one int8 tensor, a row a line. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/safetensors/weights.h"

static arb_status print_tensor(const arb_weights *w, const arb_weights_tensor *t) {
  unsigned char *bytes = malloc((size_t)t->bytes + 1);
  ARB_REQUIRE(bytes != NULL, ARB_ERR_NOMEM, "no memory for %s", t->name);
  const arb_status st = arb_weights_read(w, t->name, bytes, t->bytes);
  printf("%s %s (", t->name, arb_weights_type_name(t->type));
  for (int i = 0; i < t->rank; i++) printf("%s%" PRId64, i > 0 ? ", " : "", t->shape[i]);
  printf(") ");
  for (uint64_t i = 0; i < t->bytes && st == ARB_OK; i++) printf("%02x", bytes[i]);
  printf("\n");
  free(bytes);
  return st;
}

static arb_status print_values(const arb_weights *w, const char *name) {
  arb_weights_tensor t;
  ARB_TRY(arb_weights_find(w, name, &t));
  ARB_REQUIRE(t.type == ARB_WEIGHTS_I8 && t.rank <= 2, ARB_ERR_DATA, "%s is not an int8 matrix or vector", name);
  const int64_t columns = t.rank == 2 ? t.shape[1] : 1;
  int8_t *values = malloc((size_t)t.bytes + 1);
  ARB_REQUIRE(values != NULL, ARB_ERR_NOMEM, "no memory for %s", name);
  const arb_status st = arb_weights_read(w, name, values, t.bytes);
  for (int64_t i = 0; i < t.count && st == ARB_OK; i++) printf("%d%c", values[i], i % columns == columns - 1 ? '\n' : ' ');
  free(values);
  return st;
}

static arb_status print_all(const char *path, const char *name) {
  arb_weights *w;
  ARB_TRY(arb_weights_open(path, &w));
  arb_status st = name != NULL ? print_values(w, name) : ARB_OK;
  for (int i = 0; name == NULL && i < arb_weights_count(w) && st == ARB_OK; i++) st = print_tensor(w, arb_weights_at(w, i));
  arb_weights_close(&w);
  return st;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  if (print_all(argv[1], argv[2]) == ARB_OK) return 0;
  fprintf(stderr, "%s\n", arb_fail_message());
  return 3;
}
