/* The encoders that a configuration asks for: DINOv2-small of images, Moonshine-base's encoder of recordings. */
#ifndef ARB_SRC_FEATURES_OPEN_H
#define ARB_SRC_FEATURES_OPEN_H

#include "dist/comm.h"
#include "kernels/dense/device.h"
#include "src/config/config.h"
#include "src/features/encoder.h"

/* A recording is cut or zero-padded to this many samples at 16 kHz. */
#define ARB_FEATURES_SAMPLES 15360

/* Features of a sample by kind (0: images, 1: recordings): rows and channels, known without opening anything. */
void arb_features_shape(int kind, int64_t *rows, int64_t *width);

/* Collective. place: where they compute; the bits are the same everywhere. out[2]: encoders of images and of recordings, or
 * NULL where model.image or model.audio is no. Weights are read and quantised by one rank of a node and shared by its others,
 * or taken by each to its GPU; comm must outlive the encoders, whose destruction is collective too. ARB_ERR_DATA: the weights
 * (file and tensor are named). */
ARB_NODISCARD arb_status arb_encoders_open(const arb_config *cfg, arb_comm *comm, arb_dense_place place, arb_encoder *out[2]);

#endif
