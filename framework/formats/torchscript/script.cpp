#include "formats/torchscript/script.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "sdk/error.h"

namespace espalier::torchscript {
namespace {

constexpr const char* kHint = "convert to ONNX instead, which takes every operator";

std::map<std::string, Phrase>& registry() {
  static std::map<std::string, Phrase> phrases;
  return phrases;
}

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

/// Words that mean something in the source itself or to torch.nn.Module.
bool reserved(const std::string& word) {
  static const std::set<std::string, std::less<>> words = {
      "False",      "None",    "True",     "and",     "as",      "assert", "async",    "await",    "break", "class",
      "continue",   "def",     "del",      "elif",    "else",    "except", "finally",  "for",      "from",  "global",
      "if",         "import",  "in",       "is",      "lambda",  "not",    "or",       "pass",     "raise", "return",
      "try",        "while",   "with",     "yield",   "self",    "torch",  "training", "forward",  "float", "int",
      "bool",       "len",     "range",    "list",    "getattr", "Tensor", "List",     "Optional", "print", "nonlocal",
      "parameters", "buffers", "children", "modules", "apply",   "eval"};
  return words.contains(word);
}

/// A name that the source may use as it stands.
std::string identifier(const std::string& name) {
  std::string out;
  for (char c : name) out += letter(c) || digit(c) ? c : '_';
  if (out.empty() || digit(out[0])) out.insert(0, "_");
  return reserved(out) ? out + "_" : out;
}

/// "model.layers.3.mlp.weight" in parts; parts of digits alone are names of modules in lists.
std::vector<std::string> path_of(const std::string& name) {
  std::vector<std::string> path;
  std::string part;
  const auto finish = [&] {
    if (part.empty()) return;
    const bool number = std::all_of(part.begin(), part.end(), digit);
    path.push_back(number ? part : identifier(part));
    part.clear();
  };
  for (char c : name) {
    if (c == '.' || c == '/') {
      finish();
    } else {
      part += c;
    }
  }
  finish();
  if (path.empty() || digit(path.back()[0])) path.push_back("value");
  return path;
}

}  // namespace

/// The whole: lines in order, of which those that nobody reads are left out in the end.
class ScriptWriter {
 public:
  ScriptWriter(const Graph& graph, const std::set<std::string>& parameters)
      : graph_(graph), parameters_(parameters), values_(infer(graph)) {}

  Script run() {
    find_turned();
    for (const Value& input : graph_.inputs) take(input);
    for (const Node& node : graph_.nodes) step(node);
    return finish();
  }

  std::string tensor(const std::string& value) {
    if (const auto found = variables_.find(value); found != variables_.end()) return found->second;
    if (graph_.initializers.contains(value)) return stored(value);
    const auto info = values_.find(value);
    if (info == values_.end() || !info->second.content) throw Error(ErrorCode::internal, "no such value is written yet", value);
    const std::vector<std::string> items = *rendered(*info->second.content);
    const std::string type = typed(info->second.dtype, value);
    const std::string made = let(
        items.empty() ? fmt::format("torch.zeros([0], dtype={})", type)
                      : fmt::format("torch.tensor({}, dtype={})", info->second.shape.empty() ? items[0] : list_text(items), type),
        "lengths");
    return variables_[value] = made;
  }

  /// As expressions, where all symbols are lengths of something that is there.
  std::optional<std::vector<std::string>> rendered(const std::vector<Dim>& dims) {
    for (const Dim& dim : dims)
      for (const auto& [symbol, count] : dim.terms())
        if (!symbols_.contains(symbol)) return std::nullopt;
    std::vector<std::string> out;
    for (const Dim& dim : dims) out.push_back(rendered(dim));
    return out;
  }

  std::vector<std::string> integers(const std::string& value, const std::optional<std::vector<std::int64_t>>& known) {
    if (known) {
      std::vector<std::string> out;
      for (std::int64_t each : *known) out.push_back(std::to_string(each));
      return out;
    }
    const ValueInfo& info = values_.find(value)->second;
    if (info.content)
      if (auto out = rendered(*info.content)) return *out;
    const std::string from = tensor(value);
    if (info.shape.empty()) return {fmt::format("int({})", from)};
    if (info.shape.size() != 1 || !info.shape[0].known())
      throw_unsupported("how many integers '" + value + "' holds is not known", {}, kHint);
    std::string wide = info.dtype == DType::i64 ? from : let(fmt::format("{}.to(4)", from));
    auto found = lists_.find(value);
    if (found == lists_.end()) found = lists_.emplace(value, let(wide + ".tolist()", "list", "List[int]")).first;
    std::vector<std::string> out;
    for (std::int64_t i = 0; i < info.shape[0].value(); ++i) out.push_back(fmt::format("{}[{}]", found->second, i));
    return out;
  }

