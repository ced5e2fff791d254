#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <climits>
#include <optional>

#include "formats/file_aside.h"
#include "formats/onnx.h"
#include "formats/onnx_tensor.h"
#include "onnx/onnx-ml.pb.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kPiece = 16 << 20;  // what is written between two reports of progress
constexpr std::int64_t kOldestIr = 3;

/// Where an initializer's bytes lie outside the message; an empty location means inside.
struct Extent {
  std::string location;
  std::uint64_t offset = 0;
};
using Placement = std::function<Extent(const std::string& name, const Tensor& tensor)>;

void write_value(const Value& value, const std::string& doc, onnx::ValueInfoProto& proto) {
  proto.set_name(value.name);
  if (!doc.empty()) proto.set_doc_string(doc);
  if (value.dtype == DType::undefined) return;  // a branch's output whose type the file left open
  auto* type = proto.mutable_type();
  if (value.optional) type = type->mutable_optional_type()->mutable_elem_type();
  if (value.sequence) type = type->mutable_sequence_type()->mutable_elem_type();
  auto* tensor = type->mutable_tensor_type();
  tensor->set_elem_type(static_cast<std::int32_t>(value.dtype));
  if (value.sequence) return;  // its elements' shapes may differ
  auto* shape = tensor->mutable_shape();
  for (const Dim& dim : value.shape) {
    if (dim.known())
      shape->add_dim()->set_dim_value(dim.value());
    else
      shape->add_dim()->set_dim_param(dim.text());
  }
}

void write_graph(const Graph& graph, onnx::GraphProto& proto, const Placement& place);

void write_attribute(const std::string& name, const Attribute& value, onnx::AttributeProto& proto) {
  using A = onnx::AttributeProto;
  const Placement inside = [](const std::string&, const Tensor&) { return Extent{}; };
  proto.set_name(name);
  struct Visitor {
    A& proto;
    const Placement& inside;
    void operator()(std::int64_t v) const { proto.set_type(A::INT), proto.set_i(v); }
    void operator()(double v) const { proto.set_type(A::FLOAT), proto.set_f(static_cast<float>(v)); }
    void operator()(const std::string& v) const { proto.set_type(A::STRING), proto.set_s(v); }
    void operator()(const std::vector<std::int64_t>& v) const {
      proto.set_type(A::INTS);
      for (const auto item : v) proto.add_ints(item);
    }
    void operator()(const std::vector<double>& v) const {
      proto.set_type(A::FLOATS);
      for (const auto item : v) proto.add_floats(static_cast<float>(item));
    }
    void operator()(const std::vector<std::string>& v) const {
      proto.set_type(A::STRINGS);
      for (const auto& item : v) proto.add_strings(item);
    }
    void operator()(const Tensor& v) const { proto.set_type(A::TENSOR), write_tensor(v, "", *proto.mutable_t()); }
    void operator()(const std::shared_ptr<Graph>& v) const {
      proto.set_type(A::GRAPH), write_graph(*v, *proto.mutable_g(), inside);
    }
    void operator()(const std::vector<std::shared_ptr<Graph>>& v) const {
      proto.set_type(A::GRAPHS);
      for (const auto& item : v) write_graph(*item, *proto.add_graphs(), inside);
    }
  };
  std::visit(Visitor{proto, inside}, value);
}

