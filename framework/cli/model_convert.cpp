#include "cli/model_convert.h"

#include <CLI/Formatter.hpp>

#include <filesystem>
#include <memory>

#include "engine/tool.h"
#include "recipe/units.h"
#include "sdk/error.h"

namespace espalier {
namespace {

struct Arguments {
  std::string from, to, format, dtype, max_shard = "5GB";
  bool force = false;
};

/// A folder, unless the name says what file it is to be.
std::string format_of(const Arguments& arguments) {
  if (!arguments.format.empty()) return arguments.format;
  const std::string extension = std::filesystem::path(arguments.to).extension().string();
  if (extension == ".gguf")
    throw_unsupported("GGUF is read, not written", arguments.to, "written are ONNX and Hugging Face directories");
  if (extension == ".safetensors")
    throw_invalid("model.safetensors is written into a folder, with the files that belong to it", arguments.to, "name the folder");
  for (const char* other : {".bin", ".pt", ".pth", ".pb", ".tflite", ".xml", ".json", ".toml"})
    if (extension == other)
      throw_invalid("a name that ends in " + extension + " is a file's, and no such file is written", arguments.to,
                    "end it in .onnx, or name the folder of a Hugging Face directory (--format huggingface for one of this name)");
  return extension == ".onnx" ? "onnx" : "huggingface";
}

int convert(const Arguments& arguments, const CommonOptions& common) {
  const auto shard = parse_bytes(arguments.max_shard);
  if (!shard) throw_invalid("\"" + arguments.max_shard + "\" is no size", "--max-shard-size", "for example 5GB or 500MB");
  const Json request = {{"from", arguments.from},   {"to", arguments.to},    {"format", format_of(arguments)},
                        {"dtype", arguments.dtype}, {"max_shard", *shard},   {"force", arguments.force},
                        {"json", common.json},      {"quiet", common.quiet}, {"live", common.terminal_err && !common.quiet}};
  try {
    become_worker_tool("model-convert", request.dump());  // it alone must hear of Ctrl-C, and removes what it began
  } catch (const Json::exception&) {
    throw_invalid("a path is not UTF-8", "model convert");
  }
}

}  // namespace

CommandAction set_up_convert(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("FROM", arguments->from, "a model: .onnx, .gguf, an exported folder, or a Hugging Face directory")->required();
  app.add_option("TO", arguments->to, "a name that ends in .onnx, or the folder of a Hugging Face directory")->required();
  app.add_option("--format", arguments->format, "what to write, whatever TO is called; onnx then makes a folder with a tokenizer")
      ->check(CLI::IsMember({"onnx", "huggingface"}));
  app.add_option("--dtype", arguments->dtype, "store the weights as f32, f16 or bf16 (as they are)")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_option("--max-shard-size", arguments->max_shard, "most bytes of weights in one file of a Hugging Face directory (5GB)")
      ->type_name("SIZE");
  app.add_flag("--force", arguments->force, "replace what is at TO: a file, or a folder that holds a model and nothing else");
  app.footer(
      "\nExamples:\n"
      "  espalier model convert model.gguf model/                      # a Hugging Face directory\n"
      "  espalier model convert model/ model.onnx --dtype bf16\n"
      "  espalier model convert exported/ small/ --dtype f16 --max-shard-size 500MB\n");
  return [arguments](const CommonOptions& common) { return convert(*arguments, common); };
}

}  // namespace espalier
