#pragma once
#include <map>
#include <set>
#include <string>

#include "recipe/node.h"

namespace espalier {

/// Puts [params] (and what --set made of them) in the place of ${name}. Alone in its string a value keeps its type; inside a longer
/// string numbers and booleans become text; `$${` is `${`. Values may refer to other values; circles and growth past a bound are
/// findings.
class Substitution {
 public:
  Substitution(const Node* params, const RecipeOptions& options, Findings& findings);
  /// Replaces in place, everywhere below the node.
  void apply(Node& node);
  /// The values as used, after every apply().
  std::map<std::string, Json> values();
  /// A warning for every parameter that nothing used.
  void warn_unused();

 private:
  struct Entry {
    Node value;
    Position key_at;
    bool used = false;
    enum class State { raw, under_way, done, failed } state = State::raw;
  };
  void set(const std::string& key, const std::string& text);
  std::vector<std::string> names() const;
  void replace_text(Node& node);
  const Node* resolve(const std::string& name, const Node& place);
  bool spend(const Node& value);

  std::map<std::string, Entry> entries_;
  Findings& findings_;
  std::size_t spent_ = 0;
  bool exhausted_ = false;
  int depth_ = 0;
};

}  // namespace espalier
