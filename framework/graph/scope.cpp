#include "graph/scope.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <set>
#include <utility>

namespace espalier {
namespace {

// Iterative wildcard match: remembers the last star, so hostile patterns cost at most |pattern| · |text|.
bool glob(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool is_number(std::string_view part) {
  return !part.empty() && std::all_of(part.begin(), part.end(), [](unsigned char c) { return std::isdigit(c); });
}

// "model.layers.3.mlp" → "model.layers.*.mlp".
std::string fold_numbers(std::string_view name) {
  std::string out;
  while (true) {
    auto dot = name.find('.');
    auto part = name.substr(0, dot);
    out += is_number(part) ? "*" : std::string(part);
    if (dot == std::string_view::npos) return out;
    out += '.';
    name.remove_prefix(dot + 1);
  }
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

bool scope_matches(std::string_view pattern, std::string_view name) {
  if (glob(pattern, name)) return true;
  for (auto dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) {
    if (glob(pattern, name.substr(0, dot))) return true;
  }
  return false;
}

std::string dotted(std::string_view name) {
  while (!name.empty() && name.front() == '/') name.remove_prefix(1);
  std::string out(name);
  std::replace(out.begin(), out.end(), '/', '.');
  return out;
}

std::vector<std::string> scope_names(const Uses& uses, const Graph& graph, const std::string& initializer) {
  std::vector<std::string> names{dotted(initializer)};
  const auto add_readers = [&](const auto& add, const std::string& value) -> void {
    for (const auto& reader : uses.readers_of(value)) {
      const Node& node = graph.nodes[reader.node];
      names.push_back(dotted(node.name));
      // A weight that is rounded for training answers to the names that it has without that.
      const bool rounds = node.op == "QuantizeLinear" || (node.op == "DequantizeLinear" && value != initializer);
      if (rounds && node.domain.empty() && reader.input == 0) add(add, node.output(0));
    }
  };
  add_readers(add_readers, initializer);
  return names;
}

bool Scope::covers(std::span<const std::string> names) const {
  auto any = [&](const std::vector<std::string>& patterns) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
      return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return scope_matches(pattern, name); });
    });
  };
  return any(include) && !any(exclude);
}

std::vector<std::string> near_scopes(std::string_view pattern, const std::vector<std::string>& names, std::size_t most) {
  std::set<std::string> scopes;
  for (const auto& name : names) {
    for (auto dot = name.rfind('.'); dot != std::string::npos && dot > 0; dot = name.rfind('.', dot - 1)) {
      auto folded = fold_numbers(std::string_view(name).substr(0, dot));
      if (folded.back() != '*') scopes.insert(std::move(folded));
    }
    if (name.find('.') == std::string::npos && !name.empty()) scopes.insert(name);
  }
  std::vector<std::pair<std::size_t, std::string>> ranked;
  std::string wanted = fold_numbers(pattern);
  for (const auto& scope : scopes) {
    // Patterns usually start with "*."; compare their ends, too.
    auto tail = scope.substr(scope.size() - std::min(scope.size(), wanted.size()));
    ranked.emplace_back(std::min(edit_distance(wanted, scope), edit_distance(wanted, tail) + 1), scope);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> out;
  for (const auto& [distance, scope] : ranked) {
    if (out.size() == most) break;
    out.push_back(scope);
  }
  return out;
}

}  // namespace espalier
