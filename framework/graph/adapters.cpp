#include "graph/adapters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <unordered_set>

#include "graph/gaussian.h"
#include "graph/rounded_weights.h"
#include "sdk/error.h"

namespace espalier {
namespace {

bool is_product(const Node& node) { return node.domain.empty() && (node.op == "MatMul" || node.op == "Gemm"); }

bool swaps_axes(const Node& node) {
  return node.op == "Transpose" && node.domain.empty() && node.integers("perm", {1, 0}) == std::vector<std::int64_t>{1, 0};
}

/// Puts nodes behind the product of a site: the product's value gets a new name, and the last node gives its old one.
class Inserter {
 public:
  explicit Inserter(const Graph& graph) : graph_(graph), after_(graph.nodes.size()) {
    for (const auto* border : {&graph.inputs, &graph.outputs})
      for (const auto& value : *border) taken_.insert(value.name);
    for (const auto& [name, tensor] : graph.initializers) taken_.insert(name);
    for (const auto& node : graph.nodes) taken_.insert(node.outputs.begin(), node.outputs.end());
  }

  Graph& graph() { return graph_; }
  void begin(std::size_t node) {
    node_ = node;
    scope_ = graph_.nodes[node].name;
  }
  std::string add(const std::string& op, const std::string& part, std::vector<std::string> inputs) {
    Node node;
    node.op = op;
    node.name = fmt::format("{}/{}", scope_, part);
    node.inputs = std::move(inputs);
    node.outputs = {fresh(node.name + "_output")};
    after_[node_].push_back(std::move(node));
    return after_[node_].back().outputs[0];
  }
  std::string constant(const std::string& name, Tensor tensor) {
    auto full = fresh(name);
    graph_.initializers.emplace(full, std::move(tensor));
    return full;
  }
  /// The product's output under a name of its own; finish() gives the old name to the last node that was added.
  std::string take_output() {
    auto& output = graph_.nodes[node_].outputs[0];
    old_ = output;
    output = fresh(old_ + ".base");
    return output;
  }
  void finish() { after_[node_].back().outputs[0] = old_; }
  /// Puts nodes before the rounding of a site's weight instead; finish_weight() hands it the last node's value.
  void begin_weight(const AdapterSite& site) {
    node_ = static_cast<std::size_t>(site.quantize);
    scope_ = graph_.nodes[site.node].name;
    sorted_ = false;
  }
  void finish_weight() { graph_.nodes[node_].inputs[0] = after_[node_].back().outputs[0]; }

  /// The graph with all nodes in place.
  Graph done() {
    std::vector<Node> nodes;
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      nodes.push_back(std::move(graph_.nodes[n]));
      std::move(after_[n].begin(), after_[n].end(), std::back_inserter(nodes));
    }
    graph_.nodes = std::move(nodes);
    if (!sorted_) graph_.sort();
    graph_.validate();
    return std::move(graph_);
  }

 private:
  /// As Graph::fresh(), without looking at the whole graph each time.
  std::string fresh(const std::string& stem) {
    std::string name = stem;
    for (int i = 1; !taken_.insert(name).second; ++i) name = fmt::format("{}_{}", stem, i);
    return name;
  }

