#include "formats/model_artifact.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <mutex>
#include <set>

#include "formats/bounds.h"
#include "formats/onnx.h"
#include "graph/op.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::uint64_t kInline = 64 * 1024;
constexpr std::size_t kLongestName = 200;
constexpr const char* kGraph = "graph.onnx";
constexpr const char* kTokenizer = "tokenizer.json";
constexpr const char* kTokenizerBlob = "espalier.tokenizer.blob";

/// The blob's logical name, which is also the location that the graph's blob names.
std::string blob_name(const std::string& tensor) {
  const std::string name = escaped_name(tensor);
  return "tensors/" + (name.size() <= kLongestName ? name : sha256(tensor).hex());
}

/// Tokenizers that this process has stored, by artifact digest: a source stores its tokenizer, names it in the graph by digest, and
/// stores the model, which takes the tokenizer's bytes along so that every package can be made from the model alone.
struct Saved {
  std::mutex mutex;
  std::map<std::string, BlobRef> blobs;
};
Saved& saved() {
  static Saved tokenizers;
  return tokenizers;
}

std::string text_of(const BlobRef& blob) { return fmt::format("{}:{}", blob.digest.hex(), blob.size); }

std::optional<BlobRef> blob_of(const std::string& text) {
  BlobRef blob;
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) return std::nullopt;
  const auto digest = Digest::from_hex(std::string_view(text).substr(0, colon));
  const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), blob.size);
  if (!digest || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  blob.digest = *digest;
  return blob;
}

std::optional<BlobRef> tokenizer_blob(const Graph& graph) {
  const auto tokenizer = graph.metadata.find("espalier.tokenizer");
  if (tokenizer == graph.metadata.end()) return std::nullopt;
  {
    const std::lock_guard lock(saved().mutex);
    const auto found = saved().blobs.find(tokenizer->second);
    if (found != saved().blobs.end()) return found->second;
  }
  const auto blob = graph.metadata.find(kTokenizerBlob);
  return blob == graph.metadata.end() ? std::nullopt : blob_of(blob->second);
}

}  // namespace

Json describe_values(const std::vector<Value>& values) {
  Json list = Json::array();
  for (const Value& value : values) {
    Json shape = Json::array();
    for (const Dim& dim : value.shape) shape.push_back(dim.known() ? Json(dim.value()) : Json(dim.text()));
    list.push_back({{"name", value.name}, {"dtype", to_string(value.dtype)}, {"shape", std::move(shape)}});
  }
  return list;
}

Graph load_model(const Context& context, const Artifact& artifact) {
  const std::string where = "model " + artifact.digest().hex().substr(0, 12);
  const auto blob_at = [&](const std::string& name) -> const BlobRef& {
    const auto found = artifact.blobs.find(name);
    if (found != artifact.blobs.end()) return found->second;
    throw Error(ErrorCode::corrupt, "the artifact has no blob '" + name + "'", where,
                "run `espalier verify --repair`, then run the recipe again");
  };
  const MappedFile file = context.map(blob_at(kGraph));
  Graph graph = parse_onnx(
      file.bytes(), file.owner(),
      [&](const std::string& location, std::uint64_t offset, std::uint64_t length, const std::string& tensor) {
        const MappedFile data = context.map(blob_at(location));
        if (!within(offset, length, data.bytes().size())) {
          throw Error(ErrorCode::corrupt,
                      fmt::format("tensor '{}' needs {} bytes, its blob has {}", tensor, length, data.bytes().size()), where,
                      "run `espalier verify --repair`, then run the recipe again");
        }
        return ExternalBytes{data.bytes().subspan(offset, length), data.owner()};
      },
      where);
  for (auto& [name, tensor] : graph.initializers) {
    const auto blob = artifact.blobs.find(blob_name(name));
    if (blob != artifact.blobs.end() && blob->second.size == tensor.bytes.size()) tensor.known = blob->second.digest;
  }
  if (const auto blob = artifact.blobs.find(kTokenizer); blob != artifact.blobs.end())
    graph.metadata[kTokenizerBlob] = text_of(blob->second);
  return graph;
}

