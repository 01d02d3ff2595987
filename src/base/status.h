/* Status codes, the error message of a thread, and the four macros that carry them.
 *
 * Every fallible function returns an arb_status. The first failure writes a message ("what was wrong, where, what was
 * expected") into a thread-local buffer; callers pass the code up and may prefix context, but never overwrite it. Only
 * launch/ turns a status into an exit code (docs/errors.md). */
#ifndef ARB_SRC_BASE_STATUS_H
#define ARB_SRC_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  ARB_OK = 0,
  ARB_ERR_ARG,         /* a caller broke a contract: our bug */
  ARB_ERR_CONFIG,      /* the user's configuration or command line: exit 2 */
  ARB_ERR_DATA,        /* an input file of the user: exit 3 */
  ARB_ERR_CHECKPOINT,  /* a checkpoint could not be written, or was refused: exit 4 */
  ARB_ERR_PEER,        /* another rank failed or is gone: exit 5 */
  ARB_ERR_NUMERIC,     /* a non-finite activation, gradient or loss: exit 6 */
  ARB_ERR_NOMEM,       /* memory of the host or the device: exit 7 */
  ARB_ERR_IO,          /* the operating system refused an operation: exit 7 */
  ARB_ERR_UNSUPPORTED, /* a thing this build or machine does not have: exit 7 */
  ARB_ERR_COMM,        /* the transport itself is broken: exit 5 */
  ARB_REQUEUE,         /* not an error: saved, run me again: exit 75 */
  ARB_STATUS__COUNT
} arb_status;

#if defined(__GNUC__)
#define ARB_NODISCARD __attribute__((warn_unused_result))
#define ARB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define ARB_NODISCARD
#define ARB_PRINTF(fmt, args)
#endif

/* Returns a short lower-case name of the code, a literal. */
const char *arb_status_name(arb_status st);

/* Records a message for this thread unless one is there already; returns st. file/line are kept for debug logs. */
arb_status arb_fail(arb_status st, const char *file, int line, const char *format, ...) ARB_PRINTF(4, 5);

/* Puts "context: " in front of this thread's message, for callers that know the file or tensor at hand. */
void arb_fail_context(const char *format, ...) ARB_PRINTF(1, 2);

/* The message of this thread's first failure since the last clear, or "". Borrowed until the next call on this thread. */
const char *arb_fail_message(void);
/* "file:line" of that failure, or "". */
const char *arb_fail_place(void);
void arb_fail_clear(void);

#define ARB_FAIL(st, ...) arb_fail((st), __FILE__, __LINE__, __VA_ARGS__)
#define ARB_REQUIRE(cond, st, ...)                 \
  do {                                             \
    if (!(cond)) return ARB_FAIL(st, __VA_ARGS__); \
  } while (0)
#define ARB_TRY(expr)                \
  do {                               \
    arb_status try_ = (expr);        \
    if (try_ != ARB_OK) return try_; \
  } while (0)
/* The only label is `out`; a function uses ARB_TRY or ARB_TRY_OUT, not both. */
#define ARB_TRY_OUT(st, expr)     \
  do {                            \
    (st) = (expr);                \
    if ((st) != ARB_OK) goto out; \
  } while (0)

#ifdef __cplusplus
}
#endif
#endif
