// link: onnxruntime
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstring>

#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "formats/package.h"
#include "graph/causal.h"
#include "graph/onnxruntime_kernels.h"
#include "run/runtime.h"
#include "run/token_limits.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

constexpr std::string_view kPast = "past_key_values.", kPresent = "present.";
constexpr const char *kWhole = "model.onnx", *kLast = "last_position.onnx", *kData = "model.data";

/// `work` with ONNX Runtime's own exceptions turned into the project's; its messages name the node.
template <class Work>
auto guarded(const std::string& where, Work work) {
  try {
    return work();
  } catch (const Ort::Exception& error) {
    throw Error(ErrorCode::failed, std::string("ONNX Runtime refuses the model: ") + error.what(), where);
  }
}

const Ort::Env& environment() {
  static const Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "espalier");
  return env;
}

Ort::Session open_session(const std::filesystem::path& file, int threads) {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(threads);
  options.SetInterOpNumThreads(1);
  options.SetExecutionMode(ORT_SEQUENTIAL);
  options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
  return guarded(file.string(), [&] { return Ort::Session(environment(), file.c_str(), options); });
}

const Ort::MemoryInfo& on_cpu() {
  static const Ort::MemoryInfo info = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  return info;
}

struct TypePair {
  ONNXTensorElementDataType runtime;
  at::ScalarType own;
};
constexpr TypePair kTypes[] = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, at::kFloat},  {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, at::kDouble},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, at::kHalf}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, at::kBFloat16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, at::kLong},   {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, at::kInt},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, at::kChar},    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, at::kByte},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, at::kBool}};

at::ScalarType own_type(ONNXTensorElementDataType type, const std::string& name, const std::string& where) {
  for (const auto& pair : kTypes)
    if (pair.runtime == type) return pair.own;
  throw_unsupported(fmt::format("\"{}\" has a type that is not handed over (ONNX type {})", name, static_cast<int>(type)), where);
}

/// A view of a contiguous tensor; valid while the tensor lives.
Ort::Value view(const at::Tensor& tensor, ONNXTensorElementDataType type) {
  const auto shape = tensor.sizes();
  return Ort::Value::CreateTensor(on_cpu(), tensor.mutable_data_ptr(), tensor.nbytes(), shape.data(), shape.size(), type);
}

