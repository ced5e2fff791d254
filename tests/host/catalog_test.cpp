#include "host/catalog.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>

#include "host/manifest.h"
#include "sdk/fingerprint.h"

using namespace espalier;

namespace {

PluginInfo plugin(const std::string& file, const std::vector<std::string>& components) {
  Json list = Json::array();
  for (const auto& name : components) list.push_back({{"name", name}});
  return parse_manifest(Json{{"format", 1},
                             {"fingerprint", ESPALIER_FINGERPRINT},
                             {"plugin", {{"name", file}, {"version", "1"}, {"components", list}}}}
                            .dump(),
                        file);
}

std::filesystem::path folder() { return std::filesystem::path(std::getenv("ESPALIER_BUILD")) / "tests" / "host_plugins"; }

}  // namespace

TEST_CASE("components are found by name and listed by kind") {
  const auto catalog = Catalog::from({plugin("b.so", {"metric/two", "pruner/one"}), plugin("a.so", {"metric/one"})});
  REQUIRE(catalog.find("metric/two"));
  CHECK(catalog.find("metric/two")->file == "b.so");
  CHECK_FALSE(catalog.find("metric/three"));
  CHECK(catalog.names() == std::vector<std::string>{"metric/one", "metric/two", "pruner/one"});
  CHECK(catalog.names("metric") == std::vector<std::string>{"metric/one", "metric/two"});
  CHECK(catalog.plugins().at(0).file == "a.so");
}

TEST_CASE("what find() gave stays valid in copies of the catalog") {
  const ComponentInfo* found = nullptr;
  Catalog copy;
  {
    const auto catalog = Catalog::from({plugin("a.so", {"metric/one"})});
    found = catalog.find("metric/one");
    copy = catalog;
  }
  CHECK(copy.find("metric/one") == found);
  CHECK(found->name == "metric/one");
}

TEST_CASE("a component that two plugins offer is offered by none") {
  const auto catalog = Catalog::from({plugin("a.so", {"metric/one", "metric/two"}), plugin("b.so", {"metric/one"})});
  CHECK_FALSE(catalog.find("metric/one"));
  CHECK(catalog.find("metric/two"));
  for (const auto& each : catalog.plugins()) {
    CHECK(each.problem.find("a.so") != std::string::npos);
    CHECK(each.problem.find("b.so") != std::string::npos);
  }
  CHECK(catalog.refusal("metric/one").find("remove one") != std::string::npos);
  CHECK(catalog.refusal("metric/nowhere").empty());
}

TEST_CASE("scanning reads every plugin file of the folders once") {
  const auto catalog = Catalog::scan({folder(), folder() / ".." / "host_plugins", "/nowhere"});
  CHECK(catalog.plugins().size() == 5);
  CHECK(catalog.names() == std::vector<std::string>{"metric/sound"});
  CHECK(catalog.refusal("metric/other").find("rebuild") != std::string::npos);
}

TEST_CASE("the installation's folder comes first, then ESPALIER_PLUGIN_PATH") {
  ::setenv("ESPALIER_PLUGIN_PATH", "/one::/two", 1);
  const auto folders = Catalog::default_folders();
  ::unsetenv("ESPALIER_PLUGIN_PATH");
  REQUIRE(folders.size() == 3);
  CHECK(folders[0] == std::filesystem::path(std::getenv("ESPALIER_BUILD")) / "plugins");
  CHECK(folders[1] == "/one");
  CHECK(folders[2] == "/two");
}
