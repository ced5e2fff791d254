#include "prune/magnitude.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <thread>

#include "formats/float_values.h"
#include "graph/dtype.h"
#include "sdk/artifact.h"

namespace espalier {
namespace {

constexpr std::int64_t kLanes = 8;        // partial sums of a run, added up at its end: the same on every machine
constexpr std::int64_t kPiece = 4096;     // elements read at a time
constexpr std::int64_t kGrain = 1 << 16;  // elements that a thread is worth

template <int p, class T>
double power(T w) {
  const double value = w;
  return p == 1 ? std::abs(value) : value * value;
}

/// Σ|w|^p over everything but one axis, for the indices [from, to) of it.
template <int p, class T, class Read>
void add_along(const std::vector<std::int64_t>& shape, std::size_t axis, std::int64_t from, std::int64_t to, const Read& read,
               double* sums) {
  std::int64_t outer = 1, inner = 1;
  for (std::size_t d = 0; d < shape.size(); ++d) (d < axis ? outer : inner) *= d == axis ? 1 : shape[d];
  std::vector<T> space(kPiece);
  for (std::int64_t o = 0; o < outer; ++o) {
    const std::int64_t row = o * shape[axis];
    if (inner == 1) {
      for (std::int64_t at = from; at < to; at += kPiece) {
        const std::int64_t count = std::min(kPiece, to - at);
        const T* w = read(row + at, count, space.data());
        for (std::int64_t i = 0; i < count; ++i) sums[at + i] += power<p>(w[i]);
      }
      continue;
    }
    for (std::int64_t index = from; index < to; ++index) {
      double lanes[kLanes] = {};
      for (std::int64_t at = 0; at < inner; at += kPiece) {
        const std::int64_t count = std::min(kPiece, inner - at);
        const T* w = read((row + index) * inner + at, count, space.data());
        std::int64_t i = 0;
        for (; i + kLanes <= count; i += kLanes)
          for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += power<p>(w[i + lane]);
        for (; i < count; ++i) lanes[i % kLanes] += power<p>(w[i]);
      }
      for (const double lane : lanes) sums[index] += lane;
    }
  }
}

template <class T, class Read>
std::vector<double> sums_along(const Tensor& tensor, std::size_t axis, const MagnitudeOptions& options, const Read& read) {
  const std::int64_t length = tensor.shape[axis], each = std::max<std::int64_t>(1, length > 0 ? tensor.count() / length : 1);
  std::vector<double> sums(static_cast<std::size_t>(length), 0.0);
  const auto part = [&](std::int64_t from, std::int64_t to) {
    options.p == 1 ? add_along<1, T>(tensor.shape, axis, from, to, read, sums.data())
                   : add_along<2, T>(tensor.shape, axis, from, to, read, sums.data());
  };
  const std::int64_t parts = std::clamp<std::int64_t>(length * each / kGrain, 1, std::max(options.threads, 1));
  std::vector<std::jthread> others;
  for (std::int64_t i = 1; i < parts; ++i)
    others.emplace_back([&part, i, parts, length] { part(length * i / parts, length * (i + 1) / parts); });
  part(0, length / parts);
  others.clear();
  return sums;
}

std::vector<double> sums_along(const Tensor& tensor, std::size_t axis, const MagnitudeOptions& options) {
  if (tensor.dtype == DType::f32) {
    const auto values = tensor.as<float>();
    return sums_along<float>(tensor, axis, options,
                             [&](std::int64_t first, std::int64_t, float*) { return values.data() + first; });
  }
  if (tensor.dtype == DType::f16 || tensor.dtype == DType::bf16)
    return sums_along<float>(tensor, axis, options, [&](std::int64_t first, std::int64_t count, float* space) {
      read_floats(tensor, first, count, space);
      return space;
    });
  const auto values = tensor.numbers();
  return sums_along<double>(tensor, axis, options,
                            [&](std::int64_t first, std::int64_t, double*) { return values.data() + first; });
}

}  // namespace

Scores magnitude(const Graph& graph, const std::vector<CoupledGroup>& groups, const MagnitudeOptions& options,
                 const std::function<void(std::size_t, std::size_t)>& each) {
  std::map<std::pair<std::string, std::size_t>, std::vector<double>> sums;
  Scores scores;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const CoupledGroup& group = groups[g];
    if (each) each(g, groups.size());
    std::vector<const std::vector<double>*> of_member(group.members.size(), nullptr);
    for (std::size_t m = 0; m < group.members.size(); ++m) {
      const auto& member = group.members[m];
      const Tensor* tensor = graph.initializer(member.tensor);
      if (!tensor || !is_floating(tensor->dtype) || (options.producers_only && !member.producer)) continue;
      auto [at, fresh] = sums.try_emplace({member.tensor, member.axis});
      if (fresh) {
        at->second = sums_along(*tensor, member.axis, options);
        MappedFile::release(tensor->owner, tensor->bytes);
      }
      of_member[m] = &at->second;
    }
    auto& own = scores[group.id];
    for (const auto& unit : group.units) {
      double sum = 0;
      for (const auto& slice : unit) {
        if (!of_member[slice.member]) continue;
        for (auto i : slice.indices) sum += of_member[slice.member]->at(static_cast<std::size_t>(i));
      }
      own.push_back(options.p == 1 ? sum : std::sqrt(sum));
    }
  }
  return scores;
}

}  // namespace espalier
