// The commands that work with the store, as processes.
#include <sys/mount.h>
#include <catch2/catch_test_macros.hpp>

#include "program.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

std::string recipe_of(const Folder& folder) { return (folder / "recipe.toml").string(); }

}  // namespace

TEST_CASE("run --json prints the pinned line, and a rerun is cached") {
  const Folder folder;
  write_recipe(folder, work(folder, "a") + work(folder, "b", "in = [\"@a\"]\n"));
  for (const char* status : {"ran", "cached"}) {
    Program program(folder, {"run", recipe_of(folder), "--json"});
    CHECK(program.wait() == 0);
    INFO(program.err());
    const Json json = Json::parse(program.out());
    CHECK(json["schema"] == 1);
    CHECK(json["ok"] == true);
    CHECK(json["recipe"] == "test");
    CHECK(json["run"].is_string());
    CHECK(json["seconds"].is_number());
    REQUIRE(json["stages"].size() == 2);
    const Json& stage = json["stages"][1];
    CHECK(stage["name"] == "b");
    CHECK(stage["use"] == "source/work");
    CHECK(stage["status"] == status);
    CHECK(stage["key"].get<std::string>().size() == 64);
    CHECK(stage["outputs"]["out"]["type"] == "dataset");
    CHECK(stage["outputs"]["out"]["digest"].get<std::string>().size() == 64);
    CHECK(stage["figures"]["accuracy"] == 0.5);
    CHECK(stage["error"].is_null());
  }
}

TEST_CASE("exit codes tell failed stages from wrong files and calls") {
  const Folder folder;
  const auto code_of = [&](const std::string& stages, std::vector<std::string> more = {}) {
    write_recipe(folder, stages);
    more.insert(more.begin(), {"run", recipe_of(folder)});
    Program program(folder, more);
    return program.wait();
  };
  CHECK(code_of(work(folder, "a")) == 0);
  CHECK(code_of("[stages.bad]\nuse = \"source/fault\"\nhow = \"segfault\"\n") == 1);
  CHECK(code_of("[stages.bad]\nuse = \"source/fault\"\nhow = \"throw\"\n") == 2);
  CHECK(
      code_of("[stages.bad]\nuse = \"source/fault\"\nhow = \"throw\"\n[stages.dead]\nuse = \"source/fault\"\nhow = \"abort\"\n") ==
      1);
  CHECK(code_of(work(folder, "a", "require = { accuracy = \">0.9\" }\n")) == 1);
  CHECK(code_of(work(folder, "a"), {"nowhere"}) == 2);
  CHECK(code_of(work(folder, "a"), {"--in-process"}) == 2);
  CHECK(code_of("[stages.a]\nuse = \"source/wrok\"\n") == 2);
}

TEST_CASE("the log of a stage is kept, of a failed one too") {
  const Folder folder;
  write_recipe(folder, work(folder, "a") + "[stages.bad]\nuse = \"source/fault\"\nhow = \"abort\"\n");
  Program run(folder, {"run", recipe_of(folder)});
  CHECK(run.wait() == 1);
  CHECK(run.err().find("| about to: abort") != std::string::npos);
  Program good(folder, {"log", recipe_of(folder), "a"});
  CHECK(good.wait() == 0);
  CHECK(good.out().find("printed by a") != std::string::npos);
  Program bad(folder, {"log", recipe_of(folder), "bad"});
  CHECK(bad.wait() == 0);
  CHECK(bad.out() == "about to: abort\n");
}

