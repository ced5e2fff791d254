#include "scoring.h"

#include <random>

#include "run/arrays.h"

namespace espalier::test {

std::vector<CoupledGroup> groups_of(const Graph& graph) { return coupled_groups(graph, infer(graph)); }

const CoupledGroup& group_with(const std::vector<CoupledGroup>& groups, const std::string& tensor) {
  for (const auto& group : groups) {
    for (const auto& member : group.members) {
      if (member.tensor == tensor && group.members.size() < 5) return group;
    }
  }
  throw Error(ErrorCode::internal, "no group touches " + tensor);
}

Scores score(TestContext& context, const std::string& metric, const Json& params, const Artifact& model, const Artifact* data) {
  std::map<std::string, Artifact> inputs{{"model", model}};
  if (data) inputs["data"] = *data;
  context.run(metric, params, inputs);
  return load_scores(context, context.outputs.at("scores"));
}

Artifact toy_images(TestContext& context, std::int64_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> pixels;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < count; ++i) {
    labels.push_back(static_cast<std::int64_t>(random() % 10));
    for (int p = 0; p < 3 * 64; ++p) pixels.push_back(static_cast<float>(static_cast<double>(random() >> 11) * 0x1p-52 - 1));
  }
  return save_arrays(
      context, {{"image", Tensor::of(DType::f32, {count, 3, 8, 8}, pixels)}, {"labels", Tensor::of(DType::i64, {count}, labels)}},
      {});
}

}  // namespace espalier::test
