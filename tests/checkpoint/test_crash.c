/* Saves that are killed, that run out of disk, or whose system calls fail one after the other: what was saved before stays the
 * newest good checkpoint, the caller hears why, and no temporary folder is left by a process that lives. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/checkpoint/state.h"
#include "tests/test.h"

/* ---- system calls under our hand: these definitions come before the C library's, also for HDF5 -------------------------- */

enum { CALL_PWRITE, CALL_FSYNC, CALL_RENAME, CALL_FALLOCATE, CALL_MKDIR, CALL_MEMFD, CALLS };
static const char *const call_names[CALLS] = {"pwrite", "fsync", "rename", "fallocate", "mkdir", "memfd_create"};

static struct {
  bool on;
  int call;      /* which one fails */
  int after;     /* so many succeed first */
  int error;     /* 0: pwrite takes only a part of its bytes, fallocate is not supported */
  bool for_ever; /* all later ones fail, too */
  int seen, failed;
  char log[8192]; /* "fsync state.h5; rename; ..." */
} inject;

static void note(int call, const char *path) {
  if (!inject.on) return;
  const char *base = path != NULL ? strrchr(path, '/') : NULL;
  const size_t used = strlen(inject.log);
  snprintf(inject.log + used, sizeof inject.log - used, "%s %s; ", call_names[call], base != NULL ? base + 1 : "?");
}

static void note_fd(int call, int fd) {
  char link[64], path[1024];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, path, sizeof path - 1);
  path[n > 0 ? n : 0] = '\0';
  note(call, path);
}

/* Not the layout that HDF5 makes in memory. */
static bool on_disk(int fd) {
  struct stat info;
  return fstat(fd, &info) == 0 && info.st_nlink > 0;
}

