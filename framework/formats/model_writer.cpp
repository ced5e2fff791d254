#include "formats/model_writer.h"

#include <fmt/format.h>

#include <limits>

#include "graph/dtype.h"

namespace espalier {

std::string scope_of(const std::string& name) {
  std::string scope = "/" + name;
  for (std::size_t i = 0; i + 1 < scope.size(); ++i)
    if (scope[i] == '.' && (scope[i + 1] < '0' || scope[i + 1] > '9')) scope[i] = '/';
  return scope;
}

std::string ModelWriter::add(const std::string& scope, const std::string& op, std::vector<std::string> inputs,
                             Attributes attributes, const std::string& output) {
  return add_many(scope, op, std::move(inputs), std::move(attributes), 1, output).front();
}

std::vector<std::string> ModelWriter::add_many(const std::string& scope, const std::string& op, std::vector<std::string> inputs,
                                               Attributes attributes, std::int64_t outputs, const std::string& output) {
  Node node;
  node.op = op;
  node.name = scope + "/" + op;
  node.inputs = std::move(inputs);
  for (std::int64_t i = 0; i < outputs; ++i)
    node.outputs.push_back(!output.empty() ? output
                           : outputs == 1  ? node.name + "_output"
                                           : fmt::format("{}_output_{}", node.name, i));
  node.attributes = std::move(attributes);
  graph_.nodes.push_back(std::move(node));
  return graph_.nodes.back().outputs;
}

void ModelWriter::integers(const std::string& name, const std::vector<std::int64_t>& values) {
  graph_.initializers.try_emplace(name, Tensor::of<std::int64_t>(DType::i64, {static_cast<std::int64_t>(values.size())}, values));
}

void ModelWriter::integer(const std::string& name, std::int64_t value) {
  graph_.initializers.try_emplace(name, Tensor::of<std::int64_t>(DType::i64, {}, {value}));
}

void ModelWriter::number(const std::string& name, double value) {
  graph_.initializers.try_emplace(name, Tensor::of<float>(DType::f32, {}, {static_cast<float>(value)}));
}

std::string ModelWriter::linear(const Site& site, const std::string& x, std::int64_t in, std::int64_t out, bool bias,
                                const Origin& origin) {
  const auto origin_of = [&](const char* suffix) {
    Origin own = origin;
    if (!own.whole.empty()) own.whole += suffix;
    return own;
  };
  const std::string& name = site.name;
  weights_.linear(name + ".weight", in, out, origin_of(".weight"));
  const std::string y = add(site.scope, "MatMul", {x, name + ".weight"});
  if (!bias) return y;
  weights_.vector(name + ".bias", out, origin_of(".bias"));
  return add(site.scope, "Add", {y, name + ".bias"});
}

std::string ModelWriter::norm(const NormShape& shape, const Site& site, const std::string& x, std::int64_t width) {
  const std::string& name = site.name;
  const bool layer = shape.kind == Norm::layer;
  weights_.plain(name + ".weight", {width}, shape.kind == Norm::rms_one ? 1 : 0);
  std::vector<std::string> inputs{x, name + ".weight"};
  if (layer && shape.bias) {
    weights_.plain(name + ".bias", {width});
    inputs.push_back(name + ".bias");
  }
  return add(site.scope, layer ? "LayerNormalization" : "RMSNormalization", inputs,
             {{"axis", std::int64_t{-1}}, {"epsilon", shape.epsilon}});
}

std::string ModelWriter::activation(const std::string& scope, Activation kind, const std::string& x) {
  switch (kind) {
    case Activation::silu:
      return add(scope, "Mul", {x, add(scope, "Sigmoid", {x})});
    case Activation::relu:
      return add(scope, "Relu", {x});
    case Activation::tanh:
      return add(scope, "Tanh", {x});
    case Activation::gelu:
      return add(scope, "Gelu", {x});
    case Activation::gelu_tanh:
      break;
  }
  return add(scope, "Gelu", {x}, {{"approximate", std::string("tanh")}});
}

std::string ModelWriter::lookup(const std::string& name, const std::string& indices, std::int64_t rows, std::int64_t width) {
  weights_.plain(name + ".weight", {rows, width});
  return add(scope_of(name), "Gather", {name + ".weight", indices}, {{"axis", std::int64_t{0}}});
}

std::string ModelWriter::tied(const std::string& scope, const std::string& name, const std::string& x, const std::string& output) {
  const std::string table = add(scope, "Transpose", {name + ".weight"}, {{"perm", std::vector<std::int64_t>{1, 0}}});
  return add(scope, "MatMul", {x, table}, {}, output);
}

std::string ModelWriter::length(const std::string& scope, const std::string& input) {
  const std::string list = add(scope, "Shape", {input}, {{"start", std::int64_t{1}}, {"end", std::int64_t{2}}});
  return add(scope, "Squeeze", {list});
}

std::string write_mask(ModelWriter& writer, const std::string& scope, const std::string& queries) {
  writer.integers("mask.axes", {1, 2});
  writer.integers("mask.ones", {1, 1});
  writer.integers("mask.one", {1});
  const std::string allowed = writer.add(scope, "Cast", {"attention_mask"}, {{"to", static_cast<std::int64_t>(DType::boolean)}});
  const std::string row = writer.add(scope, "Unsqueeze", {allowed, "mask.axes"});
  const std::string count = writer.add(scope, "Shape", {queries}, {{"start", std::int64_t{1}}, {"end", std::int64_t{2}}});
  const std::string shape = writer.add(scope, "Concat", {"mask.ones", count, "mask.one"}, {{"axis", std::int64_t{0}}});
  return writer.add(scope, "Expand", {row, shape});
}

std::string write_biased_mask(ModelWriter& writer, const std::string& scope, const std::string& mask, const std::string& bias) {
  writer.number("mask.never", std::numeric_limits<float>::lowest());
  return writer.add(scope, "Where", {mask, bias, "mask.never"});
}

}  // namespace espalier
