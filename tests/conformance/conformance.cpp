/// conformance FOLDER [--all] [--table] [--torchscript] [PATTERN…]: runs the node cases that node_cases.py wrote; those whose name
/// begins with a pattern or one of whose operators is one, where patterns are given. A line for each that did not pass (each one
/// with --all), and the sums; with
/// --table the page of operators instead; with --torchscript through an archive and LibTorch.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "operator_table.h"

using namespace espalier::test;

int main(int count, char** words) {
  if (count < 2) {
    fmt::print(stderr, "conformance FOLDER [--all] [--table] [--torchscript] [PATTERN…]\n");
    return 2;
  }
  bool all = false, table = false, torchscript = false;
  std::vector<std::string> patterns;
  for (int i = 2; i < count; ++i) {
    const std::string_view word(words[i]);
    if (word == "--all")
      all = true;
    else if (word == "--table")
      table = true;
    else if (word == "--torchscript")
      torchscript = true;
    else
      patterns.emplace_back(word);
  }
  const auto wanted = [&](const NodeCase& node_case) {
    if (patterns.empty()) return true;
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
      return node_case.name.starts_with(pattern) ||
             std::find(node_case.operators.begin(), node_case.operators.end(), pattern) != node_case.operators.end();
    });
  };
  std::map<Outcome::Kind, int> sums;
  const char* const kinds[] = {"passed", "refused", "WRONG"};
  const std::vector<NodeCase> cases = read_node_cases(words[1]);
  std::vector<Judged> judged;
  const auto archive = std::filesystem::temp_directory_path() / fmt::format("conformance-{}.pt", static_cast<long>(::getpid()));
  for (const NodeCase& node_case : cases) {
    if (!wanted(node_case)) continue;
    judged.push_back({&node_case, {}, {}});
    if (table || !torchscript) judged.back().outcome = run_node_case(node_case, words[1]);
    if (table || torchscript) judged.back().torchscript = run_torchscript_case(node_case, words[1], archive);
    const Outcome& outcome = torchscript ? judged.back().torchscript : judged.back().outcome;
    ++sums[outcome.kind];
    if (!table && (all || outcome.kind != Outcome::passed))
      fmt::print("{:8} {:60} {}: {}\n", kinds[outcome.kind], node_case.name, outcome.stage, outcome.reason);
  }
  std::error_code gone;
  std::filesystem::remove(archive, gone);
  if (table)
    fmt::print("{}", operator_table(judged));
  else
    fmt::print("{} passed, {} refused by name, {} wrong\n", sums[Outcome::passed], sums[Outcome::refused], sums[Outcome::wrong]);
  return sums[Outcome::wrong] ? 1 : 0;
}
