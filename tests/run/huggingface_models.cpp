#include "huggingface_models.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

namespace espalier::test {

namespace fs = std::filesystem;

const fs::path& models() {
  struct Made {
    fs::path folder = fs::temp_directory_path() / fmt::format("espalier-huggingface-{}", ::getpid());
    Made() {
      fs::create_directories(folder);
      const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
      if (!python || !source) throw std::runtime_error("ESPALIER_TEST_PYTHON and ESPALIER_SOURCE are not set (run through ctest)");
      const std::string command = fmt::format("{} {}/tests/run/huggingface_oracle.py {}", python, source, folder.string());
      if (std::system(command.c_str()) != 0) throw std::runtime_error("the oracle failed: " + command);
    }
    ~Made() {
      std::error_code ignored;
      fs::remove_all(folder, ignored);
    }
  };
  static const Made made;
  return made.folder;
}

}  // namespace espalier::test
