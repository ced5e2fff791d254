// link: openvino
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <openvino/op/assign.hpp>
#include <openvino/op/broadcast.hpp>
#include <openvino/op/concat.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/gather.hpp>
#include <openvino/op/is_nan.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/read_value.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/result.hpp>
#include <openvino/op/scaled_dot_product_attention.hpp>
#include <openvino/op/select.hpp>
#include <openvino/op/tile.hpp>
#include <openvino/op/unsqueeze.hpp>
#include <openvino/op/util/variable.hpp>
#include <openvino/openvino.hpp>

#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "formats/package.h"
#include "graph/causal.h"
#include "run/runtime.h"
#include "run/token_limits.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

namespace op = ov::op;
constexpr std::string_view kPast = "past_key_values.", kPresent = "present.";

/// What a package remembers of its stage's parameters.
struct Settings {
  std::string precision = "f32";     ///< f32 | bf16 | default
  bool dynamic_quantization = true;  ///< 8-bit activations in front of 8-bit and 4-bit weights
  std::int64_t positions = 0;        ///< tokens that fit; 0: unknown
};

ov::AnyMap configuration(const Settings& settings, int threads) {
  ov::AnyMap config{ov::inference_num_threads(threads), ov::num_streams(1),
                    ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY), ov::hint::enable_hyper_threading(true),
                    ov::hint::enable_cpu_pinning(false)};
  if (settings.precision == "f32" || settings.precision == "bf16") {
    const ov::element::Type type = settings.precision == "f32" ? ov::element::f32 : ov::element::bf16;
    config.insert(ov::hint::inference_precision(type));
    config.insert(ov::hint::kv_cache_precision(type));  // by itself OpenVINO keeps the cache in 8 bits
  }
  if (!settings.dynamic_quantization) config.insert(ov::hint::dynamic_quantization_group_size(0));
  return config;
}

template <class T>
std::shared_ptr<op::v0::Constant> integers(const std::vector<T>& values, bool scalar = false) {
  return op::v0::Constant::create(ov::element::i64, scalar ? ov::Shape{} : ov::Shape{values.size()}, values);
}

std::shared_ptr<ov::Node> source(const std::shared_ptr<ov::Node>& node, std::size_t input) {
  return node->input_value(input).get_node_shared_ptr();
}

/// The cache inside the model: each past_key_values.N input becomes a variable that starts empty, each present.N output its next
/// value, so that nothing is handed over between calls. Batch is 1. Returns the number of variables.
std::size_t keep_cache_inside(ov::Model& model, const std::string& where) {
  std::map<std::string, ov::PartialShape> shapes;
  for (const auto& input : model.inputs()) {
    ov::PartialShape shape = input.get_partial_shape();
    if (shape.rank().is_dynamic() || shape.size() == 0)
      throw_invalid("input \"" + input.get_any_name() + "\" has no known rank", where);
    shape[0] = 1;
    shapes[input.get_any_name()] = shape;
  }
  model.reshape(shapes);

  std::size_t count = 0;
  const ov::ParameterVector parameters = model.get_parameters();
  for (const auto& parameter : parameters) {
    const std::string past = parameter->output(0).get_any_name();
    if (!past.starts_with(kPast)) continue;
    const std::string present = std::string(kPresent) + past.substr(kPast.size());
    const ov::ResultVector results = model.get_results();
    const auto result =
        std::find_if(results.begin(), results.end(), [&](const auto& r) { return r->output(0).get_names().contains(present); });
    const ov::PartialShape shape = parameter->get_partial_shape();
    if (result == results.end()) throw_invalid("input \"" + past + "\" has no output \"" + present + "\"", where);
    if (shape.size() != 4 || shape[1].is_dynamic() || shape[2].is_static() || shape[3].is_dynamic())
      throw_invalid("\"" + past + "\" is not [batch, heads, past, head size] with fixed heads", where);

    ov::Shape empty = {1, static_cast<std::size_t>(shape[1].get_length()), 0, static_cast<std::size_t>(shape[3].get_length())};
    const auto variable = std::make_shared<op::util::Variable>(op::util::VariableInfo{shape, parameter->get_element_type(), past});
    const auto start = std::make_shared<op::v0::Constant>(ov::Tensor(parameter->get_element_type(), empty));
    const auto read = std::make_shared<op::v6::ReadValue>(start, variable);
    const auto write = std::make_shared<op::v6::Assign>((*result)->input_value(0), variable);
    parameter->output(0).replace(read->output(0));
    model.add_variables({variable});
    model.add_sinks({write});
    model.remove_result(*result);
    model.remove_parameter(parameter);
    ++count;
  }
  return count;
}

