#include "formats/huggingface_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstdlib>
#include <optional>
#include <set>

#include "formats/decoder_facts.h"
#include "formats/huggingface.h"
#include "formats/huggingface_draft.h"
#include "graph/match.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kWhere = "config.json";
constexpr const char* kOnnx = "write ONNX instead (a name that ends in .onnx), which holds any shape";

/// "1024 in layers 0 to 10, 12; 960 in layer 11".
std::string by_layer(const std::map<std::int64_t, std::set<std::int64_t>>& layers) {
  constexpr std::size_t most = 6;
  std::vector<std::string> parts;
  for (const auto& [value, at] : layers) {
    std::vector<std::string> runs;
    for (auto first = at.begin(); first != at.end();) {
      auto last = first, next = std::next(first);
      while (next != at.end() && *next == *last + 1) last = next++;
      runs.push_back(first == last ? std::to_string(*first) : fmt::format("{} to {}", *first, *last));
      first = next;
    }
    if (runs.size() > most) runs.resize(most), runs.emplace_back("…");
    parts.push_back(fmt::format("{} in layer{} {}", value, at.size() > 1 ? "s" : "", fmt::join(runs, ", ")));
    if (parts.size() == most && layers.size() > most) return fmt::format("{}; …", fmt::join(parts, "; "));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

/// The one length that all layers have.
std::int64_t common(const std::map<std::int64_t, std::set<std::int64_t>>& layers, const char* what, const char* key,
                    const char* hint) {
  if (layers.size() > 1)
    throw_unsupported(fmt::format("the {} differ: {}; a config.json has one \"{}\" for all layers", what, by_layer(layers), key),
                      "Hugging Face directory", fmt::format("{}, or {}", hint, kOnnx));
  return layers.begin()->first;
}

std::int64_t common(const std::vector<std::int64_t>& by_number, const char* what, const char* key, const char* pruner) {
  std::map<std::int64_t, std::set<std::int64_t>> layers;
  for (std::size_t i = 0; i < by_number.size(); ++i) layers[by_number[i]].insert(static_cast<std::int64_t>(i));
  return common(layers, what, key, fmt::format("cut all layers alike ({} with ranking = \"layer\")", pruner).c_str());
}

/// Writes down which tensors the builder asks for, under the graph's names.
class Asked final : public WeightSource {
 public:
  std::map<std::string, SourceTensor> sources;
  std::map<std::string, std::vector<std::int64_t>> weights;  ///< shapes in the graph

  bool has(const std::string&) const override { return true; }
  void plain(const std::string& name, const std::vector<std::int64_t>& shape, double add) override {
    weights[name] = shape;
    sources[name] = {shape, add, {{name, shape.empty() ? 1 : shape[0], false}}};
  }
  void vector(const std::string& name, std::int64_t out, const Origin& origin) override {
    weights[name] = {out};
    piece(name, {origin.rows.all > 0 ? origin.rows.all : out}, out, origin, false);
  }
  void linear(const std::string& name, std::int64_t in, std::int64_t out, const Origin& origin) override {
    weights[name] = {in, out};
    piece(name, {origin.rows.all > 0 ? origin.rows.all : out, in}, out, origin, true);
  }

 private:
  void piece(const std::string& name, std::vector<std::int64_t> shape, std::int64_t out, const Origin& origin, bool turned) {
    // Interleaved rows, other orders within heads, [in, out] in the file: of families that no draft is made of.
    if (origin.rows.block > 0 || origin.rows.head > 0 || origin.in_out)
      throw_unsupported("the family keeps its rows in another order, which is not written", name);
    const std::string& whole = origin.whole.empty() ? name : origin.whole;
    SourceTensor& tensor = sources[whole];
    tensor.shape = std::move(shape);
    std::int64_t before = 0;
    for (const auto& other : tensor.pieces) before += other.rows;
    if (before != origin.rows.first) throw Error(ErrorCode::internal, "rows are asked for out of order", whole);
    tensor.pieces.push_back({name, out, turned});
  }
};

struct Built {
  Graph graph;
  Asked asked;
  TensorNames names;
};

Built build(const Json& config) {
  Built built;
  BuiltModel model = build_huggingface(config, built.asked, kWhere);
  built.graph = std::move(model.graph);
  built.names = std::move(model.names);
  return built;
}

std::int64_t layer_number(const std::string& name) {
  constexpr std::string_view mark = "layers.";
  const auto at = name.find(mark);
  return at == std::string::npos ? 0 : std::atoll(name.c_str() + at + mark.size());
}

/// RMSNorm of some of its channels has a larger epsilon than one of all (graph/ops/norm.cpp), and a config.json has one epsilon for
/// all norms. Where the norm's input comes from a product of its own, the product takes the difference: N(s·x, ε) = N(x, ε/s²).
/// Returns the factors of weights.
std::map<std::string, double> even_epsilons(Graph& graph, double epsilon) {
  const Uses uses(graph);
  const auto maker = [&](const std::string& value) -> const Node* {
    const auto node = uses.producer_of(value);
    return node >= 0 && uses.readers_of(value).size() == 1 ? &graph.nodes[static_cast<std::size_t>(node)] : nullptr;
  };
  const auto own = [&](const std::string& weight) { return graph.initializer(weight) && uses.readers_of(weight).size() == 1; };
  std::map<std::string, double> factors;
  for (Node& norm : graph.nodes) {
    const double its = norm.number("epsilon", 1e-5);
    if (norm.op != "RMSNormalization" || static_cast<float>(its) == static_cast<float>(epsilon) || !(its > 0)) continue;
    const Node* product = maker(norm.input(0));
    const Node* sum = product && product->op == "Add" ? product : nullptr;
    if (sum) product = maker(sum->input(0));
    if (!product || product->op != "MatMul" || !own(product->input(1)) || (sum && !own(sum->input(1)))) continue;
    factors[product->input(1)] = std::sqrt(epsilon / its);
    if (sum) factors[sum->input(1)] = std::sqrt(epsilon / its);
    norm.attributes["epsilon"] = epsilon;
  }
  return factors;
}

[[noreturn]] void refuse(const GraphMatch& match, const std::string& family) {
  throw_unsupported(
      fmt::format("{}; a model of the family \"{}\" has none such", match.difference, family), match.at,
      fmt::format("adapters are merged and weights quantized by other stages: convert the float model, or {}", kOnnx));
}

class Planner {
 public:
  explicit Planner(const Graph& graph) : graph_(graph), facts_(decoder_facts(graph)) {
    common(facts_.heads, "numbers of attention heads", "num_attention_heads", "pruner/heads");
    common(facts_.kv_heads, "numbers of key and value heads", "num_key_value_heads", "pruner/heads");
    common(facts_.head_size, "sizes of the heads", "head_dim", "pruner/heads");
    if (!facts_.mixtures.empty()) {
      common(facts_.mixtures, "numbers of experts", "num_local_experts", "pruner/experts");
      common(facts_.mixtures_used, "numbers of experts chosen", "num_experts_per_tok", "pruner/experts");
    }
    factors_ = even_epsilons(graph_, facts_.epsilon);
  }

  HuggingfacePlan plan() {
    GraphMatch best;
    std::string nearest;
    for (HuggingfaceDraft& draft : huggingface_drafts(graph_, facts_)) {
      GraphMatch match;
      if (auto plan = fit(draft.config, match)) return std::move(*plan);
      if (!nearest.empty() && match.matched <= best.matched) continue;
      best = std::move(match);
      nearest = draft.family;
    }
    if (nearest.empty())
      throw_unsupported("no family of decoders has this structure", graph_.name,
                        fmt::format("written are {}; {}", written_families(), kOnnx));
    if (!facts_.rotary && best.difference.starts_with("the constant has other values"))
      throw_unsupported("the rotary frequencies follow no plain or linear rule, and the model's own config.json did not come along",
                        best.at, fmt::format("convert a model that came from its Hugging Face directory, or {}", kOnnx));
    refuse(best, nearest);
  }

 private:
  /// Compares the structure, then fills in the width of the feed-forward layers and compares the shapes.
  std::optional<HuggingfacePlan> fit(Json& config, GraphMatch& match) const {
    const std::int64_t open = unused_length();
    config["intermediate_size"] = open;
    const Built shapeless = build(config);
    match = match_graphs(graph_, shapeless.graph);
    if (!match) return std::nullopt;
    config["intermediate_size"] = feed_forward(shapeless.asked, match, open);

    Built built = build(config);
    match = match_graphs(graph_, built.graph);
    if (!match) return std::nullopt;
    for (const auto& [weight, shape] : built.asked.weights) {
      const std::string& name = match.weights.at(weight);
      if (const auto& real = graph_.initializers.at(name).shape; real != shape)
        throw_unsupported(
            fmt::format("the weight is [{}] where config.json asks for [{}]", fmt::join(real, ", "), fmt::join(shape, ", ")), name,
            kOnnx);
    }
    HuggingfacePlan plan{config, {}};
    for (auto& [name, tensor] : built.asked.sources) plan.tensors[built.names.spellings(name).front()] = std::move(tensor);
    for (auto& [name, tensor] : plan.tensors)
      for (auto& piece : tensor.pieces) {
        piece.initializer = match.weights.at(piece.initializer);
        if (const auto factor = factors_.find(piece.initializer); factor != factors_.end()) piece.factor = factor->second;
      }
    return plan;
  }

  /// A length that no weight has: it marks what config.json calls intermediate_size.
  std::int64_t unused_length() const {
    std::set<std::int64_t> used;
    for (const auto& [name, tensor] : graph_.initializers) used.insert(tensor.shape.begin(), tensor.shape.end());
    std::int64_t length = 1'000'003;
    while (used.contains(length)) ++length;
    return length;
  }

  std::int64_t feed_forward(const Asked& asked, const GraphMatch& match, std::int64_t open) const {
    std::map<std::int64_t, std::set<std::int64_t>> widths;
    for (const auto& [weight, shape] : asked.weights) {
      const auto& real = graph_.initializers.at(match.weights.at(weight)).shape;
      for (std::size_t axis = 0; axis < shape.size() && axis < real.size(); ++axis)
        if (shape[axis] == open) widths[real[axis]].insert(layer_number(weight));
    }
    return common(widths, "widths of the feed-forward layers", "intermediate_size",
                  "cut all layers alike (pruner/channels with ranking = \"layer\" and scope = [\"*.mlp\"], without per_scope)");
  }

  Graph graph_;  // the structure; its bytes are the caller's
  DecoderFacts facts_;
  std::map<std::string, double> factors_;
};

}  // namespace

HuggingfacePlan plan_huggingface(const Graph& graph) { return Planner(graph).plan(); }

}  // namespace espalier
