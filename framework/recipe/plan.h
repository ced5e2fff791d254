#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "host/catalog.h"

namespace espalier {

/// One finding in a recipe. Text form: `FILE:LINE:COL: error[CODE]: message`, the source line, a caret, a hint.
struct Diagnostic {
  std::string code;                ///< "unknown-key", "unknown-component", "type", "range", "missing-input", "port-type", "cycle",
                                   ///< "undefined-parameter", …
  std::string severity = "error";  ///< or "warning"
  std::string message, file, hint;
  int line = 0, column = 0;  ///< from 1; 0: the whole file
};

struct StageInput {
  std::string stage;
  std::string port;
};  ///< producer

/// `require = { speedup = ">1.0" }`.
struct Requirement {
  std::string figure;
  std::string op;
  double bound = 0;
  std::string text;
  int line = 0;
};

/// A checked parameter value. For components: {"use": …, parameters with defaults}. Paths are absolute in `value`; `files` lists
/// them so that their digests can stand in the key instead.
struct Stage {
  std::string name, use;
  const ComponentInfo* component = nullptr;
  Json params = Json::object();                           ///< defaults filled in, numbers in the schema's type
  std::vector<std::filesystem::path> files;               ///< what parameters of type path name, nested components' too
  std::map<std::string, std::vector<StageInput>> inputs;  ///< port → producers (several for "many" ports)
  int threads = 2;
  std::optional<double> timeout_seconds;      ///< `timeout = "10m"` or seconds
  std::optional<std::uint64_t> memory_bytes;  ///< `memory = "4GiB"`
  std::string device = "cpu";
  std::uint64_t seed = 0;
  std::vector<Requirement> require;
  int line = 0;
};

/// What [report] compares: names of stages that give a model or a package; empty where there is none. Part of no action key.
struct ReportRoles {
  std::string candidate;
  std::string control;   ///< what the candidate would be without the step in question, everything else alike
  std::string original;  ///< what everything started from
};

/// A recipe, checked against a catalog: stages in topological order (ties by the recipe's order).
struct Plan {
  std::filesystem::path file;
  std::string name, description;
  std::uint64_t seed = 0;
  std::map<std::string, Json> params;
  std::vector<Stage> stages;
  std::optional<ReportRoles> report;
  const Stage* find(std::string_view name) const;
  /// The stage of that name, or all that its matrix, or a matrix that it reads, has made of it ("pruned" → "pruned[sparsity=0.1]",
  /// …).
  std::vector<const Stage*> named(std::string_view name) const;
  /// Names of the given stages and of all that they need.
  std::vector<std::string> closure(const std::vector<std::string>& wanted) const;
};

struct RecipeOptions {
  std::vector<std::pair<std::string, std::string>> set;  ///< --set key=value, values in TOML syntax or bare words
  std::filesystem::path working_directory;               ///< for paths that come from --set
};
struct RecipeResult {
  std::optional<Plan> plan;
  std::vector<Diagnostic> diagnostics;
  std::string source;
};

/// Parses and checks a recipe; all errors in one go; never throws for a bad recipe (only for a file that cannot be read: Error).
/// A file that is not UTF-8, or larger than 4 MiB, is one diagnostic.
RecipeResult load_recipe(const std::filesystem::path& file, const Catalog& catalog, const RecipeOptions& options = {});
/// The compiler-like text of one diagnostic.
std::string render(const Diagnostic& d, const std::string& source, bool colour);
Json to_json(const Diagnostic& d);

}  // namespace espalier
