/* Manifests made to say what the files hold, so that only what lies behind the digests can refuse a forged checkpoint. */
#ifndef ARB_TESTS_CHECKPOINT_RESIGN_H
#define ARB_TESTS_CHECKPOINT_RESIGN_H

#include <jansson.h>
#include <stdint.h>

/* manifest.json of DIR/step-STEP, to be changed and written back with a right digest of its own. */
json_t *manifest_load(const char *dir, int64_t step);
/* Steals root. */
void manifest_store(const char *dir, int64_t step, json_t *root);
/* Writes a text of any kind, as it is. */
void manifest_spill(const char *dir, int64_t step, const char *text, size_t length);
/* Sizes and digests of all files and slices as they are now. */
void manifest_resign(const char *dir, int64_t step);

#endif
