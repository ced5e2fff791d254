// `espalier model convert`: whole files in other formats, or nothing.
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "calls.h"
#include "formats/tiny_gguf.h"

using namespace espalier::test;
namespace fs = std::filesystem;
using Json = nlohmann::json;
using Catch::Matchers::ContainsSubstring;

namespace {

class Bench : public Calls {
 public:
  Bench() : Calls("convert_oracle.py") {
    tests::TinyLlama llama;
    abuse::write_file(folder / "m.gguf", llama.bytes());
  }
  Call convert(const std::string& arguments) const { return model("convert " + arguments); }
};

}  // namespace

TEST_CASE("an ONNX file is written again and computes the same, in one file or with its data beside it") {
  const Bench bench;
  REQUIRE(bench.oracle("make ."));
  const Call small = bench.convert("model.onnx again.onnx --json");
  INFO(small.out << small.err);
  REQUIRE(small.code == 0);
  const Json told = Json::parse(small.out);
  CHECK(told["ok"] == true);
  CHECK(told["from"]["format"] == "onnx");
  CHECK(told["files"].size() == 1);
  CHECK(told["files"][0]["bytes"] == fs::file_size(bench.folder / "again.onnx"));
  CHECK(bench.oracle("same . model.onnx again.onnx 0"));
  REQUIRE(bench.convert("model.onnx twice.onnx").code == 0);
  CHECK(bench.text("again.onnx") == bench.text("twice.onnx"));

  REQUIRE(bench.convert("large.onnx big.onnx").code == 0);
  CHECK(fs::file_size(bench.folder / "big.data") >= 20'000'000);
  CHECK(bench.oracle("same . large.onnx big.onnx 0"));
  REQUIRE(bench.convert("large.onnx half.onnx --dtype f16").code == 0);
  CHECK(fs::file_size(bench.folder / "half.onnx") < 10'100'000);
  CHECK(bench.oracle("same . large.onnx half.onnx 1e-3"));
  REQUIRE(bench.convert("half.onnx wide.onnx --dtype f32").code == 0);
  CHECK(bench.oracle("same . half.onnx wide.onnx 0"));

  const auto before = bench.names();
  REQUIRE(bench.convert("hostile.onnx tame.onnx").code == 0);
  CHECK(bench.names().size() == before.size() + 2);
  CHECK(!fs::exists("/tmp/up"));
  CHECK(bench.oracle("same . hostile.onnx tame.onnx 0"));
}

TEST_CASE("a GGUF file becomes a directory that transformers loads, and that comes back as it was") {
  const Bench bench;
  const Call made = bench.convert("m.gguf model/ --json");
  INFO(made.out << made.err);
  REQUIRE(made.code == 0);
  const Json told = Json::parse(made.out);
  CHECK(told["model_type"] == "llama");
  CHECK(told["dtype"] == "float32");
  CHECK(told["tokenizer"] == true);
  CHECK(bench.names("model") == std::set<std::string>{"config.json", "generation_config.json", "model.safetensors",
                                                      "tokenizer.json", "tokenizer_config.json"});
  REQUIRE(bench.oracle("tokens . model"));
  for (const char* from : {"m.gguf", "model"}) {
    const Call run =
        bench.model(fmt::format("run {} --input input_ids=input_ids.npy --input attention_mask=attention_mask.npy "
                                "--input position_ids=position_ids.npy --out out",
                                from));
    INFO(run.err);
    REQUIRE(run.code == 0);
    CHECK(bench.oracle("answer . out"));
  }
  const Call info = bench.model("info model --json");
  REQUIRE(info.code == 0);
  CHECK(Json::parse(info.out)["format"] == "huggingface");

  // From a directory to a directory what stands beside the weights goes along.
  std::ofstream(bench.folder / "model/chat_template.jinja") << "{{ messages }}";
  REQUIRE(bench.convert("model copy --max-shard-size 3KB").code == 0);
  CHECK(bench.text("copy/chat_template.jinja") == "{{ messages }}");
  CHECK(bench.text("copy/config.json") == bench.text("model/config.json"));
  CHECK(bench.text("copy/tokenizer.json") == bench.text("model/tokenizer.json"));
  CHECK(fs::exists(bench.folder / "copy/model.safetensors.index.json"));
  REQUIRE(bench.convert("copy whole").code == 0);
  CHECK(bench.text("whole/model.safetensors") == bench.text("model/model.safetensors"));

  // Through ONNX and back: the graph alone says what the model is.
  REQUIRE(bench.convert("model packed --format onnx").code == 0);
  CHECK(bench.names("packed") == std::set<std::string>{"model.onnx", "tokenizer.json"});
  REQUIRE(bench.convert("packed back").code == 0);
  CHECK(bench.text("back/model.safetensors") == bench.text("model/model.safetensors"));
  CHECK(bench.text("back/tokenizer.json") == bench.text("model/tokenizer.json"));
  REQUIRE(bench.convert("m.gguf brain --dtype bf16").code == 0);
  CHECK(Json::parse(bench.text("brain/config.json"))["dtype"] == "bfloat16");
  CHECK(bench.oracle("tokens . brain"));
}

