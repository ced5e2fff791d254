#include "host/expression.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::size_t kLongest = 4000;
constexpr int kDeepest = 64;

/// Functions and how many arguments they take; 0: one or more.
const std::map<std::string, std::size_t, std::less<>> kFunctions = {{"min", 0}, {"max", 0}, {"ceil", 1}, {"sqrt", 1}, {"if", 3}};

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

/// Recursive descent: comparison > sum > product > factor.
class ExpressionParser {
 public:
  using Node = Expression::Node;

  explicit ExpressionParser(std::string_view text) : text_(text) {
    if (text.size() > kLongest) fail("is longer than 4,000 characters");
  }
  Node whole() {
    Node node = comparison(0);
    space();
    if (at_ != text_.size()) fail("goes on where an operator was expected");
    return node;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw_invalid("the expression \"" + std::string(text_.substr(0, 80)) + "\" " + what, "column " + std::to_string(at_ + 1));
  }
  void space() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(std::string_view symbol) {
    space();
    if (text_.substr(at_, symbol.size()) != symbol) return false;
    at_ += symbol.size();
    return true;
  }
  void deeper(int depth) const {
    if (depth > kDeepest) fail("is nested too deeply");
  }
  static Node call(std::string function, std::vector<Node> arguments) {
    return {Node::Kind::call, 0, std::move(function), std::move(arguments)};
  }
  static Node call(std::string function, Node a, Node b) {
    std::vector<Node> arguments;
    arguments.push_back(std::move(a));
    arguments.push_back(std::move(b));
    return call(std::move(function), std::move(arguments));
  }

  Node comparison(int depth) {
    deeper(depth);
    Node left = sum(depth);
    if (take("==")) return call("==", std::move(left), sum(depth));
    return left;
  }
  Node sum(int depth) {
    Node left = product(depth);
    for (;;) {
      if (take("+"))
        left = call("+", std::move(left), product(depth));
      else if (take("-"))
        left = call("-", std::move(left), product(depth));
      else
        return left;
    }
  }
  Node product(int depth) {
    Node left = factor(depth);
    for (;;) {
      if (take("*"))
        left = call("*", std::move(left), factor(depth));
      else if (take("/"))
        left = call("/", std::move(left), factor(depth));
      else
        return left;
    }
  }
  Node factor(int depth) {
    deeper(depth);
    if (take("-")) return call("-", Node{}, factor(depth + 1));
    if (take("(")) {
      Node inner = comparison(depth + 1);
      if (!take(")")) fail("lacks a \")\"");
      return inner;
    }
    space();
    if (at_ == text_.size()) fail("ends too early");
    if (text_[at_] == '"') return text();
    if (digit(text_[at_]) || text_[at_] == '.') return number();
    if (letter(text_[at_])) return name_or_call(depth);
    fail("has a character that does not belong there");
  }
  Node text() {
    const auto end = text_.find('"', at_ + 1);
    if (end == std::string_view::npos) fail("lacks a closing quotation mark");
    Node node{Node::Kind::text, 0, std::string(text_.substr(at_ + 1, end - at_ - 1)), {}};
    at_ = end + 1;
    return node;
  }
  Node number() {
    Node node;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), node.number);
    if (error != std::errc()) fail("has a number that cannot be read");
    at_ = static_cast<std::size_t>(end - text_.data());
    return node;
  }
  Node name_or_call(int depth) {
    const std::size_t start = at_;
    while (at_ < text_.size() && (letter(text_[at_]) || digit(text_[at_]) || text_[at_] == '.')) ++at_;
    std::string word(text_.substr(start, at_ - start));
    if (!take("(")) return {Node::Kind::name, 0, std::move(word), {}};
    const auto function = kFunctions.find(word);
    if (function == kFunctions.end()) fail("calls \"" + word + "\", and there are only min, max, ceil, sqrt, if");
    std::vector<Node> arguments;
    do arguments.push_back(comparison(depth + 1));
    while (take(","));
    if (!take(")")) fail("lacks a \")\"");
    if (function->second != 0 && arguments.size() != function->second)
      fail("gives " + word + " " + std::to_string(arguments.size()) + " values instead of " + std::to_string(function->second));
    return call(std::move(word), std::move(arguments));
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

Expression::Expression(std::string_view text) : text_(text), root_(ExpressionParser(text).whole()) {
  const std::function<void(const Node&)> collect = [&](const Node& node) {
    if (node.kind == Node::Kind::name && std::find(names_.begin(), names_.end(), node.word) == names_.end())
      names_.push_back(node.word);
    for (const Node& argument : node.arguments) collect(argument);
  };
  collect(root_);
}

std::optional<Expression::Value> Expression::evaluate(const Node& node, const Lookup& lookup) {
  if (node.kind == Node::Kind::number) return node.number;
  if (node.kind == Node::Kind::text) return node.word;
  if (node.kind == Node::Kind::name) return lookup(node.word);
  const auto number = [&](std::size_t i) -> std::optional<double> {
    const auto value = evaluate(node.arguments[i], lookup);
    if (!value || !std::holds_alternative<double>(*value)) return std::nullopt;
    return std::get<double>(*value);
  };
  if (node.word == "if") {
    const auto condition = number(0);
    if (!condition) return std::nullopt;
    return evaluate(node.arguments[*condition != 0 ? 1 : 2], lookup);
  }
  if (node.word == "==") {
    const auto left = evaluate(node.arguments[0], lookup), right = evaluate(node.arguments[1], lookup);
    if (!left || !right) return std::nullopt;
    return *left == *right ? 1.0 : 0.0;
  }
  std::vector<double> values;
  for (std::size_t i = 0; i < node.arguments.size(); ++i) {
    const auto value = number(i);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  if (node.word == "min") return *std::min_element(values.begin(), values.end());
  if (node.word == "max") return *std::max_element(values.begin(), values.end());
  if (node.word == "ceil") return std::ceil(values[0]);
  if (node.word == "sqrt") return std::sqrt(values[0]);
  if (node.word == "+") return values[0] + values[1];
  if (node.word == "-") return values[0] - values[1];
  if (node.word == "*") return values[0] * values[1];
  return values[0] / values[1];
}

std::optional<double> Expression::value(const Lookup& lookup) const {
  const auto value = evaluate(root_, lookup);
  if (!value || !std::holds_alternative<double>(*value) || !std::isfinite(std::get<double>(*value))) return std::nullopt;
  return std::get<double>(*value);
}

}  // namespace espalier
