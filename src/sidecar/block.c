/* Opening a sidecar: from a path to a block of weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "src/sidecar/store.h"

const char *arb_sidecar_class_name(arb_sidecar_class c) {
  static const char *const names[] = {"linear", "conv1d", "conv2d", "conv3d", "embedding", "norm", "bias", "other"};
  return (unsigned)c < ARB_SIDECAR_CLASSES ? names[c] : "unknown";
}

/* The head of a block: what processes that did not fill it cannot know. */
typedef struct {
  char file_digest[ARB_SIDECAR_DIGEST], digest[ARB_SIDECAR_DIGEST];
} head;
enum { HEAD_BYTES = ARB_ARENA_ALIGN };
_Static_assert(sizeof(head) <= HEAD_BYTES, "the head fits");

static void digest_block(const arb_sidecar_options *o, const char *model_name, const void *block, size_t bytes, char *hex) {
  char options[128];
  XXH3_state_t *state = XXH3_createState();
  const int n = snprintf(options, sizeof options, "%s conv_int8=%d embed_int8=%d float_weights=%d old_positions=%d\n",
                         model_name, o->conv_int8, o->embed_int8, o->float_weights, o->old_positions);
  hex[0] = '\0';
  if (state == NULL) return;
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, options, (size_t)n);
  XXH3_128bits_update(state, block, bytes);
  const XXH128_hash_t h = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  snprintf(hex, ARB_SIDECAR_DIGEST, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

static arb_status take(const arb_sidecar_memory *m, size_t bytes, void **base, int *fill) {
  if (m) return m->take(m->arg, bytes, base, fill);
  *fill = 1;
  *base = aligned_alloc(ARB_ARENA_ALIGN, bytes);
  ARB_REQUIRE(*base, ARB_ERR_NOMEM, "out of host memory: %zu bytes for weights", bytes);
  memset(*base, 0, bytes);
  return ARB_OK;
}

/* The file's names: as published, without the head `canonical`, or with `other` in front. */
static void tell_names(arb_sidecar_store *s, const char *canonical, const char *other, const char *sample) {
  char plain[ARB_STORE_NAME];
  s->drop = s->add = "";
  if (s->source->has(s->source->ctx, sample)) return;
  snprintf(plain, sizeof plain, "%s%s", other, sample);
  if (other[0] && s->source->has(s->source->ctx, plain)) {
    s->add = other;
  } else if (canonical[0] && s->source->has(s->source->ctx, sample + strlen(canonical))) {
    s->drop = canonical;
  }
}

static void sum_classes(arb_sidecar_report *r) {
  memset(&r->all, 0, sizeof r->all);
  for (int c = 0; c < ARB_SIDECAR_CLASSES; c++) {
    const arb_sidecar_count *a = &r->of[c];
    r->all.tensors += a->tensors;
    r->all.parameters += a->parameters;
    r->all.modules += a->modules;
    r->all.requested += a->requested;
    r->all.quantized += a->quantized;
    r->all.quantized_int8 += a->quantized_int8;
    r->all.int8_bytes += a->int8_bytes;
    r->all.scale_bytes += a->scale_bytes;
    r->all.float_bytes += a->float_bytes;
  }
}

/* Reads, quantises and digests into a block that is this process's to fill. */
static arb_status fill_block(const char *path, arb_sidecar_store *s, const char *model_name, const char *canonical,
                             const char *other, const char *sample, arb_sidecar_walk walk, void *model, arb_sidecar_block *b) {
  arb_tensor_source source = {0};
  ARB_TRY(arb_tensor_source_open(path, &source));
  arb_status st = ARB_OK;
  s->source = &source;
  tell_names(s, canonical, other, sample);
  s->work = malloc((size_t)s->work_floats * sizeof *s->work);
  if (s->work == NULL) st = ARB_FAIL(ARB_ERR_NOMEM, "out of host memory: %lld floats for a tensor", (long long)s->work_floats);
  if (st == ARB_OK) st = walk(model, s);
  if (st == ARB_OK) {
    head *h = b->base;
    memcpy(h->file_digest, source.digest, sizeof h->file_digest);
    digest_block(s->options, model_name, (const char *)b->base + HEAD_BYTES, b->bytes - HEAD_BYTES, h->digest);
    if (h->digest[0] == '\0') st = ARB_FAIL(ARB_ERR_NOMEM, "out of host memory for a digest");
  }
  free(s->work);
  s->work = NULL;
  s->source = NULL;
  arb_tensor_source_close(&source);
  return st;
}

arb_status arb_sidecar_block_open(const char *path, const arb_sidecar_options *o, const char *model_name, const char *canonical,
                                  const char *other, const char *sample, arb_sidecar_walk walk, void *model,
                                  arb_sidecar_block *out) {
  arb_sidecar_store s = {.options = o, .report = &out->report, .drop = "", .add = ""};
  int fill = 0;
  memset(out, 0, sizeof *out);
  out->memory = o->memory;
  out->report.model = model_name;
  snprintf(out->report.file, sizeof out->report.file, "%s", path);
  snprintf(out->report.place, sizeof out->report.place, "host");
  arb_arena_measure(&s.arena, model_name);
  ARB_TRY(walk(model, &s));
  out->bytes = HEAD_BYTES + s.arena.used;
  ARB_TRY(take(o->memory, out->bytes, &out->base, &fill));
  arb_arena_assign(&s.arena, model_name, (char *)out->base + HEAD_BYTES, out->bytes - HEAD_BYTES);
  arb_status st = fill ? fill_block(path, &s, model_name, canonical, other, sample, walk, model, out) : walk(model, &s);
  if (st == ARB_OK) st = arb_arena_check(&s.arena);
  if (o->memory) st = o->memory->filled(o->memory->arg, st);
  if (st == ARB_OK) {
    const head *h = out->base;
    memcpy(out->report.file_digest, h->file_digest, sizeof h->file_digest);
    memcpy(out->report.digest, h->digest, sizeof h->digest);
    out->report.resident_bytes = (int64_t)out->bytes;
    sum_classes(&out->report);
  } else {
    arb_sidecar_block_close(out);
  }
  return st;
}

arb_status arb_sidecar_block_move(arb_sidecar_block *b, arb_dense_device *device, const arb_sidecar_options *o,
                                  arb_sidecar_walk walk, void *model) {
  void *there;
  if (device == NULL) return ARB_OK;
  ARB_TRY(device->alloc(device, b->bytes, &there));
  arb_status st = device->upload(device, there, b->base, b->bytes);
  if (st == ARB_OK) {
    arb_sidecar_report counted_before;
    arb_sidecar_store s = {.options = o, .report = &counted_before, .drop = "", .add = ""};
    memset(&counted_before, 0, sizeof counted_before);
    arb_arena_assign(&s.arena, b->report.model, (char *)there + HEAD_BYTES, b->bytes - HEAD_BYTES);
    st = walk(model, &s);
    if (st == ARB_OK) st = arb_arena_check(&s.arena);
  }
  if (st != ARB_OK) {
    device->free(device, there);
    return st;
  }
  arb_sidecar_block_close(b);
  b->base = there;
  b->device = device;
  snprintf(b->report.place, sizeof b->report.place, "%s", device->name);
  return ARB_OK;
}

void arb_sidecar_block_close(arb_sidecar_block *b) {
  if (b->base == NULL) return;
  if (b->device)
    b->device->free(b->device, b->base);
  else if (b->memory)
    b->memory->give_back(b->memory->arg, b->base, b->bytes);
  else
    free(b->base);
  b->base = NULL;
}
