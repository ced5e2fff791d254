#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "formats/torchscript/script.h"

namespace espalier::torchscript {
namespace {

using Integers = std::vector<std::int64_t>;

struct Reduction {
  std::vector<std::string> axes;  ///< none: nothing is reduced
  bool keep, computed = false;
  explicit Reduction(NodeScript& s) : keep(s.node.integer("keepdims", 1) != 0) {
    std::optional<Integers> known = Integers();
    if (s.node.has("axes")) {
      known = s.node.integers("axes", {});
    } else if (s.has(1)) {
      known = s.known(1);
    }
    if (!known) {
      axes = s.integers(1);
      computed = !axes.empty();
      if (computed) return;
      known.emplace();
    }
    const auto rank = static_cast<std::int64_t>(s.rank(0));
    for (std::int64_t& axis : *known) {
      if (axis < 0) axis += rank;
      if (axis < 0 || axis >= rank) s.refuse("an axis that the input has not");
    }
    std::sort(known->begin(), known->end());
    if (known->empty() && s.node.integer("noop_with_empty_axes", 0) == 0)
      for (std::int64_t i = 0; i < rank; ++i) known->push_back(i);
    for (std::int64_t axis : *known) axes.push_back(std::to_string(axis));
  }
  std::string text() const { return fmt::format("{}, {}", list_text(axes), flag_text(keep)); }
};

std::string sum(NodeScript& s, const Reduction& r, const std::string& x) {
  if (r.axes.empty()) return x;
  return s.let(fmt::format("torch.sum({}, {}, dtype={})", x, r.text(), *type_number(s.info_out(0).dtype)));
}

void need_floating(NodeScript& s) {
  if (!s.floating(0)) s.refuse("integers");
}

void reduce_sum(NodeScript& s) {
  const Reduction r(s);
  s.give(sum(s, r, s.in(0)));
}
void reduce_mean(NodeScript& s) {
  need_floating(s);
  const Reduction r(s);
  s.give(r.axes.empty() ? s.in(0) : fmt::format("torch.mean({}, {})", s.in(0), r.text()));
}
void reduce_sum_square(NodeScript& s) {
  const Reduction r(s);
  s.give(sum(s, r, s.let(fmt::format("torch.mul({0}, {0})", s.in(0)))));
}
void reduce_l1(NodeScript& s) {
  const Reduction r(s);
  s.give(sum(s, r, s.let(fmt::format("torch.abs({})", s.in(0)))));
}
void reduce_l2(NodeScript& s) {
  need_floating(s);
  const Reduction r(s);
  s.give(r.axes.empty() ? fmt::format("torch.abs({})", s.in(0))
                        : fmt::format("torch.linalg_vector_norm({}, 2, {})", s.in(0), r.text()));
}
void reduce_log_sum(NodeScript& s) {
  need_floating(s);
  const Reduction r(s);
  s.give(fmt::format("torch.log({})", sum(s, r, s.in(0))));
}
void reduce_log_sum_exp(NodeScript& s) {
  need_floating(s);
  const Reduction r(s);
  s.give(r.axes.empty() ? s.in(0) : fmt::format("torch.logsumexp({}, {})", s.in(0), r.text()));
}
void reduce_prod(NodeScript& s) {
  const Reduction r(s);
  if (r.computed && !r.keep) s.refuse("axes that are computed");  // in which order they go is not known
  std::string x = s.in(0);
  for (auto axis = r.axes.rbegin(); axis != r.axes.rend(); ++axis)
    x = s.let(fmt::format("torch.prod({}, {}, {}, dtype={})", x, *axis, flag_text(r.keep), *type_number(s.info_out(0).dtype)));
  s.give(x);
}
/// The extreme of no elements is one that LibTorch has not.
void extreme(NodeScript& s, const char* function) {
  const Reduction r(s);
  if (s.info(0).dtype == DType::boolean) s.refuse("booleans");
  for (const Dim& dim : s.info(0).shape)
    if (dim == Dim(0)) s.refuse("an axis without elements");
  s.give(r.axes.empty() ? s.in(0) : fmt::format("torch.{}({}, {})", function, s.in(0), r.text()));
}
void reduce_max(NodeScript& s) { extreme(s, "amax"); }
void reduce_min(NodeScript& s) { extreme(s, "amin"); }

/// The first extreme; the last one where `select_last_index` says so.
void arg(NodeScript& s) {
  const std::size_t axis = s.axis("axis", 0, s.rank(0));
  const bool last = s.node.integer("select_last_index", 0) != 0;
  const std::string x = last ? s.let(fmt::format("torch.flip({}, [{}])", s.in(0), axis)) : s.in(0);
  const std::string place = s.let(fmt::format("torch.{}({}, {}, {})", s.node.op == "ArgMax" ? "argmax" : "argmin", x, axis,
                                              flag_text(s.node.integer("keepdims", 1) != 0)));
  s.give(last ? fmt::format("torch.rsub({}, {} - 1)", place, s.length(0, axis)) : place);
}

/// Of equal elements the one with the lower index comes first, which torch.topk does not promise.
void topk(NodeScript& s) {
  const std::size_t axis = s.axis("axis", -1, s.rank(0));
  const std::string k = s.opset() < 10 ? std::to_string(s.node.integer("k", 0)) : s.integers(1).at(0);
  const bool largest = s.node.integer("largest", 1) != 0;
  const std::string both =
      s.let(fmt::format("torch.sort({}, stable=True, dim={}, descending={})", s.in(0), axis, flag_text(largest)), "sorted");
  s.give(0, fmt::format("torch.narrow({}[0], {}, 0, {})", both, axis, k));
  s.give(1, fmt::format("torch.narrow({}[1], {}, 0, {})", both, axis, k));
}

void cumulative(NodeScript& s) {
  const std::vector<std::string> axes = s.integers(1);
  if (axes.size() != 1) s.refuse("not one axis");
  const std::string& axis = axes[0];
  const bool product = s.node.op == "CumProd", reverse = s.node.integer("reverse", 0) != 0;
  std::string x = s.in(0);
  if (reverse) x = s.let(fmt::format("torch.flip({}, [{}])", x, axis));
  if (s.node.integer("exclusive", 0) != 0) {
    const std::string first = s.let(fmt::format("torch.full_like(torch.slice({}, {}, 0, 1, 1), {})", x, axis, product ? 1 : 0));
    x = s.let(fmt::format("torch.cat([{0}, torch.slice({1}, {2}, 0, -1, 1)], {2})", first, x, axis));
  }
  x = s.let(fmt::format("torch.{}({}, {}, dtype={})", product ? "cumprod" : "cumsum", x, axis, *type_number(s.info(0).dtype)));
  s.give(reverse ? fmt::format("torch.flip({}, [{}])", x, axis) : x);
}

/// Up to opset 12 the tensor is seen as a matrix: rows before `axis`, one distribution over everything after it.
void softmax(NodeScript& s) {
  const char* function = s.node.op == "Softmax" ? "softmax" : "log_softmax";
  const std::size_t rank = s.rank(0);
  if (rank == 0 || (s.opset() < 13 && rank == 1 && s.node.integer("axis", 1) == 1))
    return s.give(fmt::format("torch.squeeze(torch.{}(torch.unsqueeze({}, -1), -1), -1)", function, s.in(0)));
  const std::size_t axis = s.axis("axis", s.opset() < 13 ? 1 : -1, rank);
  if (s.opset() >= 13 || axis + 1 == rank) return s.give(fmt::format("torch.{}({}, {})", function, s.in(0), axis));
  s.give(fmt::format("torch.reshape(torch.{0}(torch.flatten({1}, {2}), {2}), {1}.size())", function, s.in(0), axis));
}

const RegisterPhrase entries[] = {{{"ReduceSum"}, reduce_sum},
                                  {{"ReduceMean"}, reduce_mean},
                                  {{"ReduceSumSquare"}, reduce_sum_square},
                                  {{"ReduceL1"}, reduce_l1},
                                  {{"ReduceL2"}, reduce_l2},
                                  {{"ReduceLogSum"}, reduce_log_sum},
                                  {{"ReduceLogSumExp"}, reduce_log_sum_exp},
                                  {{"ReduceProd"}, reduce_prod},
                                  {{"ReduceMax"}, reduce_max},
                                  {{"ReduceMin"}, reduce_min},
                                  {{"ArgMax", "ArgMin"}, arg},
                                  {{"TopK"}, topk},
                                  {{"CumSum", "CumProd"}, cumulative},
                                  {{"Softmax", "LogSoftmax"}, softmax}};

}  // namespace
}  // namespace espalier::torchscript
