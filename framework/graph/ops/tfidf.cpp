#include <algorithm>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// One column for each number that ngram_indexes names.
std::vector<ValueInfo> infer_tfidf(const NodeView& view) {
  constexpr std::int64_t kMostColumns = 1 << 28;
  const ValueInfo& x = view.in(0);
  if (view.node.has("pool_strings")) view.refuse("n-grams of strings are not supported");
  const Integers columns = view.node.integers("ngram_indexes", {});
  if (columns.empty()) view.fail("ngram_indexes are missing");
  const auto [least, most] = std::minmax_element(columns.begin(), columns.end());
  if (*least < 0) view.fail("ngram_indexes has the entry " + std::to_string(*least));
  if (*most >= kMostColumns) view.refuse(std::to_string(*most) + " columns are not supported");
  if (x.shape.empty() || x.shape.size() > 2)
    view.fail("the input has shape " + text(x.shape) + ", one row or a batch of rows is needed");
  Shape out = x.shape;
  out.back() = *most + 1;
  return {value(DType::f32, std::move(out))};
}

const RegisterOperator tfidf{{"TfIdfVectorizer", "", 9, infer_tfidf, nullptr, nullptr, nullptr, false}};

}  // namespace
}  // namespace espalier
