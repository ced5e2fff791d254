#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <climits>
#include <map>
#include <set>

#include "formats/bounds.h"
#include "formats/onnx.h"
#include "formats/onnx_tensor.h"
#include "graph/op.h"
#include "onnx/onnx-ml.pb.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kDamaged = "the file is damaged";

class Reader {
 public:
  Reader(const ExternalResolver& external, const std::string& where) : external_(external), where_(where) {}

  Graph model(onnx::ModelProto& proto) {
    if (!proto.has_graph()) throw_invalid("the file holds no graph", where_, "is it an ONNX model?");
    if (proto.functions_size() > 0) {
      throw_unsupported("model-local function '" + proto.functions(0).name() + "'", where_, "inline the model's functions first");
    }
    if (proto.training_info_size() > 0) throw_unsupported("training information inside the model", where_);
    Graph graph;
    graph.opsets.clear();
    for (const auto& opset : proto.opset_import()) {
      if (opset.version() < 1)
        throw_invalid(fmt::format("opset {} of domain '{}'", opset.version(), opset.domain()), where_, kDamaged);
      graph.opsets[normal_domain(opset.domain())] = opset.version();
    }
    if (graph.opsets.empty()) graph.opsets[""] = 1;  // IR version 1 and 2 had none
    graph.ir_version = proto.ir_version();
    for (const auto& entry : proto.metadata_props()) graph.metadata[entry.key()] = entry.value();
    if (!proto.doc_string().empty()) graph.doc[""] = proto.doc_string();
    opsets_ = graph.opsets;
    fill(*proto.mutable_graph(), graph, true);
    graph.sort();
    rank_outputs(graph);
    graph.validate();
    return graph;
  }

