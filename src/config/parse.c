/* The ini file and the overrides.
 *
 * inih splits lines into section, key and value. It gives no line numbers and takes much that a user did not mean: a line
 * that starts with a blank continues the previous value, a long line is cut in two, a second [section] is merged, "a: b"
 * is a key, a CR-only file is empty. So it reads through next_line, which counts lines, reports everything of that kind
 * and hands an empty line over instead; what reaches the handler is one well-formed key. */
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/config/config_impl.h"

/* Longer names are no keys or sections of ours; inih keeps 49 bytes of a section and would cut the rest off unseen. */
enum { LONGEST_NAME = 40, FOLDER_BYTES = 4096 };

typedef struct {
  arb_config *cfg;
  arb_config_errors errors;
  bool bad[ARB_CONFIG_KEYS]; /* had a mistake: rules between keys stay silent about it */
  /* The file. */
  const char *file;                                             /* as the user gave it */
  char file_folder[FOLDER_BYTES], current_folder[FOLDER_BYTES]; /* absolute; "" = unknown */
  const char *text;
  size_t size, at;
  int line;
  int line_of[ARB_CONFIG_KEYS]; /* where the key was set first, 0 = not */
  /* Section headers seen. */
  struct {
    const char *name; /* of the table */
    int line;
  } sections[ARB_CONFIG_KEYS];
  int n_sections;
  enum { NO_SECTION, IN_SECTION, IN_BAD_SECTION } place; /* a bad header was reported: its keys are not */
  const char *long_value;                                /* the value of a line that is longer than inih's buffer, else NULL */
  char value[ARB_CONFIG_LINE + 1];
} parser;

static void location(const parser *p, int line, char *out, size_t size) {
  char number[16], name[ARB_CONFIG_ORIGIN];
  snprintf(number, sizeof number, ":%d", line);
  const size_t length = strlen(p->file), room = size - strlen(number) - 1;
  const char *tail = length > room ? p->file + length - (room - 3) : p->file;
  arb_config_shown(tail, name, sizeof name);
  snprintf(out, size, "%s%.*s%s", tail == p->file ? "" : "...", (int)room, name, number);
}

#define LINE_ERROR(p, ...)                               \
  do {                                                   \
    char where_[ARB_CONFIG_ORIGIN];                      \
    location((p), (p)->line, where_, sizeof where_);     \
    arb_config_error(&(p)->errors, where_, __VA_ARGS__); \
  } while (0)

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

/* ---- a section header ---- */

static void enter_section(parser *p, const char *name) {
  p->place = IN_BAD_SECTION;
  char shown[64], hint[300];
  arb_config_shown(name, shown, sizeof shown);
  if (strlen(name) > LONGEST_NAME) {
    LINE_ERROR(p, "section name of %zu bytes [%s]; at most %d are possible", strlen(name), shown, LONGEST_NAME);
    return;
  }
  if (!arb_config_is_section(name)) {
    arb_config_suggest_section(name, hint, sizeof hint);
    LINE_ERROR(p, "unknown section [%s]%s", shown, hint);
    return;
  }
  p->place = IN_SECTION;
  for (int i = 0; i < p->n_sections; i++)
    if (strcmp(p->sections[i].name, name) == 0) {
      LINE_ERROR(p, "section [%s] was already opened on line %d; keep its keys together", name, p->sections[i].line);
      return;
    }
  int row = 0;
  while (strcmp(arb_config_rows[row].section, name) != 0) row++;
  p->sections[p->n_sections].name = arb_config_rows[row].section;
  p->sections[p->n_sections++].line = p->line;
}

/* line starts with '['. Cuts it behind the bracket. */
static void section_line(parser *p, char *line) {
  char *end = strchr(line, ']');
  if (end == NULL) {
    LINE_ERROR(p, "section header without ']'");
    p->place = IN_BAD_SECTION;
    line[0] = '\0';
    return;
  }
  const char *rest = end + 1;
  while (is_blank(*rest)) rest++;
  if (*rest != '\0' && *rest != ';' && *rest != '#') {
    char shown[40];
    arb_config_shown(rest, shown, sizeof shown);
    LINE_ERROR(p, "'%s' after a section header", shown);
  }
  *end = '\0';
  enter_section(p, line + 1);
  if (p->place == IN_SECTION)
    memcpy(end, "]", 2);
  else
    line[0] = '\0';
}

/* ---- a key line ---- */

/* Reports what inih would misread. Otherwise leaves the line for inih, and its value, trimmed and without comment, in
 * p->value. */
