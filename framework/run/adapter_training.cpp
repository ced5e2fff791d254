#include "run/adapter_training.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "graph/adapters.h"
#include "graph/scope.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// Sites that the patterns mean; none stands beside the weights in `without`.
std::vector<AdapterSite> sites_in_scope(const Graph& graph, const std::vector<std::string>& patterns,
                                        const std::vector<std::string>& without) {
  const Scope scope{patterns, {}};
  const Uses uses(graph);
  const auto names_of = [&](const AdapterSite& site) {
    auto names = scope_names(uses, graph, site.weight);
    names.push_back(dotted(graph.nodes[site.node].name));
    return names;
  };
  std::vector<std::string> all;
  std::vector<AdapterSite> chosen;
  for (auto& site : adapter_sites(graph)) {
    if (std::find(without.begin(), without.end(), site.weight) != without.end()) continue;
    const auto names = names_of(site);
    all.insert(all.end(), names.begin(), names.end());
    if (scope.covers(names)) chosen.push_back(std::move(site));
  }
  if (!chosen.empty()) return chosen;
  const std::string pattern = patterns.empty() ? "" : patterns.front();
  throw_invalid(fmt::format("adapter_scope = \"{}\" means no matrix that an adapter can stand beside", pattern),
                "parameter adapter_scope",
                all.empty() ? "adapters need 32-bit matrices that one MatMul or Gemm reads; the model has none"
                            : fmt::format("such matrices are in: {}", fmt::join(near_scopes(pattern, all), ", ")));
}

Json table_of(const Adapted& adapted) {
  Json rows = Json::array();
  for (const auto& adapter : adapted.adapters) {
    const auto& site = adapter.site;
    const std::int64_t own =
        adapter.change.empty() ? adapted.graph.initializer(adapter.down)->shape[1] * (site.inputs + site.outputs) : site.outputs;
    rows.push_back({site.weight, site.inputs, site.outputs, own});
  }
  return {{"columns", {"weight", "inputs", "outputs", "parameters"}}, {"rows", std::move(rows)}};
}

}  // namespace

Trained train_with_adapter(Context& context, const Params& params, const TrainingTask& task, const Objective& objective,
                           PassLoss loss) {
  const auto kind = params.text("adapter");
  if (kind == "none") return train_graph(context, params, task, objective, loss);
  if (params.texts("train") != std::vector<std::string>{"*"})
    throw_invalid(fmt::format("with adapter = \"{}\" only adapters are trained, so train = \"{}\" has no meaning", kind,
                              fmt::join(params.texts("train"), "\", \"")),
                  "parameter train", "say where adapters go with adapter_scope");
  // A weight that the loss itself reads (a head that is walked in chunks) would bypass its adapter.
  auto without = loss.beside;
  without.insert(without.end(), loss.wanted.begin(), loss.wanted.end());
  const auto sites = sites_in_scope(task.model, params.texts("adapter_scope"), without);
  const Adapted adapted = kind == "lora"
                              ? add_lora(task.model, sites, params.integer("rank"), params.number("alpha"), context.seed())
                              : add_ia3(task.model, sites);
  const auto names = adapted.trainable();
  std::int64_t count = 0;
  for (const auto& name : names) count += adapted.graph.initializer(name)->count();
  context.log(LogLevel::info, fmt::format("{} adapters ({}) with {} parameters, beside {} that stay as they are",
                                          adapted.adapters.size(), kind, count, task.model.parameter_count()));
  loss.only_beside = true;
  const auto beside = loss.beside;
  loss.beside.insert(loss.beside.end(), names.begin(), names.end());
  Trained trained =
      train_graph(context, params, {adapted.graph, task.teacher, task.data, task.heldout, task.port}, objective, loss);
  Graph merged = merge_adapters(task.model, trained.model, adapted.adapters);
  for (const auto& name : beside) merged.initializers.at(name) = trained.model.initializers.at(name);
  trained.model = std::move(merged);
  trained.figures["adapters"] = static_cast<double>(adapted.adapters.size());
  trained.figures["adapter_parameters"] = static_cast<double>(count);
  trained.details["adapters"] = table_of(adapted);
  return trained;
}

}  // namespace espalier
