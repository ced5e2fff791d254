#include <cmath>
#include <limits>

#include "sdk/error.h"
#include "store/store.h"

namespace espalier {
namespace {

constexpr int kEntrySchema = 1;

Json optional_digest(const std::optional<Digest>& digest) { return digest ? Json(digest->hex()) : Json(nullptr); }

Digest digest_at(const Json& value) {
  const auto digest = Digest::from_hex(value.get<std::string>());
  if (!digest) throw Error(ErrorCode::corrupt, "not a digest: " + value.dump());
  return *digest;
}

std::optional<Digest> optional_digest_at(const Json& value) {
  if (value.is_null()) return std::nullopt;
  return digest_at(value);
}

}  // namespace

std::string ActionEntry::text() const {
  Json outputs_json = Json::object();
  for (const auto& [port, output] : outputs)
    outputs_json[port] = {{"type", std::string(to_string(output.first))}, {"digest", output.second.hex()}};
  Json figures_json = Json::object();
  for (const auto& [name, value] : figures) figures_json[name] = std::isfinite(value) ? Json(value) : Json(nullptr);
  const Json json = {{"schema", kEntrySchema},
                     {"stage", stage},
                     {"use", use},
                     {"outputs", outputs_json},
                     {"figures", figures_json},
                     {"details", details},
                     {"seconds", seconds},
                     {"cpu_seconds", cpu_seconds},
                     {"peak_rss", peak_rss},
                     {"log", optional_digest(log)},
                     {"preimage", optional_digest(preimage)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

ActionEntry ActionEntry::parse(std::string_view text) {
  try {
    const Json json = Json::parse(text);
    if (json.at("schema").get<int>() != kEntrySchema) throw Error(ErrorCode::corrupt, "an action entry of another schema");
    ActionEntry entry;
    entry.stage = json.at("stage").get<std::string>();
    entry.use = json.at("use").get<std::string>();
    for (const auto& [port, output] : json.at("outputs").items())
      entry.outputs[port] = {artifact_type_from(output.at("type").get<std::string>()), digest_at(output.at("digest"))};
    for (const auto& [name, value] : json.at("figures").items())
      entry.figures[name] = value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
    entry.details = json.at("details");
    entry.seconds = json.at("seconds").get<double>();
    entry.cpu_seconds = json.value("cpu_seconds", 0.0);
    entry.peak_rss = json.at("peak_rss").get<std::uint64_t>();
    entry.log = optional_digest_at(json.at("log"));
    entry.preimage = optional_digest_at(json.at("preimage"));
    return entry;
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::corrupt, std::string("not an action entry: ") + error.what());
  }
}

}  // namespace espalier
