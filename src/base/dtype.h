/* Element types of buffers, checkpoints and collectives. Little-endian everywhere. */
#ifndef ARB_SRC_BASE_DTYPE_H
#define ARB_SRC_BASE_DTYPE_H

#include <stddef.h>

typedef enum {
  ARB_U8,
  ARB_I8,
  ARB_U16,
  ARB_I16,
  ARB_BF16,
  ARB_I32,
  ARB_U32,
  ARB_F32,
  ARB_I64,
  ARB_U64,
  ARB_DTYPE__COUNT
} arb_dtype;

static inline size_t arb_dtype_size(arb_dtype t) {
  static const unsigned char size[ARB_DTYPE__COUNT] = {1, 1, 2, 2, 2, 4, 4, 4, 8, 8};
  return size[t];
}
static inline const char *arb_dtype_name(arb_dtype t) {
  static const char *const name[ARB_DTYPE__COUNT] = {"u8", "i8", "u16", "i16", "bf16", "i32", "u32", "f32", "i64", "u64"};
  return name[t];
}
static inline int arb_dtype_is_float(arb_dtype t) { return t == ARB_F32 || t == ARB_BF16; }

#endif