static bool fails(int call) {
  if (!inject.on || inject.call != call) return false;
  const int n = inject.seen++;
  if (n < inject.after || (n > inject.after && !inject.for_ever)) return false;
  inject.failed++;
  return true;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  if (inject.on && on_disk(fd)) note_fd(CALL_PWRITE, fd);
  if (inject.on && on_disk(fd) && fails(CALL_PWRITE)) {
    if (inject.error != 0) return errno = inject.error, -1;
    count = count > 1 ? count / 2 : count;
  }
  return syscall(SYS_pwrite64, fd, bytes, count, at);
}
int fsync(int fd) {
  note_fd(CALL_FSYNC, fd);
  if (fails(CALL_FSYNC)) return errno = inject.error, -1;
  return (int)syscall(SYS_fsync, fd);
}
int rename(const char *from, const char *to) {
  note(CALL_RENAME, to);
  if (fails(CALL_RENAME)) return errno = inject.error, -1;
  return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
int fallocate(int fd, int mode, off_t at, off_t bytes) {
  if (fails(CALL_FALLOCATE)) return errno = inject.error != 0 ? inject.error : EOPNOTSUPP, -1;
  return (int)syscall(SYS_fallocate, fd, mode, at, bytes);
}
int mkdir(const char *path, mode_t mode) {
  if (fails(CALL_MKDIR)) return errno = inject.error, -1;
  return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int memfd_create(const char *name, unsigned flags) {
  if (fails(CALL_MEMFD)) return errno = inject.error, -1;
  return (int)syscall(SYS_memfd_create, name, flags);
}

static arb_status save_injected(const char *dir, int64_t step, int call, int after, int error, bool for_ever) {
  state s;
  state_fill(&s, step);
  memset(&inject, 0, sizeof inject);
  inject.call = call, inject.after = after, inject.error = error, inject.for_ever = for_ever;
  inject.on = true;
  const arb_status st = arb_ckpt_save(dir, &s.meta, s.arrays, STATE_ARRAYS);
  inject.on = false;
  return st;
}

/* ---- failing calls ---------------------------------------------------------------------------------------------------- */

/* Each call that a save makes fails once, and then for ever: an error with the system's reason, or, where the failure does not
 * matter, a good checkpoint. Afterwards everything works again. */
static void sweep(void **test, int call, int error, bool for_ever, const char *reason) {
  const char *dir = *test;
  int after = 0;
  state_save(dir, 1);
  for (;; after++) {
    const arb_status st = save_injected(dir, 2, call, after, error, for_ever);
    if (inject.failed == 0) break;
    if (st != ARB_ERR_CHECKPOINT) fail_msg("%s %d failed, the save gave %s", call_names[call], after, arb_status_name(st));
    if (strstr(arb_fail_message(), reason) == NULL || strstr(arb_fail_message(), dir) == NULL)
      fail_msg("%s %d: '%s' lacks '%s' or the path", call_names[call], after, arb_fail_message(), reason);
    arb_fail_clear();
    assert_int_equal(entries_with(dir, ".tmp-"), 0);
    state_check(dir, 1);
    const int64_t newest = state_latest(dir); /* 2 when only the last fsync, after the rename, failed */
    assert_true(newest == 1 || newest == 2);
    assert_true(newest == 1 || strstr(inject.log, "rename") != NULL);
  }
  assert_true(after > 0);
  state_check(dir, 2);
}

static void failing_writes(void **test) { sweep(test, CALL_PWRITE, ENOSPC, true, "No space left on device"); }
static void failing_write_once(void **test) { sweep(test, CALL_PWRITE, EIO, false, "Input/output error"); }
static void failing_fsync(void **test) { sweep(test, CALL_FSYNC, EIO, false, "Input/output error"); }
static void failing_rename(void **test) { sweep(test, CALL_RENAME, EIO, true, "Input/output error"); }
static void failing_mkdir(void **test) { sweep(test, CALL_MKDIR, ENOSPC, true, "No space left on device"); }
static void failing_reserve(void **test) { sweep(test, CALL_FALLOCATE, ENOSPC, true, "No space left on device"); }

static void failing_replacement(void **test) {
  const char *dir = *test;
  for (int after = 0; after < 2; after++) {
    state_save(dir, 2);
    arb_assert_fails(save_injected(dir, 2, CALL_RENAME, after, EXDEV, true), ARB_ERR_CHECKPOINT, "cannot be renamed");
    assert_int_equal(entries_with(dir, ""), 1);
    state_check(dir, 2);
  }
}

static void short_writes(void **test) {
  arb_assert_ok(save_injected(*test, 3, CALL_PWRITE, 0, 0, true));
  assert_true(inject.failed > 10);
  state_check(*test, 3);
}

static void file_system_without_reserve(void **test) {
  arb_assert_ok(save_injected(*test, 3, CALL_FALLOCATE, 0, 0, true));
  assert_int_equal(inject.failed, 1);
  state_check(*test, 3);
}

static void system_without_memory_files(void **test) {
  arb_assert_ok(save_injected(*test, 3, CALL_MEMFD, 0, ENOSYS, true));
  assert_int_equal(inject.failed, 1);
  assert_int_equal(entries_with(step_path(*test, 3, NULL), ""), 1);
  state_check(*test, 3);
}

static void folder_without_fsync(void **test) { /* EINVAL means that the file system has none for folders */
  state_save(*test, 1);
  arb_assert_ok(save_injected(*test, 3, CALL_FSYNC, 1, EINVAL, true));
  assert_true(inject.failed >= 2);
  state_check(*test, 3);
}

/* The order that makes it durable: data, its folder, the new name, the parent; and nothing is written to a file after its
 * fsync. */
static void order_of_calls(void **test) {
  char expected[400], number[32];
  state_save(*test, 1);
  const char *parent = strrchr(*test, '/') + 1;
  for (int again = 0; again < 2; again++) {
    arb_assert_ok(save_injected(*test, 2, CALLS, 0, 0, false));
    const char *at = inject.log;
    while (strncmp(at, "pwrite state.h5; ", 17) == 0) at += 17;
    assert_true(at > inject.log);
    snprintf(number, sizeof number, "%ld", (long)getpid());
    if (again == 0)
      snprintf(expected, sizeof expected, "fsync state.h5; fsync step-00000002.tmp-%s; rename step-00000002; fsync %s; ",
               number, parent);
    else /* the folder is there: only its file changes place */
      snprintf(expected, sizeof expected,
               "fsync state.h5; fsync step-00000002.tmp-%s; rename step-00000002; rename state.h5; fsync step-00000002; "
               "fsync %s; ",
               number, parent);
    assert_string_equal(at, expected);
  }
}

/* ---- kill -9 ---------------------------------------------------------------------------------------------------------- */

enum { KILLS = 50, KEEP = 2 };

/* Saves step after step and tells each completed one through the pipe. */
static void save_for_ever(const char *dir, int64_t step, int out) {
  state s;
  for (;; step++) {
    state_fill(&s, step);
    if (arb_ckpt_save(dir, &s.meta, s.arrays, STATE_ARRAYS) != ARB_OK) _exit(1);
    if (write(out, &step, sizeof step) != (ssize_t)sizeof step) _exit(2);
    if (arb_ckpt_retain(dir, KEEP) != ARB_OK) _exit(3);
  }
}

static void killed_again_and_again(void **test) {
  const char *dir = *test;
  uint64_t random = 88172645463325252u;
  int64_t completed = 0;
  int torn = 0;
  state_save(dir, 0);
  for (int i = 0; i < KILLS; i++) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) save_for_ever(dir, completed + 1, ends[1]);
    close(ends[1]);
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    const struct timespec nap = {0, (long)(random % 120000000)};
    nanosleep(&nap, NULL);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status)); /* not one of its own exits */
    for (int64_t step; read(ends[0], &step, sizeof step) == (ssize_t)sizeof step;) completed = step;
    close(ends[0]);
    torn += entries_with(dir, ".tmp-") > 0;
    const int64_t newest = state_latest(dir);
    /* The child may have been killed between its rename and its word. */
    if (newest != completed && newest != completed + 1)
      fail_msg("killed %d times: the newest is %lld, completed was %lld", i + 1, (long long)newest, (long long)completed);
    state_check(dir, newest);
    completed = newest;
  }
  print_message("%d kills, %lld saves, %d times in the middle of one\n", KILLS, (long long)completed, torn);
  assert_true(completed > 0 && torn > 0);
  /* The next run sweeps what they left. */
  state_save(dir, completed + 1);
  arb_assert_ok(arb_ckpt_retain(dir, 1));
  assert_int_equal(entries_with(dir, ""), 1);
  state_check(dir, completed + 1);
}

