#include "engine/environment.h"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace espalier {
namespace {

// Tensors come and go by the hundred a step, and memory that is given back to the kernel each time must be cleared by it each time.
char malloc_settings[] =
    "GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=67108864:glibc.malloc.trim_threshold=1073741824";

}  // namespace

std::vector<char*> worker_environment() {
  static constexpr std::string_view barred[] = {"OMP_",    "GOMP_",  "KMP_",      "MKL_", "ATEN_",      "DNNL_",
                                                "ONEDNN_", "TORCH_", "OPENBLAS_", "OV_",  "LD_PRELOAD="};
  std::vector<char*> kept;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    bool keep = true;
    for (const std::string_view start : barred) keep = keep && !std::string_view(*variable).starts_with(start);
    if (keep) kept.push_back(*variable);
  }
  if (::getenv("GLIBC_TUNABLES") == nullptr) kept.push_back(malloc_settings);
  kept.push_back(nullptr);
  return kept;
}

}  // namespace espalier
