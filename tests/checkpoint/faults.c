#define _GNU_SOURCE
#include "tests/checkpoint/faults.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const call_names[CALLS + 1] = {"open",  "pwrite",  "fsync",  "close",  "rename", "exchange",
                                           "mkdir", "reserve", "memory", "remove", "kill"};
faults fault;

static void note(int call, const char *path) {
  const char *base = path != NULL ? strrchr(path, '/') : NULL;
  const size_t used = strlen(fault.log);
  if (call == CALL_FSYNC || call == CALL_RENAME || call == CALL_EXCHANGE || call == CALL_PWRITE)
    snprintf(fault.log + used, sizeof fault.log - used, "%s %s; ", call_names[call], base != NULL ? base + 1 : "?");
}

static void note_fd(int call, int fd) {
  char link[64], path[1024];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, path, sizeof path - 1);
  path[n > 0 ? n : 0] = '\0';
  note(call, path);
}

static bool fails(int call) {
  if (!fault.on || (fault.call != call && fault.call != CALLS)) return false;
  const int n = fault.seen++;
  if (n < fault.after || (n > fault.after && !fault.for_ever)) return false;
  fault.failed++;
  if (fault.kill && (call != CALL_PWRITE || fault.error != 0)) raise(SIGKILL);
  errno = fault.error;
  return true;
}

static int fault_open(const char *path, int flags) { return fails(CALL_OPEN) ? -1 : arb_io_system.open(path, flags); }
static int fault_open_folder(const char *path) { return fails(CALL_OPEN) ? -1 : arb_io_system.open_folder(path); }
static int fault_memory(const char *name) { return fails(CALL_MEMORY) ? -1 : arb_io_system.memory_file(name); }
static int fault_reserve(int fd, off_t bytes) {
  if (!fails(CALL_RESERVE)) return arb_io_system.reserve(fd, bytes);
  if (fault.error == 0) errno = EOPNOTSUPP;
  return -1;
}
static ssize_t fault_pwrite(int fd, const void *bytes, size_t count, off_t at) {
  if (fault.on) note_fd(CALL_PWRITE, fd);
  if (fault.slow > 0) nanosleep(&(struct timespec){fault.slow / 1000000000, fault.slow % 1000000000}, NULL);
  if (fails(CALL_PWRITE)) {
    if (fault.error != 0) return -1;
    const ssize_t put = arb_io_system.pwrite(fd, bytes, count > 1 ? count / 2 : count, at);
    if (fault.kill) raise(SIGKILL);
    return put;
  }
  return arb_io_system.pwrite(fd, bytes, count, at);
}
static int fault_fsync(int fd) {
  if (fault.on) note_fd(CALL_FSYNC, fd);
  return fails(CALL_FSYNC) ? -1 : arb_io_system.fsync(fd);
}
/* As the kernel does it: the descriptor is gone even when close fails. */
static int fault_close(int fd) {
  const bool failed = fails(CALL_CLOSE);
  const int rc = arb_io_system.close(fd);
  if (failed) errno = fault.error;
  return failed ? -1 : rc;
}
static int fault_mkdir(const char *path) { return fails(CALL_MKDIR) ? -1 : arb_io_system.mkdir(path); }
static int fault_rename(const char *from, const char *to) {
  if (fault.on) note(CALL_RENAME, to);
  return fails(CALL_RENAME) ? -1 : arb_io_system.rename(from, to);
}
static int fault_exchange(const char *a, const char *b) {
  if (fault.on) note(CALL_EXCHANGE, b);
  if (fault.on && fault.no_exchange) return errno = EINVAL, -1;
  if (!fails(CALL_EXCHANGE)) return arb_io_system.exchange(a, b);
  if (fault.error == 0) errno = EINVAL;
  return -1;
}
static int fault_remove_at(int folder, const char *name) {
  return fails(CALL_REMOVE) ? -1 : arb_io_system.remove_at(folder, name);
}
static int fault_remove_folder(const char *path) { return fails(CALL_REMOVE) ? -1 : arb_io_system.remove_folder(path); }

const arb_io fault_io = {.open = fault_open,
                         .open_folder = fault_open_folder,
                         .memory_file = fault_memory,
                         .reserve = fault_reserve,
                         .pwrite = fault_pwrite,
                         .fsync = fault_fsync,
                         .close = fault_close,
                         .mkdir = fault_mkdir,
                         .rename = fault_rename,
                         .exchange = fault_exchange,
                         .remove_at = fault_remove_at,
                         .remove_folder = fault_remove_folder};

bool fault_parse(const char *text) {
  char name[16], error[16] = "", once[8] = "";
  int after = 0;
  memset(&fault, 0, sizeof fault);
  fault.on = true;
  if (sscanf(text, "slow:%ld", &fault.slow) == 1) return fault.call = CALLS, fault.after = -1, fault.on = false, true;
  if (sscanf(text, "%15[a-z]:%d:%15[A-Z]:%7s", name, &after, error, once) < 2) return false;
  fault.after = after;
  for (fault.call = 0; fault.call <= CALLS; fault.call++)
    if (strcmp(name, call_names[fault.call]) == 0) break;
  fault.kill = fault.call == CALLS;
  fault.for_ever = strcmp(once, "once") != 0;
  fault.error = strcmp(error, "ENOSPC") == 0 ? ENOSPC : strcmp(error, "EIO") == 0 ? EIO : 0;
  return fault.call <= CALLS && (fault.kill || fault.error != 0 || error[0] == '\0');
}