  std::optional<std::string> transposed(const std::string& value) {
    const auto found = transposes_.find(value);
    return found == transposes_.end() ? std::nullopt : std::optional(tensor(found->second));
  }

  bool turned(const std::string& value) const { return turned_.contains(value); }

  std::string let(const std::string& expression, const std::string& hint = {}, const std::string& type = {}) {
    const std::string name = fresh(hint.empty() ? "value" : hint);
    lines_.push_back({name,
                      type.empty() ? fmt::format("{} = {}", name, expression) : fmt::format("{}: {} = {}", name, type, expression),
                      expression});
    return name;
  }

  void bind(const std::string& value, const std::string& variable) {
    variables_[value] = variable;
    const ValueInfo& info = values_.find(value)->second;
    for (std::size_t i = 0; info.rank_known && i < info.shape.size(); ++i) {
      const Dim& dim = info.shape[i];
      if (dim.terms().size() == 1 && dim.constant() == 0 && dim.terms().begin()->second == 1)
        symbols_.try_emplace(dim.terms().begin()->first, Symbol{variable, i, {}});
    }
  }

  static std::string typed(DType type, const std::string& value) {
    const auto number = type_number(type);
    if (!number) throw_unsupported(fmt::format("LibTorch does not compute with {} ('{}')", to_string(type), value), {}, kHint);
    return std::to_string(*number);
  }

  std::size_t readers(const std::string& value) const {
    const auto found = readers_.find(value);
    return found == readers_.end() ? 0 : found->second;
  }

 private:
  struct Line {
    std::string defines, text, reads;
  };
  struct Symbol {
    std::string variable;
    std::size_t axis;
    std::string name;  // of the variable that holds the length, once there is one
  };

  std::string rendered(const Dim& dim) {
    std::string out;
    for (const auto& [text, count] : dim.terms()) {
      Symbol& symbol = symbols_.at(text);
      if (symbol.name.empty())
        symbol.name = let(fmt::format("{}.size({})", symbol.variable, symbol.axis), identifier(text).substr(0, 24));
      if (!out.empty()) out += " + ";
      out += count == 1 ? symbol.name : fmt::format("{} * {}", symbol.name, count);
    }
    if (out.empty()) return std::to_string(dim.constant());
    if (dim.constant() != 0) out += fmt::format(" + {}", dim.constant());
    return dim.terms().size() > 1 || dim.constant() != 0 ? "(" + out + ")" : out;
  }

  std::string fresh(const std::string& wanted) {
    const std::string stem = reserved(wanted) ? wanted + "_" : wanted;
    for (;;) {
      const std::size_t number = numbers_[stem]++;
      std::string name = number == 0 && !digit(stem.back()) ? stem : fmt::format("{}_{}", stem, number);
      if (names_.insert(name).second) return name;
    }
  }

  void take(const Value& input) {
    if (input.sequence || input.optional)
      throw_unsupported("input '" + input.name + "' is no plain tensor", {}, "convert to ONNX instead");
    typed(input.dtype, input.name);
    std::string name = identifier(input.name);
    while (!names_.insert(name).second) name += "_";
    arguments_.push_back(name);
    bind(input.name, name);
  }

  /// Matrices that are only multiplied with from the right are a linear layer's: PyTorch holds these as [out, in].
  void find_turned() {
    std::map<std::string, bool> all;
    for (const Node& node : graph_.nodes) {
      if (node.op == "Transpose" && node.domain.empty() && node.integers("perm", {1, 0}) == std::vector<std::int64_t>{1, 0})
        if (const Tensor* tensor = graph_.initializer(node.input(0)); tensor && tensor->shape.size() == 2)
          transposes_[node.output(0)] = node.input(0);
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const Tensor* tensor = graph_.initializer(node.inputs[i]);
        if (!node.inputs[i].empty()) ++readers_[node.inputs[i]];
        if (!tensor || tensor->shape.size() != 2) continue;
        const bool right = i == 1 && ((node.op == "MatMul" && node.domain.empty()) ||
                                      (node.op == "Gemm" && node.domain.empty() && node.integer("transB", 0) == 0));
        const auto [found, added] = all.emplace(node.inputs[i], right);
        found->second = found->second && right;
      }
      for (const std::string& outer : captures(node)) all[outer] = false;
    }
    for (const Value& output : graph_.outputs) {
      all[output.name] = false;
      ++readers_[output.name];
    }
    for (const auto& [name, right] : all)
      if (right && is_floating(graph_.initializers.at(name).dtype)) turned_.insert(name);
  }

