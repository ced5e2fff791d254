// The first AdamW steps of our training loop on a GGUF model, for comparison with the same loop in plain PyTorch:
//   bench_training_parity MODEL.gguf TEXT FOLDER [STEPS [SEQUENCE]]
//   python bench/training_parity.py FOLDER
// FOLDER gets weights.safetensors (as before training), tokens.i32 (one window a step), settings.json and losses.json.
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "run/session.h"
#include "run/training.h"
#include "sdk/error.h"

using namespace espalier;

namespace {

const TrainingOptions base{.learning_rate = 2e-4, .warmup = 5};

void write(const std::filesystem::path& file, std::span<const std::byte> bytes) {
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw Error(ErrorCode::resource, "cannot write", file.string());
}
void write_json(const std::filesystem::path& file, const Json& json) {
  const std::string text = json.dump(1);
  write(file, std::as_bytes(std::span(text)));
}

/// What the PyTorch side needs to know of the architecture, read off the graph's first layer.
Json settings_of(const Graph& graph, const TrainingOptions& options, std::int64_t sequence,
                 const std::vector<std::string>& trained) {
  Json settings{{"steps", options.steps}, {"sequence", sequence},   {"weight_decay", options.weight_decay},
                {"beta1", options.beta1}, {"beta2", options.beta2}, {"epsilon", options.epsilon},
                {"clip", options.clip},   {"trained", trained},     {"rates", Json::array()}};
  for (std::int64_t step = 0; step < options.steps; ++step) settings["rates"].push_back(scheduled_rate(options, step));
  for (const Node& node : graph.nodes) {
    if (node.op == "Attention") {
      settings["heads"] = node.integer("q_num_heads", 0);
      settings["kv_heads"] = node.integer("kv_num_heads", 0);
    }
    if (node.op == "RMSNormalization") settings["norm_epsilon"] = node.number("epsilon", 1e-5);
  }
  return settings;
}

int train(const char* model_file, const char* text_file, const std::filesystem::path& folder, std::int64_t steps,
          std::int64_t sequence) {
  const ImportedModel model = import_gguf(model_file);
  std::ifstream file(text_file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::int32_t> tokens = model.tokenizer->encode(text, false);
  if (static_cast<std::int64_t>(tokens.size()) < steps * sequence) throw_invalid("the text is too short", text_file);
  tokens.resize(static_cast<std::size_t>(steps * sequence));

  std::filesystem::create_directories(folder);
  write(folder / "weights.safetensors", write_safetensors(model.graph.initializers));
  write(folder / "tokens.i32", std::as_bytes(std::span(tokens)));
  Session session(model.graph);
  TrainingOptions options = base;
  options.steps = steps;
  write_json(folder / "settings.json", settings_of(model.graph, options, sequence, session.train()));
  const TrainingResult result = train_loop(
      session, options,
      [&](std::int64_t step, std::int64_t) {
        const std::vector<std::int64_t> part(tokens.begin() + step * sequence, tokens.begin() + (step + 1) * sequence);
        return TensorMap{{"input_ids", at::tensor(at::ArrayRef<std::int64_t>(part), at::kLong).unsqueeze(0)},
                         {"attention_mask", at::ones({1, sequence}, at::kLong)},
                         {"position_ids", at::arange(sequence, at::kLong).unsqueeze(0)}};
      },
      [&](const TensorMap& inputs) { return causal_cross_entropy(session.run(inputs).at("logits"), inputs.at("input_ids")); },
      nullptr);
  write_json(folder / "losses.json", Json(result.losses));
  fmt::print("{{\"steps\":{},\"sequence\":{},\"seconds\":{:.2f},\"first\":{:.5f},\"last\":{:.5f}}}\n", steps, sequence,
             result.seconds, result.losses.front(), result.losses.back());
  return 0;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 4) {
    std::fputs("usage: bench_training_parity MODEL.gguf TEXT FOLDER [STEPS [SEQUENCE]]\n", stderr);
    return 2;
  }
  at::set_num_threads(2);
  return train(arguments[1], arguments[2], arguments[3], count > 4 ? std::atoll(arguments[4]) : 20,
               count > 5 ? std::atoll(arguments[5]) : 128);
} catch (const Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return exit_code(error.code());
}
