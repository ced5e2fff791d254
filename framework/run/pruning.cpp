#include "run/pruning.h"

#include <fmt/format.h>

#include <optional>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "run/metric.h"
#include "sdk/error.h"

namespace espalier {

SelectionOptions selection_options(const Params& params, const std::string& prefix) {
  SelectionOptions options;
  options.scope = {params.texts(prefix + "scope"), params.texts(prefix + "exclude")};
  options.ranking =
      params.text(prefix + "ranking") == "global" ? SelectionOptions::Ranking::global : SelectionOptions::Ranking::layer;
  const std::map<std::string, SelectionOptions::Normalise> normalise{{"none", SelectionOptions::Normalise::none},
                                                                     {"mean", SelectionOptions::Normalise::mean},
                                                                     {"max", SelectionOptions::Normalise::max},
                                                                     {"sum", SelectionOptions::Normalise::sum}};
  auto how = normalise.find(params.text(prefix + "normalise"));
  if (how == normalise.end())
    throw_invalid(fmt::format("{}normalise \"{}\" is none of none, mean, max, sum", prefix, params.text(prefix + "normalise")));
  options.normalise = how->second;
  options.minimum = params.number(prefix + "minimum");
  options.multiple = params.integer(prefix + "multiple");
  options.allow_inexact = params.flag("allow_inexact");
  return options;
}

Artifact save_masks(Context& context, const std::vector<CoupledGroup>& groups, const Removal& removal) {
  std::map<std::string, Tensor> masks;
  for (const auto& group : groups) {
    std::vector<std::uint8_t> kept(group.units.size(), 1);
    if (auto gone = removal.find(group.id); gone != removal.end()) {
      for (auto u : gone->second) kept[static_cast<std::size_t>(u)] = 0;
    }
    masks.emplace(group.id, Tensor::of(DType::u8, {static_cast<std::int64_t>(kept.size())}, kept));
  }
  Artifact artifact;
  artifact.type = ArtifactType::masks;
  artifact.meta = {{"groups", groups.size()}, {"kept", 1}};
  artifact.blobs["masks.safetensors"] = context.put(write_safetensors(masks));
  return artifact;
}

Json widths_table(const std::vector<CoupledGroup>& groups, const Removal& removal) {
  Json rows = Json::array();
  for (const auto& group : groups) {
    auto gone = removal.find(group.id);
    auto left = group.units.size() - (gone == removal.end() ? 0 : gone->second.size());
    rows.push_back({group.id, group.units.size(), left});
  }
  return {{"columns", {"group", "before", "after"}}, {"rows", std::move(rows)}};
}

Graph compensated(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
                  const Removal& removal, std::vector<Compensated>& report) {
  if (!context.has_input("data"))
    throw_invalid("compensate = true needs data, and the stage has none", "parameter compensate", "give it: data = \"@corpus\"");
  const auto data = open_dataset(context, context.input("data"));
  return compensate(context, graph, groups, removal, *data,
                    {.samples = params.integer("compensation_samples"),
                     .products = params.text("compensation_precision") == "bf16" ? DType::bf16 : DType::undefined,
                     .ridge = params.number("ridge")},
                    report);
}

namespace {

Scores scores_for(Context& context, const Graph& graph, const std::vector<CoupledGroup>& groups) {
  if (context.has_input("scores")) return load_scores(context, context.input("scores"));
  auto metric = context.component("metric");
  std::optional<Artifact> data;
  if (context.has_input("data")) data = context.input("data");
  context.progress({0, 0, "scoring with " + metric.name, {}});
  return metric.as<Metric>().score(context, metric.params, graph, groups, data ? &*data : nullptr);
}

Json compensation_table(const std::vector<Compensated>& report) {
  Json rows = Json::array();
  for (const Compensated& row : report) rows.push_back({row.tensor, row.error_before, row.error_after});
  return {{"columns", {"weight", "relative error without", "with compensation"}}, {"rows", std::move(rows)}};
}

}  // namespace

void run_pruner(Context& context, CoupledGroup::Kind kind, const SelectionOptions& options, const Choose& choose) {
  const Graph graph = load_model(context, context.input("model"));
  const ValueMap values = infer(graph);
  std::vector<std::string> warnings;
  const auto groups = groups_in_scope(graph, coupled_groups(graph, values, true), kind, options, warnings);
  context.check_cancelled();
  const Selection selection = choose(graph, groups, scores_for(context, graph, groups));
  warnings.insert(warnings.end(), selection.warnings.begin(), selection.warnings.end());
  for (const auto& warning : warnings) context.log(LogLevel::warning, warning);
  context.check_cancelled();

  Graph source = graph;
  if (context.params().flag("compensate")) {
    std::vector<Compensated> report;
    source = compensated(context, context.params(), graph, groups, selection.removal, report);
    context.detail("compensation", compensation_table(report));
  }
  const Graph smaller = cut(source, groups, selection.removal, options.allow_inexact, nullptr, into_store(context));
  context.output("model", save_model(context, smaller));
  context.output("masks", save_masks(context, groups, selection.removal));
  context.detail("widths", widths_table(groups, selection.removal));
  context.figure("parameters", static_cast<double>(smaller.parameter_count()));
  context.figure("sparsity", selection.sparsity());
  context.figure("groups", static_cast<double>(groups.size()));
  context.log(LogLevel::info, fmt::format("{} of {} groups cut: {:.2f} % of {} parameters in scope removed, {} left in the model",
                                          selection.removal.size(), groups.size(), 100 * selection.sparsity(), selection.total,
                                          smaller.parameter_count()));
}

void run_pruner(Context& context, CoupledGroup::Kind kind) {
  SelectionOptions options = selection_options(context.params());
  options.sparsity = context.params().number("sparsity");
  if (context.params().has("per_scope")) options.per_scope = context.params().numbers("per_scope");
  run_pruner(context, kind, options, [&](const Graph& graph, const std::vector<CoupledGroup>& groups, const Scores& scores) {
    return select_units(graph, groups, scores, options);
  });
}

}  // namespace espalier
