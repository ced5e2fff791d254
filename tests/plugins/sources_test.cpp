#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>
#include <set>

#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "run/dataset.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
namespace fs = std::filesystem;

namespace {

/// A byte-level tokenizer whose tokens are single bytes: printable ones stand for themselves.
std::string byte_tokenizer(bool with_bos) {
  Json vocabulary;
  int id = 0, other = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool plain = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const int code = plain ? byte : other++;
    const std::string key =
        code < 0x80 ? std::string(1, char(code)) : std::string{char(0xc0 | code >> 6), char(0x80 | (code & 0x3f))};
    vocabulary[key] = id++;
  }
  Json added = Json::array(), processor;
  if (with_bos) {
    vocabulary["<s>"] = id;
    added.push_back({{"id", id},
                     {"content", "<s>"},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    const Json first{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, text{{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    processor = {{"type", "TemplateProcessing"},
                 {"single", {first, text}},
                 {"pair", {first, text}},
                 {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {id}}, {"tokens", {"<s>"}}}}}}};
  }
  return Json{{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens", added},
              {"normalizer", nullptr},
              {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
              {"post_processor", processor},
              {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
              {"model",
               {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"vocab", vocabulary},
                {"merges", Json::array()}}}}
      .dump();
}

Artifact tokenizer_artifact(TestContext& context, bool with_bos = false) {
  return save_tokenizer(context, *Tokenizer::from_json(byte_tokenizer(with_bos), "test"));
}

std::string text_of(TestContext& context, const Artifact& tokenizer, const Artifact& data) {
  const TokenDataset dataset(context, data);
  return load_tokenizer(context, tokenizer)->decode(dataset.tokens());
}

std::vector<std::string> windows_of(TestContext& context, const Artifact& tokenizer, const Artifact& data) {
  const auto text = text_of(context, tokenizer, data);
  std::vector<std::string> windows;
  const auto length = data.meta.at("sequence").get<std::size_t>();
  for (std::size_t i = 0; i < text.size(); i += length) windows.push_back(text.substr(i, length));
  return windows;
}

std::string alphabet(std::size_t length) {
  std::string text;
  for (std::size_t i = 0; i < length; ++i) text += char('a' + (i * 7 + i / 26) % 26);
  return text;
}

}  // namespace

TEST_CASE("text becomes windows of one stream, in order") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto tokenizer = tokenizer_artifact(context);
  const auto text = alphabet(105);
  const auto a = folder.write("a.txt", text.substr(0, 37)), b = folder.write("b.txt", text.substr(37));
  const Json files{a.string(), b.string()};
  context.run("source/text", {{"files", files}, {"sequence", 10}}, {{"tokenizer", tokenizer}});
  const auto data = context.outputs.at("data");
  CHECK(data.meta.at("count") == 10);
  CHECK(data.meta.at("tokens") == 100);
  CHECK(data.meta.at("tokenizer") == tokenizer.digest().hex());
  CHECK(text_of(context, tokenizer, data) == text.substr(0, 100));
  SECTION("stride") {
    context.run("source/text", {{"files", files}, {"sequence", 10}, {"stride", 5}}, {{"tokenizer", tokenizer}});
    const auto windows = windows_of(context, tokenizer, context.outputs.at("data"));
    REQUIRE(windows.size() == 20);
    CHECK(windows[3] == text.substr(15, 10));
  }
  SECTION("limit") {
    context.run("source/text", {{"files", files}, {"sequence", 10}, {"limit", 3}}, {{"tokenizer", tokenizer}});
    CHECK(text_of(context, tokenizer, context.outputs.at("data")) == text.substr(0, 30));
  }
  SECTION("a BOS token begins each window, and no text is lost") {
    const auto with_bos = tokenizer_artifact(context, true);
    context.run("source/text", {{"files", files}, {"sequence", 10}, {"bos", true}}, {{"tokenizer", with_bos}});
    const TokenDataset dataset(context, context.outputs.at("data"));
    CHECK(dataset.count() == 11);
    std::vector<std::int32_t> rest;
    for (std::int64_t i = 0; i < dataset.count() * 10; ++i) {
      const auto id = dataset.tokens()[std::size_t(i)];
      if (i % 10 == 0)
        CHECK(id == 256);
      else
        rest.push_back(id);
    }
    CHECK(load_tokenizer(context, with_bos)->decode(rest) == text.substr(0, 99));
    CHECK_THROWS_WITH(context.run("source/text", {{"files", files}, {"bos", true}}, {{"tokenizer", tokenizer}}),
                      ContainsSubstring("no BOS"));
  }
}

TEST_CASE("train and heldout share no window and miss none") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto tokenizer = tokenizer_artifact(context);
  const auto file = folder.write("a.txt", alphabet(2000)).string();
  const auto part = [&](const std::string& name, std::uint64_t seed) {
    context.seed_ = seed;
    context.run("source/text", {{"files", {file}}, {"sequence", 20}, {"part", name}, {"share", 0.25}}, {{"tokenizer", tokenizer}});
    return windows_of(context, tokenizer, context.outputs.at("data"));
  };
  const auto train = part("train", 3), heldout = part("heldout", 3), all = part("all", 3);
  CHECK(heldout.size() == 25);
  CHECK(train.size() == 75);
  std::multiset<std::string> together(train.begin(), train.end());
  together.insert(heldout.begin(), heldout.end());
  CHECK(together == std::multiset<std::string>(all.begin(), all.end()));
  CHECK(part("heldout", 3) == heldout);
  CHECK(part("heldout", 4) != heldout);
}