TEST_CASE("nothing is overwritten unasked, and nothing but models ever") {
  const Bench bench;
  REQUIRE(bench.convert("m.gguf model").code == 0);
  const Call again = bench.convert("m.gguf model");
  CHECK(again.code == 2);
  CHECK_THAT(again.err, ContainsSubstring("--force"));
  CHECK(bench.convert("m.gguf model --force --dtype bf16").code == 0);
  CHECK(Json::parse(bench.text("model/config.json"))["dtype"] == "bfloat16");
  CHECK(bench.convert("model model --force --dtype f32").code == 0);  // onto itself
  CHECK(Json::parse(bench.text("model/config.json"))["dtype"] == "float32");
  std::ofstream(bench.folder / "model/thesis.txt") << "years of work";
  const Call mixed = bench.convert("m.gguf model --force");
  CHECK(mixed.code == 2);
  CHECK_THAT(mixed.err, ContainsSubstring("thesis.txt"));
  CHECK(bench.text("model/thesis.txt") == "years of work");
  CHECK(bench.convert("m.gguf m.gguf --format huggingface --force").code == 2);  // a file
  const auto binary = bench.convert("m.gguf model.bin");
  CHECK(binary.code == 2);
  CHECK_THAT(binary.err, ContainsSubstring("no such file is written"));
  CHECK_FALSE(fs::exists(bench.folder / "model.bin"));
  REQUIRE(bench.convert("m.gguf a.onnx").code == 0);
  CHECK(bench.convert("m.gguf a.onnx").code == 2);
  CHECK(bench.convert("m.gguf a.onnx --force").code == 0);
  std::ofstream(bench.folder / "b.data") << "mine";
  CHECK(bench.convert("m.gguf b.onnx").code == 2);
  CHECK(bench.names() == std::set<std::string>{"m.gguf", "model", "a.onnx", "b.data", "out.txt", "err.txt"});
}

TEST_CASE("a TorchScript archive is written for torch, and read again like any model") {
  const Bench bench;
  REQUIRE(bench.oracle("make ."));
  const Call made = bench.convert("model.onnx model.pt --json");
  INFO(made.out << made.err);
  REQUIRE(made.code == 0);
  const Json told = Json::parse(made.out);
  CHECK(told["files"][0]["bytes"] == fs::file_size(bench.folder / "model.pt"));
  CHECK(bench.oracle("script . model.onnx model.pt"));
  CHECK(bench.convert("model.onnx model.pt").code == 2);
  REQUIRE(bench.convert("model.pt back.onnx --json").code == 0);
  CHECK(bench.oracle("same . model.onnx back.onnx 1e-6"));
  CHECK(Json::parse(bench.model("info model.pt --json").out)["parameters"] == 40);
}

TEST_CASE("a call that is wrong says what is wrong") {
  const Bench bench;
  REQUIRE(bench.oracle("make ."));
  const auto says = [&](const std::string& arguments, const char* part) {
    const Call call = bench.convert(arguments);
    INFO(arguments << ": " << call.err);
    CHECK(call.code == 2);
    CHECK_THAT(call.err, ContainsSubstring(part));
  };
  says("model.onnx folder", "input_ids");
  says("model.onnx out.gguf", "GGUF is read, not written");
  says("model.onnx out.safetensors", "name the folder");
  says("model.onnx out.onnx --dtype int8", "int8");
  says("m.gguf out --max-shard-size many", "many");
  says("absent.onnx out.onnx", "absent.onnx");
  const Call json = bench.convert("model.onnx folder --json");
  CHECK(json.code == 2);
  CHECK(Json::parse(json.out)["error"]["code"] == "unsupported");
  CHECK(!fs::exists(bench.folder / "folder"));
  CHECK_THAT(bench.convert("--help").out, ContainsSubstring("Examples:") && ContainsSubstring("--max-shard-size"));
}

TEST_CASE("a conversion that is interrupted leaves nothing behind") {
  const Bench bench;
  REQUIRE(bench.oracle("huge ."));
  const auto before = bench.names();
  for (const auto& [signal, code] : {std::pair{"INT", 130}, {"TERM", 143}}) {
    const Call call = bench.shell(fmt::format(
        "{} model convert huge.onnx stopped/big.onnx --dtype f16 & p=$!; "
        "for i in $(seq 5000); do ls stopped/.weights.part-* >/dev/null 2>&1 && break; sleep 0.002; done; kill -{} $p; wait $p",
        Bench::program().string(), signal));
    INFO(call.err);
    CHECK(call.code == code);
    CHECK_THAT(call.err, ContainsSubstring("interrupted"));
    CHECK(bench.names("stopped").empty());
  }
  fs::remove(bench.folder / "stopped");
  CHECK(bench.names() == [&] {
    auto names = before;
    names.insert({"out.txt", "err.txt"});
    return names;
  }());
}
