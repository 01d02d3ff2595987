#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"

arb_status arb_sidecar_identify(const char *path, arb_sidecar_kind *out) {
  static const struct {
    const char *tensor;
    arb_sidecar_kind kind;
  } known[] = {{"embeddings.patch_embeddings.projection.weight", ARB_SIDECAR_DINO},
               {"dinov2.embeddings.patch_embeddings.projection.weight", ARB_SIDECAR_DINO},
               {"model.encoder.groupnorm.weight", ARB_SIDECAR_MOONSHINE},
               {"encoder.groupnorm.weight", ARB_SIDECAR_MOONSHINE},
               /* the original's and diffusers' Wan; others that opening refuses by name */
               {"decoder.middle.0.residual.0.gamma", ARB_SIDECAR_VAE},
               {"encoder.down_blocks.0.norm1.gamma", ARB_SIDECAR_VAE},
               {"decoder.conv_in.conv.weight", ARB_SIDECAR_VAE},
               {"decoder.conv_in.weight", ARB_SIDECAR_VAE}};
  arb_tensor_source source;
  *out = ARB_SIDECAR_UNKNOWN;
  ARB_TRY(arb_tensor_source_open(path, &source));
  for (size_t i = 0; i < sizeof known / sizeof known[0] && *out == ARB_SIDECAR_UNKNOWN; i++)
    if (source.has(source.ctx, known[i].tensor)) *out = known[i].kind;
  arb_tensor_source_close(&source);
  return ARB_OK;
}