static bool key_line(parser *p, const char *line) {
  char shown[64], hint[300] = "";
  size_t eq = 0;
  while (line[eq] != '\0' && line[eq] != '=' && line[eq] != ':' && !(line[eq] == ';' && eq > 0 && is_blank(line[eq - 1]))) eq++;
  if (line[eq] != '=') {
    arb_config_shown(line, shown, sizeof shown);
    LINE_ERROR(p, "'%s': expected key = value%s", shown, line[eq] == ':' ? " ('=', not ':')" : "");
    return false;
  }
  size_t name = eq;
  while (name > 0 && is_blank(line[name - 1])) name--;
  if (name == 0) {
    LINE_ERROR(p, "no key before '='");
    return false;
  }
  if (p->place == NO_SECTION) {
    char key[LONGEST_NAME + 1];
    snprintf(key, sizeof key, "%.*s", (int)name, line);
    arb_config_shown(key, shown, sizeof shown);
    arb_config_suggest_key(NULL, key, false, hint, sizeof hint);
    LINE_ERROR(p, "key '%s' before any [section]%s", shown, hint);
    return false;
  }
  if (p->place == IN_BAD_SECTION) return false;
  if (name > LONGEST_NAME) {
    arb_config_shown(line, shown, sizeof shown);
    LINE_ERROR(p, "unknown key '%s'", shown);
    return false;
  }
  const char *value = line + eq + 1;
  while (is_blank(*value)) value++;
  size_t length = 0;
  if (*value == '#' || *value == ';') {
    LINE_ERROR(p, "the value of '%.*s' starts with '%c'; leave it empty, put it in quotes, or move the comment above",
               (int)name, line, *value);
    return false;
  }
  for (; value[length] != '\0'; length++) {
    if (length == 0 || !is_blank(value[length - 1])) continue;
    if (value[length] == ';') break;
    if (value[length] == '#') {
      LINE_ERROR(p, "'#' after the value of '%.*s' would become part of it; a comment after a value starts with ';'", (int)name,
                 line);
      return false;
    }
  }
  while (length > 0 && is_blank(value[length - 1])) length--;
  memcpy(p->value, value, length);
  p->value[length] = '\0';
  return true;
}

/* ---- lines ---- */

/* Takes the next physical line, without its end, out of the text. False where the line cannot be used. */
static bool take_line(parser *p, char *line, size_t *length) {
  const char *start = p->text + p->at;
  const size_t left = p->size - p->at;
  const char *lf = memchr(start, '\n', left);
  size_t n = lf == NULL ? left : (size_t)(lf - start);
  p->at += lf == NULL ? n : n + 1;
  p->line++;
  if (memchr(start, '\0', n) != NULL) {
    LINE_ERROR(p, "a NUL byte; is this a binary or UTF-16 file?");
    p->at = p->size; /* the rest would only repeat it */
    return false;
  }
  if (lf != NULL && n > 0 && start[n - 1] == '\r') n--;
  if (memchr(start, '\r', n) != NULL) {
    LINE_ERROR(p, "a carriage return inside a line; lines must end in LF or CRLF");
    return false;
  }
  size_t i = 0;
  while (i < n && is_blank(start[i])) i++;
  if (i == n || start[i] == ';' || start[i] == '#') return false; /* blank or comment, of any length */
  if (n > ARB_CONFIG_LINE) {
    LINE_ERROR(p, "a line of %zu bytes; at most %d are possible", n, ARB_CONFIG_LINE);
    return false;
  }
  for (size_t j = 0; j < n; j++)
    if ((unsigned char)start[j] < 0x20 ? start[j] != '\t' : start[j] == 0x7f) {
      LINE_ERROR(p, "control byte 0x%02x; text in quotes may hold it as \\x%02x", (unsigned)start[j], (unsigned)start[j]);
      return false;
    }
  if (i > 0) LINE_ERROR(p, "the line starts with a blank; sections and keys start in column 1");
  memcpy(line, start + i, n - i); /* read on without the blanks, so that nothing follows from this mistake */
  line[n - i] = '\0';
  *length = n - i;
  return true;
}

