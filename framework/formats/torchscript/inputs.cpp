#include "formats/torchscript/inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "graph/dtype.h"
#include "sdk/error.h"

namespace espalier::torchscript {
namespace {

constexpr const char* kNotation =
    "write NAME: TYPE[LENGTH,…], for example \"x: f32[batch,3,32,32]\" or \"input_ids: i64[batch,sequence]\"";

struct Short {
  const char* name;
  DType type;
};
constexpr Short kShort[] = {{"f32", DType::f32}, {"f64", DType::f64},     {"f16", DType::f16}, {"bf16", DType::bf16},
                            {"i64", DType::i64}, {"i32", DType::i32},     {"i16", DType::i16}, {"i8", DType::i8},
                            {"u8", DType::u8},   {"bool", DType::boolean}};

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

DType type_of(std::string_view name, std::string_view line, const std::string& where) {
  for (const Short& known : kShort)
    if (name == known.name) return known.type;
  if (const auto type = dtype_from(name)) return *type;
  throw_invalid(fmt::format("\"{}\" in \"{}\" is no element type", name, line), where,
                "types are f32, f64, f16, bf16, i64, i32, i16, i8, u8, bool");
}

Dim length_of(std::string_view text, std::string_view line, const std::string& where) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size()) {
    if (number < 0) throw_invalid(fmt::format("a length in \"{}\" is negative", line), where, kNotation);
    return number;
  }
  // Names, and the sums of names that a written model may have.
  const bool good = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= ' ' && c < 127; });
  if (!good) throw_invalid(fmt::format("\"{}\" in \"{}\" is neither a length nor a name", text, line), where, kNotation);
  return Dim::symbol(std::string(text));
}

std::string short_name(DType type) {
  for (const Short& known : kShort)
    if (known.type == type) return known.name;
  return std::string(to_string(type));
}

}  // namespace

Value parse_input(std::string_view line, const std::string& where) {
  const auto colon = line.rfind(':'), open = line.find('[', colon == std::string_view::npos ? 0 : colon);
  const std::string_view whole = trimmed(line);
  if (colon == std::string_view::npos || open == std::string_view::npos || whole.back() != ']')
    throw_invalid(fmt::format("\"{}\" does not say the type and shape of an input", line), where, kNotation);
  Value value;
  value.name = std::string(trimmed(line.substr(0, colon)));
  if (value.name.empty()) throw_invalid(fmt::format("\"{}\" names no input", line), where, kNotation);
  value.dtype = type_of(trimmed(line.substr(colon + 1, open - colon - 1)), line, where);
  std::string_view lengths = trimmed(line.substr(open + 1, line.rfind(']') - open - 1));
  while (!lengths.empty()) {
    const auto comma = lengths.find(',');
    value.shape.push_back(length_of(trimmed(lengths.substr(0, comma)), line, where));
    if (comma == std::string_view::npos) break;
    lengths.remove_prefix(comma + 1);
    if (trimmed(lengths).empty()) throw_invalid(fmt::format("\"{}\" ends in a comma", line), where, kNotation);
  }
  return value;
}

InputTypes parse_inputs(const std::vector<std::string>& lines, const std::string& where) {
  InputTypes types;
  for (const std::string& line : lines) {
    if (trimmed(line).empty()) continue;
    Value value = parse_input(line, where);
    const std::string name = value.name;
    if (!types.emplace(name, std::move(value)).second) throw_invalid(fmt::format("input \"{}\" is described twice", name), where);
  }
  return types;
}

std::string write_inputs(const std::vector<Value>& inputs) {
  std::string text;
  for (const Value& input : inputs) {
    text += fmt::format("{}: {}[", input.name, short_name(input.dtype));
    for (std::size_t i = 0; i < input.shape.size(); ++i) text += fmt::format("{}{}", i ? "," : "", input.shape[i].text());
    text += "]\n";
  }
  return text;
}

InputTypes types_of_examples(const Program& program, Free free) {
  InputTypes types;
  std::optional<Dim> batch, sequence;
  for (const Argument& argument : program.arguments) {
    if (!argument.example) continue;
    Value value = *argument.example;
    value.name = argument.name;
    const bool tokens = value.shape.size() == 2 && !is_floating(value.dtype);
    if (!value.shape.empty() && !batch) batch = value.shape[0];
    if (tokens && !sequence) sequence = value.shape[1];
    if (tokens && free == Free::batch_and_sequence && value.shape[1] == *sequence) value.shape[1] = Dim::symbol("sequence");
    if (!value.shape.empty() && free != Free::none && value.shape[0] == *batch) value.shape[0] = Dim::symbol("batch");
    types[argument.name] = std::move(value);
  }
  return types;
}

}  // namespace espalier::torchscript
