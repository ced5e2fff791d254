#pragma once
/// What every command of the `espalier` program is written against. A new command is one new file in this folder:
///
///   #include "cli/command.h"
///   namespace espalier {
///   namespace {
///   CommandAction set_up(CLI::App& app) {
///     auto repair = std::make_shared<bool>(false);             // options live as long as the action that captures them
///     app.add_flag("--repair", *repair, "remove what is damaged, so that it is made again");
///     return [repair](const CommonOptions& common) {
///       Store store = open_store(common);
///       …
///       if (common.json) print_json({{"schema", 1}, {"ok", true}});
///       return 0;                                              // the exit code
///     };
///   }
///   const RegisterCommand registered{{"verify", "check every blob of the store", {"espalier verify", "espalier verify --repair"},
///   set_up}}; }  // namespace }  // namespace espalier
///
/// Results go to stdout, everything else to stderr. An action returns the exit code: 0 done; 1 a stage failed, a `require` was not
/// met, corruption was found; 2 the call, recipe or file is wrong. It may throw: main prints an Error in one line (with --json as
/// {"schema":1,"ok":false,"error":{code, message, where, hint}}) and exits with exit_code(); any other exception exits 70.
#include <CLI/App.hpp>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "host/catalog.h"
#include "recipe/plan.h"
#include "store/store.h"

namespace espalier {

/// Options that every command takes; main adds them to each and decides about colour before the action runs.
struct CommonOptions {
  std::string store;          ///< --store DIR; empty: Store::default_root()
  bool json = false;          ///< --json: one line, last on stdout; no other line on stdout
  bool quiet = false;         ///< -q, --quiet: errors only on stderr
  int verbose = 0;            ///< -v: how often
  bool colour_out = false;    ///< stdout is a terminal, and neither NO_COLOR nor --json forbids it
  bool colour_err = false;    ///< the same of stderr
  bool terminal_err = false;  ///< stderr is a terminal: live progress is welcome (unless quiet)
};

using CommandAction = std::function<int(const CommonOptions&)>;

struct Command {
  std::string name;
  std::string summary;                             ///< one line, lower case, no full stop
  std::vector<std::string> examples;               ///< whole command lines; "CALL  # remark" is allowed
  std::function<CommandAction(CLI::App&)> set_up;  ///< adds the command's own options; only the chosen command's action runs
};

/// A static object of this type makes a command known.
struct RegisterCommand {
  explicit RegisterCommand(Command command);
};
/// All commands, sorted by name.
const std::vector<Command>& commands();

/// RECIPE and --set, for commands that take a recipe: attach() in set_up, load() in the action.
struct RecipeArguments {
  std::string file;
  std::vector<std::string> set;
  void attach(CLI::App& app);
};
/// A checked recipe with the catalog that its stages point into; keep both together.
struct LoadedRecipe {
  Catalog catalog;
  Plan plan;
  std::vector<Diagnostic> warnings;  ///< printed already, unless quiet
};
/// Reads and checks the recipe against the installed plugins. Diagnostics go to stderr as text, or with --json to stdout as
/// {"schema":1,"ok":false,"diagnostics":[…]}; nothing is returned when one of them is an error: `return 2`.
std::optional<LoadedRecipe> load(const CommonOptions& common, const RecipeArguments& arguments);
/// The stage of that name; throws Error(invalid_input) with "did you mean".
const Stage& require_stage(const Plan& plan, const std::string& name);
/// The names of the stages meant: a stage with a matrix by its own name means all that it has become.
std::vector<std::string> require_stages(const Plan& plan, const std::vector<std::string>& names);

std::filesystem::path store_root(const CommonOptions& common);
Store open_store(const CommonOptions& common, bool read_only = false);

/// One line on stdout. Bytes that are not UTF-8 are replaced.
void print_json(const Json& value);
/// Writes to stdout; a closed pipe ends the program quietly, a full disk is Error(resource).
void print(std::string_view text);
/// A remark on stderr, "espalier: …"; not when quiet.
void remark(const CommonOptions& common, std::string_view text);

}  // namespace espalier
