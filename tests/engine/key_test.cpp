#include "engine/key.h"

#include <catch2/catch_test_macros.hpp>

#include "recipes.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

constexpr const char* kStage = "[stages.one]\nuse = \"source/work\"\ntext = \"a\"\n";

struct Setting {
  Folder folder;
  Store store = Store::open(folder / "store");
  Installation installation{folder / "installation"};

  Setting() {
    for (const char* library : {"sdk", "graph", "formats", "prune", "run", "worker"})
      write_file(folder / "installation/lib" / (std::string("libespalier_") + library + ".so"), library);
  }
  Digest key(const Recipe& recipe, const std::map<std::string, std::vector<Digest>>& inputs = {}) {
    return KeyMaker(store, recipe.catalog, installation).key(recipe.plan.stages.at(0), inputs).digest;
  }
  Digest key(const std::string& stages) { return key(Recipe(folder / "recipe.toml", stages)); }
};

Digest stored(Store& store, ArtifactType type, const std::string& text, Json meta = Json::object()) {
  Artifact artifact;
  artifact.type = type;
  artifact.meta = std::move(meta);
  artifact.blobs["data"] = store.put(bytes_of(text));
  return store.put_artifact(artifact);
}

}  // namespace

TEST_CASE("the encoding under a key is pinned") {
  KeyEncoder encoder;
  encoder.text("espalier");
  encoder.integer(-2);
  encoder.begin("group");
  encoder.digest(sha256("abc"));
  encoder.end();
  CHECK(encoder.bytes().size() == 98);
  CHECK(encoder.finish().hex() == "504e0f0d6f41eff68f7093be3a0a605e0e2631c6cdca02d7329ddd0baac821c0");
  const Json preimage = {{"c", "x"}, {"b", 0.5}, {"a", {1, true, nullptr}}};
  CHECK(key_digest(preimage).hex() == "c0cf255063aa37e6442abdd8df6596d290b2642f98837cebbd0c53db8f8c1f34");
}

TEST_CASE("values of different types or shapes have different keys") {
  const std::vector<Json> values = {1,
                                    1.0,
                                    true,
                                    "1",
                                    nullptr,
                                    Json::array(),
                                    Json::object(),
                                    Json::array({1}),
                                    Json::array({1, 1}),
                                    Json{{"1", 1}},
                                    Json{{"a", "b"}, {"c", "d"}},
                                    Json{{"a", Json{{"b", "c"}}}},
                                    "",
                                    0,
                                    false};
  std::set<Digest> digests;
  for (const Json& value : values) digests.insert(key_digest(value));
  CHECK(digests.size() == values.size());
  CHECK(key_digest(0.0) == key_digest(-0.0));
}

TEST_CASE("what a stage does is in its key") {
  Setting setting;
  const Digest base = setting.key(kStage);
  CHECK(setting.key(kStage) == base);
  const auto differs = [&](const std::string& stage) { return setting.key(stage) != base; };
  CHECK(differs("[stages.one]\nuse = \"source/work\"\ntext = \"b\"\n"));
  CHECK(differs(std::string(kStage) + "seconds = 1\n"));
  CHECK(differs(std::string(kStage) + "seed = 8\n"));
  CHECK(differs(std::string(kStage) + "threads = 1\n"));
  CHECK(differs("[stages.one]\nuse = \"source/exact\"\ntext = \"a\"\n"));
  CHECK(differs(std::string(kStage) + "inner = { use = \"source/work\" }\n"));
  CHECK(setting.key(std::string(kStage) + "inner = { use = \"source/work\" }\n") !=
        setting.key(std::string(kStage) + "inner = { use = \"source/work\", text = \"b\" }\n"));
}

TEST_CASE("what a stage does not depend on is not in its key") {
  Setting setting;
  const Digest base = setting.key(kStage);
  CHECK(setting.key("[stages.two]\nuse = \"source/work\"\ntext = \"a\"\n") == base);  // its name
  CHECK(setting.key("# a remark\n\n" + std::string(kStage)) == base);                 // its place
  CHECK(setting.key(std::string(kStage) + "timeout = 5\nmemory = \"1GiB\"\nrequire = { accuracy = \">0\" }\n") == base);
  CHECK(setting.key(std::string(kStage) + "seconds = 0\n") == base);  // the default, and 0 for 0.0
  CHECK(setting.key(std::string(kStage) + "seconds = 1\n") == setting.key(std::string(kStage) + "seconds = 1.0\n"));
  CHECK(setting.key(std::string(kStage) + "inner = { use = \"source/work\" }\n") ==
        setting.key(std::string(kStage) + "inner = { use = \"source/work\", seconds = 0.0 }\n"));
  // Another recipe file in another folder.
  CHECK(setting.key(Recipe(setting.folder / "elsewhere/other.toml", kStage)) == base);
  // A byte-exact component without a seed.
  const std::string exact = "[stages.one]\nuse = \"source/exact\"\n";
  CHECK(setting.key(exact) == setting.key(exact + "threads = 1\nseed = 9\n"));
}

