#include "run/features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "graph/gaussian.h"
#include "graph/op.h"
#include "run/block_channels.h"
#include "sdk/error.h"

namespace espalier {
namespace {

at::Tensor computed(const at::Tensor& t) { return t.scalar_type() == at::kDouble ? t : t.to(at::kFloat); }

void check_shapes(const at::Tensor& student, const at::Tensor& teacher, const std::string& label) {
  if (student.sizes() == teacher.sizes()) return;
  throw_invalid(fmt::format("{}: the student's values have shape [{}], the teacher's [{}]", label, fmt::join(student.sizes(), ", "),
                            fmt::join(teacher.sizes(), ", ")),
                "ports student, teacher", "compare layers of one resolution, or leave them out of layer_map");
}

/// [from, to] with orthonormal rows or columns, from a seed.
at::Tensor orthogonal(std::int64_t from, std::int64_t to, std::uint64_t seed) {
  const std::int64_t tall = std::max(from, to), thin = std::min(from, to);
  const at::Tensor numbers = to_aten(gaussian({tall, thin}, 1, seed)).to(at::kDouble);
  const auto [q, r] = at::linalg_qr(numbers);
  // The signs of R's diagonal are the factorisation's choice; without them Q is the one that theory knows (Mezzadri, 2007).
  const at::Tensor signed_q = q * at::where(r.diagonal().lt(0), -1.0, 1.0);
  return (from >= to ? signed_q : signed_q.t()).to(at::kFloat).contiguous();
}

/// The values of a block that hold attention distributions, in the block's order; asks the nodes for them. A Softmax that goes
/// into a product is one as it is.
std::vector<std::string> attention_values(Graph& graph, const Uses& uses, const Block& block, const std::string& label) {
  std::vector<std::string> values;
  for (const std::size_t n : block.nodes) {
    Node& node = graph.nodes[n];
    if (!node.domain.empty()) continue;
    if (node.op == "Softmax") {
      const auto& readers = uses.readers_of(node.output(0));
      if (std::any_of(readers.begin(), readers.end(),
                      [&](const Uses::Reader& reader) { return reader.input == 0 && graph.nodes[reader.node].op == "MatMul"; }))
        values.push_back(node.output(0));
    }
    if (node.op != "Attention") continue;
    if (node.output(3).empty()) {
      node.outputs.resize(4);
      node.outputs[3] = graph.fresh(node.name + "_distribution");
      node.attributes["qk_matmul_output_mode"] = std::int64_t{3};
    } else if (node.integer("qk_matmul_output_mode", 0) != 3) {
      throw_unsupported(fmt::format("{}: the attention gives its scores to another reader already", label), "node " + node.name,
                        "leave attention out of losses");
    }
    values.push_back(node.outputs[3]);
  }
  return values;
}

}  // namespace

at::Tensor hidden_loss(const at::Tensor& student, const at::Tensor& teacher, std::int64_t axis, HiddenMeasure measure) {
  const at::Tensor s = computed(student), t = computed(teacher.detach()).to(s.scalar_type());
  if (measure == HiddenMeasure::cosine) return 1 - at::cosine_similarity(s, t, axis).mean();
  // A language model's first position may be 10,000 times as large as the others (Sun et al., "Massive Activations in Large
  // Language Models", 2024): one mean over all positions would see nothing else.
  std::vector<std::int64_t> axes{axis};
  if (axis != s.dim() - 1) {
    axes.clear();
    for (std::int64_t d = 1; d < s.dim(); ++d) axes.push_back(d);
  }
  return ((s - t).square().mean(axes) / t.square().mean(axes).clamp_min(1e-12)).mean();
}

at::Tensor attention_loss(const at::Tensor& student, const at::Tensor& teacher) {
  at::Tensor s = computed(student), t = computed(teacher.detach()).to(s.scalar_type());
  if (s.dim() == 4 && t.dim() == 4 && s.size(1) != t.size(1)) {
    s = s.mean({1}, true);
    t = t.mean({1}, true);
  }
  // Keys that nobody may attend to have no probability on either side; they add nothing.
  constexpr double tiny = 1e-12;
  return (t * (t.clamp_min(tiny).log() - s.clamp_min(tiny).log())).sum(-1).mean();
}

FeatureLosses::FeatureLosses(const Graph& student, const Graph& teacher, const FeatureOptions& options)
    : original_(student), student_(student), teacher_(teacher), options_(options) {
  if (!options.hidden && !options.attention) return;
  const auto students = find_blocks(student), teachers = find_blocks(teacher);
  const auto pairs = map_layers(students, teachers, options.layer_map);
  for (const auto& pair : pairs) rows_.push_back({block_label(students, pair.student), block_label(teachers, pair.teacher)});
  if (options.attention) compare_attention(students, teachers, pairs);
  if (options.hidden) compare_hidden(students, teachers, pairs);
  for (const auto* list : {&hidden_, &attention_})
    for (const auto& compared : *list) {
      student_values_.push_back(compared.student);
      teacher_values_.push_back(compared.teacher);
    }
  student_.validate();
  teacher_.validate();
}

void FeatureLosses::compare_hidden(const std::vector<Block>& students, const std::vector<Block>& teachers,
                                   const std::vector<LayerPair>& pairs) {
  const auto of_student = infer(original_), of_teacher = infer(teacher_);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const Block &own = students[pairs[i].student], &other = teachers[pairs[i].teacher];
    const char *place = "losses.hidden", *hint = "leave the block out of layer_map";
    const auto from = block_channels(original_, of_student, own, "student, " + rows_[i].student, place, hint);
    const auto to = block_channels(teacher_, of_teacher, other, "teacher, " + rows_[i].teacher, place, hint);
    rows_[i].width = from.width;
    rows_[i].teacher_width = to.width;
    const auto label = fmt::format("hidden states of {} and {}", rows_[i].student, rows_[i].teacher);
    if (from.rank != to.rank || from.axis != to.axis)
      throw_invalid(fmt::format("{} cannot be compared: channels lie on axis {} of {} and on axis {} of {}", label, from.axis,
                                from.rank, to.axis, to.rank),
                    "parameter layer_map");
    Compared compared{own.output, other.output, label, from.axis};
    if (from.width != to.width) {
      const auto name = student_.fresh(fmt::format("distillation.projection.{}", pairs[i].student));
      at::Tensor matrix = orthogonal(from.width, to.width, seed_for(options_.seed, name));
      const bool last = static_cast<std::size_t>(from.axis) + 1 == from.rank;
      if (!last) {
        matrix = matrix.t().contiguous();
        while (matrix.dim() < static_cast<std::int64_t>(from.rank)) matrix = matrix.unsqueeze(-1);
      }
      student_.initializers[name] = from_aten(matrix);
      Node node;
      node.op = last ? "MatMul" : "Conv";
      node.name = fmt::format("/distillation/projection.{}/{}", pairs[i].student, node.op);
      node.inputs = {own.output, name};
      node.outputs = {student_.fresh(node.name + "_output")};
      compared.student = node.outputs[0];
      student_.nodes.push_back(std::move(node));
      projections_.push_back(name);
    }
    hidden_.push_back(std::move(compared));
  }
}