/* inih's reader: like fgets, one line a call. */
static char *next_line(char *str, int room, void *stream) {
  parser *p = stream;
  char line[ARB_CONFIG_LINE + 1];
  size_t length = 0;
  str[0] = '\0';
  p->long_value = NULL;
  if (p->at >= p->size) return NULL;
  if (!take_line(p, line, &length)) return str;
  if (line[0] == '[') {
    section_line(p, line);
  } else if (!key_line(p, line)) {
    return str;
  }
  /* inih's buffer holds 200 bytes, less than a path may need: of a longer line inih sees the key, and the handler takes the
   * value from here. A name always fits. */
  if (strlen(line) + 1 > (size_t)room) {
    p->long_value = p->value;
    line[strcspn(line, "=") + 1] = '\0';
  }
  snprintf(str, (size_t)room, "%s", line);
  return str;
}

/* inih's handler. It may not stop the parse: all mistakes are wanted. */
static int take_key(void *user, const char *section, const char *name, const char *value) {
  parser *p = user;
  char shown[64], reason[400];
  const int i = arb_config_find(section, strlen(section), name, strlen(name));
  if (i < 0) {
    arb_config_shown(name, shown, sizeof shown);
    arb_config_suggest_key(section, name, false, reason, sizeof reason);
    LINE_ERROR(p, "unknown key '%s' in [%s]%s", shown, section, reason);
    return 1;
  }
  if (p->line_of[i] != 0) {
    LINE_ERROR(p, "%s.%s was already set on line %d", section, name, p->line_of[i]);
    p->bad[i] = true;
    return 1;
  }
  p->line_of[i] = p->line;
  if (p->long_value != NULL) value = p->long_value;
  if (arb_config_parse(&arb_config_rows[i], value, p->file_folder, p->cfg, reason, sizeof reason)) {
    location(p, p->line, p->cfg->origin[i], sizeof p->cfg->origin[i]);
  } else {
    p->bad[i] = true;
    arb_config_shown(value, shown, sizeof shown);
    LINE_ERROR(p, "%s.%s = '%s': %s", section, name, shown, reason);
  }
  return 1;
}

/* ---- the file ---- */

/* The folder that relative paths of the file start from, as the user wrote it: links are not resolved, so that the paths
 * shown are the ones the user knows. */
static void find_folder(parser *p) {
  const char *slash = strrchr(p->file, '/');
  const size_t head = slash == NULL ? 0 : slash == p->file ? 1 : (size_t)(slash - p->file);
  const char *file = p->file;
  size_t length = head;
  while (length >= 2 && file[0] == '.' && file[1] == '/') file += 2, length -= 2;
  if (length == 1 && file[0] == '.') length = 0;
  const bool absolute = p->file[0] == '/';
  const char *between = !absolute && length > 0 && strcmp(p->current_folder, "/") != 0 ? "/" : "";
  const char *base = absolute ? "" : p->current_folder;
  if (!absolute && base[0] == '\0') return;
  const int n = snprintf(p->file_folder, FOLDER_BYTES, "%s%s%.*s", base, between, (int)length, file);
  if (n < 0 || n >= FOLDER_BYTES) p->file_folder[0] = '\0';
}

/* Opens without blocking on a FIFO, and takes only a regular file: ranks read it one by one, and it must end. On success
 * *text holds the bytes, to be freed. */
static arb_status read_file(const char *path, char **text, size_t *size) {
  arb_status st = ARB_OK;
  char *bytes = NULL;
  struct stat info;
  size_t used = 0;
  const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return ARB_FAIL(ARB_ERR_CONFIG, "%s: cannot open the config: %s", path, strerror(errno));
  if (fstat(fd, &info) != 0) {
    st = ARB_FAIL(ARB_ERR_CONFIG, "%s: cannot read the config: %s", path, strerror(errno));
    goto out;
  }
  if (!S_ISREG(info.st_mode)) {
    st = ARB_FAIL(ARB_ERR_CONFIG, "%s: cannot read the config: %s", path,
                  S_ISDIR(info.st_mode) ? strerror(EISDIR) : "Not a regular file");
    goto out;
  }
  bytes = malloc(ARB_CONFIG_FILE_BYTES + 1);
  if (bytes == NULL) {
    st = ARB_FAIL(ARB_ERR_NOMEM, "%s: no memory to read the config", path);
    goto out;
  }
  while (used <= ARB_CONFIG_FILE_BYTES) { /* one byte more than allowed tells a larger file */
    const ssize_t n = read(fd, bytes + used, ARB_CONFIG_FILE_BYTES + 1 - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      st = ARB_FAIL(ARB_ERR_CONFIG, "%s: cannot read the config: %s", path, strerror(errno));
      goto out;
    }
    if (n == 0) break;
    used += (size_t)n;
  }
  if (used > ARB_CONFIG_FILE_BYTES) {
    st = ARB_FAIL(ARB_ERR_CONFIG, "%s: larger than %d bytes; this is no config file", path, ARB_CONFIG_FILE_BYTES);
    goto out;
  }
  *text = bytes;
  *size = used;
  bytes = NULL;
out:
  free(bytes);
  close(fd);
  return st;
}

