#include "host/catalog.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "host/elf.h"
#include "host/manifest.h"

namespace espalier {
namespace {

constexpr const char* manifest_section = ".espalier";

std::filesystem::path program_folder() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path(".") : program.parent_path();
}

void add_problem(PluginInfo& plugin, const std::string& problem) {
  plugin.problem += (plugin.problem.empty() ? "" : "; ") + problem;
}

}  // namespace

std::string ComponentInfo::kind() const { return name.substr(0, name.find('/')); }

PluginInfo read_plugin(const std::filesystem::path& file) {
  auto section = read_elf_section(file, manifest_section);
  if (!section.problem.empty()) {
    PluginInfo info;
    info.file = file;
    info.problem = fmt::format("{}: {}{}", file.string(), section.problem,
                               section.absent ? ": not a plugin (ESPALIER_PLUGIN in its source makes the manifest)" : "");
    return info;
  }
  // The string literal brings its final NUL, and the linker may pad.
  std::string& text = section.bytes;
  while (!text.empty() && text.back() == '\0') text.pop_back();
  if (text.find('\0') != std::string::npos) {
    PluginInfo info;
    info.file = file;
    info.problem =
        fmt::format("{}: holds more than one manifest; ESPALIER_PLUGIN may stand in one source file only", file.string());
    return info;
  }
  return parse_manifest(text, file);
}

Catalog Catalog::from(std::vector<PluginInfo> plugins) {
  std::sort(plugins.begin(), plugins.end(), [](const PluginInfo& a, const PluginInfo& b) { return a.file < b.file; });
  std::map<std::string, std::vector<std::size_t>> offers;
  for (std::size_t i = 0; i < plugins.size(); ++i)
    if (plugins[i].usable)
      for (const auto& component : plugins[i].components) offers[component.name].push_back(i);
  for (const auto& [name, offering] : offers) {
    if (offering.size() == 1) continue;
    std::string files;
    for (const auto i : offering) files += (files.empty() ? "" : " and ") + plugins[i].file.string();
    for (const auto i : offering)
      add_problem(plugins[i], fmt::format("component {} is offered by {}: neither is used, remove one", name, files));
  }
  Catalog catalog;
  catalog.plugins_ = std::make_shared<const std::vector<PluginInfo>>(std::move(plugins));
  for (const auto& plugin : *catalog.plugins_)
    if (plugin.usable)
      for (const auto& component : plugin.components)
        if (offers[component.name].size() == 1) catalog.by_name_.emplace(component.name, &component);
  return catalog;
}

Catalog Catalog::scan(const std::vector<std::filesystem::path>& folders) {
  std::vector<PluginInfo> plugins;
  std::set<std::filesystem::path> seen;  // one file reached through two folders is one plugin
  for (const auto& folder : folders) {
    std::error_code error;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
      if (entry->path().extension() != ".so") continue;
      std::error_code no_target;
      auto file = std::filesystem::canonical(entry->path(), no_target);
      if (no_target) file = std::filesystem::absolute(entry->path());
      if (seen.insert(file).second) plugins.push_back(read_plugin(file));
    }
  }
  return from(std::move(plugins));
}

std::vector<std::filesystem::path> Catalog::default_folders() {
  std::vector<std::filesystem::path> folders{(program_folder() / ".." / "plugins").lexically_normal()};
  if (const char* more = std::getenv("ESPALIER_PLUGIN_PATH")) {
    std::string_view rest = more;
    while (!rest.empty()) {
      const auto colon = rest.find(':');
      if (const auto folder = rest.substr(0, colon); !folder.empty()) folders.push_back(std::filesystem::absolute(folder));
      if (colon == std::string_view::npos) break;
      rest.remove_prefix(colon + 1);
    }
  }
  return folders;
}

const ComponentInfo* Catalog::find(std::string_view component) const {
  const auto found = by_name_.find(component);
  return found == by_name_.end() ? nullptr : found->second;
}

std::vector<std::string> Catalog::names(std::string_view kind) const {
  std::vector<std::string> result;
  for (const auto& [name, component] : by_name_)
    if (kind.empty() || component->kind() == kind) result.push_back(name);
  return result;
}

std::string Catalog::refusal(std::string_view component) const {
  if (find(component)) return {};
  for (const auto& plugin : plugins())
    for (const auto& offered : plugin.components)
      if (offered.name == component) return plugin.problem;
  return {};
}

}  // namespace espalier
