#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "program.h"

using Json = nlohmann::json;

namespace {

constexpr const char* sound = R"([recipe]
name = "sound"
[params]
sparsity = 0.2
[stages.base]
use = "source/described"
path = "file.txt"
[stages.cut]
use = "pruner/described"
model = "@base"
sparsity = "${sparsity}"
)";

constexpr const char* broken = R"([stages.base]
use = "source/descibed"
path = "file.txt"
[stages.cut]
use = "pruner/described"
model = "@bas"
sparsity = 2
)";

bool has(const std::string& text, std::string_view part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) UNSCOPED_INFO("\"" << text << "\" lacks \"" << part << "\"");
  return found;
}

struct Recipes : Workplace {
  Recipes() {
    write("file.txt", "text\n");
    write("sound.toml", sound);
    write("broken.toml", broken);
  }
  std::string sound_file() const { return (folder / "sound.toml").string(); }
  std::string broken_file() const { return (folder / "broken.toml").string(); }
};

}  // namespace

TEST_CASE("version and help") {
  const Workplace place;
  const auto version = place.run({"--version"});
  CHECK(version.status == 0);
  CHECK(version.out.starts_with("espalier "));
  const auto help = place.run({"--help"});
  CHECK(help.status == 0);
  CHECK(has(help.out, "Examples:"));
  const auto nothing = place.run({});
  CHECK(nothing.status == 2);
  CHECK(nothing.out.empty());
  CHECK(has(nothing.err, "Usage:"));
}

TEST_CASE("every pinned command is there and has help with examples, or says that it is not there yet") {
  const Workplace place;
  for (const char* name : {"run", "plan", "validate", "graph", "log", "report", "export", "show", "plugins", "verify", "gc",
                           "generate", "doctor", "model", "why"}) {
    INFO(name);
    const auto help = place.run({name, "--help"});
    CHECK(help.status == 0);
    CHECK(has(help.out, "Examples:\n  espalier " + std::string(name)));
    CHECK(has(help.out, "--json"));
  }
  for (const char* name : {"new"}) {
    INFO(name);
    const auto call = place.run({name, "x", "--path", "y"});
    CHECK(call.status == 2);
    CHECK(call.out.empty());
    CHECK(has(call.err, "not there yet"));
    CHECK(std::count(call.err.begin(), call.err.end(), '\n') == 1);
  }
}

TEST_CASE("a wrong call exits 2 and says what was meant") {
  const Recipes place;
  const auto slip = place.run({"--quiet", "validte", place.sound_file()});
  CHECK(slip.status == 2);
  CHECK(has(slip.err, "did you mean \"validate\"?"));
  CHECK(place.run({"validate"}).status == 2);
  CHECK(place.run({"validate", place.sound_file(), "--frobnicate"}).status == 2);
  CHECK(place.run({"validate", place.sound_file(), "--set", "novalue"}).status == 2);
  CHECK(place.run({"--store"}).status == 2);
  const auto absent = place.run({"validate", "nowhere.toml", "--json"});
  CHECK(absent.status == 2);
  CHECK(absent.json()["ok"] == false);
  CHECK(has(absent.json()["error"]["where"], "nowhere.toml"));
}

TEST_CASE("validate: a sound recipe") {
  const Recipes place;
  const auto text = place.run({"validate", place.sound_file()});
  INFO(text.err);
  CHECK(text.status == 0);
  CHECK(has(text.out, "2 stages, valid"));
  CHECK(text.err.empty());
  const auto json = place.run({"--json", "validate", place.sound_file(), "--set", "sparsity=0.3"});
  CHECK(json.status == 0);
  CHECK(json.json() == Json{{"schema", 1}, {"ok", true}, {"recipe", "sound"}, {"stages", 2}, {"diagnostics", Json::array()}});
  CHECK_FALSE(std::filesystem::exists(place.folder / "store"));  // looking at a recipe makes nothing
}

