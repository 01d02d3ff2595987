/* Damaged files: every one is refused with its reason, or, where the damage touches nothing that is read, loads the right
 * bytes. None may crash, read another file, or take memory that it merely declares. */
#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/checkpoint/hostile.h"
#include "tests/checkpoint/resign.h"
#include "tests/checkpoint/state.h"
#include "tests/test.h"

/* HDF5 1.10 itself forgets about 400 bytes when an object header's checksum is wrong. What we forget shows in open_ids. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5\n"; }

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
  bytes[size] = 0;
  spill(victim(*test), bytes, size + 1);
  refused_in_every_way(*test, "but its superblock says");
  spill(victim(*test), bytes, 0);
  refused(*test, "has 0 bytes, but its manifest says");
  refused_by_tool(*test, "has 0 bytes: not an HDF5 file");
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
    refused_in_every_way(*test, cases[i].text);
    bytes[cases[i].at] = old;
    spill(victim(*test), bytes, size);
    manifest_resign(*test, STEP);
  }
  /* A user block in front: HDF5 itself would find the signature at 512. */
  unsigned char *shifted = calloc(1, (size_t)size + 512);
  memcpy(shifted + 512, bytes, (size_t)size);
  spill(victim(*test), shifted, size + 512);
  refused_in_every_way(*test, "no signature");
  free(shifted);
  free(bytes);
}

/* ---- what lies at the path -------------------------------------------------------------------------------------------- */

static void not_a_file(void **test) {
  char other[1300];
  snprintf(other, sizeof other, "%s/other.h5", (const char *)*test);
  assert_int_equal(rename(victim(*test), other), 0);
  assert_int_equal(symlink(other, victim(*test)), 0);
  refused(*test, RANK0 ": cannot be opened: Too many levels of symbolic links");
  assert_int_equal(unlink(victim(*test)), 0);
  assert_int_equal(mkdir(victim(*test), 0777), 0);
  refused(*test, "is not a regular file");
  assert_int_equal(rmdir(victim(*test)), 0);
  assert_int_equal(mkfifo(victim(*test), 0666), 0); /* must not wait for a writer */
  refused(*test, "is not a regular file");
  assert_int_equal(unlink(victim(*test)), 0);
  refused(*test, "No such file");
}

static void refused_file_of_other_step(const char *dir) {
  state_save(dir, OLDER);
  refused(dir, "embed.code is damaged (digest");
  manifest_resign(dir, STEP);
  refused(dir, RANK0 ": is of step 6, its manifest of step 7");
  refused_by_tool(dir, RANK0 ": is of step 6, its manifest of step 7");
}

/* A file of another step, with its manifest or without. */
static void other_step(void **test) {
  assert_int_equal(rename(step_path(*test, OLDER, RANK0), victim(*test)), 0);
  refused_file_of_other_step(*test);
  assert_int_equal(rename(step_path(*test, OLDER, "manifest.json"), step_path(*test, STEP, "manifest.json")), 0);
  state_save(*test, OLDER);
  refused(*test, "manifest.json: is of step 6, its folder says 7");
  refused_by_tool(*test, "manifest.json: is of step 6, its folder says 7");
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

/* A file of the old format: superblock 0, symbol tables, nothing checksummed. */
static void old_format(void **test) {
  const hid_t file = H5Fcreate(victim(*test), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(file >= 0);
  H5Gclose(H5Gcreate2(file, "meta", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  const hsize_t dims[1] = {1 << 14};
  const hid_t space = H5Screate_simple(1, dims, NULL), how = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_alloc_time(how, H5D_ALLOC_TIME_EARLY);
  H5Dclose(H5Dcreate2(file, "meta/x", H5T_STD_U8LE, space, H5P_DEFAULT, how, H5P_DEFAULT));
  H5Sclose(space);
  H5Pclose(how);
  close_victim(file);
  refused_in_every_way(*test, "superblock of version 0, expected 3");
}

/* What an earlier program wrote: one file, no manifest. */
static void first_format(void **test) {
  assert_int_equal(rename(victim(*test), step_path(*test, STEP, "state.h5")), 0);
  assert_int_equal(unlink(step_path(*test, STEP, "manifest.json")), 0);
  refused(*test, "state.h5: a checkpoint of format 1, this program reads 2");
}

#define SCRATCH(name) cmocka_unit_test_setup_teardown(name, hostile_setup, scratch_teardown)

/* argv[1]: arbckpt. */
int main(int argc, char **argv) {
  arbckpt = argc > 1 ? argv[1] : NULL;
  const struct CMUnitTest tests[] = {
      SCRATCH(flipped_data), SCRATCH(flipped_anywhere),    SCRATCH(truncated),  SCRATCH(superblocks),  SCRATCH(not_a_file),
      SCRATCH(other_step),   SCRATCH(no_descriptors_left), SCRATCH(old_format), SCRATCH(first_format),
  };
  return cmocka_run_group_tests_name("checkpoint_hostile", tests, NULL, NULL);
}
