#include "run/layer_map.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "graph/scope.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* place = "parameter layer_map";

/// Numbers of blocks by run.
std::vector<std::vector<std::size_t>> runs_of(const std::vector<Block>& blocks) {
  std::vector<std::vector<std::size_t>> runs;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (i == 0 || blocks[i].run != blocks[i - 1].run) runs.emplace_back();
    runs.back().push_back(i);
  }
  return runs;
}

std::vector<LayerPair> uniform(const std::vector<Block>& student, const std::vector<Block>& teacher) {
  const auto of_student = runs_of(student), of_teacher = runs_of(teacher);
  if (of_student.size() != of_teacher.size())
    throw_invalid(
        fmt::format("layer_map: the student's blocks fall into {} kinds, the teacher's into {}, so there is no uniform map",
                    of_student.size(), of_teacher.size()),
        place, "name pairs, such as layer_map = [\"0:0\", \"1:2\"]");
  std::vector<LayerPair> pairs;
  for (std::size_t r = 0; r < of_student.size(); ++r) {
    const auto &s = of_student[r], &t = of_teacher[r];
    const std::size_t count = std::min(s.size(), t.size());
    for (std::size_t k = 1; k <= count; ++k) pairs.push_back({s[k * s.size() / count - 1], t[k * t.size() / count - 1]});
  }
  return pairs;
}

}  // namespace

std::size_t block_named(const std::vector<Block>& blocks, std::string_view name, const std::string& whose,
                        const std::string& place) {
  if (blocks.empty()) throw_invalid(fmt::format("{} has no repeated blocks", whose), place);
  std::size_t number = 0;
  const auto end = std::from_chars(name.data(), name.data() + name.size(), number);
  if (end.ec == std::errc() && end.ptr == name.data() + name.size()) {
    if (number < blocks.size()) return number;
    throw_invalid(fmt::format("{} has no block {}", whose, name), place,
                  fmt::format("its blocks are 0 ({}) to {} ({})", blocks.front().scope, blocks.size() - 1, blocks.back().scope));
  }
  std::optional<std::size_t> found;
  std::vector<std::string> scopes;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    scopes.push_back(blocks[i].scope);
    if (name.empty() || blocks[i].scope != dotted(name)) continue;
    if (found) throw_invalid(fmt::format("{} has several blocks called \"{}\"", whose, name), place, "use numbers");
    found = i;
  }
  if (!found)
    throw_invalid(fmt::format("{} has no block \"{}\"", whose, name), place,
                  fmt::format("blocks are: {}", fmt::join(scopes, ", ")));
  return *found;
}

std::string block_label(const std::vector<Block>& blocks, std::size_t number) {
  const auto& scope = blocks[number].scope;
  return scope.empty() ? fmt::format("block {}", number) : fmt::format("block {} ({})", number, scope);
}

std::vector<LayerPair> map_layers(const std::vector<Block>& student, const std::vector<Block>& teacher,
                                  const std::vector<std::string>& asked) {
  for (const auto& [blocks, whose] : {std::pair(&student, "student"), std::pair(&teacher, "teacher")})
    if (blocks->empty())
      throw_invalid(fmt::format("the {} has no repeated blocks, so there are no layers to compare", whose),
                    fmt::format("port {}", whose), "leave hidden and attention out of losses");
  if (asked == std::vector<std::string>{"auto"}) return uniform(student, teacher);
  if (asked.empty()) throw_invalid("layer_map is empty", place, "leave it out, or name pairs such as \"0:0\"");
  const auto plain = [](const std::string& entry) { return entry.find(':') == std::string::npos; };
  const bool numbers = std::all_of(asked.begin(), asked.end(), plain);
  if (!numbers) {
    if (const auto odd = std::find_if(asked.begin(), asked.end(), plain); odd != asked.end())
      throw_invalid(fmt::format("layer_map: \"{}\" stands among pairs and is none", *odd), place, "write STUDENT:TEACHER");
  } else if (asked.size() != student.size()) {
    throw_invalid(fmt::format("layer_map names {} blocks of the teacher for {} of the student", asked.size(), student.size()),
                  place, "give one for each, or pairs such as \"0:3\"");
  }
  std::vector<LayerPair> pairs;
  std::set<std::size_t> seen;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const std::string_view entry = asked[i];
    const auto colon = entry.find(':');
    const LayerPair pair{numbers ? i : block_named(student, entry.substr(0, colon), "layer_map: the student", place),
                         block_named(teacher, numbers ? entry : entry.substr(colon + 1), "layer_map: the teacher", place)};
    if (!seen.insert(pair.student).second)
      throw_invalid(fmt::format("layer_map: {} of the student stands there twice", block_label(student, pair.student)), place,
                    "a block learns from one block");
    pairs.push_back(pair);
  }
  return pairs;
}

}  // namespace espalier
