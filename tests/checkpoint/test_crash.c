/* Saves that are killed, that run out of disk, or whose system calls fail one after the other: what was saved before stays the
 * newest good checkpoint, the caller hears why, and no temporary folder is left by a process that lives. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/checkpoint/faults.h"
#include "tests/checkpoint/state.h"
#include "tests/test.h"

/* A checkpoint and its files; 0 also when it is not there. */
static int system_remove(const char *path) {
  char command[1400];
  snprintf(command, sizeof command, "rm -rf '%s'", path);
  return system(command);
}

static bool no_exchange; /* for the next saves */

static arb_status save_faulty(const char *dir, int64_t step, int call, int after, int error, bool for_ever) {
  state s;
  state_fill(&s, step);
  memset(&fault, 0, sizeof fault);
  fault.call = call, fault.after = after, fault.error = error, fault.for_ever = for_ever;
  fault.no_exchange = no_exchange;
  fault.on = true;
  arb_io_use(&fault_io);
  const arb_status st = arb_ckpt_save(dir, &s.meta, s.arrays, STATE_ARRAYS);
  fault.on = false;
  arb_io_use(NULL);
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
    const arb_status st = save_faulty(dir, 2, call, after, error, for_ever);
    if (fault.failed == 0) break;
    if (st != ARB_ERR_CHECKPOINT) fail_msg("%s %d failed, the save gave %s", call_names[call], after, arb_status_name(st));
    if (strstr(arb_fail_message(), reason) == NULL || strstr(arb_fail_message(), dir) == NULL)
      fail_msg("%s %d: '%s' lacks '%s' or the path", call_names[call], after, arb_fail_message(), reason);
    arb_fail_clear();
    assert_int_equal(entries_with(dir, ".tmp-"), 0);
    state_check(dir, 1);
    const int64_t newest = state_latest(dir); /* 2 when only the last fsync, after the rename, failed */
    assert_true(newest == 1 || newest == 2);
    assert_true(newest == 1 || strstr(fault.log, "rename") != NULL);
  }
  assert_true(after > 0);
  state_check(dir, 2);
}

static void failing_writes(void **test) { sweep(test, CALL_PWRITE, ENOSPC, true, "No space left on device"); }
static void failing_write_once(void **test) { sweep(test, CALL_PWRITE, EIO, false, "Input/output error"); }
static void failing_fsync(void **test) { sweep(test, CALL_FSYNC, EIO, false, "Input/output error"); }
static void failing_rename(void **test) { sweep(test, CALL_RENAME, EIO, true, "Input/output error"); }
static void failing_mkdir(void **test) { sweep(test, CALL_MKDIR, ENOSPC, true, "No space left on device"); }
static void failing_reserve(void **test) { sweep(test, CALL_RESERVE, ENOSPC, true, "No space left on device"); }

static void failing_open(void **test) { sweep(test, CALL_OPEN, EIO, true, "Input/output error"); }

/* What close says of a file counts; of a folder that was opened for fsync it means nothing. */
static void failing_close(void **test) {
  const char *dir = *test;
  int failed = 0, after = 0;
  for (;; after++) {
    const arb_status st = save_faulty(dir, 2, CALL_CLOSE, after, EIO, false);
    if (fault.failed == 0) break;
    assert_true(st == ARB_OK || st == ARB_ERR_CHECKPOINT);
    failed += st != ARB_OK;
    assert_true(st == ARB_OK || strstr(arb_fail_message(), "Input/output error") != NULL);
    arb_fail_clear();
    assert_int_equal(entries_with(dir, ".tmp-"), 0);
  }
  assert_int_equal(failed, 2); /* the data and the manifest */
  state_check(dir, 2);
}

static void failing_replacement(void **test) {
  const char *dir = *test;
  state_save(dir, 2);
  arb_assert_fails(save_faulty(dir, 2, CALL_RENAME, 0, EXDEV, true), ARB_ERR_CHECKPOINT, "cannot be renamed");
  arb_assert_fails(save_faulty(dir, 2, CALL_EXCHANGE, 0, EIO, true), ARB_ERR_CHECKPOINT, "cannot be renamed");
  assert_int_equal(entries_with(dir, ""), 1);
  state_check(dir, 2);
  no_exchange = true;
  for (int after = 1; after < 3; after++) { /* the old one moved aside, the new one in its place */
    arb_assert_fails(save_faulty(dir, 2, CALL_RENAME, after, EXDEV, false), ARB_ERR_CHECKPOINT, "cannot be renamed");
    assert_int_equal(entries_with(dir, ""), 1);
    state_check(dir, 2);
  }
  arb_assert_ok(save_faulty(dir, 2, CALLS, 1000, 0, false));
  no_exchange = false;
  assert_int_equal(entries_with(dir, ""), 1);
  state_check(dir, 2);
}

static void short_writes(void **test) {
  arb_assert_ok(save_faulty(*test, 3, CALL_PWRITE, 0, 0, true));
  assert_true(fault.failed > 10);
  state_check(*test, 3);
}

