/* A folder of its own for each test, with one ini file that the test rewrites. */
#ifndef ARB_TESTS_CONFIG_CONFIG_FILE_H
#define ARB_TESTS_CONFIG_CONFIG_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/config/config.h"
#include "tests/test.h"

typedef struct {
  char dir[200], ini[220], where[1000]; /* where: last result of at() */
  char home[4096];                      /* current folder before the test */
} folder;

static inline int folder_setup(void **state) {
  folder *f = calloc(1, sizeof *f);
  const char *tmp = getenv("TMPDIR");
  if (f == NULL || getcwd(f->home, sizeof f->home) == NULL) return -1;
  snprintf(f->dir, sizeof f->dir, "%s/arb_config_XXXXXX", tmp == NULL || strlen(tmp) > 100 ? "/tmp" : tmp);
  if (mkdtemp(f->dir) == NULL) return -1;
  snprintf(f->ini, sizeof f->ini, "%s/t.ini", f->dir);
  *state = f;
  return 0;
}

static inline int folder_teardown(void **state) {
  folder *f = *state;
  const int back = chdir(f->home);
  unlink(f->ini);
  const int gone = rmdir(f->dir);
  free(f);
  return back != 0 || gone != 0;
}

/* "FILE:LINE: text" as it stands in a message. */
static inline const char *at(folder *f, int line, const char *text) {
  snprintf(f->where, sizeof f->where, "%s:%d: %s", f->ini, line, text);
  return f->where;
}

static inline void write_bytes(const folder *f, const char *bytes, size_t size) {
  FILE *out = fopen(f->ini, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(bytes, 1, size, out), size);
  assert_int_equal(fclose(out), 0);
}

static inline void write_text(const folder *f, const char *text) { write_bytes(f, text, strlen(text)); }

static inline arb_status load(const folder *f, arb_config *cfg, const char *text) {
  write_text(f, text);
  return arb_config_load(cfg, f->ini, NULL, 0);
}

/* Loads defaults plus one override. */
static inline arb_status set(arb_config *cfg, const char *override) { return arb_config_load(cfg, NULL, &override, 1); }

/* Mistakes in the current message: its lines. */
static inline int mistakes(void) {
  int n = arb_fail_message()[0] != '\0';
  for (const char *c = arb_fail_message(); *c != '\0'; c++) n += *c == '\n';
  return n;
}

/* The file is refused with exactly one mistake, on this line, whose text starts like this. */
#define assert_refused(f, text, line, start)                                              \
  do {                                                                                    \
    arb_config refused_;                                                                  \
    arb_fail_clear();                                                                     \
    const arb_status refused_st_ = load((f), &refused_, (text));                          \
    if (mistakes() > 1) fail_msg("one mistake expected, got: %s", arb_fail_message());    \
    if (refused_st_ != ARB_ERR_CONFIG) fail_msg("not refused: %s", (text));               \
    const char *refused_at_ = at((f), (line), (start));                                   \
    if (strncmp(arb_fail_message(), refused_at_, strlen(refused_at_)) != 0)               \
      fail_msg("message '%s' does not start with '%s'", arb_fail_message(), refused_at_); \
    arb_fail_clear();                                                                     \
  } while (0)

/* The override is refused with exactly this message. */
#define assert_set_refused(override, message)                                                  \
  do {                                                                                         \
    arb_config refused_;                                                                       \
    arb_fail_clear();                                                                          \
    if (set(&refused_, (override)) != ARB_ERR_CONFIG) fail_msg("not refused: %s", (override)); \
    assert_string_equal(arb_fail_message(), (message));                                        \
    arb_fail_clear();                                                                          \
  } while (0)

#endif
