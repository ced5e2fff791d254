// Storage of weights in 16 bits: the numbers lie in the file as float16 or bfloat16, a Cast makes float32 of them again, and
// everything is computed as before. Runtimes with 16-bit arithmetic may fold the Cast away.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>

#include "formats/model_artifact.h"
#include "graph/learnable.h"
#include "graph/scope.h"
#include "run/rounding_table.h"
#include "run/session.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

struct Stored {
  Tensor tensor;
  double squared_error = 0, squared = 0;
  std::int64_t saturated = 0, flushed = 0;  ///< beyond the type's largest number; not zero before, zero now
};

/// Nearest numbers of a 16-bit type, half to even.
template <class Half>
Stored stored(const std::string& name, const Tensor& weight, DType type, bool saturate) {
  const auto values = weight.as<float>();
  const auto largest = static_cast<float>(std::numeric_limits<Half>::max());
  std::vector<std::uint16_t> bits;
  bits.reserve(values.size());
  Stored out;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float w = values[i];
    if (!std::isfinite(w))
      throw_invalid(fmt::format("element {} is {}", i, w), name, "exclude the tensor, or look at how the model was trained");
    Half half(w);
    if (!std::isfinite(static_cast<float>(half))) {
      if (!saturate)
        throw_invalid(fmt::format("element {} is {}, {} ends at {}", i, w, to_string(type), largest), name,
                      type == DType::f16 ? "store this model as bf16, exclude the tensor, or say overflow = \"saturate\""
                                         : "exclude the tensor, or say overflow = \"saturate\"");
      half = Half(std::copysign(largest, w));
      ++out.saturated;
    }
    const double back = static_cast<float>(half), off = back - w;
    out.flushed += back == 0 && w != 0;
    out.squared_error += off * off;
    out.squared += static_cast<double>(w) * w;
    bits.push_back(half.x);
  }
  out.tensor = Tensor::of(type, weight.shape, bits);
  return out;
}

class Cast final : public Component {
 public:
  void run(Context& context) override {
    const auto& params = context.params();
    Graph graph = load_model(context, context.input("model"));
    const DType type = params.text("storage") == "f16" ? DType::f16 : DType::bf16;
    if (type == DType::bf16 && graph.opset() < 13)
      throw_unsupported(fmt::format("the model is of opset {}; bfloat16 needs 13", graph.opset()), "port model",
                        "export the model with a newer opset, or store f16");
    const auto chosen = choose(graph, params);
    const bool saturate = params.text("overflow") == "saturate";
    RoundingTable table;
    std::vector<Node> casts;
    std::int64_t saturated = 0, flushed = 0;
    for (const auto& name : chosen) {
      context.check_cancelled();
      context.progress({casts.size(), chosen.size(), "storing " + name, {}});
      const Tensor& weight = *graph.initializer(name);
      auto q = type == DType::f16 ? stored<c10::Half>(name, weight, type, saturate)
                                  : stored<c10::BFloat16>(name, weight, type, saturate);
      if (q.saturated > 0)
        context.log(LogLevel::warning,
                    fmt::format("{}: {} of {} elements are at the end of the type now", name, q.saturated, q.tensor.count()));
      saturated += q.saturated;
      flushed += q.flushed;
      table.add(name, {16, 0, q.tensor.count(), q.tensor.bytes.size(), q.squared_error, q.squared});
      casts.push_back(replace(graph, name, std::move(q.tensor)));
    }
    graph.nodes.insert(graph.nodes.begin(), std::make_move_iterator(casts.begin()), std::make_move_iterator(casts.end()));
    graph.sort();
    graph.validate();
    context.output("model", save_model(context, graph));
    context.detail("rounding", table.json());
    context.figure("size_bytes", static_cast<double>(graph.weight_bytes()));
    context.figure("parameters", static_cast<double>(graph.parameter_count()));
    context.figure("bits", table.bits());
    context.figure("squared_error", table.squared_error());
    context.figure("saturated", static_cast<double>(saturated));
    context.figure("flushed_to_zero", static_cast<double>(flushed));
    context.log(LogLevel::info,
                fmt::format("{} tensors stored as {}, weights are {} bytes", chosen.size(), to_string(type), graph.weight_bytes()));
  }

 private:
  /// Weights in scope: constants of the computation (rotary tables, running statistics, scales) are none.
  static std::vector<std::string> choose(const Graph& graph, const Params& params) {
    const Uses uses(graph);
    const Scope scope{params.texts("scope"), params.texts("exclude")};
    std::vector<std::string> chosen, names;
    for (const auto& name : learnable(graph)) {
      const Tensor& tensor = *graph.initializer(name);
      if (tensor.dtype != DType::f32 || tensor.count() < 2) continue;
      const auto answers = scope_names(uses, graph, name);
      names.insert(names.end(), answers.begin(), answers.end());
      if (!scope.covers(answers)) continue;
      for (const auto& reader : uses.readers_of(name))
        if (graph.nodes[reader.node].op == "QuantizeLinear" && reader.input == 0)
          throw_invalid("the weight is rounded to integers while it is trained; 16 bits would come between", name,
                        "store it as integers first (quantizer/rtn without trainable), or exclude it");
      chosen.push_back(name);
    }
    if (chosen.empty()) {
      const auto& pattern = scope.include.empty() ? std::string() : scope.include.front();
      throw_invalid(fmt::format("nothing to store: \"{}\" means no float32 weight", pattern), "parameter scope",
                    names.empty() ? "the model has none, or is stored in fewer bits already"
                                  : fmt::format("weights are in: {}", fmt::join(near_scopes(pattern, names), ", ")));
    }
    return chosen;
  }

  /// Readers go on reading the name; a Cast stands behind it now.
  static Node replace(Graph& graph, const std::string& name, Tensor tensor) {
    const auto held = graph.fresh(name + (tensor.dtype == DType::f16 ? ".f16" : ".bf16"));
    graph.initializers.erase(name);
    graph.initializers.emplace(held, std::move(tensor));
    return {"Cast", "", name + "/Cast", {held}, {name}, {{"to", static_cast<std::int64_t>(DType::f32)}}};
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "cast", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Storage of weights in 16 bits",
  "components": [{
    "name": "quantizer/cast", "version": "0.1.0",
    "summary": "Stores weights as float16 or bfloat16 behind a Cast; what is computed with stays float32",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose weights shrink"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the same model with 16-bit weights, each behind a Cast"}
    ],
    "parameters": [
      {"name": "storage", "type": "string", "default": "bf16", "choices": ["f16", "bf16"], "help": "f16: 11 bits of precision, up to 65504; bf16: 8 bits, float32's range"},
      {"name": "overflow", "type": "string", "default": "error", "choices": ["error", "saturate"], "help": "a weight beyond the type stops the stage, or becomes the type's largest number"},
      {"name": "scope", "type": "list<string>", "default": ["*"], "help": "patterns of the weights to store in 16 bits, such as *.mlp"},
      {"name": "exclude", "type": "list<string>", "default": [], "help": "patterns of the weights that stay as they are"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "7.4e7 + 0.5 * model.bytes + 0.5 * model.largest_bytes",
                 "seconds": "0.03 + model.bytes / 3.4e8",
                 "outputs": {"model": {"bytes": "0.51 * model.bytes", "largest_bytes": "0.5 * model.largest_bytes"}},
                 "memory_base": 1e8, "memory_per_byte": 0.7, "output_per_byte": 0.51}
  }]
})json",
                ESPALIER_COMPONENT("quantizer/cast", Cast));
