#include "run/expert_importance.h"

#include <ATen/TensorOperators.h>

#include "run/session.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// [positions, width]; only those positions that the batch attends to, where it says so.
at::Tensor rows_of(const at::Tensor& value, const at::Tensor& open) {
  const at::Tensor rows = value.reshape({-1, value.size(-1)}).to(at::kDouble);
  const bool masked = open.defined() && rows.size(0) == open.numel();
  return masked ? rows.index({open.reshape({-1})}) : rows;
}

}  // namespace

std::vector<std::vector<ExpertUse>> expert_use(Context& context, const Graph& graph, const std::vector<Mixture>& mixtures,
                                               const MetricExamples& examples, bool outputs) {
  std::vector<std::vector<ExpertUse>> use;
  std::vector<double> positions(mixtures.size(), 0.0);
  std::vector<std::string> wanted;
  at::Tensor open;
  Session session(graph);
  for (const Mixture& mixture : mixtures) use.emplace_back(mixture.experts.size());
  for (std::size_t m = 0; m < mixtures.size(); ++m) {
    const Mixture& mixture = mixtures[m];
    wanted.push_back(mixture.gates);
    session.hook(mixture.gates, [&, m](const std::string&, const at::Tensor& gates) {
      const at::Tensor rows = rows_of(gates, open);
      const at::Tensor chosen = rows.ne(0).sum(0, false, at::kDouble), sum = rows.sum(0);
      positions[m] += static_cast<double>(rows.size(0));
      for (std::size_t e = 0; e < use[m].size(); ++e) {
        use[m][e].chosen += chosen[static_cast<std::int64_t>(e)].item<double>();
        use[m][e].gate += sum[static_cast<std::int64_t>(e)].item<double>();
      }
      return at::Tensor();
    });
    for (std::size_t e = 0; outputs && e < mixture.experts.size(); ++e) {
      wanted.push_back(mixture.experts[e].share);
      session.hook(mixture.experts[e].share, [&, m, e](const std::string&, const at::Tensor& share) {
        use[m][e].output += rows_of(share, open).square().sum(-1).sqrt().sum().item<double>();
        return at::Tensor();
      });
    }
  }
  examples.observe(context, session, graph, wanted, "counting experts", [&](const TensorMap& batch) {
    const auto mask = batch.find("attention_mask");
    open = mask != batch.end() && mask->second.dim() == 2 ? mask->second.ne(0) : at::Tensor();
  });
  for (std::size_t m = 0; m < mixtures.size(); ++m) {
    if (positions[m] == 0) throw_invalid("the data attends to no position", mixtures[m].scope);
    for (ExpertUse& each : use[m]) each.chosen /= positions[m], each.gate /= positions[m], each.output /= positions[m];
  }
  return use;
}

}  // namespace espalier
