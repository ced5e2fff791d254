// The script of pipelines/ppocr-rec.toml: what it writes is pictures as the recogniser reads them, the same at every call.
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "run/arrays.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
namespace fs = std::filesystem;

TEST_CASE("the recogniser's script draws lines of text, none in both parts") {
  const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
  if (!python || !source || !fs::exists(python)) SKIP("no Python of the tests' own");
  const TemporaryFolder folder;
  const fs::path text = folder.path() / "text.txt";
  {
    std::ofstream words(text);
    for (int i = 0; i < 1200; ++i) words << "word" << i * 7 % 1000 << (i % 12 == 11 ? '\n' : ' ');
  }
  const auto call = [&](const std::string& out, const std::string& more) {
    return std::string(python) + " " + (fs::path(source) / "pipelines/ppocr/make.py").string() + " " +
           (folder.path() / out).string() + " --text " + text.string() + " --train 24 --heldout 8 " + more;
  };
  REQUIRE(std::system((call("a", "") + ">/dev/null").c_str()) == 0);
  REQUIRE(std::system((call("b", "") + ">/dev/null").c_str()) == 0);
  CHECK(std::system((call("c", "--heldout 0") + " 2>/dev/null").c_str()) != 0);
  CHECK(std::system((call("c", "--text /nowhere") + " 2>/dev/null").c_str()) != 0);

  TestContext context(folder);
  const auto part = [&](const std::string& out, const std::string& name) {
    context.run("source/arrays",
                {{"files", {(folder.path() / out / (name + ".npy")).string()}}, {"names", {"x"}}, {"mean", {0.5}}, {"std", {0.5}}});
    return context.outputs.at("data");
  };
  CHECK(part("a", "train").digest() == part("b", "train").digest());
  const ArrayDataset train(context, part("a", "train")), heldout(context, part("a", "heldout"));
  CHECK(train.count() == 24);
  CHECK(heldout.count() == 8);
  const at::Tensor pictures = train.batch({0, 1, 2, 3, 4, 5, 6, 7}).at("x");
  CHECK(pictures.sizes() == at::IntArrayRef({8, 3, 48, 320}));
  CHECK(pictures.abs().max().item<float>() <= 1);
  for (std::int64_t i = 0; i < 8; ++i) CHECK(pictures[i].std().item<float>() > 0.02F);  // something is drawn

  std::set<std::string> lines;
  for (const char* name : {"train", "heldout"}) {
    std::ifstream in(folder.path() / "a" / (std::string(name) + ".txt"));
    for (std::string line; std::getline(in, line);) lines.insert(line);
  }
  CHECK(lines.size() == 32);
}
