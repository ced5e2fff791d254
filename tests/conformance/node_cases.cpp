#include "node_cases.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <functional>
#include <map>

#include "formats/onnx.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "run/session.h"
#include "run/torchscript_module.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier::test {
namespace {

CaseValue value_of(const Json& json, const std::vector<std::byte>& blob) {
  CaseValue value;
  if (json.is_null()) {
    value.kind = CaseValue::nothing;
  } else if (json.contains("sequence")) {
    value.kind = CaseValue::sequence;
    for (const Json& each : json.at("sequence")) value.elements.push_back(value_of(each, blob));
  } else if (json.contains("strings")) {
    value.data.dtype = DType::string;
    value.data.shape = json.at("shape").get<std::vector<std::int64_t>>();
    value.data.strings = json.at("strings").get<std::vector<std::string>>();
  } else {
    const auto begin = blob.begin() + json.at("at").get<std::ptrdiff_t>();
    value.data = Tensor::own(static_cast<DType>(json.at("dtype").get<int>()), json.at("shape").get<std::vector<std::int64_t>>(),
                             {begin, begin + json.at("bytes").get<std::ptrdiff_t>()});
  }
  return value;
}

/// Two units in the last place: what is computed in f32 here was rounded to the type after each step there.
double unit(DType type) { return type == DType::bf16 ? 0x1p-6 : type == DType::f16 ? 0x1p-9 : 0; }

/// "" when equal.
std::string difference(const NodeCase& node_case, const Tensor& expected, const at::Tensor& got) {
  const at::Tensor wanted = to_aten(expected);
  if (wanted.sizes() != got.sizes())
    return fmt::format("shape [{}] instead of [{}]", fmt::join(got.sizes(), ", "), fmt::join(wanted.sizes(), ", "));
  const bool complex = wanted.is_complex();
  const bool alike = is_floating(expected.dtype) ? got.is_floating_point() : wanted.scalar_type() == got.scalar_type();
  if (!alike) return fmt::format("type {} instead of {}", c10::toString(got.scalar_type()), to_string(expected.dtype));
  if (!is_floating(expected.dtype) && !complex) {
    if (wanted.to(at::kLong).equal(got.to(at::kLong))) return "";
    return "integers differ";
  }
  const double rtol = std::max({node_case.rtol, 1e-3, unit(expected.dtype)}), atol = std::max(node_case.atol, 1e-5);
  const auto wide = [&](const at::Tensor& t) { return t.to(complex ? at::kComplexDouble : at::kDouble); };
  const at::Tensor a = wide(wanted), b = wide(got);
  if (at::allclose(b, a, rtol, atol, true)) return "";
  return fmt::format("values differ by up to {:.3g}", a.numel() ? (a - b).abs().nan_to_num(1e30).max().item<double>() : 0.0);
}

/// "" when what was told before running holds.
std::string misjudged(const ValueInfo& told, const Tensor& expected) {
  if (told.dtype != expected.dtype)
    return fmt::format("infer says {} instead of {}", to_string(told.dtype), to_string(expected.dtype));
  if (!told.rank_known) return "infer does not know the rank";
  bool fits = told.shape.size() == expected.shape.size();
  for (std::size_t i = 0; fits && i < expected.shape.size(); ++i)
    fits = !told.shape[i].known() || told.shape[i].value() == expected.shape[i];
  return fits ? "" : fmt::format("infer says {} instead of [{}]", text(told.shape), fmt::join(expected.shape, ", "));
}

RunValue given(const CaseValue& value) {
  if (value.kind == CaseValue::nothing) return {};
  if (value.kind == CaseValue::tensor) return to_aten(value.data);
  std::vector<at::Tensor> elements;
  for (const CaseValue& each : value.elements) elements.push_back(to_aten(each.data));
  return elements;
}

/// "" when the value is the expected one, and was foretold.
std::string difference(const NodeCase& node_case, const CaseValue& expected, const RunValue& got, const ValueInfo& told) {
  if (expected.kind == CaseValue::nothing) return got.present() ? "a value instead of none" : "";
  if (!got.present()) return "no value";
  if (expected.kind == CaseValue::tensor) {
    if (got.sequence) return "a sequence instead of a tensor";
    const std::string why = difference(node_case, expected.data, got.tensor);
    return why.empty() ? misjudged(told, expected.data) : why;
  }
  if (!got.sequence) return "a tensor instead of a sequence";
  if (!told.sequence) return "infer knows of no sequence";
  if (got.sequence->size() != expected.elements.size())
    return fmt::format("{} elements instead of {}", got.sequence->size(), expected.elements.size());
  for (std::size_t i = 0; i < expected.elements.size(); ++i)
    if (const std::string why = difference(node_case, expected.elements[i].data, (*got.sequence)[i]); !why.empty())
      return fmt::format("element {}: {}", i, why);
  return "";
}

}  // namespace

