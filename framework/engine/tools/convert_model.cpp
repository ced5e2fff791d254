// `espalier model convert` and `espalier model cut`: a model in another format, or a smaller one, whole or not at all.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "engine/tools/cut_model.h"
#include "engine/tools/tools.h"
#include "formats/file_aside.h"
#include "formats/file_writer.h"
#include "formats/float_values.h"
#include "formats/huggingface_write.h"
#include "formats/model_file.h"
#include "formats/onnx.h"
#include "formats/spilled_tensors.h"
#include "formats/stored_weights.h"
#include "graph/learnable.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

/// Models up to this many bytes of weights are one .onnx file.
constexpr std::uint64_t kOneFile = 16 << 20;
/// What stands beside the weights of a Hugging Face directory and says how to use the model; not longer than this.
constexpr const char* kCompanions[] = {"generation_config.json",  "tokenizer.json",    "tokenizer_config.json",
                                       "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"};
constexpr std::uint64_t kLongestCompanion = 64 << 20;

volatile sig_atomic_t stopped = 0;  // the signal that came
extern "C" void on_stop(int number) { stopped = number; }

/// From here on there is something to remove: a signal no longer ends the process, the work asks for it and ends itself.
void hear_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void check_stopped() {
  if (stopped != 0) throw Error(ErrorCode::cancelled, "interrupted; nothing was written");
}

/// A line on the terminal while bytes are written.
class Meter {
 public:
  Meter(std::string what, bool live) : what_(std::move(what)), live_(live) {}
  ~Meter() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }
  Meter(const Meter&) = delete;

  void operator()(std::uint64_t done, std::uint64_t all) {
    check_stopped();
    const auto now = Clock::now();
    if (!live_ || all == 0 || now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    shown_ = true;
    fmt::print(stderr, "\r\033[K{}: {:.0f} of {:.0f} MB, {} %", what_, static_cast<double>(done) / 1e6,
               static_cast<double>(all) / 1e6, 100 * done / all);
    std::fflush(stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  bool live_, shown_ = false;
  Clock::time_point last_{};
};

struct Request {
  fs::path from, to;
  std::string format;
  std::optional<DType> dtype;
  std::uint64_t max_shard;
  std::optional<CutRequest> cut;
  bool force, json, quiet, live;

  explicit Request(const Json& json_request)
      : from(json_request.at("from").get<std::string>()),
        to(json_request.at("to").get<std::string>()),
        format(json_request.at("format").get<std::string>()),
        dtype(stored_type(json_request.at("dtype").get<std::string>())),
        max_shard(json_request.at("max_shard").get<std::uint64_t>()),
        force(json_request.at("force").get<bool>()),
        json(json_request.at("json").get<bool>()),
        quiet(json_request.at("quiet").get<bool>()),
        live(json_request.at("live").get<bool>()) {
    if (json_request.contains("cut")) cut.emplace(json_request.at("cut"));
    to = fs::absolute(to).lexically_normal();
    if (!to.has_filename()) to = to.parent_path();
  }
};

/// Files that a folder with a model may hold and be replaced.
bool belongs_to_model(const std::string& name) {
  static const std::set<std::string, std::less<>> names = {"vocab.json", "merges.txt", "tokenizer.model", "package.json",
                                                           "manifest.json"};
  return names.contains(name) || name == "model.onnx" || name == "model.data" || name == "config.json" ||
         name == "model.safetensors.index.json" || (name.starts_with("model") && name.ends_with(".safetensors")) ||
         std::find(std::begin(kCompanions), std::end(kCompanions), name) != std::end(kCompanions);
}

[[noreturn]] void refuse_existing(const fs::path& path) {
  throw_invalid("is there already", path.string(), "--force replaces it; or name another place");
}

void check_file(const fs::path& path, bool force) {
  std::error_code error;
  const auto status = fs::symlink_status(path, error);
  if (!fs::exists(status)) return;
  if (fs::is_directory(status)) throw_invalid("is a folder", path.string(), "name a file");
  if (!force) refuse_existing(path);
}

/// Nothing that is no model's is ever removed, --force or not.
void check_folder(const fs::path& path, bool force) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return;
  if (!fs::is_directory(path, error)) throw_invalid("is a file", path.string(), "name a folder, or a file that ends in .onnx");
  if (fs::is_empty(path, error)) return;
  if (!force) refuse_existing(path);
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory(error) || !belongs_to_model(name))
      throw_invalid("the folder holds something else than a model: " + name, path.string(), "name another folder");
  }
  if (error) throw Error(ErrorCode::resource, "the folder cannot be read: " + error.message(), path.string());
}

