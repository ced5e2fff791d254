#include <catch2/catch_test_macros.hpp>

#include "program.h"

namespace {

/// Interrupts a run whose stages do not listen; checks code, time, and that no process stays.
void interrupt(int signal, int code, bool early) {
  const Folder folder;
  write_recipe(folder, "[stages.deaf]\nuse = \"source/fault\"\nhow = \"loop\"\n" + work(folder, "polite", "seconds = 60\n"));
  Program program(folder, {"run", (folder / "recipe.toml").string(), "--jobs", "2"});
  REQUIRE(program.wait_for_text("deaf: started"));
  if (!early) {
    for (int i = 0; i < 500 && lines_in(folder / "counter") == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    REQUIRE(lines_in(folder / "counter") == 1);
  }
  const std::vector<pid_t> workers = children_of(program.pid());
  REQUIRE(workers.size() == 1);
  const std::vector<pid_t> stages = children_of(workers.front());
  if (!early) REQUIRE(stages.size() == 2);
  const auto pressed = std::chrono::steady_clock::now();
  ::kill(program.pid(), signal);
  CHECK(program.wait() == code);
  CHECK(seconds_since(pressed) < 1.0);
  INFO(program.err());
  CHECK(program.err().find("interrupted") != std::string::npos);
  CHECK(gone(workers.front()));
  for (int i = 0; i < 50 && !std::all_of(stages.begin(), stages.end(), gone); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(std::all_of(stages.begin(), stages.end(), gone));
  Program verify(folder, {"verify"});
  CHECK(verify.wait() == 0);
  CHECK(std::filesystem::is_empty(folder / "store/tmp"));
}

}  // namespace

TEST_CASE("Ctrl-C stops a run within a second, with code 130") { interrupt(SIGINT, 130, false); }
TEST_CASE("SIGTERM stops a run within a second, with code 143") { interrupt(SIGTERM, 143, false); }
TEST_CASE("a run can be stopped while its worker still loads") { interrupt(SIGINT, 130, true); }

TEST_CASE("a stage that listens ends by itself, and what had finished is kept") {
  const Folder folder;
  write_recipe(folder, work(folder, "first") + work(folder, "second", "in = [\"@first\"]\nseconds = 60\n"));
  Program program(folder, {"run", (folder / "recipe.toml").string(), "--json"});
  REQUIRE(program.wait_for_text("second: started"));
  ::kill(program.pid(), SIGINT);
  CHECK(program.wait() == 130);
  const espalier::Json json = espalier::Json::parse(program.out());
  CHECK(json["ok"] == false);
  CHECK(json["stages"][0]["status"] == "ran");
  CHECK(json["stages"][1]["status"] == "cancelled");
}
