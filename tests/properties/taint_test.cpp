// Poisoned channels come out where the axis maps say, for every operator of the table.
#include <catch2/catch_test_macros.hpp>

#include "../graph/models.h"
#include "run/op.h"
#include "running.h"
#include "taint_cases.h"

using namespace espalier;
using namespace espalier::test;

namespace {

void report(const Taint& taint) {
  for (const auto& violation : taint.violations) UNSCOPED_INFO(violation);
  CHECK(taint.violations.empty());
}

}  // namespace

TEST_CASE("poisoned channels of a language model come out where the maps say") {
  Taint taint;
  check_taint(language_model(31), language_inputs(2, 5, 50, 1), taint);
  report(taint);
  CHECK(taint.claims > 400);
}

TEST_CASE("poisoned channels of a residual CNN come out where the maps say") {
  Taint taint;
  check_taint(residual_cnn(32), image_inputs(2, 1), taint);
  report(taint);
  CHECK(taint.claims > 300);
}

TEST_CASE("poisoned channels of every operator come out where the maps say") {
  Taint taint;
  for (const TaintCases cases : RegisterTaint::all())
    for (const auto& single : cases()) check_taint(single.graph, single.inputs, taint);
  report(taint);
  for (const auto* op : all_operators()) {
    if (!op->domain.empty() || !op->axes || WithoutNan::all().contains(op->name)) continue;
    INFO(op->name << " is in the table and in no case of this test");
    CHECK(taint.operators.contains(op->name));
  }
}

TEST_CASE("a map that says the wrong thing is found out") {
  // Rows come out one later than they went in; the map says that they stay.
  RegisterOperator({"Shifted", "espalier.test", 1, [](const NodeView& view) { return std::vector<ValueInfo>{view.in(0)}; },
                    [](const NodeView&, AxisMaps& maps) { maps.same(AxisMaps::in(0, 1), AxisMaps::out(0, 1)); }, nullptr, nullptr,
                    false});
  RegisterRun("espalier.test", "Shifted", [](const RunView& view) { return std::vector<at::Tensor>{view.in(0).roll(1, 1)}; });
  auto single = single_node("Identity", {{{2, 6}}});
  single.graph.nodes[0].op = "Shifted";
  single.graph.nodes[0].domain = "espalier.test";
  single.graph.opsets["espalier.test"] = 1;
  Taint taint;
  check_taint(single.graph, single.inputs, taint);
  CHECK(taint.claims > 0);
  CHECK(!taint.violations.empty());
}
