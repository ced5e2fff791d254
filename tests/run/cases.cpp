#include "cases.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "graph/op.h"
#include "run/op.h"
#include "sdk/artifact.h"

namespace espalier::test {
namespace {

Tensor tensor_of(const Json& j, const std::vector<std::byte>& blob) {
  const auto at = j.at("at").get<std::size_t>(), size = j.at("bytes").get<std::size_t>();
  const auto begin = blob.begin() + static_cast<std::ptrdiff_t>(at);
  return Tensor::own(static_cast<DType>(j.at("dtype").get<int>()), j.at("shape").get<std::vector<std::int64_t>>(),
                     std::vector<std::byte>(begin, begin + static_cast<std::ptrdiff_t>(size)));
}

Attribute attribute_of(const Json& j, const std::vector<std::byte>& blob) {
  if (j.contains("integer")) return j.at("integer").get<std::int64_t>();
  if (j.contains("number")) return j.at("number").get<double>();
  if (j.contains("text")) return j.at("text").get<std::string>();
  if (j.contains("integers")) return j.at("integers").get<std::vector<std::int64_t>>();
  if (j.contains("numbers")) return j.at("numbers").get<std::vector<double>>();
  return tensor_of(j.at("tensor"), blob);
}

Case case_of(const Json& j, const std::vector<std::byte>& blob) {
  Case c;
  c.name = j.at("name");
  c.node.op = j.at("op");
  c.node.name = c.name;
  c.node.inputs = j.at("node_inputs").get<std::vector<std::string>>();
  c.node.outputs = j.at("node_outputs").get<std::vector<std::string>>();
  for (const auto& [name, value] : j.at("attributes").items()) c.node.attributes[name] = attribute_of(value, blob);
  c.opset = j.at("opset");
  for (const Json& input : j.at("inputs")) c.inputs.emplace_back(input.at("name"), tensor_of(input, blob));
  for (const Json& output : j.at("outputs")) c.outputs.emplace_back(output.at("name"), tensor_of(output, blob));
  c.gradient = j.at("gradient");
  c.rtol = j.at("rtol");
  c.atol = j.at("atol");
  return c;
}

std::vector<Case> make() {
  const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
  if (!python || !source) throw std::runtime_error("ESPALIER_TEST_PYTHON and ESPALIER_SOURCE are not set (run through ctest)");
  const auto folder = std::filesystem::temp_directory_path() / ("espalier-cases-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::string command = std::string(python) + " " + source + "/tests/run/oracle.py " + folder.string();
  for (const Operator* op : all_operators())
    if (op->domain.empty() && find_run("", op->name)) command += " " + op->name;
  if (std::system(command.c_str()) != 0) throw std::runtime_error("the oracle failed: " + command);
  std::ifstream text(folder / "cases.json"), bytes(folder / "cases.bin", std::ios::binary);
  const Json all = Json::parse(text);
  std::vector<char> raw{std::istreambuf_iterator<char>(bytes), {}};
  std::vector<std::byte> blob(raw.size());
  std::transform(raw.begin(), raw.end(), blob.begin(), [](char c) { return static_cast<std::byte>(c); });
  std::vector<Case> out;
  for (const Json& each : all) out.push_back(case_of(each, blob));
  std::filesystem::remove_all(folder);
  return out;
}

}  // namespace

const std::vector<Case>& cases() {
  static const std::vector<Case> all = make();
  return all;
}

Graph graph_of(const Case& c, const std::vector<std::string>& bound) {
  Graph graph;
  graph.name = c.name;
  graph.opsets[""] = c.opset;
  graph.nodes = {c.node};
  for (const auto& [name, tensor] : c.inputs) {
    if (std::find(bound.begin(), bound.end(), name) != bound.end()) {
      graph.initializers[name] = tensor;
    } else {
      graph.inputs.push_back({name, tensor.dtype, Shape(tensor.shape.begin(), tensor.shape.end())});
    }
  }
  for (const std::string& name : c.node.outputs)
    if (!name.empty()) graph.outputs.push_back({name, DType::undefined, {}});
  return graph;
}

}  // namespace espalier::test
