/* Imported encoders ("sidecars"): DINOv2-small (images) and Moonshine-base (speech), frozen, int8, apart from the ternary core.
 *
 * The weights come from a HuggingFace folder or file, or are synthetic; they are quantised once while loading, by the scheme of
 * optimum-quanto's qint8 (one scale an output row, absmax / 127, round half to even, every Linear and Conv2d), and kept as one
 * block of memory in which they really are int8. There is no gradient path. Activations are float32.
 *
 * Results depend on the input and the weights alone: not on what was encoded before, the number of threads, the instruction
 * set, or the device (kernels/dense). An opened sidecar is used by one thread at a time. Sources: Oquab et al. 2023
 * (arXiv:2304.07193), Jeffries et al. 2024 (arXiv:2410.15608). */
#ifndef ARB_SRC_SIDECAR_SIDECAR_H
#define ARB_SRC_SIDECAR_SIDECAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/dense/device.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The path that names no file: weights of the published shapes from a hash of their names (src/sidecar/source.h). They know
 * nothing, but cost what real ones cost and are the same everywhere: for tests, measurements and trying things out. */
#define ARB_SIDECAR_SYNTHETIC "synthetic"
#define ARB_SIDECAR_DIGEST 33 /* 32 hexadecimal digits and the NUL */

/* Where an opened sidecar's block of weights lives, for processes that share one copy. */
typedef struct {
  void *arg;
  /* Gives `bytes` of zeroed memory, aligned to 64 bytes, in *base; *fill = 0 if another process fills it. */
  arb_status (*take)(void *arg, size_t bytes, void **base, int *fill);
  /* The block was filled, with this outcome, or is about to be read: returns when all sharers may read it, with the outcome of
   * the one that filled it. Collective among the sharers. */
  arb_status (*filled)(void *arg, arb_status st);
  void (*give_back)(void *arg, void *base, size_t bytes);
} arb_sidecar_memory;

/* A named intermediate result: [rows][width], valid during the call. */
typedef void (*arb_sidecar_probe)(void *arg, const char *name, const float *x, int64_t rows, int64_t width);

typedef struct {
  bool conv_int8;                   /* our own, stricter: Conv1d and Conv3d weights in int8 too */
  bool embed_int8;                  /* our own, stricter: embedding tables in int8 too */
  bool float_weights;               /* nothing in int8: for comparison with the original */
  bool old_positions;               /* DINOv2: position grid as transformers before 4.45 scaled it (16.1 / 37) */
  bool decoder;                     /* Moonshine: load the decoder too */
  int threads;                      /* 0: 1 */
  const char *isa;                  /* as arb_dense_pick; NULL: "auto" */
  const arb_sidecar_memory *memory; /* NULL: the process's own; borrowed while the sidecar lives */
  arb_dense_place place;            /* a GPU that encodes; weights go there, the block above is given back. Zeros: the host */
  arb_sidecar_probe probe;          /* NULL: none */
  void *probe_arg;
} arb_sidecar_options;

typedef enum {
  ARB_SIDECAR_LINEAR,
  ARB_SIDECAR_CONV1D,
  ARB_SIDECAR_CONV2D,
  ARB_SIDECAR_CONV3D,
  ARB_SIDECAR_EMBEDDING, /* token tables */
  ARB_SIDECAR_NORM,      /* weights and biases of norms, layer scales */
  ARB_SIDECAR_BIAS,
  ARB_SIDECAR_OTHER, /* class token, mask token, positions */
  ARB_SIDECAR_CLASSES
} arb_sidecar_class;

/* By class. requested, quantized, quantized_int8 are the original implementation's names: modules that the scheme and the
 * options ask for, that were quantised, and whose weights are held as int8. */
typedef struct {
  int64_t tensors, parameters; /* in the file */
  int64_t modules;             /* weights of a module: Linear, Conv, Embedding */
  int64_t requested, quantized, quantized_int8;
  int64_t int8_bytes, scale_bytes, float_bytes; /* held in memory; scales are float32 */
} arb_sidecar_count;

typedef struct {
  const char *model; /* "dinov2-small", "moonshine-base encoder", "moonshine-base", ... */
  char file[1024];   /* where the weights came from */
  arb_sidecar_count of[ARB_SIDECAR_CLASSES], all;
  char place[64];                       /* where weights and activations are: "host", or the device's name */
  int64_t resident_bytes;               /* the whole block: the above and its alignment */
  int64_t work_bytes;                   /* activations and scratch of this process */
  char file_digest[ARB_SIDECAR_DIGEST]; /* of the file's bytes, or "synthetic" */
  char digest[ARB_SIDECAR_DIGEST];      /* XXH3-128 of model, options and block: what features depend on */
} arb_sidecar_report;