void FeatureLosses::compare_attention(const std::vector<Block>& students, const std::vector<Block>& teachers,
                                      const std::vector<LayerPair>& pairs) {
  const Uses of_student(original_), of_teacher(teacher_);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto own = attention_values(student_, of_student, students[pairs[i].student], "student, " + rows_[i].student);
    const auto other = attention_values(teacher_, of_teacher, teachers[pairs[i].teacher], "teacher, " + rows_[i].teacher);
    if (own.empty() || own.size() != other.size())
      throw_invalid(fmt::format("{} of the student has {} attentions, {} of the teacher {}: they cannot be compared",
                                rows_[i].student, own.size(), rows_[i].teacher, other.size()),
                    "losses.attention", "name other pairs in layer_map, or leave attention out of losses");
    rows_[i].attentions = own.size();
    for (std::size_t k = 0; k < own.size(); ++k)
      attention_.push_back({own[k], other[k], fmt::format("attentions of {} and {}", rows_[i].student, rows_[i].teacher), -1});
  }
}

at::Tensor FeatureLosses::hidden(const TensorMap& student, const TensorMap& teacher) const {
  at::Tensor sum;
  for (const auto& compared : hidden_) {
    const auto &own = student.at(compared.student), &other = teacher.at(compared.teacher);
    check_shapes(own, other, compared.label);
    const at::Tensor loss = hidden_loss(own, other, compared.axis, options_.measure);
    sum = sum.defined() ? sum + loss : loss;
  }
  return sum / static_cast<double>(hidden_.size());
}

at::Tensor FeatureLosses::attention(const TensorMap& student, const TensorMap& teacher) const {
  at::Tensor sum;
  for (const auto& compared : attention_) {
    const auto &own = student.at(compared.student), &other = teacher.at(compared.teacher);
    if (own.dim() != 4 || other.dim() != 4)
      check_shapes(own, other, compared.label);
    else if (own.size(0) != other.size(0) || own.size(2) != other.size(2) || own.size(3) != other.size(3))
      check_shapes(own, other, compared.label);
    const at::Tensor loss = attention_loss(own, other);
    sum = sum.defined() ? sum + loss : loss;
  }
  return sum / static_cast<double>(attention_.size());
}

Graph FeatureLosses::strip(const Graph& trained) const {
  Graph result = original_;
  for (auto& [name, tensor] : result.initializers) tensor = trained.initializers.at(name);
  return result;
}

}  // namespace espalier
