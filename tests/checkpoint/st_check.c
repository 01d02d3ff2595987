/* st_check FILE [TENSOR]: reads a safetensors file without any code of the writer. Checks the layout strictly and prints the
 * notes and tensors, or the values of one int8 tensor, a row a line. */
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(cond)                                                       \
  do {                                                                   \
    if (!(cond)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond); \
      exit(1);                                                           \
    }                                                                    \
  } while (0)

static unsigned char *bytes;
static uint64_t size;

static void slurp(const char *path) {
  FILE *in = fopen(path, "rb");
  NEED(in != NULL && fseek(in, 0, SEEK_END) == 0);
  size = (uint64_t)ftell(in);
  rewind(in);
  bytes = malloc((size_t)size + 1);
  NEED(bytes != NULL && fread(bytes, 1, (size_t)size, in) == size);
  fclose(in);
}

static int64_t integer(const json_t *array, size_t i) {
  const json_t *value = json_array_get(array, i);
  NEED(json_is_integer(value) && json_integer_value(value) >= 0);
  return json_integer_value(value);
}

static void print_values(const int8_t *data, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows * columns; i++) printf("%d%c", data[i], i % columns == columns - 1 ? '\n' : ' ');
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  slurp(argv[1]);
  uint64_t length = 0, covered = 0;
  NEED(size >= 8);
  for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
  NEED(length % 8 == 0 && length <= size - 8 && bytes[8] == '{');
  json_error_t error;
  json_t *header = json_loadb((const char *)bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
  if (header == NULL) fprintf(stderr, "%s\n", error.text);
  NEED(header != NULL);
  const unsigned char *data = bytes + 8 + length;
  const uint64_t data_bytes = size - 8 - length;
  const char *name;
  json_t *entry, *note;
  bool found = argc == 2;
  json_object_foreach(header, name, entry) {
    if (strcmp(name, "__metadata__") == 0) {
      const char *key;
      json_object_foreach(entry, key, note) {
        NEED(json_is_string(note));
        if (argc == 2) printf("# %s = %s\n", key, json_string_value(note));
      }
      continue;
    }
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    NEED(json_object_size(entry) == 3 && type != NULL && strcmp(type, "I8") == 0);
    const size_t rank = json_array_size(shape);
    NEED((rank == 1 || rank == 2) && json_array_size(offsets) == 2);
    const int64_t rows = integer(shape, 0), columns = rank == 2 ? integer(shape, 1) : 1;
    const int64_t begin = integer(offsets, 0), end = integer(offsets, 1);
    NEED((uint64_t)begin == covered && end - begin == rows * columns && (uint64_t)end <= data_bytes); /* no hole, no overlap */
    covered = (uint64_t)end;
    if (argc == 2) printf("%s %" PRId64 " %" PRId64 "\n", name, rows, columns);
    if (argc > 2 && strcmp(name, argv[2]) == 0) print_values((const int8_t *)data + begin, rows, columns), found = true;
  }
  NEED(covered == data_bytes && found);
  json_decref(header);
  free(bytes);
  return 0;
}