/* The report as a table: tensors, parameters, modules and bytes by class, and the digests. */
void arb_sidecar_print(const arb_sidecar_report *r, FILE *out);
/* "linear", "conv1d", ... */
const char *arb_sidecar_class_name(arb_sidecar_class c);

typedef enum { ARB_SIDECAR_UNKNOWN, ARB_SIDECAR_DINO, ARB_SIDECAR_MOONSHINE, ARB_SIDECAR_VAE } arb_sidecar_kind;
/* Which model a folder or file of weights holds, by the names in it: VAE is the Wan 2.1 VAE or one that opening will refuse.
 * ARB_ERR_DATA if it cannot be read. */
ARB_NODISCARD arb_status arb_sidecar_identify(const char *path, arb_sidecar_kind *out);

/* ---- DINOv2-small ---- */
enum { ARB_DINO_SIDE = 224, ARB_DINO_PATCHES = 256, ARB_DINO_WIDTH = 384 };
typedef struct arb_dino arb_dino;

/* path: a folder with model.safetensors, a file, or ARB_SIDECAR_SYNTHETIC. ARB_ERR_DATA with file, tensor and what was
 * expected. On failure *out stays NULL. Collective among the sharers of o->memory, else not. */
ARB_NODISCARD arb_status arb_dino_open(const char *path, const arb_sidecar_options *o, arb_dino **out);
/* pixels [3][224][224], normalised (src/media); out [256][384]: the last hidden state of the patches, row-major over the image.
 * ARB_ERR_NUMERIC if a pixel or a feature is not finite. */
ARB_NODISCARD arb_status arb_dino_features(arb_dino *d, const float *pixels, float *out);
/* The same with the class token in row 0: out [257][384]. */
ARB_NODISCARD arb_status arb_dino_hidden(arb_dino *d, const float *pixels, float *out);
const arb_sidecar_report *arb_dino_report(const arb_dino *d);
/* NULL-safe; nulls the handle. */
void arb_dino_destroy(arb_dino **d);

/* ---- Moonshine-base ---- */
enum {
  ARB_MOONSHINE_RATE = 16000, /* samples a second */
  ARB_MOONSHINE_WIDTH = 416,
  ARB_MOONSHINE_LEAST = 895,       /* samples of the shortest input: one frame */
  ARB_MOONSHINE_MOST = 64 * 16000, /* samples of the longest input */
  ARB_MOONSHINE_VOCABULARY = 32768,
  ARB_MOONSHINE_POSITIONS = 512 /* tokens of the longest transcript, the start included */
};
typedef struct arb_moonshine arb_moonshine;

/* As arb_dino_open. The encoder alone unless o->decoder. */
ARB_NODISCARD arb_status arb_moonshine_open(const char *path, const arb_sidecar_options *o, arb_moonshine **out);
/* Frames that n samples give: 15,360 give 38; 0 below ARB_MOONSHINE_LEAST. */
int64_t arb_moonshine_frames(int64_t n);
/* samples [n], mono, 16 kHz, amplitude 1 = full scale; out [arb_moonshine_frames(n)][416]; *frames may be NULL.
 * ARB_ERR_DATA if n is outside [ARB_MOONSHINE_LEAST, ARB_MOONSHINE_MOST], ARB_ERR_NUMERIC for values that are not finite. */
ARB_NODISCARD arb_status arb_moonshine_features(arb_moonshine *m, const float *samples, int64_t n, float *out, int64_t *frames);
/* Decoder, teacher-forced: logits [32768] after ids [count] (the first is 1), given encoder output [frames][416]. */
ARB_NODISCARD arb_status arb_moonshine_logits(arb_moonshine *m, const float *encoded, int64_t frames, const int32_t *ids,
                                              int64_t count, float *logits);
/* Greedy transcription: the likeliest token after each, from token 1 to token 2 (not stored) or `most` tokens, whichever is
 * first. ids [most] is the caller's; *count of them are written. most <= ARB_MOONSHINE_POSITIONS - 1; 0: 6.5 tokens a second
 * of speech, the authors' guard against endless repetition (ids then holds ARB_MOONSHINE_POSITIONS). */
ARB_NODISCARD arb_status arb_moonshine_transcribe(arb_moonshine *m, const float *samples, int64_t n, int64_t most, int32_t *ids,
                                                  int64_t *count);
const arb_sidecar_report *arb_moonshine_report(const arb_moonshine *m);
void arb_moonshine_destroy(arb_moonshine **m);

#ifdef __cplusplus
}
#endif
#endif