  Graph graph_;
  std::vector<std::vector<Node>> after_;
  std::unordered_set<std::string> taken_;
  std::size_t node_ = 0;
  std::string scope_, old_;
  bool sorted_ = true;
};

double factor(const Node& product) { return product.op == "Gemm" ? product.number("alpha", 1) : 1; }

Tensor scalar(double value) { return Tensor::of<float>(DType::f32, {}, {static_cast<float>(value)}); }

/// W [inputs, outputs] (turned: [outputs, inputs]) += scale · A·B, one stored row at a time.
Tensor with_product(const Tensor& weight, const AdapterSite& site, std::span<const float> a, std::span<const float> b,
                    double scale) {
  const auto inputs = static_cast<std::size_t>(site.inputs), outputs = static_cast<std::size_t>(site.outputs);
  const std::size_t rank = a.size() / inputs;
  std::vector<double> sums(inputs * outputs, 0);
  for (std::size_t i = 0; i < inputs; ++i)
    for (std::size_t r = 0; r < rank; ++r) {
      const double left = scale * static_cast<double>(a[i * rank + r]);
      for (std::size_t o = 0; o < outputs; ++o) sums[i * outputs + o] += left * static_cast<double>(b[r * outputs + o]);
    }
  const auto old = weight.as<float>();
  std::vector<float> values(old.size());
  for (std::size_t i = 0; i < inputs; ++i)
    for (std::size_t o = 0; o < outputs; ++o) {
      const std::size_t at = site.turned ? o * inputs + i : i * outputs + o;
      values[at] = static_cast<float>(static_cast<double>(old[at]) + sums[i * outputs + o]);
    }
  return Tensor::of<float>(DType::f32, weight.shape, values);
}

Tensor with_factors(const Tensor& weight, const AdapterSite& site, std::span<const float> change) {
  const auto old = weight.as<float>();
  const auto inner = static_cast<std::size_t>(site.turned ? site.inputs : site.outputs);
  std::vector<float> values(old.size());
  for (std::size_t at = 0; at < old.size(); ++at) {
    const std::size_t output = site.turned ? at / inner : at % inner;
    values[at] = static_cast<float>(static_cast<double>(old[at]) * (1 + static_cast<double>(change[output])));
  }
  return Tensor::of<float>(DType::f32, weight.shape, values);
}

}  // namespace

std::vector<AdapterSite> adapter_sites(const Graph& graph) {
  const Uses uses(graph);
  const auto only_reader = [&](const std::string& value) -> const Uses::Reader* {
    const auto& readers = uses.readers_of(value);
    const bool output =
        std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& border) { return border.name == value; });
    return readers.size() == 1 && !output ? &readers[0] : nullptr;
  };
  std::vector<std::string> captured;  // by bodies: readers that Uses does not list
  for (const auto& node : graph.nodes)
    for (auto& name : captures(node)) captured.push_back(std::move(name));
  std::map<std::string, RoundedWeight> rounded;
  for (auto& each : rounded_weights(graph)) {
    auto weight = each.weight;
    rounded.emplace(std::move(weight), std::move(each));
  }
  std::vector<AdapterSite> sites;
  for (const auto& [name, tensor] : graph.initializers) {
    if (tensor.dtype != DType::f32 || tensor.shape.size() != 2 || tensor.count() < 2) continue;
    if (std::find(captured.begin(), captured.end(), name) != captured.end()) continue;
    AdapterSite site{.weight = name, .node = 0, .turned = false, .inputs = tensor.shape[0], .outputs = tensor.shape[1]};
    const auto* reader = only_reader(name);
    if (const auto pair = rounded.find(name); reader && pair != rounded.end()) {
      site.quantize = static_cast<std::ptrdiff_t>(pair->second.quantize);
      reader = only_reader(pair->second.value);
    }
    if (reader && swaps_axes(graph.nodes[reader->node])) {
      site.turned = true;
      reader = only_reader(graph.nodes[reader->node].output(0));
    }
    if (!reader || reader->input != 1 || !is_product(graph.nodes[reader->node])) continue;
    const Node& product = graph.nodes[reader->node];
    if (product.op == "Gemm") {
      if (product.integer("transA", 0) != 0) continue;
      site.turned = site.turned != (product.integer("transB", 0) != 0);
    }
    if (site.turned) std::swap(site.inputs, site.outputs);
    site.node = reader->node;
    sites.push_back(std::move(site));
  }
  std::sort(sites.begin(), sites.end(), [](const auto& a, const auto& b) { return a.node < b.node; });
  return sites;
}

std::vector<std::string> Adapted::trainable() const {
  std::vector<std::string> names;
  for (const auto& adapter : adapters)
    for (const auto* name : {&adapter.down, &adapter.up, &adapter.change})
      if (!name->empty()) names.push_back(*name);
  return names;
}

