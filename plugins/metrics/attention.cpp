// What attention heads look at: entropy, mass and distance of their attention over data. Heads that attend to everything alike, to
// the first token, to themselves or to their neighbour have been told apart from those that carry content (Clark et al., "What Does
// BERT Look At?", BlackboxNLP 2019; Voita et al., "Analyzing Multi-Head Self-Attention", ACL 2019), and most heads can go (Michel
// et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019). A matrix is reduced as soon as it is computed and dropped.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <unordered_map>

#include "graph/channels.h"
#include "run/metric.h"
#include "run/metric_examples.h"
#include "run/padding.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

constexpr std::int32_t nobody = -1;
constexpr std::int64_t masked_scores = 2;  // qk_matmul_output_mode: all but the softmax is done

/// What one row of attention says, each from 0 to 1, over the positions that it may attend to.
enum class Measure {
  entropy,   ///< over the logarithm of their number
  mass,      ///< beyond the first of them and the position itself
  distance,  ///< expected, over the farthest
};

/// Mean over the rows of one head.
struct RowMean {
  double sum = 0;
  std::int64_t rows = 0;
};

/// Adds the rows of one attention matrix, `scores` [queries, keys] before the softmax, shut positions at -inf or some other
/// number that no score reaches. The last query stands at the last key. Rows that say nothing are left out: those of padding, which
/// are not `real` [queries] (where that is defined) or whose own position is shut, and those with one choice only (for the mass:
/// with no position beyond the first and the own).
void add_rows(const at::Tensor& scores, Measure measure, bool itself, const at::Tensor& real, RowMean& mean) {
  constexpr double lowest_score = -5000;  // masks are -inf, the type's lowest number, or -10000
  const std::int64_t queries = scores.size(0), keys = scores.size(1);
  const at::Tensor visible = scores.gt(lowest_score), column = at::arange(keys, at::kLong);
  const at::Tensor own = at::arange(keys - queries, keys, at::kLong).unsqueeze(1);
  const at::Tensor choices = visible.sum(-1);
  at::Tensor counted = choices.ge(measure == Measure::mass ? 3 : 2);
  if (real.defined()) counted = counted.logical_and(real);
  if (itself) counted = counted.logical_and(visible.gather(1, own.clamp_min(0)).squeeze(1));
  const at::Tensor p =
      at::softmax(at::where(visible, scores, -std::numeric_limits<double>::infinity()).to(scores.scalar_type()), -1);
  at::Tensor row;
  if (measure == Measure::entropy) {
    row = (p * p.clamp_min(1e-30).log()).sum(-1, false, at::kDouble).neg() / choices.to(at::kDouble).log();
  } else if (measure == Measure::mass) {
    const at::Tensor first = at::where(visible, column, keys).amin({-1}, true);
    row = p.masked_fill(column.eq(first).logical_or(column.eq(own)), 0.0).sum(-1, false, at::kDouble);
  } else {
    const at::Tensor far = (own - column).abs(), farthest = at::where(visible, far, 0).amax({-1});
    row = (p * far).sum(-1, false, at::kDouble) / farthest.to(at::kDouble);
  }
  mean.sum += at::where(counted, row, 0.0).sum().item<double>();
  mean.rows += counted.sum().item<std::int64_t>();
}

/// An Attention whose heads belong to units.
struct Watched {
  std::string node, value;         ///< value: the masked scores
  bool causal = false;             ///< queries follow the keys' order, whatever their number
  std::vector<std::int32_t> unit;  ///< by query head: number of the unit among all, or nobody
  std::vector<RowMean> mean;       ///< by query head
};

/// Asks a node for its masked scores; their name.
std::string ask(Graph& graph, Node& node) {
  if (node.output(3).empty()) {
    node.outputs.resize(4);
    node.outputs[3] = graph.fresh(node.name + "_scores");
    node.attributes["qk_matmul_output_mode"] = masked_scores;
  } else if (node.integer("qk_matmul_output_mode", 0) != masked_scores) {
    throw_unsupported("the attention gives its scores to another reader already", "node " + node.name,
                      "score these heads with metric/taylor");
  }
  return node.outputs[3];
}

