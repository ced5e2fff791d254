// Reports of made-up results: what is compared with what, and what is said about it.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <memory>

#include "cli/report_charts.h"
#include "cli/report_comparison.h"
#include "cli/report_estimates.h"

using namespace espalier;
using Catch::Approx;

namespace {

/// A recipe with three packages, and its results.
class Report {
 public:
  Report() { plan_.report = ReportRoles{"small", "control", "base"}; }
  /// An evaluator's stage that reads `package` (and `data`), with figures and samples.
  void evaluated(const std::string& use, const std::string& package, const std::string& on, std::map<std::string, double> figures,
                 Json details, Json params = Json::object(), const std::string& baseline = {}) {
    Stage stage;
    stage.name = "s" + std::to_string(stages_.size());
    stage.use = use;
    stage.params = std::move(params);
    stage.inputs["package"] = {{package, "package"}};
    if (!on.empty()) stage.inputs["data"] = {{on, "data"}};
    if (!baseline.empty()) stage.inputs["baseline"] = {{baseline, "package"}};
    ActionEntry entry;
    entry.figures = std::move(figures);
    entry.details = std::move(details);
    add(std::move(stage), std::move(entry), {});
  }
  void package(const std::string& name, double bytes) {
    Stage stage;
    stage.name = name;
    stage.use = "backend/described";
    Artifact artifact;
    artifact.type = ArtifactType::package;
    artifact.meta["size_bytes"] = bytes;
    add(std::move(stage), ActionEntry{}, artifact);
  }
  void perplexity(const std::string& package, const std::string& on, const std::vector<double>& nll, Json params = Json::object()) {
    const Samples samples{nll, std::vector<double>(nll.size(), 511.0)};
    evaluated("evaluator/perplexity", package, on, {{"perplexity", std::exp(samples.mean())}},
              {{"samples.nll", nll}, {"samples.tokens", samples.weights}}, std::move(params));
  }
  /// A stage with a result, and what was expected of it.
  void expected(const std::string& name, std::optional<double> memory, double peak, std::optional<double> seconds, double took) {
    Stage stage;
    stage.name = name;
    stage.use = "pruner/described";
    ActionEntry entry;
    entry.peak_rss = static_cast<std::uint64_t>(peak);
    add(std::move(stage), std::move(entry), {});
    data_.rows.back().seconds = took;
    data_.rows.back().expected_memory = memory;
    data_.rows.back().expected_seconds = seconds;
  }
  ReportData& data() {
    data_.plan = &plan_;
    return data_;
  }
  Plan& plan() { return plan_; }

