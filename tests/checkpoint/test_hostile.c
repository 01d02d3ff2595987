/* Damaged and forged files: every one is refused with its reason, or, where the damage touches nothing that is read, loads the
 * right bytes. None may crash, read another file, or take memory that it merely declares. */
#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/checkpoint/state.h"
#include "tests/test.h"

enum { STEP = 7, OLDER = 6 };

/* HDF5 1.10 itself forgets about 400 bytes when an object header's checksum is wrong. What we forget shows in open_ids. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5\n"; }

static hsize_t open_ids(void) {
  static const H5I_type_t kinds[] = {H5I_FILE, H5I_GROUP, H5I_DATATYPE, H5I_DATASPACE, H5I_DATASET, H5I_ATTR, H5I_GENPROP_LST};
  hsize_t all = 0, n;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (H5Inmembers(kinds[i], &n) >= 0) all += n;
  return all;
}

/* Loading this file fails with this text, and discovery reports it and falls back to the older checkpoint. */
static void refused(const char *dir, const char *text) {
  const hsize_t ids = open_ids();
  state s;
  report_log log = {0};
  int64_t step = -2;
  arb_assert_fails(state_load(dir, STEP, &s), ARB_ERR_CHECKPOINT, text);
  arb_assert_ok(arb_ckpt_latest(dir, &step, keep_report, &log));
  assert_int_equal(step, OLDER);
  assert_int_equal(log.lines, 1);
  if (strstr(log.text, text) == NULL) fail_msg("report '%s' lacks '%s'", log.text, text);
  assert_true(open_ids() == ids);
}

static int setup(void **test) {
  if (scratch_setup(test) != 0) return -1;
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  state_save(*test, OLDER);
  state_save(*test, STEP);
  return 0;
}

static const char *victim(const char *dir) { return step_path(dir, STEP, "state.h5"); }

static hid_t access_v110(void) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  assert_true(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0);
  assert_true(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0);
  return access;
}

static hid_t open_victim(const char *dir) {
  const hid_t access = access_v110(), file = H5Fopen(victim(dir), H5F_ACC_RDWR, access);
  assert_true(file >= 0);
  H5Pclose(access);
  return file;
}

static void close_victim(hid_t file) { assert_true(H5Fclose(file) >= 0); }

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

/* Every dataset: the first, a middle and the last byte of its data. */
static void flipped_data(void **test) {
  static const struct {
    const char *path, *name;
    long bytes;
  } sets[] = {{"embed/code", "embed.code", 1024},
              {"embed/e", "embed.e", 16},
              {"layer0.memory.fcg/code", "layer0.memory.fcg.code", 1023},
              {"layer0.memory.fcg/m", "layer0.memory.fcg.m", 364},
              {"layer0.memory.fcg/p", "layer0.memory.fcg.p", 1},
              {"layer10.glu/c", "layer10.glu.c", 4000},
              {"meta/identity", "meta.identity", sizeof STATE_IDENTITY - 1},
              {"meta/config", "meta.config", sizeof STATE_CONFIG - 1}};
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    const hid_t file = open_victim(*test), set = H5Dopen2(file, sets[i].path, H5P_DEFAULT);
    const long at = (long)H5Dget_offset(set), places[3] = {0, sets[i].bytes / 2, sets[i].bytes - 1};
    close_victim(file);
    long size;
    unsigned char *bytes = slurp(victim(*test), &size);
    char text[80];
    snprintf(text, sizeof text, "%s is damaged (digest", sets[i].name);
    for (int p = 0; p < 3; p++) {
      bytes[at + places[p]] ^= 1;
      spill(victim(*test), bytes, size);
      refused(*test, text);
      bytes[at + places[p]] ^= 1;
    }
    spill(victim(*test), bytes, size);
    state_check(*test, STEP);
    free(bytes);
  }
}

