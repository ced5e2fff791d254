#include "run/block_importance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cosine_similarity.h>
#include <c10/core/GradMode.h>

#include <limits>
#include <map>
#include <numbers>

#include "run/block_channels.h"
#include "run/layer_map.h"
#include "run/objective.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// The last block of the run that block `first` belongs to.
std::size_t end_of_run(const std::vector<Block>& blocks, std::size_t first) {
  std::size_t last = first;
  while (last + 1 < blocks.size() && blocks[last + 1].run == blocks[first].run) ++last;
  return last;
}

/// [positions, channels]; only those positions that the batch attends to, where it says so.
at::Tensor rows_of(const at::Tensor& state, std::int64_t axis, const at::Tensor& open) {
  at::Tensor rows = state.movedim(axis, -1).to(at::kFloat);
  const bool masked = open.defined() && rows.dim() == 3 && rows.size(0) == open.size(0) && rows.size(1) == open.size(1);
  rows = rows.reshape({-1, rows.size(-1)});
  return masked ? rows.index({open.reshape({-1})}) : rows;
}

}  // namespace

BlockDistances::BlockDistances(Context& context, const Graph& graph, const std::vector<Block>& blocks,
                               const MetricExamples& examples) {
  const ValueMap values = infer(graph);
  std::map<std::string, std::int64_t> axis;  // of every hidden state
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const auto channels =
        block_channels(graph, values, blocks[b], block_label(blocks, b), "port model", "name the blocks that go: blocks = [\"3\"]");
    axis[blocks[b].output] = channels.axis;
    axis.try_emplace(blocks[b].input, channels.axis);
    distance_.emplace_back(end_of_run(blocks, b) - b + 1, 0.0);
  }
  Session session(graph);
  std::map<std::string, at::Tensor> states;
  at::Tensor open;
  std::vector<std::string> wanted;
  for (const auto& [name, where] : axis) {
    wanted.push_back(name);
    session.hook(name, [&states, &open, where = where](const std::string& value, const at::Tensor& state) {
      states[value] = rows_of(state, where, open);
      return at::Tensor();
    });
  }
  std::vector<double> counted(blocks.size(), 0.0);  // positions
  const auto take = [&] {
    if (states.empty()) return;
    for (const auto& [name, where] : axis)
      if (!states.contains(name)) throw Error(ErrorCode::internal, "a hidden state was not computed", name);
    for (std::size_t first = 0; first < blocks.size(); ++first) {
      const at::Tensor& before = states.at(blocks[first].input);
      counted[first] += static_cast<double>(before.size(0));
      for (std::size_t k = 0; k < distance_[first].size(); ++k) {
        const at::Tensor& after = states.at(blocks[first + k].output);
        if (before.sizes() != after.sizes()) {  // a block that changes the shape cannot go, nor can a stretch over it
          distance_[first][k] = std::numeric_limits<double>::infinity();
          continue;
        }
        const at::Tensor cosine = at::cosine_similarity(before, after, -1).clamp(-1.0, 1.0);
        distance_[first][k] += cosine.acos().sum(at::kDouble).item<double>() / std::numbers::pi;
      }
    }
    states.clear();
  };
  examples.observe(context, session, graph, wanted, "comparing blocks", [&](const TensorMap& batch) {
    take();
    const auto mask = batch.find("attention_mask");
    open = mask != batch.end() && mask->second.dim() == 2 ? mask->second.ne(0) : at::Tensor();
  });
  take();
  for (std::size_t first = 0; first < blocks.size(); ++first)
    for (double& sum : distance_[first]) sum /= counted[first];
}

double BlockDistances::between(std::size_t first, std::size_t last) const { return distance_.at(first).at(last - first); }

double mean_loss(Context& context, const Graph& graph, const MetricExamples& examples, std::string_view label) {
  const c10::AutoGradMode off(false);
  const auto objective = objective_for(graph, examples.dataset());
  Session session(graph);
  double sum = 0;
  std::uint64_t done = 0;
  for (const auto& numbers : examples.batches()) {
    context.check_cancelled();
    const TensorMap batch = examples.dataset().batch(numbers);
    const TensorMap out = session.run(inputs_for(graph, batch), objective->values());
    sum += objective->hard(out, batch).item<double>() * static_cast<double>(numbers.size());
    done += numbers.size();
    context.progress({done, static_cast<std::uint64_t>(examples.count()), label, {}});
  }
  return sum / static_cast<double>(examples.count());
}

}  // namespace espalier
