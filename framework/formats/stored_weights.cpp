#include "formats/stored_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>

#include "formats/file_aside.h"
#include "formats/float_values.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::int64_t kPiece = 1 << 20;

bool is_half(DType type) { return type == DType::f16 || type == DType::bf16; }

/// A weight by the name that its readers know, and the Cast that makes it (-1: it is the initializer itself).
struct Weight {
  std::string name, initializer;
  std::ptrdiff_t cast = -1;
};

std::vector<Weight> weights(const Graph& graph, const std::vector<std::string>& names, DType type) {
  std::vector<Weight> found;
  for (const std::string& name : names)
    if (const Tensor* tensor = graph.initializer(name); tensor && tensor->dtype == DType::f32 && type != DType::f32)
      found.push_back({name, name, -1});
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (node.op != "Cast" || !node.domain.empty() || node.integer("to", 0) != static_cast<std::int64_t>(DType::f32)) continue;
    if (const Tensor* tensor = graph.initializer(node.input(0)); tensor && is_half(tensor->dtype) && tensor->dtype != type)
      found.push_back({node.output(0), node.input(0), static_cast<std::ptrdiff_t>(i)});
  }
  return found;
}

/// The converted tensors, mapped from a file that has lost its name.
std::vector<Tensor> converted(const Graph& graph, const std::vector<Weight>& list, DType type, const std::filesystem::path& folder,
                              const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  std::vector<std::uint64_t> offsets;
  std::uint64_t all = 0;
  for (const Weight& weight : list) {
    offsets.push_back(all);
    all += (byte_size(type, graph.initializers.at(weight.initializer).count()) + 63) / 64 * 64;
  }
  FileAside file(folder / ".weights");
  std::vector<float> values;
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Tensor& tensor = graph.initializers.at(list[i].initializer);
    file.pad_to(offsets[i]);
    for (std::int64_t first = 0; first < tensor.count(); first += kPiece) {
      values.resize(static_cast<std::size_t>(std::min(kPiece, tensor.count() - first)));
      read_floats(tensor, first, static_cast<std::int64_t>(values.size()), values.data());
      bytes.resize(values.size() * static_cast<std::size_t>(bits(type) / 8));
      write_floats(values, type, bytes.data(), list[i].name);
      file.write(bytes);
      if (progress) progress(file.size(), all);
    }
    MappedFile::release(tensor.owner, tensor.bytes);
  }
  const MappedFile mapped = file.map();
  std::vector<Tensor> made;
  for (std::size_t i = 0; i < list.size(); ++i) {
    Tensor tensor;
    tensor.dtype = type;
    tensor.shape = graph.initializers.at(list[i].initializer).shape;
    tensor.bytes = mapped.bytes().subspan(offsets[i], byte_size(type, tensor.count()));
    tensor.owner = mapped.owner();
    made.push_back(std::move(tensor));
  }
  return made;
}

}  // namespace

void store_weights(Graph& graph, const std::vector<std::string>& names, DType type, const std::filesystem::path& folder,
                   const std::function<void(std::uint64_t done, std::uint64_t all)>& progress) {
  const std::vector<Weight> list = weights(graph, names, type);
  if (list.empty()) return;
  if (type == DType::bf16 && graph.opset() < 13)
    throw_unsupported(fmt::format("the model is of opset {}; bfloat16 needs 13", graph.opset()), graph.name,
                      "store f16, or export the model with a newer opset");
  std::vector<Tensor> made = converted(graph, list, type, folder, progress);
  std::vector<Node> casts;
  std::set<std::size_t> gone;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Weight& weight = list[i];
    if (weight.cast >= 0) gone.insert(static_cast<std::size_t>(weight.cast));
    if (weight.cast < 0) graph.initializers.erase(weight.name);
    if (type == DType::f32) {
      graph.initializers[weight.name] = std::move(made[i]);
      continue;
    }
    const std::string held = graph.fresh(weight.name + (type == DType::f16 ? ".f16" : ".bf16"));
    graph.initializers[held] = std::move(made[i]);
    const std::string node = weight.cast >= 0 ? graph.nodes[static_cast<std::size_t>(weight.cast)].name : weight.name + "/Cast";
    casts.push_back({"Cast", "", node, {held}, {weight.name}, {{"to", static_cast<std::int64_t>(DType::f32)}}});
  }
  std::vector<Node> nodes = std::move(casts);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i)
    if (!gone.contains(i)) nodes.push_back(std::move(graph.nodes[i]));
  graph.nodes = std::move(nodes);
  const Uses uses(graph);  // what only a Cast read has no reader now
  for (const Weight& weight : list)
    if (weight.initializer != weight.name && uses.readers_of(weight.initializer).empty())
      graph.initializers.erase(weight.initializer);
  graph.sort();
  graph.validate();
}

}  // namespace espalier
