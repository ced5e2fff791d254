#include "recipe/node.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {

const Member* Node::find(std::string_view key) const {
  for (const auto& member : members)
    if (member.key == key) return &member;
  return nullptr;
}

Json to_json(const Node& node) {
  switch (node.kind) {
    case Node::Kind::list: {
      Json list = Json::array();
      for (const auto& item : node.items) list.push_back(to_json(item));
      return list;
    }
    case Node::Kind::table: {
      Json table = Json::object();
      for (const auto& member : node.members) table[member.key] = to_json(member.value);
      return table;
    }
    default:
      return node.scalar;
  }
}

Node from_json(const Json& value, Position at) {
  Node node;
  node.at = at;
  if (value.is_array()) {
    node.kind = Node::Kind::list;
    for (const auto& item : value) node.items.push_back(from_json(item, at));
  } else if (value.is_object()) {
    node.kind = Node::Kind::table;
    for (const auto& [key, item] : value.items()) node.members.push_back({key, at, from_json(item, at)});
  } else {
    node.scalar = value;
  }
  return node;
}

void Findings::error(std::string code, Position at, std::string message, std::string hint) {
  failed_ = true;
  add({std::move(code), "error", std::move(message), file_, std::move(hint), at.line, at.column});
}

void Findings::warning(std::string code, Position at, std::string message, std::string hint) {
  add({std::move(code), "warning", std::move(message), file_, std::move(hint), at.line, at.column});
}

void Findings::add(Diagnostic diagnostic) {
  if (full())
    ++beyond_;
  else
    found_.push_back(std::move(diagnostic));
}

std::string Findings::suggest(std::string_view word, const std::vector<std::string>& names) const {
  constexpr std::size_t very_many = 2000;
  if (full() || names.size() > very_many) return {};
  const auto near = nearest(word, names);
  return near ? fmt::format("did you mean \"{}\"?", *near) : std::string();
}

std::vector<Diagnostic> Findings::take() {
  std::stable_sort(found_.begin(), found_.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  if (beyond_)
    found_.push_back(
        {"too-many", failed_ ? "error" : "warning", fmt::format("{} more findings are not shown", beyond_), file_, {}, 0, 0});
  return std::move(found_);
}

}  // namespace espalier
