// Looking at, and running, a model file outside of any recipe: the worker's side of `espalier model`.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "engine/worker/tools.h"
#include "formats/bounds.h"
#include "formats/model_file.h"
#include "formats/npy.h"
#include "graph/block_surgery.h"
#include "graph/experts.h"
#include "graph/groups.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "graph/surgery.h"
#include "run/element_count.h"
#include "run/session.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

Json request_of(int argc, char** argv) {
  if (argc != 2) throw_invalid(std::string(argv[0]) + " takes one argument, its request");
  return Json::parse(argv[1]);
}

void print_line(const Json& json) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(ErrorCode::resource, "the result cannot be written to stdout");
}

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
  const Json request = request_of(argc, argv);
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
  print_line(info);
  return 0;
}

/// Multiply-accumulates that go with one unit: what is saved by cutting the first one, alone.
Json macs_per_unit(Surgeon& surgeon, const CoupledGroup& group, double all) {
  if (group.pinned || static_cast<std::int64_t>(group.units.size()) <= group.multiple) return nullptr;
  std::vector<std::int64_t> units;
  for (std::int64_t unit = 0; unit < group.multiple; ++unit) units.push_back(unit);
  try {
    CutReport report;
    const Graph smaller = surgeon.cut({{group.id, units}}, true, &report, shapes_only());
    return (all - total_cost(smaller, report.values, {}).macs) / static_cast<double>(group.multiple);
  } catch (const Error&) {
    return nullptr;  // cannot be cut alone
  }
}

/// Elements that lie in a unit of some free group, one that lies in two once.
std::int64_t free_elements(const Graph& graph, std::vector<CoupledGroup> groups) {
  std::erase_if(groups, [](const CoupledGroup& group) { return group.pinned; });
  return ElementCount(graph, groups).total();
}

Json listed(const Graph& graph, const CoupledGroup& group, Json macs) {
  Json members = Json::array();
  for (const Member& member : group.members)
    members.push_back({{"tensor", member.tensor},
                       {"shape", graph.initializers.at(member.tensor).shape},
                       {"axis", member.axis},
                       {"width", member.width},
                       {"makes", member.producer}});
  return {{"id", group.id},
          {"kind", group.kind == CoupledGroup::Kind::heads ? "heads" : "channels"},
          {"units", group.units.size()},
          {"parameters_per_unit", group.parameters_per_unit},
          {"macs_per_unit", std::move(macs)},
          {"exact", group.exact},
          {"pinned", group.pinned},
          {"multiple", group.multiple},
          {"reason", group.reason},
          {"members", std::move(members)},
          {"scopes", group.scopes}};
}

/// What leaves whole: `smaller` is the graph without the first unit, null where that cannot be.
Json listed_whole(std::string id, const char* kind, std::size_t units, std::int64_t parameters, const Graph* smaller, double all,
                  std::vector<std::string> scopes) {
  Json macs;
  if (smaller) macs = all - total_cost(*smaller, infer(*smaller), {}).macs;
  return {{"id", std::move(id)},
          {"kind", kind},
          {"units", units},
          {"parameters_per_unit", parameters},
          {"macs_per_unit", std::move(macs)},
          {"exact", true},
          {"pinned", false},
          {"multiple", 1},
          {"reason", ""},
          {"members", Json::array()},
          {"scopes", std::move(scopes)}};
}

/// Experts of mixtures: of the router a unit takes slices, of its own weights everything.
void list_experts(const Graph& graph, double all, Json& list) {
  const std::vector<Mixture> mixtures = find_mixtures(graph);
  for (std::size_t i = 0; i < mixtures.size(); ++i) {
    const Mixture& mixture = mixtures[i];
    std::optional<Graph> smaller;
    if (mixture.experts.size() > 1) smaller = without_experts(graph, mixtures, {{i, {0}}});
    list.push_back(listed_whole("experts:" + mixture.scope, "experts", mixture.experts.size(), mixture.experts.at(0).parameters,
                                smaller ? &*smaller : nullptr, all, {mixture.scope}));
    for (const Mixture::Slices& slices : mixture.router)
      list.back()["members"].push_back({{"tensor", slices.tensor},
                                        {"shape", graph.initializers.at(slices.tensor).shape},
                                        {"axis", slices.axis},
                                        {"width", 1},
                                        {"makes", true}});
    Json experts = Json::array();
    for (const Expert& expert : mixture.experts)
      experts.push_back({{"weights", expert.weights}, {"parameters", expert.parameters}});
    list.back()["experts"] = std::move(experts);
    list.back()["chosen"] = mixture.used;
  }
}

/// Runs of repeated blocks: one leaves whole, and the residual stream stays.
void list_blocks(const Graph& graph, const ValueMap& values, double all, Json& list) {
  const std::vector<Block> blocks = find_blocks(graph);
  const auto parameters = [](const Graph& of) { return of.parameter_count(); };
  for (std::size_t first = 0; first < blocks.size();) {
    std::size_t end = first;
    std::vector<std::string> scopes, kept;
    std::optional<std::size_t> gone;
    for (; end < blocks.size() && blocks[end].run == blocks[first].run; ++end) {
      scopes.push_back(blocks[end].scope);
      const std::string why = why_not_removable(graph, values, blocks[end]);
      if (!why.empty()) {
        kept.push_back(blocks[end].scope + ": " + why);
      } else if (!gone) {
        gone = end;
      }
    }
    std::optional<Graph> smaller;
    if (gone) smaller = without_blocks(graph, blocks, {*gone});
    Json row = listed_whole("blocks:" + blocks[first].scope, "blocks", end - first,
                            smaller ? parameters(graph) - parameters(*smaller) : 0, smaller ? &*smaller : nullptr, all, scopes);
    row["pinned"] = !gone;
    row["reason"] = fmt::format("{}", fmt::join(kept, "; "));
    list.push_back(std::move(row));
    first = end;
  }
}

int model_groups(int argc, char** argv) {
  const Json request = request_of(argc, argv);
  Graph graph = read_model_file(request.at("file").get<std::string>(), nullptr, shapes_only());
  normal_form(graph);
  const ValueMap values = infer(graph);
  const double all = total_cost(graph, values, {}).macs;
  const bool pinned = request.value("pinned", false);
  const auto groups = coupled_groups(graph, values, pinned);
  Surgeon surgeon(graph, groups, values);
  Json list = Json::array();
  for (const CoupledGroup& group : groups) list.push_back(listed(graph, group, macs_per_unit(surgeon, group, all)));
  list_experts(graph, all, list);
  list_blocks(graph, values, all, list);
  if (!pinned) std::erase_if(list.get_ref<Json::array_t&>(), [](const Json& row) { return row["pinned"].get<bool>(); });
  print_line({{"groups", list},
              {"parameters", graph.parameter_count()},
              {"parameters_free", free_elements(graph, groups)},
              {"macs", all}});
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
  const Json request = request_of(argc, argv);
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
  print_line(made);
  return 0;
}

const RegisterTool tools[] = {{"model-info", model_info}, {"model-groups", model_groups}, {"model-run", model_run}};

}  // namespace
}  // namespace espalier
