// How much flows through a unit over data: norms, mean magnitude or variance of the values that the weights downstream read from
// it. Small activations as a sign of filters that can go: Hu et al., "Network Trimming", 2016; Molchanov et al., ICLR 2017. The
// variance is what a unit says beyond a constant: its mean could move into the next bias (An et al., "FLAP", AAAI 2024). Every
// value is reduced as soon as it is computed; none is kept.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_map>

#include "graph/channels.h"
#include "run/metric.h"
#include "run/metric_examples.h"
#include "run/padding.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// Per index of one axis of a value, over all that has flowed: f64 [length] each, only what the measure asks for.
struct Moments {
  double count = 0;         ///< elements of each index
  at::Tensor sum;           ///< Σ|x|, or Σx²
  at::Tensor mean, spread;  ///< of x, and Σ(x - mean)²

  /// `x`: [length, elements] f64.
  void add_sum(const at::Tensor& x, bool squares) {
    const at::Tensor own = (squares ? x.square() : x.abs()).sum(1);
    sum = sum.defined() ? sum + own : own;
    count += static_cast<double>(x.size(1));
  }

  /// Merges means and sums of squared deviations pairwise (Chan, Golub and LeVeque, 1979): no difference of large squares.
  void add_variance(const at::Tensor& x) {
    const auto n = static_cast<double>(x.size(1));
    const at::Tensor own_mean = x.mean(1), own = (x - own_mean.unsqueeze(1)).square_().sum(1);
    if (!mean.defined()) {
      mean = own_mean;
      spread = own;
    } else {
      const at::Tensor delta = own_mean - mean;
      spread = spread + own + delta.square() * (count * n / (count + n));
      mean = mean + delta * (n / (count + n));
    }
    count += n;
  }
};

constexpr std::int32_t nobody = -1;

/// An axis of a value that some weight reads, and whose indices belong to units.
struct Watched {
  std::string value;
  std::size_t axis;
  std::vector<std::int32_t> unit;  ///< by index: number of the unit among all, or nobody
  Moments moments;
};

/// Ports of a node that a channel at `from` meets inside it, `from` included.
std::vector<AxisMaps::Port> met_by(const AxisMaps& maps, AxisMaps::Port from) {
  const auto same = [](const AxisMaps::Port& a, const AxisMaps::Port& b) {
    return a.output == b.output && a.slot == b.slot && a.axis == b.axis;
  };
  std::vector<AxisMaps::Port> met{from};
  const auto meet = [&](const AxisMaps::Port& port) {
    if (std::none_of(met.begin(), met.end(), [&](const auto& p) { return same(p, port); })) met.push_back(port);
  };
  for (std::size_t i = 0; i < met.size(); ++i)
    for (const auto& link : maps.links) {
      const auto port = met[i];
      if (same(link.a, port)) meet(link.b);
      if (same(link.b, port)) meet(link.a);
    }
  return met;
}

/// Finds what to watch: axes of values that come into a node, meet a constant there (a weight, perhaps dequantized or transposed)
/// and do not come out: the products and convolutions that use a unit up. What only passes a unit on (norms, activations,
/// depthwise convolutions) is none.
class Readers {
 public:
  Readers(const Graph& graph, const std::vector<CoupledGroup>& groups)
      : graph_(graph), values_(infer(graph)), classes_(graph, values_) {
    std::int32_t next = 0;
    for (const auto& group : groups)
      for (const auto& unit : group.units) {
        const auto& member = group.members[unit.front().member];
        const auto axis = classes_.axis(member.tensor, member.axis);
        const auto index = unit.front().indices.front();
        if (index >= axis.length)
          throw Error(ErrorCode::internal, "a coupled group names a channel that does not exist", member.tensor);
        unit_of_[classes_.find(axis.first + static_cast<ChannelClasses::Element>(index))] = next++;
      }
    for (const auto& [name, tensor] : graph.initializers) constant_.insert(name);
  }

