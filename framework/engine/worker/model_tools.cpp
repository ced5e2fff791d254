// Looking at, and running, a model file outside of any recipe: the worker's side of `espalier model`.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "engine/tools/tools.h"
#include "formats/bounds.h"
#include "formats/model_file.h"
#include "formats/npy.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "run/session.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

Json border(const std::vector<Value>& values) {
  Json list = Json::array();
  for (const Value& value : values) {
    Json shape = Json::array();
    for (const Dim& dim : value.shape) shape.push_back(dim.known() ? Json(dim.value()) : Json(dim.text()));
    list.push_back({{"name", value.name}, {"dtype", to_string(value.dtype)}, {"shape", std::move(shape)}});
    if (value.sequence) list.back()["sequence"] = true;
  }
  return list;
}

/// A file as it is, and what its normal form would come to.
int model_info(int argc, char** argv) {
  const Json request = tool_request(argc, argv);
  std::string format;
  Graph graph = read_model_file(request.at("file").get<std::string>(), &format, shapes_only());
  Json operators = Json::object(), unknown = Json::array(), types = Json::object();
  std::set<std::string> missing;
  for (const Node& node : graph.nodes) {
    const std::string name = (node.domain.empty() ? "" : node.domain + "::") + node.op;
    operators[name] = operators.value(name, 0) + 1;
    if (!find_run(node.domain, node.op) && !find_values_run(node.domain, node.op)) missing.insert(name);
  }
  for (const std::string& name : missing) unknown.push_back(name);
  for (const auto& [name, tensor] : graph.initializers) {
    const std::string type(to_string(tensor.dtype));
    types[type] = types.value(type, std::uint64_t{0}) + tensor.bytes.size();
  }
  const std::size_t nodes = graph.nodes.size();
  const std::int64_t parameters = graph.parameter_count();
  const std::uint64_t bytes = graph.weight_bytes();
  Json info = {
      {"format", format},       {"nodes", nodes},         {"inputs", border(graph.inputs)}, {"outputs", border(graph.outputs)},
      {"operators", operators}, {"unknown", unknown},     {"parameters", parameters},       {"weight_bytes", bytes},
      {"weight_types", types},  {"opsets", graph.opsets}, {"metadata", graph.metadata}};
  normal_form(graph);
  info["nodes_normal"] = graph.nodes.size();
  info["macs"] = total_cost(graph, infer(graph), {}).macs;
  print_answer(info);
  return 0;
}

/// In the type that the graph declares, where NumPy has it; bf16 and float8 as f32.
at::Tensor storable(const at::Tensor& tensor, DType declared) {
  if (!tensor.is_floating_point()) return tensor;
  const bool own = declared == DType::f64 || declared == DType::f16;
  return tensor.to(own ? scalar_type(declared) : at::kFloat);
}

void write_npy(const fs::path& file, const Tensor& tensor) {
  const std::string header = npy_header(tensor.dtype, tensor.shape);
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out.write(header.data(), static_cast<std::streamsize>(header.size()));
  out.write(reinterpret_cast<const char*>(tensor.bytes.data()), static_cast<std::streamsize>(tensor.bytes.size()));
  out.close();
  if (!out) throw Error(ErrorCode::resource, "the file cannot be written", file.string(), "is the folder writable, the disk full?");
}

int model_run(int argc, char** argv) {
  const Json request = tool_request(argc, argv);
  at::set_num_threads(request.at("threads").get<int>());
  const fs::path model = request.at("file").get<std::string>(), out = request.at("out").get<std::string>();
  Graph graph = read_model_file(model);
  normal_form(graph);
  std::map<std::string, DType> declared;
  for (const Value& output : graph.outputs) declared[output.name] = output.dtype;
  TensorMap inputs;
  for (const auto& [name, path] : request.at("inputs").items()) {
    const bool known = std::any_of(graph.inputs.begin(), graph.inputs.end(), [&](const Value& v) { return v.name == name; });
    if (!known) {
      std::vector<std::string> names;
      for (const Value& input : graph.inputs) names.push_back(input.name);
      throw_invalid(fmt::format("the model has no input \"{}\"", name), "--input",
                    fmt::format("it has: {}", fmt::join(names, ", ")));
    }
    const MappedFile mapped(path.get<std::string>());
    inputs[name] = to_aten(parse_npy(mapped.bytes(), mapped.owner(), path.get<std::string>()));
  }
  Session session(graph);
  const TensorMap outputs = session.run(inputs);
  std::error_code error;
  fs::create_directories(out, error);
  if (error) throw Error(ErrorCode::resource, "the folder cannot be made: " + error.message(), out.string());
  Json made = Json::object();
  for (const auto& [name, value] : outputs) {
    const Tensor tensor = from_aten(storable(value, declared[name]));
    const fs::path file = out / (escaped_name(name) + ".npy");
    write_npy(file, tensor);
    made[name] = {{"file", file.string()}, {"dtype", to_string(tensor.dtype)}, {"shape", tensor.shape}};
  }
  print_answer(made);
  return 0;
}

const RegisterTool tools[] = {{"model-info", model_info}, {"model-run", model_run}};

}  // namespace
}  // namespace espalier
