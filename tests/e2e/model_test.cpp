// `espalier model`: a file is looked at, listed and run without any recipe.
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "calls.h"

using namespace espalier::test;
namespace fs = std::filesystem;
using Json = nlohmann::json;
using Catch::Matchers::ContainsSubstring;

namespace {

class Bench : public Calls {
 public:
  Bench() : Calls("model_oracle.py") { REQUIRE(oracle("make .")); }
};

}  // namespace

TEST_CASE("a model runs on arrays, and its outputs are ONNX Runtime's") {
  const Bench bench;
  const std::string file = quoted(bench.folder / "model.onnx");
  const Call run = bench.model("run " + file + " --input x=" + quoted(bench.folder / "x.npy") + " --out " +
                               quoted(bench.folder / "out") + " --json");
  INFO(run.out << run.err);
  REQUIRE(run.code == 0);
  const Json made = Json::parse(run.out);
  CHECK(made["y/out:0"]["shape"] == Json({5, 2}));
  CHECK(made["y/out:0"]["dtype"] == "float32");
  CHECK(made["y/out:0"]["file"] == (bench.folder / "out/y%2Fout%3A0.npy").string());
  CHECK(made["lengths"]["dtype"] == "int64");
  CHECK(made["half"]["dtype"] == "float16");
  CHECK(bench.oracle("check " + quoted(bench.folder) + " " + quoted(bench.folder / "out")));
}

TEST_CASE("what is wrong with a call or a model is said, with the operator's name") {
  const Bench bench;
  const std::string file = quoted(bench.folder / "model.onnx"), x = quoted(bench.folder / "x.npy"),
                    out = " --out " + quoted(bench.folder / "out");
  const Call misnamed = bench.model("run " + file + " --input z=" + x + out);
  CHECK(misnamed.code != 0);
  CHECK_THAT(misnamed.err, ContainsSubstring("no input \"z\"") && ContainsSubstring("it has: x"));
  const Call missing = bench.model("run " + file + out);
  CHECK(missing.code != 0);
  CHECK_THAT(missing.err, ContainsSubstring("\"x\"") && ContainsSubstring("missing"));
  const Call shapeless = bench.model("run " + file + " --input x=" + quoted(bench.folder / "bytes.npy") + out);
  CHECK(shapeless.code != 0);
  CHECK_THAT(shapeless.err, ContainsSubstring("shape [4]"));
  CHECK(bench.model("run " + file + " --input x" + out).code == 2);
  const Call refused =
      bench.model("run " + quoted(bench.folder / "refused.onnx") + " --input x=" + quoted(bench.folder / "bytes.npy") + out);
  CHECK((refused.code == 1 || refused.code == 2));
  CHECK_THAT(refused.err, ContainsSubstring("ImageDecoder") && ContainsSubstring("look"));
  CHECK(!fs::exists(bench.folder / "out"));
  const Call nowhere = bench.model("info " + quoted(bench.folder / "absent.onnx"));
  CHECK(nowhere.code != 0);
  CHECK_THAT(nowhere.err, ContainsSubstring("absent.onnx"));
  CHECK(bench.model("convert " + file).code == 2);
}

TEST_CASE("info and groups tell what is in a model and what can be cut") {
  const Bench bench;
  const std::string file = quoted(bench.folder / "model.onnx");
  const Call info = bench.model("info " + file + " --json");
  REQUIRE(info.code == 0);
  const Json about = Json::parse(info.out);
  CHECK(about["parameters"] == 40);
  CHECK(about["operators"]["MatMul"] == 2);
  CHECK(about["inputs"][0]["shape"] == Json({"n", 3}));
  CHECK(about["macs"] == 40);  // of one row
  CHECK(about["unknown"].empty());
  CHECK(Json::parse(bench.model("info " + quoted(bench.folder / "refused.onnx") + " --json").out)["unknown"] ==
        Json({"ImageDecoder"}));
  CHECK_THAT(bench.model("info " + file).out, ContainsSubstring("MatMul") && ContainsSubstring("[n, 3]"));

  const Call groups = bench.model("groups " + file + " --json");
  REQUIRE(groups.code == 0);
  const Json listed = Json::parse(groups.out);
  REQUIRE(listed["groups"].size() == 1);
  const Json& group = listed["groups"][0];
  CHECK(group["id"] == "up:1:0");
  CHECK(group["units"] == 8);
  CHECK(group["parameters_per_unit"] == 5);
  CHECK(group["macs_per_unit"] == 5);
  CHECK(group["members"].size() == 2);
  CHECK(listed["parameters_free"] == 40);
  CHECK_THAT(bench.model("groups " + file).out, ContainsSubstring("up:1:0") && ContainsSubstring("100.0 % of 40"));
  CHECK_THAT(bench.model("groups " + file + " --pinned").out, ContainsSubstring("pinned: "));
  CHECK(bench.model("groups " + file + " --svg " + quoted(bench.folder / "groups.svg")).code == 0);
  const std::string picture = bench.text("groups.svg");
  CHECK_THAT(picture, ContainsSubstring("<svg") && ContainsSubstring("8 channels, 5 parameters each") &&
                          ContainsSubstring("3 × 8, axis 1") && ContainsSubstring("8 × 2, axis 0"));
}

TEST_CASE("groups lists the experts of a mixture and the blocks of a run, with what one of them frees") {
  const Bench bench;
  REQUIRE(bench.oracle("mixture ."));
  const Call call = bench.model("groups mixture --json");
  INFO(call.out << call.err);
  REQUIRE(call.code == 0);
  std::array<int, 2> found{};
  const Json listed = Json::parse(call.out);
  for (const Json& group : listed["groups"]) {
    if (group["kind"] == "experts") {
      ++found[0];
      CHECK(group["units"] == 4);
      CHECK(group["chosen"] == 2);
      CHECK(group["parameters_per_unit"] == 3 * 16 * 24 + 16);  // gate, up, down and the router's row
      CHECK(group["experts"].size() == 4);
      CHECK(group["members"].size() == 1);
      CHECK(group["members"][0]["axis"] == 1);
    }
    if (group["kind"] == "blocks") {
      ++found[1];
      CHECK(group["units"] == 2);
      // Queries and outputs, keys and values, the experts with their router, two norms.
      CHECK(group["parameters_per_unit"] == 2 * 16 * 16 + 2 * 16 * 8 + 4 * (3 * 16 * 24 + 16) + 2 * 16);
      CHECK(group["macs_per_unit"].get<double>() > 0);
      CHECK(group["scopes"].size() == 2);
    }
  }
  CHECK(found == std::array{2, 1});
  CHECK_THAT(bench.model("groups mixture").out, ContainsSubstring("experts:") && ContainsSubstring("blocks:"));
}