/* Every byte of the file in turn. */
static void flipped_anywhere(void **test) {
  long size;
  int accepted = 0;
  state want, got;
  state_fill(&want, STEP);
  unsigned char *bytes = slurp(victim(*test), &size);
  const int fd = open(victim(*test), O_WRONLY);
  for (long i = 0; i < size; i++) {
    const unsigned char bad = bytes[i] ^ (unsigned char)(1 << (i % 8));
    assert_int_equal(pwrite(fd, &bad, 1, i), 1);
    const arb_status st = state_load(*test, STEP, &got);
    if (st == ARB_OK) {
      accepted++;
      if (!state_equal(&got, &want)) fail_msg("byte %ld flipped: loaded with wrong data", i);
    } else if (st != ARB_ERR_CHECKPOINT || arb_fail_message()[0] == '\0') {
      fail_msg("byte %ld flipped: %s: '%s'", i, arb_status_name(st), arb_fail_message());
    }
    arb_fail_clear();
    assert_int_equal(pwrite(fd, &bytes[i], 1, i), 1);
  }
  close(fd);
  free(bytes);
  state_check(*test, STEP);
  print_message("%ld bytes, %d of them in unused space\n", size, accepted);
  assert_true(accepted < size / 10); /* HDF5 aligns its metadata in blocks; the rest is all checked */
}

static void truncated(void **test) {
  long size;
  state s;
  unsigned char *bytes = slurp(victim(*test), &size);
  for (long keep = 0; keep < size; keep += keep < 64 ? 1 : 37) {
    assert_int_equal(truncate(victim(*test), 0), 0);
    spill(victim(*test), bytes, keep);
    arb_assert_fails(state_load(*test, STEP, &s), ARB_ERR_CHECKPOINT, victim(*test));
  }
  spill(victim(*test), bytes, size - 1);
  refused(*test, "but its superblock says");
  bytes[size] = 0;
  spill(victim(*test), bytes, size + 1);
  refused(*test, "but its superblock says");
  spill(victim(*test), bytes, 0);
  refused(*test, "has 0 bytes: not an HDF5 file");
  free(bytes);
}

static void superblocks(void **test) {
  static const struct {
    long at;
    unsigned char value;
    const char *text;
  } cases[] = {{0, 'X', "no signature"},        {7, 0, "no signature"},
               {8, 0, "version 0, expected 3"}, {8, 255, "version 255, expected 3"},
               {9, 4, "4-byte addresses"},      {10, 2, "2-byte lengths"},
               {11, 1, "was not closed"},       {11, 4, "was not closed"},
               {12, 8, "starts its HDF5 part"}, {20, 0, "superblock extension"},
               {28, 1, "its superblock says"},  {36, 49, "is damaged: HDF5"},
               {44, 1, "is damaged: HDF5"}};
  long size;
  unsigned char *bytes = slurp(victim(*test), &size);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const unsigned char old = bytes[cases[i].at];
    bytes[cases[i].at] = old == cases[i].value ? (unsigned char)(old + 1) : cases[i].value;
    spill(victim(*test), bytes, size);
    refused(*test, cases[i].text);
    bytes[cases[i].at] = old;
  }
  /* A user block in front: HDF5 itself would find the signature at 512. */
  unsigned char *shifted = calloc(1, (size_t)size + 512);
  memcpy(shifted + 512, bytes, (size_t)size);
  spill(victim(*test), shifted, size + 512);
  refused(*test, "no signature");
  free(shifted);
  free(bytes);
}

/* ---- what lies at the path -------------------------------------------------------------------------------------------- */

static void not_a_file(void **test) {
  char other[1300];
  snprintf(other, sizeof other, "%s/other.h5", (const char *)*test);
  assert_int_equal(rename(victim(*test), other), 0);
  assert_int_equal(symlink(other, victim(*test)), 0);
  refused(*test, "state.h5: cannot be opened: Too many levels of symbolic links");
  assert_int_equal(unlink(victim(*test)), 0);
  assert_int_equal(mkdir(victim(*test), 0777), 0);
  refused(*test, "is not a regular file");
  assert_int_equal(rmdir(victim(*test)), 0);
  assert_int_equal(mkfifo(victim(*test), 0666), 0); /* must not wait for a writer */
  refused(*test, "is not a regular file");
  assert_int_equal(unlink(victim(*test)), 0);
  refused(*test, "No such file");
}