void write_graph(const Graph& graph, onnx::GraphProto& proto, const Placement& place) {
  const auto doc = [&](const std::string& name) {
    const auto found = graph.doc.find(name);
    return found == graph.doc.end() ? std::string() : found->second;
  };
  proto.set_name(graph.name);
  for (const Value& value : graph.inputs) write_value(value, doc(value.name), *proto.add_input());
  for (const Value& value : graph.outputs) write_value(value, doc(value.name), *proto.add_output());
  for (const auto& [name, tensor] : graph.initializers) {
    auto* item = proto.add_initializer();
    const Extent extent = place(name, tensor);
    write_tensor(tensor, name, *item, !extent.location.empty());
    if (extent.location.empty()) continue;
    item->set_data_location(onnx::TensorProto::EXTERNAL);
    const auto add = [&](const char* key, const std::string& value) {
      auto* entry = item->add_external_data();
      entry->set_key(key);
      entry->set_value(value);
    };
    add("location", extent.location);
    add("offset", std::to_string(extent.offset));
    add("length", std::to_string(tensor.bytes.size()));
  }
  for (const Node& node : graph.nodes) {
    auto* item = proto.add_node();
    item->set_op_type(node.op);
    item->set_name(node.name);
    if (!node.domain.empty()) item->set_domain(node.domain);
    for (const auto& input : node.inputs) item->add_input(input);
    for (const auto& output : node.outputs) item->add_output(output);
    for (const auto& [name, value] : node.attributes) write_attribute(name, value, *item->add_attribute());
  }
}

std::string serialize(const Graph& graph, const Placement& place) {
  onnx::ModelProto model;
  model.set_ir_version(std::max(graph.ir_version, kOldestIr));
  model.set_producer_name("espalier");
  for (const auto& [domain, version] : graph.opsets) {
    auto* opset = model.add_opset_import();
    opset->set_domain(domain);
    opset->set_version(version);
  }
  for (const auto& [key, value] : graph.metadata) {
    auto* entry = model.add_metadata_props();
    entry->set_key(key);
    entry->set_value(value);
  }
  if (const auto doc = graph.doc.find(""); doc != graph.doc.end()) model.set_doc_string(doc->second);
  write_graph(graph, *model.mutable_graph(), place);
  const std::size_t size = model.ByteSizeLong();
  if (size > INT_MAX) {
    throw_unsupported(fmt::format("the model has {} bytes without its external data; protobuf messages end at 2 GB", size),
                      graph.name, "let smaller initializers go into external data");
  }
  std::string out;
  out.reserve(size);
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    model.SerializeWithCachedSizes(&coded);
    if (coded.HadError()) throw Error(ErrorCode::internal, "protobuf could not serialize the model", graph.name);
  }
  return out;
}

bool goes_outside(const Tensor& tensor, std::uint64_t inline_below) {
  return tensor.dtype != DType::string && tensor.bytes.size() >= std::max<std::uint64_t>(inline_below, 1);
}

}  // namespace

std::string serialize_onnx(const Graph& graph, std::uint64_t inline_below,
                           const std::function<std::string(const std::string&)>& location) {
  return serialize(graph, [&](const std::string& name, const Tensor& tensor) {
    return goes_outside(tensor, inline_below) ? Extent{location(name), 0} : Extent{};
  });
}

void write_onnx(const Graph& graph, const std::filesystem::path& file, const OnnxWriteOptions& options) {
  std::map<std::string, std::uint64_t> offsets;
  std::uint64_t end = 0;
  for (const auto& [name, tensor] : graph.initializers) {
    if (!goes_outside(tensor, options.inline_below)) continue;
    end = (end + kPage - 1) / kPage * kPage;
    offsets[name] = end;
    end += tensor.bytes.size();
  }
  const std::string message = serialize(graph, [&](const std::string& name, const Tensor&) {
    const auto found = offsets.find(name);
    return found == offsets.end() ? Extent{} : Extent{options.data_name, found->second};
  });

  std::optional<FileAside> data;
  if (!offsets.empty()) {
    data.emplace(file.parent_path() / options.data_name);
    for (const auto& [name, offset] : offsets) {
      data->pad_to(offset);
      for (std::span<const std::byte> rest = graph.initializers.at(name).bytes; !rest.empty();) {
        const std::size_t piece = std::min<std::size_t>(rest.size(), kPiece);
        data->write(rest.first(piece));
        rest = rest.subspan(piece);
        if (options.progress) options.progress(data->size(), end);
      }
    }
    data->finish();
  }
  FileAside model(file);
  model.write(std::as_bytes(std::span(message)));
  model.finish();
  if (options.progress) options.progress(end, end);
  if (data) data->commit();
  model.commit();
}

}  // namespace espalier
