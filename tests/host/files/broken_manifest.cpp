#include "loaded.h"

namespace {
__attribute__((section(".espalier"), used)) const char text[] = R"({"format":1,"fingerprint":)";
}
