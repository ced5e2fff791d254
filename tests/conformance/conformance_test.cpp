// The ONNX project's node cases: how many pass, that none is wrong, and that the page of operators says so.
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <fstream>

#include "operator_table.h"

using namespace espalier::test;
namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Written once to the build tree for each version of the wheel (its name is in the pinned line).
fs::path cases_folder() {
  const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE"),
             *build = std::getenv("ESPALIER_BUILD");
  REQUIRE((python && source && build));
  const fs::path folder = fs::path(build) / "node-cases";
  const std::string pinned = text_of(fs::path(source) / "tests/conformance/pinned.txt");
  if (text_of(folder / "pinned.txt") != pinned) {
    fs::remove_all(folder);
    const std::string command = fmt::format("{} {}/tests/conformance/node_cases.py {}", python, source, folder.string());
    REQUIRE(std::system(command.c_str()) == 0);
  }
  CHECK(text_of(folder / "pinned.txt") == pinned);
  return folder;
}

}  // namespace

TEST_CASE("ONNX's node cases pass or are refused by name, here and as TorchScript, and the page of operators is up to date") {
  const fs::path folder = cases_folder(), archive = folder / "case.pt";
  const std::vector<NodeCase> cases = read_node_cases(folder);
  std::vector<Judged> judged;
  int passed = 0, written = 0;
  for (const NodeCase& node_case : cases) {
    judged.push_back({&node_case, run_node_case(node_case, folder), run_torchscript_case(node_case, folder, archive)});
    for (const Outcome* outcome : {&judged.back().outcome, &judged.back().torchscript}) {
      INFO(node_case.name << ", " << outcome->stage << ": " << outcome->reason);
      CHECK(outcome->kind != Outcome::wrong);
      if (outcome->kind == Outcome::refused) CHECK(!outcome->reason.empty());
    }
    passed += judged.back().outcome.kind == Outcome::passed;
    written += judged.back().torchscript.kind == Outcome::passed;
  }
  CHECK(passed >= 1770);
  CHECK(written >= 1000);
  INFO("write it again: conformance " << folder << " --table > docs/operators.md");
  CHECK(operator_table(judged) == text_of(fs::path(std::getenv("ESPALIER_SOURCE")) / "docs/operators.md"));
}
