#define _XOPEN_SOURCE 700 /* realpath */
#include "tools/checkpoint/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static arb_status set_dir(arb_place *p, const char *dir, const char *below) {
  const int n = snprintf(p->dir, sizeof p->dir, "%s%s", dir, below);
  ARB_REQUIRE(n > 0 && n < ARB_PLACE_PATH, ARB_ERR_CONFIG, "%.100s...: path too long", dir);
  return ARB_OK;
}

/* The real name counts: "." and links to step folders have another spelling. */
static arb_status as_step_folder(char *real, int64_t step, arb_place *out, bool *is) {
  arb_ckpt_folder folder;
  char *slash = strrchr(real, '/');
  *is = slash != NULL && arb_ckpt_folder_name(slash + 1, &folder) && folder.pid == 0;
  if (!*is) return ARB_OK;
  ARB_REQUIRE(step < 0 || step == folder.step, ARB_ERR_CONFIG, "%s is not step %" PRId64, real, step);
  out->step = folder.step;
  *slash = '\0';
  return set_dir(out, slash == real ? "/" : real, "");
}

arb_status arb_place_find(const char *path, int64_t step, arb_place *out) {
  bool is = false;
  *out = (arb_place){.step = step};
  char *real = realpath(path, NULL);
  ARB_REQUIRE(real != NULL, ARB_ERR_CHECKPOINT, "%s: %s", path, strerror(errno));
  arb_status st = is_folder(real)
                      ? as_step_folder(real, step, out, &is)
                      : ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: is not a folder; a checkpoint is a step-XXXXXXXX folder", path);
  free(real);
  if (st != ARB_OK || is) return st;
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  char *plain = strndup(path, length);
  ARB_REQUIRE(plain != NULL, ARB_ERR_NOMEM, "no memory for a path");
  st = set_dir(out, plain, "/checkpoints");
  if (st == ARB_OK && !is_folder(out->dir)) st = set_dir(out, plain, "");
  free(plain);
  return st;
}

void arb_place_look(const arb_place *p, arb_place_file *out) {
  struct stat info;
  *out = (arb_place_file){.bytes = 0};
  snprintf(out->path, sizeof out->path, "%s/step-%08" PRId64, p->dir, p->step);
  DIR *list = opendir(out->path);
  if (list == NULL) return;
  for (const struct dirent *e; (e = readdir(list)) != NULL;) {
    if (fstatat(dirfd(list), e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) continue;
    out->bytes += (uint64_t)info.st_size;
    if ((int64_t)info.st_mtime > out->time) out->time = (int64_t)info.st_mtime;
  }
  closedir(list);
}

/* ---- work in a child -------------------------------------------------------------------------------------------------- */

typedef struct {
  const arb_place *place;
  const arb_place_work *w;
} job;

arb_status arb_place_open(const arb_place *p, arb_ckpt **out) {
  return p->unverified ? arb_ckpt_open_unverified(p->dir, p->step, out) : arb_ckpt_open(p->dir, p->step, out);
}

void arb_place_warn(const arb_ckpt *c) {
  const char *first;
  const int damaged = arb_ckpt_damaged(c, &first);
  if (damaged > 0)
    fprintf(stderr, "arbckpt: not verified: %s: %d of the slices read are damaged, the first of %s\n", arb_ckpt_path_of(c),
            damaged, first);
}

static arb_status open_and_work(FILE *out, void *arg, void *result) {
  const job *j = arg;
  arb_ckpt *c;
  ARB_TRY(arb_place_open(j->place, &c));
  const arb_status st = j->w->work(out, c, j->w->arg, result);
  if (st == ARB_OK) arb_place_warn(c);
  arb_ckpt_close(&c);
  return st;
}

arb_status arb_place_run(const arb_place *p, arb_place_work *w) {
  arb_place_file file;
  job j = {p, w};
  arb_place_look(p, &file);
  arb_guard g = {.work = open_and_work,
                 .arg = &j,
                 .result = w->result,
                 .result_bytes = w->result_bytes,
                 .direct = w->direct,
                 .path = file.path,
                 .bytes = file.bytes};
  const arb_status st = arb_guard_run(&g);
  w->pid = g.pid;
  return st;
}

/* ---- the newest ------------------------------------------------------------------------------------------------------- */

/* Opening verifies. */
static arb_status check_work(FILE *out, const arb_ckpt *c, const void *arg, void *result) {
  (void)out, (void)c, (void)arg, (void)result;
  return ARB_OK;
}

static arb_status choose_of(arb_place *p, const arb_ckpt_folder *list, int count) {
  int complete = 0;
  for (int i = 0; i < count && list[i].pid == 0; i++) {
    arb_place_work w = {.work = check_work};
    p->step = list[i].step;
    complete++;
    const arb_status st = arb_place_run(p, &w);
    if (st != ARB_ERR_CHECKPOINT) return st;
    fprintf(stderr, "arbckpt: skipped checkpoint: %s\n", arb_fail_message());
    arb_fail_clear();
  }
  p->step = -1;
  ARB_REQUIRE(complete == 0, ARB_ERR_CHECKPOINT, "%s: none of its %d checkpoints verifies", p->dir, complete);
  return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: no checkpoints; expected a run's folder, its checkpoints folder, or a step folder",
                  p->dir);
}

arb_status arb_place_choose(arb_place *p) {
  arb_ckpt_folder *list;
  int count;
  if (p->step >= 0) return ARB_OK;
  ARB_REQUIRE(!p->unverified, ARB_ERR_CONFIG, "--unverified needs a step folder or --step N");
  ARB_TRY(arb_ckpt_list(p->dir, &list, &count));
  const arb_status st = choose_of(p, list, count);
  free(list);
  return st;
}