/* ---- a full disk ------------------------------------------------------------------------------------------------------ */

static arb_status save_big(const char *dir, int64_t step, int64_t kib) {
  unsigned char *bytes = calloc(1024, (size_t)kib);
  assert_non_null(bytes);
  const arb_ckpt_array array = {"big", "code", ARB_U8, kib, 1024, bytes};
  const arb_ckpt_meta meta = {
      .step = step, .digest = "00000000000000000000000000000000", .identity = STATE_IDENTITY, .config = STATE_CONFIG};
  const arb_status st = arb_ckpt_save(dir, &meta, &array, 1);
  free(bytes);
  return st;
}

static uint64_t free_bytes(const char *dir) {
  struct statvfs info;
  assert_int_equal(statvfs(dir, &info), 0);
  return (uint64_t)info.f_bfree * info.f_frsize;
}

static void full_disk(void **test) {
  const char *dir = *test;
  if (mount("tmpfs", dir, "tmpfs", 0, "size=1m") != 0) {
    print_message("SKIPPED: a full disk: no tmpfs can be mounted here (%s)\n", strerror(errno));
    skip();
  }
  state_save(dir, 1);
  const uint64_t before = free_bytes(dir);
  arb_assert_fails(save_big(dir, 2, 2048), ARB_ERR_CHECKPOINT, "no room for");
  arb_assert_fails(save_big(dir, 2, 2048), ARB_ERR_CHECKPOINT, "No space left on device");
  assert_int_equal(free_bytes(dir), before);
  /* Every size around the limit, with the early notice and, as on file systems that cannot reserve, without. */
  for (int64_t kib = 780; kib < 1030; kib += 6)
    for (int blind = 0; blind < 2; blind++) {
      memset(&inject, 0, sizeof inject);
      inject.call = CALL_FALLOCATE, inject.for_ever = true, inject.on = blind == 1;
      const arb_status st = save_big(dir, 2, kib);
      inject.on = false;
      if (st == ARB_OK) {
        assert_int_equal(state_latest(dir), 2);
        arb_assert_ok(arb_ckpt_retain(dir, 2));
        assert_int_equal(unlink(step_path(dir, 2, "state.h5")) | rmdir(step_path(dir, 2, NULL)), 0);
      } else {
        assert_int_equal(st, ARB_ERR_CHECKPOINT);
        assert_non_null(strstr(arb_fail_message(), "No space left on device"));
        arb_fail_clear();
      }
      assert_int_equal(entries_with(dir, ""), 1);
      assert_int_equal(free_bytes(dir), before);
      assert_int_equal(state_latest(dir), 1);
    }
  state_save(dir, 2);
  state_check(dir, 1);
  state_check(dir, 2);
}

static int unmount_teardown(void **test) {
  umount2(*test, MNT_DETACH);
  return scratch_teardown(test);
}

#define SCRATCH(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      SCRATCH(failing_writes),
      SCRATCH(failing_write_once),
      SCRATCH(failing_fsync),
      SCRATCH(failing_rename),
      SCRATCH(failing_mkdir),
      SCRATCH(failing_reserve),
      SCRATCH(failing_replacement),
      SCRATCH(short_writes),
      SCRATCH(file_system_without_reserve),
      SCRATCH(system_without_memory_files),
      SCRATCH(folder_without_fsync),
      SCRATCH(order_of_calls),
      SCRATCH(killed_again_and_again),
      cmocka_unit_test_setup_teardown(full_disk, scratch_setup, unmount_teardown),
  };
  return cmocka_run_group_tests_name("checkpoint_crash", tests, NULL, NULL);
}