/// A causal language model with its cache. Batch 1. Where the package allows it, past and present are one buffer, which the
/// attention appends to; otherwise each present becomes the next past.
class OrtLanguageModel final : public LanguageModel {
 public:
  OrtLanguageModel(const std::filesystem::path& file, const Json& options, const OpenOptions& open)
      : where_(file.string()),
        shared_(options.at("shared_cache").get<bool>()),
        last_only_(open.last_only),
        positions_(options.value("positions", std::int64_t{0})),
        session_(open_session(file, open.threads)) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (std::size_t i = 0; i < session_.GetInputCount(); ++i) {
      std::string name = session_.GetInputNameAllocated(i, allocator).get();
      const auto shape = session_.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape();
      if (name.starts_with(kPast)) {
        if (shape.size() != 4 || shape[1] <= 0 || shape[3] <= 0)
          throw_invalid("\"" + name + "\" is not [batch, heads, past, head size] with fixed heads", where_);
        cache_.push_back({name, std::string(kPresent) + name.substr(kPast.size()), shape[1], shape[3], {}});
      } else {
        plain_.push_back(std::move(name));
      }
    }
    if (cache_.empty())
      throw_unsupported("this model has no past_key_values inputs", where_, "make the package again with backend/onnxruntime");
    vocabulary_ = 0;
    for (std::size_t i = 0; i < session_.GetOutputCount(); ++i) {
      const auto shape = session_.GetOutputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape();
      if (std::string_view(session_.GetOutputNameAllocated(i, allocator).get()) == "logits" && shape.size() == 3)
        vocabulary_ = shape[2];
    }
    if (vocabulary_ <= 0) throw_invalid("logits is not [batch, sequence, vocabulary]", where_);
    reset();
  }

  void reset() override {
    position_ = 0;
    if (shared_) return;  // what lies behind the position is never read
    for (Cache& cache : cache_) cache.buffer = at::empty({1, cache.heads, 0, cache.size}, at::kFloat);
  }

  std::int64_t position() const override { return position_; }

  at::Tensor feed(std::span<const std::int64_t> tokens, bool all) override {
    const auto count = static_cast<std::int64_t>(tokens.size()), total = position_ + count;
    TokenLimits{where_, vocabulary_, positions_, last_only_}.check(tokens, all, position_);
    if (shared_) make_room(total);
    at::Tensor ids = at::empty({1, count}, at::kLong), positions = at::empty({1, count}, at::kLong),
               mask = at::empty({1, total}, at::kLong);
    std::copy(tokens.begin(), tokens.end(), ids.mutable_data_ptr<std::int64_t>());
    for (std::int64_t i = 0; i < count; ++i) positions.mutable_data_ptr<std::int64_t>()[i] = position_ + i;
    std::fill_n(mask.mutable_data_ptr<std::int64_t>(), total, 1);

    return guarded(where_, [&] {
      Ort::IoBinding binding(session_);
      constexpr auto i64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, f32 = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      for (const std::string& name : plain_) {
        const at::Tensor* tensor = name == "input_ids"        ? &ids
                                   : name == "attention_mask" ? &mask
                                   : name == "position_ids"   ? &positions
                                                              : nullptr;
        if (!tensor) throw_unsupported("a language model's input \"" + name + "\" is not known", where_);
        binding.BindInput(name.c_str(), view(*tensor, i64));
      }
      const std::int64_t rows = last_only_ ? 1 : count;
      at::Tensor logits = at::empty({1, rows, vocabulary_}, at::kFloat);
      binding.BindOutput("logits", view(logits, f32));
      for (Cache& cache : cache_) {
        binding.BindInput(cache.past.c_str(), view(cache.buffer, f32));
        if (!shared_) cache.next = at::empty({1, cache.heads, total, cache.size}, at::kFloat);
        binding.BindOutput(cache.present.c_str(), view(shared_ ? cache.buffer : cache.next, f32));
      }
      session_.Run(Ort::RunOptions{nullptr}, binding);
      position_ = total;
      if (!shared_)
        for (Cache& cache : cache_) cache.buffer = std::move(cache.next);
      return logits[0].narrow(0, all ? 0 : rows - 1, all ? rows : 1);
    });
  }

 private:
  struct Cache {
    std::string past, present;
    std::int64_t heads, size;
    at::Tensor buffer, next = {};
  };

  /// Buffers of at least `total` positions; what is cached moves over.
  void make_room(std::int64_t total) {
    if (total <= capacity_) return;
    capacity_ = std::max({total, 2 * capacity_, std::int64_t{256}});
    if (positions_ > 0) capacity_ = std::min(capacity_, positions_);
    for (Cache& cache : cache_) {
      const at::Tensor wider = at::empty({1, cache.heads, capacity_, cache.size}, at::kFloat);
      if (position_ > 0) wider.narrow(2, 0, position_).copy_(cache.buffer.narrow(2, 0, position_));
      cache.buffer = wider;
    }
  }

  std::string where_;
  bool shared_, last_only_;
  std::int64_t positions_, position_ = 0, vocabulary_ = 0, capacity_ = 0;
  Ort::Session session_;
  std::vector<std::string> plain_;
  std::vector<Cache> cache_;
};

