/* A checkpoint of step 7 to be damaged or forged beside a good one of step 6: shared by the tests of hostile files. */
#ifndef ARB_TESTS_CHECKPOINT_HOSTILE_H
#define ARB_TESTS_CHECKPOINT_HOSTILE_H

#include <hdf5.h>

enum { STEP = 7, OLDER = 6 };

extern const char *arbckpt; /* the tool, or NULL */

int hostile_setup(void **test);
/* The path of step 7's HDF5 file. */
const char *victim(const char *dir);
hid_t open_victim(const char *dir);
void close_victim(hid_t file);
/* Ids that HDF5 holds open. */
hsize_t open_ids(void);

/* Loading step 7 fails with this text, and discovery reports it and falls back to step 6. */
void refused(const char *dir, const char *text);
/* `arbckpt stat --unverified` refuses it in its child process: exit code 4, one message, which has the text. */
void refused_by_tool(const char *dir, const char *text);
/* What is wrong with the structure is refused for its bytes; with a manifest made to match, for what it is; and so, too, when
 * nobody looks at digests, in this process and through the tool. Leaves the changed manifest. */
void refused_in_every_way(const char *dir, const char *text);

#endif
