#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "src/checkpoint/checkpoint_impl.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char reason[320];

void arb_ckpt_h5_lock(void) {
  pthread_mutex_lock(&lock);
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* per thread in thread-safe builds, so each time */
  H5Eclear2(H5E_DEFAULT);
  H5PLset_loading_state(0); /* a file must not be able to name a shared object for us to load */
}

void arb_ckpt_h5_unlock(void) { pthread_mutex_unlock(&lock); }

/* Called with the innermost failure first: that one knows. Returning 1 ends the walk. */
static herr_t innermost(unsigned n, const H5E_error2_t *error, void *arg) {
  (void)n;
  (void)arg;
  static const char key[] = "error message = '";
  const char *desc = error->desc != NULL && error->desc[0] != '\0' ? error->desc : "unknown failure";
  const char *os = strstr(desc, key); /* drivers put errno's text between file names and pointers */
  if (os != NULL) {
    os += sizeof key - 1;
    snprintf(reason, sizeof reason, "%.*s", (int)strcspn(os, "'"), os);
  } else {
    snprintf(reason, sizeof reason, "HDF5: %s (%s)", desc, error->func_name != NULL ? error->func_name : "?");
  }
  for (char *c = reason; *c != '\0'; c++)
    if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e) *c = '?';
  return 1;
}

const char *arb_ckpt_h5_reason(void) {
  snprintf(reason, sizeof reason, "HDF5 gives no reason");
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, NULL);
  return reason;
}

hid_t arb_ckpt_h5_access(bool in_memory) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  if (access < 0) return access;
  /* V110: superblock 3, whose metadata are all checksummed. STRONG: a forgotten id cannot keep the file open. Locks are
   * best effort: file systems without them are common on clusters. */
  if (H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
      H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0 || H5Pset_file_locking(access, 1, 1) < 0 ||
      (in_memory ? H5Pset_fapl_stdio(access) : H5Pset_fapl_sec2(access)) < 0 /* not what HDF5_DRIVER says */) {
    H5Pclose(access);
    return H5I_INVALID_HID;
  }
  return access;
}

hid_t arb_ckpt_h5_type(arb_dtype type) {
  switch (type) {
    case ARB_U8:
      return H5T_STD_U8LE;
    case ARB_I8:
      return H5T_STD_I8LE;
    case ARB_U16:
      return H5T_STD_U16LE;
    case ARB_I16:
      return H5T_STD_I16LE;
    case ARB_U32:
      return H5T_STD_U32LE;
    case ARB_I32:
      return H5T_STD_I32LE;
    case ARB_U64:
      return H5T_STD_U64LE;
    case ARB_I64:
      return H5T_STD_I64LE;
    default:
      return H5I_INVALID_HID;
  }
}

hid_t arb_ckpt_h5_hex_type(void) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  if (type >= 0 && H5Tset_size(type, ARB_CKPT_HEX - 1) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0) return type;
  arb_ckpt_h5_drop(type, H5Tclose);
  return H5I_INVALID_HID;
}

void arb_ckpt_h5_drop(hid_t id, herr_t (*close)(hid_t)) {
  if (id >= 0) close(id);
}
