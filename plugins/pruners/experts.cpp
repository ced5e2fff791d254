// Experts of mixtures: whole experts leave, with their rows of the router; shared ones stay.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "graph/experts.h"
#include "graph/op.h"
#include "run/expert_importance.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

class ExpertPruner final : public Component {
 public:
  void run(Context& context) override {
    const Params& params = context.params();
    graph_ = load_model(context, context.input("model"));
    mixtures_ = find_mixtures(graph_);
    if (mixtures_.empty())
      throw_invalid("the model has no mixture of experts", "port model",
                    "a router that chooses the best of parallel parts is looked for; pruner/channels, pruner/heads and "
                    "pruner/blocks cut other models");
    const auto goal = goals(params);
    std::optional<Artifact> data;
    if (context.has_input("data")) data = context.input("data");
    const MetricExamples examples(context, params, data ? &*data : nullptr, "pruner/experts");
    by_output_ = params.text("metric") == "output";
    use_ = expert_use(context, graph_, mixtures_, examples, by_output_);
    const auto least = static_cast<std::size_t>(params.integer("minimum"));
    params.text("ranking") == "global" ? choose_global(goal, least) : choose_by_layer(goal);
    put_out(context, without_experts(graph_, mixtures_, gone_));
  }

 private:
  /// How many experts are to leave each mixture.
  std::vector<std::size_t> goals(const Params& params) const {
    const auto count = static_cast<std::size_t>(params.integer("count"));
    const double share = params.number("share");
    if ((count == 0) == (share == 0)) throw_invalid("give either count or share", "parameters count, share");
    const auto least = static_cast<std::size_t>(params.integer("minimum"));
    std::vector<std::size_t> goals;
    for (const Mixture& mixture : mixtures_) {
      const std::size_t all = mixture.experts.size();
      // 0.3 of 10 is 3, whatever binary fractions make of it.
      const std::size_t goal = count > 0 ? count : static_cast<std::size_t>(std::floor(share * static_cast<double>(all) + 1e-9));
      if (goal + least > all)
        throw_invalid(
            fmt::format("{} of the {} experts of {} are to go, and at least {} must stay", goal, all, mixture.scope, least),
            count > 0 ? "parameter count" : "parameter share", fmt::format("at most {} can go", all - std::min(all, least)));
      goals.push_back(goal);
    }
    return goals;
  }

  /// Within one mixture; gates of a mixture sum to about one already, norms of outputs are brought there.
  double score(std::size_t mixture, std::size_t expert) const {
    const auto value = [&](std::size_t e) { return by_output_ ? use_[mixture][e].output : use_[mixture][e].gate; };
    double sum = 0;
    for (std::size_t e = 0; e < use_[mixture].size(); ++e) sum += value(e);
    return sum > 0 ? value(expert) / sum : 0;
  }

