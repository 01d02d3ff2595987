/* arbdist sidecar encode and decode with the video VAE: images on disk to latents on disk, and back. */
#ifndef ARB_LAUNCH_VIDEO_H
#define ARB_LAUNCH_VIDEO_H

#include <stdbool.h>
#include <stdio.h>

#include "launch/args.h"
#include "src/config/config.h"
#include "src/sidecar/sidecar.h"

/* By the name's end: .png, .jpg, .jpeg. */
bool arb_video_is_image(const char *path);
/* args->file: an image, or a folder of images of one size, which are frames in the order of their names. With args->out the
 * latent is stored: safetensors, "latent" F32 [16][frames][height / 8][width / 8], normalised as diffusion models take it. */
ARB_NODISCARD arb_status arb_video_encode(const arb_args *args, const arb_config *cfg, const arb_sidecar_options *o, FILE *out);
/* args->file: such a latent. args->out: a folder that is new or empty, for frame-00001.png and so on; or NAME.png, for a latent
 * of one frame. */
ARB_NODISCARD arb_status arb_video_decode(const arb_args *args, const arb_config *cfg, const arb_sidecar_options *o, FILE *out);
/* Loads the VAE and runs a fixed input through it: counts, bytes, digests, and values to compare. */
ARB_NODISCARD arb_status arb_video_check(const char *path, const arb_sidecar_options *o, FILE *out);

#endif