TEST_CASE("validate: all errors at once, as text and as JSON") {
  const Recipes place;
  const auto text = place.run({"validate", place.broken_file()});
  CHECK(text.status == 2);
  CHECK(text.out.empty());
  CHECK(has(text.err, place.broken_file() + ":2:7: error[unknown-component]: "));
  CHECK(has(text.err, "did you mean \"source/described\"?"));
  CHECK(has(text.err, ":6:9: error[unknown-stage]: "));
  CHECK(has(text.err, ":7:12: error[range]: "));
  CHECK(has(text.err, "    7 | sparsity = 2\n      |            ^\n"));
  CHECK_FALSE(has(text.err, "\x1b["));
  const auto json = place.run({"validate", place.broken_file(), "--json"});
  CHECK(json.status == 2);
  CHECK(json.err.empty());
  const auto body = json.json();
  CHECK(body["schema"] == 1);
  CHECK(body["ok"] == false);
  REQUIRE(body["diagnostics"].size() == 3);
  for (const auto& each : body["diagnostics"]) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : each.items()) keys.push_back(key);
    CHECK(keys == std::vector<std::string>{"code", "column", "file", "hint", "line", "message", "severity"});
    CHECK(each["file"] == place.broken_file());
  }
  CHECK(body["diagnostics"][2]["code"] == "range");
  CHECK(body["diagnostics"][2]["line"] == 7);
  CHECK(body["diagnostics"][2]["column"] == 12);
  // Every command that takes a recipe refuses it the same way.
  for (const char* command : {"run", "plan", "graph"}) {
    INFO(command);
    const auto other = place.run({command, place.broken_file(), "--json"});
    CHECK(other.status == 2);
    CHECK(other.json() == body);
  }
}

TEST_CASE("graph: DOT and JSON") {
  const Recipes place;
  const auto dot = place.run({"graph", place.sound_file()});
  CHECK(dot.status == 0);
  CHECK(dot.out.starts_with("digraph \"sound\" {"));
  CHECK(has(dot.out, "\"base\" [label=\"base\\nsource/described\"];"));
  CHECK(has(dot.out, "\"base\" -> \"cut\" [label=\"model\"];"));
  const auto json = place.run({"graph", place.sound_file(), "--json"}).json();
  CHECK(json["stages"][1] == Json{{"name", "cut"}, {"use", "pruner/described"}});
  CHECK(json["edges"] == Json::array({{{"from", "base"}, {"from_port", "model"}, {"to", "cut"}, {"to_port", "model"}}}));
}

TEST_CASE("plugins: list and details, without loading anything") {
  const Workplace place;
  const auto list = place.run({"plugins"});
  CHECK(list.status == 0);
  CHECK(has(list.out, "pruner/described"));
  const auto one = place.run({"plugins", "pruner/described"});
  CHECK(one.status == 0);
  CHECK(has(one.out, "how much goes"));
  CHECK(has(one.out, "0 to 0.9"));
  const auto json = place.run({"plugins", "--json"}).json();
  CHECK(json["ok"] == true);
  const auto& plugins = json["plugins"];
  const auto mine = std::find_if(plugins.begin(), plugins.end(), [](const Json& p) { return p["name"] == "described"; });
  REQUIRE(mine != plugins.end());
  CHECK((*mine)["usable"] == true);
  CHECK((*mine)["components"].size() == 2);
  const auto detail = place.run({"plugins", "pruner/described", "--json"}).json();
  CHECK(detail["components"][0]["parameters"][0]["default"] == 0.5);
  const auto slip = place.run({"plugins", "pruner/descrbed"});
  CHECK(slip.status == 2);
  CHECK(has(slip.err, "did you mean \"pruner/described\"?"));
}

TEST_CASE("doctor says of every check whether it holds and what to do") {
  const Workplace place;
  const auto call = place.run({"doctor", "--json"});
  const auto json = call.json();
  CHECK(call.status == (json["ok"] == true ? 0 : 1));
  std::vector<std::string> names;
  for (const auto& check : json["checks"]) {
    names.push_back(check["name"]);
    INFO(check.dump());
    CHECK_FALSE(check["found"].get<std::string>().empty());
    CHECK((check["ok"] == true || !check["advice"].get<std::string>().empty()));
  }
  CHECK(names == std::vector<std::string>{"plugins", "store", "disk", "memory", "cores", "LibTorch", "OpenVINO", "worker"});
  for (const auto& check : json["checks"]) {
    if (check["name"] == "worker" || check["name"] == "LibTorch") {
      INFO(check.dump());
      CHECK(check["ok"] == true);
    }
  }
  // A store in a place that is no folder is found, not crashed on.
  const auto file = place.write("file", "x").string();
  const auto wrong = place.run({"doctor", "--json", "--store", file + "/store"});
  CHECK(wrong.status == 1);
  CHECK(wrong.json()["checks"][1]["ok"] == false);
}

TEST_CASE("a full disk is an error, a reader that went away is none") {
  const Workplace place;
  const auto full = place.shell("\"$ESPALIER\" plugins > /dev/full");
  CHECK(full.status == 1);
  CHECK(has(full.err, "No space left"));
  CHECK(place.shell("\"$ESPALIER\" plugins --json | true").status == 0);
  CHECK_FALSE(has(place.shell("{ \"$ESPALIER\" plugins --json; echo \"status $?\" >&2; } | true").err, "internal"));
}
