#pragma once
// What finetuning and distillation share: options from parameters, what is trained, the order of windows, held-out loss, results.
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "formats/model_artifact.h"
#include "run/dataset.h"
#include "run/scope.h"
#include "run/session.h"
#include "run/training.h"
#include "sdk/context.h"
#include "sdk/error.h"

namespace espalier {

inline TrainingOptions training_options(const Context& context) {
  const auto& params = context.params();
  TrainingOptions options;
  options.steps = params.integer("steps");
  options.batch = params.integer("batch");
  options.accumulation = params.integer("accumulation");
  options.learning_rate = params.number("learning_rate");
  options.warmup = params.integer("warmup");
  options.final_share = params.number("final_share");
  options.weight_decay = params.number("weight_decay");
  options.beta1 = params.number("beta1");
  options.beta2 = params.number("beta2");
  options.epsilon = params.number("epsilon");
  options.clip = params.number("clip");
  options.seed = context.seed();
  return options;
}

/// Initializers that training may change: floating point, more than a scalar, and no table or statistic that only looks like a
/// weight (rotary caches, a batch norm's running mean and variance, the scales of quantized tensors).
inline std::vector<std::string> trainable_weights(const Graph& graph, const Scope& scope) {
  const Uses uses(graph);
  auto fixed = [&](const std::string& name) {
    for (const auto& reader : uses.readers_of(name)) {
      const auto& node = graph.nodes[reader.node];
      if (node.op == "RotaryEmbedding" || node.op == "DequantizeLinear" || node.op == "QuantizeLinear") return true;
      if (node.op == "BatchNormalization" && reader.input >= 3) return true;
    }
    return false;
  };
  std::vector<std::string> names, all;
  for (const auto& [name, tensor] : graph.initializers) {
    if (!is_floating(tensor.dtype) || tensor.count() < 2 || fixed(name)) continue;
    const auto answers = scope_names(uses, graph, name);
    all.insert(all.end(), answers.begin(), answers.end());
    if (scope.covers(answers)) names.push_back(name);
  }
  if (names.empty()) {
    const auto& pattern = scope.include.empty() ? std::string() : scope.include.front();
    throw_invalid(fmt::format("train = \"{}\" means no floating-point weight of the model", pattern), "parameter train",
                  all.empty() ? "the model has none; train before quantizing"
                              : fmt::format("weights are in: {}", fmt::join(near_scopes(pattern, all), ", ")));
  }
  return names;
}

/// The graph's own inputs out of a batch; what it asks for beyond a token batch cannot be given.
inline TensorMap inputs_for(const Graph& graph, TensorMap batch) {
  TensorMap inputs;
  for (const auto& input : graph.inputs) {
    auto at = batch.find(input.name);
    if (at == batch.end()) {
      throw_invalid(fmt::format("the model wants an input \"{}\", which token data does not have", input.name), "port model",
                    "give a model with the inputs input_ids, attention_mask, position_ids");
    }
    inputs.insert(*at);
  }
  return inputs;
}

inline void check_language_model(const Graph& graph, std::string_view port) {
  auto has = [](const std::vector<Value>& values, std::string_view name) {
    return std::any_of(values.begin(), values.end(), [&](const Value& v) { return v.name == name; });
  };
  if (has(graph.inputs, "input_ids") && has(graph.outputs, "logits")) return;
  throw_invalid("the model is no causal language model: it needs an input \"input_ids\" and an output \"logits\"",
                fmt::format("port {}", port));
}

/// Windows in the order of training: epoch after epoch, each in a permutation of its own.
class WindowOrder {
 public:
  WindowOrder(std::int64_t count, std::uint64_t seed) : count_(count), seed_(seed) {}
  std::vector<std::int64_t> take(std::int64_t first, std::int64_t n) {
    std::vector<std::int64_t> windows;
    for (std::int64_t k = first; k < first + n; ++k) {
      if (order_.empty() || k / count_ != epoch_) {
        epoch_ = k / count_;
        order_ = shuffled(count_, seed_ + static_cast<std::uint64_t>(epoch_));
      }
      windows.push_back(order_[static_cast<std::size_t>(k % count_)]);
    }
    return windows;
  }

 private:
  std::int64_t count_, epoch_ = -1;
  std::uint64_t seed_;
  std::vector<std::int64_t> order_;
};

/// Mean cross-entropy over all windows, one at a time, without gradients.
inline double mean_loss(Session& session, const Graph& graph, const TokenDataset& data, Context& context, std::string_view label) {
  c10::NoGradGuard no_gradients;
  double sum = 0;
  for (std::int64_t w = 0; w < data.count(); ++w) {
    context.check_cancelled();
    const auto inputs = inputs_for(graph, data.batch({w}));
    const auto out = session.run(inputs, {"logits"});
    sum += causal_cross_entropy(out.at("logits"), inputs.at("input_ids")).item<double>();
    context.progress({std::uint64_t(w + 1), std::uint64_t(data.count()), label, {{"loss", sum / double(w + 1)}}});
  }
  return sum / static_cast<double>(data.count());
}

/// Trains `graph` with `loss` on `data` (both ports of the stage) and writes model, figures and curve. `loss` gets the session.
template <class Loss>
void train_stage(Context& context, std::string_view port, const Graph& graph, Loss loss) {
  const auto options = training_options(context);
  const TokenDataset data(context, context.input("data"));
  if (data.count() == 0) throw_invalid("the data set has no windows", "port data");
  std::optional<TokenDataset> heldout;
  if (context.has_input("heldout")) {
    check_tokenizers(context.input(port), context.input("heldout"));
    heldout.emplace(context, context.input("heldout"));
    if (heldout->count() == 0) throw_invalid("the held-out data set has no windows", "port heldout");
  }

  Session session(graph);
  session.train(trainable_weights(graph, {context.params().texts("train"), {}}));
  if (heldout) context.figure("heldout_loss_before", mean_loss(session, graph, *heldout, context, "held-out loss before"));
  WindowOrder order(data.count(), options.seed);
  const auto batches = [&](std::int64_t step, std::int64_t pass) {
    return inputs_for(graph, data.batch(order.take((step * options.accumulation + pass) * options.batch, options.batch)));
  };
  const auto result = train_loop(
      session, options, batches, [&](const TensorMap& inputs) { return loss(session, inputs); }, &context);
  if (heldout) context.figure("heldout_loss_after", mean_loss(session, graph, *heldout, context, "held-out loss after"));

  context.output("model", save_model(context, session.graph()));
  context.figure("parameters", static_cast<double>(graph.parameter_count()));
  if (!result.losses.empty()) {
    context.figure("loss_first", result.losses.front());
    context.figure("loss_last", result.losses.back());
  }
  context.figure("tokens", static_cast<double>(result.tokens));
  if (result.seconds > 0) context.figure("tokens_per_second", static_cast<double>(result.tokens) / result.seconds);
}

}  // namespace espalier
