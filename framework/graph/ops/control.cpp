/// Control flow: If, Loop, Scan. What a body computes is told by inferring it with what comes in; no axis is followed through one,
/// so all that the node and its bodies touch stays whole.
#include <algorithm>
#include <set>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;
using Infos = std::vector<ValueInfo>;

const Graph& body_of(const NodeView& view, const char* attribute) {
  const auto found = view.node.attributes.find(attribute);
  const auto* body = found == view.node.attributes.end() ? nullptr : std::get_if<std::shared_ptr<Graph>>(&found->second);
  if (!body || !*body) view.fail(std::string("attribute ") + attribute + " is missing, or no graph");
  return **body;
}

/// Names of lengths that mean the same inside a body and outside of it.
void add_symbols(const ValueInfo& info, std::set<std::string, std::less<>>& symbols) {
  for (const Dim& d : info.shape)
    for (const auto& [name, factor] : d.terms()) symbols.insert(name);
}

Infos body_outputs(const NodeView& view, const Graph& body, const Infos& inputs) {
  const ValueMap values = infer_body(body, inputs, view.values);
  Infos out;
  for (const Value& output : body.outputs) out.push_back(values.at(output.name));
  return out;
}

/// What leaves a body as output `slot` of the node: a length that only the body knows gets a name of the node's own, and integers
/// that may differ from round to round are forgotten.
ValueInfo exported(const NodeView& view, std::size_t slot, ValueInfo info, const Infos& inputs, const Graph& body) {
  std::set<std::string, std::less<>> known;
  for (const ValueInfo& each : inputs) add_symbols(each, known);
  for (const std::string& name : captures(body))
    if (const auto found = view.values.find(name); found != view.values.end()) add_symbols(found->second, known);
  for (std::size_t i = 0; i < info.shape.size(); ++i) {
    const auto& terms = info.shape[i].terms();
    if (std::any_of(terms.begin(), terms.end(), [&](const auto& term) { return !known.contains(term.first); }))
      info.shape[i] = opaque(view, slot, i);
  }
  info.content.reset();
  return info;
}

/// Output `slot` of an If: what both branches have in common.
std::vector<ValueInfo> infer_if(const NodeView& view) {
  if (const auto count = element_count(view.in(0).shape); view.in(0).rank_known && count && *count != 1)
    view.fail("the condition has shape " + text(view.in(0).shape) + ", one element is needed");
  Infos made;
  for (const char* attribute : {"then_branch", "else_branch"}) {
    const Graph& body = body_of(view, attribute);
    Infos out = body_outputs(view, body, {});
    if (out.size() < view.node.outputs.size())
      view.fail(std::string(attribute) + " has " + std::to_string(out.size()) + " outputs, the node " +
                std::to_string(view.node.outputs.size()));
    for (std::size_t i = 0; i < view.node.outputs.size(); ++i) {
      out[i] = exported(view, i, std::move(out[i]), {}, body);
      if (made.size() <= i)
        made.push_back(std::move(out[i]));
      else
        made[i] = common(view, i, made[i], out[i]);
    }
    made.resize(view.node.outputs.size());
  }
  return made;
}

/// The carried values of a loop: what holds before the first round and after each. Lengths and ranks that change are let go until
/// another round changes nothing more.
Infos settled(const NodeView& view, const Graph& body, const Infos& before, Infos carried, std::size_t skipped, const Infos& after,
              Infos& made) {
  for (;;) {
    Infos inputs = before;
    inputs.insert(inputs.end(), carried.begin(), carried.end());
    inputs.insert(inputs.end(), after.begin(), after.end());
    made = body_outputs(view, body, inputs);
    if (made.size() < skipped + carried.size())
      view.fail("the body has " + std::to_string(made.size()) + " outputs, " + std::to_string(skipped + carried.size()) +
                " are needed for what is carried");
    bool changed = false;
    for (std::size_t i = 0; i < carried.size(); ++i) {
      ValueInfo next = common(view, i, carried[i], exported(view, i, made[skipped + i], inputs, body));
      changed =
          changed || next.shape != carried[i].shape || next.rank_known != carried[i].rank_known || next.dtype != carried[i].dtype;
      carried[i] = std::move(next);
    }
    for (std::size_t i = skipped + carried.size(); i < made.size(); ++i)
      made[i] = exported(view, i - skipped, std::move(made[i]), inputs, body);
    if (!changed) return carried;
  }
}

Infos without_contents(Infos infos) {
  for (ValueInfo& info : infos) info.content.reset();
  return infos;
}

