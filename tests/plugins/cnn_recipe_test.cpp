// The script of pipelines/cnn-60.toml: what it writes is valid ONNX, comes in, and learns digits.
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "formats/model_artifact.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
namespace fs = std::filesystem;

namespace {

/// Digits for the script, in its file's form: stripes of five slopes and two widths.
void write_digits(const fs::path& file) {
  std::ofstream out(file);
  for (int i = 0; i < 300; ++i) {
    const int label = i % 10;
    for (int p = 0; p < 64; ++p)
      out << ((p % 8 * (label % 5 - 2) + p / 8 * 2) / (label < 5 ? 2 : 4) % 2 == 0 ? 16 - i % 3 : (i + p) % 4) << ',';
    out << label << '\n';
  }
}

int run(const std::string& command) { return std::system(command.c_str()); }

}  // namespace

TEST_CASE("the CNN recipe's script makes a network that learns its digits") {
  const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
  if (!python || !source || !fs::exists(python)) SKIP("no Python of the tests' own");
  const TemporaryFolder folder;
  const fs::path digits = folder.path() / "digits.csv", script = fs::path(source) / "pipelines/cnn/make.py";
  write_digits(digits);
  REQUIRE(run("gzip -n " + digits.string()) == 0);
  const std::string call =
      std::string(python) + " " + script.string() + " " + (folder.path() / "out").string() + " --width 8 --field 16 --digits ";
  // The script has the model checked by onnx.checker, fully.
  REQUIRE(run(call + digits.string() + ".gz >/dev/null") == 0);
  CHECK(run(call + "/nowhere.csv.gz 2>/dev/null") != 0);
  CHECK(run(call + digits.string() + ".gz --field 8 2>/dev/null") != 0);

  TestContext context(folder);
  const auto file = [&](const char* name) { return (folder.path() / "out" / name).string(); };
  context.run("source/onnx", {{"path", file("model.onnx")}, {"task", "image-classification"}});
  const auto model = context.outputs.at("model");
  const auto data = [&](const std::string& part) {
    context.run("source/arrays",
                {{"files", {file((part + "-images.npy").c_str())}}, {"labels", file((part + "-labels.npy").c_str())}});
    return context.outputs.at("data");
  };
  const auto train = data("train"), heldout = data("heldout");
  context.run("distiller/finetune", {{"steps", 160}, {"batch", 16}, {"learning_rate", 0.005}}, {{"model", model}, {"data", train}});
  const auto tuned = context.outputs.at("model");
  context.run("evaluator/accuracy", Json::object(), {{"model", tuned}, {"baseline", model}, {"data", heldout}});
  CHECK(context.figures.at("accuracy") > 0.8);
  CHECK(context.figures.at("accuracy_drop_points") < -40);
  CHECK(context.figures.at("examples") == 180);
}
