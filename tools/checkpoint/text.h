/* Plain text for people: grouped numbers, ranges, bars, words from files that may be hostile. */
#ifndef ARB_TOOLS_CHECKPOINT_TEXT_H
#define ARB_TOOLS_CHECKPOINT_TEXT_H

#include <stdint.h>
#include <stdio.h>

enum { ARB_COLUMNS = 100, ARB_NUMBER = 32 };

typedef struct {
  char text[ARB_NUMBER];
} arb_number;

arb_number arb_grouped(int64_t n); /* 1,234,567 */
/* part of all in per cent with `digits` decimals, "-" when all is 0 */
arb_number arb_percent(int64_t part, int64_t all, int digits);
/* Puts '?' in the place of whatever could command a terminal: control characters, also the C1 ones of UTF-8. Keeps \n, \t. */
void arb_clean(char *text);
/* Words in lines of at most ARB_COLUMNS, each behind `indent` blanks. */
void arb_print_wrapped(FILE *out, int indent, const char *text);
void arb_print_bar(FILE *out, double share, int width);

#endif
