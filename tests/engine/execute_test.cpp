#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <chrono>
#include <thread>

#include "recipes.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

struct Setting {
  Folder folder;
  Store store = Store::open(folder / "store");
  EngineOptions options;
  Listener listener;
  std::string counter = (folder / "counter").string();

  std::string work(const std::string& name, const std::string& more = {}) const {
    return "[stages." + name + "]\nuse = \"source/work\"\ntext = \"" + name + "\"\ncounter = \"" + counter + "\"\n" + more;
  }
  std::string fault(const std::string& name, const std::string& how, const std::string& more = {}) const {
    return "[stages." + name + "]\nuse = \"source/fault\"\nhow = \"" + how + "\"\ntext = \"" + name + "\"\ncounter = \"" + counter +
           "\"\n" + more;
  }
  std::vector<StageResult> run(const std::string& stages) {
    listener = {};
    const Recipe recipe(folder / "recipe.toml", stages);
    return execute(recipe.plan, store, recipe.catalog, options, listener);
  }
  std::string output(const StageResult& result) const {
    return read_file(store.blob_path(store.artifact(result.entry->outputs.at("out").second).blobs.at("data").digest));
  }
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("stages run in their order, hand on their outputs, and are cached") {
  Setting s;
  const std::string recipe = s.work("a") + s.work("b", "in = [\"@a\"]\n") + s.work("c", "in = [\"@a\", \"@b\"]\nseconds = 0.3\n");
  auto results = s.run(recipe);
  REQUIRE(results.size() == 3);
  for (const auto& result : results) CHECK(result.status == StageStatus::ran);
  CHECK(s.output(named(results, "c")) == "a\na\nb\nc\n");
  CHECK(named(results, "c").entry->figures.at("accuracy") == 0.5);
  CHECK(named(results, "c").entry->details.contains("curve.loss"));
  CHECK(named(results, "c").entry->seconds >= 0.3);
  CHECK(named(results, "c").entry->peak_rss > 1000000);
  CHECK(read_file(s.store.blob_path(*named(results, "c").log)).find("printed by c") != std::string::npos);
  CHECK(read_file(s.store.blob_path(*named(results, "c").entry->preimage)).find("source/work") != std::string::npos);
  CHECK(s.listener.order == std::vector<std::string>{"a", "b", "c"});
  CHECK(s.listener.reports > 0);
  CHECK(s.listener.reports <= 6);  // about ten a second
  CHECK(lines_in(s.counter) == 3);

  rusage before{}, after{};
  ::getrusage(RUSAGE_CHILDREN, &before);
  results = s.run(recipe);
  ::getrusage(RUSAGE_CHILDREN, &after);
  CHECK(before.ru_minflt == after.ru_minflt);  // no worker was started: no child was waited for
  for (const auto& result : results) CHECK(result.status == StageStatus::cached);
  CHECK(s.listener.started_stages.empty());
  CHECK(lines_in(s.counter) == 3);
  results = s.run(s.work("a") + s.work("b", "in = [\"@a\"]\n") + s.work("c", "in = [\"@a\", \"@b\"]\nseconds = 0.2\n"));
  CHECK(named(results, "b").status == StageStatus::cached);
  CHECK(named(results, "c").status == StageStatus::ran);
  CHECK(fs::is_empty(s.folder / "store/tmp"));
}

TEST_CASE("a stage sees no variable that changes kernels, and malloc's settings unless the user has some") {
  Setting s;
  const auto surroundings = [&](int seed) {
    const auto results = s.run("[stages.a]\nuse = \"source/surroundings\"\nseed = " + std::to_string(seed) + "\n");
    REQUIRE(results.front().status == StageStatus::ran);
    return "\n" + s.output(results.front());
  };
  ::setenv("MKL_ENABLE_INSTRUCTIONS", "SSE4_2", 1);
  ::setenv("ESPALIER_TEST_SEEN", "yes", 1);
  ::unsetenv("GLIBC_TUNABLES");
  const std::string found = surroundings(1);
  CHECK(found.find("\nMKL_ENABLE_INSTRUCTIONS=") == std::string::npos);
  CHECK(found.find("\nESPALIER_TEST_SEEN=yes\n") != std::string::npos);
  CHECK(found.find("\nGLIBC_TUNABLES=glibc.malloc.hugetlb=1:") != std::string::npos);
  ::setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=4", 1);
  const std::string own = surroundings(2);
  CHECK(own.find("\nGLIBC_TUNABLES=glibc.malloc.arena_max=4\n") != std::string::npos);
  CHECK(own.find("hugetlb") == std::string::npos);
  for (const char* name : {"MKL_ENABLE_INSTRUCTIONS", "ESPALIER_TEST_SEEN", "GLIBC_TUNABLES"}) ::unsetenv(name);
}

TEST_CASE("a stage that dies or misbehaves fails alone, with one clear error") {
  const std::map<std::string, std::vector<std::string>> cases = {
      {"segfault", {"crashed", "SIGSEGV"}},
      {"abort", {"crashed", "SIGABRT"}},
      {"exit", {"crashed", "exited with code 3 without finishing"}},
      {"exit zero", {"crashed", "exited with code 0 without finishing"}},
      {"throw", {"invalid-input", "weights.bin:12: the file is broken"}},
      {"throw integer", {"failed"}},
      {"throw standard", {"failed", "a standard exception"}},
      {"no output", {"failed", "\"out\""}},
      {"wrong type", {"internal", "declared as dataset"}},
  };
  for (const auto& [how, expected] : cases) {
    DYNAMIC_SECTION(how) {
      Setting s;
      const std::string recipe =
          s.fault("bad", how) + s.work("after", "in = [\"@bad\"]\n") + s.work("aside") + s.work("last", "in = [\"@aside\"]\n");
      for (int round = 0; round < 2; ++round) {
        const auto results = s.run(recipe);
        const StageResult& bad = named(results, "bad");
        CHECK(bad.status == StageStatus::failed);
        REQUIRE(bad.error);
        INFO(bad.error->message);
        CHECK(bad.error->code == expected.front());
        for (const std::string& part :
             {std::string("\"bad\""), std::string("source/fault"), std::string("espalier-faults.so"), expected.back()})
          if (part != expected.front()) CHECK(bad.error->message.find(part) != std::string::npos);
        CHECK(bad.error->tail.find("about to: " + how) != std::string::npos);
        CHECK(bad.log);
        CHECK_FALSE(bad.entry);
        CHECK(named(results, "after").status == StageStatus::skipped);
        CHECK(named(results, "last").status == (round == 0 ? StageStatus::ran : StageStatus::cached));
      }
      CHECK(lines_in(s.counter) == 4);  // bad twice (never cached), aside and last once
      CHECK(s.store.verify(false, {}).problems.empty());
    }
  }
}

TEST_CASE("a stage past its timeout is killed, and what it started with it") {
  Setting s;
  const auto start = std::chrono::steady_clock::now();
  const auto results = s.run(s.fault("bad", "loop", "timeout = 0.5\n") + s.work("aside"));
  CHECK(named(results, "bad").error->code == "timeout");
  CHECK(named(results, "bad").error->message.find("0.5 s") != std::string::npos);
  CHECK(named(results, "aside").status == StageStatus::ran);
  CHECK(seconds_since(start) < 30);
}

TEST_CASE("a stage past its memory limit is killed") {
  Setting s;
  const auto results = s.run(s.fault("bad", "allocate", "memory = \"200MiB\"\n") + s.work("aside"));
  CHECK(named(results, "bad").error->code == "resource");
  CHECK(named(results, "bad").error->message.find("limit of 200 MiB") != std::string::npos);
  CHECK(named(results, "aside").status == StageStatus::ran);
}

TEST_CASE("without keep_going nothing starts after a failure") {
  Setting s;
  s.options.keep_going = false;
  const auto results = s.run(s.fault("bad", "throw") + s.work("aside", "seconds = 0.1\n") + s.work("last", "in = [\"@aside\"]\n"));
  CHECK(named(results, "bad").status == StageStatus::failed);
  CHECK(named(results, "last").status == StageStatus::skipped);
}

TEST_CASE("a requirement that is not met fails the stage with its figure, also from the cache") {
  Setting s;
  for (int round = 0; round < 2; ++round) {
    const auto results = s.run(s.work("a", "require = { accuracy = \">=0.9\" }\n") + s.work("b", "in = [\"@a\"]\n"));
    CHECK(named(results, "a").status == StageStatus::failed);
    CHECK(named(results, "a").error->code == "requirement");
    CHECK(named(results, "a").error->message.find("accuracy is 0.5") != std::string::npos);
    CHECK(named(results, "b").status == StageStatus::skipped);
  }
  CHECK(lines_in(s.counter) == 1);
  CHECK(named(s.run(s.work("a", "require = { accuracy = \">=0.5\" }\n")), "a").status == StageStatus::cached);
  const auto absent = s.run(s.work("a", "require = { speedup = \">1\" }\n"));
  CHECK(named(absent, "a").error->message.find("no figure \"speedup\"") != std::string::npos);
}

TEST_CASE("a forced stage runs again; other bytes under one key are reported") {
  Setting s;
  const std::string dice = "[stages.dice]\nuse = \"source/dice\"\n";
  s.run(dice + s.work("a"));
  s.options.force = {"dice", "a"};
  const auto results = s.run(dice + s.work("a"));
  CHECK(named(results, "dice").status == StageStatus::ran);
  CHECK(named(results, "a").status == StageStatus::ran);
  REQUIRE(s.listener.warnings.size() == 1);
  CHECK(s.listener.warnings.front().find("not deterministic") != std::string::npos);
}

TEST_CASE("only what is wanted runs") {
  Setting s;
  s.options.wanted = {"b"};
  const auto results = s.run(s.work("a") + s.work("b", "in = [\"@a\"]\n") + s.work("c"));
  CHECK(results.size() == 2);
  CHECK(lines_in(s.counter) == 2);
}

TEST_CASE("two stages with one key do the work once, also at the same time") {
  Setting s;
  s.options.jobs = 2;
  const std::string one = "use = \"source/work\"\ntext = \"x\"\nseconds = 0.3\ncounter = \"" + s.counter + "\"\n";
  const auto results = s.run("[stages.a]\n" + one + "[stages.b]\n" + one);
  CHECK(lines_in(s.counter) == 1);
  CHECK(named(results, "a").entry->outputs == named(results, "b").entry->outputs);
}

TEST_CASE("jobs run at the same time, and a measurement runs alone") {
  Setting s;
  s.options.jobs = 4;
  const std::string alone = "use = \"evaluator/alone\"\nin = [\"@a\"]\n";
  const auto results = s.run("[stages.m]\n" + alone + "seconds = 0.2\n[stages.n]\n" + alone + "seconds = 0.3\n" +
                             s.work("a", "seconds = 0.5\n") + s.work("b", "seconds = 1.5\n"));
  const auto figure = [&](const char* stage, const char* name) { return named(results, stage).entry->figures.at(name); };
  const double m_begin = figure("m", "latency_p50_ms"), m_end = figure("m", "latency_p99_ms");
  const double n_begin = figure("n", "latency_p50_ms"), n_end = figure("n", "latency_p99_ms");
  CHECK((m_end <= n_begin || n_end <= m_begin));
  // Ready after a, they waited for b too, which was still running.
  CHECK(std::set<std::string>(s.listener.order.begin(), s.listener.order.begin() + 2) == std::set<std::string>{"a", "b"});
}

TEST_CASE("stages wait while another run measures, or makes the same result, and say so") {
  Setting s;
  const Recipe recipe(s.folder / "recipe.toml", s.work("a"));
  const Digest key = *preflight(recipe.plan, s.store, recipe.catalog, s.options).stages.at(0).key;
  std::optional<Store::Lock> held = GENERATE(true, false) ? s.store.try_machine(true) : s.store.try_lock(key);
  REQUIRE(held);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::seconds(3));
    held.reset();
  });
  const auto results = s.run(s.work("a"));
  other.join();
  CHECK(named(results, "a").status == StageStatus::ran);
  REQUIRE(s.listener.warnings.size() == 1);
  CHECK(s.listener.warnings.front().starts_with("waits for "));
}

