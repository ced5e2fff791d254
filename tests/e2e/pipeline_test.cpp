#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "e2e/tiny_model.h"

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

struct Call {
  int code = -1;
  std::string out;
};

std::string quoted(const std::string& text) { return "'" + text + "'"; }

/// One recipe in a folder and a store of its own; calls the real program.
class Workshop {
 public:
  Workshop() {
    std::string pattern = (fs::temp_directory_path() / "espalier-e2e-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()));
    folder_ = pattern;
    espalier::test::write_tiny_model(folder_);
    const char* source = std::getenv("ESPALIER_SOURCE");
    const char* build = std::getenv("ESPALIER_BUILD");
    REQUIRE(source);
    REQUIRE(build);
    program_ = fs::path(build) / "bin/espalier";
    fs::copy_file(fs::path(source) / "tests/e2e/pipeline.toml", recipe());
  }
  ~Workshop() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  fs::path recipe() const { return folder_ / "pipeline.toml"; }
  const fs::path& folder() const { return folder_; }

  /// stdout and exit code of `espalier ARGUMENTS --store …`; stderr goes to err.txt, shown when something fails.
  Call call(const std::string& arguments) const {
    const std::string command = quoted(program_.string()) + " " + arguments + " --store " + quoted((folder_ / "store").string()) +
                                " 2>" + quoted((folder_ / "err.txt").string());
    Call result;
    FILE* pipe = popen(command.c_str(), "r");
    REQUIRE(pipe);
    std::array<char, 4096> buffer;
    while (std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe)) result.out.append(buffer.data(), got);
    const int status = pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    return result;
  }
  std::string errors() const {
    std::ostringstream text;
    text << std::ifstream(folder_ / "err.txt").rdbuf();
    return text.str();
  }
  Json run(const std::string& more = {}) const {
    const Call result = call("run " + quoted(recipe().string()) + " --json " + more);
    INFO(result.out << errors());
    REQUIRE(result.code == 0);
    return Json::parse(result.out);
  }

 private:
  fs::path folder_, program_;
};

std::map<std::string, Json> by_name(const Json& run) {
  std::map<std::string, Json> stages;
  for (const Json& stage : run["stages"]) stages[stage["name"]] = stage;
  return stages;
}

std::set<std::string> with_status(const Json& run, const std::string& status) {
  std::set<std::string> names;
  for (const Json& stage : run["stages"])
    if (stage["status"] == status) names.insert(stage["name"]);
  return names;
}

}  // namespace