/// The Concat(variable, new) that an attention's keys or values come from, possibly through the repetition of each head for the
/// query heads that share it (Unsqueeze on axis 2, Tile or Broadcast, Reshape); nullptr when it looks otherwise.
std::shared_ptr<op::v0::Concat> cache_behind(const ov::Output<ov::Node>& value) {
  std::shared_ptr<ov::Node> node = value.get_node_shared_ptr();
  if (ov::is_type<op::v1::Reshape>(node)) {
    node = source(node, 0);
    if (!ov::is_type<op::v0::Tile>(node) && !ov::is_type<op::v3::Broadcast>(node)) return nullptr;
    const auto unsqueeze = ov::as_type_ptr<op::v0::Unsqueeze>(source(node, 0));
    if (!unsqueeze) return nullptr;
    const auto axis = ov::as_type_ptr<op::v0::Constant>(source(unsqueeze, 1));
    if (!axis || axis->cast_vector<std::int64_t>() != std::vector<std::int64_t>{2}) return nullptr;
    node = source(unsqueeze, 0);
  }
  const auto concat = ov::as_type_ptr<op::v0::Concat>(node);
  const bool whole = concat && concat->get_input_size() == 2 && (concat->get_axis() == 2 || concat->get_axis() == -2);
  return whole && ov::is_type<op::v6::ReadValue>(source(concat, 0)) ? concat : nullptr;
}

/// Writes every attention over the cache in the form that OpenVINO's CPU plugin runs as one kernel which appends to the cache in
/// place and reads shared heads where they lie: variable → Gather(beam) → Concat → Unsqueeze → Broadcast → Reshape → attention.
/// What the front end makes otherwise is a copy of the whole cache and its repetition in every step. The guard against rows without
/// any key is dropped: a token always sees itself, for the mask that is fed holds ones only. Attention of another form stays as it
/// is.
void fuse_attention(ov::Model& model) {
  std::shared_ptr<op::v0::Parameter> beam;
  for (const auto& node : model.get_ordered_ops()) {
    const auto attention = ov::as_type_ptr<op::v13::ScaledDotProductAttention>(node);
    if (!attention || attention->get_causal()) continue;
    const auto key = cache_behind(attention->input_value(1)), value = cache_behind(attention->input_value(2));
    const ov::PartialShape query = attention->get_input_partial_shape(0);
    if (!key || !value || query.size() != 4 || query[1].is_dynamic()) continue;
    const std::int64_t heads = query[1].get_length();

    if (!beam) {
      beam = std::make_shared<op::v0::Parameter>(ov::element::i32, ov::PartialShape{-1});
      beam->output(0).set_names({"beam_idx"});
      model.add_parameters({beam});
    }
    const auto repeated = [&](const std::shared_ptr<op::v0::Concat>& cache) -> ov::Output<ov::Node> {
      const std::int64_t own = cache->get_output_partial_shape(0)[1].get_length(),
                         size = cache->get_output_partial_shape(0)[3].get_length();
      cache->input(0).replace_source_output(
          std::make_shared<op::v8::Gather>(cache->input_value(0), beam, integers<std::int64_t>({0}, true)));
      if (own == heads) return cache->output(0);
      const auto apart = std::make_shared<op::v0::Unsqueeze>(cache, integers<std::int64_t>({2}));
      const auto copies = std::make_shared<op::v3::Broadcast>(apart, integers<std::int64_t>({1, 1, heads / own, 1, 1}),
                                                              op::BroadcastType::BIDIRECTIONAL);
      return std::make_shared<op::v1::Reshape>(copies, integers<std::int64_t>({0, heads, -1, size}), true)->output(0);
    };
    ov::OutputVector inputs = attention->input_values();
    inputs[1] = repeated(key);
    inputs[2] = repeated(value);
    const auto fused = std::make_shared<op::v13::ScaledDotProductAttention>(inputs, false);
    fused->set_friendly_name(attention->get_friendly_name());
    for (const auto& reader : attention->output(0).get_target_inputs()) {
      const auto select = ov::as_type_ptr<op::v1::Select>(reader.get_node()->shared_from_this());
      const bool guard = select && reader.get_index() == 2 && ov::is_type<op::v10::IsNaN>(source(select, 0)) &&
                         source(source(select, 0), 0) == attention;
      if (guard) select->output(0).replace(fused->output(0));
    }
    attention->output(0).replace(fused->output(0));
  }
  model.validate_nodes_and_infer_types();
}

