#include "calls.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace espalier::test {

namespace fs = std::filesystem;

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }

Calls::Calls(std::string oracle) : oracle_(std::move(oracle)) {
  std::string pattern = (fs::temp_directory_path() / "espalier-calls-XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()));
  folder = pattern;
}

Calls::~Calls() {
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

bool Calls::oracle(const std::string& arguments) const {
  return std::system(fmt::format("cd {} && {} {}/tests/e2e/{} {}", quoted(folder), std::getenv("ESPALIER_TEST_PYTHON"),
                                 std::getenv("ESPALIER_SOURCE"), oracle_, arguments)
                         .c_str()) == 0;
}

Call Calls::shell(const std::string& command) const {
  Call call;
  const int status = std::system(fmt::format("cd {} && ( {} ) >out.txt 2>err.txt", quoted(folder), command).c_str());
  call.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  call.out = text("out.txt");
  call.err = text("err.txt");
  return call;
}

fs::path Calls::program() { return fs::path(std::getenv("ESPALIER_BUILD")) / "bin/espalier"; }

std::string Calls::text(const fs::path& name) const {
  std::ostringstream all;
  all << std::ifstream(folder / name, std::ios::binary).rdbuf();
  return all.str();
}

std::set<std::string> Calls::names(const fs::path& in) const {
  std::set<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder / in)) found.insert(entry.path().filename().string());
  return found;
}

}  // namespace espalier::test
