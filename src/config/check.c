/* Rules between keys, and rules that need something from outside the config. */
#include <string.h>

#include "src/config/config_impl.h"

/* Where to send the user: the first of the two keys that was set, else the first. */
static const char *place(const arb_config *cfg, const char *a, const char *b) {
  const char *at_a = arb_config_origin(cfg, a), *at_b = arb_config_origin(cfg, b);
  return strcmp(at_a, "default") == 0 ? at_b : at_a;
}

static bool known(const bool *bad, const char *a, const char *b) {
  return bad == NULL || (!bad[arb_config_find_dotted(a)] && !bad[arb_config_find_dotted(b)]);
}

/* A run reads a text or manifests; images and recordings come from manifests, through an encoder. */
static void check_media(const arb_config *cfg, unsigned need, arb_config_errors *errors) {
  const bool paired = arb_config_paired(cfg), given[2] = {cfg->model.image, cfg->model.audio};
  const char *const key[2] = {"model.image", "model.audio"}, *const text[2] = {"data.train", "data.valid"};
  const char *const sidecar[2] = {"sidecars.dino", "sidecars.moonshine"};
  const char *const path[2] = {cfg->sidecars.dino, cfg->sidecars.moonshine}, *const sample[2] = {cfg->sample.image,
                                                                                                 cfg->sample.audio};
  const char *const file[2] = {cfg->data.train, cfg->data.valid}, *const sample_key[2] = {"sample.image", "sample.audio"};
  for (int i = 0; i < 2; i++) {
    if (paired && file[i][0] != '\0')
      arb_config_error(errors, arb_config_origin(cfg, text[i]),
                       "%s and a manifest of pairs are given: a run reads one or the other", text[i]);
    if (given[i] && !paired && need != 0)
      arb_config_error(errors, arb_config_origin(cfg, key[i]), "%s = yes needs data.pairs: a text has none", key[i]);
    if (given[i] && path[i][0] == '\0')
      arb_config_error(errors, arb_config_origin(cfg, key[i]), "%s = yes needs %s: a folder of weights, or the word synthetic",
                       key[i], sidecar[i]);
    if (sample[i][0] != '\0' && !given[i])
      arb_config_error(errors, arb_config_origin(cfg, sample_key[i]), "%s is given, but %s = no", sample_key[i], key[i]);
  }
}

void arb_config_check_rules(const arb_config *cfg, const bool *bad, arb_config_errors *errors) {
  if (known(bad, "train.sequences", "train.grains") && cfg->train.sequences % cfg->train.grains != 0)
    arb_config_error(errors, place(cfg, "train.sequences", "train.grains"),
                     "train.sequences = %lld is not a multiple of train.grains = %lld", (long long)cfg->train.sequences,
                     (long long)cfg->train.grains);
  if (known(bad, "train.fused_update", "run.grains_at_once") && cfg->train.fused_update && cfg->run.grains_at_once != 0 &&
      cfg->run.grains_at_once < cfg->train.grains)
    arb_config_error(
        errors, arb_config_origin(cfg, "run.grains_at_once"),
        "run.grains_at_once = %lld is less than train.grains = %lld, but train.fused_update = yes updates a matrix "
        "after one batch: expected 0, or all grains",
        (long long)cfg->run.grains_at_once, (long long)cfg->train.grains);
  if (known(bad, "train.warmup", "train.steps") && cfg->train.warmup > cfg->train.steps)
    arb_config_error(errors, place(cfg, "train.warmup", "train.steps"),
                     "train.warmup = %lld is more than train.steps = %lld: the step size would never reach its peak",
                     (long long)cfg->train.warmup, (long long)cfg->train.steps);
}

arb_status arb_config_check(const arb_config *cfg, unsigned need) {
  ARB_REQUIRE((need & ~(unsigned)(ARB_CONFIG_NEED_TRAIN | ARB_CONFIG_NEED_VALID)) == 0, ARB_ERR_ARG, "need = %#x", need);
  arb_config_errors errors = {0};
  bool bad[ARB_CONFIG_KEYS] = {false};
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    const arb_config_row *row = &arb_config_rows[i];
    char reason[400];
    bad[i] = !arb_config_in_range(row, cfg, reason, sizeof reason);
    if (bad[i]) arb_config_error(&errors, cfg->origin[i], "%s.%s: %s", row->section, row->name, reason);
  }
  arb_config_check_rules(cfg, bad, &errors);
  check_media(cfg, need, &errors);
  const bool paired = arb_config_paired(cfg);
  if ((need & ARB_CONFIG_NEED_TRAIN) && cfg->data.train[0] == '\0' && !paired)
    arb_config_error(&errors, "data.train",
                     "needed for training, but not given: [data] train = FILE, or --set data.train=FILE");
  if ((need & ARB_CONFIG_NEED_TRAIN) && paired && cfg->data.pairs[0] == '\0')
    arb_config_error(&errors, "data.pairs",
                     "needed for training, but not given: [data] pairs = FILE, or --set data.pairs=FILE");
  if ((need & ARB_CONFIG_NEED_VALID) && cfg->data.valid[0] == '\0' && !paired)
    arb_config_error(&errors, "data.valid",
                     "needed for evaluation, but not given: [data] valid = FILE, or --set data.valid=FILE");
  if ((need & ARB_CONFIG_NEED_VALID) && paired && cfg->data.valid_pairs[0] == '\0')
    arb_config_error(&errors, "data.valid_pairs",
                     "needed for evaluation, but not given: [data] valid_pairs = FILE, or --set data.valid_pairs=FILE");
  return arb_config_raise(&errors);
}

arb_status arb_config_check_ranks(const arb_config *cfg, int ranks) {
  ARB_REQUIRE(ranks >= 1, ARB_ERR_ARG, "ranks = %d", ranks);
  ARB_REQUIRE(ranks <= cfg->train.grains, ARB_ERR_CONFIG,
              "%s: train.grains = %lld, but %d ranks were started: a rank without a grain has no work; raise train.grains "
              "(at most 31; this changes the training result) or start at most %lld ranks",
              arb_config_origin(cfg, "train.grains"), (long long)cfg->train.grains, ranks, (long long)cfg->train.grains);
  ARB_REQUIRE(
      ranks == 1 || !cfg->train.fused_update, ARB_ERR_CONFIG,
      "%s: train.fused_update = yes, but %d ranks were started: it updates a matrix before any sum over ranks; start one "
      "rank, or set it to no",
      arb_config_origin(cfg, "train.fused_update"), ranks);
  return ARB_OK;
}
