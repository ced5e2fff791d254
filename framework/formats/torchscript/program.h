#pragma once
/// A TorchScript method as plain data: what LibTorch's parser says of a file, without LibTorch's types. Calls are inlined, the
/// module's attributes are constants, and what is left is one list of operations.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "graph/graph.h"

namespace espalier::torchscript {

struct Literal;
using Literals = std::vector<Literal>;
/// A constant; monostate is None.
struct Literal {
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Tensor, Literals> value;
};

struct Operation {
  std::string kind;                                ///< "aten::add", an in-place one with its underscore
  std::string scope;                               ///< "model.layers.3.mlp" where known
  std::string place;                               ///< "file.py:12" where known
  std::vector<std::size_t> inputs, outputs;        ///< numbers of values
  std::vector<std::string> parameters;             ///< the schema's names of the inputs; empty where there is no schema
  std::optional<Literal> constant;                 ///< of prim::Constant
  std::string weight;                              ///< name of the parameter or buffer that a constant tensor is
  std::vector<std::optional<std::size_t>> shares;  ///< by output: the input (by position) whose memory it may be
  bool in_place = false;                           ///< writes to its first input
};

/// An argument of the method.
struct Argument {
  std::string name;
  std::size_t value = 0;
  bool tensor = true;
  std::string type;              ///< as TorchScript writes it, for messages
  std::optional<Value> example;  ///< type and lengths of what it was traced with
};

struct Program {
  std::size_t values = 0;
  std::vector<Argument> arguments;
  std::vector<Operation> operations;
  std::vector<std::size_t> results;
  std::string declared;  ///< what the file itself says of its inputs ("x: f32[batch,3,32,32]; …"), empty where it does not
  std::vector<std::string> names;               ///< of the results, where the file says them
  std::map<std::string, std::string> metadata;  ///< of the graph, where the file has it
};

}  // namespace espalier::torchscript