 private:
  void add(Stage stage, ActionEntry entry, std::optional<Artifact> artifact) {
    stages_.push_back(std::make_unique<Stage>(std::move(stage)));
    ReportRow row;
    row.stage = stages_.back().get();
    row.status = "ran";
    row.entry = std::move(entry);
    row.artifact = std::move(artifact);
    data_.rows.push_back(std::move(row));
  }
  Plan plan_;
  std::vector<std::unique_ptr<Stage>> stages_;
  ReportData data_;
};

const ComparedFigure& figure(const Comparison& comparison, const std::string& name, const std::string& data = {}) {
  for (const ComparedFigure& each : comparison.figures)
    if (each.figure == name && each.data == data) return each;
  FAIL("no figure " << name << " on " << data);
  throw 0;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("without [report] nothing is compared, and the page has no such part") {
  Report report;
  report.perplexity("small", "news", {3, 3.1});
  report.plan().report.reset();
  CHECK_FALSE(compare_roles(report.data()));
  CHECK_FALSE(contains(report_page(report.data()), "Candidate, control, original"));
}

TEST_CASE("the card of sizes compares what the recipe compares") {
  Report report;
  report.package("base", 4000);
  report.package("base_elsewhere", 4100);  // the original in another runtime
  report.package("small_elsewhere", 900);
  report.package("small", 1000);
  CHECK(contains(report_page(report.data()), "-75.0 % · base → small<"));
  report.plan().report.reset();
  CHECK(contains(report_page(report.data()), "-78.0 % · base_elsewhere → small_elsewhere<"));
}

TEST_CASE("quality is compared over the same windows, text by text, and what is noise is called so") {
  Report report;
  std::vector<double> control, worse, alike;
  for (int i = 0; i < 30; ++i) {
    control.push_back(3 + 0.5 * std::sin(i * 1.7));
    worse.push_back(control.back() + 0.1 + 0.01 * std::cos(i * 2.3));
    alike.push_back(control.back() + 0.1 * std::sin(i * 2.9 + 0.4));
  }
  report.perplexity("small", "wiki", worse);
  report.perplexity("control", "wiki", control);
  report.perplexity("small", "news", alike);
  report.perplexity("control", "news", control);
  report.package("small", 25e6);
  report.package("control", 100e6);
  report.package("base", 400e6);
  const Comparison comparison = *compare_roles(report.data());

  const ComparedFigure& wiki = figure(comparison, "perplexity", "wiki");
  REQUIRE(wiki.against[0]);
  CHECK(wiki.against[0]->value == Approx(std::exp(0.1)).epsilon(0.01));
  CHECK(wiki.against[0]->interval->low > 1.09);
  CHECK(*wiki.against[0]->significant);
  CHECK(contains(change_text(wiki, *wiki.against[0]), "worse"));
  CHECK_FALSE(wiki.against[1]);  // the original was not measured
  const ComparedFigure& news = figure(comparison, "perplexity", "news");
  CHECK_FALSE(*news.against[0]->significant);
  CHECK(contains(change_text(news, *news.against[0]), "not significant"));
  CHECK(figure(comparison, "size_bytes").against[0]->value == Approx(0.25));
  CHECK(figure(comparison, "size_bytes").against[1]->value == Approx(0.0625));
  REQUIRE_FALSE(comparison.remarks.empty());
  CHECK(contains(comparison.remarks[0], "original (@base)"));

  const std::string page = report_page(report.data());
  for (const char* part : {"Candidate, control, original", "on wiki", "on news", "not significant", "class=bad", "@base"})
    CHECK(contains(page, part));
  const std::string table = comparison_table(report.data(), comparison, false);
  CHECK(contains(table, "perplexity on wiki"));
  const Json json = comparison_json(report.data(), comparison);
  CHECK(json["candidate"] == "small");
  CHECK(json["figures"][0]["against"]["control"]["significant"] == true);
  CHECK(json["figures"][0]["against"]["control"]["kind"] == "ratio");
}

TEST_CASE("other windows, other parameters and single windows are told, not compared") {
  Report report;
  report.perplexity("small", "a", {3, 3.1, 3.2});
  report.perplexity("control", "a", {3, 3.1});
  report.perplexity("small", "b", {3.0});
  report.perplexity("control", "b", {2.9});
  report.perplexity("small", "c", {3, 3.1}, {{"window", 128}});
  report.perplexity("control", "c", {3, 3.1}, {{"window", 512}});
  const Comparison comparison = *compare_roles(report.data());
  const Change& a = *figure(comparison, "perplexity", "a").against[0];
  CHECK(a.remark == "measured on other windows");
  CHECK_FALSE(a.significant);
  const Change& b = *figure(comparison, "perplexity", "b").against[0];
  CHECK(b.remark == "one window has no interval");
  CHECK(b.value == Approx(std::exp(0.1)));
  CHECK_FALSE(figure(comparison, "perplexity", "c").against[0]);
  bool told = false;
  for (const std::string& remark : comparison.remarks) told = told || contains(remark, "on c with these parameters");
  CHECK(told);
}

TEST_CASE("agreement, accuracy and speed have their own directions") {
  Report report;
  const auto agreement = [&](const char* of, double kl) {
    report.evaluated("evaluator/agreement", of, "wiki", {{"kl", kl}, {"top1_agreement", 1 - kl}},
                     {{"samples.kl", {kl - 0.01, kl, kl + 0.01}},
                      {"samples.top1_agreement", {1 - kl + 0.01, 1 - kl, 1 - kl - 0.01}},
                      {"samples.tokens", {10, 10, 10}}});
  };
  agreement("small", 0.3);
  agreement("control", 0.1);
  report.evaluated("evaluator/accuracy", "small", "digits", {{"accuracy", 0.75}}, {{"samples.correct", {1, 1, 0, 1}}});
  report.evaluated("evaluator/accuracy", "control", "digits", {{"accuracy", 0.75}}, {{"samples.correct", {1, 1, 1, 0}}});
  report.evaluated("evaluator/latency", "small", "", {{"speedup", 1.9}, {"latency_p50_ms", 5}}, Json::object(), Json::object(),
                   "base");
  report.evaluated("evaluator/latency", "base", "", {{"latency_p50_ms", 10}}, Json::object());
  const Comparison comparison = *compare_roles(report.data());
  const ComparedFigure &kl = figure(comparison, "kl", "wiki"), &top1 = figure(comparison, "top1_agreement", "wiki");
  CHECK(kl.against[0]->value == Approx(0.2));
  CHECK_FALSE(kl.against[0]->ratio);
  CHECK(contains(change_text(kl, *kl.against[0]), "worse"));
  CHECK(top1.against[0]->value == Approx(-0.2));
  CHECK(contains(change_text(top1, *top1.against[0]), "worse"));
  CHECK_FALSE(*figure(comparison, "accuracy", "digits").against[0]->significant);
  const ComparedFigure& speedup = figure(comparison, "speedup");
  CHECK_FALSE(speedup.against[0]);
  CHECK(speedup.against[1]->value == 1.9);
  CHECK(figure(comparison, "latency_p50_ms").against[1]->value == Approx(0.5));
}

TEST_CASE("a flame's widths are shares of the time, layers in the order of their numbers") {
  const Json table = {{"columns", {"layer", "part", "operator", "nodes", "ms", "per cent"}},
                      {"rows", {{"model.layers.10", "mlp", "MatMul", 3, 30.0, 60}, {"model.layers.9", "", "Add", 1, 20.0, 40}}}};
  const std::string svg = flame_chart("profile <x>", table);
  CHECK(contains(svg, "profile &lt;x&gt;"));
  CHECK(contains(svg, "model.layers.10 › mlp › MatMul: 30 ms, 60.00 %"));
  CHECK(contains(svg, "width='636.00'"));  // 60 % of 1060
  CHECK(svg.find(">model.layers.9<") < svg.find(">model.layers.10<"));
  CHECK(flame_chart("x", Json::object()).empty());
  CHECK(flame_chart("x", {{"columns", {"layer", "part", "operator", "ms"}}, {"rows", {{"a", "b", 3, 1.0}, {1}, "x"}}}).empty());
}

TEST_CASE("estimates stand beside outcomes, and the farthest is named") {
  Report report;
  report.expected("near", 1.2e9, 1e9, 1.9, 1);
  report.expected("far", 4e8, 1e9, 0.1, 1);
  report.expected("high", 1.3e9, 1e9, 2.1, 1);
  report.expected("untold", {}, 1e9, {}, 1);
  ReportData& data = report.data();
  const Nearness memory = memory_nearness(data), time = time_nearness(data);
  CHECK(memory.compared == 3);
  CHECK(memory.near == 1);
  CHECK(memory.worst == "far");
  CHECK(memory.worst_ratio == Approx(0.4));
  CHECK(time.near == 1);
  CHECK(time.worst_ratio == Approx(0.1));
  const std::string table = estimates_table(data, false);
  CHECK(contains(table, "memory: 1 of 3 stages within 25 %, worst 0.400× (far); time: 1 of 3 within a factor of 2"));
  CHECK(contains(table, "plan RECIPE --estimate"));
  data.speed_known = true;
  CHECK_FALSE(contains(estimates_table(data, false), "--estimate"));
  const std::string page = report_page(data);
  CHECK(contains(page, "Estimates and what happened"));
  CHECK(contains(page, "<td class='n bad'>0.400×</td>"));
  CHECK(contains(page, "<td class='n'>1.20×</td>"));
  CHECK(estimates_json(data)["memory"]["worst"]["stage"] == "far");
  CHECK(estimate_json(data.rows[3])["memory_ratio"].is_null());
  CHECK(estimate_json(data.rows[0])["seconds_ratio"] == 1.9);
}

TEST_CASE("a ratio far from 1 keeps its digits") {
  Report report;
  report.package("small", 412);
  report.package("control", 1e6);
  report.package("base", 1e6);
  const Comparison comparison = *compare_roles(report.data());
  const ComparedFigure& size = figure(comparison, "size_bytes");
  CHECK(change_text(size, *size.against[0]) == "0.0004120×");
}