/// Only the last position goes into the head: a Gather in front of the product that makes the logits.
void keep_last_position(ov::Model& model) {
  const auto result = model.output("logits").get_node_shared_ptr();
  std::shared_ptr<ov::Node> reader = result, node = source(result, 0);
  // Through what works on every position by itself.
  while (!ov::is_type<op::v0::MatMul>(node) && node->get_input_size() >= 1 && node->get_output_target_inputs(0).size() == 1 &&
         (std::string_view(node->get_type_name()) == "Convert" || std::string_view(node->get_type_name()) == "Multiply")) {
    reader = node;
    node = source(node, 0);
  }
  const bool head = ov::is_type<op::v0::MatMul>(node) && node->get_input_partial_shape(0).size() == 3 &&
                    node->get_input_partial_shape(1).size() == 2;
  ov::Input<ov::Node> place = head ? node->input(0) : result->input(0);
  place.replace_source_output(
      std::make_shared<op::v8::Gather>(place.get_source_output(), integers<std::int64_t>({-1}), integers<std::int64_t>({1}, true)));
  model.validate_nodes_and_infer_types();
}

/// A causal language model under OpenVINO, its cache in the request's variables. Batch 1.
class OpenVinoModel final : public LanguageModel {
 public:
  OpenVinoModel(const std::filesystem::path& file, const Settings& settings, const OpenOptions& options)
      : where_(file.string()), positions_(settings.positions), last_only_(options.last_only) {
    std::shared_ptr<ov::Model> model = core_.read_model(file);
    if (keep_cache_inside(*model, where_) == 0)
      throw_unsupported("this model has no past_key_values inputs", where_, "make the package again with backend/openvino");
    fuse_attention(*model);
    if (last_only_) keep_last_position(*model);
    compiled_ = core_.compile_model(model, "CPU", configuration(settings, options.threads));
    model.reset();
    for (const auto& input : compiled_.inputs()) beams_ = beams_ || input.get_names().contains("beam_idx");
    const ov::PartialShape logits = compiled_.output("logits").get_partial_shape();
    if (logits.size() != 3 || logits[2].is_dynamic()) throw_invalid("logits is not [batch, sequence, vocabulary]", where_);
    vocabulary_ = logits[2].get_length();
    request_ = compiled_.create_infer_request();
    if (beams_) {
      ov::Tensor beam(ov::element::i32, {1});
      beam.data<std::int32_t>()[0] = 0;
      request_.set_tensor("beam_idx", beam);
    }
  }

  void reset() override {
    request_.reset_state();
    position_ = 0;
  }

  std::int64_t position() const override { return position_; }

  at::Tensor feed(std::span<const std::int64_t> tokens, bool all) override {
    const auto count = static_cast<std::int64_t>(tokens.size());
    TokenLimits{where_, vocabulary_, positions_, last_only_}.check(tokens, all, position_);
    const std::int64_t total = position_ + count;

    const auto n = static_cast<std::size_t>(count);
    ov::Tensor ids(ov::element::i64, {1, n}), positions(ov::element::i64, {1, n}),
        mask(ov::element::i64, {1, static_cast<std::size_t>(total)});
    std::copy(tokens.begin(), tokens.end(), ids.data<std::int64_t>());
    for (std::int64_t i = 0; i < count; ++i) positions.data<std::int64_t>()[i] = position_ + i;
    std::fill_n(mask.data<std::int64_t>(), total, 1);
    for (const auto& input : compiled_.inputs()) {
      const auto& names = input.get_names();
      if (names.contains("input_ids"))
        request_.set_tensor(input, ids);
      else if (names.contains("attention_mask"))
        request_.set_tensor(input, mask);
      else if (names.contains("position_ids"))
        request_.set_tensor(input, positions);
    }
    request_.infer();
    position_ = total;

    const ov::Tensor logits = request_.get_tensor("logits");
    const std::size_t rows = logits.get_shape()[1], kept = all ? rows : 1, width = static_cast<std::size_t>(vocabulary_);
    if (rows != (last_only_ ? 1 : n))
      throw Error(ErrorCode::internal, fmt::format("{} rows of logits for {} tokens", rows, n), where_);
    at::Tensor result = at::empty({static_cast<std::int64_t>(kept), vocabulary_}, at::kFloat);
    std::memcpy(result.mutable_data_ptr(), logits.data<float>() + (rows - kept) * width, kept * width * sizeof(float));
    return result;
  }

