#include <catch2/catch_test_macros.hpp>

#include "program.h"

namespace {

constexpr const char* recipe = R"([stages.base]
use = "source/described"
path = "file.txt"
[stages.cut]
use = "pruner/described"
model = "@base"
[stages.other]
use = "pruner/described"
model = "@base"
sparsity = 0.1
)";

}  // namespace

TEST_CASE("plan shows every stage, why it would run, and estimates beside what there is") {
  const Workplace place;
  place.write("file.txt", "text\n");
  const auto file = place.write("r.toml", recipe).string();
  const auto call = place.run({"plan", file, "--json"});
  INFO(call.err);
  REQUIRE(call.status == 0);
  const auto json = call.json();
  CHECK(json["ok"] == true);
  CHECK(json["recipe"] == "r");
  REQUIRE(json["stages"].size() == 3);
  const auto& base = json["stages"][0];
  CHECK(base["name"] == "base");
  CHECK(base["use"] == "source/described");
  CHECK(base["status"] == "miss");
  CHECK(base["key"].get<std::string>().size() == 64);
  CHECK_FALSE(base["reason"].get<std::string>().empty());
  CHECK(json["stages"][1]["status"] != "hit");
  for (const char* total : {"memory_bytes", "memory_available_bytes", "disk_available_bytes"}) {
    INFO(total);
    CHECK(json["totals"][total].get<double>() > 0);
  }
  const auto text = place.run({"plan", file});
  CHECK(text.status == 0);
  for (const char* part : {"3 of 3 stages to run", "memory:", "disk:", "available", "pruner/described"})
    CHECK(text.out.find(part) != std::string::npos);
}

TEST_CASE("plan of some stages has only what they need") {
  const Workplace place;
  place.write("file.txt", "text\n");
  const auto file = place.write("r.toml", recipe).string();
  const auto json = place.run({"plan", file, "cut", "--json"}).json();
  REQUIRE(json["stages"].size() == 2);
  CHECK(json["stages"][1]["name"] == "cut");
  const auto slip = place.run({"plan", file, "cutt"});
  CHECK(slip.status == 2);
  CHECK(slip.err.find("did you mean \"cut\"?") != std::string::npos);
}

TEST_CASE("plan with a store that cannot be written is a clear error") {
  const Workplace place;
  place.write("file.txt", "text\n");
  const auto file = place.write("r.toml", recipe).string();
  const auto call = place.run({"plan", file, "--store", (place.folder / "file.txt" / "store").string()});
  CHECK((call.status == 1 || call.status == 2));
  CHECK(call.err.find("file.txt") != std::string::npos);
  CHECK(call.err.find("internal") == std::string::npos);
}

TEST_CASE("a stage may be called like a command") {
  const Workplace place;
  place.write("file.txt", "text\n");
  const auto file = place
                        .write("r.toml",
                               "[params]\npath = \"absent.txt\"\n[stages.test]\nuse = \"source/described\"\npath = \"${path}\"\n"
                               "[stages.report]\nuse = \"pruner/described\"\nmodel = \"@test\"\n")
                        .string();
  const auto set = "path=" + (place.folder / "file.txt").string();
  const auto call = place.run({"plan", file, "test", "--set", set, "--json"});
  INFO(call.err);
  REQUIRE(call.status == 0);
  CHECK(call.json()["stages"].size() == 1);
  CHECK(place.run({"plan", file, "report", "--set", set}).status == 0);
}