static void file_system_without_reserve(void **test) {
  arb_assert_ok(save_faulty(*test, 3, CALL_RESERVE, 0, 0, true));
  assert_int_equal(fault.failed, 1);
  state_check(*test, 3);
}

static void system_without_memory_files(void **test) {
  arb_assert_ok(save_faulty(*test, 3, CALL_MEMORY, 0, ENOSYS, true));
  assert_int_equal(fault.failed, 1);
  assert_int_equal(entries_with(step_path(*test, 3, NULL), ""), 2);
  state_check(*test, 3);
}

static void folder_without_fsync(void **test) { /* EINVAL means that the file system has none for folders */
  state_save(*test, 1);
  arb_assert_ok(save_faulty(*test, 3, CALL_FSYNC, 2, EINVAL, true));
  assert_true(fault.failed >= 2);
  state_check(*test, 3);
}

/* The order that makes it durable: data, manifest, their folder, the new name, the parent; and nothing is written to a file
 * after its fsync. */
static void order_of_calls(void **test) {
  char expected[400];
  const long pid = (long)getpid();
  state_save(*test, 1);
  const char *parent = strrchr(*test, '/') + 1;
  for (int again = 0; again < 2; again++) {
    arb_assert_ok(save_faulty(*test, 2, CALLS, 1000, 0, false));
    const char *at = fault.log;
    while (strncmp(at, "pwrite rank-00000.h5; ", 22) == 0) at += 22;
    assert_true(at > fault.log);
    snprintf(expected, sizeof expected,
             "fsync rank-00000.h5; pwrite manifest.json; fsync manifest.json; fsync step-00000002.tmp-%ld; "
             "rename step-00000002; %sfsync %s; ",
             pid, again == 0 ? "" : "exchange step-00000002; ", parent); /* the folder is there: both change names */
    assert_string_equal(at, expected);
  }
}

/* Every call of a save is the last one of its process, and every write, too, when it is half done. */
static void killed_at_every_call(void **test) {
  const char *dir = *test;
  int kills = 0, committed = 0;
  for (int again = 0; again < 3; again++) /* a new step; one that is there; the same without exchange of names */
    for (int half = 0; half < 2; half++)
      for (int after = 0;; after++) {
        int status;
        if (again == 0) assert_int_equal(system_remove(step_path(dir, 2, NULL)), 0);
        state_save(dir, 1);
        if (again > 0) state_save(dir, 2);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
          state s;
          state_fill(&s, 2);
          memset(&fault, 0, sizeof fault);
          fault = (faults){.on = true, .call = half ? CALL_PWRITE : CALLS, .after = after, .kill = true};
          fault.error = half ? 0 : EIO;
          fault.no_exchange = again == 2;
          arb_io_use(&fault_io);
          _exit(arb_ckpt_save(dir, &s.meta, s.arrays, STATE_ARRAYS) == ARB_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) {
          assert_int_equal(WEXITSTATUS(status), 0);
          state_check(dir, 2);
          break;
        }
        kills++;
        assert_int_equal(WTERMSIG(status), SIGKILL);
        state_check(dir, 1);
        const int64_t newest = state_latest(dir);
        /* Without exchange a step that is saved again is away for a moment. */
        if (again == 1 && newest != 2) fail_msg("killed at call %d: step 2 was there and is not any more", after);
        assert_true(newest == 1 || newest == 2);
        state_check(dir, newest);
        committed += newest == 2;
        arb_assert_ok(arb_ckpt_retain(dir, 5)); /* the next save sweeps what is left */
        assert_int_equal(entries_with(dir, ".tmp-") + entries_with(dir, ".old-"), 0);
      }
  print_message("%d kills, %d with step 2 there\n", kills, committed);
  assert_true(kills > 60);
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
  const arb_ckpt_array array = ARB_CKPT_WHOLE("big", "code", ARB_U8, kib, 1024, bytes);
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
      memset(&fault, 0, sizeof fault);
      fault.call = CALL_RESERVE, fault.for_ever = true, fault.on = blind == 1;
      arb_io_use(&fault_io);
      const arb_status st = save_big(dir, 2, kib);
      fault.on = false;
      if (st == ARB_OK) {
        assert_int_equal(state_latest(dir), 2);
        arb_assert_ok(arb_ckpt_retain(dir, 2));
        assert_int_equal(system_remove(step_path(dir, 2, NULL)), 0);
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
      SCRATCH(failing_open),
      SCRATCH(failing_close),
      SCRATCH(failing_mkdir),
      SCRATCH(failing_reserve),
      SCRATCH(failing_replacement),
      SCRATCH(short_writes),
      SCRATCH(file_system_without_reserve),
      SCRATCH(system_without_memory_files),
      SCRATCH(folder_without_fsync),
      SCRATCH(order_of_calls),
      SCRATCH(killed_at_every_call),
      SCRATCH(killed_again_and_again),
      cmocka_unit_test_setup_teardown(full_disk, scratch_setup, unmount_teardown),
  };
  return cmocka_run_group_tests_name("checkpoint_crash", tests, NULL, NULL);
}
