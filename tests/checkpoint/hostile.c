#include "tests/checkpoint/hostile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "src/checkpoint/inspect.h"
#include "tests/checkpoint/resign.h"
#include "tests/checkpoint/state.h"
#include "tests/test.h"

hsize_t open_ids(void) {
  static const H5I_type_t kinds[] = {H5I_FILE, H5I_GROUP, H5I_DATATYPE, H5I_DATASPACE, H5I_DATASET, H5I_ATTR, H5I_GENPROP_LST};
  hsize_t all = 0, n;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (H5Inmembers(kinds[i], &n) >= 0) all += n;
  return all;
}

const char *arbckpt;

void refused_by_tool(const char *dir, const char *text) {
  char command[3000], out[4096];
  if (arbckpt == NULL) return;
  snprintf(command, sizeof command, "'%s' stat --unverified '%s' 2>&1", arbckpt, step_path(dir, STEP, NULL));
  FILE *p = popen(command, "r");
  assert_non_null(p);
  out[fread(out, 1, sizeof out - 1, p)] = '\0';
  const int status = pclose(p);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 4) fail_msg("arbckpt: status %d for '%s': %s", status, text, out);
  if (strstr(out, text) == NULL || strncmp(out, "arbckpt: checkpoint: ", 21) != 0)
    fail_msg("arbckpt: '%s' lacks '%s'", out, text);
}

void refused(const char *dir, const char *text) {
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

void refused_in_every_way(const char *dir, const char *text) {
  arb_ckpt *c;
  refused(dir, RANK0 ": ");
  manifest_resign(dir, STEP);
  refused(dir, text);
  const hsize_t ids = open_ids();
  arb_assert_fails(arb_ckpt_open_unverified(dir, STEP, &c), ARB_ERR_CHECKPOINT, text);
  assert_null(c);
  assert_true(open_ids() == ids);
  refused_by_tool(dir, text);
}

int hostile_setup(void **test) {
  if (scratch_setup(test) != 0) return -1;
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  state_save(*test, OLDER);
  state_save(*test, STEP);
  return 0;
}

const char *victim(const char *dir) { return step_path(dir, STEP, RANK0); }

static hid_t access_v110(void) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  assert_true(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0);
  assert_true(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0);
  return access;
}

hid_t open_victim(const char *dir) {
  const hid_t access = access_v110(), file = H5Fopen(victim(dir), H5F_ACC_RDWR, access);
  assert_true(file >= 0);
  H5Pclose(access);
  return file;
}

void close_victim(hid_t file) { assert_true(H5Fclose(file) >= 0); }