using Written = std::vector<std::pair<std::string, std::uint64_t>>;

/// What was made, as --json tells it.
struct Result {
  Written files;
  std::string family, dtype;
  bool tokenizer = false;
};

/// Weights in the type that was asked for.
void set_type(const Request& request, Graph& graph, const fs::path& scratch) {
  if (!request.dtype) return;
  Meter meter("converting", request.live);
  std::vector<std::string> names;
  for (const std::string& name : learnable(graph))
    if (graph.initializers.at(name).count() > 1) names.push_back(name);
  store_weights(graph, names, *request.dtype, scratch, std::ref(meter));
}

/// A model and its external data, each in place when both are whole.
Written write_onnx_at(const Request& request, Graph graph, const fs::path& file, const fs::path& scratch) {
  set_type(request, graph, scratch);
  OnnxWriteOptions options;
  options.data_name = file.stem().string() + ".data";
  const bool one = graph.weight_bytes() <= kOneFile;
  if (one) options.inline_below = 2 * kOneFile;
  Meter meter("writing " + file.filename().string(), request.live);
  options.progress = std::ref(meter);
  write_onnx(graph, file, options);
  Written written{{file.filename().string(), fs::file_size(file)}};
  if (!one) written.emplace_back(options.data_name, fs::file_size(file.parent_path() / options.data_name));
  return written;
}

void copy_in(const fs::path& from, const fs::path& to, Written& written) {
  std::error_code error;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (error) throw Error(ErrorCode::resource, "cannot be written: " + error.message(), to.string(), "is the disk full?");
  const std::string name = to.filename().string();
  std::erase_if(written, [&](const auto& file) { return file.first == name; });
  written.emplace_back(name, fs::file_size(to));
}

/// They go along as they are.
void copy_companions(const fs::path& from, const fs::path& to, Result& result) {
  for (const char* name : kCompanions) {
    std::error_code error;
    if (fs::is_regular_file(from / name, error) && fs::file_size(from / name, error) <= kLongestCompanion)
      copy_in(from / name, to / name, result.files);
  }
}

Result write_folder(const Request& request, const ImportedModel& model, const std::string& from_format) {
  check_folder(request.to, request.force);
  hear_signals();
  FolderAside folder(request.to);
  Result result;
  result.tokenizer = model.tokenizer != nullptr;
  if (request.format == "onnx") {
    result.files = write_onnx_at(request, model.graph, folder.path() / "model.onnx", folder.path());
    if (model.tokenizer) {
      const std::string text = model.tokenizer->json();
      FileAside file(folder.path() / "tokenizer.json");
      file.write(std::as_bytes(std::span(text)));
      file.finish();
      file.commit();
      result.files.emplace_back("tokenizer.json", text.size());
    }
  } else {
    Meter meter("writing " + request.to.filename().string(), request.live);
    HuggingfaceFiles files =
        write_huggingface(model.graph, model.tokenizer.get(), folder.path(), {request.dtype, request.max_shard, std::ref(meter)});
    result.files = std::move(files.written);
    result.family = files.family;
    result.dtype = files.dtype;
    if (from_format == "huggingface") copy_companions(request.from, folder.path(), result);
  }
  check_stopped();
  folder.commit();
  return result;
}

Written write_through(const FileWriter& writer, const Request& request, Graph graph) {
  set_type(request, graph, request.to.parent_path());
  Meter meter("writing " + request.to.filename().string(), request.live);
  writer.write(graph, request.to, std::ref(meter));
  return {{request.to.filename().string(), fs::file_size(request.to)}};
}

