#pragma once
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "../engine/recipes.h"

/// The `espalier` program as a process of its own, with a store and the test's plugins.
class Program {
 public:
  Program(const Folder& folder, std::vector<std::string> arguments) : out_(folder / "out"), err_(folder / "err") {
    const std::string program = (test_plugins().parent_path().parent_path() / "bin/espalier").string();
    arguments.insert(arguments.begin(), program);
    std::vector<std::string> variables = {"ESPALIER_PLUGIN_PATH=" + test_plugins().string(),
                                          "ESPALIER_STORE=" + (folder / "store").string(), "PATH=/usr/bin:/bin",
                                          "HOME=" + folder.path().string()};
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, 1, out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::posix_spawn_file_actions_addopen(&actions, 2, err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const auto argv = pointers(arguments), envp = pointers(variables);
    const int error = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), envp.data());
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::runtime_error("cannot start " + program);
  }
  ~Program() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Program(const Program&) = delete;

  pid_t pid() const { return pid_; }
  std::string out() const { return read_file(out_); }
  std::string err() const { return read_file(err_); }

  /// The exit code, or 1000 and the signal's number.
  int wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }
  bool wait_for_text(const std::string& text, double seconds = 60) const {
    for (double waited = 0; waited < seconds; waited += 0.02) {
      if (err().find(text) != std::string::npos) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }

 private:
  static std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (std::string& text : texts) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
  }
  std::filesystem::path out_, err_;
  pid_t pid_ = -1;
};

/// Children of a process, of any of its threads.
inline std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(parent) + "/task", error)) {
    std::ifstream in(thread.path() / "children");
    for (pid_t pid; in >> pid;) found.push_back(pid);
  }
  return found;
}

inline bool gone(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string word;
  in >> word >> word >> word;
  return word.empty() || word == "Z";
}

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline void write_recipe(const Folder& folder, const std::string& stages) {
  write_file(folder / "recipe.toml", recipe_text(stages));
}

inline std::string work(const Folder& folder, const std::string& name, const std::string& more = {}) {
  return "[stages." + name + "]\nuse = \"source/work\"\ntext = \"" + name + "\"\ncounter = \"" + (folder / "counter").string() +
         "\"\n" + more;
}
