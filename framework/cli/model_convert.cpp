#include "cli/model_convert.h"

#include <CLI/Formatter.hpp>

#include <filesystem>
#include <memory>
#include <vector>

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
    throw_unsupported("GGUF is read, not written", arguments.to, "written are ONNX, TorchScript and Hugging Face directories");
  if (extension == ".safetensors")
    throw_invalid("model.safetensors is written into a folder, with the files that belong to it", arguments.to, "name the folder");
  for (const char* own : {".pt", ".pth", ".ts"})
    if (extension == own) return "torchscript";
  for (const char* other : {".bin", ".pb", ".tflite", ".xml", ".json", ".toml"})
    if (extension == other)
      throw_invalid(
          "a name that ends in " + extension + " is a file's, and no such file is written", arguments.to,
          "end it in .onnx or .pt, or name the folder of a Hugging Face directory (--format huggingface for one of this name)");
  return extension == ".onnx" ? "onnx" : "huggingface";
}

int write(const Arguments& arguments, const CommonOptions& common, const Json& cut = {}) {
  const auto shard = parse_bytes(arguments.max_shard);
  if (!shard) throw_invalid("\"" + arguments.max_shard + "\" is no size", "--max-shard-size", "for example 5GB or 500MB");
  Json request = {{"from", arguments.from},   {"to", arguments.to},    {"format", format_of(arguments)},
                  {"dtype", arguments.dtype}, {"max_shard", *shard},   {"force", arguments.force},
                  {"json", common.json},      {"quiet", common.quiet}, {"live", common.terminal_err && !common.quiet}};
  if (!cut.is_null()) request["cut"] = cut;
  try {
    become_tool(ToolProgram::graph, "model-convert", request.dump());  // it alone must hear of Ctrl-C, and removes what it began
  } catch (const Json::exception&) {
    throw_invalid("a path is not UTF-8", "model");
  }
}

std::shared_ptr<Arguments> writing_options(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("FROM", arguments->from,
                 "a model: .onnx, .gguf, .pt (TorchScript), an exported folder, or a Hugging Face directory")
      ->required();
  app.add_option("TO", arguments->to, "a name that ends in .onnx or .pt (TorchScript), or the folder of a Hugging Face directory")
      ->required();
  app.add_option("--format", arguments->format, "what to write, whatever TO is called; onnx then makes a folder with a tokenizer")
      ->check(CLI::IsMember({"onnx", "huggingface", "torchscript"}));
  app.add_option("--dtype", arguments->dtype, "store the weights as f32, f16 or bf16 (as they are)")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_option("--max-shard-size", arguments->max_shard, "most bytes of weights in one file of a Hugging Face directory (5GB)")
      ->type_name("SIZE");
  app.add_flag("--force", arguments->force, "replace what is at TO: a file, or a folder that holds a model and nothing else");
  return arguments;
}

struct CutArguments {
  double sparsity = 0;
  std::int64_t multiple = 1;
  std::vector<std::string> kinds, scope{"*"}, exclude;
  std::string ranking = "layer";
  bool allow_inexact = false;
};

}  // namespace

CommandAction set_up_convert(CLI::App& app) {
  auto arguments = writing_options(app);
  app.footer(
      "\nExamples:\n"
      "  espalier model convert model.gguf model/                      # a Hugging Face directory\n"
      "  espalier model convert model/ model.onnx --dtype bf16\n"
      "  espalier model convert traced.pt model.onnx\n"
      "  espalier model convert model.onnx model.pt                   # TorchScript, for torch.jit.load\n"
      "  espalier model convert exported/ small/ --dtype f16 --max-shard-size 500MB\n");
  return [arguments](const CommonOptions& common) { return write(*arguments, common); };
}

CommandAction set_up_cut(CLI::App& app) {
  auto arguments = writing_options(app);
  auto cut = std::make_shared<CutArguments>();
  app.add_option("--sparsity", cut->sparsity, "share of the parameters in scope to remove, above 0 and below 1; never exceeded")
      ->required()
      ->check(CLI::Range(1e-9, 1.0));
  app.add_option("--kinds", cut->kinds, "what may go: channels, heads (whichever of them the model has)")
      ->check(CLI::IsMember({"channels", "heads"}))
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--scope", cut->scope, "patterns of the layers whose units may go (*)")
      ->type_name("PATTERN")
      ->allow_extra_args(false);
  app.add_option("--exclude", cut->exclude, "patterns of layers that stay whole")->type_name("PATTERN")->allow_extra_args(false);
  app.add_option(
         "--ranking", cut->ranking,
         "layer: every group loses the same share; global: the smallest go, wherever they are, each group's measured by its mean")
      ->check(CLI::IsMember({"layer", "global"}));
  app.add_option("--multiple", cut->multiple, "round what is left of a layer up to a multiple that the target likes (1)")
      ->check(CLI::Range(1, 4096));
  app.add_flag("--allow-inexact", cut->allow_inexact, "also cut where what is kept computes something else without the cut units");
  app.footer(
      "\nUnits go by the norm of their weights. Importance over data, refitting and training are recipes' work (pruner/channels).\n"
      "\nExamples:\n"
      "  espalier model cut model.onnx small.onnx --sparsity 0.3\n"
      "  espalier model cut model.gguf small/ --sparsity 0.2 --kinds channels --scope '*.mlp' --multiple 16\n");
  return [arguments, cut](const CommonOptions& common) {
    return write(*arguments, common,
                 {{"sparsity", cut->sparsity},
                  {"kinds", cut->kinds},
                  {"scope", cut->scope},
                  {"exclude", cut->exclude},
                  {"global", cut->ranking == "global"},
                  {"multiple", cut->multiple},
                  {"allow_inexact", cut->allow_inexact}});
  };
}

}  // namespace espalier
