#include "run/trainer.h"

#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "formats/model_artifact.h"
#include "graph/scope.h"
#include "run/session.h"
#include "sdk/error.h"

namespace espalier {

Trainer::~Trainer() = default;

namespace {

TrainingOptions training_options(const Params& params, std::uint64_t seed) {
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
  options.seed = seed;
  options.evaluate_every = params.integer("evaluate_every");
  options.patience = params.integer("patience");
  options.keep_best = params.text("keep") == "best";
  options.resume_every = params.integer("resume_every");
  return options;
}

/// Examples in the order of training: epoch after epoch, each in a permutation of its own.
class ExampleOrder {
 public:
  ExampleOrder(std::int64_t count, std::uint64_t seed) : count_(count), seed_(seed) {}
  std::vector<std::int64_t> take(std::int64_t first, std::int64_t n) {
    std::vector<std::int64_t> examples;
    for (std::int64_t k = first; k < first + n; ++k) {
      if (order_.empty() || k / count_ != epoch_) {
        epoch_ = k / count_;
        order_ = shuffled(count_, seed_ + static_cast<std::uint64_t>(epoch_));
      }
      examples.push_back(order_[static_cast<std::size_t>(k % count_)]);
    }
    return examples;
  }

 private:
  std::int64_t count_, epoch_ = -1;
  std::uint64_t seed_;
  std::vector<std::int64_t> order_;
};

/// Examples that one pass without gradients takes: one where the model's own batch is fixed.
std::int64_t evaluation_batch(const Graph& graph) {
  constexpr std::int64_t together = 64;
  for (const Value& input : graph.inputs)
    if (!input.shape.empty() && input.shape[0].known()) return 1;
  return together;
}

/// Names one run among those that share a scratch folder (a stage may train more than once): model, what of it changes, settings.
std::string run_key(const Session& session, const Params& params, const TrainingTask& task, std::uint64_t seed) {
  KeyEncoder key;
  key.text(params.json().dump());
  key.integer(static_cast<std::int64_t>(seed));
  key.integer(task.data.count());
  for (const std::string& name : session.trainable()) key.text(name);
  for (const auto& [name, tensor] : task.model.initializers) {
    key.text(name);
    key.digest(tensor.digest());
  }
  return key.finish().hex();
}

}  // namespace

double mean_loss(Session& session, const Graph& model, const Dataset& data, const Objective& objective, Context& context,
                 std::string_view label) {
  c10::NoGradGuard no_gradients;
  double sum = 0, weights = 0;
  // Windows of tokens one at a time (their logits are large), others together.
  const std::int64_t together = dynamic_cast<const TokenDataset*>(&data) ? 1 : evaluation_batch(model);
  for (std::int64_t i = 0; i < data.count(); i += together) {
    context.check_cancelled();
    std::vector<std::int64_t> examples(static_cast<std::size_t>(std::min(together, data.count() - i)));
    std::iota(examples.begin(), examples.end(), i);
    const TensorMap batch = data.batch(examples);
    const double weight = data.weight(examples);
    if (weight > 0) sum += weight * objective.hard(session.run(inputs_for(model, batch), objective.values()), batch).item<double>();
    weights += weight;
    const auto done = i + static_cast<std::int64_t>(examples.size());
    context.progress({std::uint64_t(done), std::uint64_t(data.count()), label, {{"loss", sum / std::max(weights, 1.0)}}});
  }
  return sum / weights;
}

SessionOptions session_options(const Params& params) {
  SessionOptions options;
  if (params.text("precision") == "bf16") options.products = DType::bf16;
  return options;
}

std::vector<std::string> trainable_weights(const Graph& graph, const std::vector<std::string>& patterns) {
  const Scope scope{patterns, {}};
  const Uses uses(graph);
  auto fixed = [&](const std::string& name) {
    for (const auto& reader : uses.readers_of(name)) {
      const auto& node = graph.nodes[reader.node];
      if (node.op == "RotaryEmbedding" || node.op == "DequantizeLinear") return true;
      if (node.op == "QuantizeLinear" && reader.input > 0) return true;  // the numbers under it are trained through the rounding
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

namespace {

std::vector<std::string> trained_by(const Graph& graph, const Params& params, const PassLoss& loss) {
  std::vector<std::string> names;
  if (!loss.only_beside) names = trainable_weights(graph, params.texts("train"));
  for (const auto& name : loss.beside)
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  return names;
}

}  // namespace

Trained train_graph(Context& context, const Params& params, const TrainingTask& task, const Objective& objective,
                    const PassLoss& loss) {
  const auto options = training_options(params, context.seed());
  Trained trained;
  SessionOptions how = session_options(params);
  how.recompute = params.flag("checkpoint");
  if (how.products == DType::bf16 && how.emulate_bf16)
    context.log(
        LogLevel::warning,
        "this processor has no instructions for bf16: products are computed in f32 from rounded operands, no faster than f32");
  Session session(task.model, how);
  session.train(trained_by(task.model, params, loss));
  if (task.heldout)
    trained.heldout_before = mean_loss(session, task.model, *task.heldout, objective, context, "held-out loss before");
  ExampleOrder order(task.data.count(), options.seed);
  const auto examples = [&](std::int64_t step, std::int64_t pass) {
    return order.take((step * options.accumulation + pass) * options.batch, options.batch);
  };
  const auto batches = [&](std::int64_t step, std::int64_t pass) { return task.data.batch(examples(step, pass)); };
  const auto pass_loss = [&](const TensorMap& batch) {
    return loss.loss(session.run(inputs_for(task.model, batch), loss.wanted), batch);
  };
  TrainingWatch watch{.scratch = context.scratch(),
                      .key = run_key(session, params, task, options.seed),
                      .weight = [&](std::int64_t step, std::int64_t pass) { return task.data.weight(examples(step, pass)); }};
  if (task.heldout)
    watch.heldout = [&] { return mean_loss(session, task.model, *task.heldout, objective, context, "held-out loss"); };
  trained.result = train_loop(session, options, batches, pass_loss, &context, watch);
  trained.heldout_after = trained.result.heldout_after;
  if (task.heldout && !trained.heldout_after)
    trained.heldout_after = mean_loss(session, task.model, *task.heldout, objective, context, "held-out loss after");
  trained.model = session.graph();
  return trained;
}

namespace {

double heldout_at(const TrainingResult& result, std::int64_t step) {
  for (const auto& [at, loss] : result.heldout)
    if (at == step) return loss;
  throw Error(ErrorCode::internal, fmt::format("no evaluation at step {}", step));
}

Json points(const std::vector<std::pair<std::int64_t, double>>& curve) {
  Json list = Json::array();
  for (const auto& [step, value] : curve) list.push_back({step, value});
  return list;
}

}  // namespace

void TrainerComponent::run(Context& context) {
  const char* port = distils() ? "student" : "model";
  const Artifact& source = context.input(port);
  const Graph model = load_model(context, source);
  std::optional<Graph> teacher;
  std::unique_ptr<Dataset> heldout;
  check_tokenizers(source, context.input("data"));
  if (distils()) {
    check_tokenizers(context.input("teacher"), context.input("data"));
    teacher = load_model(context, context.input("teacher"));
  }
  const auto data = open_dataset(context, context.input("data"));
  if (data->count() == 0) throw_invalid("the data set is empty", "port data");
  if (context.has_input("heldout")) {
    check_tokenizers(source, context.input("heldout"));
    heldout = open_dataset(context, context.input("heldout"));
    if (heldout->count() == 0) throw_invalid("the held-out data set is empty", "port heldout");
  }
  const Trained trained = train(context, context.params(), {model, teacher ? &*teacher : nullptr, *data, heldout.get(), port});

  context.output("model", save_model(context, trained.model));
  context.figure("parameters", static_cast<double>(trained.model.parameter_count()));
  const TrainingResult& result = trained.result;
  if (!result.losses.empty()) {
    context.figure("loss_first", result.losses.front());
    context.figure("loss_last", result.losses.back());
  }
  if (trained.heldout_before) context.figure("heldout_loss_before", *trained.heldout_before);
  if (trained.heldout_after) context.figure("heldout_loss_after", *trained.heldout_after);
  if (result.best_step >= 0) {
    const bool best = context.params().text("keep") == "best";
    context.figure("best_step", static_cast<double>(result.best_step));
    context.figure("kept_step", static_cast<double>(best ? result.best_step : static_cast<std::int64_t>(result.losses.size())));
    context.figure("heldout_loss_best", heldout_at(result, result.best_step));
    context.detail("curve.heldout", points(result.heldout));
  }
  if (result.resumed_at > 0) context.figure("resumed_at", static_cast<double>(result.resumed_at));
  context.figure("steps_taken", static_cast<double>(result.losses.size()));
  // Examples of arrays have no tokens: they are counted themselves.
  const auto examples = static_cast<std::int64_t>(result.losses.size()) * context.params().integer("batch") *
                        context.params().integer("accumulation");
  const std::string unit = result.tokens > 0 ? "tokens" : "samples";
  const auto fed = static_cast<double>(result.tokens > 0 ? result.tokens : examples);
  context.figure(unit, fed);
  if (result.seconds > 0) context.figure(unit + "_per_second", fed / result.seconds);
  for (const auto& [name, value] : trained.figures) context.figure(name, value);
  for (const auto& [name, value] : trained.details) context.detail(name, value);
  Json curve = Json::array();
  for (std::size_t i = 0; i < result.losses.size(); ++i) curve.push_back({i + 1, result.losses[i]});
  context.detail("curve.loss", std::move(curve));
}

void* TrainerComponent::interface(std::string_view id) {
  return id == Trainer::interface_id ? static_cast<Trainer*>(this) : nullptr;
}

}  // namespace espalier