Result write_file(const Request& request, const ImportedModel& model, const FileWriter* writer) {
  const bool onnx = writer == nullptr;
  check_file(request.to, request.force);
  if (onnx) check_file(request.to.parent_path() / (request.to.stem().string() + ".data"), request.force);
  std::error_code error;
  fs::create_directories(request.to.parent_path(), error);
  if (error) throw Error(ErrorCode::resource, "the folder cannot be made: " + error.message(), request.to.parent_path().string());
  hear_signals();
  return {onnx ? write_onnx_at(request, model.graph, request.to, request.to.parent_path())
               : write_through(*writer, request, model.graph),
          {},
          {},
          false};
}

void print_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(ErrorCode::resource, "the result cannot be written to stdout");
}

/// Where weights that have no room in memory lie for a while: beside what is written, the disk that needs the room anyway.
fs::path scratch_of(const Request& request) {
  fs::path folder = request.to.parent_path();
  std::error_code error;
  while (!fs::is_directory(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  return folder;
}

void tell_json(const Request& request, const std::string& from_format, const Result& result, std::int64_t parameters,
               std::uint64_t bytes, const Json& cut) {
  Json files = Json::array();
  for (const auto& [name, size] : result.files) files.push_back({{"name", name}, {"bytes", size}});
  Json answer = {{"schema", 1},
                 {"ok", true},
                 {"from", {{"path", request.from.string()}, {"format", from_format}}},
                 {"to", {{"path", request.to.string()}, {"format", request.format}}},
                 {"model_type", result.family.empty() ? Json() : Json(result.family)},
                 {"dtype", result.dtype.empty() ? Json() : Json(result.dtype)},
                 {"parameters", parameters},
                 {"size_bytes", bytes},
                 {"tokenizer", result.tokenizer},
                 {"files", std::move(files)}};
  if (request.cut) answer["cut"] = cut;
  print_answer(answer);
}

void convert(const Request& request) {
  std::string from_format;
  const TensorStore store = spill_into(scratch_of(request));
  ImportedModel model = read_model_and_tokenizer(request.from, &from_format, store);
  Json cut;
  if (request.cut) model.graph = cut_by_magnitude(std::move(model.graph), *request.cut, store, check_stopped, cut);
  const FileWriter* writer = find_file_writer(request.format);
  const bool file = writer || (request.format == "onnx" && request.to.extension() == ".onnx");
  const Result result = file ? write_file(request, model, writer) : write_folder(request, model, from_format);
  std::uint64_t bytes = 0;
  for (const auto& [name, size] : result.files) bytes += size;
  const std::int64_t parameters = model.graph.parameter_count();
  if (request.json) return tell_json(request, from_format, result, parameters, bytes, cut);
  const std::string kind = writer                  ? writer->said
                           : result.family.empty() ? "ONNX"
                                                   : fmt::format("{}, {}", result.family, result.dtype);
  std::string text = fmt::format("{}: {}, {} parameters, {} bytes\n", request.to.string(), kind, parameters, bytes);
  if (request.cut)
    text += fmt::format("  {:.2f} % of {} parameters in {} groups are gone; there were {} in all\n",
                        100 * cut["sparsity"].get<double>(), cut["in_scope"].get<std::int64_t>(), cut["groups"].size(),
                        cut["parameters_before"].get<std::int64_t>());
  for (const auto& [name, size] : result.files) text += fmt::format("  {:<40} {:>14}\n", name, size);
  print_out(text);
  if (request.quiet) return;
  if (request.cut)
    for (const Json& warning : cut["warnings"]) fmt::print(stderr, "espalier: {}\n", warning.get<std::string>());
  if (!file && !result.tokenizer) fmt::print(stderr, "espalier: the model came without a tokenizer; the folder has none\n");
}

int model_convert(int argc, char** argv) {
  const Request request(tool_request(argc, argv));
  try {
    convert(request);
    return 0;
  } catch (const Error& error) {
    if (request.json) {
      const Json body = {
          {"code", to_string(error.code())}, {"message", error.message()}, {"where", error.where()}, {"hint", error.hint()}};
      print_answer({{"schema", 1}, {"ok", false}, {"error", body}});
    }
    if (error.code() != ErrorCode::cancelled || stopped == 0) throw;
    fmt::print(stderr, "espalier: {}\n", error.message());
    return 128 + static_cast<int>(stopped);
  }
}

const RegisterTool tool{"model-convert", model_convert};

}  // namespace
}  // namespace espalier