  std::vector<Watched> find() {
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      const auto& node = graph_.nodes[n];
      const bool fixed = !node.inputs.empty() && captures(node).empty() &&
                         std::all_of(node.inputs.begin(), node.inputs.end(),
                                     [&](const auto& input) { return input.empty() || constant_.contains(input); });
      if (fixed) {
        constant_.insert(node.outputs.begin(), node.outputs.end());
        continue;
      }
      for (std::size_t slot = 0; slot < node.inputs.size(); ++slot) {
        if (node.inputs[slot].empty() || constant_.contains(node.inputs[slot])) continue;
        for (std::size_t axis = 0; axis < classes_.rank(node.inputs[slot]); ++axis)
          if (used_up(n, AxisMaps::in(slot, axis))) watch(node.inputs[slot], axis);
      }
    }
    return std::move(found_);
  }

 private:
  bool used_up(std::size_t n, AxisMaps::Port port) const {
    if (classes_.at(n, port).length == 0) return false;
    const auto& node = graph_.nodes[n];
    bool weight = false;
    for (const auto& met : met_by(classes_.maps(n), port)) {
      if (met.output && !node.output(met.slot).empty()) return false;
      if (!met.output) weight = weight || constant_.contains(node.input(met.slot));
    }
    return weight;
  }

  void watch(const std::string& value, std::size_t axis_number) {
    if (!seen_.insert({value, axis_number}).second) return;  // several weights read it
    const auto axis = classes_.axis(value, axis_number);
    Watched watched{value, axis_number, {}, {}};
    bool any = false;
    for (std::int64_t i = 0; i < axis.length; ++i) {
      const auto at = unit_of_.find(classes_.find(axis.first + static_cast<ChannelClasses::Element>(i)));
      watched.unit.push_back(at == unit_of_.end() ? nobody : at->second);
      any = any || at != unit_of_.end();
    }
    if (any) found_.push_back(std::move(watched));
  }

  const Graph& graph_;
  const ValueMap values_;
  const ChannelClasses classes_;
  std::unordered_map<ChannelClasses::Element, std::int32_t> unit_of_;
  std::set<std::string> constant_;
  std::set<std::pair<std::string, std::size_t>> seen_;
  std::vector<Watched> found_;
};