  void choose_by_layer(const std::vector<std::size_t>& goal) {
    for (std::size_t m = 0; m < mixtures_.size(); ++m) {
      std::vector<std::size_t> order(mixtures_[m].experts.size());
      for (std::size_t e = 0; e < order.size(); ++e) order[e] = e;
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return score(m, a) < score(m, b); });
      order.resize(goal[m]);
      std::sort(order.begin(), order.end());
      if (!order.empty()) gone_[m] = std::move(order);
    }
  }

  void choose_global(const std::vector<std::size_t>& goal, std::size_t least) {
    struct Candidate {
      double score;
      std::size_t mixture, expert;
    };
    std::vector<Candidate> list;
    std::size_t open = 0;
    for (std::size_t m = 0; m < mixtures_.size(); ++m) {
      open += goal[m];
      for (std::size_t e = 0; e < mixtures_[m].experts.size(); ++e) list.push_back({score(m, e), m, e});
    }
    std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.score < b.score; });
    for (const Candidate& each : list) {
      if (open == 0) break;
      const auto found = gone_.find(each.mixture);
      const std::size_t before = found == gone_.end() ? 0 : found->second.size();
      if (before + least >= mixtures_[each.mixture].experts.size()) continue;
      gone_[each.mixture].push_back(each.expert);
      --open;
    }
    for (auto& [mixture, experts] : gone_) std::sort(experts.begin(), experts.end());
  }

  void put_out(Context& context, const Graph& smaller) {
    Json experts = Json::array(), mixtures = Json::array();
    std::map<std::string, Tensor> masks;
    std::size_t before = 0, removed = 0;
    for (std::size_t m = 0; m < mixtures_.size(); ++m) {
      const Mixture& mixture = mixtures_[m];
      const auto found = gone_.find(m);
      const std::vector<std::size_t> gone = found == gone_.end() ? std::vector<std::size_t>() : found->second;
      std::vector<std::uint8_t> kept(mixture.experts.size(), 1);
      for (const std::size_t e : gone) kept[e] = 0;
      for (std::size_t e = 0; e < kept.size(); ++e)
        experts.push_back({m, mixture.scope, e, use_[m][e].chosen, use_[m][e].gate, by_output_ ? Json(use_[m][e].output) : Json(),
                           kept[e] != 0 ? "stays" : "removed"});
      const std::size_t left = kept.size() - gone.size();
      const std::int64_t used = std::min(mixture.used, static_cast<std::int64_t>(left));
      mixtures.push_back({m, mixture.scope, kept.size(), left, mixture.used, used});
      if (used < mixture.used)
        context.log(LogLevel::warning,
                    fmt::format("{} has {} experts left and chose {} at every position: it takes all of them now", mixture.scope,
                                left, mixture.used));
      before += kept.size();
      removed += gone.size();
      masks.emplace(fmt::format("experts:{}", m), Tensor::of(DType::u8, {static_cast<std::int64_t>(kept.size())}, kept));
    }
    context.detail("experts", {{"columns", {"mixture", "scope", "expert", "chosen", "mean gate", "mean norm", ""}},
                               {"rows", std::move(experts)}});
    context.detail("mixtures", {{"columns", {"mixture", "scope", "experts", "experts left", "chosen", "chosen after"}},
                                {"rows", std::move(mixtures)}});
    Artifact artifact;
    artifact.type = ArtifactType::masks;
    artifact.meta = {{"groups", masks.size()}, {"kept", 1}};
    artifact.blobs["masks.safetensors"] = context.put(write_safetensors(masks));
    context.output("model", save_model(context, smaller));
    context.output("masks", std::move(artifact));
    figures(context, smaller, before - removed);
    context.log(LogLevel::info, fmt::format("{} of {} experts removed from {} mixtures", removed, before, mixtures_.size()));
  }

  void figures(Context& context, const Graph& smaller, std::size_t experts) const {
    const auto before = static_cast<double>(graph_.parameter_count()), after = static_cast<double>(smaller.parameter_count());
    const double macs_before = total_cost(graph_, infer(graph_), {}).macs, macs = total_cost(smaller, infer(smaller), {}).macs;
    context.figure("parameters", after);
    context.figure("sparsity", before > 0 ? 1 - after / before : 0);
    context.figure("macs", macs);
    context.figure("macs_removed", macs_before > 0 ? 1 - macs / macs_before : 0);
    context.figure("experts", static_cast<double>(experts));
  }

  Graph graph_;
  std::vector<Mixture> mixtures_;
  std::vector<std::vector<ExpertUse>> use_;
  bool by_output_ = false;
  ExpertRemoval gone_;
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "experts", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Pruning of mixtures of experts",
  "components": [{
    "name": "pruner/experts", "version": "0.1.0",
    "summary": "Removes whole experts from mixtures (Mixtral and its kind), those that the router gives least to on data; the router loses their logits",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to cut"},
      {"name": "data", "type": "dataset", "help": "what experts are judged on"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the smaller model"},
      {"name": "masks", "type": "masks", "help": "for each mixture, one byte an expert: 1 = kept"}
    ],
    "parameters": [
      {"name": "count", "type": "integer", "default": 0, "min": 0, "max": 100000, "unit": "experts", "help": "how many go of each mixture; or give `share`"},
      {"name": "share", "type": "number", "default": 0, "min": 0, "max": 1, "help": "share of each mixture's experts that go, rounded down"},
      {"name": "ranking", "type": "string", "default": "layer", "choices": ["layer", "global"], "help": "layer: so many of every mixture; global: as many in all, those with the least share of their mixture's score, wherever they are"},
      {"name": "metric", "type": "string", "default": "usage", "choices": ["usage", "output"], "help": "usage: how often an expert is chosen times its mean gate (Muzio et al., SEER-MoE, 2024); output: mean norm of its output times its gate, of what the sum loses (a local form of the reconstruction that Lu et al., Not All Experts are Equal, 2024, search over)"},
      {"name": "minimum", "type": "integer", "default": 1, "min": 1, "max": 100000, "unit": "experts", "help": "experts that every mixture keeps"},
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "examples", "help": "examples used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "examples", "help": "examples of a pass"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "1e8 + 1.05 * model.bytes",
                 "seconds": "2 + min(samples, data.count) * data.sequence * 2 * model.macs / (0.75 * machine.flops)",
                 "memory_base": 8e8, "memory_per_byte": 2.2, "output_per_byte": 1}
  }]
})json",
                ESPALIER_COMPONENT("pruner/experts", ExpertPruner));
