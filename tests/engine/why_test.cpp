#include "engine/why.h"

#include <catch2/catch_test_macros.hpp>

#include "recipes.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

using Names = std::set<std::string>;
/// "stage: what"
using Told = std::set<std::string>;

constexpr const char* kStages = R"(
[stages.a]
use = "source/work"
text = "a"
file = "a.bin"
[stages.b]
use = "source/exact"
text = "b"
[stages.c]
use = "source/work"
text = "c"
in = ["@a"]
files = ["one.txt", "two.txt"]
[stages.d]
use = "source/work"
text = "d"
in = ["@a", "@b"]
inner = { use = "source/exact", text = "i" }
[stages.e]
use = "source/work"
text = "e"
in = ["@c", "@d"]
[stages.side]
use = "source/work"
text = "side"
in = ["@b"]
)";

std::string changed(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error("the recipe has no " + from);
  return text.replace(at, from.size(), to);
}

struct Setting {
  Folder folder;
  Store store = Store::open(folder / "store");
  int runs = 0;

  Setting() {
    write_file(folder / "a.bin", "first");
    write_file(folder / "b.bin", "first");
    write_file(folder / "one.txt", "1");
    write_file(folder / "two.txt", "2");
  }
  Recipe recipe(const std::string& stages) { return {folder / "recipe.toml", stages}; }

  /// Runs all stages and keeps the run; the names of those that were not cached.
  Names run(const Recipe& recipe) {
    Listener listener;
    const auto results = execute(recipe.plan, store, recipe.catalog, {}, listener);
    Json stages = Json::array();
    Names ran;
    for (const auto& result : results) {
      INFO(result.name << ": " << (result.error ? result.error->message : ""));
      REQUIRE(result.entry);
      Json outputs = Json::object();
      for (const auto& [port, output] : result.entry->outputs) outputs[port] = {{"digest", output.second.hex()}};
      stages.push_back({{"name", result.name},
                        {"use", result.use},
                        {"status", to_string(result.status)},
                        {"key", result.key->hex()},
                        {"outputs", std::move(outputs)}});
      if (result.status == StageStatus::ran) ran.insert(result.name);
    }
    ++runs;
    store.record_run(
        {"run" + std::to_string(runs), "test", recipe.plan.file.string(), true, 1000.0 + runs, 1, {{"stages", stages}}});
    return ran;
  }
  Explanation why(const Recipe& recipe, const std::string& stage = "e") {
    return explain(recipe.plan, store, recipe.catalog, stage);
  }
};

Told told(const Explanation& why) {
  Told all;
  for (const Cause& cause : why.causes) all.insert(cause.stage + ": " + cause.what);
  return all;
}

Names of(const std::vector<std::string>& list) { return {list.begin(), list.end()}; }

}  // namespace

