/* What lies beside weights in a HuggingFace folder. */
#ifndef ARB_SRC_SIDECAR_HUB_H
#define ARB_SRC_SIDECAR_HUB_H

#include <jansson.h>
#include <stdint.h>

#include "src/base/status.h"

/* The JSON file `leaf` beside the weights at path: in the folder that path is, in the folder of the file that it is, or path
 * itself if it ends so. *out NULL without an error where there is none; else the caller's to json_decref, and its name in
 * name[size]. ARB_ERR_DATA: not a regular file of at most `most` bytes, or no JSON object with unique keys; other errors as
 * arb_file_slurp. */
ARB_NODISCARD arb_status arb_hub_open(const char *path, const char *leaf, int64_t most, char *name, size_t size, json_t **out);

/* One key of config.json, at the top or one object below, and the value that the code was written for. */
typedef struct {
  const char *key, *text; /* text NULL: a number; booleans are 0 and 1 */
  double number;
} arb_hub_rule;

/* The config.json beside the weights, if there is one, contradicts no rule: a model of the same shapes with other heads, norms
 * or activations would load without a word and compute something else. ARB_ERR_DATA with file, key and both values. */
ARB_NODISCARD arb_status arb_hub_check(const char *path, const char *model, const arb_hub_rule *rules, int count);

#endif
