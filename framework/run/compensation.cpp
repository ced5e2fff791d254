#include "run/compensation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "run/padding.h"
#include "run/session.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// A weight that reads cut channels, and the values it is multiplied with.
struct Reader {
  std::string tensor;
  bool transposed = false;  ///< stored [out, in]
  std::set<std::int64_t> removed;
  std::vector<std::string> inputs;  ///< one for each node that reads it
  at::Tensor moments;               ///< Σ xᵀx, [in, in]
};

/// The inner axis of a weight at this place of the node; nothing where the node is no plain product with it.
std::optional<std::size_t> inner_axis(const Node& node, std::size_t input, std::size_t rank) {
  if (!node.domain.empty() || input != 1 || rank != 2) return std::nullopt;
  if (node.op == "MatMul") return 0;
  if (node.op == "Gemm" && node.integer("transA", 0) == 0) return node.integer("transB", 0) != 0 ? 1 : 0;
  return std::nullopt;
}

std::vector<Reader> readers_of(const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal) {
  const Uses uses(graph);
  std::map<std::string, Reader> found;
  for (const CoupledGroup& group : groups) {
    const auto gone = removal.find(group.id);
    if (gone == removal.end()) continue;
    for (std::size_t m = 0; m < group.members.size(); ++m) {
      const Member& member = group.members[m];
      const Tensor* tensor = graph.initializer(member.tensor);
      if (member.producer || !tensor || !is_floating(tensor->dtype)) continue;
      Reader reader;
      reader.tensor = member.tensor;
      reader.transposed = member.axis == 1;
      bool plain = true;
      for (const Uses::Reader& use : uses.readers_of(member.tensor)) {
        const Node& node = graph.nodes[use.node];
        plain = plain && inner_axis(node, use.input, tensor->shape.size()) == member.axis;
        if (plain) reader.inputs.push_back(node.input(0));
      }
      if (!plain || reader.inputs.empty()) continue;
      Reader& kept = found.try_emplace(member.tensor, std::move(reader)).first->second;
      for (const std::int64_t unit : gone->second)
        for (const Slice& slice : group.units.at(static_cast<std::size_t>(unit)))
          if (slice.member == m) kept.removed.insert(slice.indices.begin(), slice.indices.end());
    }
  }
  std::vector<Reader> readers;
  for (auto& [name, reader] : found) readers.push_back(std::move(reader));
  return readers;
}

/// Adds xᵀx to the upper triangle of `sum`, in stripes: a little more than half of the products, since the matrix is symmetric.
void add_moments(at::Tensor& sum, const at::Tensor& x) {
  constexpr std::int64_t kStripe = 256;
  const std::int64_t width = x.size(1);
  for (std::int64_t begin = 0; begin < width; begin += kStripe) {
    const std::int64_t rows = std::min(kStripe, width - begin), columns = width - begin;
    sum.narrow(0, begin, rows).narrow(1, begin, columns).addmm_(x.narrow(1, begin, rows).t(), x.narrow(1, begin, columns));
  }
}

/// The whole of a symmetric matrix of which the upper triangle is there.
at::Tensor mirrored(const at::Tensor& upper) { return upper.triu() + upper.triu(1).t(); }

