/* That all ranks run the same thing: rank 0's settings and data fingerprints are compared line by line on every rank, so a rank
 * started with another file is named with the key that differs instead of training something else. */
#include <stdlib.h>
#include <string.h>

#include "src/train/media.h"
#include "src/train/trainer_impl.h"

/* Settings that may differ between ranks without changing what they do together. */
static int local_setting(const char *section, const char *key, size_t length) {
  static const char *const run_keys[] = {"dir", "isa", "threads", "grains_at_once"};
  if (strcmp(section, "[data]") == 0 || strcmp(section, "[sidecars]") == 0) return 1; /* what they hold is compared below */
  if (strcmp(section, "[dist]") == 0)
    return strncmp(key, "shard_state", 11) != 0 && strncmp(key, "overlap", 7) != 0 && strncmp(key, "bucket_mb", 9) != 0;
  if (strcmp(section, "[run]") != 0) return 0;
  for (size_t i = 0; i < sizeof run_keys / sizeof run_keys[0]; i++)
    if (strlen(run_keys[i]) == length && strncmp(key, run_keys[i], length) == 0) return 1;
  return 0;
}

static size_t line_length(const char *s) { return strcspn(s, "\n"); }

/* Both texts come from the same table, so their lines correspond. */
static arb_status compare(const char *mine, const char *theirs, int rank) {
  char section[64] = "";
  while (*mine && *theirs) {
    const size_t a = line_length(mine), b = line_length(theirs);
    if (mine[0] == '[') snprintf(section, sizeof section, "%.*s", (int)a, mine);
    const size_t key = strcspn(mine, " =");
    if ((a != b || memcmp(mine, theirs, a) != 0) && !local_setting(section, mine, key)) {
      const int data = strncmp(mine, "fingerprint", 11) == 0;
      const size_t name = section[0] ? strlen(section) - 2 : 0;
      return ARB_FAIL(data ? ARB_ERR_DATA : ARB_ERR_CONFIG,
                      "rank %d differs from rank 0 in %.*s.%.*s: \"%.*s\" here, \"%.*s\" there", rank, (int)name, section + 1,
                      (int)key, mine, (int)a, mine, (int)b, theirs);
    }
    mine += a + (mine[a] == '\n');
    theirs += b + (theirs[b] == '\n');
  }
  return ARB_OK;
}

arb_status arb_trainer_same_everywhere(arb_trainer *t) {
  enum { SIZE = ARB_CONFIG_RESOLVED_BYTES + 2048 };
  char *mine = calloc(2, SIZE), train[ARB_FINGERPRINT_CHARS] = "none", valid[ARB_FINGERPRINT_CHARS] = "none";
  arb_status st = mine ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st == ARB_OK) st = arb_config_resolved_text(t->cfg, mine, ARB_CONFIG_RESOLVED_BYTES);
  ARB_TRY_OUT(st, arb_comm_agree(t->comm, st));
  if (t->train.bytes) arb_fingerprint_print(&t->train.fingerprint, train);
  if (t->valid.bytes) arb_fingerprint_print(&t->valid.fingerprint, valid);
  const size_t used = strlen(mine);
  snprintf(mine + used, SIZE - used, "[data.train]\nfingerprint = %s\n[data.valid]\nfingerprint = %s\n", train, valid);
  if (t->media) {
    arb_fingerprint pairs[2];
    arb_pairs_fingerprint(&t->media->train, &pairs[0]);
    arb_pairs_fingerprint(&t->media->valid, &pairs[1]);
    arb_fingerprint_print(&pairs[0], train);
    arb_fingerprint_print(&pairs[1], valid);
    size_t at = strlen(mine);
    at += (size_t)snprintf(mine + at, SIZE - at, "[data.pairs]\nfingerprint = %s\n[data.valid_pairs]\nfingerprint = %s\n",
                           train, valid);
    for (int k = 0; k < ARB_MEDIA_KINDS; k++)
      at += (size_t)snprintf(mine + at, SIZE - at, "[model.%s]\nencoder = %s\n", arb_media_name((arb_media_kind)k),
                             t->media->encoder[k] ? t->media->encoder[k]->key : "none");
  }
  char *theirs = mine + SIZE;
  memcpy(theirs, mine, SIZE);
  ARB_TRY_OUT(st, arb_comm_broadcast(t->comm, theirs, SIZE, ARB_U8, 0, ARB_TRAFFIC_CONTROL));
  st = arb_comm_agree(t->comm, compare(mine, theirs, t->comm->rank));
out:
  free(mine);
  return st;
}
