#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "tools/checkpoint/guard.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "tools/checkpoint/text.h"

/* Sanitizers reserve terabytes of address space. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* What both processes see. */
typedef struct {
  bool done;
  arb_status st;
  char message[2048];
  unsigned char result[ARB_GUARD_RESULT];
} shared;

/* Data is streamed, so memory is for the program itself and the list of arrays, each of which takes hundreds of bytes of the
 * file, too. */
static uint64_t memory_limit(const arb_guard *g) {
  const uint64_t mib = 1 << 20, more = g->bytes < 1024 * mib ? 4 * g->bytes : 4096 * mib;
  return g->memory_bytes != 0 ? g->memory_bytes : 512 * mib + more;
}

static uint64_t seconds_limit(const arb_guard *g) { return g->seconds != 0 ? g->seconds : 60 + (g->bytes >> 23); }

static void lower(int resource, uint64_t soft, uint64_t hard) {
  struct rlimit r;
  if (getrlimit(resource, &r) != 0) return;
  if (r.rlim_cur == RLIM_INFINITY || r.rlim_cur > soft) r.rlim_cur = (rlim_t)soft;
  if (r.rlim_max == RLIM_INFINITY || r.rlim_max > hard) r.rlim_max = (rlim_t)hard;
  setrlimit(resource, &r);
}

static arb_status work_and_print(const arb_guard *g, void *result) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = g->direct ? stdout : open_memstream(&text, &length);
  ARB_REQUIRE(out != NULL, ARB_ERR_NOMEM, "no memory for the output");
  arb_status st = g->work(out, g->arg, result);
  if (!g->direct) {
    if (fclose(out) != 0 && st == ARB_OK) st = ARB_FAIL(ARB_ERR_NOMEM, "no memory for the output");
    if (st == ARB_OK) fwrite(text, 1, length, stdout);
    free(text);
  }
  const bool lost = fflush(stdout) != 0 || ferror(stdout) != 0;
  if (lost && st == ARB_OK) st = ARB_FAIL(ARB_ERR_IO, "cannot write the output: %s", strerror(errno));
  return st;
}

static void run_child(const arb_guard *g, shared *s) {
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#endif
  lower(RLIMIT_CORE, 0, 0);
  lower(RLIMIT_CPU, seconds_limit(g), seconds_limit(g) + 1);
  if (!SANITIZED) lower(RLIMIT_AS, memory_limit(g), memory_limit(g));
  s->st = work_and_print(g, s->result);
  snprintf(s->message, sizeof s->message, "%s", arb_fail_message());
  s->done = true;
  exit(0);
}

static arb_status judge(const arb_guard *g, const shared *s, int status) {
  if (WIFSIGNALED(status)) {
    const int signal_number = WTERMSIG(status);
    if (signal_number == SIGPIPE || signal_number == SIGINT || signal_number == SIGTERM || signal_number == SIGHUP) {
      signal(signal_number, SIG_DFL);
      raise(signal_number);
    }
    ARB_REQUIRE(signal_number != SIGXCPU, ARB_ERR_CHECKPOINT,
                "%s: refused: its reader needed more than %" PRIu64 " s of processor time", g->path, seconds_limit(g));
    return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: refused: its reader crashed (signal %d, %s)", g->path, signal_number,
                    strsignal(signal_number));
  }
  ARB_REQUIRE(s->done && WEXITSTATUS(status) == 0, ARB_ERR_CHECKPOINT, "%s: refused: its reader ended early with code %d",
              g->path, WEXITSTATUS(status));
  if (s->st == ARB_OK) {
    if (g->result != NULL) memcpy(g->result, s->result, g->result_bytes);
    return ARB_OK;
  }
  char message[sizeof s->message];
  memcpy(message, s->message, sizeof message);
  message[sizeof message - 1] = '\0';
  arb_clean(message);
  if (s->st == ARB_ERR_NOMEM)
    return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: refused: its reader needed more than %" PRIu64 " MiB (%s)", g->path,
                    memory_limit(g) >> 20, message);
  return ARB_FAIL((unsigned)s->st < ARB_STATUS__COUNT ? s->st : ARB_ERR_CHECKPOINT, "%s", message);
}

arb_status arb_guard_run(arb_guard *g) {
  shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ARB_REQUIRE(s != MAP_FAILED, ARB_ERR_NOMEM, "no memory to share with a child process: %s", strerror(errno));
  int status = 0;
  fflush(stdout); /* or the child would print it again */
  const pid_t child = fork();
  if (child == 0) run_child(g, s);
  g->pid = (long)child;
  pid_t waited;
  do waited = child > 0 ? waitpid(child, &status, 0) : -1;
  while (waited < 0 && child > 0 && errno == EINTR);
  const arb_status st =
      waited == child && child > 0 ? judge(g, s, status) : ARB_FAIL(ARB_ERR_IO, "no child process: %s", strerror(errno));
  munmap(s, sizeof *s);
  return st;
}
