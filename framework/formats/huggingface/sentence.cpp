#include "formats/huggingface/sentence.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "formats/huggingface/config.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using Kind = SentencePooling::Kind;

Kind read_pooling(const fs::path& file) {
  const HfConfig config(read_json_object(file), file.string());
  static const std::map<std::string, Kind, std::less<>> known = {
      {"mean", Kind::mean}, {"cls", Kind::first}, {"max", Kind::largest}};
  if (config.has("pooling_mode")) {
    const std::string mode = config.text("pooling_mode", "");
    const auto found = known.find(mode);
    if (found == known.end())
      throw_unsupported("\"pooling_mode\" is \"" + mode + "\"", config.where(), "mean, cls and max are read");
    return found->second;
  }
  static constexpr std::pair<const char*, Kind> modes[] = {{"pooling_mode_mean_tokens", Kind::mean},
                                                           {"pooling_mode_cls_token", Kind::first},
                                                           {"pooling_mode_max_tokens", Kind::largest}};
  std::optional<Kind> kind;
  for (const auto& [key, mode] : modes) {
    if (!config.flag(key, false)) continue;
    if (kind) throw_unsupported(fmt::format("\"{}\" beside another way of pooling", key), config.where(), "one way is read");
    kind = mode;
  }
  for (const char* key : {"pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"})
    config.refuse(key);
  if (!kind) throw_invalid("no way of pooling is true", config.where(), "\"pooling_mode_mean_tokens\" is the usual one");
  return *kind;
}

}  // namespace

std::optional<SentenceModules> read_sentence_modules(const fs::path& folder) {
  constexpr std::size_t most = 16;
  const fs::path file = folder / "modules.json";
  if (!fs::exists(file)) return std::nullopt;
  const Json list = read_json_value(file);
  if (!list.is_array() || list.size() > most) throw_invalid("this is no list of modules", file.string(), "the file is damaged");
  SentenceModules out;
  std::vector<std::string> order;
  for (const Json& entry : list) {
    if (!entry.is_object()) throw_invalid("a module is no object", file.string(), "the file is damaged");
    const HfConfig module(entry, file.string());
    const std::string type = module.text("type", ""), path = module.text("path", "");
    if (!path.empty() && (fs::path(path).filename().string() != path || path == "." || path == ".."))
      throw_invalid("module '" + path + "' is no folder of the model's own", file.string(),
                    "a model from elsewhere may not name other files of this machine");
    const std::string kind = type.substr(type.rfind('.') + 1);
    order.push_back(kind);
    if (kind == "Transformer") {
      out.model = folder / path;
    } else if (kind == "Pooling") {
      out.pooling.kind = read_pooling(folder / path / "config.json");
    } else if (kind == "Normalize") {
      out.pooling.normalize = true;
    } else {
      throw_unsupported("module '" + type + "'", file.string(), "Transformer, Pooling and Normalize are read");
    }
  }
  const std::vector<std::string> plain{"Transformer", "Pooling"}, normalized{"Transformer", "Pooling", "Normalize"};
  if (order != plain && order != normalized)
    throw_unsupported(fmt::format("modules in the order {}", fmt::join(order, ", ")), file.string(),
                      "Transformer, Pooling and perhaps Normalize are read");
  return out;
}

}  // namespace espalier
