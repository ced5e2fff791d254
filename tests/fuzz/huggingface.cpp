// A Hugging Face directory: config.json up to the first NUL, then model.safetensors.
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "formats/huggingface.h"
#include "target.h"

using namespace espalier;

namespace {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    if (!mkdtemp(path_)) abort();
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  void write(const std::string& name, std::string_view text) const {
    std::ofstream(std::filesystem::path(path_) / name, std::ios::binary) << text;
  }
  std::filesystem::path path() const { return path_; }

 private:
  char path_[32] = "/tmp/espalier-fuzz-XXXXXX";
};

}  // namespace

ESPALIER_FUZZ(huggingface, bytes) {
  const auto end = std::find(bytes.begin(), bytes.end(), std::byte{0});
  const auto split = static_cast<std::size_t>(end - bytes.begin());
  const TemporaryFolder folder;
  folder.write("config.json", fuzz::text_of(bytes.first(split)));
  folder.write("model.safetensors", fuzz::text_of(bytes.subspan(std::min(split + 1, bytes.size()))));
  import_huggingface(folder.path());
}