std::vector<NodeCase> read_node_cases(const std::filesystem::path& folder) {
  std::ifstream text(folder / "cases.json"), bytes(folder / "cases.bin", std::ios::binary);
  const std::vector<char> raw{std::istreambuf_iterator<char>(bytes), {}};
  std::vector<std::byte> blob(raw.size());
  std::transform(raw.begin(), raw.end(), blob.begin(), [](char c) { return static_cast<std::byte>(c); });
  std::vector<NodeCase> cases;
  for (const Json& json : Json::parse(text)) {
    NodeCase& made = cases.emplace_back();
    made.name = json.at("name");
    made.operators = json.at("operators").get<std::vector<std::string>>();
    made.rtol = json.at("rtol");
    made.atol = json.at("atol");
    try {
      for (const Json& each : json.at("inputs")) made.inputs.emplace_back(each.at("name"), value_of(each.at("value"), blob));
      for (const Json& each : json.at("outputs")) made.outputs.emplace_back(each.at("name"), value_of(each.at("value"), blob));
    } catch (const Error& error) {
      made.unreadable = error.what();
    }
  }
  return cases;
}

namespace {

/// `steps` runs the case and names each stage as it comes there; it returns what is wrong.
Outcome judged(const std::function<std::string(std::string& stage)>& steps) {
  Outcome outcome;
  const auto ends = [&](Outcome::Kind kind, std::string reason) {
    outcome.kind = kind;
    outcome.reason = std::move(reason);
    return outcome;
  };
  try {
    const std::string why = steps(outcome.stage);
    return ends(why.empty() ? Outcome::passed : Outcome::wrong, why);
  } catch (const Error& error) {
    return ends(error.code() == ErrorCode::unsupported ? Outcome::refused : Outcome::wrong, error.what());
  } catch (const std::exception& error) {
    return ends(Outcome::wrong, error.what());
  }
}

Graph imported(const NodeCase& node_case, const std::filesystem::path& folder, std::string& stage) {
  stage = "import";
  Graph graph = read_onnx(folder / "models" / (node_case.name + ".onnx"));
  if (!node_case.unreadable.empty()) throw_unsupported(node_case.unreadable);
  return graph;
}

}  // namespace

Outcome run_node_case(const NodeCase& node_case, const std::filesystem::path& folder) {
  return judged([&](std::string& stage) -> std::string {
    Graph graph = imported(node_case, folder, stage);
    stage = "normal form";
    optimize(graph);
    stage = "infer";
    const ValueMap values = infer(graph);
    stage = "run";
    Session session(graph);
    RunValues inputs;
    for (const auto& [name, value] : node_case.inputs) inputs[name] = given(value);
    const RunValues outputs = session.run_values(inputs);
    stage = "compare";
    for (const auto& [name, expected] : node_case.outputs)
      if (const std::string why = difference(node_case, expected, outputs.at(name), values.at(name)); !why.empty())
        return name + ": " + why;
    return {};
  });
}

Outcome run_torchscript_case(const NodeCase& node_case, const std::filesystem::path& folder, const std::filesystem::path& archive) {
  return judged([&](std::string& stage) -> std::string {
    const Graph graph = imported(node_case, folder, stage);
    stage = "write";
    write_torchscript(graph, archive);
    stage = "run";
    TorchScriptModel model(archive);
    const std::map<std::string, CaseValue> values(node_case.inputs.begin(), node_case.inputs.end());
    std::vector<at::Tensor> inputs;
    for (const Value& input : graph.inputs) inputs.push_back(to_aten(values.at(input.name).data));
    const std::vector<at::Tensor> outputs = model.run(inputs);
    stage = "compare";
    for (const auto& [name, expected] : node_case.outputs)
      for (std::size_t i = 0; i < graph.outputs.size(); ++i)
        if (graph.outputs[i].name == name)
          if (const std::string why = difference(node_case, expected.data, outputs.at(i)); !why.empty()) return name + ": " + why;
    return {};
  });
}

}  // namespace espalier::test