ValueInfo unknown_value() {
  ValueInfo info;
  info.rank_known = false;
  return info;
}

Infos inputs_from(const NodeView& view, std::size_t first) {
  Infos out;
  for (std::size_t i = first; i < view.node.inputs.size(); ++i) out.push_back(view.has(i) ? view.in(i) : unknown_value());
  return out;
}

std::vector<ValueInfo> infer_loop(const NodeView& view) {
  const Graph& body = body_of(view, "body");
  for (std::size_t i : {0, 1}) {
    if (!view.has(i) || !view.in(i).rank_known) continue;
    if (const auto count = element_count(view.in(i).shape); count && *count != 1)
      view.fail("input " + std::to_string(i) + " has shape " + text(view.in(i).shape) + ", one element is needed");
  }
  const Infos around{value(DType::i64, {}), value(DType::boolean, {})};
  Infos made;
  Infos out = settled(view, body, around, without_contents(inputs_from(view, 2)), 1, {}, made);
  const std::size_t carried = out.size();
  for (std::size_t i = 1 + carried; i < made.size(); ++i) {
    ValueInfo stacked = made[i];
    // Lengths that only the body knows are named after their axes already: the number of rounds is named after none of them.
    if (stacked.rank_known) stacked.shape.insert(stacked.shape.begin(), opaque(view, i - 1, stacked.shape.size()));
    out.push_back(std::move(stacked));
  }
  return out;
}

/// Scan over axes of its last inputs (opset 9 and later; before, there were batches).
std::vector<ValueInfo> infer_scan(const NodeView& view) {
  const Graph& body = body_of(view, "body");
  const std::int64_t scanned = view.node.integer("num_scan_inputs", 0);
  const auto total = static_cast<std::int64_t>(view.node.inputs.size());
  if (scanned < 1 || scanned > total) view.fail("num_scan_inputs is " + std::to_string(scanned) + " of " + std::to_string(total));
  const auto carried_count = static_cast<std::size_t>(total - scanned);
  const Integers axes = view.node.integers("scan_input_axes", Integers(static_cast<std::size_t>(scanned), 0));
  if (axes.size() != static_cast<std::size_t>(scanned))
    view.fail("scan_input_axes has " + std::to_string(axes.size()) + " entries");
  Dim rounds;
  Infos slices;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    ValueInfo info = view.in(carried_count + i);
    info.content.reset();
    if (info.rank_known) {
      const auto rank = static_cast<std::int64_t>(info.shape.size());
      if (axes[i] < -rank || axes[i] >= rank)
        view.fail("scan_input_axes names axis " + std::to_string(axes[i]) + " of " + text(info.shape));
      const auto at = info.shape.begin() + static_cast<std::ptrdiff_t>(axes[i] < 0 ? axes[i] + rank : axes[i]);
      if (i == 0)
        rounds = *at;
      else
        check_equal(view, rounds, *at, "the scanned lengths");
      info.shape.erase(at);
    } else if (i == 0) {
      rounds = opaque(view, carried_count, 0);
    }
    slices.push_back(std::move(info));
  }
  Infos all = inputs_from(view, 0);
  all.resize(carried_count);
  Infos made;
  Infos out = settled(view, body, {}, without_contents(std::move(all)), 0, slices, made);
  const std::size_t results = made.size() - carried_count;
  const Integers places = view.node.integers("scan_output_axes", Integers(results, 0));
  if (places.size() != results) view.fail("scan_output_axes has " + std::to_string(places.size()) + " entries");
  for (std::size_t i = 0; i < results; ++i) {
    ValueInfo stacked = made[carried_count + i];
    if (stacked.rank_known) {
      const auto rank = static_cast<std::int64_t>(stacked.shape.size()) + 1;
      if (places[i] < -rank || places[i] >= rank) view.fail("scan_output_axes names axis " + std::to_string(places[i]));
      stacked.shape.insert(stacked.shape.begin() + static_cast<std::ptrdiff_t>(places[i] < 0 ? places[i] + rank : places[i]),
                           rounds);
    }
    out.push_back(std::move(stacked));
  }
  return out;
}

std::vector<ValueInfo> infer_old_scan(const NodeView& view) { view.refuse("Scan of opset 8, with batches, is not supported"); }

const bool registered = [] {
  register_on_values("If", 1, infer_if);
  register_on_values("Loop", 1, infer_loop);
  register_on_values("Scan", 8, infer_old_scan);
  register_on_values("Scan", 9, infer_scan);
  return true;
}();

}  // namespace
}  // namespace espalier