TEST_CASE("long files are encoded in pieces without a seam") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto tokenizer = tokenizer_artifact(context);
  std::string text;
  while (text.size() < (std::size_t{9} << 20)) text += "some words on a line, some more of them;\n\n  and then another line\nx";
  const auto file = folder.write("long.txt", text).string();
  context.run("source/text", {{"files", {file}}, {"sequence", 4096}}, {{"tokenizer", tokenizer}});
  const auto data = context.outputs.at("data");
  CHECK(context.reports > 1);
  CHECK(text_of(context, tokenizer, data) == text.substr(0, data.meta.at("tokens").get<std::size_t>()));
}

TEST_CASE("text that cannot make a window is refused") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto tokenizer = tokenizer_artifact(context);
  const auto file = folder.write("short.txt", "hello").string();
  CHECK_THROWS_WITH(context.run("source/text", {{"files", {file}}, {"sequence", 10}}, {{"tokenizer", tokenizer}}),
                    ContainsSubstring("5 tokens"));
  CHECK_THROWS_WITH(context.run("source/text", {{"files", Json::array()}}, {{"tokenizer", tokenizer}}),
                    ContainsSubstring("no files"));
  CHECK_THROWS_WITH(context.run("source/text", {{"files", {file}}, {"sequence", 4}, {"stride", 2}, {"part", "train"}},
                                {{"tokenizer", tokenizer}}),
                    ContainsSubstring("overlap"));
  CHECK_THROWS_WITH(context.run("source/text", {{"files", {(folder.path() / "none.txt").string()}}}, {{"tokenizer", tokenizer}}),
                    ContainsSubstring("none.txt"));
}

