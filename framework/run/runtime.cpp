#include "run/runtime.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "graph/causal.h"
#include "run/cache.h"
#include "run/prepack.h"
#include "run/session.h"
#include "sdk/error.h"

namespace espalier {

LanguageModel::~LanguageModel() = default;
DeployedModel::~DeployedModel() = default;
Runtime::~Runtime() = default;

std::unique_ptr<DeployedModel> Runtime::open_model(const std::filesystem::path& package, const OpenOptions&) {
  throw_unsupported("this backend runs language models only", package.string(), "package the model with another backend");
}

namespace {

std::uint64_t splitmix(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::int64_t pick(const at::Tensor& logits, const GenerateOptions& options, std::uint64_t& state) {
  if (options.temperature <= 0) return at::argmax(logits).item<std::int64_t>();
  const at::Tensor weights = at::softmax(logits.to(at::kDouble).div(options.temperature), 0).contiguous();
  const auto* weight = weights.const_data_ptr<double>();
  double left = static_cast<double>(splitmix(state) >> 11) * 0x1.0p-53;
  for (std::int64_t i = 0; i + 1 < weights.numel(); ++i)
    if ((left -= weight[i]) < 0) return i;
  return weights.numel() - 1;
}

constexpr std::string_view past_prefix = "past_key_values.";

bool has_past(const Graph& graph) {
  return std::any_of(graph.inputs.begin(), graph.inputs.end(), [](const Value& v) { return v.name.starts_with(past_prefix); });
}

/// Batch 1. Keys and values lie in buffers that attention writes into; they double when full.
class GraphModel final : public LanguageModel {
 public:
  GraphModel(const Graph& graph, const OpenOptions& options) : graph_(has_past(graph) ? graph : with_kv_cache(graph)) {
    at::set_num_threads(std::max(options.threads, 1));
    for (const Value& input : graph_.inputs) {
      if (!input.name.starts_with(past_prefix)) continue;
      if (input.shape.size() != 4 || !input.shape[1].known() || !input.shape[3].known())
        throw_invalid(fmt::format("input \"{}\" has shape {}, expected [batch, heads, past, size] with known heads and size",
                                  input.name, text(input.shape)),
                      graph_.name);
      const std::string present = "present." + input.name.substr(past_prefix.size());
      if (std::none_of(graph_.outputs.begin(), graph_.outputs.end(), [&](const Value& v) { return v.name == present; }))
        throw_invalid(fmt::format("there is no output \"{}\" for input \"{}\"", present, input.name), graph_.name);
      past_.push_back(input.name);
      present_.push_back(present);
      shapes_.push_back({1, input.shape[1].value(), 0, input.shape[3].value()});
    }
    buffers_.resize(past_.size());
    wanted_ = present_;
    wanted_.emplace_back("logits");
    if (!options.last_only) whole();
  }

  void reset() override { position_ = 0; }
  std::int64_t position() const override { return position_; }

  at::Tensor feed(std::span<const std::int64_t> tokens, bool all) override {
    if (tokens.empty()) throw_invalid("no tokens to feed");
    c10::AutoGradMode off(false);
    const auto count = static_cast<std::int64_t>(tokens.size()), total = position_ + count;
    reserve(total);
    const auto options = at::TensorOptions().dtype(at::kLong);
    at::Tensor ids = at::empty({1, count}, options);
    std::copy(tokens.begin(), tokens.end(), ids.mutable_data_ptr<std::int64_t>());
    TensorMap inputs{{"input_ids", ids},
                     {"attention_mask", at::ones({1, total}, options)},
                     {"position_ids", at::arange(position_, total, options).unsqueeze(0)}};
    for (std::size_t i = 0; i < past_.size(); ++i) inputs[past_[i]] = buffers_[i].narrow(2, 0, position_);
    const GrowingCache scope(buffers_);
    TensorMap outputs = (all && count > 1 ? whole() : last()).run(inputs, wanted_);
    for (std::size_t i = 0; i < past_.size(); ++i) {
      const at::Tensor& present = outputs.at(present_[i]);
      if (present.is_alias_of(buffers_[i])) continue;  // written in place
      buffers_[i].narrow(2, 0, total).copy_(present);
    }
    position_ = total;
    return outputs.at("logits").squeeze(0).to(at::kFloat);
  }

 private:
  Session& whole() {
    return open(whole_, [this] { return graph_; });
  }
  Session& last() {
    return open(last_, [this] { return last_position_only(graph_); });
  }
  template <class Make>
  Session& open(std::optional<Session>& session, Make make) {
    if (!session) session.emplace(prepack_.apply(make()));
    return *session;
  }

  void reserve(std::int64_t length) {
    if (capacity_ >= length) return;
    std::int64_t capacity = std::max<std::int64_t>(capacity_, 256);
    while (capacity < length) capacity *= 2;
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
      shapes_[i][2] = capacity;
      at::Tensor larger = at::empty(shapes_[i], at::TensorOptions().dtype(at::kFloat));
      if (position_ > 0) larger.narrow(2, 0, position_).copy_(buffers_[i].narrow(2, 0, position_));
      buffers_[i] = std::move(larger);
    }
    capacity_ = capacity;
  }

  Graph graph_;
  Prepack prepack_;
  std::optional<Session> whole_, last_;
  std::vector<std::string> past_, present_, wanted_;
  std::vector<std::vector<std::int64_t>> shapes_;
  std::vector<at::Tensor> buffers_;
  std::int64_t position_ = 0, capacity_ = 0;
};

class GraphRunner final : public DeployedModel {
 public:
  GraphRunner(const Graph& graph, const OpenOptions& options) : session_(Prepack().apply(graph)) {
    at::set_num_threads(std::max(options.threads, 1));
    for (const Value& input : graph.inputs) inputs_.push_back(input.name);
    for (const Value& output : graph.outputs) outputs_.push_back(output.name);
  }
  std::vector<std::string> inputs() const override { return inputs_; }
  std::vector<std::string> outputs() const override { return outputs_; }
  TensorMap run(const TensorMap& inputs) override {
    c10::AutoGradMode off(false);
    TensorMap values = session_.run(inputs);
    for (auto& [name, value] : values)
      if (value.is_floating_point()) value = value.to(at::kFloat);
    return values;
  }

 private:
  Session session_;
  std::vector<std::string> inputs_, outputs_;
};

}  // namespace

std::vector<std::int32_t> generate(LanguageModel& model, std::span<const std::int32_t> prompt, const GenerateOptions& options,
                                   const std::function<bool(std::int32_t)>& emit) {
  std::vector<std::int32_t> made;
  std::vector<std::int64_t> fed(prompt.begin(), prompt.end());
  std::uint64_t state = options.seed;
  while (static_cast<std::int64_t>(made.size()) < options.tokens) {
    const at::Tensor logits = model.feed(fed, false);
    const std::int64_t token = pick(logits.select(0, logits.size(0) - 1), options, state);
    if (token == options.eos) break;
    made.push_back(static_cast<std::int32_t>(token));
    if (emit && !emit(made.back())) break;
    fed.assign(1, token);
  }
  return made;
}

std::unique_ptr<LanguageModel> language_model(const Graph& graph, const OpenOptions& options) {
  return std::make_unique<GraphModel>(graph, options);
}

std::unique_ptr<DeployedModel> deployed_model(const Graph& graph, const OpenOptions& options) {
  return std::make_unique<GraphRunner>(graph, options);
}

}  // namespace espalier
