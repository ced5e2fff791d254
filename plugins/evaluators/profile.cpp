#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "formats/model_artifact.h"
#include "graph/causal.h"
#include "graph/scope.h"
#include "run/package_process.h"
#include "run/session.h"
#include "sdk/machine.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

/// Where a node stands: "model.layers.3", "mlp". Without a number in its name the layer is the first part of the scope.
struct Place {
  std::string layer, part;
  auto operator<=>(const Place&) const = default;
};

bool is_number(const std::string& word) {
  return !word.empty() && std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Place place_of(const Node& node) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : dotted(node.name) + ".") {
    if (c != '.') {
      word += c;
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!words.empty() && words.back().starts_with(node.op)) words.pop_back();  // exporters end a name with the operator
  if (words.empty()) return {"(top)", ""};
  std::size_t end = 1;
  for (std::size_t i = 0; i < words.size(); ++i)
    if (is_number(words[i])) {
      end = i + 1;
      break;
    }
  Place place{words[0], end < words.size() ? words[end] : ""};
  for (std::size_t i = 1; i < end; ++i) place.layer += "." + words[i];
  return place;
}

struct Time {
  double milliseconds = 0;
  std::int64_t nodes = 0;
};

/// Rows (key…, nodes, ms, per cent), the longest first.
template <class Key>
Json table(const std::map<Key, Time>& times, double all, const std::vector<std::string>& keys, Json (*row_of)(const Key&)) {
  std::vector<std::pair<Key, Time>> sorted(times.begin(), times.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.milliseconds > b.second.milliseconds; });
  Json columns = keys, rows = Json::array();
  for (const char* name : {"nodes", "ms", "per cent"}) columns.push_back(name);
  for (const auto& [key, time] : sorted) {
    Json row = row_of(key);
    row.push_back(time.nodes);
    row.push_back(time.milliseconds);
    row.push_back(100 * time.milliseconds / all);
    rows.push_back(std::move(row));
  }
  return {{"columns", columns}, {"rows", rows}};
}

/// Where the time of a model goes in the project's own runner, node by node, told by operator and by layer.
class Profile final : public Component {
 public:
  void run(Context& context) override {
    const Artifact& artifact = context.input("model");
    Graph graph = load_model(context, artifact);
    const bool language = artifact.meta.value("task", "") == "causal-lm";
    if (language && context.params().text("head") == "last") graph = last_position_only(graph);
    TensorMap inputs;
    for (const Value& input :
         sized_inputs(graph, context.params().numbers("dimensions"), language ? context.params().integer("tokens") : 0))
      inputs[input.name] = fed_value(input);

    at::set_num_threads(std::max(context.threads(), 1));
    c10::AutoGradMode off(false);
    Session session(graph);
    std::map<const Node*, double> nodes;  // the session's nodes stay where they are
    std::vector<double> totals, sums;
    double sum = 0;  // of the round's nodes
    const std::int64_t warmup = context.params().integer("warmup"), count = context.params().integer("repetitions");
    for (std::int64_t round = 0; round < warmup + count; ++round) {
      context.check_cancelled();
      sum = 0;
      if (round == warmup)
        session.observe([&](const Node& node, double milliseconds) {
          nodes[&node] += milliseconds;
          sum += milliseconds;
        });
      const auto start = std::chrono::steady_clock::now();
      session.run(inputs);
      const double total = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
      if (round >= warmup) {
        totals.push_back(total);
        sums.push_back(sum);
      }
      context.progress({static_cast<std::uint64_t>(round + 1),
                        static_cast<std::uint64_t>(warmup + count),
                        round < warmup ? "warming up" : "profiling",
                        {{"ms", total}}});
    }
    state(context, nodes, totals, sums);
  }

 private:
  static void state(Context& context, const std::map<const Node*, double>& nodes, const std::vector<double>& totals,
                    const std::vector<double>& sums) {
    const auto rounds = static_cast<double>(totals.size());
    std::map<std::string, Time> operators, layers;
    std::map<std::pair<Place, std::string>, Time> leaves;
    double all = 0;
    for (const auto& [node, milliseconds] : nodes) {
      const double each = milliseconds / rounds;
      const Place place = place_of(*node);
      for (Time* to : {&operators[node->op], &layers[place.layer], &leaves[{place, node->op}]}) {
        to->milliseconds += each;
        ++to->nodes;
      }
      all += each;
    }
    double run = 0;
    for (const double total : totals) run += total / rounds;
    context.figure("run_ms", run);
    context.figure("nodes_ms", all);
    context.figure("covered", all / run);
    const auto word = [](const std::string& key) { return Json::array({key}); };
    context.detail("operators", table<std::string>(operators, all, {"operator"}, word));
    context.detail("layers", table<std::string>(layers, all, {"layer"}, word));
    context.detail("flame.time", table<std::pair<Place, std::string>>(
                                     leaves, all, {"layer", "part", "operator"}, [](const std::pair<Place, std::string>& key) {
                                       return Json::array({key.first.layer, key.first.part, key.second});
                                     }));
    context.detail("samples.run_ms", totals);
    context.detail("samples.nodes_ms", sums);
    Json machine = Json::array();
    for (const auto& [property, value] : describe_machine()) machine.push_back({property, value});
    context.detail("machine", {{"columns", {"property", "value"}}, {"rows", machine}});
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "profile", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Time of a model by operator and by layer",
  "components": [ {
    "name": "evaluator/profile", "version": "0.1.0",
    "summary": "where the time of a model goes in the project's own runner, by operator and by layer",
    "inputs": [
      {"name": "model", "type": "model", "required": true, "many": false, "help": "the model to profile"} ],
    "outputs": [],
    "parameters": [
      {"name": "tokens", "type": "integer", "default": 512, "min": 1, "unit": "tokens", "help": "size of the free dimensions past the first (causal language models)"},
      {"name": "dimensions", "type": "map<number>", "default": {}, "help": "sizes of free dimensions by name; a free first one is 1 when left out"},
      {"name": "head", "type": "string", "default": "last", "choices": ["last", "all"], "help": "positions that a language model's head is computed for"},
      {"name": "warmup", "type": "integer", "default": 1, "min": 0, "max": 1000, "help": "runs before, not counted"},
      {"name": "repetitions", "type": "integer", "default": 5, "min": 1, "max": 10000, "help": "runs that count; figures are their means"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "byte_exact": false, "exclusive": true,
    "estimate": {"memory": "9.5e7 + 1.02 * model.bytes + if(model.language, 0.45 * tokens, 1) * model.activation_bytes",
                 "seconds": "0.2 + model.bytes / 4e8 + (warmup + repetitions) * if(model.language, tokens, 1) * 2 * model.macs / (0.55 * machine.flops)",
                 "memory_base": 6e8, "memory_per_byte": 2.2, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/profile", Profile));

}  // namespace espalier