/// Fills in the readers' moments. Nothing behind the last value that is read is computed.
void observe(Context& context, const Graph& graph, const Dataset& data, const Compensation& options, std::vector<Reader>& readers) {
  Session session(graph, {.products = options.products});
  std::map<std::string, at::Tensor> moments;  // Σ xᵀx by value: several weights may read one
  std::vector<std::string> values;
  for (const Reader& reader : readers)
    for (const std::string& value : reader.inputs)
      if (moments.try_emplace(value).second) values.push_back(value);
  at::Tensor real;  // of the batch that runs
  for (const std::string& value : values)
    session.hook(value, [&real, &sum = moments.at(value)](const std::string& name, const at::Tensor& x) {
      const at::Tensor rows = without_padding(x, real, name).reshape({-1, x.size(-1)}).to(at::kFloat);
      if (!sum.defined()) sum = at::zeros({rows.size(1), rows.size(1)}, rows.options());
      add_moments(sum, rows);
      return at::Tensor();
    });
  const auto examples = spread(data.count(), options.samples);
  for (std::size_t begin = 0; begin < examples.size(); begin += static_cast<std::size_t>(options.batch)) {
    context.check_cancelled();
    const auto end = std::min(examples.size(), begin + static_cast<std::size_t>(options.batch));
    const std::vector<std::int64_t> part(examples.begin() + std::ptrdiff_t(begin), examples.begin() + std::ptrdiff_t(end));
    const TensorMap batch = data.batch(part);
    real = real_positions(batch);
    session.run(inputs_for(graph, batch), values);
    context.progress({end, examples.size(), "second moments of what the cut weights read", {}});
  }
  for (auto& [value, sum] : moments)
    if (sum.defined()) sum = mirrored(sum);
  for (Reader& reader : readers)
    for (const std::string& value : reader.inputs)
      if (const at::Tensor& sum = moments.at(value); sum.defined())
        reader.moments = reader.moments.defined() ? reader.moments + sum : sum;
}

at::Tensor indices(const std::vector<std::int64_t>& list) { return at::tensor(at::ArrayRef<std::int64_t>(list), at::kLong); }

/// Root of the mean square of x·D over the data, from the moments: tr(Dᵀ H D).
double size_of(const at::Tensor& moments, const at::Tensor& d) {
  return std::sqrt(std::max((d * at::matmul(moments, d)).sum().item<double>(), 0.0));
}

at::Tensor refit(const Reader& reader, const at::Tensor& weight, double ridge, Compensated& row) {
  std::vector<std::int64_t> kept, removed(reader.removed.begin(), reader.removed.end());
  for (std::int64_t i = 0; i < weight.size(0); ++i)
    if (!reader.removed.contains(i)) kept.push_back(i);
  const at::Tensor h = reader.moments.to(at::kDouble), k = indices(kept), r = indices(removed);
  const double whole = size_of(h, weight);
  at::Tensor without = weight.clone();
  without.index_fill_(0, r, 0.0);
  row.error_before = whole > 0 ? size_of(h, without - weight) / whole : 0;
  row.error_after = row.error_before;
  const at::Tensor inner = h.index_select(0, k).index_select(1, k), across = h.index_select(0, k).index_select(1, r);
  const double mean = inner.diagonal().mean().item<double>();
  if (!(mean > 0)) return weight;  // nothing ever flows through what is kept
  const at::Tensor damped = inner + at::eye(inner.size(0), inner.options()) * (ridge * mean);
  const at::Tensor added = at::cholesky_solve(at::matmul(across, weight.index_select(0, r)), at::linalg_cholesky(damped));
  at::Tensor fitted = weight.clone();
  fitted.index_add_(0, k, added);
  without = fitted.clone();
  without.index_fill_(0, r, 0.0);
  row.error_after = whole > 0 ? size_of(h, without - weight) / whole : 0;
  return fitted;
}

}  // namespace

Graph compensate(Context& context, const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal,
                 const Dataset& data, const Compensation& options, std::vector<Compensated>& report) {
  const c10::AutoGradMode off(false);
  if (data.count() == 0) throw_invalid("the data set is empty", "port data");
  std::vector<Reader> readers = readers_of(graph, groups, removal);
  Graph out = graph;
  if (readers.empty()) {
    context.log(LogLevel::warning, "no weight that reads a cut channel can be refitted; compensation changes nothing");
    return out;
  }
  observe(context, graph, data, options, readers);
  for (const Reader& reader : readers) {
    context.check_cancelled();
    if (!reader.moments.defined()) continue;  // its input is no value that data reaches
    Tensor& tensor = out.initializers.at(reader.tensor);
    const at::Tensor stored = to_aten(tensor), weight = (reader.transposed ? stored.t() : stored).to(at::kDouble);
    Compensated row{reader.tensor};
    const at::Tensor fitted = refit(reader, weight, options.ridge, row);
    tensor = from_aten((reader.transposed ? fitted.t() : fitted).to(stored.scalar_type()).contiguous());
    report.push_back(row);
  }
  return out;
}

}  // namespace espalier
