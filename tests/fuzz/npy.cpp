#include "formats/npy.h"
#include "target.h"

using namespace espalier;

ESPALIER_FUZZ(npy, bytes) {
  const fuzz::Owned owned(bytes);
  parse_npy(owned.view(), owned.bytes, "fuzz");
}
