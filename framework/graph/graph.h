#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "graph/dtype.h"
#include "graph/shape.h"
#include "sdk/digest.h"

namespace espalier {

/// A constant tensor: a typed view of bytes that something else may own (a mapped file). Row-major, little-endian.
struct Tensor {
  DType dtype = DType::undefined;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;    ///< keeps `bytes` alive
  mutable std::optional<Digest> known;  ///< digest of `bytes`, when somebody has computed it; reset with the bytes
  std::vector<std::string> strings;     ///< only for DType::string

  std::int64_t count() const;    ///< product of shape
  const Digest& digest() const;  ///< computed once
  /// A tensor that owns a copy of `bytes`.
  static Tensor own(DType dtype, std::vector<std::int64_t> shape, std::vector<std::byte> bytes);
  template <class T>
  static Tensor of(DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& values) {
    auto p = reinterpret_cast<const std::byte*>(values.data());
    return own(dtype, std::move(shape), std::vector<std::byte>(p, p + values.size() * sizeof(T)));
  }
  /// Elements as T; throws Error(internal) unless sizeof(T)*count() == bytes.size() and the bytes are aligned for T.
  template <class T>
  std::span<const T> as() const {
    require(sizeof(T), alignof(T));
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
  /// Elements of an i64, i32 or boolean tensor as integers (shape arithmetic); throws for other types.
  std::vector<std::int64_t> integers() const;
  /// Elements of an f64, f32, f16 or bf16 tensor as f64; throws for other types.
  std::vector<double> numbers() const;

 private:
  void require(std::size_t size, std::size_t align) const;
};

class Graph;
struct Node;

/// Values of the surrounding graph that the subgraphs of a node (If, Loop) read without naming them as inputs; sorted.
std::vector<std::string> captures(const Node& node);
std::vector<std::string> captures(const Graph& body);

/// An attribute of a node.
using Attribute = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>, std::vector<double>,
                               std::vector<std::string>, Tensor, std::shared_ptr<Graph>, std::vector<std::shared_ptr<Graph>>>;

struct Node {
  std::string op;                    ///< "MatMul"
  std::string domain;                ///< "" for ai.onnx
  std::string name;                  ///< unique within the graph; the scope name ("/model/layers.3/mlp/down_proj")
  std::vector<std::string> inputs;   ///< value names; "" for an absent optional input
  std::vector<std::string> outputs;  ///< value names; "" for an unused optional output
  std::map<std::string, Attribute> attributes;

  std::int64_t integer(std::string_view attribute, std::int64_t fallback) const;
  double number(std::string_view attribute, double fallback) const;
  std::string text(std::string_view attribute, std::string fallback) const;
  std::vector<std::int64_t> integers(std::string_view attribute, std::vector<std::int64_t> fallback) const;
  bool has(std::string_view attribute) const;
  /// inputs[i], or "" past the end.
  const std::string& input(std::size_t i) const;
  const std::string& output(std::size_t i) const;
};

/// A named value at the graph's border.
struct Value {
  std::string name;
  DType dtype = DType::undefined;  ///< of a sequence: its elements'
  Shape shape;
  bool sequence = false;  ///< a sequence of tensors, whose shapes are not declared
  bool optional = false;  ///< may be absent
};

/// An ONNX graph in memory: nodes in topological order, values by name, initializers as byte views. Copying a Graph copies the
/// structure and shares the bytes. A name is defined once: as an input, an initializer, or one node's output (validate()).
class Graph {
 public:
  std::string name = "model";
  std::map<std::string, std::int64_t> opsets{{"", 23}};  ///< domain → version
  std::int64_t ir_version = 11;
  std::vector<Value> inputs;
  std::vector<Value> outputs;
  std::vector<Node> nodes;
  std::map<std::string, Tensor> initializers;
  std::map<std::string, std::string> metadata;  ///< ONNX metadata_props: "espalier.task", "espalier.tokenizer", "licence", …
  std::map<std::string, std::string> doc;       ///< free text by value name, rarely used

  const Tensor* initializer(const std::string& name) const;
  std::int64_t opset(const std::string& domain = "") const;
  /// Parameters: elements of every floating or quantized initializer that is no scalar constant (tied weights once).
  std::int64_t parameter_count() const;
  std::uint64_t weight_bytes() const;
  /// A value name that is not taken yet, made from `stem`.
  std::string fresh(const std::string& stem) const;
  /// Puts nodes into topological order (stable); throws Error(invalid_input) naming a node on a cycle or with a missing input.
  void sort();
  /// Names defined once, inputs defined before use, bytes match shapes. Throws Error(invalid_input) with the node's or value's
  /// name.
  void validate() const;
};

/// Who makes and who reads each value. Indices into graph.nodes; invalid after the graph changes.
struct Uses {
  explicit Uses(const Graph& graph);
  struct Reader {
    std::size_t node;
    std::size_t input;
  };
  std::map<std::string, std::size_t, std::less<>> producer;
  std::map<std::string, std::vector<Reader>, std::less<>> readers;
  /// -1 when the value is an input or an initializer.
  std::ptrdiff_t producer_of(const std::string& value) const;
  const std::vector<Reader>& readers_of(const std::string& value) const;
};

}  // namespace espalier
