/* verify and digest: the content against what the checkpoint says of itself. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/trit.h"
#include "tools/checkpoint/commands.h"
#include "tools/checkpoint/text.h"
#include "tools/checkpoint/views.h"

typedef struct {
  int64_t weights, illegal;
  char first[160]; /* the first array with an illegal code */
} legality;

static void look_at_codes(const arb_ckpt_walk *w, void *arg) {
  legality *l = arg;
  if (strcmp(w->array.field, "code") != 0 || w->array.type != ARB_U8) return;
  const int64_t n = w->rows * w->array.columns;
  int64_t illegal = 0;
  for (int64_t i = 0; i < n; i++) illegal += w->data[i] == ARB_CODE_ILLEGAL;
  if (illegal > 0 && l->illegal == 0) snprintf(l->first, sizeof l->first, "%s.code", w->array.tensor);
  l->weights += n;
  l->illegal += illegal;
}

static arb_status verify_one(FILE *out, const arb_ckpt *c, const void *arg, void *result) {
  (void)arg, (void)result;
  const arb_ckpt_meta *meta = arb_ckpt_meta_of(c);
  const char *path = arb_ckpt_path_of(c);
  const int arrays = arb_ckpt_array_count(c);
  legality codes = {0};
  arb_views views;
  char hex[33];
  int ranks, files;
  ARB_TRY(arb_views_init(&views, c));
  const int tensors = views.count;
  arb_views_deinit(&views);
  ARB_TRY(arb_ckpt_state_digest(c, look_at_codes, &codes, hex));
  ARB_REQUIRE(codes.illegal == 0, ARB_ERR_CHECKPOINT, "%s: %" PRId64 " illegal codes (%d), the first in %s", path,
              codes.illegal, ARB_CODE_ILLEGAL, codes.first);
  ARB_REQUIRE(strcmp(hex, meta->digest) == 0, ARB_ERR_CHECKPOINT, "%s: its state digest is %s, its content gives %s", path,
              meta->digest, hex);
  arb_ckpt_world_of(c, &ranks, &files);
  fprintf(out, "  structure     %s bytes in %d file%s of a run on %d rank%s, %d arrays of %d tensors, which fit together\n",
          arb_grouped((int64_t)arb_ckpt_file_bytes(c)).text, files, files == 1 ? "" : "s", ranks, ranks == 1 ? "" : "s", arrays,
          tensors);
  fprintf(out, "  arrays        %d arrays and 2 texts have the digests that they were saved with\n", arrays);
  fprintf(out, "  codes         %s weights, all legal\n", arb_grouped(codes.weights).text);
  fprintf(out, "  state digest  %s, stored and recomputed\n", hex);
  return ARB_OK;
}

static arb_status verify_place(const arb_place *p, int *refused) {
  arb_place_work w = {.work = verify_one};
  printf("%s/step-%08" PRId64 "\n", p->dir, p->step);
  const arb_status st = arb_place_run(p, &w);
  if (st != ARB_OK && st != ARB_ERR_CHECKPOINT) return st;
  if (st == ARB_OK) {
    puts("  verified");
  } else {
    ++*refused;
    fputs("  refused\n", stdout);
  }
  return st;
}

static arb_status verify_all(arb_place *p, const arb_ckpt_folder *list, int count) {
  int refused = 0, seen = 0;
  for (int i = count - 1; i >= 0; i--) {
    if (list[i].pid != 0) continue;
    p->step = list[i].step;
    seen++;
    const arb_status st = verify_place(p, &refused);
    if (st == ARB_OK) continue;
    if (st != ARB_ERR_CHECKPOINT) return st;
    fflush(stdout);
    fprintf(stderr, "arbckpt: %s\n", arb_fail_message());
    arb_fail_clear();
  }
  ARB_REQUIRE(seen > 0, ARB_ERR_CHECKPOINT,
              "%s: no checkpoints; expected a run's folder, its checkpoints folder, or a step folder", p->dir);
  ARB_REQUIRE(refused == 0, ARB_ERR_CHECKPOINT, "%s: %d of %d checkpoints refused", p->dir, refused, seen);
  return ARB_OK;
}

arb_status arb_tool_verify(const arb_tool_args *args) {
  arb_place p;
  arb_ckpt_folder *list;
  int count, refused = 0;
  ARB_TRY(arb_place_find(args->dir, args->step, &p));
  if (p.step >= 0) return verify_place(&p, &refused);
  ARB_TRY(arb_ckpt_list(p.dir, &list, &count));
  const arb_status st = verify_all(&p, list, count);
  free(list);
  return st;
}

static arb_status digest_work(FILE *out, const arb_ckpt *c, const void *arg, void *result) {
  (void)arg, (void)result;
  char hex[33];
  ARB_TRY(arb_ckpt_state_digest(c, NULL, NULL, hex));
  fprintf(out, "digest %s\n", hex);
  return ARB_OK;
}

arb_status arb_tool_digest(const arb_tool_args *args) {
  arb_place p;
  arb_place_work w = {.work = digest_work};
  ARB_TRY(arb_place_find(args->dir, args->step, &p));
  p.unverified = args->unverified;
  ARB_TRY(arb_place_choose(&p));
  return arb_place_run(&p, &w);
}
