#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

/// What a call of the program gave.
struct Outcome {
  int status = 0;  ///< exit code, or 128 + signal
  std::string out, err;
  /// The last line of stdout as JSON; throws when it is none.
  nlohmann::json json() const;
};

/// A temporary folder with a store of its own and the described plugin on the plugin path.
class Workplace {
 public:
  Workplace();
  ~Workplace();
  /// Runs `espalier` with arguments; `environment` holds NAME=VALUE.
  Outcome run(std::vector<std::string> arguments, const std::vector<std::string>& environment = {}) const;
  /// A whole shell command; $ESPALIER is the program.
  Outcome shell(const std::string& command) const;
  std::filesystem::path write(const std::string& name, const std::string& text) const;
  std::filesystem::path folder;

 private:
  Outcome start(const std::string& program, std::vector<std::string> arguments, const std::vector<std::string>& environment) const;
};
