// What holds for every metric: finite scores for all units of the groups that it scores, the same bytes on a second run, and no
// dependence on the batch where its manifest says so.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <filesystem>

#include "formats/model_artifact.h"
#include "scoring.h"

using namespace espalier;
using namespace espalier::test;

namespace {

struct Case {
  std::string metric;
  Json params;
  bool heads_only = false;  ///< channels get no score
  bool any_batch = false;   ///< the scores do not depend on `batch`
  bool reads_data = true;
};

std::vector<Case> cases() {
  const Json two = Json::array({{{"use", "metric/taylor"}, {"samples", 3}}, {{"use", "metric/activation"}, {"samples", 3}}});
  std::vector<Case> list{
      {.metric = "metric/magnitude", .params = Json::object(), .reads_data = false},
      {.metric = "metric/taylor", .params = {{"samples", 4}}},
      {.metric = "metric/taylor", .params = {{"samples", 4}, {"absolute", "data"}}, .any_batch = true},
      {.metric = "metric/hessian", .params = {{"samples", 4}}},
      {.metric = "metric/fisher", .params = {{"samples", 4}}, .any_batch = true},
      {.metric = "metric/fisher", .params = {{"samples", 4}, {"masks", "pass"}}},
      {.metric = "metric/ensemble", .params = {{"metrics", two}}},
  };
  for (const char* measure : {"l1", "l2", "mean_abs", "variance"})
    list.push_back({.metric = "metric/activation", .params = {{"samples", 4}, {"measure", measure}}, .any_batch = true});
  for (const char* measure : {"entropy", "mass", "distance"})
    list.push_back(
        {.metric = "metric/attention", .params = {{"samples", 4}, {"measure", measure}}, .heads_only = true, .any_batch = true});
  return list;
}

}  // namespace

TEST_CASE("every metric is tried by the properties") {
  std::set<std::string> tried;
  for (const auto& one : cases()) tried.insert(one.metric);
  for (const auto& entry : std::filesystem::directory_iterator(plugin_folder())) {
    const auto name = entry.path().stem().string();
    const std::string prefix = "espalier-metric-";
    if (!name.starts_with(prefix)) continue;
    CAPTURE(name);
    CHECK(tried.contains("metric/" + name.substr(prefix.size())));
  }
}

TEST_CASE("metrics give finite scores, the same ones every time") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const bool language = GENERATE(true, false);
  const Graph graph = language ? toy_language_model() : toy_residual_network();
  const auto model = save_model(context, graph);
  const auto data = language ? toy_dataset(context, 4, 12, 6) : toy_images(context, 4, 6);
  const auto groups = groups_of(graph);
  for (const auto& one : cases()) {
    if (one.heads_only && !language) continue;
    CAPTURE(language, one.metric, one.params.dump());
    const auto* given = one.reads_data ? &data : nullptr;
    const auto scores = score(context, one.metric, one.params, model, given);
    const auto first = context.outputs.at("scores").digest();
    for (const auto& group : groups) {
      CAPTURE(group.id);
      if (one.heads_only && group.kind != CoupledGroup::Kind::heads) {
        CHECK_FALSE(scores.contains(group.id));
        continue;
      }
      REQUIRE(scores.contains(group.id));
      REQUIRE(scores.at(group.id).size() == group.units.size());
      bool differ = false;
      for (double s : scores.at(group.id)) {
        CHECK(std::isfinite(s));
        differ = differ || s != scores.at(group.id)[0];
      }
      CHECK(differ);  // a metric that calls all units alike has not looked
    }
    CHECK(context.figures.at("groups") == double(scores.size()));

    score(context, one.metric, one.params, model, given);
    CHECK(context.outputs.at("scores").digest() == first);

    if (!one.any_batch) continue;
    auto params = one.params;
    for (int batch : {3, 4}) {
      params["batch"] = batch;
      for (const auto& [id, own] : score(context, one.metric, params, model, given)) {
        double largest = 0;
        for (double s : scores.at(id)) largest = std::max(largest, std::abs(s));
        for (std::size_t u = 0; u < own.size(); ++u) CHECK(std::abs(own[u] - scores.at(id)[u]) <= 1e-4 * largest);
      }
    }
  }
}

TEST_CASE("every metric drives a pruner") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 4, 12, 6);
  for (const auto& one : cases())
    for (const bool heads : {false, true}) {
      if (one.heads_only && !heads) continue;
      Json metric = one.params;
      metric["use"] = one.metric;
      CAPTURE(heads, metric.dump());
      context.run(heads ? "pruner/heads" : "pruner/channels",
                  {{"sparsity", 0.5}, {"scope", {heads ? "*.self_attn" : "*.mlp"}}, {"metric", metric}},
                  {{"model", model}, {"data", data}});
      CHECK(context.figures.at("sparsity") > 0.3);
    }
}
