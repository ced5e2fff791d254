// Training that is killed with the whole program: the next run goes on, and ends with the bytes of an unbroken one.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "e2e/tiny_model.h"

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

constexpr const char* head = R"([recipe]
name = "resume"
seed = 3

[stages.base]
use            = "source/onnx"
path           = "model.onnx"
task           = "causal-lm"
tokenizer_file = "tokenizer.json"

[stages.corpus]
use       = "source/text"
files     = ["train.txt"]
tokenizer = "@base.tokenizer"
sequence  = 48
)";

constexpr const char* tuned = R"(
[stages.tuned]
use            = "distiller/finetune"
model          = "@base"
data           = "@corpus"
steps          = 150
batch          = 2
resume_every   = 8
)";

constexpr const char* iterative = R"(
[stages.tuned]
use            = "pruner/iterative"
model          = "@base"
data           = "@corpus"
heldout        = "@corpus"
rounds         = 4
share          = 0.15
channels_scope = ["*.mlp"]
metric         = { use = "metric/taylor", samples = 4 }
recover        = { use = "distiller/distill", steps = 6, resume_every = 3 }
)";

std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

class Folder {
 public:
  explicit Folder(const char* stage) {
    std::string pattern = (fs::temp_directory_path() / "espalier-resume-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()));
    path = pattern;
    espalier::test::write_tiny_model(path);
    std::ofstream(path / "recipe.toml") << head << stage;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

/// `espalier run recipe.toml` with a store of its own, in a process group of its own.
class Run {
 public:
  Run(const Folder& folder, const std::string& store) : out_(folder.path / (store + ".out")), err_(folder.path / (store + ".err")) {
    const char* build = std::getenv("ESPALIER_BUILD");
    REQUIRE(build);
    std::vector<std::string> words{
        std::string(build) + "/bin/espalier", "run", (folder.path / "recipe.toml").string(), "--json", "-v", "--store",
        (folder.path / store).string()};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 1, out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::posix_spawn_file_actions_addopen(&actions, 2, err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    const int error = ::posix_spawn(&pid_, arguments[0], &actions, &attributes, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    REQUIRE(error == 0);
  }
  ~Run() {
    if (pid_ > 0) kill();
  }
  /// The program and what it started; the stage's process, too.
  void kill() {
    ::kill(-pid_, SIGKILL);
    wait();
  }
  int wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }
  Json stage() const {
    const Json run = Json::parse(text_of(out_));
    for (const Json& stage : run.at("stages"))
      if (stage.at("name") == "tuned") return stage;
    return {};
  }
  std::string errors() const { return text_of(err_); }

 private:
  fs::path out_, err_;
  pid_t pid_ = -1;
};

/// Steps of the state that lies in the store, or -1.
long steps_on_disk(const fs::path& store) {
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(store / "tmp", error)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("training-", 0) != 0 || name.find('.') != std::string::npos) continue;
    std::string head(1 << 16, '\0');
    std::ifstream in(entry.path(), std::ios::binary);
    in.read(head.data(), static_cast<std::streamsize>(head.size()));
    if (const auto at = head.find("\"step\":"); at != std::string::npos) return std::atol(head.c_str() + at + 7);
  }
  return -1;
}

/// Rounds of the state that lies in the store, or -1.
long rounds_on_disk(const fs::path& store) {
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(store / "tmp", error)) {
    if (entry.path().filename() != "rounds") continue;
    const std::string state = text_of(entry.path());
    if (const auto at = state.find("\"round\":"); at != std::string::npos) return std::atol(state.c_str() + at + 8);
  }
  return -1;
}

using OnDisk = long (*)(const fs::path& store);

/// Kills a run, with all that it started, once its state on disk has reached `least`; where the state then stands.
long killed_at(const Folder& folder, OnDisk on_disk, long least) {
  const fs::path store = folder.path / "broken";
  long reached = -1;
  {
    Run broken(folder, "broken");
    for (int i = 0; i < 24000 && reached < least; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      reached = std::max(reached, on_disk(store));
    }
    INFO(broken.errors());
    REQUIRE(reached >= least);
    broken.kill();
  }
  // The stage's process dies with its host; until then it may still write.
  std::this_thread::sleep_for(std::chrono::seconds(1));
  reached = on_disk(store);
  REQUIRE(reached >= least);
  return reached;
}

Json finished(const Folder& folder, const std::string& store) {
  Run run(folder, store);
  const int code = run.wait();
  INFO(run.errors());
  REQUIRE(code == 0);
  return run.stage();
}

/// The stage as an unbroken run has it, and as the run has it that goes on where another was killed. Nothing stays behind.
struct Both {
  Json whole, resumed;
  long killed_at;
};

Both broken_and_whole(const Folder& folder, OnDisk on_disk, long least) {
  Both both{.whole = finished(folder, "whole"), .resumed = {}, .killed_at = killed_at(folder, on_disk, least)};
  both.resumed = finished(folder, "broken");
  CHECK_FALSE(both.whole.at("figures").contains("resumed_at"));
  CHECK(both.resumed.at("figures").at("resumed_at") == both.killed_at);
  CHECK(both.resumed.at("outputs").at("model").at("digest") == both.whole.at("outputs").at("model").at("digest"));
  CHECK(on_disk(folder.path / "broken") == -1);
  return both;
}

}  // namespace

TEST_CASE("training that is killed with kill -9 repeats little and ends with the digest of an unbroken run") {
  const Folder folder(tuned);
  const Both both = broken_and_whole(folder, steps_on_disk, 120);  // at 80 % of the steps
  CHECK(both.resumed.at("figures").at("loss_last") == both.whole.at("figures").at("loss_last"));
}

TEST_CASE("iterative pruning that is killed with kill -9 goes on at its round, to the digest of an unbroken run") {
  const Folder folder(iterative);
  const Both both = broken_and_whole(folder, rounds_on_disk, 2);
  CHECK(both.whole.at("figures").at("rounds") == 4);
  CHECK(both.resumed.at("outputs").at("masks").at("digest") == both.whole.at("outputs").at("masks").at("digest"));
  CHECK(both.resumed.at("figures").at("heldout_loss_after") == both.whole.at("figures").at("heldout_loss_after"));
}
