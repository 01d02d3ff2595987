/* cmocka with the headers it needs first, and the project's check helpers. */
#ifndef ARB_TESTS_TEST_H
#define ARB_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/status.h"

/* The call succeeds; otherwise its message is printed and the test fails. */
#define arb_assert_ok(expr)                                                                             \
  do {                                                                                                  \
    arb_status status_ = (expr);                                                                        \
    if (status_ != ARB_OK) fail_msg("%s: %s: %s", #expr, arb_status_name(status_), arb_fail_message()); \
  } while (0)
/* The call fails with this status and its message contains `text`; clears the message. */
#define arb_assert_fails(expr, status, text)                                                                                \
  do {                                                                                                                      \
    arb_fail_clear();                                                                                                       \
    arb_status status_ = (expr);                                                                                            \
    if (status_ != (status)) fail_msg("%s gave %s, expected %s", #expr, arb_status_name(status_), arb_status_name(status)); \
    if (strstr(arb_fail_message(), (text)) == NULL) fail_msg("message '%s' lacks '%s'", arb_fail_message(), (text));        \
    arb_fail_clear();                                                                                                       \
  } while (0)

#endif
