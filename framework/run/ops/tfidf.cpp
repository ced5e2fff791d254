#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>

#include "run/op.h"

namespace espalier {
namespace {

using Integers = std::vector<std::int64_t>;

/// The n-grams that are looked for, and the column of each.
struct Pool {
  std::map<Integers, std::int64_t> columns;
  std::int64_t width = 0, shortest, longest;

  explicit Pool(const RunView& v) : shortest(v.node.integer("min_gram_length", 1)), longest(v.node.integer("max_gram_length", 1)) {
    if (v.node.has("pool_strings")) v.refuse("n-grams of strings are not supported");
    const Integers items = v.node.integers("pool_int64s", {}), begins = v.node.integers("ngram_counts", {});
    const Integers numbers = v.node.integers("ngram_indexes", {});
    if (numbers.empty()) v.fail("ngram_indexes are missing");
    if (shortest < 1 || longest < shortest) v.fail(fmt::format("n-grams of {} to {} items", shortest, longest));
    longest = std::min(longest, static_cast<std::int64_t>(begins.size()));
    const auto [least, most] = std::minmax_element(numbers.begin(), numbers.end());
    if (*least < 0) v.fail(fmt::format("ngram_indexes has the entry {}", *least));
    if (*most >= 1 << 28) v.refuse(fmt::format("{} columns are not supported", *most));
    width = *most + 1;
    std::size_t number = 0;
    for (std::size_t n = 1; n <= begins.size(); ++n) {
      const std::int64_t begin = begins[n - 1], end = n < begins.size() ? begins[n] : static_cast<std::int64_t>(items.size());
      if (begin < 0 || end < begin || end > static_cast<std::int64_t>(items.size()) ||
          (end - begin) % static_cast<std::int64_t>(n) != 0)
        v.fail(fmt::format("ngram_counts do not cut the pool into n-grams of {} items", n));
      for (std::int64_t at = begin; at < end; at += static_cast<std::int64_t>(n), ++number) {
        if (number >= numbers.size()) v.fail("ngram_indexes has fewer entries than the pool has n-grams");
        columns[Integers(items.begin() + at, items.begin() + at + static_cast<std::int64_t>(n))] = numbers[number];
      }
    }
  }
};

/// Adds up how often each n-gram stands in a row, its items `step` apart.
void count(const Pool& pool, std::span<const std::int64_t> row, std::int64_t n, std::int64_t step, float* into) {
  const auto length = static_cast<std::int64_t>(row.size());
  Integers gram(static_cast<std::size_t>(n));
  for (std::int64_t begin = 0; begin + (n - 1) * step < length; ++begin) {
    for (std::int64_t k = 0; k < n; ++k) gram[static_cast<std::size_t>(k)] = row[static_cast<std::size_t>(begin + k * step)];
    if (const auto found = pool.columns.find(gram); found != pool.columns.end()) into[found->second] += 1;
  }
}

/// Single items are counted once; longer n-grams with up to max_skip_count items left out between theirs.
void count_all(const RunView& v, const Pool& pool, std::span<const std::int64_t> row, float* into) {
  const std::int64_t skips =
      std::clamp<std::int64_t>(v.node.integer("max_skip_count", 0), 0, static_cast<std::int64_t>(row.size()));
  for (std::int64_t step = 1; step <= skips + 1; ++step)
    for (std::int64_t n = step == 1 ? pool.shortest : std::max<std::int64_t>(pool.shortest, 2); n <= pool.longest; ++n)
      count(pool, row, n, step, into);
}

at::Tensor weighted(const RunView& v, const Pool& pool, const at::Tensor& counts) {
  const std::string mode = v.node.text("mode", "");
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF") v.fail(fmt::format("mode is \"{}\"", mode));
  const at::Tensor base = mode == "IDF" ? counts.gt(0).to(counts.scalar_type()) : counts;
  if (mode == "TF" || !v.node.has("weights")) return base;
  // A weight belongs to an n-gram, here to a column: the same where the columns are numbered in order.
  const auto* weights = std::get_if<std::vector<double>>(&v.node.attributes.at("weights"));
  const Integers numbers = v.node.integers("ngram_indexes", {});
  bool in_order = weights && static_cast<std::int64_t>(weights->size()) == pool.width && weights->size() == numbers.size();
  for (std::size_t i = 0; in_order && i < numbers.size(); ++i) in_order = numbers[i] == static_cast<std::int64_t>(i);
  if (!in_order) v.refuse("weights of columns that are not in the n-grams' order are not supported");
  return base * at::tensor(*weights, counts.options());
}

std::vector<at::Tensor> tfidf(const RunView& v) {
  const at::Tensor& x = v.in(0);
  if (x.dim() < 1 || x.dim() > 2) v.fail(fmt::format("the input has rank {}, expected 1 or 2", x.dim()));
  if (x.scalar_type() != at::kInt && x.scalar_type() != at::kLong) v.refuse("only int32 and int64 items are supported");
  const Pool pool(v);
  const at::Tensor items = x.to(at::kLong).contiguous();
  const std::int64_t rows = x.dim() == 2 ? x.size(0) : 1, length = x.size(-1);
  at::Tensor counts = at::zeros({rows, pool.width}, at::kFloat);
  for (std::int64_t row = 0; row < rows; ++row)
    count_all(v, pool, {items.const_data_ptr<std::int64_t>() + row * length, static_cast<std::size_t>(length)},
              counts.mutable_data_ptr<float>() + row * pool.width);
  const at::Tensor y = weighted(v, pool, counts).to(v.compute);
  return {x.dim() == 2 ? y : y.squeeze(0)};
}

const RegisterRun entry{"", "TfIdfVectorizer", tfidf};

}  // namespace
}  // namespace espalier
