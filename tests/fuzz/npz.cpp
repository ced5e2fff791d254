#include "formats/npy.h"
#include "target.h"

using namespace espalier;

ESPALIER_FUZZ(npz, bytes) {
  const fuzz::Owned owned(bytes);
  parse_npz(owned.view(), owned.bytes, "fuzz");
}
