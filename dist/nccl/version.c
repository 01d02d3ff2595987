#include "dist/nccl/version.h"

static int major_of(int64_t code) { return (int)(code >= 10000 ? code / 10000 : code / 1000); }
static int minor_of(int64_t code) { return (int)(code >= 10000 ? code / 100 % 100 : code / 100 % 10); }
static int patch_of(int64_t code) { return (int)(code % 100); }

arb_status arb_nccl_check_versions(int64_t built, const int64_t *found, int rank, int ranks) {
  const int64_t mine = found[rank];
  ARB_REQUIRE(
      major_of(mine) == major_of(built) && minor_of(mine) >= minor_of(built), ARB_ERR_UNSUPPORTED,
      "NCCL %d.%d.%d was found at run time, but this build was made with %d.%d.%d and needs %d.%d or a later %d.x: look at "
      "LD_LIBRARY_PATH and the installed libnccl",
      major_of(mine), minor_of(mine), patch_of(mine), major_of(built), minor_of(built), patch_of(built), major_of(built),
      minor_of(built), major_of(built));
  for (int i = 0; i < ranks; i++)
    ARB_REQUIRE(found[i] == mine, ARB_ERR_UNSUPPORTED,
                "NCCL differs between ranks: rank %d found %d.%d.%d, rank %d found %d.%d.%d; they must be the same", rank,
                major_of(mine), minor_of(mine), patch_of(mine), i, major_of(found[i]), minor_of(found[i]), patch_of(found[i]));
  return ARB_OK;
}
