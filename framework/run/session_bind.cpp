// A graph becomes numbered slots and steps, once for each session.
#include <fmt/format.h>

#include "run/session_impl.h"

namespace espalier {
namespace {

/// A subgraph as a session of its own: what it captures are more of its inputs. Types and lengths are those of what comes in,
/// whatever the body declares, as each round of a loop may bring others.
class SessionBody final : public Body {
 public:
  SessionBody(const Graph& body, const std::vector<std::string>& captured, const SessionOptions& options)
      : session_(opened(body), options) {
    for (const Value& input : body.inputs) inputs_.push_back(input.name);
    for (const Value& output : body.outputs) outputs_.push_back(output.name);
    for (const std::string& name : captures(body))
      captured_.emplace_back(std::lower_bound(captured.begin(), captured.end(), name) - captured.begin(), name);
  }

  std::size_t inputs() const override { return inputs_.size(); }

  std::vector<RunValue> run(const std::vector<RunValue>& inputs, std::span<const RunValue> captured) override {
    RunValues given;
    for (std::size_t i = 0; i < inputs_.size(); ++i) given[inputs_[i]] = inputs[i];
    for (const auto& [at, name] : captured_) given[name] = captured[static_cast<std::size_t>(at)];
    const RunValues made = session_.run_values(given, outputs_);
    std::vector<RunValue> out;
    for (const std::string& name : outputs_) out.push_back(made.at(name));
    return out;
  }

 private:
  static Graph opened(const Graph& body) {
    Graph graph = body;
    for (Value& input : graph.inputs) input = {input.name, DType::undefined, {}, input.sequence};
    for (const std::string& name : captures(body)) graph.inputs.push_back({name, DType::undefined, {}});
    return graph;
  }

  Session session_;
  std::vector<std::string> inputs_, outputs_;
  std::vector<std::pair<std::ptrdiff_t, std::string>> captured_;  ///< place among the node's captures
};

}  // namespace

void Session::Impl::bind() {
  for (const Value& input : graph.inputs) slot_of(input.name);
  for (const auto& [name, tensor] : graph.initializers) {
    const auto slot = static_cast<std::size_t>(slot_of(name));
    bound.resize(names.size());
    if (tensor.dtype == DType::string) continue;  // carried, not computed with
    at::Tensor value = to_aten(tensor);
    bound[slot] = is_floating(tensor.dtype) ? value.to(compute) : value;
  }
  for (const Node& node : graph.nodes) {
    const RunFunction run = find_run(node.domain, node.op);
    const ValuesFunction run_values = find_values_run(node.domain, node.op);
    if (!run && !run_values)
      throw_unsupported(
          fmt::format("operator {}{} is not supported by the runner", node.domain.empty() ? "" : node.domain + "::", node.op),
          fmt::format("node {}", node.name));
    Step step{&node, run, run_values, {}, {}, operands_of(node), std::make_shared<Bodies>()};
    for (const std::string& name : node.inputs) step.in.push_back(name.empty() ? absent : find(name, "value"));
    const std::vector<std::string> captured = captures(node);
    for (const std::string& name : captured) step.in.push_back(find(name, "value"));
    for (const auto& [name, attribute] : node.attributes)
      if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute); body && *body)
        step.bodies->emplace(name, std::make_unique<SessionBody>(**body, captured, options));
    for (const std::string& name : node.outputs) step.out.push_back(name.empty() ? absent : slot_of(name));
    steps.push_back(std::move(step));
  }
  for (const Value& output : graph.outputs) find(output.name, "output");
  producer.assign(names.size(), absent);
  for (std::size_t i = 0; i < steps.size(); ++i)
    for (int slot : steps[i].out)
      if (slot != absent) producer[static_cast<std::size_t>(slot)] = static_cast<int>(i);
  bound.resize(names.size());
  folded.resize(names.size());
  kept.resize(names.size());
  hooks.resize(names.size());
  narrowed.resize(names.size());
  narrow_slopes.resize(names.size());
  narrowed_kept.resize(names.size());
  narrow_only.assign(names.size(), mixed());
  std::vector<bool> read(names.size(), false);
  for (const Step& step : steps)
    for (int slot : step.in)
      if (slot != absent) {
        read[static_cast<std::size_t>(slot)] = true;
        if (step.operands != Operands::narrow) narrow_only[static_cast<std::size_t>(slot)] = false;
      }
  product_weight.assign(names.size(), false);
  for (std::size_t slot = 0; slot < names.size(); ++slot) {
    const bool initial = bound[slot].defined();
    product_weight[slot] = initial && read[slot] && narrow_only[slot];
    if (!read[slot] || initial) narrow_only[slot] = false;
  }
}

}  // namespace espalier