static arb_status parse_file(parser *p) {
  char *text = NULL;
  ARB_TRY(read_file(p->file, &text, &p->size));
  p->text = text;
  if (p->size >= 2 && (memcmp(text, "\xFF\xFE", 2) == 0 || memcmp(text, "\xFE\xFF", 2) == 0)) {
    p->line = 1;
    LINE_ERROR(p, "UTF-16 text; save the file as UTF-8");
  } else {
    if (p->size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) p->at = 3;
    const int rc = ini_parse_stream(next_line, p, take_key, p);
    /* Every line that gets this far was checked, so this is a library that splits lines otherwise than ours. */
    if (rc != 0) LINE_ERROR(p, "the ini library failed with code %d", rc);
  }
  free(text);
  p->text = NULL;
  return ARB_OK;
}

/* ---- overrides ---- */

static void take_override(parser *p, const char *const *overrides, int k, int *given) {
  const char *text = overrides[k];
  char shown[80], where[100], key[2 * LONGEST_NAME + 2], reason[400] = "";
  arb_config_shown(text, shown, sizeof shown);
  snprintf(where, sizeof where, "--set %s", shown);
  const size_t length = strcspn(text, "=");
  if (text[length] == '\0' || length == 0) {
    arb_config_error(&p->errors, where, "expected section.key=value");
    return;
  }
  snprintf(key, sizeof key, "%.*s", (int)length, text);
  const int i = length < sizeof key ? arb_config_find_dotted(key) : -1;
  if (i < 0) {
    char *dot = strchr(key, '.');
    if (dot != NULL) *dot = '\0';
    arb_config_suggest_key(dot == NULL ? NULL : key, dot == NULL ? key : dot + 1, true, reason, sizeof reason);
    arb_config_error(&p->errors, where, "%s%s", dot == NULL ? "expected section.key=value" : "unknown key", reason);
    return;
  }
  if (given[i] != 0) {
    arb_config_shown(overrides[given[i] - 1], shown, sizeof shown);
    arb_config_error(&p->errors, where, "given twice; the first was --set %s", shown);
    p->bad[i] = true;
    return;
  }
  given[i] = k + 1;
  if (arb_config_parse(&arb_config_rows[i], text + length + 1, p->current_folder, p->cfg, reason, sizeof reason)) {
    snprintf(p->cfg->origin[i], sizeof p->cfg->origin[i], "--set %s", key);
  } else {
    p->bad[i] = true;
    arb_config_error(&p->errors, where, "%s", reason);
  }
}

/* Default paths become absolute like all others, so that the printed config means the same from any folder. */
static void place_defaults(parser *p) {
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    const arb_config_row *row = &arb_config_rows[i];
    char reason[400];
    if (row->type != ARB_CONFIG_PATH || strcmp(p->cfg->origin[i], "default") != 0 || p->bad[i]) continue;
    if (!arb_config_parse(row, row->text, p->current_folder, p->cfg, reason, sizeof reason)) {
      p->bad[i] = true;
      arb_config_error(&p->errors, "default", "%s.%s = '%s': %s", row->section, row->name, row->text, reason);
    }
  }
}

arb_status arb_config_load(arb_config *cfg, const char *path, const char *const *overrides, int n_overrides) {
  ARB_REQUIRE(n_overrides == 0 || overrides != NULL, ARB_ERR_ARG, "overrides is NULL");
  parser *p = calloc(1, sizeof *p);
  ARB_REQUIRE(p != NULL, ARB_ERR_NOMEM, "no memory for the config parser");
  arb_status st = ARB_OK;
  int given[ARB_CONFIG_KEYS] = {0};
  arb_config_defaults(cfg);
  p->cfg = cfg;
  p->file = path;
  if (getcwd(p->current_folder, sizeof p->current_folder) == NULL) p->current_folder[0] = '\0';
  if (path != NULL) {
    find_folder(p);
    ARB_TRY_OUT(st, parse_file(p));
  }
  for (int k = 0; k < n_overrides; k++) take_override(p, overrides, k, given);
  place_defaults(p);
  arb_config_check_rules(cfg, p->bad, &p->errors);
  st = arb_config_raise(&p->errors);
out:
  free(p);
  return st;
}
