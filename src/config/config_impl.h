/* Private to src/config: the row type of the one table, values as text, and the list of mistakes. */
#ifndef ARB_SRC_CONFIG_CONFIG_IMPL_H
#define ARB_SRC_CONFIG_CONFIG_IMPL_H

#include "src/config/config.h"

typedef enum {
  ARB_CONFIG_I64,
  ARB_CONFIG_U64,
  ARB_CONFIG_F32,
  ARB_CONFIG_BOOL,
  ARB_CONFIG_ENUM,
  ARB_CONFIG_STRING,
  ARB_CONFIG_PATH
} arb_config_type;

enum {
  ARB_CONFIG_IDENTITY = 1,          /* part of arb_config_identity */
  ARB_CONFIG_IDENTITY_WHEN_SET = 8, /* the same unless it has its default: a key that older checkpoints do not know */
  ARB_CONFIG_FOLDER = 2,            /* text that names one folder */
  ARB_CONFIG_SYNTHETIC = 4          /* a path, or the word "synthetic" */
};

/* One allowed word of an ENUM. */
typedef struct {
  const char *name; /* NULL ends a list */
  int value;
  bool missing; /* known, but not available in this build */
} arb_config_choice;

/* One key. Only the member that belongs to `type` is set. */
typedef struct {
  const char *section, *name;
  arb_config_type type;
  unsigned flags;
  size_t offset, size; /* of the field in arb_config, bytes */
  struct {
    int64_t value, min, max, multiple; /* value: also of BOOL and ENUM */
  } i;
  struct {
    uint64_t value, min, max;
  } u;
  struct {
    float value, above, below, most; /* above < x, and x < below where below > 0, else x <= most */
  } f;
  const char *text; /* STRING and PATH; a key may be empty when its default is "" */
  const arb_config_choice *choices;
  const char *unit, *meaning;
  const char *why; /* reason of the range, or NULL */
} arb_config_row;

/* The table: ARB_CONFIG_KEYS rows, rows of a section together. */
extern const arb_config_row arb_config_rows[ARB_CONFIG_KEYS];

/* Row index, or -1. Section and name need no terminator: lengths are given. */
int arb_config_find(const char *section, size_t section_length, const char *name, size_t name_length);
/* Same for "section.key". */
int arb_config_find_dotted(const char *key);
bool arb_config_is_section(const char *section);
/* Writes "; did you mean ...?" or "" into out. section NULL: the key had none. dotted: names as "a.b", else as "[a] b". */
void arb_config_suggest_key(const char *section, const char *name, bool dotted, char *out, size_t size);
/* The same for a section; without a near one, lists all sections. */
void arb_config_suggest_section(const char *section, char *out, size_t size);

/* Reads text into the row's field of cfg. A relative path is put behind folder ("" = folder unknown). On a mistake writes
 * what was expected into reason and returns false; the field is then unspecified. */
bool arb_config_parse(const arb_config_row *row, const char *text, const char *folder, arb_config *cfg, char *reason,
                      size_t reason_size);
/* Whether the field of cfg is in range; otherwise writes what was expected. */
bool arb_config_in_range(const arb_config_row *row, const arb_config *cfg, char *reason, size_t reason_size);
/* The field as text that arb_config_parse reads back to the same bits. ARB_CONFIG_LINE bytes are enough. */
void arb_config_format(const arb_config_row *row, const arb_config *cfg, char *out, size_t size);
/* An F32 field exactly: the C99 hex form, which any reader gives back to the bit. */
void arb_config_format_hex(const arb_config_row *row, const arb_config *cfg, char *out, size_t size);
/* What the row accepts, in words: "expected a whole number from 1 to 31". */
void arb_config_expected(const arb_config_row *row, char *out, size_t size);
/* Copies text for a message: control bytes become '?', a long text is cut and ends in "...". */
void arb_config_shown(const char *text, char *out, size_t size);

/* Mistakes, joined by newlines as they will stand in the message of a status (whose buffer is a little larger). */
typedef struct {
  int count, listed;
  size_t used;
  char text[1960];
} arb_config_errors;

/* Adds "where: message". */
void arb_config_error(arb_config_errors *errors, const char *where, const char *format, ...) ARB_PRINTF(3, 4);
/* ARB_OK when there are none, else ARB_ERR_CONFIG with the list. */
arb_status arb_config_raise(arb_config_errors *errors);

/* The rules between keys; a rule is skipped where bad (by row, or NULL) says that one of its keys was not understood. */
void arb_config_check_rules(const arb_config *cfg, const bool *bad, arb_config_errors *errors);

#endif