Adapted add_lora(const Graph& graph, const std::vector<AdapterSite>& sites, std::int64_t rank, double alpha, std::uint64_t seed) {
  if (rank < 1) throw_invalid(fmt::format("rank = {} must be 1 or more", rank), "parameter rank");
  Inserter insert(graph);
  Adapted adapted;
  for (const auto& site : sites) {
    if (rank > std::min(site.inputs, site.outputs))
      throw_invalid(fmt::format("rank = {} is more than \"{}\" [{}, {}] has", rank, site.weight, site.inputs, site.outputs),
                    "parameter rank", "take a smaller rank, or narrow adapter_scope");
    const double scale = alpha / static_cast<double>(rank);
    Adapter adapter{.site = site, .down = {}, .up = {}, .change = {}, .scale = scale};
    adapter.down = insert.constant(
        site.weight + ".lora_A",
        gaussian({site.inputs, rank}, 1 / std::sqrt(static_cast<double>(site.inputs)), seed_for(seed, site.weight)));
    adapter.up = insert.constant(
        site.weight + ".lora_B",
        Tensor::of<float>(DType::f32, {rank, site.outputs}, std::vector<float>(static_cast<std::size_t>(rank * site.outputs), 0)));
    adapted.adapters.push_back(adapter);
    if (site.quantize >= 0) {
      insert.begin_weight(site);
      const auto factors = insert.constant(site.weight + ".lora_scale", scalar(scale));
      const auto high = insert.add("Mul", "lora/Mul", {adapter.up, factors});
      auto change = insert.add("MatMul", "lora/MatMul", {adapter.down, high});
      if (site.turned) change = insert.add("Transpose", "lora/Transpose", {change});
      insert.add("Add", "lora/Add", {site.weight, change});
      insert.finish_weight();
      continue;
    }
    const Node& product = graph.nodes[site.node];
    const auto factors = insert.constant(site.weight + ".lora_scale", scalar(scale * factor(product)));
    insert.begin(site.node);
    const auto base = insert.take_output();
    const auto low = insert.add("MatMul", "lora_A/MatMul", {product.inputs[0], adapter.down});
    const auto high = insert.add("MatMul", "lora_B/MatMul", {low, adapter.up});
    insert.add("Add", "lora/Add", {base, insert.add("Mul", "lora/Mul", {high, factors})});
    insert.finish();
  }
  adapted.graph = insert.done();
  return adapted;
}

Adapted add_ia3(const Graph& graph, const std::vector<AdapterSite>& sites) {
  Inserter insert(graph);
  Adapted adapted;
  for (const auto& site : sites) {
    Adapter adapter{.site = site, .down = {}, .up = {}, .change = {}, .scale = 1};
    adapter.change = insert.constant(
        site.weight + ".ia3",
        Tensor::of<float>(DType::f32, {site.outputs}, std::vector<float>(static_cast<std::size_t>(site.outputs), 0)));
    adapted.adapters.push_back(adapter);
    if (site.quantize >= 0) {
      insert.begin_weight(site);
      auto change = adapter.change;
      if (site.turned)
        change =
            insert.add("Reshape", "ia3/Reshape",
                       {change, insert.constant(site.weight + ".ia3_shape", Tensor::of<std::int64_t>(DType::i64, {2}, {-1, 1}))});
      insert.add("Add", "ia3/Add", {site.weight, insert.add("Mul", "ia3/Mul", {site.weight, change})});
      insert.finish_weight();
      continue;
    }
    insert.begin(site.node);
    Node& product = insert.graph().nodes[site.node];
    std::string bias;
    if (product.op == "Gemm" && !product.input(2).empty()) {  // the bias is not the weight's: it comes after the factor
      bias = product.inputs[2];
      product.inputs.resize(2);
      if (const double beta = product.number("beta", 1); beta != 1)
        bias = insert.add("Mul", "ia3/Bias", {bias, insert.constant(site.weight + ".ia3_beta", scalar(beta))});
    }
    const auto base = insert.take_output();
    const auto changed = insert.add("Mul", "ia3/Mul", {base, adapter.change});
    auto sum = insert.add("Add", "ia3/Add", {base, changed});
    if (!bias.empty()) insert.add("Add", "ia3/Add_bias", {sum, bias});
    insert.finish();
  }
  adapted.graph = insert.done();
  return adapted;
}

Graph merge_adapters(const Graph& base, const Graph& trained, const std::vector<Adapter>& adapters) {
  Graph result = base;
  for (const auto& adapter : adapters) {
    Tensor& weight = result.initializers.at(adapter.site.weight);
    const auto numbers = [&](const std::string& name) { return trained.initializers.at(name).as<float>(); };
    weight = adapter.change.empty() ? with_product(weight, adapter.site, numbers(adapter.down), numbers(adapter.up), adapter.scale)
                                    : with_factors(weight, adapter.site, numbers(adapter.change));
  }
  return result;
}

}  // namespace espalier
