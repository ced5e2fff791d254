#pragma once
/// From TorchScript's operations to the graph's, one registered rule for each of them.
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "formats/torchscript/inputs.h"
#include "formats/torchscript/program.h"
#include "graph/op.h"

namespace espalier::torchscript {

using Attributes = std::map<std::string, Attribute>;
using Integers = std::vector<std::int64_t>;

/// What a value of the program is in the graph. Numbers of shape arithmetic are constants where they are known, else values of one
/// integer each, so that lengths stay free.
struct Item {
  enum class Kind { none, boolean, integer, number, text, tensor, list };
  Kind kind = Kind::none;
  std::int64_t integer = 0;  ///< of integer and boolean
  double real = 0;           ///< of number
  std::string name;  ///< text; or the graph's value: of a tensor, of an integer (i64 [1]) or a number (a scalar) that is computed
  std::vector<Item> items;
  std::size_t storage = 0;        ///< tensors of one number may share memory; 0: not said yet
  std::size_t object = 0;         ///< tensors of one number are the same tensor; 0: not said yet
  std::vector<std::string> keys;  ///< of a list that is a dictionary

  static Item of_tensor(std::string value);
  static Item of_integer(std::int64_t value);
  static Item of_computed(std::string value);
  static Item of_number(double value);
  static Item of_flag(bool value);
  static Item of_list(std::vector<Item> items);
  static Item of_tensors(const std::vector<std::string>& values);
  bool constant() const { return kind != Kind::tensor && kind != Kind::list && (kind == Kind::text || name.empty()); }
};

/// The graph being made. Types and shapes are known as soon as a node is added, and what is constant is folded.
class Builder {
 public:
  Builder();
  /// Adds a node under `scope` and returns its outputs.
  std::vector<std::string> add(const std::string& scope, const std::string& op, std::vector<std::string> inputs,
                               Attributes attributes, std::size_t outputs);
  std::string constant(Tensor tensor, const std::string& hint);
  std::string integers(const Integers& values);  ///< i64 of rank 1
  std::string scalar(double value, DType type);  ///< of rank 0
  const ValueInfo* info(const std::string& value) const;
  void input(const Value& value);
  /// Another tensor under the name of an initializer.
  void replace(const std::string& value, Tensor tensor);

  Graph graph;

 private:
  std::string fresh(const std::string& stem);
  std::string folded(const ValueInfo& info);

  ValueMap values_;
  std::map<std::string, std::size_t> numbers_;  // next number of a stem
  std::map<std::string, std::string> constants_;
};

/// One operation under way, as its rule sees it. Inputs go by the names of the operator's schema.
class Call {
 public:
  Call(Builder& builder, const Operation& operation, std::vector<Item> inputs, const std::string& where,
       std::set<std::string>& shared);

  const Operation& operation;
  const std::vector<Item>& inputs() const { return inputs_; }
  bool given(std::string_view name) const;  ///< there, and not None
  const Item* find(std::string_view name) const;
  const Item& item(std::string_view name) const;
  std::string tensor(std::string_view name) const;
  std::string tensor_or_none(std::string_view name) const;  ///< "" where it is None
  std::vector<std::string> tensors(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;  ///< refuses what is not constant
  double number(std::string_view name) const;
  double number_or(std::string_view name, double fallback) const;
  bool flag(std::string_view name) const;
  bool flag_or(std::string_view name, bool fallback) const;
  std::string text(std::string_view name) const;
  Integers integers(std::string_view name) const;
  /// A number where a list is meant stands for `count` equal ones.
  Integers integers(std::string_view name, std::size_t count) const;
  std::optional<DType> type(std::string_view name) const;  ///< LibTorch's number of a type; nothing for None

  std::string add(const std::string& op, std::vector<std::string> inputs, Attributes attributes = {}) const;
  std::vector<std::string> add_many(const std::string& op, std::vector<std::string> inputs, Attributes attributes,
                                    std::size_t outputs) const;
  std::string list(const Integers& values) const { return builder_.integers(values); }
  std::string scalar(double value, DType type) const { return builder_.scalar(value, type); }
  std::string constant(Tensor tensor, const std::string& hint) const { return builder_.constant(std::move(tensor), hint); }
  const Tensor* initializer(const std::string& value) const { return builder_.graph.initializer(value); }

  DType dtype(const std::string& value) const;  ///< refuses where it is not known
  const Shape& shape(const std::string& value) const;
  std::size_t rank(const std::string& value) const { return shape(value).size(); }
  std::size_t axis(std::string_view name, std::size_t rank) const;
  std::size_t wrapped(std::int64_t axis, std::size_t rank) const;
  std::string cast(const std::string& value, DType type) const;
  /// Integers made of lengths, by sums and products alone.
  bool never_negative(const std::string& value) const;
  /// Integers that may be computed, as one value of rank 1.
  std::string lengths(const std::vector<Item>& items) const;
  /// An integer as a value of rank 1 and one element.
  std::string length(const Item& item) const;
  /// The length of an axis.
  Item length_of(const std::string& value, std::size_t axis) const;
  /// Two operands in the type that PyTorch computes in, and that type.
  std::pair<std::string, std::string> promoted(const Item& a, const Item& b, DType* type = nullptr) const;
  /// An operand in this type: tensors are cast, numbers become scalars.
  std::string operand(const Item& item, DType type) const;
  /// A linear layer's weight [out, in] as [in, out]. Where nobody else reads it, it is stored that way.
  std::string turned_weight(const std::string& value) const;

  [[noreturn]] void refuse(const std::string& why, const std::string& hint = {}) const;

 private:
  Builder& builder_;
  std::vector<Item> inputs_;
  const std::string& where_;
  std::set<std::string>& shared_;  // constants that more than one operation reads
};

/// Several outputs are a list.
using Rule = Item (*)(Call&);
struct RegisterRule {
  RegisterRule(std::initializer_list<const char*> kinds, Rule rule);
};
Rule find_rule(const std::string& kind);

/// The type that an operation between these has (LibTorch's promotion of types).
DType promoted_type(DType a, DType b);
/// LibTorch's number of an element type.
std::optional<DType> numbered_type(std::int64_t number);

/// The program as a graph. Throws Error(unsupported) naming the first operator that has no rule.
Graph lower(const Program& program, const InputTypes& types, const std::string& where);

}  // namespace espalier::torchscript