TEST_CASE("why names what was changed, and exactly that and its dependents run again") {
  struct Mutation {
    const char* name;
    std::function<std::string(const Setting&, std::string)> change;
    Told causes;
    Names ran;  // of all stages
  };
  const auto text = [](const char* from, const char* to) {
    return [from, to](const Setting&, std::string stages) { return changed(std::move(stages), from, to); };
  };
  const auto file = [](const char* name, const char* bytes) {
    return [name, bytes](const Setting& s, std::string stages) {
      write_file(s.folder / name, bytes);
      return stages;
    };
  };
  const Mutation mutations[] = {
      {"a parameter at the source", text("text = \"a\"", "text = \"A\""), {"a: parameter text"}, {"a", "c", "d", "e"}},
      {"one byte of a file", file("a.bin", "fIrst"), {"a: file of parameter file"}, {"a"}},
      {"another file of the same bytes", text("a.bin", "b.bin"), {}, {}},
      {"a seed of a stage", text("text = \"a\"\n", "text = \"a\"\nseed = 8\n"), {"a: seed"}, {"a"}},
      {"threads of a stage", text("text = \"c\"\n", "text = \"c\"\nthreads = 1\n"), {"c: threads"}, {"c"}},
      {"a file more", text("\"two.txt\"]", "\"two.txt\", \"a.bin\"]"), {"c: file of parameter files[2]"}, {"c"}},
      {"a file less", text(", \"two.txt\"]", "]"), {"c: file of parameter files[1]"}, {"c"}},
      {"files in another order",
       text("\"one.txt\", \"two.txt\"", "\"two.txt\", \"one.txt\""),
       {"c: file of parameter files[0]", "c: file of parameter files[1]"},
       {"c"}},
      {"a parameter of a component inside", text("text = \"i\"", "text = \"j\""), {"d: parameter inner.text"}, {"d"}},
      {"another component inside",
       text("inner = { use = \"source/exact\"", "inner = { use = \"source/work\""),
       {"d: component of parameter inner"},
       {"d"}},
      {"no component inside",
       text("inner = { use = \"source/exact\", text = \"i\" }\n", ""),
       {"d: component of parameter inner", "d: parameter inner"},
       {"d"}},
      {"inputs in another order", text("[\"@c\", \"@d\"]", "[\"@d\", \"@c\"]"), {"e: input in[0]", "e: input in[1]"}, {"e"}},
      {"an input less", text("[\"@c\", \"@d\"]", "[\"@c\"]"), {"e: input in"}, {"e"}},
      {"an input from elsewhere", text("[\"@c\", \"@d\"]", "[\"@c\", \"@side\"]"), {"e: input in[1]"}, {"e"}},
      {"a source that is not the first", text("text = \"b\"", "text = \"B\""), {"b: parameter text"}, {"b", "d", "e", "side"}},
      {"padding in the middle", text("text = \"c\"\n", "text = \"c\"\nbytes = 3\n"), {"c: parameter bytes"}, {"c", "e"}},
      {"a figure, not an output", text("text = \"c\"\n", "text = \"c\"\nfigure = 0.7\n"), {"c: parameter figure"}, {"c"}},
      {"two places at once",
       [&](const Setting&, std::string stages) {
         return changed(changed(std::move(stages), "text = \"a\"", "text = \"A\""), "text = \"i\"", "text = \"j\"");
       },
       {"a: parameter text", "d: parameter inner.text"},
       {"a", "c", "d", "e"}},
      {"two files swapped",
       [](const Setting& s, std::string stages) {
         write_file(s.folder / "a.bin", "1");
         write_file(s.folder / "one.txt", "first");
         return stages;
       },
       {"a: file of parameter file", "c: file of parameter files[0]"},
       {"a", "c"}},
      {"a stage by another name",
       [](const Setting&, std::string stages) {
         return changed(changed(std::move(stages), "[stages.d]", "[stages.other]"), "\"@d\"", "\"@other\"");
       },
       {},
       {}},
      {"a branch that it does not read", text("text = \"side\"", "text = \"aside\""), {}, {"side"}},
      {"a comment, and a default that is written out", text("text = \"c\"\n", "text = \"c\"  # why not\nfigure = 0.5\n"), {}, {}},
      {"the last stage's own parameter", text("text = \"e\"", "text = \"E\""), {"e: parameter text"}, {"e"}},
      {"another component",
       text("[stages.b]\nuse = \"source/exact\"", "[stages.b]\nuse = \"source/work\""),
       {"b: component"},
       {"b"}},
  };
  CHECK(std::size(mutations) >= 20);
  for (const Mutation& mutation : mutations) {
    DYNAMIC_SECTION(mutation.name) {
      Setting s;
      CHECK(s.run(s.recipe(kStages)).size() == 6);
      const Recipe after = s.recipe(mutation.change(s, kStages));
      const Explanation why = s.why(after);
      CHECK(told(why) == mutation.causes);
      CHECK((why.state == Explanation::State::hit) == mutation.causes.empty());
      REQUIRE(why.compared);
      CHECK(why.compared->id == "run1");
      Names may;  // what is told, and what is said to read it
      for (const Cause& cause : why.causes) {
        CHECK(cause.before != cause.now);
        may.insert(cause.stage);
      }
      for (const auto& name : why.through) {
        CHECK_FALSE(may.contains(name));
        may.insert(name);
      }
      if (!mutation.causes.empty()) CHECK(may.contains("e"));
      const Names ran = s.run(after);
      CHECK(ran == mutation.ran);
      for (const auto& name : ran)
        if (name != "side") CHECK(may.contains(name));
      CHECK(s.why(after).state == Explanation::State::hit);
    }
  }
}

