#include <fmt/format.h>
#include <CLI/App.hpp>

#include <cmath>

#include "cli/command.h"
#include "cli/stored.h"
#include "cli/table.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::size_t kBlobRows = 40;

Json describe(const Artifact& artifact, const Digest& digest) {
  Json blobs = Json::object();
  std::uint64_t bytes = 0;
  std::map<Digest, std::uint64_t> unique;
  for (const auto& [name, blob] : artifact.blobs) {
    blobs[name] = {{"digest", blob.digest.hex()}, {"size", blob.size}};
    unique[blob.digest] = blob.size;
  }
  for (const auto& [blob, size] : unique) bytes += size;
  return {{"type", std::string(to_string(artifact.type))},
          {"digest", digest.hex()},
          {"bytes", bytes},
          {"meta", artifact.meta},
          {"blobs", std::move(blobs)}};
}

std::string artifact_text(const Json& artifact) {
  std::string text = fmt::format("{} {}, {}\n", artifact["type"].get<std::string>(), artifact["digest"].get<std::string>(),
                                 human_bytes(artifact["bytes"].get<std::uint64_t>()));
  for (const auto& [name, value] : artifact["meta"].items()) text += "  " + printable(name + ": " + value.dump()) + "\n";
  Table table({{"  blob", Table::Align::left}, {"size", Table::Align::right}, {"digest", Table::Align::left}});
  std::size_t rows = 0;
  for (const auto& [name, blob] : artifact["blobs"].items())
    if (rows++ < kBlobRows)
      table.row({"  " + printable(name), human_bytes(blob["size"].get<std::uint64_t>()),
                 blob["digest"].get<std::string>().substr(0, 16)});
  text += table.text(false);
  if (rows > kBlobRows) text += fmt::format("  … and {} more (--json lists all)\n", rows - kBlobRows);
  return text;
}

Json describe_entry(const Store& store, const Digest& key, const ActionEntry& entry) {
  Json outputs = Json::object(), figures = Json::object();
  for (const auto& [port, output] : entry.outputs) outputs[port] = describe(store.artifact(output.second), output.second);
  for (const auto& [name, value] : entry.figures) figures[name] = std::isfinite(value) ? Json(value) : Json(nullptr);
  return {{"schema", 1},
          {"stage", entry.stage},
          {"use", entry.use},
          {"key", key.hex()},
          {"seconds", entry.seconds},
          {"peak_rss_bytes", entry.peak_rss},
          {"outputs", std::move(outputs)},
          {"figures", std::move(figures)},
          {"details", entry.details},
          {"log", entry.log ? Json(entry.log->hex()) : Json(nullptr)},
          {"preimage", entry.preimage ? Json(entry.preimage->hex()) : Json(nullptr)}};
}

int show_entry(const Store& store, const Digest& key, const ActionEntry& entry, const CommonOptions& common) {
  const Json json = describe_entry(store, key, entry);
  if (common.json) {
    print_json(json);
    return 0;
  }
  std::string text = fmt::format("{} ({})\n  key {}\n  {}, {} of memory at the peak\n", printable(entry.stage),
                                 printable(entry.use), key.hex(), human_seconds(entry.seconds), human_bytes(entry.peak_rss));
  for (const auto& [name, value] : entry.figures) text += fmt::format("  {} = {:.6g}\n", printable(name), value);
  for (const auto& [port, artifact] : json["outputs"].items()) text += "output " + printable(port) + ": " + artifact_text(artifact);
  print(text);
  return 0;
}

int show_digest(const Digest& digest, const CommonOptions& common) {
  const Store store = open_store(common, true);
  if (const auto entry = store.find(digest)) return show_entry(store, digest, *entry, common);
  if (!store.has_blob(digest)) throw_invalid("the store has no entry and no blob " + digest.hex(), store.root().string());
  try {
    Json json = describe(store.artifact(digest), digest);
    json["schema"] = 1;
    if (common.json)
      print_json(json);
    else
      print(artifact_text(json));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::corrupt && error.code() != ErrorCode::resource) throw;
    const auto bytes = std::filesystem::file_size(store.blob_path(digest));  // a blob that is no manifest: bytes, nothing more
    if (common.json)
      print_json({{"schema", 1},
                  {"type", "blob"},
                  {"digest", digest.hex()},
                  {"bytes", bytes},
                  {"path", store.blob_path(digest).string()}});
    else
      print(fmt::format("blob {}, {}\n  {}\n", digest.hex(), human_bytes(bytes), store.blob_path(digest).string()));
  }
  return 0;
}

int show(const RecipeArguments& recipe, const std::string& stage, const CommonOptions& common) {
  if (stage.empty()) {
    if (const auto digest = Digest::from_hex(recipe.file)) return show_digest(*digest, common);
    throw_invalid("\"" + printable(recipe.file) + "\" is no digest, and no stage is named", {},
                  "espalier show RECIPE STAGE, or a digest of 64 digits");
  }
  const auto loaded = load(common, recipe);
  if (!loaded) return 2;
  Store store = open_store(common, true);
  const StoredStage stored = require_stored(*loaded, store, stage);
  return show_entry(store, stored.key, stored.entry, common);
}

CommandAction set_up(CLI::App& app) {
  auto recipe = std::make_shared<RecipeArguments>();
  auto stage = std::make_shared<std::string>();
  recipe->attach(app);
  app.add_option("STAGE", *stage, "a stage of the recipe; without one, the first word is a digest");
  return [=](const CommonOptions& common) { return show(*recipe, *stage, common); };
}

const RegisterCommand registered{
    {"show",
     "what a stage made: outputs, figures, evidence",
     {"espalier show recipe.toml pruned", "espalier show recipe.toml speed --json", "espalier show DIGEST"},
     set_up}};

}  // namespace
}  // namespace espalier
