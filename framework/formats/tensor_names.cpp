#include "formats/tensor_names.h"

#include <algorithm>

namespace espalier {
namespace {

const std::string* find(const TensorNames::Map& map, std::string_view key) {
  const auto found = map.find(key);
  return found == map.end() ? nullptr : &found->second;
}

/// The end of "model.layers." or "encoder.layers." in front of a number, 0 for the name of no layer.
std::size_t layer_number(std::string_view name) {
  constexpr std::string_view mark = ".layers.";
  const auto at = name.find(mark);
  if (at == std::string_view::npos) return 0;
  const auto number = at + mark.size();
  return number < name.size() && name[number] >= '0' && name[number] <= '9' ? number : 0;
}

}  // namespace

std::vector<std::string> TensorNames::spellings(std::string_view name) const {
  const auto suffix = name.rfind('.');
  std::string before, alternatives;
  if (const auto number = layer_number(name); number > 0) {
    const auto dot = name.find('.', number);
    const std::string_view part = name.substr(dot + 1, suffix - dot - 1);
    const std::string_view digits = name.substr(number, dot - number);
    const auto* other = find(parts, part);
    before = layers;
    if (const auto hole = before.find("{}"); hole != std::string::npos)
      before.replace(hole, 2, digits);
    else
      before += std::string(digits) + ".";
    alternatives = other ? *other : std::string(part);
  } else {
    const auto* other = find(whole, name.substr(0, suffix));
    alternatives = other ? *other : std::string(name.substr(0, suffix));
  }
  std::vector<std::string> out;
  for (std::size_t begin = 0; begin <= alternatives.size();) {
    const auto end = std::min(alternatives.find('|', begin), alternatives.size());
    const std::string stem = before + alternatives.substr(begin, end - begin);
    begin = end + 1;
    std::vector<std::string> full{stem + std::string(name.substr(suffix))};
    // Files from before PyTorch's own LayerNorm.
    if (stem.ends_with("LayerNorm")) full.push_back(stem + (name.substr(suffix) == ".weight" ? ".gamma" : ".beta"));
    for (const std::string& one : full) {
      out.push_back(one);
      if (!base.empty() && one.starts_with(base)) out.push_back(one.substr(base.size()));
    }
  }
  return out;
}

bool TensorNames::is_unread(std::string_view name) const {
  return std::any_of(unread.begin(), unread.end(), [&](const std::string& end) { return name.ends_with(end); });
}

}  // namespace espalier
