#include "cli/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "cli/table.h"
#include "sdk/error.h"

namespace espalier {
namespace {

std::vector<Command>& registry() {
  static std::vector<Command> all;
  return all;
}

}  // namespace

RegisterCommand::RegisterCommand(Command command) {
  auto& all = registry();
  const auto place =
      std::lower_bound(all.begin(), all.end(), command, [](const Command& a, const Command& b) { return a.name < b.name; });
  if (place != all.end() && place->name == command.name) {
    std::fprintf(stderr, "espalier: two commands are named \"%s\"\n", command.name.c_str());
    std::abort();
  }
  all.insert(place, std::move(command));
}

const std::vector<Command>& commands() { return registry(); }

void RecipeArguments::attach(CLI::App& app) {
  app.add_option("RECIPE", file, "the recipe, a TOML file")->required();
  app.add_option("--set", set, "another value for one of the recipe's [params]: KEY=VALUE (again for more)")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

std::optional<LoadedRecipe> load(const CommonOptions& common, const RecipeArguments& arguments) {
  RecipeOptions options;
  options.working_directory = std::filesystem::current_path();
  for (const auto& pair : arguments.set) {
    const auto equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      throw_invalid("--set " + printable(pair) + " is not KEY=VALUE", {}, "for example --set sparsity=0.3");
    options.set.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  Catalog catalog = Catalog::scan(Catalog::default_folders());
  RecipeResult result = load_recipe(arguments.file, catalog, options);
  const bool failed =
      std::any_of(result.diagnostics.begin(), result.diagnostics.end(), [](const auto& d) { return d.severity == "error"; });
  if (failed && common.json) {
    Json list = Json::array();
    for (const auto& d : result.diagnostics) list.push_back(to_json(d));
    print_json({{"schema", 1}, {"ok", false}, {"diagnostics", std::move(list)}});
  } else {
    for (const auto& d : result.diagnostics)
      if (d.severity == "error" || !common.quiet) std::fputs(render(d, result.source, common.colour_err).c_str(), stderr);
  }
  if (failed) return std::nullopt;
  return LoadedRecipe{std::move(catalog), std::move(result.plan.value()), std::move(result.diagnostics)};
}

const Stage& require_stage(const Plan& plan, const std::string& name) {
  if (const Stage* stage = plan.find(name)) return *stage;
  std::vector<std::string> names;
  for (const auto& stage : plan.stages) names.push_back(stage.name);
  if (const auto variants = plan.named(name); !variants.empty())
    throw_invalid("stage \"" + printable(name) + "\" is several, by a matrix", plan.file.string(),
                  "name one of them, such as '" + variants.front()->name + "'");
  const auto near = nearest(name, names);
  std::string all;
  for (const auto& each : names) all += (all.empty() ? "" : ", ") + each;
  throw_invalid("the recipe has no stage \"" + printable(name) + "\"", plan.file.string(),
                near ? "did you mean \"" + *near + "\"?" : "its stages: " + all);
}

std::vector<std::string> require_stages(const Plan& plan, const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const auto& name : names) {
    const auto meant = plan.named(name);
    if (meant.empty()) require_stage(plan, name);
    for (const Stage* stage : meant) all.push_back(stage->name);
  }
  return all;
}

std::filesystem::path store_root(const CommonOptions& common) {
  return common.store.empty() ? Store::default_root() : std::filesystem::absolute(common.store);
}

Store open_store(const CommonOptions& common, bool read_only) { return Store::open(store_root(common), read_only); }

void print_json(const Json& value) { print(value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"); }

void print(std::string_view text) {
  std::fflush(stdout);
  while (!text.empty()) {
    const ssize_t done = ::write(STDOUT_FILENO, text.data(), text.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno == EPIPE) std::_Exit(141);  // as a shell reports SIGPIPE: the reader had enough
    if (done < 0)
      throw Error(ErrorCode::resource, std::string("cannot write the result: ") + std::strerror(errno), "standard output");
    text.remove_prefix(static_cast<std::size_t>(done));
  }
}

void remark(const CommonOptions& common, std::string_view text) {
  if (!common.quiet) fmt::print(stderr, "espalier: {}\n", text);
}

}  // namespace espalier