/// Attention nodes that units of `groups` are heads of; the nodes of `graph` are asked for their scores.
std::vector<Watched> find_heads(Graph& graph, const std::vector<CoupledGroup>& groups) {
  const Graph original = graph;
  const ValueMap values = infer(original);
  const ChannelClasses classes(original, values);
  std::unordered_map<ChannelClasses::Element, std::int32_t> unit_of;
  std::int32_t next = 0;
  for (const auto& group : groups)
    for (const auto& unit : group.units) {
      const std::int32_t number = next++;
      if (group.kind != CoupledGroup::Kind::heads) continue;
      const auto& member = group.members[unit.front().member];
      const auto axis = classes.axis(member.tensor, member.axis);
      unit_of[classes.find(axis.first + static_cast<ChannelClasses::Element>(unit.front().indices.front()))] = number;
    }
  std::vector<Watched> found;
  for (auto& node : graph.nodes) {
    if (node.op != "Attention" || !node.domain.empty() || node.inputs.size() < 3) continue;
    const auto rank = classes.rank(node.input(1));
    if (rank < 3) continue;
    const auto axis = classes.axis(node.input(1), rank == 3 ? 2 : 1);
    if (axis.length == 0) continue;
    const std::int64_t pairs = rank == 3 ? node.integer("kv_num_heads", 1) : axis.length, size = axis.length / pairs;
    const std::int64_t heads = rank == 3 ? node.integer("q_num_heads", 1) : values.at(node.input(0)).shape[1].value();
    Watched watched;
    for (std::int64_t h = 0; h < heads; ++h) {
      const auto pair = h / (heads / pairs);  // query heads that share keys stand together
      const auto at = unit_of.find(classes.find(axis.first + static_cast<ChannelClasses::Element>(pair * size)));
      watched.unit.push_back(at == unit_of.end() ? nobody : at->second);
    }
    if (std::all_of(watched.unit.begin(), watched.unit.end(), [](auto u) { return u == nobody; })) continue;
    watched.node = node.name;
    watched.causal = node.integer("is_causal", 0) != 0;
    watched.mean.resize(watched.unit.size());
    watched.value = ask(graph, node);
    found.push_back(std::move(watched));
  }
  return found;
}

