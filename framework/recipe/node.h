#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "recipe/plan.h"

namespace espalier {

struct Position {
  int line = 0, column = 0;  ///< from 1; columns count code points
};

/// Where a value was written: decides what a relative path in it means.
enum class Origin { recipe, command_line };

struct Member;

/// A value of a recipe with its place. `scalar` holds strings, numbers and booleans; dates are `foreign`.
struct Node {
  enum class Kind { scalar, list, table, foreign };
  Kind kind = Kind::scalar;
  Json scalar;
  std::vector<Node> items;
  std::vector<Member> members;  ///< in the recipe's order
  Position at;
  Origin origin = Origin::recipe;
  std::string parameter;  ///< the [params] entry that it came from through ${…}

  /// A value about which everything has been said already.
  bool reported() const { return kind == Kind::foreign && scalar.is_null(); }
  bool is_text() const { return kind == Kind::scalar && scalar.is_string(); }
  const Member* find(std::string_view key) const;
};

struct Member {
  std::string key;
  Position key_at;
  Node value;
};

/// The value without its places; foreign values become text.
Json to_json(const Node& node);
/// A value of a manifest (a default) as a node at `at`.
Node from_json(const Json& value, Position at);

/// Collects diagnostics. Past a limit they are only counted: a hostile recipe gets no million of them.
class Findings {
 public:
  static constexpr std::size_t most = 200;
  explicit Findings(std::string file) : file_(std::move(file)) {}
  void error(std::string code, Position at, std::string message, std::string hint = {});
  void warning(std::string code, Position at, std::string message, std::string hint = {});
  bool failed() const { return failed_; }
  bool full() const { return found_.size() >= most; }
  /// "did you mean …?" or nothing; costs nothing once the limit is reached or where there are very many names.
  std::string suggest(std::string_view word, const std::vector<std::string>& names) const;
  /// Sorted by place.
  std::vector<Diagnostic> take();

 private:
  void add(Diagnostic diagnostic);
  std::string file_;
  std::vector<Diagnostic> found_;
  std::size_t beyond_ = 0;
  bool failed_ = false;
};

}  // namespace espalier