  std::string stored(const std::string& value) {
    const Tensor& tensor = graph_.initializers.at(value);
    typed(tensor.dtype, value);
    Script::Stored entry{path_of(value), tensor, turned_.contains(value), parameters_.contains(value)};
    while (clashes(entry.path)) entry.path.back() += "_";
    tree_[entry.path] = true;
    for (std::size_t n = 1; n < entry.path.size(); ++n)
      tree_.try_emplace({entry.path.begin(), entry.path.begin() + static_cast<std::ptrdiff_t>(n)}, false);
    std::string expression = "self";
    for (const std::string& part : entry.path)
      expression = digit(part[0]) ? fmt::format("getattr({}, \"{}\")", expression, part) : expression + "." + part;
    const std::string name = let(expression, entry.path.back());
    stored_.emplace_back(name, std::move(entry));
    return variables_[value] = name;
  }

  /// A tensor has the name of a tensor or of a module, or lies in what is a tensor.
  bool clashes(const std::vector<std::string>& path) const {
    if (tree_.contains(path)) return true;
    for (std::size_t n = 1; n < path.size(); ++n) {
      const auto found = tree_.find({path.begin(), path.begin() + static_cast<std::ptrdiff_t>(n)});
      if (found != tree_.end() && found->second)
        throw_unsupported("names of tensors lie in one another: " + fmt::format("{}", fmt::join(path, ".")));
    }
    return false;
  }

  void step(const Node& node) {
    if (!node.domain.empty())
      throw_unsupported(fmt::format("{} of domain {} is not written as TorchScript", node.op, node.domain), node.name, kHint);
    // Arithmetic on lengths is written where it is used.
    const bool lengths = std::all_of(node.outputs.begin(), node.outputs.end(), [&](const std::string& output) {
      const auto found = values_.find(output);
      return output.empty() || (found != values_.end() && found->second.content && rendered_known(*found->second.content));
    });
    if (lengths) return;
    const Phrase phrase = find_phrase(node.op);
    if (!phrase) throw_unsupported(node.op + " is not written as TorchScript", node.name, kHint);
    for (const std::string& output : node.outputs) {
      const auto found = values_.find(output);
      if (output.empty()) continue;
      if (found == values_.end() || !found->second.rank_known || found->second.sequence)
        throw_unsupported("the rank of '" + output + "' is not known, or it is a sequence", node.name, kHint);
      typed(found->second.dtype, output);
    }
    NodeScript script(*this, graph_, node, values_);
    try {
      phrase(script);
    } catch (const Error& error) {
      if (!error.where().empty() || error.code() == ErrorCode::internal) throw;
      throw Error(error.code(), error.message(), node.name, error.hint());
    }
  }

  bool rendered_known(const std::vector<Dim>& dims) const {
    return std::all_of(dims.begin(), dims.end(), [&](const Dim& dim) {
      return std::all_of(dim.terms().begin(), dim.terms().end(), [&](const auto& term) { return symbols_.contains(term.first); });
    });
  }

  Script finish() {
    std::vector<std::string> results;
    for (const Value& output : graph_.outputs) results.push_back(tensor(output.name));
    std::set<std::string> read(results.begin(), results.end());
    std::vector<std::string> kept;
    for (auto line = lines_.rbegin(); line != lines_.rend(); ++line) {
      if (!read.contains(line->defines)) continue;
      kept.push_back(line->text);
      words(line->reads, read);
    }
    Script script;
    script.source = "def forward(self";
    for (const std::string& argument : arguments_) script.source += fmt::format(", {}: Tensor", argument);
    std::vector<std::string> types(results.size(), "Tensor");
    script.source += results.size() == 1 ? ") -> Tensor:\n" : fmt::format(") -> Tuple[{}]:\n", fmt::join(types, ", "));
    for (auto line = kept.rbegin(); line != kept.rend(); ++line) script.source += "  " + *line + "\n";
    script.source += fmt::format("  return {}\n", results.size() == 1 ? results[0] : fmt::format("({})", fmt::join(results, ", ")));
    for (auto& [variable, entry] : stored_)
      if (read.contains(variable)) script.tensors.push_back(std::move(entry));
    return script;
  }