static void other_step(void **test) {
  assert_int_equal(rename(step_path(*test, OLDER, "state.h5"), victim(*test)), 0);
  state_save(*test, OLDER);
  refused(*test, "holds step 6, its folder says 7");
}

static void no_descriptors_left(void **test) {
  struct rlimit old, none;
  state s;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
  none = old;
  const int next = dup(0);
  close(next);
  none.rlim_cur = (rlim_t)next;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  const arb_status st = state_load(*test, STEP, &s);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
  assert_int_equal(st, ARB_ERR_IO); /* no judgement on the file: discovery must not fall back for it */
  assert_non_null(strstr(arb_fail_message(), "Too many open files"));
  arb_fail_clear();
  state_check(*test, STEP);
}

/* ---- structure -------------------------------------------------------------------------------------------------------- */

static void put_digest(hid_t id) {
  const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  H5Tset_size(type, 32);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  const hid_t a = H5Acreate2(id, "xxh3_128", type, space, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(a >= 0 && H5Awrite(a, type, "0123456789abcdef0123456789abcdef") >= 0);
  H5Aclose(a);
  H5Sclose(space);
  H5Tclose(type);
}

/* Puts another dataset in the place of embed/code. */
static void replace_code(hid_t file, hid_t type, hid_t space, hid_t how) {
  assert_true(H5Ldelete(file, "embed/code", H5P_DEFAULT) >= 0);
  const hid_t id = H5Dcreate2(file, "embed/code", type, space, H5P_DEFAULT, how, H5P_DEFAULT);
  assert_true(id >= 0);
  put_digest(id);
  H5Dclose(id);
  H5Sclose(space);
  if (how != H5P_DEFAULT) H5Pclose(how);
}

static hid_t shape(int rank, hsize_t a, hsize_t b, hsize_t c) {
  const hsize_t dims[3] = {a, b, c};
  return H5Screate_simple(rank, dims, NULL);
}

static hid_t early(void) {
  const hid_t how = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_alloc_time(how, H5D_ALLOC_TIME_EARLY);
  return how;
}

static hid_t chunked(hsize_t rows, hsize_t columns) {
  const hsize_t dims[2] = {rows, columns};
  const hid_t how = H5Pcreate(H5P_DATASET_CREATE);
  assert_true(H5Pset_chunk(how, 2, dims) >= 0);
  return how;
}

static void make_removed(hid_t f) { assert_true(H5Ldelete(f, "embed/code", H5P_DEFAULT) >= 0); }
static void make_removed_group(hid_t f) { assert_true(H5Ldelete(f, "embed", H5P_DEFAULT) >= 0); }
static void make_renamed(hid_t f) { assert_true(H5Lmove(f, "embed/code", f, "embed/edoc", H5P_DEFAULT, H5P_DEFAULT) >= 0); }
static void make_renamed_group(hid_t f) { assert_true(H5Lmove(f, "embed", f, "debme", H5P_DEFAULT, H5P_DEFAULT) >= 0); }
static void make_extra(hid_t f) {
  const hid_t how = early(), space = shape(2, 3, 4, 0);
  const hid_t id = H5Dcreate2(f, "embed/extra", H5T_STD_U8LE, space, H5P_DEFAULT, how, H5P_DEFAULT);
  put_digest(id);
  H5Dclose(id);
  H5Sclose(space);
  H5Pclose(how);
}
static void make_extra_meta(hid_t f) {
  const hid_t how = early(), space = shape(2, 3, 4, 0);
  const hid_t id = H5Dcreate2(f, "meta/extra", H5T_STD_U8LE, space, H5P_DEFAULT, how, H5P_DEFAULT);
  put_digest(id);
  H5Dclose(id);
  H5Sclose(space);
  H5Pclose(how);
}
static void make_shape(hid_t f) { replace_code(f, H5T_STD_U8LE, shape(2, 64, 16, 0), early()); }
static void make_rank1(hid_t f) { replace_code(f, H5T_STD_U8LE, shape(1, 1024, 0, 0), early()); }
static void make_rank3(hid_t f) { replace_code(f, H5T_STD_U8LE, shape(3, 16, 8, 8), early()); }
static void make_scalar(hid_t f) { replace_code(f, H5T_STD_U8LE, H5Screate(H5S_SCALAR), early()); }
static void make_null(hid_t f) { replace_code(f, H5T_STD_U8LE, H5Screate(H5S_NULL), H5P_DEFAULT); }
static void make_late(hid_t f) { replace_code(f, H5T_STD_U8LE, shape(2, 16, 64, 0), H5P_DEFAULT); }
static void make_bomb(hid_t f) { replace_code(f, H5T_STD_U8LE, shape(2, 1u << 31, 1u << 20, 0), H5P_DEFAULT); }
static void make_big_endian(hid_t f) { replace_code(f, H5T_STD_U16BE, shape(2, 16, 64, 0), early()); }
static void make_float(hid_t f) { replace_code(f, H5T_IEEE_F32LE, shape(2, 16, 64, 0), early()); }
static void make_bitfield(hid_t f) { replace_code(f, H5T_STD_B8LE, shape(2, 16, 64, 0), early()); }
static void make_string(hid_t f) { replace_code(f, H5T_C_S1, shape(2, 16, 64, 0), early()); }
static void make_reference(hid_t f) { replace_code(f, H5T_STD_REF_OBJ, shape(2, 16, 64, 0), early()); }
static void make_vlen(hid_t f) {
  const hid_t type = H5Tvlen_create(H5T_STD_U8LE);
  replace_code(f, type, shape(2, 16, 64, 0), early());
  H5Tclose(type);
}
static void make_compound(hid_t f) {
  const hid_t type = H5Tcreate(H5T_COMPOUND, 1);
  H5Tinsert(type, "x", 0, H5T_STD_U8LE);
  replace_code(f, type, shape(2, 16, 64, 0), early());
  H5Tclose(type);
}
static void make_enum(hid_t f) {
  const hid_t type = H5Tenum_create(H5T_STD_U8LE);
  const unsigned char one = 1;
  H5Tenum_insert(type, "one", &one);
  replace_code(f, type, shape(2, 16, 64, 0), early());
  H5Tclose(type);
}
static void make_seven_bits(hid_t f) {
  const hid_t type = H5Tcopy(H5T_STD_U8LE);
  H5Tset_precision(type, 7);
  replace_code(f, type, shape(2, 16, 64, 0), early());
  H5Tclose(type);
}
static void make_committed(hid_t f) {
  const hid_t type = H5Tcopy(H5T_STD_U8LE);
  assert_true(H5Tcommit_anon(f, type, H5P_DEFAULT, H5P_DEFAULT) >= 0);
  replace_code(f, type, shape(2, 16, 64, 0), early());
  H5Tclose(type);
}
static void make_named_type(hid_t f) {
  const hid_t type = H5Tcopy(H5T_STD_U8LE);
  assert_true(H5Tcommit2(f, "embed/type", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT) >= 0);
  H5Tclose(type);
}
static void make_chunked(hid_t f) { replace_code(f, H5T_STD_U8LE, shape(2, 16, 64, 0), chunked(16, 64)); }
static void make_tiny_chunks(hid_t f) { replace_code(f, H5T_STD_U8LE, shape(2, 1u << 20, 1u << 20, 0), chunked(1, 1)); }
static void make_unlimited(hid_t f) {
  const hsize_t dims[2] = {16, 64}, most[2] = {H5S_UNLIMITED, 64};
  replace_code(f, H5T_STD_U8LE, H5Screate_simple(2, dims, most), chunked(1, 64));
}
static void make_gzip(hid_t f) {
  const hid_t how = chunked(1u << 15, 1u << 15);
  assert_true(H5Pset_deflate(how, 9) >= 0);
  replace_code(f, H5T_STD_U8LE, shape(2, 1u << 30, 1u << 30, 0), how);
}
static void make_compact(hid_t f) {
  const hid_t how = early();
  H5Pset_layout(how, H5D_COMPACT);
  replace_code(f, H5T_STD_U8LE, shape(2, 16, 64, 0), how);
}
static void make_external_data(hid_t f) {
  const hid_t how = H5Pcreate(H5P_DATASET_CREATE);
  assert_true(H5Pset_external(how, "/etc/passwd", 0, 1024) >= 0);
  replace_code(f, H5T_STD_U8LE, shape(2, 16, 64, 0), how);
}
static void make_virtual(hid_t f) {
  const hid_t how = H5Pcreate(H5P_DATASET_CREATE), from = shape(2, 16, 64, 0), to = shape(2, 16, 64, 0);
  assert_true(H5Pset_virtual(how, to, "other.h5", "/x", from) >= 0);
  replace_code(f, H5T_STD_U8LE, to, how);
  H5Sclose(from);
}
static void make_soft(hid_t f) {
  make_renamed(f);
  assert_true(H5Lcreate_soft("/embed/edoc", f, "embed/code", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_soft_cycle(hid_t f) {
  make_removed(f);
  assert_true(H5Lcreate_soft("/embed/code", f, "embed/code", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_external(hid_t f) {
  make_removed(f);
  assert_true(H5Lcreate_external("/dev/zero", "/embed/code", f, "embed/code", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_external_group(hid_t f) {
  make_removed_group(f);
  assert_true(H5Lcreate_external("../step-00000006/state.h5", "/embed", f, "embed", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_external_meta(hid_t f) {
  assert_true(H5Ldelete(f, "meta", H5P_DEFAULT) >= 0);
  assert_true(H5Lcreate_external("../step-00000006/state.h5", "/meta", f, "meta", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static hid_t follow(const char *name, hid_t group, const void *data, size_t size, hid_t access, hid_t transfer) {
  (void)name, (void)group, (void)data, (void)size, (void)access, (void)transfer;
  fail_msg("a user-defined link was followed");
  return H5I_INVALID_HID;
}
static void make_user_link(hid_t f) {
  const H5L_class_t kind = {.version = H5L_LINK_CLASS_T_VERS, .id = (H5L_type_t)200, .comment = "test", .trav_func = follow};
  assert_true(H5Lregister(&kind) >= 0);
  make_removed(f);
  assert_true(H5Lcreate_ud(f, "embed/code", (H5L_type_t)200, "x", 1, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_hard_twin(hid_t f) {
  assert_true(H5Lcreate_hard(f, "embed/code", f, "embed/twin", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_group_twin(hid_t f) { assert_true(H5Lcreate_hard(f, "embed", f, "twin", H5P_DEFAULT, H5P_DEFAULT) >= 0); }
static void make_hard_loop(hid_t f) { assert_true(H5Lcreate_hard(f, "/", f, "loop", H5P_DEFAULT, H5P_DEFAULT) >= 0); }
static void make_deep(hid_t f) {
  const hid_t id = H5Gcreate2(f, "embed/deep", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(id >= 0);
  H5Gclose(id);
}
static void make_root_dataset(hid_t f) { assert_true(H5Lmove(f, "embed/code", f, "code", H5P_DEFAULT, H5P_DEFAULT) >= 0); }
static void make_bad_name(hid_t f) {
  assert_true(H5Lmove(f, "embed/code", f, "embed/co\x1b[de", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_long_name(hid_t f) {
  char name[70000] = "embed/";
  memset(name + 6, 'n', sizeof name - 7);
  assert_true(H5Lmove(f, "embed/code", f, name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_no_digest(hid_t f) { assert_true(H5Adelete_by_name(f, "embed/code", "xxh3_128", H5P_DEFAULT) >= 0); }
static void make_more_attributes(hid_t f) {
  for (int i = 0; i < 40; i++) { /* enough to leave the object header */
    char name[16];
    snprintf(name, sizeof name, "a%d", i);
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t id = H5Acreate_by_name(f, "embed/code", name, H5T_STD_U8LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0);
    H5Aclose(id);
    H5Sclose(space);
  }
}
/* Replaces an attribute; NULL values leave it unwritten. */
static void change(hid_t f, const char *object, const char *name, hid_t type, hid_t space, const void *value) {
  assert_true(H5Adelete_by_name(f, object, name, H5P_DEFAULT) >= 0);
  const hid_t id = H5Acreate_by_name(f, object, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(id >= 0 && (value == NULL || H5Awrite(id, type, value) >= 0));
  H5Aclose(id);
  H5Sclose(space);
}
static void make_vlen_digest(hid_t f) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  const char *text = "0123456789abcdef0123456789abcdef";
  change(f, "embed/code", "xxh3_128", type, H5Screate(H5S_SCALAR), &text);
  H5Tclose(type);
}
static void make_array_digest(hid_t f) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, 32);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  change(f, "embed/code", "xxh3_128", type, shape(1, 1000, 0, 0), NULL);
  H5Tclose(type);
}
static void make_long_digest(hid_t f) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, 60000);
  change(f, "embed/code", "xxh3_128", type, H5Screate(H5S_SCALAR), NULL);
  H5Tclose(type);
}
static void make_no_hex_digest(hid_t f) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, 32);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  change(f, "embed/code", "xxh3_128", type, H5Screate(H5S_SCALAR), "0123456789ABCDEF0123456789ABCDEF");
  H5Tclose(type);
}
static void make_version(hid_t f) {
  const int two = 2;
  change(f, "meta", "format_version", H5T_STD_I32LE, H5Screate(H5S_SCALAR), &two);
}
static void make_samples(hid_t f) {
  const int64_t other = 7001; /* any but the saved one */
  change(f, "meta", "samples", H5T_STD_I64LE, H5Screate(H5S_SCALAR), &other);
}
static void make_negative_step(hid_t f) {
  const int64_t other = -7;
  change(f, "meta", "step", H5T_STD_I64LE, H5Screate(H5S_SCALAR), &other);
}
static void make_float_step(hid_t f) {
  const double other = 7;
  change(f, "meta", "step", H5T_IEEE_F64LE, H5Screate(H5S_SCALAR), &other);
}
static void make_no_seed(hid_t f) { assert_true(H5Adelete_by_name(f, "meta", "seed", H5P_DEFAULT) >= 0); }
static void make_no_meta(hid_t f) { assert_true(H5Ldelete(f, "meta", H5P_DEFAULT) >= 0); }
static void make_no_identity(hid_t f) { assert_true(H5Ldelete(f, "meta/identity", H5P_DEFAULT) >= 0); }

static void forged_structure(void **test) {
  static const struct {
    void (*make)(hid_t file);
    const char *text;
  } cases[] = {
      {make_removed, "its list of datasets or its metadata was changed"},
      {make_removed_group, "its list of datasets or its metadata was changed"},
      {make_renamed, "its list of datasets or its metadata was changed"},
      {make_renamed_group, "its list of datasets or its metadata was changed"},
      {make_extra, "its list of datasets or its metadata was changed"},
      {make_shape, "its list of datasets or its metadata was changed"},
      {make_samples, "its list of datasets or its metadata was changed"},
      {make_extra_meta, "meta.extra is not part of a checkpoint"},
      {make_rank1, "embed.code has rank 1, expected 2"},
      {make_rank3, "embed.code has rank 3, expected 2"},
      {make_scalar, "embed.code is a scalar or empty, expected rank 2"},
      {make_null, "embed.code is a scalar or empty, expected rank 2"},
      {make_late, "embed.code has 0 bytes stored, but its shape needs 1024"},
      {make_bomb, "embed.code has 0 bytes stored, but its shape needs 2251799813685248"},
      {make_big_endian, "embed.code has a type that is not a little-endian integer"},
      {make_float, "embed.code has a type that is not a little-endian integer"},
      {make_bitfield, "embed.code has a type that is not a little-endian integer"},
      {make_string, "embed.code has a type that is not a little-endian integer"},
      {make_reference, "embed.code has a type that is not a little-endian integer"},
      {make_vlen, "embed.code has a type that is not a little-endian integer"},
      {make_compound, "embed.code has a type that is not a little-endian integer"},
      {make_enum, "embed.code has a type that is not a little-endian integer"},
      {make_seven_bits, "embed.code has a type that is not a little-endian integer"},
      {make_committed, "embed.code has a committed type"},
      {make_named_type, "embed.type is not a dataset"},
      {make_chunked, "embed.code is chunked, compact or virtual, expected contiguous"},
      {make_tiny_chunks, "embed.code is chunked, compact or virtual, expected contiguous"},
      {make_unlimited, "embed.code is chunked, compact or virtual, expected contiguous"},
      {make_gzip, "embed.code is chunked, compact or virtual, expected contiguous"},
      {make_compact, "embed.code is chunked, compact or virtual, expected contiguous"},
      {make_virtual, "embed.code is chunked, compact or virtual, expected contiguous"},
      {make_external_data, "embed.code keeps its data in another file"},
      {make_soft, "code in group /embed is a soft link"},
      {make_soft_cycle, "code in group /embed is a soft link"},
      {make_external, "code in group /embed is an external link"},
      {make_external_group, "embed in group / is an external link"},
      {make_external_meta, "meta in group / is an external link"},
      {make_user_link, "code in group /embed is a user-defined link"},
      {make_hard_twin, "share bytes"},
      {make_group_twin, "share bytes"},
      {make_hard_loop, "is not a dataset"},
      {make_deep, "embed.deep is not a dataset"},
      {make_root_dataset, "code is not a group"},
      {make_bad_name, "'co?[de' in group /embed is no name"},
      {make_long_name, "in group /embed is no name"},
      {make_no_digest, "embed.code has no attribute xxh3_128"},
      {make_more_attributes, "embed.code has 41 attributes, expected 1"},
      {make_vlen_digest, "attribute xxh3_128 of embed.code has an unexpected type or shape"},
      {make_array_digest, "attribute xxh3_128 of embed.code has an unexpected type or shape"},
      {make_long_digest, "attribute xxh3_128 of embed.code has an unexpected type or shape"},
      {make_no_hex_digest, "attribute xxh3_128 of embed.code is not 32 lower-case hex digits"},
      {make_version, "checkpoint format 2, this program reads 1"},
      {make_negative_step, "step -7"},
      {make_float_step, "attribute step of meta has an unexpected type or shape"},
      {make_no_seed, "meta has 5 attributes, expected 6"},
      {make_no_meta, "has no group meta"},
      {make_no_identity, "meta.identity is missing"},
  };
  long size;
  unsigned char *good = slurp(victim(*test), &size);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    spill(victim(*test), good, size);
    const hid_t file = open_victim(*test);
    cases[i].make(file);
    close_victim(file);
    refused(*test, cases[i].text);
  }
  spill(victim(*test), good, size);
  state_check(*test, STEP);
  free(good);
}

/* A file of the old format: superblock 0, symbol tables, nothing checksummed. */
static void old_format(void **test) {
  const hid_t file = H5Fcreate(victim(*test), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(file >= 0);
  H5Gclose(H5Gcreate2(file, "meta", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  close_victim(file);
  refused(*test, "superblock of version 0, expected 3");
}

#define SCRATCH(name) cmocka_unit_test_setup_teardown(name, setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      SCRATCH(flipped_data), SCRATCH(flipped_anywhere),    SCRATCH(truncated),        SCRATCH(superblocks), SCRATCH(not_a_file),
      SCRATCH(other_step),   SCRATCH(no_descriptors_left), SCRATCH(forged_structure), SCRATCH(old_format),
  };
  return cmocka_run_group_tests_name("checkpoint_hostile", tests, NULL, NULL);
}
