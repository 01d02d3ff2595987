/* Linked into a copy of arbdist that tests/checkpoint's scripts start: ARB_TEST_FAULT says which of its I/O calls fails or is
 * its last. The product itself reads no such thing. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/checkpoint/faults.h"

__attribute__((constructor)) static void install(void) {
  const char *text = getenv("ARB_TEST_FAULT");
  if (text == NULL) return;
  if (!fault_parse(text)) {
    fprintf(stderr, "ARB_TEST_FAULT=%s: not understood\n", text);
    exit(2);
  }
  arb_io_use(&fault_io);
}
