/* Text samples: the model runs over a window of the last bytes and the next one is drawn. Deterministic for a seed. */
#include <stdlib.h>
#include <string.h>

#include "kernels/common/math.h"
#include "src/train/media.h"

/* Draws among the top_k likeliest bytes, and the end of a text if there is one, at this temperature; ties go to the lowest. */
static int draw(const uint16_t *logits, int with_end, float temperature, int64_t top_k, uint32_t random) {
  float p[257];
  int order[257], count = 0;
  for (int i = 0; i < 256 + with_end; i++) {
    p[i] = arb_f32_of_bf16(logits[i < 256 ? i : ARB_PAIR_EOS]);
    int at = count++;
    for (; at > 0 && p[order[at - 1]] < p[i]; at--) order[at] = order[at - 1];
    order[at] = i;
  }
  if (top_k > 0 && top_k < count) count = (int)top_k;
  float sum = 0.0f, weight[257];
  for (int i = 0; i < count; i++) {
    const float d = (p[order[i]] - p[order[0]]) / temperature;
    sum += weight[i] = d < -87.0f ? 0.0f : arb_expf(d);
  }
  float left = sum * (((float)(random >> 8) + 0.5f) * 0x1p-24f);
  for (int i = 0; i < count; i++) {
    left -= weight[i];
    if (left < 0.0f) return order[i];
  }
  return order[0];
}

/* Encodes sample.image and sample.audio into slot 0. */
static arb_status put_features(arb_trainer *t) {
  const char *const path[ARB_MEDIA_KINDS] = {t->cfg->sample.image, t->cfg->sample.audio};
  const char *const key[ARB_MEDIA_KINDS] = {"sample.image", "sample.audio"};
  arb_media *m = t->media;
  arb_media_put(m, 0, NULL);
  for (int k = 0; k < ARB_MEDIA_KINDS; k++) {
    unsigned char *bytes;
    size_t size;
    uint64_t hash[2];
    if (!m->encoder[k] || !path[k][0]) continue;
    arb_status st = arb_media_read(path[k], &bytes, &size, hash);
    if (st == ARB_OK) {
      st = arb_encoder_run(m->encoder[k], path[k], bytes, size, m->q[k], m->s[k]);
      free(bytes);
    }
    if (st != ARB_OK) arb_fail_context("%s (%s)", arb_config_origin(t->cfg, key[k]), key[k]);
    ARB_TRY(st);
    m->present[k][0] = 1;
  }
  return ARB_OK;
}

arb_status arb_trainer_sample(arb_trainer *t, const char *prompt, FILE *out) {
  const arb_config *c = t->cfg;
  arb_model *m = t->model;
  arb_backend *be = t->be;
  const int64_t context = c->train.context, rows = m->spec.context;
  const int paired = t->media != NULL; /* a text of its own: it begins with BOS and may end */
  uint16_t logits[ARB_VOCABULARY];
  int64_t length = 0;
  ARB_REQUIRE(t->begun <= 0, ARB_ERR_ARG, "a sample while step %lld is under way", (long long)t->begun);
  if (paired) ARB_TRY(put_features(t));
  if (paired) t->ids[length++] = ARB_PAIR_BOS;
  for (const char *s = prompt[0] || paired ? prompt : "\n"; *s && length < context; s++) t->ids[length++] = (unsigned char)*s;
  fputs(prompt, out);
  for (int64_t i = 0; i < c->sample.length; i++) {
    if (length == context && paired) break;
    if (length == context) { /* keep the newer half */
      const int64_t keep = context / 2;
      memmove(t->ids, t->ids + length - keep, (size_t)keep * sizeof *t->ids);
      length = keep;
    }
    for (int64_t j = length; j < context; j++) t->ids[j] = ARB_ID_PAD;
    const arb_rows r = {rows, 1, 0, 1};
    arb_pass p;
    ARB_TRY(arb_model_pass_features(m, &r, t->ids, NULL, paired ? t->media->features : NULL, 0, t->vmax, &p));
    ARB_TRY(arb_model_forward(m, &p));
    ARB_TRY(be->ops.download(be, logits, p.logits + (rows - context + length - 1) * ARB_VOCABULARY, sizeof logits));
    const arb_philox_block b =
        arb_philox(arb_philox_key_of(c->run.seed, ARB_DRAW_SAMPLE), (uint32_t)i, 0, (uint32_t)t->step, 0);
    const int byte = draw(logits, paired, c->sample.temperature, c->sample.top_k, b.v[0]);
    if (byte == 256) break;
    t->ids[length++] = byte;
    fputc(byte, out);
  }
  fputc('\n', out);
  fflush(out);
  int nonfinite;
  ARB_TRY(be->ops.take_nonfinite(be, &nonfinite));
  ARB_REQUIRE(!nonfinite, ARB_ERR_NUMERIC, "sampling: a value is not finite");
  return ARB_OK;
}