 private:
  std::string where_;
  ov::Core core_;
  ov::CompiledModel compiled_;
  ov::InferRequest request_;
  std::int64_t positions_ = 0, position_ = 0, vocabulary_ = 0;
  bool last_only_ = false, beams_ = false;
};

at::ScalarType own_type(const ov::element::Type& type, const std::string& name, const std::string& where) {
  static const std::vector<std::pair<ov::element::Type, at::ScalarType>> types{
      {ov::element::f32, at::kFloat},     {ov::element::f64, at::kDouble}, {ov::element::f16, at::kHalf},
      {ov::element::bf16, at::kBFloat16}, {ov::element::i64, at::kLong},   {ov::element::i32, at::kInt},
      {ov::element::i8, at::kChar},       {ov::element::u8, at::kByte},    {ov::element::boolean, at::kBool}};
  for (const auto& [known, own] : types)
    if (known == type) return own;
  throw_unsupported("\"" + name + "\" has type " + type.get_type_name() + ", which is not handed over", where);
}

/// Any graph: tensors in, tensors out, by the names of the file.
class OpenVinoGraph final : public DeployedModel {
 public:
  OpenVinoGraph(const std::filesystem::path& file, const Settings& settings, const OpenOptions& options) : where_(file.string()) {
    const std::shared_ptr<ov::Model> model = core_.read_model(file);
    compiled_ = core_.compile_model(model, "CPU", configuration(settings, options.threads));
    request_ = compiled_.create_infer_request();
    // The file's names in the file's order; the compiled model may add others to the same port.
    for (const auto& input : model->inputs()) inputs_.push_back(input.get_any_name());
    for (const auto& output : model->outputs()) outputs_.push_back(output.get_any_name());
  }

  std::vector<std::string> inputs() const override { return inputs_; }
  std::vector<std::string> outputs() const override { return outputs_; }

  TensorMap run(const TensorMap& given) override {
    std::vector<at::Tensor> kept;  // what the runtime's tensors look at
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const auto found = given.find(inputs_[i]);
      if (found == given.end()) throw_invalid("input \"" + inputs_[i] + "\" is missing", where_, "the model wants all its inputs");
      const auto port = compiled_.input(i);
      const ov::Shape shape(found->second.sizes().begin(), found->second.sizes().end());
      if (!port.get_partial_shape().compatible(ov::PartialShape(shape)))
        throw_invalid(fmt::format("input \"{}\" has shape {}, the model wants {}", inputs_[i], ov::PartialShape(shape).to_string(),
                                  port.get_partial_shape().to_string()),
                      where_, "? stands for any length");
      kept.push_back(found->second.to(own_type(port.get_element_type(), inputs_[i], where_)).contiguous());
      request_.set_input_tensor(i, ov::Tensor(port.get_element_type(), shape, kept.back().mutable_data_ptr()));
    }
    try {
      request_.infer();
    } catch (const ov::Exception& error) {
      throw Error(ErrorCode::failed, std::string("OpenVINO stopped: ") + error.what(), where_);
    }
    TensorMap made;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const ov::Tensor result = request_.get_output_tensor(i);
      const ov::Shape lengths = result.get_shape();
      const std::vector<std::int64_t> shape(lengths.begin(), lengths.end());
      const at::Tensor tensor = at::empty(shape, own_type(result.get_element_type(), outputs_[i], where_));
      std::memcpy(tensor.mutable_data_ptr(), result.data(), tensor.nbytes());
      made[outputs_[i]] = tensor.is_floating_point() ? tensor.to(at::kFloat) : tensor;
    }
    return made;
  }

 private:
  std::string where_;
  ov::Core core_;
  ov::CompiledModel compiled_;
  ov::InferRequest request_;
  std::vector<std::string> inputs_, outputs_;
};

/// `work` with OpenVINO's own exceptions turned into the project's.
template <class Work>
auto guarded(const std::filesystem::path& file, Work work) {
  try {
    return work();
  } catch (const ov::Exception& error) {
    throw Error(ErrorCode::failed, std::string("OpenVINO refuses the model: ") + error.what(), file.string());
  }
}