TEST_CASE("scratch survives a crash under the same key and goes after success") {
  Setting s;
  const std::string recipe = "[stages.r]\nuse = \"source/resume\"\n";
  CHECK(named(s.run(recipe), "r").status == StageStatus::failed);
  CHECK_FALSE(fs::is_empty(s.folder / "store/tmp"));
  CHECK(named(s.run(recipe), "r").status == StageStatus::ran);
  CHECK(fs::is_empty(s.folder / "store/tmp"));
}

TEST_CASE("an interrupt stops every stage within a second, the deaf ones too; nothing of it is cached") {
  Setting s;
  std::atomic<int> interrupted{0};
  s.options.interrupted = &interrupted;
  s.options.jobs = 3;
  std::chrono::steady_clock::time_point pressed;
  std::thread user([&] {
    std::this_thread::sleep_for(std::chrono::seconds(3));
    pressed = std::chrono::steady_clock::now();
    interrupted = 2;
  });
  const auto results =
      s.run(s.fault("deaf", "loop") + s.work("polite", "seconds = 60\n") + s.work("after", "in = [\"@polite\"]\n"));
  user.join();
  CHECK(seconds_since(pressed) < 1.0);
  for (const auto& result : results) CHECK(result.status == StageStatus::cancelled);
  CHECK(s.store.verify(false, {}).entries == 0);
}

