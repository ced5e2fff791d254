#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>

#include "cli/command.h"
#include "cli/table.h"
#include "engine/installation.h"
#include "sdk/error.h"
#include "sdk/fingerprint.h"

extern char** environ;

namespace espalier {
namespace {

struct Check {
  std::string name;
  bool ok = true;
  std::string found, advice;
};

Check check_plugins() {
  Check check{"plugins", true, {}, {}};
  const auto folders = Catalog::default_folders();
  const Catalog catalog = Catalog::scan(folders);
  std::string looked, problems;
  for (const auto& folder : folders) looked += (looked.empty() ? "" : ", ") + folder.string();
  for (const auto& plugin : catalog.plugins())
    if (!plugin.problem.empty()) problems += (problems.empty() ? "" : "; ") + plugin.problem;
  check.found = fmt::format("{} components in {}", catalog.names().size(), looked);
  if (catalog.names().empty()) {
    check.ok = false;
    check.advice = "build the plugins (./espalier build), or name their folder in ESPALIER_PLUGIN_PATH";
  }
  if (!problems.empty()) {
    check.ok = false;
    check.advice = problems;
  }
  return check;
}

Check check_store(const CommonOptions& common) {
  Check check{"store", true, {}, {}};
  try {
    Store store = open_store(common);
    check.found = store.root().string() + " can be written";
    std::filesystem::remove_all(store.new_temporary());
  } catch (const Error& error) {
    check.ok = false;
    check.found = error.message() + (error.where().empty() ? "" : ": " + error.where());
    check.advice = error.hint().empty() ? "give another folder: --store DIR or ESPALIER_STORE" : error.hint();
  }
  return check;
}

Check check_disk(const CommonOptions& common) {
  constexpr std::uint64_t little = 4ull << 30;
  Check check{"disk", true, {}, {}};
  auto folder = store_root(common);
  std::error_code error;
  while (!std::filesystem::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  const auto space = std::filesystem::space(folder, error);
  if (error)
    return {"disk", false, fmt::format("{}: {}", folder.string(), error.message()),
            "give another folder: --store DIR or ESPALIER_STORE"};
  check.found = fmt::format("{} free at {}", human_bytes(space.available), folder.string());
  check.ok = space.available >= little;
  if (!check.ok)
    check.advice = "a small language model needs some 4 GiB: make room (espalier gc), or put the store on another disk";
  return check;
}

std::uint64_t memory_field(const std::string& wanted) {
  std::ifstream in("/proc/meminfo");
  std::string name, unit;
  std::uint64_t value = 0;
  while (in >> name >> value && std::getline(in, unit))
    if (name == wanted) return value * 1024;
  return 0;
}

Check check_memory() {
  constexpr std::uint64_t little = 3ull << 30;
  const auto available = memory_field("MemAvailable:"), total = memory_field("MemTotal:");
  Check check{"memory", available >= little, fmt::format("{} available of {}", human_bytes(available), human_bytes(total)), {}};
  if (!check.ok) check.advice = "the quickstart needs some 3 GiB: close other programs, or use smaller models";
  return check;
}

Check check_cores() {
  cpu_set_t set;
  const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
  Check check{"cores", cores >= 2, fmt::format("{} usable", cores), {}};
  if (!check.ok) check.advice = "stages use two threads unless a recipe says otherwise: with one core they work, but slowly";
  return check;
}

Check check_runtime(const char* name, const char* shown) {
  Check check{shown, true, {}, {}};
  try {
    const auto version = Installation::current().runtime_version(name);
    check.ok = version != "absent";
    check.found = check.ok ? version : "its libraries are not where the worker looks";
  } catch (const Error& error) {
    check.ok = false;
    check.found = error.what();
  }
  if (!check.ok) check.advice = "./espalier setup installs what is missing; ./espalier build after it";
  return check;
}

/// Exit status of a program without arguments and the first line of its stderr; -1 when it did not end within `seconds`.
std::pair<int, std::string> start(const std::filesystem::path& program, int seconds) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {-1, std::strerror(errno)};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  const std::string name = program.string();
  char* arguments[] = {const_cast<char*>(name.c_str()), nullptr};
  pid_t child = 0;
  const int problem = ::posix_spawn(&child, name.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string text;
  bool late = false;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (problem == 0) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd waiting{ends[0], POLLIN, 0};
    late = left <= 0 || ::poll(&waiting, 1, static_cast<int>(left)) == 0;
    if (late) break;
    char piece[4096];
    const ssize_t done = ::read(ends[0], piece, sizeof piece);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) break;
    if (text.size() < sizeof piece) text.append(piece, static_cast<std::size_t>(done));
  }
  ::close(ends[0]);
  if (problem) return {-1, std::strerror(problem)};
  if (late) ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  const auto line = text.substr(0, text.find('\n'));
  if (late) return {-1, fmt::format("it did not end within {} s", seconds)};
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), line};
}

Check check_worker() {
  constexpr int own_refusal = 2;  // without arguments it says that it is not for people, after all its libraries were loaded
  const auto worker = Installation::current().worker();
  const auto begin = std::chrono::steady_clock::now();
  const auto [status, line] = start(worker, 60);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Check check{"worker", status == own_refusal, {}, {}};
  if (check.ok)
    check.found = fmt::format("{} starts in {}", worker.string(), human_seconds(seconds));
  else {
    check.found = fmt::format("{} does not start: {}", worker.string(), line.empty() ? fmt::format("status {}", status) : line);
    check.advice = "build again (./espalier build); a library that is not found is installed by ./espalier setup";
  }
  return check;
}

CommandAction set_up(CLI::App&) {
  return [](const CommonOptions& common) {
    const std::vector<Check> checks = {check_plugins(),
                                       check_store(common),
                                       check_disk(common),
                                       check_memory(),
                                       check_cores(),
                                       check_runtime("torch", "LibTorch"),
                                       check_runtime("openvino", "OpenVINO"),
                                       check_worker()};
    bool sound = true;
    Json list = Json::array();
    Table table({{"check", Table::Align::left}, {"", Table::Align::left}, {"found", Table::Align::left}});
    std::string advice;
    for (const auto& check : checks) {
      sound = sound && check.ok;
      list.push_back({{"name", check.name}, {"ok", check.ok}, {"found", check.found}, {"advice", check.advice}});
      table.row(
          {check.name, coloured(check.ok ? "ok" : "WRONG", check.ok ? "green" : "red", common.colour_out), printable(check.found)});
      if (!check.ok) advice += fmt::format("{}: {}\n", check.name, printable(check.advice));
    }
    if (common.json)
      print_json({{"schema", 1},
                  {"ok", sound},
                  {"version", ESPALIER_VERSION},
                  {"fingerprint", ESPALIER_FINGERPRINT},
                  {"checks", std::move(list)}});
    else
      print(table.text(common.colour_out) + (advice.empty() ? "" : "\nWhat to do:\n" + advice));
    return sound ? 0 : 1;
  };
}

const RegisterCommand registered{{"doctor",
                                  "check the installation and the machine, and say what to do",
                                  {"espalier doctor", "espalier doctor --json"},
                                  set_up}};

}  // namespace
}  // namespace espalier
