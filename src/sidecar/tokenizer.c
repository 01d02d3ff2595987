#include "src/sidecar/tokenizer.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/sidecar/hub.h"

enum { FILE_BYTES = 64 << 20, SHOWN = 24 /* bytes of "<ID>" */ };

struct arb_tokenizer {
  json_t *root; /* owns the pieces */
  int64_t vocabulary;
  const char **piece; /* [vocabulary], NULL: none */
  bool *special;
};

static arb_status put(arb_tokenizer *t, const char *path, const char *piece, const json_t *id, bool added) {
  const int64_t i = json_is_integer(id) ? (int64_t)json_integer_value(id) : -1;
  ARB_REQUIRE(i >= 0 && i < t->vocabulary, ARB_ERR_DATA, "%s: token '%.40s': expected an id from 0 to %lld", path, piece,
              (long long)t->vocabulary - 1);
  ARB_REQUIRE(t->piece[i] == NULL || added, ARB_ERR_DATA, "%s: tokens '%.40s' and '%.40s' have the same id %lld", path,
              t->piece[i], piece, (long long)i);
  t->piece[i] = piece;
  return ARB_OK;
}

static arb_status read_pieces(arb_tokenizer *t, const char *path) {
  json_t *vocabulary = json_object_get(json_object_get(t->root, "model"), "vocab"), *id, *token;
  const json_t *decoder = json_object_get(json_object_get(t->root, "decoder"), "type");
  const char *piece;
  size_t index;
  ARB_REQUIRE(json_is_object(vocabulary), ARB_ERR_DATA, "%s: expected a tokenizer with a map model.vocab", path);
  ARB_REQUIRE(!json_is_string(decoder) || strcmp(json_string_value(decoder), "ByteLevel") != 0, ARB_ERR_DATA,
              "%s: byte-level pieces; expected SentencePiece's, as Moonshine has", path);
  json_object_foreach(vocabulary, piece, id) ARB_TRY(put(t, path, piece, id, false));
  json_array_foreach(json_object_get(t->root, "added_tokens"), index, token) {
    const json_t *content = json_object_get(token, "content"), *at = json_object_get(token, "id");
    ARB_REQUIRE(json_is_string(content), ARB_ERR_DATA, "%s: added_tokens[%zu]: expected a content", path, index);
    ARB_TRY(put(t, path, json_string_value(content), at, true));
    t->special[json_integer_value(at)] = json_is_true(json_object_get(token, "special"));
  }
  return ARB_OK;
}

arb_status arb_tokenizer_open(const char *path, int64_t vocabulary, arb_tokenizer **out) {
  char file[2048];
  json_t *root;
  *out = NULL;
  ARB_TRY(arb_hub_open(path, "tokenizer.json", FILE_BYTES, file, sizeof file, &root));
  if (root == NULL) return ARB_OK;
  arb_tokenizer *t = calloc(1, sizeof *t);
  if (t) {
    t->root = root;
    t->vocabulary = vocabulary;
    t->piece = calloc((size_t)vocabulary, sizeof *t->piece);
    t->special = calloc((size_t)vocabulary, sizeof *t->special);
  }
  if (t == NULL || t->piece == NULL || t->special == NULL) {
    if (t == NULL) json_decref(root);
    arb_tokenizer_close(&t);
    return ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  }
  const arb_status st = read_pieces(t, file);
  if (st != ARB_OK) {
    arb_tokenizer_close(&t);
    return st;
  }
  *out = t;
  return ARB_OK;
}

/* "<0x41>" is the byte 0x41; -1 for other pieces. */
static int byte_of(const char *piece) {
  unsigned value;
  char end;
  if (strlen(piece) != 6 || sscanf(piece, "<0x%2x%c", &value, &end) != 2 || end != '>') return -1;
  return (int)value;
}

/* Appends a piece; its blanks are written as U+2581. */
static char *append(char *to, const char *piece) {
  const int byte = byte_of(piece);
  if (byte >= 0) {
    *to++ = (char)byte;
    return to;
  }
  while (*piece) {
    if (strncmp(piece, "\xe2\x96\x81", 3) == 0) {
      *to++ = ' ';
      piece += 3;
    } else {
      *to++ = *piece++;
    }
  }
  return to;
}

arb_status arb_tokenizer_text(const arb_tokenizer *t, const int32_t *ids, int64_t count, char **out) {
  size_t most = 1;
  for (int64_t i = 0; i < count; i++) {
    ARB_REQUIRE(ids[i] >= 0 && ids[i] < t->vocabulary, ARB_ERR_ARG, "token id %d", ids[i]);
    const char *piece = t->piece[ids[i]];
    most += piece ? strlen(piece) : SHOWN;
  }
  char *text = malloc(most), *to = text;
  ARB_REQUIRE(text, ARB_ERR_NOMEM, "out of host memory");
  for (int64_t i = 0; i < count; i++) {
    const char *piece = t->piece[ids[i]];
    if (t->special[ids[i]]) continue;
    if (piece)
      to = append(to, piece);
    else
      to += snprintf(to, SHOWN, "<%d>", ids[i]);
  }
  for (char *c = text; c < to; c++)
    if (((unsigned char)*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7f) *c = '?';
  const size_t first = to > text && text[0] == ' ';
  memmove(text, text + first, (size_t)(to - text) - first);
  text[(size_t)(to - text) - first] = '\0';
  *out = text;
  return ARB_OK;
}

void arb_tokenizer_close(arb_tokenizer **t) {
  if (*t == NULL) return;
  json_decref((*t)->root);
  free((*t)->piece);
  free((*t)->special);
  free(*t);
  *t = NULL;
}
