#include <catch2/catch_test_macros.hpp>
#include <random>

#include "program.h"

using namespace espalier;

namespace {

constexpr int kRounds = 30;
const std::vector<std::string> kStages = {"a", "b", "c", "d", "e"};

std::string small_recipe(const Folder& folder) {
  const std::string bytes = "bytes = 300000\nseconds = 0.05\n";
  return work(folder, "a", bytes) + work(folder, "b", bytes + "in = [\"@a\"]\n") + work(folder, "c", bytes + "in = [\"@a\"]\n") +
         work(folder, "d", bytes + "in = [\"@b\", \"@c\"]\n") + work(folder, "e", bytes);
}

/// Stages whose entries the store holds; why the others are none of them.
std::set<std::string> finished(const Folder& folder, std::string* why = nullptr) {
  std::set<std::string> names;
  if (!std::filesystem::exists(folder / "store/format")) return names;
  const Recipe recipe(folder / "recipe.toml", small_recipe(folder));
  Store store = Store::open(folder / "store");
  for (const PlannedStage& stage : preflight(recipe.plan, store, recipe.catalog, {}).stages)
    if (stage.hit)
      names.insert(stage.name);
    else if (why)
      *why += stage.name + ": " + stage.reason + "\n";
  return names;
}

std::map<std::string, int> counted(const Folder& folder) {
  std::map<std::string, int> counts;
  std::ifstream in(folder / "counter");
  for (std::string line; std::getline(in, line);) ++counts[line];
  return counts;
}

/// The host, its worker, or a stage's process.
pid_t victim_of(const Program& program, int kind) {
  if (kind == 0) return program.pid();
  const auto workers = children_of(program.pid());
  if (workers.empty()) return program.pid();
  const auto stages = children_of(workers.front());
  return kind == 1 || stages.empty() ? workers.front() : stages.front();
}

}  // namespace

TEST_CASE("kill -9 of host, worker or stage at any moment: the rerun finishes and redoes nothing that had finished") {
  // How long an unbroken run takes here decides which moments lie inside one.
  const auto start = std::chrono::steady_clock::now();
  {
    const Folder folder;
    write_recipe(folder, small_recipe(folder));
    Program whole(folder, {"run", (folder / "recipe.toml").string(), "--jobs", "2"});
    REQUIRE(whole.wait() == 0);
  }
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start).count();
  std::mt19937 random(20261);
  int interrupted_runs = 0;
  for (int round = 0; round < kRounds; ++round) {
    const Folder folder;
    write_recipe(folder, small_recipe(folder));
    const std::vector<std::string> call = {"run", (folder / "recipe.toml").string(), "--jobs", "2"};
    {
      Program program(folder, call);
      std::this_thread::sleep_for(std::chrono::milliseconds(std::uniform_int_distribution<long>(0, whole * 9 / 10)(random)));
      ::kill(victim_of(program, round % 3), SIGKILL);
      const int code = program.wait();
      interrupted_runs += code != 0;
      CHECK((code == 0 || code == 1 || code == 1000 + SIGKILL));
    }
    const auto done = finished(folder);
    const auto before = counted(folder);
    Program again(folder, call);
    const int code = again.wait();
    INFO("round " << round << "\n" << again.err());
    CHECK(code == 0);
    auto after = counted(folder);
    for (const std::string& stage : kStages) {
      CHECK(after[stage] >= 1);
      if (done.contains(stage)) CHECK(after[stage] == before.at(stage));
    }
    std::string why;
    const auto kept = finished(folder, &why);
    INFO("not kept:\n" << why);
    CHECK(kept.size() == kStages.size());
    Program verify(folder, {"verify"});
    CHECK(verify.wait() == 0);
  }
  CHECK(interrupted_runs >= kRounds / 3);
}

TEST_CASE("a worker that is killed fails the stages it ran, says so, and is started again for the others") {
  const Folder folder;
  // One at a time: `first` comes before `last`, which has to wait for another stage.
  write_recipe(folder,
               work(folder, "first", "seconds = 30\n") + work(folder, "middle") + work(folder, "last", "in = [\"@middle\"]\n"));
  Program program(folder, {"run", (folder / "recipe.toml").string()});
  for (int i = 0; i < 500 && !counted(folder).contains("first"); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto workers = children_of(program.pid());
  REQUIRE(workers.size() == 1);
  ::kill(workers.front(), SIGKILL);
  CHECK(program.wait() == 1);
  INFO(program.err());
  CHECK(program.err().find("the worker process died: killed by signal SIGKILL") != std::string::npos);
  CHECK(program.err().find("last: ran") != std::string::npos);
}

TEST_CASE("two processes that want the same key do the work once") {
  const Folder folder, other;
  write_recipe(folder, work(folder, "a", "seconds = 0.5\n") + work(folder, "b", "in = [\"@a\"]\nseconds = 0.5\n"));
  Program one(folder, {"run", (folder / "recipe.toml").string()});
  Program two(other, {"run", (folder / "recipe.toml").string(), "--store", (folder / "store").string()});
  CHECK(one.wait() == 0);
  CHECK(two.wait() == 0);
  CHECK(lines_in(folder / "counter") == 2);
}
