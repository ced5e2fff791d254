#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "graph/passes/pattern.h"
#include "sdk/digest.h"

namespace espalier {
namespace {

constexpr std::int64_t large = 4096;  // elements

/// Two initializers that happen to hold the same small numbers (gains of one, biases of zero) are different parameters; sharing is
/// for constants and for weights that were stored twice.
bool may_be_shared(const Tensor& tensor) {
  if (tensor.dtype == DType::string || bits(tensor.dtype) == 0) return false;
  if (!is_floating(tensor.dtype)) return true;
  if (tensor.shape.empty()) return true;
  if (tensor.count() < large) return false;
  const auto width = static_cast<std::size_t>(std::max(1, bits(tensor.dtype) / 8));
  return tensor.bytes.size() > width &&
         std::memcmp(tensor.bytes.data(), tensor.bytes.data() + width, tensor.bytes.size() - width) != 0;
}

/// Enough to tell most tensors apart without hashing them.
std::string outline(const Tensor& tensor) {
  std::string key = fmt::format("{}:", static_cast<int>(tensor.dtype));
  for (auto length : tensor.shape) key += fmt::format("{},", length);
  const auto some = std::min<std::size_t>(tensor.bytes.size(), 64);
  key.append(reinterpret_cast<const char*>(tensor.bytes.data()), some);
  key.append(reinterpret_cast<const char*>(tensor.bytes.data() + tensor.bytes.size() - some), some);
  return key;
}

std::int64_t share_initializers(Graph& graph) {
  std::map<std::string, std::vector<std::string>> alike;
  for (const auto& [name, tensor] : graph.initializers)
    if (may_be_shared(tensor)) alike[outline(tensor)].push_back(name);
  std::vector<std::pair<std::string, std::string>> same;
  for (const auto& [key, names] : alike) {
    if (names.size() < 2) continue;
    std::map<Digest, std::string> first;
    for (const auto& name : names) {
      const auto [at, fresh] = first.emplace(graph.initializers.at(name).digest(), name);
      const bool border = std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == name; });
      if (!fresh && !border) same.emplace_back(name, at->second);
    }
  }
  for (const auto& [from, to] : same) replace_uses(graph, from, to);
  return static_cast<std::int64_t>(same.size());
}

/// Writes an attribute into a node's key.
struct AttributeEncoder {
  KeyEncoder& key;

  void operator()(std::int64_t v) const { key.integer(v); }
  void operator()(double v) const {
    std::int64_t raw;
    std::memcpy(&raw, &v, sizeof raw);
    key.text("f");
    key.integer(raw);
  }
  void operator()(const std::string& v) const { key.text(v); }
  void operator()(const Tensor& tensor) const {
    key.begin("tensor");
    key.integer(static_cast<std::int64_t>(tensor.dtype));
    (*this)(tensor.shape);
    (*this)(tensor.strings);
    key.digest(tensor.digest());
    key.end();
  }
  void operator()(const std::shared_ptr<Graph>&) const {}  // never asked: nodes with bodies are left alone
  template <class T>
  void operator()(const std::vector<T>& list) const {
    key.begin("list");
    for (const auto& v : list) (*this)(v);
    key.end();
  }
};

bool repeatable(const Node& node) {
  for (const auto* random :
       {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"})
    if (node.op == random) return false;
  for (const auto& [name, attribute] : node.attributes)
    if (std::holds_alternative<std::shared_ptr<Graph>>(attribute) ||
        std::holds_alternative<std::vector<std::shared_ptr<Graph>>>(attribute))
      return false;
  return node.domain.empty() && !node.outputs.empty();
}

std::int64_t merge_nodes(Graph& graph) {
  std::map<Digest, std::size_t> seen;
  std::map<std::string, std::string> stands_for;
  std::vector<std::pair<std::string, std::string>> same;
  std::int64_t merged = 0;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto& node = graph.nodes[i];
    if (!repeatable(node)) continue;
    KeyEncoder key;
    key.text(node.op);
    for (const auto& input : node.inputs) {
      const auto found = stands_for.find(input);
      key.text(found == stands_for.end() ? input : found->second);
    }
    for (const auto& output : node.outputs) key.integer(output.empty());
    for (const auto& [name, attribute] : node.attributes) {
      key.begin(name);
      std::visit(AttributeEncoder{key}, attribute);
      key.end();
    }
    const auto [at, fresh] = seen.emplace(key.finish(), i);
    if (fresh) continue;
    const auto& first = graph.nodes[at->second];
    const bool border = std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) {
      return std::find(node.outputs.begin(), node.outputs.end(), v.name) != node.outputs.end();
    });
    if (border) continue;
    for (std::size_t k = 0; k < node.outputs.size(); ++k) {
      if (node.outputs[k].empty()) continue;
      stands_for[node.outputs[k]] = first.outputs[k];
      same.emplace_back(node.outputs[k], first.outputs[k]);
    }
    ++merged;
  }
  for (const auto& [from, to] : same) replace_uses(graph, from, to);
  return merged;
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  const auto shared = share_initializers(graph), merged = merge_nodes(graph);
  if (shared + merged == 0) return 0;
  remove_dead(graph);
  if (shared > 0) notes.push_back(fmt::format("shared {} constants that were stored more than once", shared));
  if (merged > 0) notes.push_back(fmt::format("merged {} nodes that computed the same", merged));
  return shared + merged;
}

const RegisterPass registered(40, {"common-subexpressions", "computes and stores the same thing once", run});

}  // namespace
}  // namespace espalier
