/* The Wan 2.1 video VAE ("pig-vae" in its GGUF edition; Wan team 2025, arXiv:2503.20314): pixels to latents and back, for
 * images and video, frozen, apart from the ternary core. Qwen-Image's VAE has the same tensors and is read too.
 *
 * A clip has T = 1 + 4 k frames of H x W pixels, H and W multiples of 8; its latent has T' = 1 + k frames of H/8 x W/8 with 16
 * channels. All convolutions are causal in time: a latent frame depends on its own and earlier frames alone, so an image is the
 * first frame of a video. Frames go through one at a time; memory does not grow with T.
 *
 * Weights as in src/sidecar/sidecar.h: the 10 Conv2d in int8, the 61 Conv3d float32 as the published scheme leaves them, or in
 * int8 too with conv_int8. Results depend on input and weights alone, not on threads, instruction set, device, or earlier
 * calls. */
#ifndef ARB_SRC_SIDECAR_WAN_H
#define ARB_SRC_SIDECAR_WAN_H

#include "src/sidecar/sidecar.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  ARB_WAN_CHANNELS = 16, /* of a latent */
  ARB_WAN_SCALE = 8,     /* pixels of a latent pixel, both ways */
  ARB_WAN_FRAMES = 4,    /* frames of a latent frame, after the first */
  ARB_WAN_SIDE = 4096,   /* most pixels of a frame's side */
  ARB_WAN_LONGEST = 1 + 4 * 16384
};

/* What latents are: the encoder's mean, or (mean - m) / s by channel with the constants of the published configuration, the
 * form that diffusion models are trained on. */
typedef enum { ARB_WAN_RAW, ARB_WAN_NORMALISED } arb_wan_form;

typedef struct arb_wan arb_wan;

/* path: a file, a folder or ARB_SIDECAR_SYNTHETIC; original and diffusers names are told apart. ARB_ERR_DATA with file, tensor
 * and what was expected; another kind of VAE is named. On failure *out stays NULL. Collective among the sharers of o->memory.
 */
ARB_NODISCARD arb_status arb_wan_open(const char *path, const arb_sidecar_options *o, arb_wan **out);
/* ARB_ERR_DATA, with what is possible, for a clip that is none of the above. */
ARB_NODISCARD arb_status arb_wan_check_clip(int64_t t, int64_t h, int64_t w);
/* frames [3][t][h][w], red, green, blue in [-1, 1]; latent [16][1 + (t - 1) / 4][h / 8][w / 8]; log_variance, of the same
 * shape, clamped to [-30, 20], or NULL. ARB_ERR_DATA for sizes that are none of the above, ARB_ERR_NUMERIC for values that are
 * not finite, ARB_ERR_NOMEM. */
ARB_NODISCARD arb_status arb_wan_encode(arb_wan *v, const float *frames, int64_t t, int64_t h, int64_t w, arb_wan_form form,
                                        float *latent, float *log_variance);
/* latent [16][t][h][w] in the form given; frames [3][4 t - 3][8 h][8 w], clamped to [-1, 1] if `clamp`. Errors as above. */
ARB_NODISCARD arb_status arb_wan_decode(arb_wan *v, const float *latent, int64_t t, int64_t h, int64_t w, arb_wan_form form,
                                        bool clamp, float *frames);
/* work_bytes is that of the largest clip so far. */
const arb_sidecar_report *arb_wan_report(const arb_wan *v);
/* NULL-safe; nulls the handle. */
void arb_wan_destroy(arb_wan **v);

#ifdef __cplusplus
}
#endif
#endif