TEST_CASE("show and export tell what a stage made") {
  const Folder folder;
  write_recipe(folder, work(folder, "a"));
  Program before(folder, {"show", recipe_of(folder), "a"});
  CHECK(before.wait() == 2);
  Program run(folder, {"run", recipe_of(folder)});
  REQUIRE(run.wait() == 0);
  Program show(folder, {"show", recipe_of(folder), "a", "--json"});
  REQUIRE(show.wait() == 0);
  const Json json = Json::parse(show.out());
  CHECK(json["figures"]["accuracy"] == 0.5);
  const std::string digest = json["outputs"]["out"]["digest"];
  Program artifact(folder, {"show", digest, "--json"});
  REQUIRE(artifact.wait() == 0);
  CHECK(Json::parse(artifact.out())["blobs"]["data"]["size"] == 2);
  Program missing(folder, {"show", std::string(64, '0')});
  CHECK(missing.wait() == 2);

  const std::string target = (folder / "exported").string();
  Program exported(folder, {"export", recipe_of(folder), "a.out", target});
  REQUIRE(exported.wait() == 0);
  CHECK(read_file(folder / "exported/data") == "a\n");
  CHECK(sha256(read_file(folder / "exported/manifest.json").substr(0, read_file(folder / "exported/manifest.json").size() - 1))
            .hex() == digest);
  Program again(folder, {"export", recipe_of(folder), "a", target});
  CHECK(again.wait() == 0);
  write_file(folder / "mine/letter.txt", "dear");
  Program refused(folder, {"export", recipe_of(folder), "a", (folder / "mine").string()});
  CHECK(refused.wait() == 2);
  CHECK(read_file(folder / "mine/letter.txt") == "dear");
}

TEST_CASE("verify finds a flipped bit with code 1, repairs, and the run makes it again") {
  const Folder folder;
  write_recipe(folder, work(folder, "a"));
  Program run(folder, {"run", recipe_of(folder)});
  REQUIRE(run.wait() == 0);
  const Digest blob = sha256("a\n");
  const fs::path file = Store::open(folder / "store").blob_path(blob);
  write_file(file, "b\n");
  Program found(folder, {"verify", "--json"});
  CHECK(found.wait() == 1);
  CHECK(Json::parse(found.out())["problems"].size() == 2);
  Program repaired(folder, {"verify", "--repair"});
  CHECK(repaired.wait() == 1);
  Program clean(folder, {"verify"});
  CHECK(clean.wait() == 0);
  Program again(folder, {"run", recipe_of(folder), "--json"});
  CHECK(again.wait() == 0);
  CHECK(Json::parse(again.out())["stages"][0]["status"] == "ran");
  CHECK(read_file(file) == "a\n");
}

TEST_CASE("gc by size empties the store, and the recipe runs again") {
  const Folder folder;
  write_recipe(folder, work(folder, "a"));
  Program run(folder, {"run", recipe_of(folder)});
  REQUIRE(run.wait() == 0);
  Program wrong(folder, {"gc", "--keep-size", "much"});
  CHECK(wrong.wait() == 2);
  Program collect(folder, {"gc", "--keep-size", "0", "--json"});
  REQUIRE(collect.wait() == 0);
  CHECK(Json::parse(collect.out())["entries_removed"] == 1);
  CHECK(Json::parse(collect.out())["bytes_left"] == 0);
  Program again(folder, {"run", recipe_of(folder)});
  CHECK(again.wait() == 0);
  CHECK(lines_in(folder / "counter") == 2);
}

TEST_CASE("a disk that fills up while a stage writes fails the stage, and nothing half-written stays") {
  const Folder folder;
  const fs::path disk = folder / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=4m") != 0) SKIP("a tmpfs cannot be mounted here");
  write_recipe(folder, work(folder, "small") + work(folder, "large", "bytes = 20000000\n"));
  Program run(folder, {"run", recipe_of(folder), "--store", (disk / "store").string()});
  CHECK(run.wait() == 1);
  INFO(run.err());
  CHECK(run.err().find("No space left on device") != std::string::npos);
  CHECK(run.err().find("small: ran") != std::string::npos);
  CHECK(fs::is_empty(disk / "store/tmp"));
  Program verify(folder, {"verify", "--store", (disk / "store").string()});
  CHECK(verify.wait() == 0);

  // Now the plan knows what the stage needs: its inputs are there, so the run is refused before it starts.
  write_file(folder / "data", std::string(8 << 20, 'x'));
  write_recipe(folder, work(folder, "large", "file = \"data\"\n"));
  Program refused(folder, {"run", recipe_of(folder), "--store", (disk / "store").string()});
  CHECK(refused.wait() == 1);
  CHECK(refused.err().find("8.00 MiB") != std::string::npos);
  CHECK(refused.err().find("started") == std::string::npos);
  ::umount2(disk.c_str(), MNT_DETACH);
}
