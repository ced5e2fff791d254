#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace espalier {

/// Arithmetic in a manifest: what a stage takes, told by its inputs and parameters ("1e9 + 16 * model.parameters"). Numbers, + - *
/// /,
/// == between names and "text", min(…), max(…), ceil(x), sqrt(x), if(condition, a, b), parentheses, and dotted names.
class Expression {
 public:
  using Value = std::variant<double, std::string>;
  /// Nothing for a name whose value is not known (yet).
  using Lookup = std::function<std::optional<Value>(const std::string& name)>;

  /// Throws Error(invalid_input) with the column when the text is no expression; texts over 4,000 characters and deeper than 64
  /// levels are refused.
  explicit Expression(std::string_view text);
  /// Nothing when a name that is needed is unknown, or the result is no finite number. Of if(…), only the branch taken is needed.
  std::optional<double> value(const Lookup& lookup) const;
  const std::vector<std::string>& names() const { return names_; }  ///< every name in the text, once
  const std::string& text() const { return text_; }

 private:
  friend class ExpressionParser;
  struct Node {
    enum class Kind { number, text, name, call } kind = Kind::number;
    double number = 0;
    std::string word;  ///< text, name, or the function ("+" and the like too)
    std::vector<Node> arguments;
  };
  static std::optional<Value> evaluate(const Node& node, const Lookup& lookup);

  std::string text_;
  Node root_;
  std::vector<std::string> names_;
};

}  // namespace espalier