/// Any graph: tensors in, tensors out.
class OrtModel final : public DeployedModel {
 public:
  OrtModel(const std::filesystem::path& file, int threads) : where_(file.string()), session_(open_session(file, threads)) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (std::size_t i = 0; i < session_.GetInputCount(); ++i) {
      inputs_.push_back(session_.GetInputNameAllocated(i, allocator).get());
      const auto info = session_.GetInputTypeInfo(i);
      shapes_.push_back(info.GetTensorTypeAndShapeInfo().GetShape());
      types_.push_back(info.GetTensorTypeAndShapeInfo().GetElementType());
    }
    for (std::size_t i = 0; i < session_.GetOutputCount(); ++i)
      outputs_.push_back(session_.GetOutputNameAllocated(i, allocator).get());
  }

  std::vector<std::string> inputs() const override { return inputs_; }
  std::vector<std::string> outputs() const override { return outputs_; }

  TensorMap run(const TensorMap& given) override {
    std::vector<at::Tensor> kept;  // what the views look at
    std::vector<Ort::Value> values;
    std::vector<const char*> names, wanted;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const auto found = given.find(inputs_[i]);
      if (found == given.end()) throw_invalid("input \"" + inputs_[i] + "\" is missing", where_, "the model wants all its inputs");
      const auto sizes = found->second.sizes();
      bool fits = sizes.size() == shapes_[i].size();
      for (std::size_t d = 0; fits && d < sizes.size(); ++d) fits = shapes_[i][d] < 0 || shapes_[i][d] == sizes[d];
      if (!fits)
        throw_invalid(fmt::format("input \"{}\" has shape [{}], the model wants [{}]", inputs_[i], fmt::join(sizes, ", "),
                                  fmt::join(shapes_[i], ", ")),
                      where_, "-1 stands for any length");
      kept.push_back(found->second.to(own_type(types_[i], inputs_[i], where_)).contiguous());
      values.push_back(view(kept.back(), types_[i]));
      names.push_back(inputs_[i].c_str());
    }
    for (const std::string& name : outputs_) wanted.push_back(name.c_str());
    return guarded(where_, [&] {
      const auto results =
          session_.Run(Ort::RunOptions{nullptr}, names.data(), values.data(), values.size(), wanted.data(), wanted.size());
      TensorMap made;
      for (std::size_t i = 0; i < results.size(); ++i) {
        const auto info = results[i].GetTensorTypeAndShapeInfo();
        const at::Tensor tensor = at::empty(info.GetShape(), own_type(info.GetElementType(), outputs_[i], where_));
        std::memcpy(tensor.mutable_data_ptr(), results[i].GetTensorRawData(), tensor.nbytes());
        made[outputs_[i]] = tensor.is_floating_point() ? tensor.to(at::kFloat) : tensor;
      }
      return made;
    });
  }

 private:
  std::string where_;
  Ort::Session session_;
  std::vector<std::string> inputs_, outputs_;
  std::vector<std::vector<std::int64_t>> shapes_;
  std::vector<ONNXTensorElementDataType> types_;
};

class OnnxRuntime final : public Component, public Runtime {
 public:
  void run(Context& context) override {
    const Artifact& input = context.input("model");
    Graph graph = load_model(context, input);
    const bool language = is_causal_lm(graph), fuse = context.params().flag("kernels");
    const bool int8 = context.params().flag("dynamic_quantization");
    if (language && !has_past_inputs(graph)) graph = with_kv_cache(graph);
    const std::int64_t positions = language ? position_limit(graph) : 0;
    Graph last = language ? last_position_only(graph) : Graph{};
    OnnxRuntimeRewrite done;
    if (fuse) {
      done = use_onnxruntime_kernels(graph, int8);
      if (language) use_onnxruntime_kernels(last, int8);
    }
    report(context, done);

    const std::filesystem::path folder = context.scratch();
    context.progress({0, 2, "writing the package", {}});
    write_onnx(graph, folder / kWhole);
    PackageSpec spec;
    spec.backend = "backend/onnxruntime";
    spec.runtime = fmt::format("onnxruntime {}", Ort::GetVersionString());
    spec.files[kWhole] = folder / kWhole;
    if (std::filesystem::exists(folder / kData)) spec.files[kData] = folder / kData;
    if (language) {
      write_beside(last, folder);
      spec.files[kLast] = folder / kLast;
    }
    context.check_cancelled();

    // What ONNX Runtime has no kernel for shows when it runs, not when it loads: one token goes through here.
    context.progress({1, 2, "running it once", {}});
    spec.options = {{"kernels", fuse}, {"dynamic_quantization", int8}, {"shared_cache", done.shared_cache}};
    if (positions > 0) spec.options["positions"] = positions;
    if (language) {
      const std::int64_t token = 0;
      for (const bool only : {false, true})
        OrtLanguageModel(folder / (only ? kLast : kWhole), spec.options, {context.threads(), only}).feed({&token, 1}, false);
    } else {
      OrtModel(folder / kWhole, context.threads());
    }
    const Artifact package = save_package(context, graph, input, spec);
    context.figure("size_bytes", package.meta.at("size_bytes").get<double>());
    context.output("package", package);
    context.progress({2, 2, "running it once", {}});
  }

