#include "program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

extern char** environ;
namespace fs = std::filesystem;

namespace {

std::string content(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

fs::path build() { return std::getenv("ESPALIER_BUILD"); }
std::string program() { return (build() / "bin" / "espalier").string(); }

}  // namespace

nlohmann::json Outcome::json() const {
  if (out.empty() || out.back() != '\n') throw std::runtime_error("stdout does not end with a line: " + out);
  const auto before = out.rfind('\n', out.size() - 2);
  return nlohmann::json::parse(out.substr(before == std::string::npos ? 0 : before + 1));
}

Workplace::Workplace() {
  std::string pattern = (fs::temp_directory_path() / "espalier-cli-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
  folder = pattern;
}

Workplace::~Workplace() { fs::remove_all(folder); }

fs::path Workplace::write(const std::string& name, const std::string& text) const {
  std::ofstream(folder / name, std::ios::binary) << text;
  return folder / name;
}

Outcome Workplace::run(std::vector<std::string> arguments, const std::vector<std::string>& environment) const {
  return start(program(), std::move(arguments), environment);
}

Outcome Workplace::shell(const std::string& command) const { return start("/bin/sh", {"-c", command}, {"ESPALIER=" + program()}); }

Outcome Workplace::start(const std::string& file, std::vector<std::string> arguments,
                         const std::vector<std::string>& environment) const {
  std::vector<std::string> settings = environment;
  settings.push_back("ESPALIER_PLUGIN_PATH=" + (build() / "tests" / "cli_plugins").string());
  settings.push_back("ESPALIER_STORE=" + (folder / "store").string());
  for (char** each = environ; *each; ++each)
    if (!std::string(*each).starts_with("ESPALIER_")) settings.push_back(*each);
  std::vector<char*> argv{const_cast<char*>(file.c_str())}, envp;
  for (auto& argument : arguments) argv.push_back(argument.data());
  for (auto& setting : settings) envp.push_back(setting.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);

  const auto out = (folder / ".out").string(), err = (folder / ".err").string();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t child = 0;
  const int problem = posix_spawn(&child, file.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (problem) throw std::runtime_error("cannot start " + file);
  int status = 0;
  waitpid(child, &status, 0);
  Outcome outcome;
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = content(out);
  outcome.err = content(err);
  return outcome;
}
