/* The order of training samples: a pure function of (seed, text length, context, global sample index).
 *
 * A sample is a window of context + 1 bytes: inputs are its bytes [0, context), targets its bytes [1, context + 1). An epoch
 * cuts the text into consecutive windows that share only their border byte, starting at a phase drawn for that epoch, and
 * visits each once in an order drawn for that epoch. Nothing is stored but five integers, so every rank computes any sample
 * alone, in any order, and a resumed or re-sized job continues exactly. The values are part of the checkpoint contract:
 * changing them changes every run. */
#ifndef ARB_SRC_DATA_ORDER_H
#define ARB_SRC_DATA_ORDER_H

#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Plain values, freely copied; made by arb_order_init. */
typedef struct {
  uint64_t seed;
  int64_t length;  /* bytes of text */
  int64_t context; /* bytes of input a sample */
  int64_t windows; /* samples an epoch, at least 1 */
  int64_t phases;  /* the first window starts at a byte in [0, phases); = context unless the text is shorter than 2 windows */
} arb_order;

/* context at least 1 (ARB_ERR_ARG). ARB_ERR_DATA, with the bytes needed, if the text is shorter than one window. An epoch
 * has max(1, length / context - 1) windows: one fewer than could fit, so that every phase in [0, context) fits too. */
ARB_NODISCARD arb_status arb_order_init(arb_order *o, uint64_t seed, int64_t length, int64_t context);

/* Sample i is sample i mod windows of epoch i / windows. i at least 0. */
static inline int64_t arb_order_epoch(const arb_order *o, int64_t i) { return i / o->windows; }
static inline int64_t arb_order_in_epoch(const arb_order *o, int64_t i) { return i % o->windows; }

/* Byte at which the first window of an epoch starts, in [0, phases). */
int64_t arb_order_phase(const arb_order *o, int64_t epoch);
/* Window that an epoch visits at position k in [0, windows); for each epoch a bijection of [0, windows). */
int64_t arb_order_window(const arb_order *o, int64_t epoch, int64_t k);
/* Byte at which sample i starts: phase + window * context, in [0, length - context - 1]. i at least 0. */
int64_t arb_order_offset(const arb_order *o, int64_t i);

#ifdef __cplusplus
}
#endif
#endif
