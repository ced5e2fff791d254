#include "loaded.h"

extern "C" __attribute__((visibility("default"))) int no_manifest() { return 1; }
