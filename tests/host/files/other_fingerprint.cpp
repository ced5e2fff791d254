#include "loaded.h"

namespace {
__attribute__((section(".espalier"), used)) const char text[] =
    R"({"format":1,"fingerprint":"sdk=1;torch=1.13;abi=cxx98","plugin":{"name":"other","version":"0.1.0","components":[{"name":"metric/other"}]}})";
}
