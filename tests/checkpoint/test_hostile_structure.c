/* Forged HDF5 structures: refused for what they are even when the manifest was made to match them. None may crash, read another
 * file, or take memory that it merely declares. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/checkpoint/hostile.h"
#include "tests/checkpoint/state.h"
#include "tests/test.h"

/* HDF5 1.10 itself forgets about 400 bytes when an object header's checksum is wrong. What we forget shows in open_ids. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5\n"; }

static void put_number(hid_t id, const char *name, int64_t value) {
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t a = H5Acreate2(id, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(a >= 0 && H5Awrite(a, H5T_STD_I64LE, &value) >= 0);
  H5Aclose(a);
  H5Sclose(space);
}

/* The attributes of a whole array of 16 rows. */
static void put_digest(hid_t id) {
  put_number(id, "global_rows", 16);
  put_number(id, "first_row", 0);
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
  assert_true(H5Lcreate_external("../step-00000006/rank-00000.h5", "/embed", f, "embed", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
/* Or the file would end before places that its manifest names. */
static void pad(hid_t f) {
  const hid_t how = early(), space = shape(2, 64, 64, 0);
  H5Dclose(H5Dcreate2(f, "embed/pad", H5T_STD_U8LE, space, H5P_DEFAULT, how, H5P_DEFAULT));
  H5Sclose(space);
  H5Pclose(how);
}
static void make_external_meta(hid_t f) {
  pad(f);
  assert_true(H5Ldelete(f, "meta", H5P_DEFAULT) >= 0);
  assert_true(H5Lcreate_external("../step-00000006/rank-00000.h5", "/meta", f, "meta", H5P_DEFAULT, H5P_DEFAULT) >= 0);
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
  const int three = 3;
  change(f, "meta", "format_version", H5T_STD_I32LE, H5Screate(H5S_SCALAR), &three);
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
static void make_other_run(hid_t f) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, 32);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  change(f, "meta", "run", type, H5Screate(H5S_SCALAR), "0123456789abcdef0123456789abcdef");
  H5Tclose(type);
}
static void make_other_rank(hid_t f) {
  const int other = 1;
  change(f, "meta", "rank", H5T_STD_I32LE, H5Screate(H5S_SCALAR), &other);
}
static void make_more_ranks(hid_t f) {
  const int other = 1000000000;
  change(f, "meta", "ranks", H5T_STD_I32LE, H5Screate(H5S_SCALAR), &other);
}
static void make_other_first(hid_t f) {
  const int64_t other = 3;
  change(f, "embed/code", "first_row", H5T_STD_I64LE, H5Screate(H5S_SCALAR), &other);
}
static void make_more_rows(hid_t f) {
  const int64_t other = INT64_MAX;
  change(f, "embed/code", "global_rows", H5T_STD_I64LE, H5Screate(H5S_SCALAR), &other);
}
static void make_no_seed(hid_t f) { assert_true(H5Adelete_by_name(f, "meta", "seed", H5P_DEFAULT) >= 0); }
static void make_no_meta(hid_t f) {
  pad(f);
  assert_true(H5Ldelete(f, "meta", H5P_DEFAULT) >= 0);
}
static void make_no_identity(hid_t f) { assert_true(H5Ldelete(f, "meta/identity", H5P_DEFAULT) >= 0); }

static void forged_structure(void **test) {
  static const struct {
    void (*make)(hid_t file);
    const char *text;
  } cases[] = {
      {make_removed, "embed.code is missing, its manifest puts it there"},
      {make_removed_group, "embed.code is missing, its manifest puts it there"},
      {make_renamed, "holds embed.edoc, which its manifest does not put there"},
      {make_renamed_group, "holds debme.code, which its manifest does not put there"},
      {make_extra, "holds embed.extra, which its manifest does not put there"},
      {make_shape, "embed.code is u8 64 x 16, its manifest says u8 16 x 64"},
      {make_samples, "its samples, seed or state digest are not those of its manifest"},
      {make_extra_meta, "holds meta.extra, which its manifest does not put there"},
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
      {make_hard_twin, "holds embed.twin, which its manifest does not put there"},
      {make_group_twin, "holds twin.code, which its manifest does not put there"},
      {make_hard_loop, "is not a dataset"},
      {make_deep, "embed.deep is not a dataset"},
      {make_root_dataset, "code is not a group"},
      {make_bad_name, "'co?[de' in group /embed is no name"},
      {make_long_name, "in group /embed is no name"},
      {make_no_digest, "embed.code has no attribute xxh3_128"},
      {make_more_attributes, "embed.code has 43 attributes, expected 3"},
      {make_vlen_digest, "attribute xxh3_128 of embed.code has an unexpected type or shape"},
      {make_array_digest, "attribute xxh3_128 of embed.code has an unexpected type or shape"},
      {make_long_digest, "attribute xxh3_128 of embed.code has an unexpected type or shape"},
      {make_no_hex_digest, "attribute xxh3_128 of embed.code is not 32 lower-case hex digits"},
      {make_version, "checkpoint format 3, this program reads 2"},
      {make_negative_step, "is of step -7, its manifest of step 7"},
      {make_float_step, "attribute step of meta has an unexpected type or shape"},
      {make_other_run, "is of another run than its manifest"},
      {make_other_rank, "is of rank 1 of 1, its manifest expects rank 0 of 1"},
      {make_more_ranks, "is of rank 0 of 1000000000, its manifest expects rank 0 of 1"},
      {make_other_first, "embed.code is from row 3 of 16, its manifest says row 0 of 16"},
      {make_more_rows, "embed.code is from row 0 of 9223372036854775807, its manifest says row 0 of 16"},
      {make_no_seed, "meta has 7 attributes, expected 8"},
      {make_no_meta, "has no group meta"},
      {make_no_identity, "meta.identity lies outside of"} /* the file is shorter now */,
  };
  long size, manifest_size;
  unsigned char *good = slurp(victim(*test), &size);
  unsigned char *manifest = slurp(step_path(*test, STEP, "manifest.json"), &manifest_size);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    spill(victim(*test), good, size);
    spill(step_path(*test, STEP, "manifest.json"), manifest, manifest_size);
    const hid_t file = open_victim(*test);
    cases[i].make(file);
    close_victim(file);
    refused_in_every_way(*test, cases[i].text);
  }
  spill(victim(*test), good, size);
  spill(step_path(*test, STEP, "manifest.json"), manifest, manifest_size);
  state_check(*test, STEP);
  free(manifest);
  free(good);
}

/* argv[1]: arbckpt. */
int main(int argc, char **argv) {
  arbckpt = argc > 1 ? argv[1] : NULL;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(forged_structure, hostile_setup, scratch_teardown),
  };
  return cmocka_run_group_tests_name("checkpoint_structure", tests, NULL, NULL);
}
