#include "operator_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "../properties/taint_cases.h"
#include "graph/op.h"
#include "run/op.h"

namespace espalier::test {
namespace {

struct Row {
  std::set<int> versions;
  bool runs = false, differentiable = false;
  bool linked = false, rewritten = false, inexact = false;  ///< some axis can be cut: as it is, with a rewrite, only nearly
  int passed = 0, refused = 0, wrong = 0, written = 0;
  std::set<std::string> reasons;
};

/// "node 'x' (Op): cause (hint)" → "cause": names of values and numbers differ from case to case.
std::string cause(const Outcome& outcome) {
  std::string text = outcome.reason;
  if (const auto file = text.find(".onnx: "); file != std::string::npos) text.erase(0, file + 7);
  if (const auto colon = text.find("): "); colon != std::string::npos) text.erase(0, colon + 3);
  if (const auto inputs = text.find("; inputs:"); inputs != std::string::npos) text.resize(inputs);
  std::replace(text.begin(), text.end(), '|', '/');
  return text;
}

void add_axes(Row& row, const SingleNode& single) {
  const AxisMaps maps = axis_maps(single.graph, infer(single.graph), single.graph.nodes.front());
  for (const AxisMaps::Mark& mark : maps.marks) {
    row.rewritten = row.rewritten || mark.kind == AxisMaps::Mark::rewrite;
    row.inexact = row.inexact || mark.kind == AxisMaps::Mark::inexact;
  }
  const auto pinned = [&](const AxisMaps::Port& port) {
    return std::any_of(maps.marks.begin(), maps.marks.end(), [&](const AxisMaps::Mark& mark) {
      return mark.kind == AxisMaps::Mark::pinned && mark.port.output == port.output && mark.port.slot == port.slot &&
             mark.port.axis == port.axis;
    });
  };
  for (const AxisMaps::Link& link : maps.links) row.linked = row.linked || (!pinned(link.a) && !pinned(link.b));
}

std::string channels(const Row& row) {
  std::vector<std::string> words;
  if (row.linked) words.emplace_back("exact");
  if (row.rewritten) words.emplace_back("with rewrite");
  if (row.inexact) words.emplace_back("inexact");
  return words.empty() ? "pinned" : fmt::format("{}", fmt::join(words, ", "));
}

}  // namespace

std::string operator_table(const std::vector<Judged>& judged) {
  std::map<std::string, Row> rows;
  const auto name = [](const std::string& domain, const std::string& op) { return domain.empty() ? op : domain + "::" + op; };
  for (const Operator* op : all_operators()) {
    if (op->domain.starts_with("espalier")) continue;
    Row& row = rows[name(op->domain, op->name)];
    row.versions.insert(op->since);
    row.runs = find_run(op->domain, op->name) || find_values_run(op->domain, op->name);
    row.differentiable = row.differentiable || op->differentiable;
  }
  for (const TaintCases cases : RegisterTaint::all())
    for (const SingleNode& single : cases()) {
      const Node& node = single.graph.nodes.front();
      add_axes(rows[name(node.domain, node.op)], single);
    }
  int passed = 0, refused = 0, wrong = 0, written = 0;
  for (const Judged& each : judged) {
    const bool script = each.torchscript.kind == Outcome::passed;
    written += script;
    (each.outcome.kind == Outcome::passed ? passed : each.outcome.kind == Outcome::refused ? refused : wrong) += 1;
    if (each.node_case->operators.size() != 1) continue;
    Row& row = rows[each.node_case->operators.front()];
    row.written += script;
    (each.outcome.kind == Outcome::passed ? row.passed : each.outcome.kind == Outcome::refused ? row.refused : row.wrong) += 1;
    if (each.outcome.kind != Outcome::passed) row.reasons.insert(cause(each.outcome));
  }
  std::string out = fmt::format(
      "# Operators\n\nWritten by `conformance --table`; a test compares. Of the {} node cases of the ONNX project, {} pass through "
      "import, "
      "normal form,\n`infer` and the runner (relative tolerance 1e-3, of f16 and bf16 two units in the last place, absolute 1e-5), "
      "{} are refused by\nname, {} are wrong. Written as TorchScript and run by LibTorch, {} pass.\n\n"
      "*since*: the opsets at which an entry's meaning changes. *channels*: what a cut through the operator is: exact, exact with "
      "a\n"
      "rewrite of its attributes or weights, inexact (refused unless asked for), or pinned (what it touches stays whole). *cases*: "
      "ONNX's\n"
      "own of this one node, passed / all; *TorchScript*: the same of what is written.\n\n"
      "| operator | since | runs | gradient | channels | cases | TorchScript | refused because |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- |\n",
      judged.size(), passed, refused, wrong, written);
  for (const auto& [op, row] : rows) {
    const int cases = row.passed + row.refused + row.wrong;
    std::vector<std::string> reasons(row.reasons.begin(), row.reasons.end());
    if (reasons.size() > 3) {
      const std::size_t more = reasons.size() - 3;
      reasons.resize(3);
      reasons.push_back(fmt::format("{} more", more));
    }
    out += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} |\n", op,
                       row.versions.empty() ? "" : fmt::format("{}", fmt::join(row.versions, ", ")), row.runs ? "yes" : "no",
                       row.differentiable ? "yes" : "", row.versions.empty() ? "" : channels(row),
                       cases ? fmt::format("{} / {}", row.passed, cases) : "",
                       row.written ? fmt::format("{} / {}", row.written, cases)
                       : cases     ? "no"
                                   : "",
                       fmt::join(reasons, "; "));
  }
  return out;
}

}  // namespace espalier::test