namespace {

/// Work and memory of one position of one example (every free dimension 1, no past), for estimates: multiply-accumulates, and the
/// bytes of all values that data flows through. Nothing for a graph whose shapes cannot be told.
void add_costs(Json& meta, const Graph& graph) {
  try {
    const ValueMap values = infer(graph);
    std::set<std::string> constant{""};
    for (const auto& [name, tensor] : graph.initializers) constant.insert(name);
    double macs = 0, bytes = 0;
    for (const Node& node : graph.nodes) {
      const bool fixed =
          std::all_of(node.inputs.begin(), node.inputs.end(), [&](const auto& name) { return constant.contains(name); });
      if (fixed) constant.insert(node.outputs.begin(), node.outputs.end());
      if (fixed) continue;
      const Cost own = cost(graph, values, node, {{"past", 0}});
      macs += own.macs;
      bytes += own.bytes_written;
    }
    meta["macs"] = macs;
    meta["activation_bytes"] = bytes;
  } catch (const Error&) {}
}

}  // namespace

Artifact save_model(Context& context, const Graph& graph) {
  Artifact artifact;
  artifact.type = ArtifactType::model;
  for (const auto& [name, tensor] : graph.initializers) {
    if (tensor.dtype == DType::string || tensor.bytes.size() < kInline) continue;
    context.check_cancelled();
    const BlobRef blob = tensor.known ? context.put(tensor.bytes, *tensor.known) : context.put(tensor.bytes);
    tensor.known = blob.digest;
    artifact.blobs[blob_name(name)] = blob;
  }
  const auto tokenizer = tokenizer_blob(graph);
  Graph stored = graph;  // structure only, the bytes are shared
  stored.metadata.erase(kTokenizerBlob);
  const std::string message = serialize_onnx(stored, kInline, blob_name);
  artifact.blobs[kGraph] = context.put(std::as_bytes(std::span(message)));
  if (tokenizer) artifact.blobs[kTokenizer] = *tokenizer;

  const auto meta = [&](const char* key, const char* from) {
    if (const auto found = graph.metadata.find(from); found != graph.metadata.end()) artifact.meta[key] = found->second;
  };
  meta("task", "espalier.task");
  meta("tokenizer", "espalier.tokenizer");
  artifact.meta["parameters"] = graph.parameter_count();
  artifact.meta["weight_bytes"] = graph.weight_bytes();
  add_costs(artifact.meta, graph);
  artifact.meta["inputs"] = describe_values(graph.inputs);
  artifact.meta["outputs"] = describe_values(graph.outputs);
  return artifact;
}

std::function<Tensor(Tensor)> into_store(Context& context) {
  return [&context](Tensor tensor) {
    if (tensor.bytes.size() < kInline) return tensor;
    context.check_cancelled();
    const BlobRef blob = context.put(tensor.bytes);
    const MappedFile file = context.map(blob);
    tensor.bytes = file.bytes();
    tensor.owner = file.owner();
    tensor.known = blob.digest;
    return tensor;
  };
}

std::shared_ptr<Tokenizer> load_tokenizer(const Context& context, const Artifact& artifact) {
  const std::string where = "tokenizer " + artifact.digest().hex().substr(0, 12);
  if (const auto absent = artifact.meta.value("absent", std::string()); !absent.empty())
    throw_invalid("the tokenizer is empty: " + absent, where, "give that stage a tokenizer, or name another stage's");
  const auto blob = artifact.blobs.find(kTokenizer);
  if (blob == artifact.blobs.end())
    throw Error(ErrorCode::corrupt, "the artifact has no blob 'tokenizer.json'", where, "run `espalier verify --repair`");
  const MappedFile file = context.map(blob->second);
  return Tokenizer::from_json({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, where);
}

Artifact save_tokenizer(Context& context, const Tokenizer& tokenizer) {
  Artifact artifact;
  artifact.type = ArtifactType::tokenizer;
  const std::string json = tokenizer.json();
  const BlobRef blob = context.put(std::as_bytes(std::span(json)));
  artifact.blobs[kTokenizer] = blob;
  artifact.meta["vocabulary"] = tokenizer.vocabulary();
  if (tokenizer.bos() >= 0) artifact.meta["bos"] = tokenizer.bos();
  if (tokenizer.eos() >= 0) artifact.meta["eos"] = tokenizer.eos();
  const std::lock_guard lock(saved().mutex);
  saved().blobs[artifact.digest().hex()] = blob;
  return artifact;
}

}  // namespace espalier
