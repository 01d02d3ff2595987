/* The HDF5 part of a save: all metadata and the places of the data, in a file that never touches the disk. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"
#include "src/checkpoint/io.h"

static bool put_attribute(hid_t object, const char *name, hid_t type, const void *value) {
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t id = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  const bool good = id >= 0 && H5Awrite(id, type, value) >= 0;
  arb_ckpt_h5_drop(id, H5Aclose);
  arb_ckpt_h5_drop(space, H5Sclose);
  return good;
}

static bool put_hex(hid_t object, const char *name, const char *hex) {
  const hid_t type = arb_ckpt_h5_hex_type();
  const bool good = put_attribute(object, name, type, hex);
  arb_ckpt_h5_drop(type, H5Tclose);
  return good;
}

static bool put_head(hid_t group, const arb_ckpt_head *h) {
  const int32_t version = ARB_CKPT_VERSION;
  return put_attribute(group, "format_version", H5T_STD_I32LE, &version) &&
         put_attribute(group, "step", H5T_STD_I64LE, &h->meta->step) &&
         put_attribute(group, "samples", H5T_STD_I64LE, &h->meta->samples) &&
         put_attribute(group, "seed", H5T_STD_U64LE, &h->meta->seed) && put_hex(group, "digest", h->meta->digest) &&
         put_hex(group, "run", h->run) && put_attribute(group, "rank", H5T_STD_I32LE, &h->rank) &&
         put_attribute(group, "ranks", H5T_STD_I32LE, &h->ranks);
}

/* Object times are left out, so that equal states give equal files. */
static hid_t untimed(hid_t class) {
  const hid_t id = H5Pcreate(class);
  if (id >= 0 && H5Pset_obj_track_times(id, 0) >= 0) return id;
  arb_ckpt_h5_drop(id, H5Pclose);
  return H5I_INVALID_HID;
}

/* Space without content: early allocation fixes the place of the bytes, which write.c puts there. */
static bool put_dataset(hid_t group, arb_ckpt_entry *e) {
  const hsize_t dims[2] = {(hsize_t)e->count, (hsize_t)e->columns};
  const hid_t type = arb_ckpt_h5_type(e->type), space = H5Screate_simple(2, dims, NULL), how = untimed(H5P_DATASET_CREATE);
  hid_t id = H5I_INVALID_HID;
  if (how >= 0 && H5Pset_layout(how, H5D_CONTIGUOUS) >= 0 && H5Pset_fill_time(how, H5D_FILL_TIME_NEVER) >= 0 &&
      H5Pset_alloc_time(how, H5D_ALLOC_TIME_EARLY) >= 0)
    id = H5Dcreate2(group, e->field, type, space, H5P_DEFAULT, how, H5P_DEFAULT);
  bool good = id >= 0 && put_hex(id, ARB_CKPT_DIGEST, e->digest) && put_attribute(id, ARB_CKPT_ROWS, H5T_STD_I64LE, &e->rows) &&
              put_attribute(id, ARB_CKPT_FIRST, H5T_STD_I64LE, &e->first);
  if (good && e->bytes > 0) {
    e->offset = H5Dget_offset(id);
    good = e->offset != HADDR_UNDEF;
  }
  arb_ckpt_h5_drop(id, H5Dclose);
  arb_ckpt_h5_drop(how, H5Pclose);
  arb_ckpt_h5_drop(space, H5Sclose);
  return good;
}

/* A rank without texts still has the group of the head. */
static bool put_meta(hid_t file, hid_t how, const arb_ckpt_head *head) {
  const hid_t group = H5Gcreate2(file, ARB_CKPT_META, H5P_DEFAULT, how, H5P_DEFAULT);
  const bool good = group >= 0 && put_head(group, head);
  arb_ckpt_h5_drop(group, H5Gclose);
  return good;
}