TEST_CASE("an ONNX model comes in with its external data, which must be declared") {
  const TemporaryFolder folder;
  TestContext context(folder);
  Graph graph = toy_language_model();
  graph.metadata.clear();
  const auto path = folder.path() / "model.onnx", data = folder.path() / "model.data";
  write_onnx(graph, path);
  REQUIRE(fs::exists(data));
  CHECK_THROWS_WITH(context.run("source/onnx", {{"path", path.string()}}), ContainsSubstring("data = [\"model.data\"]"));
  CHECK(context.outputs.empty());
  const auto tokenizer = folder.write("tokenizer.json", byte_tokenizer(false));
  context.run("source/onnx",
              {{"path", path.string()}, {"data", {data.string()}}, {"task", "causal-lm"}, {"tokenizer_file", tokenizer.string()}});
  const auto model = context.outputs.at("model");
  CHECK(model.meta.at("task") == "causal-lm");
  CHECK(model.meta.at("tokenizer") == context.outputs.at("tokenizer").digest().hex());
  const Graph back = load_model(context, model);
  CHECK(back.parameter_count() == graph.parameter_count());
  const auto windows = toy_dataset(context, 2, 16, 3);
  CHECK(loss_of(back, context, windows) == loss_of(graph, context, windows));

  // A file that the model does not use is worth a word; a truncated or missing one an error.
  const auto spare = folder.write("spare.data", "x").string();
  context.run("source/onnx", {{"path", path.string()}, {"data", {data.string(), spare}}});
  CHECK(context.warnings.size() == 1);
  const auto empty = context.outputs.at("tokenizer");
  CHECK(empty.blobs.empty());
  CHECK_FALSE(context.outputs.at("model").meta.contains("tokenizer"));
  CHECK_THROWS_WITH(context.run("source/text", {{"files", {spare}}}, {{"tokenizer", empty}}), ContainsSubstring("tokenizer_file"));
  fs::resize_file(data, 4096);
  CHECK_THROWS_WITH(context.run("source/onnx", {{"path", path.string()}, {"data", {data.string()}}}),
                    ContainsSubstring("model.data"));
  fs::remove(data);
  CHECK_THROWS_WITH(context.run("source/onnx", {{"path", path.string()}, {"data", {data.string()}}}), ContainsSubstring("missing"));
}

TEST_CASE("external data must stay in the model's folder") {
  const TemporaryFolder folder;
  TestContext context(folder);
  fs::create_directories(folder.path() / "model");
  const auto path = folder.path() / "model" / "model.onnx";
  write_onnx(toy_language_model(), path);
  const auto outside = folder.path() / "model.data";
  fs::rename(folder.path() / "model" / "model.data", outside);
  fs::create_symlink(outside, folder.path() / "model" / "model.data");
  CHECK_THROWS_WITH(context.run("source/onnx", {{"path", path.string()}, {"data", {outside.string()}}}),
                    ContainsSubstring("out of the model's folder"));
  fs::remove(folder.path() / "model" / "model.data");
  // The same length, another place.
  std::string bytes;
  {
    std::ifstream in(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (const std::string location : {"../mod.dat", "/tmp/md.da"}) {
    auto changed = bytes;
    for (auto at = changed.find("model.data"); at != std::string::npos; at = changed.find("model.data", at + 1))
      changed.replace(at, 10, location);
    std::ofstream(path, std::ios::binary) << changed;
    CHECK_THROWS_WITH(context.run("source/onnx", {{"path", path.string()}}), ContainsSubstring("outside the model's folder"));
  }
}

TEST_CASE("damaged files are refused with their place") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto refused = [&](const std::string& source, const fs::path& path) {
    try {
      context.run(source, {{"path", path.string()}});
      FAIL("accepted " + path.string());
    } catch (const Error& error) {
      CHECK((error.code() == ErrorCode::invalid_input || error.code() == ErrorCode::resource));
      CHECK_THAT(error.what(), ContainsSubstring(path.filename().string()));
    }
    CHECK(context.outputs.empty());
  };
  refused("source/gguf", folder.write("text.gguf", "this is no GGUF file"));
  refused("source/gguf", folder.write("short.gguf", std::string("GGUF\3\0\0\0\377\377\377\377", 12)));
  refused("source/gguf", folder.path() / "none.gguf");
  refused("source/onnx", folder.write("text.onnx", "\xff\xff\xff this is no ONNX file"));
  refused("source/onnx", folder.path() / "none.onnx");
}
