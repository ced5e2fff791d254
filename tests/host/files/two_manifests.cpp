#include "loaded.h"

namespace {
__attribute__((section(".espalier"), used)) const char first[] = R"({"format":1})";
__attribute__((section(".espalier"), used)) const char second[] = R"({"format":1})";
}  // namespace
