#include "recipe/substitute.h"

#include <fmt/format.h>

#include "host/parameter.h"
#include "recipe/source.h"

namespace espalier {
namespace {

constexpr int longest_chain = 8;                // parameters that are made of parameters that are made of …
constexpr std::size_t most_growth = 16u << 20;  // bytes that all replacements may add: no chain of doublings fills the memory

std::size_t weight(const Node& node) {
  std::size_t sum = sizeof(Node) / 4 + (node.is_text() ? node.scalar.get_ref<const std::string&>().size() : 0);
  for (const auto& item : node.items) sum += weight(item);
  for (const auto& member : node.members) sum += member.key.size() + weight(member.value);
  return sum;
}

std::string as_text(const Json& scalar) {
  if (scalar.is_string()) return scalar.get<std::string>();
  return scalar.dump();
}

/// The value takes the place of the text: places point at the text, whose line the person sees.
void place_at(Node& node, const Position& at, Origin origin, const std::string& parameter) {
  node.at = at;
  node.origin = origin;
  node.parameter = parameter;
  for (auto& item : node.items) place_at(item, at, origin, parameter);
  for (auto& member : node.members) {
    member.key_at = at;
    place_at(member.value, at, origin, parameter);
  }
}

}  // namespace

Substitution::Substitution(const Node* params, const RecipeOptions& options, Findings& findings) : findings_(findings) {
  if (params)
    for (const auto& member : params->members)
      entries_.emplace(member.key, Entry{member.value, member.key_at, false, Entry::State::raw});
  for (const auto& [key, text] : options.set) set(key, text);
}

void Substitution::set(const std::string& key, const std::string& text) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) {
    const auto all = names();
    auto hint = findings_.suggest(key, all);
    if (hint.empty()) {
      for (const auto& name : all) hint += (hint.empty() ? "its parameters: " : ", ") + name;
      if (all.empty()) hint = "the recipe has no [params]";
    }
    findings_.error("unknown-parameter", {}, fmt::format("--set {}: the recipe has no such parameter", key), hint);
    return;
  }
  Node bare;
  bare.scalar = text;
  auto value = parse_toml_value(text);
  // Where the recipe has text, text is meant: --set tag=7 for tag = "a". And what is no value of TOML is a bare word.
  if (!value || value->kind == Node::Kind::foreign || (found->second.value.is_text() && !value->is_text())) value = std::move(bare);
  place_at(*value, found->second.key_at, Origin::command_line, key);
  found->second.value = std::move(*value);
}

std::vector<std::string> Substitution::names() const {
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

void Substitution::apply(Node& node) {
  if (node.is_text()) return replace_text(node);
  for (auto& item : node.items) apply(item);
  for (auto& member : node.members) apply(member.value);
}

bool Substitution::spend(const Node& value) {
  if (exhausted_) return false;
  spent_ += weight(value);
  if (spent_ <= most_growth) return true;
  exhausted_ = true;
  findings_.error("too-large", value.at, "the values of [params] make the recipe larger than 16 MiB");
  return false;
}

const Node* Substitution::resolve(const std::string& name, const Node& place) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    const auto hint = findings_.suggest(name, names());
    findings_.error("undefined-parameter", place.at, fmt::format("${{{}}} is not defined in [params]", name),
                    hint.empty() ? "write $${ for the characters \"${\"" : hint);
    return nullptr;
  }
  Entry& entry = found->second;
  entry.used = true;
  if (entry.state == Entry::State::under_way) {
    findings_.error("cycle", place.at, fmt::format("parameter \"{}\" is defined through itself", name));
    entry.state = Entry::State::failed;
  }
  if (entry.state == Entry::State::failed) return nullptr;
  if (entry.state == Entry::State::raw) {
    if (depth_ >= longest_chain) {
      findings_.error("too-deep", entry.key_at,
                      fmt::format("parameter \"{}\" stands at the end of a chain of more than {} parameters", name, longest_chain));
      entry.state = Entry::State::failed;
      return nullptr;
    }
    entry.state = Entry::State::under_way;
    ++depth_;
    apply(entry.value);
    --depth_;
    if (entry.state == Entry::State::failed) return nullptr;
    entry.state = Entry::State::done;
  }
  return spend(entry.value) ? &entry.value : nullptr;
}

void Substitution::replace_text(Node& node) {
  const std::string text = node.scalar.get<std::string>();
  if (text.find("${") == std::string::npos) return;
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const auto next = text.find("${", i);
    if (next == std::string::npos) {
      result += text.substr(i);
      break;
    }
    if (next > i && text[next - 1] == '$') {
      result += text.substr(i, next - 1 - i) + "${";
      i = next + 2;
      continue;
    }
    result += text.substr(i, next - i);
    const auto end = text.find('}', next);
    if (end == std::string::npos) {
      findings_.error("syntax", node.at, "\"${\" without \"}\"", "write $${ for the characters \"${\"");
      return;
    }
    const std::string name = text.substr(next + 2, end - next - 2);
    const Node* value = resolve(name, node);
    if (!value) {
      node.kind = Node::Kind::foreign;  // already reported: nothing else is said about this value
      node.scalar = nullptr;
      return;
    }
    if (next == 0 && end + 1 == text.size()) {
      Node copy = *value;
      place_at(copy, node.at, copy.origin, name);
      node = std::move(copy);
      return;
    }
    if (value->kind != Node::Kind::scalar) {
      if (!value->reported())
        findings_.error(
            "type", node.at,
            fmt::format("parameter \"{}\" is {}: it cannot stand inside a longer string", name, describe_value(to_json(*value))));
      node.kind = Node::Kind::foreign;
      node.scalar = nullptr;
      return;
    }
    // A path that begins with a value of the command line is relative to the working directory.
    if (next == 0) node.origin = value->origin;
    node.parameter = name;
    result += as_text(value->scalar);
    i = end + 1;
  }
  node.scalar = std::move(result);
}

std::map<std::string, Json> Substitution::values() {
  std::map<std::string, Json> result;
  for (auto& [name, entry] : entries_) {
    if (entry.state == Entry::State::raw) {
      const bool used = entry.used;
      resolve(name, entry.value);
      entry.used = used;
    }
    result.emplace(name, to_json(entry.value));
  }
  return result;
}

void Substitution::warn_unused() {
  for (const auto& [name, entry] : entries_)
    if (!entry.used) findings_.warning("unused-parameter", entry.key_at, fmt::format("nothing uses ${{{}}}", name));
}

}  // namespace espalier
