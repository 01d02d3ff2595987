/* The process's one lock around the HDF5 library, for every layer that writes its files. */
#ifndef ARB_SRC_CHECKPOINT_HDF5_LOCK_H
#define ARB_SRC_CHECKPOINT_HDF5_LOCK_H

/* HDF5 need not be built thread-safe and its settings are per process, so every use of it is between these two. */
void arb_ckpt_h5_lock(void);
void arb_ckpt_h5_unlock(void);
/* The operating system's or HDF5's reason of the last failure. Static buffer: use it before the unlock. */
const char *arb_ckpt_h5_reason(void);

#endif