class AttentionMetric final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact* data) override {
    const auto heads = std::count_if(groups.begin(), groups.end(), is_heads);
    if (heads == 0)
      throw_invalid(
          fmt::format("metric/attention scores attention heads, and none of the {} groups is made of heads", groups.size()),
          groups.empty() ? "" : fmt::format("group \"{}\"", groups.front().id),
          "use it in pruner/heads; channels take metric/activation or metric/taylor");
    const MetricExamples examples(context, params, data, "metric/attention");
    if (heads < std::ptrdiff_t(groups.size()))
      context.log(LogLevel::info,
                  fmt::format("{} of {} groups are attention heads; the others get no score", heads, groups.size()));
    const auto text = params.text("measure");
    const Measure measure = text == "entropy" ? Measure::entropy : text == "mass" ? Measure::mass : Measure::distance;
    Graph asked = graph;
    auto watched = find_heads(asked, groups);
    observe(context, asked, examples, measure, watched);
    return scores_of(context, groups, watched, text, params.text("keep") == "low");
  }

 private:
  static bool is_heads(const CoupledGroup& group) { return group.kind == CoupledGroup::Kind::heads; }

  static void observe(Context& context, const Graph& graph, const MetricExamples& examples, Measure measure,
                      std::vector<Watched>& watched) {
    Session session(graph);
    std::vector<std::string> values;
    at::Tensor real;  // of the batch that runs
    for (auto& watching : watched) {
      values.push_back(watching.value);
      session.hook(watching.value, [&watching, &real, measure](const std::string&, const at::Tensor& scores) {
        const bool aligned = watching.causal || scores.size(2) == scores.size(3);
        if (!aligned && measure != Measure::entropy)
          throw_unsupported("queries and keys are different sequences, so that no query has a position among the keys",
                            "node " + watching.node, "measure = \"entropy\" needs none");
        const bool padded = aligned && real.defined() && real.size(0) == scores.size(0) && real.size(1) == scores.size(2);
        for (std::int64_t b = 0; b < scores.size(0); ++b)
          for (std::size_t h = 0; h < watching.unit.size(); ++h)
            if (watching.unit[h] != nobody)
              add_rows(scores.select(0, b).select(0, static_cast<std::int64_t>(h)), measure, aligned,
                       padded ? real.select(0, b) : at::Tensor(), watching.mean[h]);
        return at::empty({0});  // in the matrix's place: it is not needed any more
      });
    }
    examples.observe(context, session, graph, values, "attention", [&](const TensorMap& batch) { real = real_positions(batch); });
  }

  /// A unit is worth the mean over its query heads.
  static Scores scores_of(Context& context, const std::vector<CoupledGroup>& groups, const std::vector<Watched>& watched,
                          const std::string& measure, bool keep_low) {
    std::vector<std::pair<std::string, std::size_t>> place;  // of a unit: group, number
    for (const auto& group : groups)
      for (std::size_t u = 0; u < group.units.size(); ++u) place.emplace_back(group.id, u);
    std::vector<RowMean> of_unit(place.size());
    Json rows = Json::array();
    for (const auto& watching : watched)
      for (std::size_t h = 0; h < watching.unit.size(); ++h) {
        if (watching.unit[h] == nobody) continue;
        const RowMean& mean = watching.mean[h];
        if (mean.rows == 0)
          throw_invalid(fmt::format("no position has a choice of where to attend, so there is no {}", measure),
                        "node " + watching.node, "give data with longer sequences");
        const double value = mean.sum / static_cast<double>(mean.rows);
        const auto unit = static_cast<std::size_t>(watching.unit[h]);
        of_unit[unit].sum += keep_low ? 1 - value : value;
        ++of_unit[unit].rows;
        rows.push_back({watching.node, h, place[unit].first, place[unit].second, value});
      }
    context.detail("heads", {{"columns", {"attention", "query head", "group", "unit", measure}}, {"rows", std::move(rows)}});
    Scores scores;
    std::size_t next = 0;
    for (const auto& group : groups)
      for (std::size_t u = 0; u < group.units.size(); ++u, ++next)
        if (of_unit[next].rows > 0) scores[group.id].push_back(of_unit[next].sum / static_cast<double>(of_unit[next].rows));
    return scores;
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "attention", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance of attention heads by what they look at",
  "components": [{
    "name": "metric/attention", "version": "0.1.0",
    "summary": "Entropy, mass or distance of a head's attention over data, from 0 to 1; a key-value head's is the mean of its query heads'",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose heads are scored"},
      {"name": "data", "type": "dataset", "help": "windows of tokens that stand for what the model must stay good at"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, for the groups that are attention heads"}
    ],
    "parameters": [
      {"name": "measure", "type": "string", "default": "entropy", "choices": ["entropy", "mass", "distance"], "help": "entropy over the logarithm of the number of visible positions; what goes beyond the first visible position and the position itself; or the expected distance over the farthest visible one"},
      {"name": "keep", "type": "string", "default": "high", "choices": ["high", "low"], "help": "which heads are worth more: those with high values, or, as 1 - value, those with low ones (confident heads, by entropy)"},
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "windows", "help": "windows used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "windows", "help": "windows in one forward pass; the scores do not depend on it"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "2.5e8 + 1.2 * model.bytes + batch * data.sequence * (0.1 * model.activation_bytes + 400 * data.sequence)",
                 "seconds": "1 + min(samples, data.count) * data.sequence * (2 * model.macs / (0.6 * machine.flops) + 2e-5 * data.sequence)",
                 "memory_base": 8e8, "memory_per_byte": 2.2, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/attention", AttentionMetric));