 private:
  static std::string normal_domain(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

  void fill(onnx::GraphProto& proto, Graph& graph, bool top) {
    if (!proto.name().empty()) graph.name = proto.name();
    if (top && graph.doc.empty() && !proto.doc_string().empty()) graph.doc[""] = proto.doc_string();
    if (proto.sparse_initializer_size() > 0) {
      throw_unsupported("sparse initializer '" + proto.sparse_initializer(0).values().name() + "'", where_);
    }
    for (auto& tensor : *proto.mutable_initializer()) {
      const std::string name = tensor.name();
      if (name.empty()) throw_invalid("an initializer has no name", where_, kDamaged);
      add_initializer(graph, name, read_tensor(tensor, external_, "initializer '" + name + "'", where_));
      // Half of a large file's memory is here twice otherwise.
      tensor.Clear();
    }
    for (const auto& value : proto.input()) {
      // Before IR version 4 every initializer was an input too.
      if (!graph.initializers.count(value.name())) graph.inputs.push_back(border(value, "input", top, graph));
    }
    for (const auto& value : proto.output()) graph.outputs.push_back(border(value, "output", false, graph));
    for (auto& node : *proto.mutable_node()) add_node(node, graph);
    name_nodes(graph);
  }

  void add_initializer(Graph& graph, const std::string& name, Tensor tensor) {
    if (!graph.initializers.emplace(name, std::move(tensor)).second) {
      throw_invalid("initializer '" + name + "' is defined twice", where_, kDamaged);
    }
  }

  DType element_type(std::int32_t type, const std::string& what) const {
    if (type < 1 || type > kLastType) throw_unsupported(what + " has the element type " + onnx_type_name(type), where_);
    return static_cast<DType>(type);
  }

  /// Unknown type or rank: dtype undefined and no shape. A model's input must have both.
  Value border(const onnx::ValueInfoProto& proto, const std::string& kind, bool must_rank, Graph& graph) {
    const std::string what = kind + " '" + proto.name() + "'";
    if (proto.name().empty()) throw_invalid("an " + kind + " of the graph has no name", where_, kDamaged);
    if (!proto.doc_string().empty()) graph.doc[proto.name()] = proto.doc_string();
    Value value{proto.name(), DType::undefined, {}};
    const onnx::TypeProto* type = &proto.type();
    if (type->value_case() == onnx::TypeProto::kOptionalType) {
      value.optional = true;
      type = &type->optional_type().elem_type();
    }
    if (type->value_case() == onnx::TypeProto::kSequenceType) {
      value.sequence = true;
      type = &type->sequence_type().elem_type();
    }
    if (type->value_case() != onnx::TypeProto::kTensorType && type->value_case() != onnx::TypeProto::VALUE_NOT_SET) {
      throw_unsupported(what + " is no tensor", where_, "maps, sparse tensors and sequences of sequences are not read");
    }
    const auto& tensor = type->tensor_type();
    if (value.sequence) {
      value.dtype = element_type(tensor.elem_type(), what);
      return value;
    }
    if (!tensor.has_shape()) {
      if (must_rank) throw_unsupported(what + " has no shape", where_, "write the model with the ranks of its inputs");
      return value;
    }
    value.dtype = element_type(tensor.elem_type(), what);
    for (const auto& dim : tensor.shape().dim()) {
      const std::string unnamed = fmt::format("{}.dim{}", proto.name(), value.shape.size());
      if (dim.has_dim_value() && dim.dim_value() >= 0)
        value.shape.emplace_back(dim.dim_value());
      else
        value.shape.push_back(dim.has_dim_param() && !dim.dim_param().empty() ? parse_dim(dim.dim_param()) : Dim::symbol(unnamed));
    }
    return value;
  }

  void add_node(onnx::NodeProto& proto, Graph& graph) {
    const std::string what = fmt::format("node '{}' ({})", proto.name(), proto.op_type());
    if (proto.op_type().empty()) throw_invalid("node '" + proto.name() + "' has no operator", where_, kDamaged);
    if (!proto.overload().empty()) throw_unsupported(what + " names a function's overload", where_);
    Node node;
    node.op = proto.op_type();
    node.domain = normal_domain(proto.domain());
    node.name = proto.name();
    node.inputs.assign(proto.input().begin(), proto.input().end());
    node.outputs.assign(proto.output().begin(), proto.output().end());
    for (auto& attribute : *proto.mutable_attribute()) {
      if (!node.attributes.emplace(attribute.name(), read_attribute(attribute, what)).second) {
        throw_invalid(what + " has attribute '" + attribute.name() + "' twice", where_, kDamaged);
      }
    }
    if (node.op == "Constant" && node.domain.empty()) {
      if (node.outputs.size() != 1 || node.outputs[0].empty()) throw_invalid(what + " has no output", where_, kDamaged);
      add_initializer(graph, node.outputs[0], constant(node, what));
      return;
    }
    graph.nodes.push_back(std::move(node));
  }

  Tensor constant(Node& node, const std::string& what) {
    if (node.attributes.size() != 1) throw_invalid(fmt::format("{} has {} values", what, node.attributes.size()), where_, kDamaged);
    auto& [name, value] = *node.attributes.begin();
    const auto floats = [](const std::vector<double>& values) { return std::vector<float>(values.begin(), values.end()); };
    const auto list = [](std::size_t size) { return std::vector<std::int64_t>{static_cast<std::int64_t>(size)}; };
    if (name == "value" && std::holds_alternative<Tensor>(value)) return std::get<Tensor>(std::move(value));
    if (name == "value_int" && std::holds_alternative<std::int64_t>(value)) {
      return Tensor::of<std::int64_t>(DType::i64, {}, {std::get<std::int64_t>(value)});
    }
    if (name == "value_float" && std::holds_alternative<double>(value))
      return Tensor::of<float>(DType::f32, {}, floats({std::get<double>(value)}));
    if (const auto* ints = std::get_if<std::vector<std::int64_t>>(&value); ints && name == "value_ints") {
      return Tensor::of<std::int64_t>(DType::i64, list(ints->size()), *ints);
    }
    if (const auto* numbers = std::get_if<std::vector<double>>(&value); numbers && name == "value_floats") {
      return Tensor::of<float>(DType::f32, list(numbers->size()), floats(*numbers));
    }
    Tensor text;
    text.dtype = DType::string;
    if (const auto* one = std::get_if<std::string>(&value); one && name == "value_string") {
      text.strings = {*one};
      return text;
    }
    if (const auto* many = std::get_if<std::vector<std::string>>(&value); many && name == "value_strings") {
      text.strings = *many;
      text.shape = list(many->size());
      return text;
    }
    throw_unsupported(what + " has its value in attribute '" + name + "'", where_);
  }

  Attribute read_attribute(onnx::AttributeProto& proto, const std::string& node) {
    const std::string what = "attribute '" + proto.name() + "' of " + node;
    if (proto.name().empty()) throw_invalid("an attribute of " + node + " has no name", where_, kDamaged);
    if (!proto.ref_attr_name().empty())
      throw_invalid(what + " refers to a function's attribute outside a function", where_, kDamaged);
    switch (proto.type() == onnx::AttributeProto::UNDEFINED ? guessed_type(proto) : proto.type()) {
      case onnx::AttributeProto::INT:
        return proto.i();
      case onnx::AttributeProto::FLOAT:
        return static_cast<double>(proto.f());
      case onnx::AttributeProto::STRING:
        return proto.s();
      case onnx::AttributeProto::INTS:
        return std::vector<std::int64_t>(proto.ints().begin(), proto.ints().end());
      case onnx::AttributeProto::FLOATS:
        return std::vector<double>(proto.floats().begin(), proto.floats().end());
      case onnx::AttributeProto::STRINGS:
        return std::vector<std::string>(proto.strings().begin(), proto.strings().end());
      case onnx::AttributeProto::TENSOR:
        return read_tensor(*proto.mutable_t(), external_, what, where_);
      case onnx::AttributeProto::GRAPH:
        return subgraph(*proto.mutable_g());
      case onnx::AttributeProto::GRAPHS: {
        std::vector<std::shared_ptr<Graph>> graphs;
        for (auto& graph : *proto.mutable_graphs()) graphs.push_back(subgraph(graph));
        return graphs;
      }
      default:
        break;
    }
    throw_unsupported(what + " is of type " + onnx::AttributeProto::AttributeType_Name(proto.type()), where_);
  }

  /// Files of IR version 1 do not say which field they filled.
  static onnx::AttributeProto::AttributeType guessed_type(const onnx::AttributeProto& proto) {
    using A = onnx::AttributeProto;
    if (proto.has_i()) return A::INT;
    if (proto.has_f()) return A::FLOAT;
    if (proto.has_s()) return A::STRING;
    if (proto.has_t()) return A::TENSOR;
    if (proto.has_g()) return A::GRAPH;
    if (proto.ints_size() > 0) return A::INTS;
    if (proto.floats_size() > 0) return A::FLOATS;
    if (proto.strings_size() > 0) return A::STRINGS;
    if (proto.graphs_size() > 0) return A::GRAPHS;
    return A::UNDEFINED;
  }

  std::shared_ptr<Graph> subgraph(onnx::GraphProto& proto) {
    auto graph = std::make_shared<Graph>();
    graph->opsets = opsets_;
    fill(proto, *graph, false);
    return graph;
  }

  /// Every node gets a name of its own; real files leave them out or repeat them.
  static void name_nodes(Graph& graph) {
    std::set<std::string> taken;
    std::vector<Node*> nameless;
    for (Node& node : graph.nodes) {
      if (node.name.empty() || !taken.insert(node.name).second) nameless.push_back(&node);
    }
    std::map<std::string, std::size_t> next;
    for (Node* node : nameless) {
      const std::string stem = node->name.empty() ? node->op : node->name;
      std::string name;
      do {
        name = fmt::format("{}_{}", stem, next[stem]++);
      } while (!taken.insert(name).second);
      node->name = name;
    }
  }

  /// Outputs that the file gives no rank for get the one that the operators give them.
  void rank_outputs(Graph& graph) {
    const bool all =
        std::all_of(graph.outputs.begin(), graph.outputs.end(), [](const Value& v) { return v.dtype != DType::undefined; });
    if (all) return;
    const ValueMap values = infer(graph);
    for (Value& output : graph.outputs) {
      if (output.dtype != DType::undefined) continue;
      const auto info = values.find(output.name);
      if (info == values.end() || !info->second.rank_known || info->second.dtype == DType::undefined) {
        throw_unsupported("output '" + output.name + "' has no shape, and it cannot be derived", where_,
                          "write the model with inferred shapes");
      }
      output.dtype = info->second.dtype;
      output.shape = info->second.shape;
    }
  }

  const ExternalResolver& external_;
  const std::string& where_;
  std::map<std::string, std::int64_t> opsets_;
};

/// Finds external data beside the model's file; each data file is mapped once.
class FolderResolver {
 public:
  explicit FolderResolver(const std::filesystem::path& file) : where_(file.string()), folder_(file.parent_path()) {
    if (folder_.empty()) folder_ = ".";
  }