TEST_CASE("why tells another seed of the recipe, for each stage that takes it") {
  Setting s;
  s.run(s.recipe(kStages));
  Recipe after = s.recipe(kStages);
  for (Stage& stage : after.plan.stages) stage.seed = 8;
  const Explanation why = s.why(after);
  CHECK(told(why) == Told{"a: seed", "c: seed", "d: seed", "e: seed"});
  CHECK(why.causes.front().before == "7");
  CHECK(why.causes.front().now == "8");
  CHECK(why.through.empty());
}

TEST_CASE("why tells another build: of a library, of a plugin") {
  Setting s;
  s.run(s.recipe(kStages));
  SECTION("a library") {
    const fs::path real = Installation::current().code().front().parent_path();
    fs::create_directories(s.folder / "installed/lib");
    for (const fs::path& library : Installation::current().code())
      fs::copy_file(library, s.folder / "installed/lib" / library.filename());
    const Recipe same = s.recipe(kStages);
    const Installation copied(s.folder / "installed");
    CHECK(explain(same.plan, s.store, same.catalog, "e", copied).state == Explanation::State::hit);
    write_file(s.folder / "installed/lib/libespalier_graph.so", "other");
    const Explanation why = explain(same.plan, s.store, same.catalog, "e", Installation(s.folder / "installed"));
    CHECK(told(why) == Told{"a: library libespalier_graph.so", "b: library libespalier_graph.so", "c: library libespalier_graph.so",
                            "d: library libespalier_graph.so", "e: library libespalier_graph.so"});
    CHECK(why.through.empty());
  }
  SECTION("a plugin") {
    const fs::path copy = s.folder / "plugins/espalier-faults.so";
    fs::create_directories(copy.parent_path());
    fs::copy_file(test_plugins() / "espalier-faults.so", copy);
    std::ofstream(copy, std::ios::app) << "x";
    Recipe after = s.recipe(kStages);
    after.catalog = Catalog::scan({copy.parent_path()});
    after.plan = *load_recipe(s.folder / "recipe.toml", after.catalog).plan;
    CHECK(told(s.why(after)) == Told{"a: code of source/work", "b: code of source/exact", "c: code of source/work",
                                     "d: code of source/work", "d: code of parameter inner", "e: code of source/work"});
  }
}

TEST_CASE("why takes the nearest of several runs, and says what is gone or was never there") {
  Setting s;
  const Recipe first = s.recipe(kStages);
  CHECK(s.why(first).state == Explanation::State::waiting);
  CHECK_FALSE(s.why(first).compared);
  s.run(first);
  s.run(s.recipe(changed(changed(kStages, "text = \"a\"", "text = \"A\""), "text = \"b\"", "text = \"B\"")));
  const Recipe near_second = s.recipe(changed(changed(kStages, "text = \"a\"", "text = \"A\""), "text = \"b\"", "text = \"BB\""));
  const Explanation why = s.why(near_second);
  REQUIRE(why.compared);
  CHECK(why.compared->id == "run2");
  CHECK(told(why) == Told{"b: parameter text"});
  CHECK(why.causes.front().before == "B");
  CHECK(why.causes.front().now == "BB");
  CHECK(of(why.through) == Names{"d", "e"});
  CHECK(s.why(near_second, "c").state == Explanation::State::hit);

  const Recipe again = s.recipe(kStages);
  s.store.forget(*s.why(again, "c").key);
  const Explanation lost = s.why(again);
  CHECK(lost.state == Explanation::State::waiting);
  CHECK(told(lost) == Told{"c: result"});
  CHECK(of(lost.through) == Names{"e"});
}