  /// Every word of an expression, whether it is a variable or not.
  static void words(const std::string& text, std::set<std::string>& into) {
    std::string word;
    for (std::size_t i = 0; i <= text.size(); ++i) {
      if (i < text.size() && (letter(text[i]) || (digit(text[i]) && !word.empty()))) {
        word += text[i];
      } else if (!word.empty()) {
        into.insert(std::exchange(word, {}));
      }
    }
  }

  const Graph& graph_;
  const std::set<std::string>& parameters_;
  const ValueMap values_;
  std::vector<Line> lines_;
  std::vector<std::string> arguments_;
  std::map<std::string, std::string> variables_, lists_, transposes_;
  std::map<std::string, Symbol> symbols_;
  std::map<std::string, std::size_t> numbers_, readers_;
  std::set<std::string> names_, turned_;
  std::map<std::vector<std::string>, bool> tree_;  // paths of modules (false) and tensors (true)
  std::vector<std::pair<std::string, Script::Stored>> stored_;
};

std::string NodeScript::in(std::size_t i) const {
  if (!has(i)) view_.fail(fmt::format("input {} is missing", i));
  return writer_.tensor(node.input(i));
}

std::vector<std::string> NodeScript::integers(std::size_t i) const { return writer_.integers(node.input(i), known(i)); }

std::optional<std::string> NodeScript::transposed(std::size_t i) const { return writer_.transposed(node.input(i)); }

bool NodeScript::turned(std::size_t i) const { return writer_.turned(node.input(i)); }

std::string NodeScript::length(std::size_t i, std::size_t axis) const {
  const Dim& dim = info(i).shape.at(axis);
  return dim.known() ? std::to_string(dim.value()) : fmt::format("{}.size({})", in(i), axis);
}

std::optional<std::vector<std::string>> NodeScript::lengths_out(std::size_t i) const {
  return writer_.rendered(view_.out(i).shape);
}

std::string NodeScript::let(const std::string& expression, const std::string& hint) const { return writer_.let(expression, hint); }

std::string NodeScript::let_typed(const std::string& type, const std::string& expression) const {
  return writer_.let(expression, "list", type);
}

void NodeScript::give(std::size_t output, const std::string& expression) {
  const std::string& value = node.output(output);
  if (value.empty()) return;
  std::string stem;
  for (char c : node.op) stem += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  writer_.bind(value, writer_.let(expression, stem));
}

void NodeScript::only(std::size_t count) const {
  for (std::size_t i = count; i < node.outputs.size(); ++i)
    if (!node.outputs[i].empty() && writer_.readers(node.outputs[i]) > 0) refuse(fmt::format("its output {} is read", i));
}

void NodeScript::refuse(const std::string& why) const {
  throw_unsupported(fmt::format("{} is not written as TorchScript here: {}", node.op, why), node.name, kHint);
}

RegisterPhrase::RegisterPhrase(std::initializer_list<const char*> operators, Phrase phrase) {
  for (const char* op : operators)
    if (!registry().emplace(op, phrase).second) throw Error(ErrorCode::internal, "two phrases for one operator", op);
}

Phrase find_phrase(const std::string& op) {
  const auto found = registry().find(op);
  return found == registry().end() ? nullptr : found->second;
}

std::string list_text(const std::vector<std::string>& items) { return fmt::format("[{}]", fmt::join(items, ", ")); }
std::string list_text(const std::vector<std::int64_t>& items) { return fmt::format("[{}]", fmt::join(items, ", ")); }
std::string flag_text(bool value) { return value ? "True" : "False"; }

std::string number_text(double value) {
  if (std::isnan(value)) return "float(\"nan\")";
  if (std::isinf(value)) return value > 0 ? "float(\"inf\")" : "float(\"-inf\")";
  std::string text = fmt::format("{:.17g}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::optional<int> type_number(DType type) {
  switch (type) {
    case DType::u8:
      return 0;
    case DType::i8:
      return 1;
    case DType::i16:
      return 2;
    case DType::i32:
      return 3;
    case DType::i64:
      return 4;
    case DType::f16:
      return 5;
    case DType::f32:
      return 6;
    case DType::f64:
      return 7;
    case DType::boolean:
      return 11;
    case DType::bf16:
      return 15;
    default:
      return std::nullopt;
  }
}

Script write_script(const Graph& graph, const std::set<std::string>& parameters) { return ScriptWriter(graph, parameters).run(); }

}  // namespace espalier::torchscript
