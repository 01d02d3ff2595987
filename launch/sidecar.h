/* The commands that need imported encoders alone: no communicator, no backend. */
#ifndef ARB_LAUNCH_SIDECAR_H
#define ARB_LAUNCH_SIDECAR_H

#include <stdio.h>

#include "launch/args.h"
#include "src/config/config.h"

/* sidecar check: which model the weights hold, counts, bytes and digests, and what a fixed input gives. Without a file, the
 * encoders of [sidecars].
 * sidecar encode: an image (PNG, JPEG) or a sound (WAV, FLAC) to features; a sound in its whole length. With --out also as the
 * safetensors array "features".
 * sidecar transcribe: the text of a sound, never padded; token ids where no tokenizer.json lies beside the weights. */
ARB_NODISCARD arb_status arb_command_sidecar(const arb_args *args, const arb_config *cfg, FILE *out);
ARB_NODISCARD arb_status arb_command_bench_sidecar(const arb_config *cfg, FILE *out);
/* The audit of the encoders that training with this config loads. */
ARB_NODISCARD arb_status arb_command_audit_sidecars(const arb_config *cfg, FILE *out);

#endif