TEST_CASE("files stand in the key with their bytes, in order, and without their names") {
  Setting setting;
  write_file(setting.folder / "a", "same");
  write_file(setting.folder / "b", "same");
  write_file(setting.folder / "c", "other");
  const auto with = [&](const std::string& files) { return setting.key(std::string(kStage) + files); };
  CHECK(with("file = \"a\"\n") == with("file = \"b\"\n"));
  CHECK(with("file = \"a\"\n") != with("file = \"c\"\n"));
  CHECK(with("file = \"a\"\n") != with(""));
  CHECK(with("files = [\"a\", \"c\"]\n") == with("files = [\"b\", \"c\"]\n"));
  CHECK(with("files = [\"a\", \"c\"]\n") != with("files = [\"c\", \"a\"]\n"));
  CHECK(with("files = [\"a\"]\n") != with("files = [\"a\", \"a\"]\n"));
  const Digest before = with("file = \"a\"\n");
  write_file(setting.folder / "a", "Same");
  CHECK(with("file = \"a\"\n") != before);
}

TEST_CASE("the files that an ONNX model names belong to it") {
  Setting setting;
  const std::string location = "weights.bin";
  write_file(setting.folder / "m/model.onnx",
             std::string("\x08\x0a") + "\x0a\x08location\x12" + static_cast<char>(location.size()) + location + "rest");
  write_file(setting.folder / "m" / location, "one");
  write_file(setting.folder / "m/unrelated", "x");
  const auto key = [&] { return setting.key(std::string(kStage) + "file = \"m/model.onnx\"\n"); };
  const Digest before = key();
  write_file(setting.folder / "m/unrelated", "y");
  CHECK(key() == before);
  write_file(setting.folder / "m" / location, "two");
  CHECK(key() != before);
  fs::remove(setting.folder / "m" / location);
  CHECK(key() != before);
}

TEST_CASE("the code that runs is in the key") {
  Setting setting;
  const Digest base = setting.key(kStage);
  SECTION("the project's libraries and the worker") {
    std::set<Digest> keys = {base};
    for (const char* part : {"lib/libespalier_sdk.so", "lib/libespalier_graph.so", "lib/libespalier_formats.so",
                             "lib/libespalier_prune.so", "lib/libespalier_run.so", "lib/libespalier_worker.so"}) {
      write_file(setting.folder / "installation" / part, "changed");
      keys.insert(setting.key(kStage));
    }
    CHECK(keys.size() == 7);
  }
  SECTION("the plugin's file") {
    const fs::path copy = setting.folder / "plugins/espalier-faults.so";
    fs::create_directories(copy.parent_path());
    fs::copy_file(test_plugins() / "espalier-faults.so", copy);
    Recipe recipe(setting.folder / "recipe.toml", kStage);
    recipe.catalog = Catalog::scan({copy.parent_path()});
    recipe.plan = *load_recipe(setting.folder / "recipe.toml", recipe.catalog).plan;
    CHECK(setting.key(recipe) == base);  // the same bytes in another place
    std::ofstream(copy, std::ios::app) << "x";
    CHECK(setting.key(recipe) != base);
  }
  SECTION("the component that opens an input package") {
    const Recipe recipe(setting.folder / "recipe.toml", kStage);
    const Digest plain = stored(setting.store, ArtifactType::package, "p");
    const Digest opened = stored(setting.store, ArtifactType::package, "p", {{"backend", "source/exact"}});
    KeyMaker keys(setting.store, recipe.catalog, setting.installation);
    CHECK_FALSE(keys.key(recipe.plan.stages.at(0), {{"in", {plain}}}).preimage.contains("backends"));
    const Json preimage = keys.key(recipe.plan.stages.at(0), {{"in", {opened}}}).preimage;
    CHECK(preimage.at("backends").at("source/exact").at("plugin").get<std::string>().size() == 64);
  }
}

TEST_CASE("inputs are in the key, by port and in order") {
  Setting setting;
  const Recipe recipe(setting.folder / "recipe.toml", kStage);
  const Digest a = stored(setting.store, ArtifactType::dataset, "a"), b = stored(setting.store, ArtifactType::dataset, "b");
  const std::set<Digest> keys = {setting.key(recipe),
                                 setting.key(recipe, {{"in", {a}}}),
                                 setting.key(recipe, {{"in", {b}}}),
                                 setting.key(recipe, {{"in", {a, b}}}),
                                 setting.key(recipe, {{"in", {b, a}}}),
                                 setting.key(recipe, {{"other", {a}}})};
  CHECK(keys.size() == 6);
}

TEST_CASE("only measurements carry the machine, and no key carries a host's name, a path or a time") {
  Setting setting;
  const auto preimage = [&](const std::string& stages) {
    const Recipe recipe(setting.folder / "recipe.toml", stages);
    return KeyMaker(setting.store, recipe.catalog, setting.installation).key(recipe.plan.stages.at(0), {}).preimage;
  };
  CHECK_FALSE(preimage(kStage).contains("machine"));
  const Json measured = preimage("[stages.one]\nuse = \"evaluator/alone\"\n");
  CHECK(measured.at("machine").contains("processor"));
  char host[256] = {};
  REQUIRE(::gethostname(host, sizeof host - 1) == 0);
  CHECK(measured.dump().find(setting.folder.path().string()) == std::string::npos);
  if (std::string(host).size() > 4) CHECK(measured.dump().find(host) == std::string::npos);
  CHECK(preimage(kStage).contains("profile"));
  CHECK_FALSE(preimage("[stages.one]\nuse = \"source/exact\"\n").contains("profile"));
}

TEST_CASE("the version of a runtime is found where the worker would find its library") {
  const Folder folder;
  const fs::path worker = fs::read_symlink("/proc/self/exe").parent_path().parent_path();
  const Installation installation(worker);
  CHECK(installation.runtime_version("torch").starts_with("2."));
  CHECK(installation.runtime_version("no-such-runtime") == "absent");
}