TEST_CASE("an input that vanished from the store is made again") {
  Setting s;
  const std::string recipe = s.work("a") + s.work("b", "in = [\"@a\"]\n");
  const auto first = s.run(recipe);
  fs::remove(s.store.blob_path(s.store.artifact(named(first, "a").entry->outputs.at("out").second).blobs.at("data").digest));
  Setting again;
  Store store = Store::open(s.folder / "store");
  const Recipe plan(s.folder / "recipe.toml", recipe);
  Listener listener;
  const auto results = execute(plan.plan, store, plan.catalog, s.options, listener);
  CHECK(named(results, "a").status == StageStatus::ran);
  CHECK(named(results, "b").status == StageStatus::cached);
}

TEST_CASE("preflight tells hits from misses, and what is not known yet") {
  Setting s;
  const std::string bytes = "bytes = 100000\n";
  s.run(s.work("a", bytes));
  const Recipe recipe(s.folder / "recipe.toml",
                      s.work("a", bytes) + s.work("b", "in = [\"@a\"]\n") + s.work("c", "in = [\"@b\"]\n"));
  const Preflight flight = preflight(recipe.plan, s.store, recipe.catalog, s.options);
  REQUIRE(flight.stages.size() == 3);
  CHECK(flight.stages[0].hit);
  CHECK((flight.stages[1].known && !flight.stages[1].hit));
  CHECK_FALSE(flight.stages[2].known);
  CHECK(flight.stages[2].reason.find("b") != std::string::npos);
  CHECK(flight.stages[1].disk >= 100000);
  CHECK(flight.stages[1].memory >= 1000000 + 2 * 100000);
  CHECK(flight.disk >= 200000);
  CHECK(flight.memory_available > 0);
  CHECK(flight.disk_available > 0);
}