  ExternalBytes operator()(const std::string& location, std::uint64_t offset, std::uint64_t length, const std::string& tensor) {
    const std::string what = "initializer '" + tensor + "'";
    const auto found = files_.find(location);
    const MappedFile& data = found != files_.end() ? found->second : files_.emplace(location, open(location, what)).first->second;
    if (!within(offset, length, data.bytes().size())) {
      throw_invalid(fmt::format("{} lies at {}, {} bytes long, outside '{}', which has {} bytes", what, offset, length, location,
                                data.bytes().size()),
                    where_, "the data file is another model's, or was cut short");
    }
    return {data.bytes().subspan(offset, length), data.owner()};
  }

 private:
  MappedFile open(const std::string& location, const std::string& what) const {
    const std::filesystem::path path(location);
    const bool climbs = std::any_of(path.begin(), path.end(), [](const auto& part) { return part == ".."; });
    if (location.empty() || location.find('\0') != std::string::npos || path.is_absolute() || climbs) {
      throw_invalid(what + " has its data in '" + location + "'; data must lie in the model's own folder", where_,
                    "a model from elsewhere may not name other files of this machine");
    }
    std::error_code error;
    const auto root = std::filesystem::canonical(folder_, error);
    const auto real = std::filesystem::canonical(folder_ / path, error);
    if (error)
      throw_invalid(what + " has its data in '" + location + "', which cannot be opened: " + error.message(), where_,
                    "copy it beside the model");
    const auto [end, rest] = std::mismatch(root.begin(), root.end(), real.begin(), real.end());
    if (end != root.end()) {
      throw_invalid(what + " has its data in '" + location + "', a link that leaves the model's folder", where_,
                    "copy the file there instead");
    }
    if (!std::filesystem::is_regular_file(real, error))
      throw_invalid(what + " has its data in '" + location + "', which is no file", where_);
    return MappedFile(real);
  }

  std::string where_;
  std::filesystem::path folder_;
  std::map<std::string, MappedFile> files_;
};

}  // namespace

Graph parse_onnx(std::span<const std::byte> bytes, std::shared_ptr<const void>, const ExternalResolver& external,
                 const std::string& where) {
  if (bytes.size() > INT_MAX) {
    throw_unsupported(fmt::format("the file has {} bytes; protobuf messages end at 2 GB", bytes.size()), where,
                      "store the weights as external data");
  }
  onnx::ModelProto proto;
  google::protobuf::io::ArrayInputStream array(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::CodedInputStream stream(&array);
  stream.SetTotalBytesLimit(INT_MAX);
  if (!proto.ParseFromCodedStream(&stream) || !stream.ConsumedEntireMessage()) {
    throw_invalid("this is no ONNX model (its protobuf encoding is broken)", where, "the file is damaged or was cut short");
  }
  return Reader(external, where).model(proto);
}

Graph read_onnx(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  FolderResolver resolver(file);
  return parse_onnx(mapped.bytes(), mapped.owner(), std::ref(resolver), file.string());
}

}  // namespace espalier