  std::unique_ptr<LanguageModel> open_language_model(const std::filesystem::path& package, const OpenOptions& options) override {
    const Json description = read_package(package, false);
    if (description.value("task", Json()) != "causal-lm")
      throw_unsupported("this package holds no causal language model", package.string(), "its task is written in package.json");
    const char* name = options.last_only ? kLast : kWhole;
    if (!description.at("files").contains(name))
      throw_invalid(std::string("package.json lists no ") + name, package.string(), "make the package again");
    try {
      return std::make_unique<OrtLanguageModel>(package / name, description.at("options"), options);
    } catch (const Json::exception& error) {
      throw_invalid(std::string("package.json has no usable options: ") + error.what(), package.string(), "make the package again");
    }
  }

  std::unique_ptr<DeployedModel> open_model(const std::filesystem::path& package, const OpenOptions& options) override {
    const Json description = read_package(package, false);
    if (!description.at("files").contains(kWhole))
      throw_invalid("package.json lists no model.onnx", package.string(), "make the package again");
    return std::make_unique<OrtModel>(package / kWhole, options.threads);
  }

  void* interface(std::string_view id) override { return id == Runtime::interface_id ? static_cast<Runtime*>(this) : nullptr; }

 private:
  static void report(Context& context, const OnnxRuntimeRewrite& done) {
    const Json rows = {{"GroupQueryAttention", done.attention},
                       {"SkipSimplifiedLayerNormalization", done.norms},
                       {"QuickGelu", done.silu},
                       {"MatMulNBits", done.products},
                       {"GatherBlockQuantized", done.embeddings}};
    context.detail("kernels", {{"columns", {"kernel", "nodes"}}, {"rows", rows}});
    context.figure("fused_kernels", static_cast<double>(done.attention + done.norms + done.silu + done.products + done.embeddings));
  }

  /// The variant for the last position shares the weights' file: written aside, its data must come out the same.
  static void write_beside(const Graph& last, const std::filesystem::path& folder) {
    const std::filesystem::path aside = folder / "aside";
    std::filesystem::create_directories(aside);
    write_onnx(last, aside / kLast);
    const bool own = std::filesystem::exists(folder / kData), other = std::filesystem::exists(aside / kData);
    if (own != other || (own && sha256_file(folder / kData) != sha256_file(aside / kData)))
      throw Error(ErrorCode::internal, "the last position's graph has other weights than the whole", (folder / kData).string());
    std::filesystem::rename(aside / kLast, folder / kLast);
    std::filesystem::remove_all(aside);
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "onnxruntime", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Packages for ONNX Runtime on the CPU",
  "components": [ {
    "name": "backend/onnxruntime", "version": "0.1.0",
    "summary": "package a model for ONNX Runtime's fused CPU kernels, with a KV cache for causal language models, and prove that it runs",
    "inputs": [ {"name": "model", "type": "model", "required": true, "many": false, "help": "the model to package"} ],
    "outputs": [ {"name": "package", "type": "package", "help": "model.onnx, last_position.onnx, model.data, tokenizer.json, package.json"} ],
    "parameters": [
      {"name": "kernels", "type": "boolean", "default": true, "help": "write the operators of ONNX Runtime's own domain that its kernels are fast at; without, standard ONNX that other runtimes read"},
      {"name": "dynamic_quantization", "type": "boolean", "default": true, "help": "8-bit activations, made on the fly, in front of 8-bit weights; no effect on others"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": ["onnxruntime"]},
    "byte_exact": true, "exclusive": false,
    "estimate": {"memory": "1.03e8 + if(model.language, 1.78 * model.bytes + 1.6 * model.parameters, 3.5 * model.bytes)",
                 "seconds": "if(model.language, 1.2, 0.05) + model.bytes / 2e8",
                 "outputs": {"package": {"open_bytes": "1e7 + 1.03 * model.bytes"}},
                 "memory_base": 1.5e8, "memory_per_byte": 4, "output_per_byte": 1.05}
  } ] })json",
                ESPALIER_COMPONENT("backend/onnxruntime", OnnxRuntime));

}  // namespace espalier
