#include "tools/checkpoint/text.h"

#include <inttypes.h>
#include <string.h>

arb_number arb_grouped(int64_t n) {
  char plain[24];
  arb_number out;
  const int length = snprintf(plain, sizeof plain, "%" PRId64, n);
  size_t used = 0;
  for (int i = 0; i < length; i++) {
    if (i > (n < 0) && (length - i) % 3 == 0) out.text[used++] = ',';
    out.text[used++] = plain[i];
  }
  out.text[used] = '\0';
  return out;
}

arb_number arb_percent(int64_t part, int64_t all, int digits) {
  arb_number out = {"-"};
  if (all > 0) snprintf(out.text, sizeof out.text, "%.*f", digits, 100.0 * (double)part / (double)all);
  return out;
}

void arb_clean(char *text) {
  for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++) {
    if ((*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7f) *c = '?';
    if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) *c = c[1] = '?';
  }
}

void arb_print_wrapped(FILE *out, int indent, const char *text) {
  int column = 0;
  while (*text != '\0') {
    const int length = (int)strcspn(text, " \n");
    if (column > 0 && column + 1 + length > ARB_COLUMNS) {
      fputc('\n', out);
      column = 0;
    }
    column += column == 0 ? fprintf(out, "%*s%.*s", indent, "", length, text) : fprintf(out, " %.*s", length, text);
    text += length;
    text += strspn(text, " \n");
  }
  fputc('\n', out);
}

void arb_print_bar(FILE *out, double share, int width) {
  const int full = (int)(share * width + 0.5);
  for (int i = 0; i < full && i < width; i++) fputc('#', out);
}