class Activation final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact* data) override {
    const MetricExamples examples(context, params, data, "metric/activation");
    auto watched = Readers(graph, groups).find();
    std::vector<bool> read;
    for (const auto& group : groups) read.resize(read.size() + group.units.size(), false);
    for (const auto& watching : watched)
      for (const auto unit : watching.unit)
        if (unit != nobody) read[static_cast<std::size_t>(unit)] = true;
    if (std::find(read.begin(), read.end(), true) == read.end())
      throw_invalid(
          fmt::format("no weight reads the channels of any of the {} groups, so nothing of theirs can be observed", groups.size()),
          groups.empty() ? "" : fmt::format("group \"{}\"", groups.front().id), "score them with metric/magnitude");
    const auto measure = params.text("measure");
    observe(context, graph, examples, measure, watched);
    return scores_of(context, groups, read, watched, measure);
  }

 private:
  static void observe(Context& context, const Graph& graph, const MetricExamples& examples, const std::string& measure,
                      std::vector<Watched>& watched) {
    std::map<std::string, std::vector<Watched*>> by_value;
    for (auto& watching : watched) by_value[watching.value].push_back(&watching);
    std::vector<std::string> values;
    at::Tensor real;  // of the batch that runs
    Session session(graph);
    for (auto& [value, watching] : by_value) {
      values.push_back(value);
      session.hook(value, [&measure, &real, &watching = watching](const std::string& name, const at::Tensor& x) {
        for (Watched* w : watching) {
          const at::Tensor rows = rows_of(x, w->axis, real, name);
          if (rows.size(1) == 0) continue;
          measure == "variance" ? w->moments.add_variance(rows) : w->moments.add_sum(rows, measure == "l2");
        }
        return at::Tensor();
      });
    }
    examples.observe(context, session, graph, values, "activations", [&](const TensorMap& batch) { real = real_positions(batch); });
  }

  /// A value as [length of the axis, elements] f64 without padded positions. Values of whole examples have none: [batch, channels].
  static at::Tensor rows_of(const at::Tensor& x, std::size_t axis, const at::Tensor& real, const std::string& name) {
    const bool whole = x.dim() == 2 && real.defined() && x.size(0) == real.size(0);
    const at::Tensor kept = whole ? x : without_padding(x, real, name);
    const auto at = static_cast<std::int64_t>(axis) - (x.dim() - kept.dim());
    if (at < 1 && real.defined())
      throw_unsupported("the data has padding, and channels lie where positions are expected", name,
                        "give data without padding, such as windows of source/text");
    return kept.movedim(at, 0).reshape({kept.size(at), -1}).to(at::kDouble);
  }

  static Scores scores_of(Context& context, const std::vector<CoupledGroup>& groups, const std::vector<bool>& read,
                          const std::vector<Watched>& watched, const std::string& measure) {
    std::vector<double> sum(read.size(), 0.0), count(read.size(), 0.0);
    for (const auto& watching : watched) {
      const at::Tensor& of = measure == "variance" ? watching.moments.spread : watching.moments.sum;
      if (!of.defined()) continue;
      const double* values = of.const_data_ptr<double>();
      for (std::size_t i = 0; i < watching.unit.size(); ++i) {
        if (watching.unit[i] == nobody) continue;
        sum[static_cast<std::size_t>(watching.unit[i])] += values[i];
        count[static_cast<std::size_t>(watching.unit[i])] += watching.moments.count;
      }
    }
    Scores scores;
    Json rows = Json::array();
    std::vector<std::string> unread;
    std::size_t first = 0;
    for (const auto& group : groups) {
      const auto end = first + group.units.size();
      if (std::find(read.begin() + std::ptrdiff_t(first), read.begin() + std::ptrdiff_t(end), false) !=
          read.begin() + std::ptrdiff_t(end)) {
        unread.push_back(group.id);
      } else {
        auto& own = scores[group.id];
        for (std::size_t u = first; u < end; ++u) {
          const bool mean = measure == "variance" || measure == "mean_abs";
          own.push_back(measure == "l2" ? std::sqrt(sum[u]) : mean && count[u] > 0 ? sum[u] / count[u] : sum[u]);
        }
        for (const auto& watching : watched)
          if (std::any_of(watching.unit.begin(), watching.unit.end(), [&](std::int32_t u) {
                return u != nobody && static_cast<std::size_t>(u) >= first && static_cast<std::size_t>(u) < end;
              }))
            rows.push_back({group.id, watching.value, watching.axis, watching.moments.count});
      }
      first = end;
    }
    if (!unread.empty())
      context.log(
          LogLevel::warning,
          fmt::format("{} of {} groups get no score, because no weight reads their channels (\"{}\"): leave them out of the "
                      "scope, or score them with metric/magnitude",
                      unread.size(), groups.size(), unread.front()));
    context.detail("observed", {{"columns", {"group", "value", "axis", "elements a channel"}}, {"rows", std::move(rows)}});
    return scores;
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "activation", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by what flows through a unit",
  "components": [{
    "name": "metric/activation", "version": "0.1.0",
    "summary": "Size or variance of what the weights downstream read from a unit, over data; forward passes only",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored; it may be quantized"},
      {"name": "data", "type": "dataset", "help": "examples that stand for what the model must stay good at"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group; none for groups whose channels no weight reads"}
    ],
    "parameters": [
      {"name": "measure", "type": "string", "default": "l2", "choices": ["l1", "l2", "mean_abs", "variance"], "help": "Σ|x| or √Σx² over all positions, examples and channels of the unit; their mean |x|; or the mean variance of its channels, which a constant channel has none of"},
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "windows", "help": "windows used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "windows", "help": "windows in one forward pass; the scores do not depend on it"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "2.5e8 + 1.2 * model.bytes + 0.1 * batch * data.sequence * model.activation_bytes",
                 "seconds": "1 + min(samples, data.count) * data.sequence * 2 * model.macs / (0.6 * machine.flops)",
                 "memory_base": 8e8, "memory_per_byte": 2.2, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/activation", Activation));
