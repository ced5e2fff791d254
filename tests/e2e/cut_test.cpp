// `espalier model cut`: a smaller model file without any recipe.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "calls.h"
#include "formats/tiny_gguf.h"

using namespace espalier::test;
namespace fs = std::filesystem;
using Json = nlohmann::json;
using Catch::Matchers::ContainsSubstring;

namespace {

class Bench : public Calls {
 public:
  Bench() : Calls("convert_oracle.py") {}
  Call cut(const std::string& arguments) const { return model("cut " + arguments); }
  Json told(const std::string& arguments) const {
    const Call call = cut(arguments + " --json");
    INFO(call.out << call.err);
    REQUIRE(call.code == 0);
    return Json::parse(call.out);
  }
};

}  // namespace

TEST_CASE("the units with the smallest weights go from an ONNX file, and the others compute as before") {
  const Bench bench;
  REQUIRE(bench.oracle("make ."));
  const Json half = bench.told("model.onnx half.onnx --sparsity 0.5");
  CHECK(half["cut"]["sparsity"] == 0.5);
  CHECK(half["cut"]["in_scope"] == 40);
  CHECK(half["cut"]["parameters_before"] == 40);
  CHECK(half["parameters"] == 20);
  REQUIRE(half["cut"]["groups"].size() == 1);
  CHECK(half["cut"]["groups"][0]["before"] == 8);
  CHECK(half["cut"]["groups"][0]["after"] == 4);
  CHECK(bench.oracle("pruned . model.onnx half.onnx 4"));
  // Never more than asked for, and what is left is a multiple.
  CHECK(bench.told("model.onnx less.onnx --sparsity 0.49")["parameters"] == 25);
  CHECK(bench.oracle("pruned . model.onnx less.onnx 3"));
  CHECK(bench.told("model.onnx even.onnx --sparsity 0.49 --multiple 2")["parameters"] == 30);
  CHECK(bench.oracle("pruned . model.onnx even.onnx 2"));
  const auto before = bench.names();
  CHECK(bench.told("large.onnx small.onnx --sparsity 0.25")["parameters"] == 3'750'000);
  CHECK(bench.oracle("pruned . large.onnx small.onnx 250000"));
  auto after = before;
  after.insert({"small.onnx", "out.txt", "err.txt"});
  CHECK(bench.names() == after);
}

TEST_CASE("a cut GGUF file becomes a directory that transformers loads") {
  const Bench bench;
  tests::TinyLlama llama;
  abuse::write_file(bench.folder / "m.gguf", llama.bytes());
  const Json told = bench.told("m.gguf model --sparsity 0.5");
  CHECK(told["model_type"] == "mistral");  // a LLaMA whose heads no longer fill its width
  CHECK(told["cut"]["groups"].size() ==
        5);  // the residual stream; in each of two layers a feed-forward width and the key-value groups
  for (const Json& group : told["cut"]["groups"]) CHECK(group["after"].get<int>() < group["before"].get<int>());
  CHECK(told["cut"]["sparsity"].get<double>() > 0.4);
  CHECK(told["cut"]["in_scope"].get<std::int64_t>() <= told["cut"]["parameters_before"].get<std::int64_t>());
  REQUIRE(bench.oracle("tokens . model"));
  REQUIRE(bench
              .model("run model --input input_ids=input_ids.npy --input attention_mask=attention_mask.npy "
                     "--input position_ids=position_ids.npy --out out")
              .code == 0);
  CHECK(bench.oracle("answer . out"));

  const Json heads = bench.told("m.gguf heads.onnx --sparsity 0.5 --kinds heads --scope '*.0.self_attn'");
  REQUIRE(heads["cut"]["groups"].size() == 1);
  CHECK_THAT(heads["cut"]["groups"][0]["group"].get<std::string>(), ContainsSubstring("layers.0."));
}

TEST_CASE("a cut that cannot be is refused, and nothing is written") {
  const Bench bench;
  REQUIRE(bench.oracle("make ."));
  const auto before = bench.names();
  const auto refused = [&](const std::string& arguments, const std::string& why) {
    const Call call = bench.cut(arguments);
    INFO(arguments << ": " << call.err);
    CHECK(call.code == 2);
    CHECK_THAT(call.err, ContainsSubstring(why));
  };
  refused("model.onnx small.onnx", "--sparsity");
  refused("model.onnx small.onnx --sparsity 0", "--sparsity");
  refused("model.onnx small.onnx --sparsity 1.5", "--sparsity");
  refused("model.onnx small.onnx --sparsity 0.01", "less than a unit");
  refused("model.onnx small.onnx --sparsity 0.5 --kinds heads", "head");
  refused("model.onnx small.onnx --sparsity 0.5 --scope up_proj", "up_proj");
  refused("model.onnx large.onnx --sparsity 0.5", "--force");
  refused("absent.onnx small.onnx --sparsity 0.5", "absent.onnx");
  auto after = before;
  after.insert({"out.txt", "err.txt"});
  CHECK(bench.names() == after);
}
