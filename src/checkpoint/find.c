/* Which checkpoints a folder holds: discovery and retention. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"
#include "src/checkpoint/inspect.h"
#include "src/checkpoint/io.h"

typedef struct {
  arb_ckpt_folder *items; /* checkpoints from new to old, then temporary folders */
  int count, capacity;
} item_list;

bool arb_ckpt_folder_name(const char *name, arb_ckpt_folder *out) {
  char again[80];
  char *end;
  if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9') return false;
  *out = (arb_ckpt_folder){.step = strtoll(name + 5, &end, 10)};
  if (*end == '\0') {
    snprintf(again, sizeof again, "step-%08" PRId64, out->step);
  } else {
    out->replaced = strncmp(end, ".old-", 5) == 0;
    if ((strncmp(end, ".tmp-", 5) != 0 && !out->replaced) || end[5] < '1' || end[5] > '9') return false;
    out->pid = strtol(end + 5, &end, 10);
    snprintf(again, sizeof again, "step-%08" PRId64 ".%s-%ld", out->step, out->replaced ? "old" : "tmp", out->pid);
  }
  return strcmp(again, name) == 0;
}

static int item_order(const void *a, const void *b) {
  const arb_ckpt_folder *x = a, *y = b;
  if ((x->pid != 0) != (y->pid != 0)) return x->pid != 0 ? 1 : -1;
  return (x->step < y->step) - (x->step > y->step);
}

static arb_status add_item(item_list *list, const arb_ckpt_folder *it) {
  if (list->count == list->capacity) {
    const int capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
    void *more = realloc(list->items, (size_t)capacity * sizeof *list->items);
    ARB_REQUIRE(more != NULL, ARB_ERR_NOMEM, "no memory for a list of %d checkpoints", capacity);
    list->items = more;
    list->capacity = capacity;
  }
  list->items[list->count++] = *it;
  return ARB_OK;
}

/* A folder that is not there has no checkpoints. */
static arb_status scan(const char *dir, item_list *list) {
  DIR *folder = opendir(dir);
  if (folder == NULL && errno == ENOENT) return ARB_OK;
  ARB_REQUIRE(folder != NULL, ARB_ERR_CHECKPOINT, "%s: cannot be opened: %s", dir, strerror(errno));
  arb_status st = ARB_OK;
  arb_ckpt_folder it;
  errno = 0;
  for (const struct dirent *e; st == ARB_OK && (e = readdir(folder)) != NULL; errno = 0)
    if (arb_ckpt_folder_name(e->d_name, &it)) st = add_item(list, &it);
  if (st == ARB_OK && errno != 0) st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be listed: %s", dir, strerror(errno));
  closedir(folder);
  if (list->count > 0) qsort(list->items, (size_t)list->count, sizeof *list->items, item_order);
  return st;
}

arb_status arb_ckpt_list(const char *dir, arb_ckpt_folder **out, int *count) {
  item_list list = {0};
  const arb_status st = scan(dir, &list);
  if (st != ARB_OK) free(list.items);
  *out = st == ARB_OK ? list.items : NULL;
  *count = st == ARB_OK ? list.count : 0;
  return st;
}

typedef struct {
  void (*line)(const char *line, void *arg);
  void *arg;
} reporter;

static void report(const reporter *to, const char *format, ...) ARB_PRINTF(2, 3);
static void report(const reporter *to, const char *format, ...) {
  char line[ARB_CKPT_PATH + 2048];
  if (to->line == NULL) return;
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  to->line(line, to->arg);
}

/* Is this one good? ARB_OK with *good false: it is not, and the reason has been reported. Anything but a judgement on the file
 * (no memory, no descriptors) is passed on: falling back to an older checkpoint for that would lose work. */
static arb_status judge(const char *dir, int64_t step, const reporter *to, bool *good) {
  const arb_status st = arb_ckpt_verify(dir, step);
  *good = st == ARB_OK;
  if (st != ARB_ERR_CHECKPOINT) return st;
  report(to, "skipped checkpoint: %s", arb_fail_message());
  arb_fail_clear();
  return ARB_OK;
}

arb_status arb_ckpt_latest(const char *dir, int64_t *found_step, void (*line)(const char *line, void *arg), void *arg) {
  const reporter to = {line, arg};
  item_list list = {0};
  *found_step = -1;
  arb_status st = scan(dir, &list);
  bool good = false;
  for (int i = 0; i < list.count && st == ARB_OK; i++) {
    const arb_ckpt_folder *it = &list.items[i];
    if (it->pid != 0) {
      report(&to, "skipped checkpoint: %s/step-%08" PRId64 ".%s-%ld: %s", dir, it->step, it->replaced ? "old" : "tmp", it->pid,
             it->replaced ? "moved aside for a newer save of its step" : "a save that did not finish");
    } else if (!good) {
      st = judge(dir, it->step, &to, &good);
      if (st == ARB_OK && good) *found_step = it->step;
    }
  }
  free(list.items);
  return st;
}

/* ---- retention -------------------------------------------------------------------------------------------------------- */

static arb_status remove_folder(const char *path) {
  const int why = arb_ckpt_remove_folder(path);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot be removed: %s", path, strerror(why));
  return ARB_OK;
}

/* Renamed first: interrupted half-way it is a temporary folder, not a damaged checkpoint. */
static arb_status remove_checkpoint(const char *dir, int64_t step) {
  char path[ARB_CKPT_PATH], doomed[ARB_CKPT_PATH];
  ARB_TRY(arb_ckpt_path(path, "%s/step-%08" PRId64, dir, step));
  ARB_TRY(arb_ckpt_path(doomed, "%s.tmp-%ld", path, (long)getpid()));
  ARB_TRY(remove_folder(doomed));
  ARB_REQUIRE(arb_io_table()->rename(path, doomed) == 0, ARB_ERR_CHECKPOINT, "%s: cannot be renamed: %s", path,
              strerror(errno));
  return remove_folder(doomed);
}

static bool is_dead(long pid) { return pid == (long)getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH); }

static arb_status retain(const char *dir, int keep, const item_list *list) {
  const reporter silent = {NULL, NULL};
  char path[ARB_CKPT_PATH];
  int complete = 0, kept = 0;
  for (int i = 0; i < list->count; i++) complete += list->items[i].pid == 0;
  for (int i = 0; i < list->count; i++) {
    const arb_ckpt_folder *it = &list->items[i];
    bool good = false;
    if (it->pid != 0) {
      if (!is_dead(it->pid)) continue;
      ARB_TRY(arb_ckpt_path(path, "%s/step-%08" PRId64 ".%s-%ld", dir, it->step, it->replaced ? "old" : "tmp", it->pid));
      ARB_TRY(remove_folder(path));
    } else if (kept >= keep) {
      ARB_TRY(remove_checkpoint(dir, it->step));
    } else if (complete > keep) { /* otherwise nothing can go, and reading them all would be for nothing */
      ARB_TRY(judge(dir, it->step, &silent, &good));
      kept += good;
    }
  }
  return ARB_OK;
}

arb_status arb_ckpt_retain(const char *dir, int keep) {
  item_list list = {0};
  ARB_REQUIRE(keep >= 1, ARB_ERR_ARG, "%d checkpoints to keep", keep);
  arb_status st = scan(dir, &list);
  if (st == ARB_OK && list.count > 0) {
    st = retain(dir, keep, &list);
    if (st == ARB_OK) st = arb_ckpt_sync_folder(dir);
  }
  free(list.items);
  return st;
}