TEST_CASE("the whole pipeline runs on a tiny model, is cached, and reruns only what a change reaches") {
  const Workshop shop;
  const Json first = shop.run();
  REQUIRE(first["schema"] == 1);
  REQUIRE(first["ok"] == true);
  REQUIRE(with_status(first, "ran").size() == first["stages"].size());
  auto stages = by_name(first);
  const auto perplexity = [&](const std::string& name) { return stages.at(name)["figures"]["perplexity"].get<double>(); };
  CHECK(perplexity("quality_base") > 100);  // untrained: near the vocabulary's 257
  CHECK(perplexity("quality_tuned") < 0.2 * perplexity("quality_base"));
  CHECK(perplexity("quality_model") < perplexity("quality_base"));
  // The deployed package and the runner's model agree; so do both backends.
  CHECK(std::abs(std::log(perplexity("quality") / perplexity("quality_model"))) < 0.02);
  CHECK(std::abs(std::log(perplexity("quality_embedded") / perplexity("quality_model"))) < 0.005);
  CHECK(stages.at("pruned")["figures"]["parameters"].get<double>() < stages.at("heads")["figures"]["parameters"].get<double>());
  CHECK(stages.at("size")["figures"]["size_bytes"].get<double>() > 0);
  CHECK(stages.at("speed")["figures"].contains("speedup"));

  const Json again = shop.run();
  REQUIRE(with_status(again, "cached").size() == again["stages"].size());
  for (const Json& stage : again["stages"]) {
    CHECK(stage["key"] == stages.at(stage["name"])["key"]);
    CHECK(stage["outputs"] == stages.at(stage["name"])["outputs"]);
  }

  const auto why = [&](const std::string& arguments) {
    const Call call = shop.call("why " + quoted(shop.recipe().string()) + " " + arguments);
    INFO(shop.errors());
    REQUIRE(call.code == 0);
    return call.out;
  };
  CHECK(Json::parse(why("size --json"))["status"] == "hit");
  const Json cause = Json::parse(why("size --set sparsity=0.5 --json"));
  CHECK(cause["status"] == "waiting");
  REQUIRE(cause["causes"].size() == 1);
  CHECK(
      cause["causes"][0] ==
      Json({{"stage", "pruned"}, {"use", "pruner/channels"}, {"what", "parameter sparsity"}, {"before", "0.25"}, {"now", "0.5"}}));
  const std::string told = why("size --set sparsity=0.5");
  CHECK_THAT(told, Catch::Matchers::ContainsSubstring("size (evaluator/size): would run"));
  CHECK_THAT(told, Catch::Matchers::ContainsSubstring("  pruned (pruner/channels)\n    parameter sparsity: 0.25 → 0.5\n"));
  CHECK_THAT(told, Catch::Matchers::ContainsSubstring("distilled"));

  const fs::path events_file = shop.folder() / "events.jsonl";
  const Json changed = shop.run("--set sparsity=0.5 --events " + quoted(events_file.string()));
  {
    const auto after = by_name(changed);
    std::vector<Json> events;
    std::ifstream lines(events_file);
    for (std::string line; std::getline(lines, line);) events.push_back(Json::parse(line));
    REQUIRE(events.size() > changed["stages"].size() + 2);
    std::map<std::string, int> open, counts;
    double time = 0;
    for (const Json& event : events) {
      CHECK(event["schema"] == 1);
      CHECK(event["run"] == changed["run"]);
      CHECK(event["time"].get<double>() >= time);
      time = event["time"].get<double>();
      const std::string kind = event["event"];
      ++counts[kind];
      if (kind == "stage_started") ++open[event["stage"]];
      if (kind == "progress" || kind == "log") CHECK(open[event["stage"]] == 1);
      if (kind == "stage_finished") {
        const Json& stage = after.at(event["stage"]);
        CHECK(event["status"] == stage["status"]);
        CHECK(event["figures"] == stage["figures"]);
        CHECK(event["outputs"] == stage["outputs"]);
        CHECK(open[event["stage"]]-- == (stage["status"] == "ran" ? 1 : 0));
      }
    }
    CHECK(events.front()["event"] == "run_started");
    CHECK(events.front()["stages"].size() == changed["stages"].size());
    CHECK(events.back()["event"] == "run_finished");
    CHECK(events.back()["ok"] == true);
    CHECK(static_cast<std::size_t>(counts["stage_finished"]) == changed["stages"].size());
    CHECK(static_cast<std::size_t>(counts["stage_started"]) == with_status(changed, "ran").size());
    CHECK(counts["progress"] > 0);
    CHECK(shop.call("run " + quoted(shop.recipe().string()) + " --events /nowhere/events").code == 1);
    CHECK_THAT(shop.errors(), Catch::Matchers::ContainsSubstring("the file of events cannot be opened"));
  }
  CHECK(with_status(changed, "cached") ==
        std::set<std::string>{"base", "corpus", "heldout", "tuned", "heads", "original", "quality_base", "quality_tuned",
                              "control_int8", "control", "quality_control", "quality_original", "agreement_control", "profile"});
  CHECK(by_name(changed)["pruned"]["figures"]["parameters"].get<double>() <
        stages.at("pruned")["figures"]["parameters"].get<double>());

  // Report, export and generate work on its results.
  {
    const fs::path page = shop.folder() / "page.html";
    const Call report = shop.call("report " + quoted(shop.recipe().string()) + " --out " + quoted(page.string()));
    INFO(shop.errors());
    REQUIRE(report.code == 0);
    std::ostringstream html;
    html << std::ifstream(page).rdbuf();
    for (const auto& [name, stage] : stages) CHECK_THAT(html.str(), Catch::Matchers::ContainsSubstring("stage-" + name));
    CHECK_THAT(html.str(), Catch::Matchers::ContainsSubstring("class=curve"));
    CHECK_THAT(html.str(), Catch::Matchers::ContainsSubstring("widths before and after"));

    for (const char* part : {"Candidate, control, original", "class=flame", "Against control", "Against original"})
      CHECK_THAT(html.str(), Catch::Matchers::ContainsSubstring(part));
    const Call listed = shop.call("report " + quoted(shop.recipe().string()) + " --json --out " + quoted(page.string()));
    REQUIRE(listed.code == 0);
    const Json comparison = Json::parse(listed.out)["comparison"];
    CHECK(comparison["remarks"].empty());
    std::map<std::string, Json> figures;
    for (const Json& figure : comparison["figures"]) figures[figure["figure"]] = figure;
    const Json& change = figures.at("perplexity")["against"]["control"];
    CHECK(change["kind"] == "ratio");
    CHECK(std::abs(change["value"].get<double>() - perplexity("quality") / perplexity("quality_control")) < 1e-9);
    CHECK(change["low"].get<double>() <= change["value"].get<double>());
    CHECK(change.contains("significant"));
    CHECK(figures.at("kl")["against"].contains("control"));
    CHECK(figures.at("size_bytes")["against"]["original"]["value"].get<double>() < 1);
    CHECK(figures.at("speedup")["against"].contains("original"));

    const fs::path out = shop.folder() / "out";
    REQUIRE(shop.call("export " + quoted(shop.recipe().string()) + " package " + quoted(out.string())).code == 0);
    for (const char* file : {"package.json", "model.onnx", "tokenizer.json"}) CHECK(fs::exists(out / file));
    const Call text = shop.call("generate " + quoted(out.string()) + " --prompt 'the gar' --tokens 12");
    INFO(shop.errors());
    CHECK(text.code == 0);
    CHECK_FALSE(text.out.empty());
  }
  // verify finds a flipped byte, and the next run makes the blob again.
  {
    REQUIRE(shop.call("verify").code == 0);
    fs::path victim;
    std::uintmax_t largest = 0;
    for (const auto& file : fs::recursive_directory_iterator(shop.folder() / "store/cas"))
      if (file.is_regular_file() && file.file_size() > largest) largest = file.file_size(), victim = file.path();
    fs::permissions(victim, fs::perms::owner_write, fs::perm_options::add);
    std::fstream stream(victim, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(static_cast<std::streamoff>(largest / 2));
    const char other = static_cast<char>(stream.peek() ^ 1);
    stream.seekp(static_cast<std::streamoff>(largest / 2));
    stream.put(other);
    stream.close();
    CHECK(shop.call("verify").code == 1);
    CHECK(shop.call("verify --repair").code == 1);
    shop.run();
    CHECK(shop.call("verify").code == 0);
  }
  // The same work from an empty store gives the same digests.
  {
    fs::remove_all(shop.folder() / "store");
    const Json fresh = shop.run("tuned pruned optimized");
    for (const auto& [name, stage] : by_name(fresh))
      if (stage["status"] == "ran") CHECK(stage["outputs"] == stages.at(name)["outputs"]);
    CHECK(with_status(fresh, "ran").contains("optimized"));
  }
}

TEST_CASE("conversations in JSON Lines train the assistant and are measured by what it says") {
  const Workshop shop;
  fs::copy_file(fs::path(std::getenv("ESPALIER_SOURCE")) / "tests/e2e/chat.toml", shop.recipe(),
                fs::copy_options::overwrite_existing);
  {  // the answer is the question's last word, twice; what the user says cannot be foretold
    std::ofstream file(shop.folder() / "chats.jsonl");
    unsigned state = 7;
    const char* words[] = {"cat", "dog", "fox", "owl", "hen", "ant"};
    for (int i = 0; i < 120; ++i) {
      state = state * 1664525u + 1013904223u;
      const std::string first = words[(state >> 8) & 3], last = words[(state >> 16) % 6];
      if (i == 60) file << "no conversation\n";
      file << Json{{"messages",
                    {{{"role", "user"}, {"content", first + " " + last}}, {{"role", "assistant"}, {"content", last + " " + last}}}}}
                  .dump()
           << "\n";
    }
  }
  const Json run = shop.run();
  auto stages = by_name(run);
  const auto figure = [&](const char* stage, const char* name) { return stages.at(stage)["figures"][name].get<double>(); };
  CHECK(figure("train", "examples") + figure("heldout", "examples") == 120);
  CHECK(figure("train", "lines_bad") + figure("heldout", "lines_bad") == 1);
  // An answer is two words of three letters, the space between them and the end.
  CHECK(figure("heldout", "tokens_counted") == 8 * figure("heldout", "examples"));
  CHECK(figure("quality", "tokens") == figure("heldout", "tokens_counted"));
  CHECK(figure("quality_base", "perplexity") > 50);
  CHECK(figure("quality", "perplexity") < 3);
  // The loop's held-out loss and the evaluator's are the same figure.
  CHECK(std::abs(figure("tuned", "heldout_loss_before") / figure("quality_base", "nll") - 1) < 1e-3);
  CHECK(std::abs(figure("tuned", "heldout_loss_after") / figure("quality", "nll") - 1) < 1e-2);
  REQUIRE(with_status(shop.run(), "cached").size() == run["stages"].size());

  const Call planned = shop.call("plan " + quoted(shop.recipe().string()) + " --estimate --json");
  INFO(planned.out << shop.errors());
  REQUIRE(planned.code == 0);
}

TEST_CASE("a plan can be estimated before anything but its sources has run") {
  const Workshop shop;
  const Call planned = shop.call("plan " + quoted(shop.recipe().string()) + " --estimate --json");
  INFO(planned.out << shop.errors());
  REQUIRE(planned.code == 0);
  std::map<std::string, Json> stages;
  const Json plan = Json::parse(planned.out);
  for (const Json& stage : plan["stages"]) stages[stage["name"]] = stage;
  for (const char* source : {"base", "corpus", "heldout"}) CHECK(stages.at(source)["status"] == "hit");
  for (const char* stage : {"tuned", "pruned", "heads", "distilled", "package", "quality"}) {
    INFO(stage);
    CHECK(stages.at(stage)["status"] != "hit");
    REQUIRE(stages.at(stage)["seconds"].is_number());
    CHECK(stages.at(stage)["seconds"].get<double>() > 0);
    CHECK(stages.at(stage)["memory_bytes"].get<double>() > 1e8);
  }
}

TEST_CASE("the report states what was expected beside what happened") {
  const Workshop shop;
  const std::string recipe = quoted(shop.recipe().string());
  const auto report = [&] {
    const Call call = shop.call("report " + recipe + " --json --out " + quoted((shop.folder() / "page.html").string()));
    INFO(shop.errors());
    REQUIRE(call.code == 0);
    return Json::parse(call.out);
  };
  const Json before = report();
  CHECK(before["estimates"]["memory"]["compared"] == 0);
  CHECK_THAT(before["estimates"]["remarks"][0].get<std::string>(), Catch::Matchers::ContainsSubstring("sources"));

  const Json run = shop.run("quality_base quality_original");
  auto ran = by_name(run);
  REQUIRE(ran.size() == 5);
  for (const auto& [name, stage] : ran) {
    INFO(name);
    REQUIRE(stage["estimate"]["memory_bytes"].is_number());
    CHECK(stage["cpu_seconds"].get<double>() > 0);
  }
  CHECK(ran.at("quality_base")["estimate"]["seconds"].is_null());  // the machine has not been measured
  const Json untimed = report();
  CHECK_THAT(untimed["estimates"]["remarks"].dump(), Catch::Matchers::ContainsSubstring("plan RECIPE --estimate"));
  CHECK(untimed["estimates"]["memory"]["compared"] == 5);

  REQUIRE(shop.call("plan " + recipe + " --estimate").code == 0);
  const auto check = [&](const Json& told) {
    auto stages = by_name(told);
    for (const auto& [name, stage] : ran) {
      INFO(name);
      const Json& estimate = stages.at(name)["estimate"];
      // Cached stages have the outcome of the run that made them.
      CHECK(stages.at(name)["peak_rss_bytes"] == stage["peak_rss_bytes"]);
      CHECK(stages.at(name)["seconds"] == stage["seconds"]);
      CHECK(estimate["memory_bytes"] == stage["estimate"]["memory_bytes"]);
      const double expected = estimate["memory_bytes"].get<double>(), peak = stage["peak_rss_bytes"].get<double>();
      CHECK(std::abs(estimate["memory_ratio"].get<double>() - expected / peak) < 1e-9);
      CHECK(expected > peak / 4);
      CHECK(expected < peak * 4);
      REQUIRE(estimate["seconds"].is_number());
      CHECK(std::abs(estimate["seconds_ratio"].get<double>() - estimate["seconds"].get<double>() / stage["seconds"].get<double>()) <
            1e-9);
    }
    CHECK(stages.at("package")["estimate"]["memory_bytes"].is_number());  // expected, and not there
    CHECK(stages.at("package")["estimate"]["memory_ratio"].is_null());
    CHECK(told["estimates"]["seconds"]["compared"] == 6);  // the corpus was made for the plan
    CHECK(told["estimates"]["seconds"]["worst"]["ratio"].is_number());
  };
  check(report());
  const Json again = shop.run("quality_base quality_original");
  CHECK(with_status(again, "cached").size() == 5);
  CHECK(by_name(again)["quality_base"]["estimate"]["seconds"].is_number());
  check(report());
  std::ostringstream html;
  html << std::ifstream(shop.folder() / "page.html").rdbuf();
  CHECK_THAT(html.str(), Catch::Matchers::ContainsSubstring("Estimates and what happened"));
}

TEST_CASE("every recipe that comes along is valid, but for files that are fetched or given") {
  const Workshop shop;
  const fs::path source = std::getenv("ESPALIER_SOURCE");
  std::size_t seen = 0;
  for (const char* folder : {"pipelines", "bench"})
    for (const auto& entry : fs::directory_iterator(source / folder)) {
      if (entry.path().extension() != ".toml") continue;
      ++seen;
      const Call call = shop.call("validate " + quoted(entry.path().string()) + " --json");
      INFO(entry.path() << "\n" << call.out);
      const Json told = Json::parse(call.out);
      for (const Json& finding : told["diagnostics"]) CHECK(finding["code"] == "missing-file");
      CHECK(told["ok"].get<bool>() == (call.code == 0));
    }
  CHECK(seen >= 8);
}