static arb_status put_all(hid_t file, const char *path, const arb_ckpt_head *head, arb_ckpt_entry *entries, int count) {
  arb_status st = ARB_OK;
  const hid_t how = untimed(H5P_GROUP_CREATE);
  hid_t group = H5I_INVALID_HID;
  if (!put_meta(file, how, head))
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot lay out %s: %s", path, ARB_CKPT_META, arb_ckpt_h5_reason());
  for (int i = 0; i < count && st == ARB_OK; i++) {
    arb_ckpt_entry *e = &entries[i];
    bool good = true;
    if (i == 0 || strcmp(e->tensor, entries[i - 1].tensor) != 0) {
      arb_ckpt_h5_drop(group, H5Gclose);
      group = strcmp(e->tensor, ARB_CKPT_META) == 0 ? H5Gopen2(file, e->tensor, H5P_DEFAULT)
                                                    : H5Gcreate2(file, e->tensor, H5P_DEFAULT, how, H5P_DEFAULT);
      good = group >= 0;
    }
    if (!good || !put_dataset(group, e))
      st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot lay out %s.%s: %s", path, e->tensor, e->field, arb_ckpt_h5_reason());
  }
  arb_ckpt_h5_drop(group, H5Gclose);
  arb_ckpt_h5_drop(how, H5Pclose);
  return st;
}

static arb_status lay_out(const char *path, const arb_ckpt_image *image, const arb_ckpt_head *head, arb_ckpt_entry *entries,
                          int count) {
  arb_status st;
  arb_ckpt_h5_lock();
  const hid_t access = arb_ckpt_h5_access(image->in_memory), how = untimed(H5P_FILE_CREATE);
  hid_t file = access < 0 || how < 0 ? H5I_INVALID_HID : H5Fcreate(image->name, H5F_ACC_TRUNC, how, access);
  if (file < 0) {
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be laid out: %s", path, arb_ckpt_h5_reason());
    goto out;
  }
  ARB_TRY_OUT(st, put_all(file, path, head, entries, count));
  if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0) {
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be laid out: %s", path, arb_ckpt_h5_reason());
    goto out;
  }
  const herr_t closed = H5Fclose(file);
  file = H5I_INVALID_HID;
  if (closed < 0) st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be laid out: %s", path, arb_ckpt_h5_reason());
out:
  arb_ckpt_h5_drop(file, H5Fclose);
  arb_ckpt_h5_drop(how, H5Pclose);
  arb_ckpt_h5_drop(access, H5Pclose);
  arb_ckpt_h5_unlock();
  return st;
}

/* A sparse file for the layout that never touches the disk: HDF5 1.10 swallows some write errors, and after a failed close it
 * crashes at exit. In memory there are none of these, and everything that reaches the disk goes through io.h. Where Linux's
 * memory files or /proc are missing, a file in the temporary folder has to do. */
static arb_status open_image(const char *folder, arb_ckpt_image *image) {
  image->fd = arb_io_table()->memory_file("arbdist-checkpoint");
  if (image->fd >= 0) {
    ARB_TRY(arb_ckpt_path(image->name, "/proc/self/fd/%d", image->fd));
    image->in_memory = access(image->name, F_OK) == 0;
    if (image->in_memory) return ARB_OK;
    close(image->fd);
  }
  ARB_TRY(arb_ckpt_path(image->name, "%s/layout-%d.h5", folder, (int)getpid()));
  image->fd = arb_io_table()->open(image->name, O_RDWR | O_CREAT | O_EXCL);
  ARB_REQUIRE(image->fd >= 0, ARB_ERR_CHECKPOINT, "%s: cannot be created: %s", image->name, strerror(errno));
  return ARB_OK;
}

arb_status arb_ckpt_lay_out(const char *path, const char *folder, const arb_ckpt_head *head, arb_ckpt_entry *entries, int count,
                            arb_ckpt_image *image) {
  *image = (arb_ckpt_image){.fd = -1};
  ARB_TRY(open_image(folder, image));
  return lay_out(path, image, head, entries, count);
}

arb_status arb_ckpt_image_drop(arb_ckpt_image *image) {
  if (image->fd < 0) return ARB_OK;
  close(image->fd);
  image->fd = -1;
  ARB_REQUIRE(image->in_memory || unlink(image->name) == 0, ARB_ERR_CHECKPOINT, "%s: cannot be removed: %s", image->name,
              strerror(errno));
  return ARB_OK;
}
