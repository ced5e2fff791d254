#include "run/metric_examples.h"

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "sdk/error.h"

namespace espalier {
namespace {

/// Those of `values` that no other of them needs: computing these computes all.
std::vector<std::string> last_of(const Graph& graph, const std::vector<std::string>& values) {
  const std::set<std::string> asked(values.begin(), values.end());
  std::set<std::string> needed;
  std::vector<std::string> last;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    bool runs = false;
    for (const std::string& output : node->outputs) runs = runs || needed.contains(output);
    for (const std::string& output : node->outputs) {
      if (runs || !asked.contains(output)) continue;
      last.push_back(output);
      runs = true;
    }
    if (!runs) continue;
    needed.insert(node->inputs.begin(), node->inputs.end());
    for (const std::string& name : captures(*node)) needed.insert(name);
  }
  for (const Value& input : graph.inputs)
    if (asked.contains(input.name) && !needed.contains(input.name)) last.push_back(input.name);
  return last;
}

}  // namespace

MetricExamples::MetricExamples(Context& context, const Params& params, const Artifact* data, std::string_view metric) {
  if (!data)
    throw_invalid(fmt::format("{} needs data, and the stage has none", metric), {},
                  "give the stage a data set: data = \"@corpus\"");
  if (context.has_input("model")) check_tokenizers(context.input("model"), *data);
  dataset_ = open_dataset(context, *data);
  const std::int64_t samples = params.integer("samples"), batch = params.integer("batch");
  const auto examples = spread(dataset_->count(), samples);
  count_ = static_cast<std::int64_t>(examples.size());
  if (count_ == 0) throw_invalid(fmt::format("{} needs data, and the data set is empty", metric), "port data");
  if (count_ < samples)
    context.log(LogLevel::warning, fmt::format("the data has {} windows; samples = {} takes them all", count_, samples));
  for (std::int64_t begin = 0; begin < count_; begin += batch)
    batches_.emplace_back(examples.begin() + begin, examples.begin() + std::min(count_, begin + batch));
}

void MetricExamples::walk(Context& context, std::string_view label,
                          const std::function<double(const std::vector<std::int64_t>& numbers, double worth)>& pass) const {
  double weights = 0;
  for (const auto& numbers : batches_) weights += dataset_->weight(numbers);
  if (weights <= 0)
    throw_invalid(fmt::format("none of the {} windows that are looked at has a token that counts", count_), "port data",
                  "look at more of them: samples = 64");
  std::uint64_t done = 0;
  for (const auto& numbers : batches_) {
    context.check_cancelled();
    const double worth = static_cast<double>(count_) * dataset_->weight(numbers) / weights;
    const double loss = worth > 0 ? pass(numbers, worth) : 0;
    done += numbers.size();
    context.progress({done, static_cast<std::uint64_t>(count_), label, {{"loss", loss}}});
  }
}

void MetricExamples::observe(Context& context, Session& session, const Graph& graph, const std::vector<std::string>& values,
                             std::string_view label, const std::function<void(const TensorMap& batch)>& before) const {
  const c10::AutoGradMode off(false);
  const auto wanted = last_of(graph, values);
  std::uint64_t done = 0;
  for (const auto& numbers : batches_) {
    context.check_cancelled();
    const TensorMap batch = dataset_->batch(numbers);
    if (before) before(batch);
    session.run(inputs_for(graph, batch), wanted);
    done += numbers.size();
    context.progress({done, static_cast<std::uint64_t>(count_), label, {}});
  }
}

}  // namespace espalier
