#include <sys/wait.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "deploy/tiny.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace fs = std::filesystem;
using namespace espalier;
using namespace espalier::test;

namespace {

struct Call {
  int code = -1;
  std::string out, err;
};

Call generate_with(const std::string& arguments) {
  Workshop& workshop = Tiny::get().workshop;
  const fs::path errors = workshop.folder() / "generate.err";
  const char* build = std::getenv("ESPALIER_BUILD");
  REQUIRE(build);
  const std::string command = std::string("'") + build + "/bin/espalier' generate " + arguments + " 2>'" + errors.string() + "'";
  Call call;
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe);
  std::array<char, 4096> buffer;
  while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe)) call.out.append(buffer.data(), got);
  const int status = pclose(pipe);
  call.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  std::ostringstream text;
  text << std::ifstream(errors).rdbuf();
  call.err = text.str();
  return call;
}

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }

}  // namespace

TEST_CASE("generate continues a text as the model does") {
  Tiny& tiny = Tiny::get();
  const std::string backend = GENERATE("backend/openvino", "backend/libtorch", "backend/onnxruntime");
  const fs::path folder = tiny.workshop.lay_out(tiny.package(backend, tiny.model));
  const Call call = generate_with(quoted(folder) + " --prompt 'the gardener' --tokens 24 --json");
  INFO(call.err << call.out);
  REQUIRE(call.code == 0);
  const Json result = Json::parse(call.out);
  CHECK(result.at("ok") == true);
  CHECK(result.at("prompt_tokens") == 12);
  CHECK(result.at("tokens").get<int>() <= 24);
  CHECK(call.err.find("tokens/s") != std::string::npos);

  // The same by hand: greedy, through the project's runner.
  const auto own = language_model(tiny.graph(tiny.model), {2, false});
  const auto tokenizer = load_tokenizer(tiny.workshop.context(), tiny.tokenizer);
  const auto made =
      generate(*own, tokenizer->encode("the gardener"), {.tokens = 24, .eos = tokenizer->eos()}, [](std::int32_t) { return true; });
  CHECK(result.at("text").get<std::string>() == repaired_utf8(tokenizer->decode(made, true)));

  const Call plain = generate_with(quoted(folder) + " --prompt 'the gardener' --tokens 24");
  REQUIRE(plain.code == 0);
  CHECK(plain.out == result.at("text").get<std::string>() + "\n");
  CHECK(valid_utf8(plain.out));
}

TEST_CASE("sampling depends on the seed alone") {
  Tiny& tiny = Tiny::get();
  const fs::path folder = tiny.workshop.lay_out(tiny.package("backend/libtorch", tiny.model));
  const auto text = [&](const std::string& more) {
    const Call call = generate_with(quoted(folder) + " --prompt rain --tokens 40 --temperature 1.5 " + more);
    INFO(call.err);
    REQUIRE(call.code == 0);
    CHECK(valid_utf8(call.out));
    return call.out;
  };
  CHECK(text("--seed 1") == text("--seed 1"));
  CHECK(text("--seed 1") != text("--seed 2"));
}

TEST_CASE("generate says what is wrong with its package") {
  Tiny& tiny = Tiny::get();
  const fs::path folder = tiny.workshop.lay_out(tiny.package("backend/libtorch", tiny.model));
  const Call absent = generate_with("/nonexistent/folder --prompt x");
  CHECK(absent.code == 2);
  CHECK(absent.err.find("/nonexistent/folder") != std::string::npos);
  const fs::path empty = tiny.workshop.folder() / "empty";
  fs::create_directories(empty);
  const Call wrong = generate_with(quoted(empty) + " --prompt x --json");
  CHECK(wrong.code == 2);
  CHECK(Json::parse(wrong.out).at("ok") == false);
  CHECK(wrong.err.find("package.json") != std::string::npos);
  CHECK(generate_with(quoted(folder)).code == 2);
  CHECK(generate_with(quoted(folder) + " --prompt ''").code == 2);

  const Call chat = generate_with(quoted(folder) + " --prompt x --chat");
  CHECK(chat.code == 2);
  CHECK(chat.err.find("chat") != std::string::npos);

  std::fstream file(folder / "model.onnx", std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(0, std::ios::end);
  file.seekp(static_cast<std::streamoff>(file.tellg()) / 2);
  file.put('\x7f').put('\x00').put('\x55');
  file.close();
  const Call flipped = generate_with(quoted(folder) + " --prompt x");
  CHECK(flipped.code == 1);
  CHECK(flipped.err.find("model.onnx") != std::string::npos);
}