class OpenVino final : public Component, public Runtime {
 public:
  void run(Context& context) override {
    const Artifact& input = context.input("model");
    Graph graph = load_model(context, input);
    const bool language = is_causal_lm(graph);
    if (language && !has_past_inputs(graph)) graph = with_kv_cache(graph);
    Settings settings;
    settings.precision = context.params().text("precision_hint");
    settings.dynamic_quantization = context.params().flag("dynamic_quantization");
    settings.positions = language ? position_limit(graph) : 0;

    const std::filesystem::path folder = context.scratch(), file = folder / "model.onnx";
    context.progress({0, 2, "writing the package", {}});
    write_onnx(graph, file);
    context.check_cancelled();
    // A package that cannot be opened is found here, not on the device that it is shipped to.
    context.progress({1, 2, "compiling it once", {}});
    guarded(file, [&] {
      if (language) {
        OpenVinoModel(file, settings, {context.threads(), true});
      } else {
        ov::Core core;
        core.compile_model(file, "CPU", configuration(settings, context.threads()));
      }
    });

    PackageSpec spec;
    spec.backend = "backend/openvino";
    spec.runtime = fmt::format("openvino {}", ov::get_openvino_version().buildNumber);
    spec.files["model.onnx"] = file;
    if (std::filesystem::exists(folder / "model.data")) spec.files["model.data"] = folder / "model.data";
    spec.options = {{"precision_hint", settings.precision}, {"dynamic_quantization", settings.dynamic_quantization}};
    if (settings.positions > 0) spec.options["positions"] = settings.positions;
    const Artifact package = save_package(context, graph, input, spec);
    context.figure("size_bytes", package.meta.at("size_bytes").get<double>());
    context.output("package", package);
    context.progress({2, 2, "compiling it once", {}});
  }

  std::unique_ptr<LanguageModel> open_language_model(const std::filesystem::path& package, const OpenOptions& options) override {
    const Settings settings = kept_settings(package);
    const std::filesystem::path file = package / "model.onnx";
    return guarded(file, [&] { return std::make_unique<OpenVinoModel>(file, settings, options); });
  }

  std::unique_ptr<DeployedModel> open_model(const std::filesystem::path& package, const OpenOptions& options) override {
    const Settings settings = kept_settings(package);
    const std::filesystem::path file = package / "model.onnx";
    return guarded(file, [&] { return std::make_unique<OpenVinoGraph>(file, settings, options); });
  }

  void* interface(std::string_view id) override { return id == Runtime::interface_id ? static_cast<Runtime*>(this) : nullptr; }

 private:
  /// What run() wrote into package.json.
  static Settings kept_settings(const std::filesystem::path& package) {
    const Json description = read_package(package, false);
    Settings settings;
    try {
      const Json& kept = description.at("options");
      settings.precision = kept.at("precision_hint").get<std::string>();
      settings.dynamic_quantization = kept.at("dynamic_quantization").get<bool>();
      settings.positions = kept.value("positions", std::int64_t{0});
    } catch (const Json::exception& error) {
      throw_invalid(std::string("package.json has no usable options: ") + error.what(), package.string(), "make the package again");
    }
    if (settings.precision != "f32" && settings.precision != "bf16" && settings.precision != "default")
      throw_invalid("package.json asks for an unknown precision_hint", package.string(), "f32, bf16 and default are known");
    return settings;
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "openvino", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Packages for OpenVINO's CPU runtime",
  "components": [ {
    "name": "backend/openvino", "version": "0.1.0",
    "summary": "package a model for OpenVINO, with a KV cache for causal language models, and prove that it loads",
    "inputs": [ {"name": "model", "type": "model", "required": true, "many": false, "help": "the model to package"} ],
    "outputs": [ {"name": "package", "type": "package", "help": "model.onnx, model.data, tokenizer.json, package.json"} ],
    "parameters": [
      {"name": "precision_hint", "type": "string", "default": "f32", "choices": ["f32", "bf16", "default"], "help": "type to compute in; default: OpenVINO chooses by the processor"},
      {"name": "dynamic_quantization", "type": "boolean", "default": true, "help": "8-bit activations, made on the fly, in front of quantized weights (faster prompts); no effect on others"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": ["openvino"]},
    "byte_exact": true, "exclusive": false,
    "estimate": {"memory": "max(1.21e8 + 2 * model.bytes, 3.05 * model.bytes)",
                 "seconds": "if(model.language, 0.9, 0.1) + model.bytes / 2.2e8",
                 "outputs": {"package": {"open_bytes": "2.5e7 + 2.08 * model.bytes"}},
                 "memory_base": 1.5e8, "memory_per_byte": 3, "output_per_byte": 1.05}
  } ] })json",
                ESPALIER_COMPONENT("backend/openvino", OpenVino));

}  // namespace espalier
