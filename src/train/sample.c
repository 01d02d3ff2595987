/* Text samples: the model runs over a window of the last bytes and the next one is drawn. Deterministic for a seed. */
#include <stdlib.h>
#include <string.h>

#include "kernels/common/math.h"
#include "src/train/trainer.h"

/* Draws among the top_k likeliest bytes at this temperature; ties go to the lowest byte. */
static int draw(const uint16_t *logits, float temperature, int64_t top_k, uint32_t random) {
  float p[256];
  int order[256], count = 0;
  for (int i = 0; i < 256; i++) {
    p[i] = arb_f32_of_bf16(logits[i]);
    int at = count++;
    for (; at > 0 && p[order[at - 1]] < p[i]; at--) order[at] = order[at - 1];
    order[at] = i;
  }
  if (top_k > 0 && top_k < count) count = (int)top_k;
  float sum = 0.0f, weight[256];
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

arb_status arb_trainer_sample(arb_trainer *t, const char *prompt, FILE *out) {
  const arb_config *c = t->cfg;
  arb_model *m = t->model;
  arb_backend *be = t->be;
  const int64_t context = c->train.context;
  uint16_t logits[ARB_VOCABULARY];
  int64_t length = 0;
  for (const char *s = prompt[0] ? prompt : "\n"; *s && length < context; s++) t->ids[length++] = (unsigned char)*s;
  fputs(prompt, out);
  for (int64_t i = 0; i < c->sample.length; i++) {
    if (length == context) { /* keep the newer half */
      const int64_t keep = context / 2;
      memmove(t->ids, t->ids + length - keep, (size_t)keep * sizeof *t->ids);
      length = keep;
    }
    for (int64_t j = length; j < context; j++) t->ids[j] = ARB_ID_PAD;
    const arb_rows r = {context, 1, 0, 1};
    arb_pass p;
    ARB_TRY(arb_model_pass(m, &r, t->ids, NULL, 0, t->vmax, &p));
    ARB_TRY(arb_model_forward(m, &p));
    ARB_TRY(be->ops.download(be, logits, p.logits + (length - 1) * ARB_VOCABULARY, sizeof logits));
    const arb_philox_block b =
        arb_philox(arb_philox_key_of(c->run.seed, ARB_DRAW_SAMPLE), (uint32_t)i, 0, (uint32_t)t->step, 0);
    const int byte = draw(logits, c->sample.temperature, c->sample.top_k, b.v[0]);
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
