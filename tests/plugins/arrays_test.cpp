#include <ATen/TensorOperators.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <filesystem>
#include <random>
#include <set>

#include "formats/model_artifact.h"
#include "run/arrays.h"
#include "run/session.h"
#include "sdk/statistics.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
namespace fs = std::filesystem;

namespace {

template <class T>
std::string npy(const std::string& descr, const std::vector<std::int64_t>& shape, const std::vector<T>& values) {
  std::string sides;
  for (const auto side : shape) sides += std::to_string(side) + ",";
  const std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + sides + ")}";
  std::string out = "\x93NUMPY";
  out += {1, '\0', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  return out + header + std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

/// Images [n, 3, 8, 8] whose class (of 10) is the column and channel that is lit, under noise.
struct Lit {
  std::vector<float> pixels;
  std::vector<std::int64_t> labels;
  explicit Lit(std::int64_t count, std::uint64_t seed = 3) {
    std::mt19937_64 random(seed);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto label = static_cast<std::int64_t>(random() % 10);
      labels.push_back(label);
      for (std::int64_t c = 0; c < 3; ++c)
        for (std::int64_t p = 0; p < 64; ++p) {
          const bool lit = p / 8 < 5 && c == label % 3 && p % 4 == label / 3;
          pixels.push_back(0.2F * static_cast<float>(random() % 1000) / 1000 + (lit ? 1.0F : 0.0F));
        }
    }
  }
};

Artifact lit(TestContext& context, std::int64_t count, std::uint64_t seed = 3) {
  const Lit made(count, seed);
  return save_arrays(
      context,
      {{"image", Tensor::of(DType::f32, {count, 3, 8, 8}, made.pixels)}, {"labels", Tensor::of(DType::i64, {count}, made.labels)}},
      {});
}

Json paths(std::initializer_list<fs::path> files) {
  Json list = Json::array();
  for (const auto& file : files) list.push_back(file.string());
  return list;
}

}  // namespace

TEST_CASE("arrays and labels become examples, in parts that do not overlap") {
  const TemporaryFolder folder;
  TestContext context(folder);
  std::vector<float> values(200);
  std::vector<std::int32_t> labels(100);
  for (std::size_t i = 0; i < 200; ++i) values[i] = static_cast<float>(i);
  for (std::size_t i = 0; i < 100; ++i) labels[i] = static_cast<std::int32_t>(i % 4);
  const auto x = folder.write("x.npy", npy("<f4", {100, 2}, values)), y = folder.write("y.npy", npy("<i4", {100}, labels));
  const auto run = [&](const std::string& part) {
    context.run("source/arrays", {{"files", paths({x})}, {"labels", y.string()}, {"part", part}, {"share", 0.3}});
    return context.outputs.at("data");
  };
  std::multiset<float> seen;
  for (const std::string part : {"train", "heldout"}) {
    const ArrayDataset data(context, run(part));
    CHECK(data.count() == (part == "train" ? 70 : 30));
    CHECK(context.figures.at("examples") == static_cast<double>(data.count()));
    for (std::int64_t i = 0; i < data.count(); ++i) {
      const TensorMap example = data.batch({i});
      const float first = example.at("x")[0][0].item<float>();
      seen.insert(first);
      CHECK(example.at("x")[0][1].item<float>() == first + 1);
      CHECK(example.at("labels").scalar_type() == at::kLong);
      CHECK(example.at("labels").item<std::int64_t>() == static_cast<std::int64_t>(first) / 2 % 4);
    }
  }
  CHECK(seen.size() == 100);
  CHECK(std::set<float>(seen.begin(), seen.end()).size() == 100);
  CHECK(run("train").digest() == run("train").digest());
  const auto before = run("train").digest();
  context.seed_ = 8;
  CHECK(run("train").digest() != before);
}

TEST_CASE("scaling, names, targets and classes of arrays") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto x = folder.write("x.npy", npy<std::uint8_t>("|u1", {2, 2, 1, 1}, {0, 255, 51, 102}));
  const auto y = folder.write("y.npy", npy<std::int64_t>("<i8", {2}, {0, 1}));
  context.run("source/arrays", {{"files", paths({x})},
                                {"names", {"input"}},
                                {"labels", y.string()},
                                {"mean", {0.5, 0.0}},
                                {"std", {0.5, 2.0}},
                                {"classes", {"no", "yes"}}});
  const ArrayDataset data(context, context.outputs.at("data"));
  const at::Tensor values = data.batch({0, 1}).at("input");
  CHECK_THAT(values[0][0].item<float>(), WithinAbs(-1, 1e-6));
  CHECK_THAT(values[0][1].item<float>(), WithinAbs(0.5, 1e-6));
  CHECK_THAT(values[1][0].item<float>(), WithinAbs(-0.6, 1e-6));
  CHECK(data.classes() == std::vector<std::string>{"no", "yes"});
  CHECK(context.details.at("classes").at("rows") == Json::parse(R"([["no", 1], ["yes", 1]])"));

  context.run("source/arrays", {{"files", paths({x})}, {"labels", y.string()}, {"targets", "values"}});
  CHECK(ArrayDataset(context, context.outputs.at("data")).batch({0}).at("labels").scalar_type() == at::kFloat);
}

TEST_CASE("what source/arrays refuses") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto x = folder.write("x.npy", npy<float>("<f4", {2, 1}, {1, 2})),
             y = folder.write("y.npy", npy<float>("<f4", {3}, {1, 2, 3})),
             half = folder.write("half.npy", npy<float>("<f4", {2}, {0.5, 1})),
             below = folder.write("below.npy", npy<std::int64_t>("<i8", {2}, {-1, 1}));
  const auto refused = [&](Json parameters, const std::string& why) {
    parameters["files"] = parameters.value("files", paths({x}));
    CHECK_THROWS_WITH(context.run("source/arrays", parameters), ContainsSubstring(why));
  };
  refused({{"labels", y.string()}}, "array \"labels\" holds 3 examples, \"x\" 2");
  refused({{"labels", half.string()}, {"targets", "classes"}}, "no whole numbers");
  refused({{"labels", below.string()}}, "a label is -1");
  refused({{"names", {"a", "b"}}}, "2 names for 1 arrays: x");
  refused({{"mean", {1, 2, 3}}}, "3 numbers for array \"x\"");
  refused({{"std", {0}}}, "standard deviation of 0");
  refused({{"files", paths({folder.write("bad.npy", "nothing")})}}, "bad.npy");
  refused({{"files", paths({x, x})}}, "two arrays are called \"x\"");
  refused({{"part", "heldout"}, {"share", 0.0}}, "none of them in part");
}

TEST_CASE("a folder of images is examples by class, at one size") {
  const TemporaryFolder folder;
  TestContext context(folder);
  for (const char* name : {"cat", "dog"}) fs::create_directories(folder.path() / "pets" / name);
  folder.write("pets/cat/a.pgm", "P5 2 2 255\n" + std::string(4, '\xff'));
  folder.write("pets/cat/b.ppm", "P6 4 2 255\n" + std::string(24, '\x33'));
  folder.write("pets/dog/a.pgm", "P5 2 2 255\n" + std::string(4, '\0'));
  const auto pets = paths({folder.path() / "pets"});
  CHECK_THROWS_WITH(context.run("source/arrays", {{"files", pets}}), ContainsSubstring("b.ppm") && ContainsSubstring("size ="));
  context.run("source/arrays", {{"files", pets}, {"size", {2, 2}}, {"colour", "grey"}});
  const ArrayDataset data(context, context.outputs.at("data"));
  CHECK(data.classes() == std::vector<std::string>{"cat", "dog"});
  const TensorMap all = data.batch({0, 1, 2});
  CHECK(all.at("image").sizes() == at::IntArrayRef({3, 1, 2, 2}));
  CHECK_THAT(all.at("image")[0].mean().item<float>(), WithinAbs(1, 1e-6));
  CHECK_THAT(all.at("image")[1].mean().item<float>(), WithinAbs(0.2, 1e-6));
  CHECK(all.at("labels")[2].item<std::int64_t>() == 1);
}

TEST_CASE("a network of images is trained, cut by gradients and distilled") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = lit(context, 320), heldout = lit(context, 80, 99);
  const Json brief{{"steps", 120}, {"batch", 16}, {"warmup", 4}, {"learning_rate", 5e-3}};
  const auto model = save_model(context, toy_residual_network());
  context.run("distiller/finetune", brief, {{"model", model}, {"data", data}, {"heldout", heldout}});
  const auto tuned = context.outputs.at("model");
  CHECK(context.figures.at("heldout_loss_after") < 0.5 * context.figures.at("heldout_loss_before"));
  // Running statistics stay: training is in the form that is deployed.
  CHECK(load_model(context, tuned).initializer("stem_bn.mean")->digest() ==
        toy_residual_network().initializer("stem_bn.mean")->digest());

  // The held-out loss is the mean over examples, however they were put together.
  Session session(load_model(context, tuned));
  const ArrayDataset examples(context, heldout);
  double sum = 0;
  for (std::int64_t i = 0; i < examples.count(); ++i) {
    const TensorMap one = examples.batch({i});
    const at::Tensor scores = session.run({{"image", one.at("image")}}).at("scores").log_softmax(1);
    sum -= scores[0][one.at("labels").item<std::int64_t>()].item<double>();
  }
  CHECK_THAT(context.figures.at("heldout_loss_after"), WithinAbs(sum / 80, 1e-4));

  context.run("pruner/channels", {{"sparsity", 0.4}, {"metric", {{"use", "metric/taylor"}, {"samples", 64}, {"batch", 16}}}},
              {{"model", tuned}, {"data", data}});
  const auto cut = context.outputs.at("model");
  CHECK(load_model(context, cut).parameter_count() < load_model(context, tuned).parameter_count());
  context.run("distiller/distill", brief, {{"student", cut}, {"teacher", tuned}, {"data", data}, {"heldout", heldout}});
  CHECK(context.figures.at("heldout_loss_after") < context.figures.at("heldout_loss_before"));
}

TEST_CASE("a regression is trained on values") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Lit made(160);
  std::vector<float> wanted;
  for (const auto label : made.labels)
    for (int c = 0; c < 10; ++c) wanted.push_back(static_cast<float>(label) * 0.1F);
  const auto data = save_arrays(
      context,
      {{"image", Tensor::of(DType::f32, {160, 3, 8, 8}, made.pixels)}, {"labels", Tensor::of(DType::f32, {160, 10}, wanted)}}, {});
  context.run("distiller/finetune", {{"steps", 60}, {"batch", 16}, {"learning_rate", 5e-3}},
              {{"model", save_model(context, toy_residual_network())}, {"data", data}});
  CHECK(context.figures.at("loss_last") < 0.3 * context.figures.at("loss_first"));
  // Examples are counted where there are no tokens.
  CHECK(context.figures.at("samples") == 60 * 16);
  CHECK(context.figures.at("samples_per_second") > 0);
  CHECK_FALSE(context.figures.contains("tokens"));
}

TEST_CASE("accuracy counts what is right, with its interval, and what was lost against a baseline") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = lit(context, 90, 5);
  const auto model = save_model(context, toy_residual_network()), other = save_model(context, toy_residual_network(2));
  const ArrayDataset examples(context, data);
  const auto right = [&](const Artifact& artifact) {
    Session session(load_model(context, artifact));
    std::vector<double> each;
    for (std::int64_t i = 0; i < examples.count(); ++i) {
      const TensorMap one = examples.batch({i});
      const auto said = session.run({{"image", one.at("image")}}).at("scores").argmax(1).item<std::int64_t>();
      each.push_back(said == one.at("labels").item<std::int64_t>() ? 1 : 0);
    }
    return each;
  };
  const auto own = right(model), base = right(other);
  const double correct = double(std::count(own.begin(), own.end(), 1.0)),
               before = double(std::count(base.begin(), base.end(), 1.0));
  context.run("evaluator/accuracy", {{"batch", 32}}, {{"model", model}, {"baseline", other}, {"data", data}});
  CHECK(context.details.at("samples.correct").get<std::vector<double>>() == own);
  CHECK_THAT(context.figures.at("accuracy"), WithinAbs(correct / 90, 1e-12));
  CHECK_THAT(context.figures.at("accuracy_drop_points"), WithinAbs(100 * (before - correct) / 90, 1e-9));
  double lost = 0, won = 0, n = 0;
  for (std::size_t i = 0; i < own.size(); ++i) (lost += base[i] > own[i]), (won += own[i] > base[i]);
  n = lost + won;
  CHECK(context.details.at("paired").at("rows")[0] == Json::array({lost, won, 90}));
  double tail = 0, ways = std::pow(0.5, n);  // binomial coefficients times 2^-n, one after the other
  for (double k = 0; k <= std::min(lost, won); ways *= (n - k) / (k + 1), ++k) tail += ways;
  CHECK_THAT(context.figures.at("accuracy_drop_p"), WithinAbs(std::min(1.0, 2 * tail), 1e-9));
  // The drop's interval is the library's, paired by example, as the report compares two stages.
  const std::array<Samples, 2> both{Samples{base, {}}, Samples{own, {}}};
  const auto drop = *bootstrap(both, [](std::span<const double> means) { return means[0] - means[1]; });
  CHECK_THAT(context.figures.at("accuracy_drop_points_low"), WithinAbs(100 * drop.low, 1e-9));
  CHECK_THAT(context.figures.at("accuracy_drop_points_high"), WithinAbs(100 * drop.high, 1e-9));
  CHECK(context.figures.at("accuracy_drop_points_low") <= context.figures.at("accuracy_drop_points"));
  // Wilson's bounds are where the score test turns: |p̂ - p| = z √(p (1 - p) / n).
  for (const char* bound : {"accuracy_low", "accuracy_high"}) {
    const double p = context.figures.at(bound);
    CHECK_THAT(std::abs(correct / 90 - p), WithinAbs(1.959963984540054 * std::sqrt(p * (1 - p) / 90), 1e-9));
  }
  CHECK(context.figures.at("accuracy_top5") >= context.figures.at("accuracy"));
  double diagonal = 0, all = 0;
  const Json rows = context.details.at("confusion").at("rows");
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t c = 1; c < rows[r].size(); ++c) {
      all += rows[r][c].get<double>();
      if (c == r + 1) diagonal += rows[r][c].get<double>();
    }
  CHECK(all == 90);
  CHECK(diagonal == correct);

  CHECK_THROWS_WITH(context.run("evaluator/accuracy", Json::object(), {{"data", data}}), ContainsSubstring("exactly one of"));
  const auto unlabelled = save_arrays(context, {{"image", Tensor::of(DType::f32, {90, 3, 8, 8}, Lit(90).pixels)}}, {});
  CHECK_THROWS_WITH(context.run("evaluator/accuracy", Json::object(), {{"model", model}, {"data", unlabelled}}),
                    ContainsSubstring("no labels"));
}

namespace {

/// The toy network with shares instead of scores.
Graph with_softmax(Graph graph) {
  Node softmax;
  softmax.op = "Softmax";
  softmax.name = "shares";
  softmax.inputs = {"scores"};
  softmax.outputs = {"shares"};
  softmax.attributes["axis"] = std::int64_t{-1};
  graph.nodes.push_back(softmax);
  graph.outputs.front().name = "shares";
  return graph;
}

}  // namespace

TEST_CASE("a network that answers shares is trained as by its scores") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = lit(context, 64);
  const Json brief{{"steps", 5}, {"batch", 16}, {"warmup", 1}, {"learning_rate", 5e-3}};
  const auto scores = save_model(context, toy_residual_network()),
             shares = save_model(context, with_softmax(toy_residual_network()));
  const auto trained = [&](const char* use, std::map<std::string, Artifact> inputs) {
    context.run(use, brief, inputs);
    return std::vector<double>{context.figures.at("loss_first"), context.figures.at("loss_last")};
  };
  CHECK(trained("distiller/finetune", {{"model", scores}, {"data", data}}) ==
        trained("distiller/finetune", {{"model", shares}, {"data", data}}));
  // Student and teacher need not answer alike.
  const auto teacher = save_model(context, with_softmax(toy_residual_network(2)));
  const auto other = save_model(context, toy_residual_network(2));
  const auto alike = trained("distiller/distill", {{"student", scores}, {"teacher", other}, {"data", data}});
  CHECK(alike == trained("distiller/distill", {{"student", scores}, {"teacher", teacher}, {"data", data}}));
  CHECK(alike == trained("distiller/distill", {{"student", shares}, {"teacher", other}, {"data", data}}));
}

TEST_CASE("agreement of classifiers and of values, example by example") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = lit(context, 50, 5);
  const auto candidate = save_model(context, toy_residual_network()), original = save_model(context, toy_residual_network(2));
  const ArrayDataset examples(context, data);
  const auto answers = [&](const Artifact& artifact) {
    Session session(load_model(context, artifact));
    std::vector<std::int64_t> every(50);
    for (std::size_t i = 0; i < 50; ++i) every[i] = static_cast<std::int64_t>(i);
    return session.run({{"image", examples.batch(every).at("image")}}).at("scores").to(at::kDouble);
  };
  const at::Tensor theirs = answers(original), own = answers(candidate);
  const at::Tensor p = theirs.softmax(1), q = own.softmax(1);
  const double kl = (p * (p.log() - q.log())).sum(1).mean().item<double>();
  const double same = theirs.argmax(1).eq(own.argmax(1)).to(at::kDouble).mean().item<double>();
  REQUIRE(kl > 1e-3);
  REQUIRE(same < 1);

  const auto compare = [&](const Artifact& left, const Artifact& right, Json parameters) {
    parameters["batch"] = 16;
    context.figures.clear();
    context.run("evaluator/agreement", parameters, {{"model", left}, {"original", right}, {"data", data}});
  };
  compare(candidate, original, Json::object());
  CHECK_THAT(context.figures.at("kl"), WithinAbs(kl, 1e-6));
  CHECK_THAT(context.figures.at("top1_agreement"), WithinAbs(same, 1e-12));
  CHECK(context.figures.at("whole_agreement") == context.figures.at("top1_agreement"));  // one position an example
  CHECK(context.figures.at("kl_low") < kl);
  CHECK(context.figures.at("kl_high") > kl);
  CHECK(context.figures.at("examples") == 50);
  CHECK(context.details.at("samples.kl").size() == 50);

  // Shares say the same as the scores they come from.
  compare(save_model(context, with_softmax(toy_residual_network())), original, {{"class_axis", -1}});
  CHECK_THAT(context.figures.at("kl"), WithinAbs(kl, 1e-5));
  compare(original, original, Json::object());
  CHECK(context.figures.at("kl") == 0);
  CHECK(context.figures.at("top1_agreement") == 1);

  compare(candidate, original, {{"answers", "values"}, {"limit", 20}});
  const at::Tensor a = theirs.narrow(0, 0, 20), b = own.narrow(0, 0, 20);
  CHECK_THAT(context.figures.at("relative_error"), WithinAbs(((b - a).norm(2, 1) / a.norm(2, 1)).mean().item<double>(), 1e-5));
  CHECK_THAT(context.figures.at("cosine"), WithinAbs(((a * b).sum(1) / (a.norm(2, 1) * b.norm(2, 1))).mean().item<double>(), 1e-5));

  CHECK_THROWS_WITH(compare(candidate, original, {{"class_axis", 0}}), ContainsSubstring("class_axis = 0 for answers of 2 axes"));
  CHECK_THROWS_WITH(compare(candidate, original, {{"class_axis", 2}}), ContainsSubstring("class_axis = 2"));
  CHECK_THROWS_WITH(compare(candidate, original, {{"window", 8}}), ContainsSubstring("window is of tokens"));
  CHECK_THROWS_WITH(context.run("evaluator/agreement", Json::object(), {{"model", candidate}, {"data", data}}),
                    ContainsSubstring("exactly one of original and original_package"));
}

namespace {

/// Three positions an example, 4 classes on the last axis: shares[n, 3, 4] = softmax(x[n, 3, 2] · W).
Graph reader(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> weight(8);
  for (auto& w : weight) w = static_cast<float>(random() % 2000) / 500 - 2;
  Graph graph;
  graph.inputs = {{"x", DType::f32, {Dim::symbol("batch"), 3, 2}}};
  graph.outputs = {{"shares", DType::f32, {Dim::symbol("batch"), 3, 4}}};
  graph.initializers["weight"] = Tensor::of(DType::f32, {2, 4}, weight);
  Node product, softmax;
  product.op = "MatMul", product.name = "product", product.inputs = {"x", "weight"}, product.outputs = {"scores"};
  softmax.op = "Softmax", softmax.name = "softmax", softmax.inputs = {"scores"}, softmax.outputs = {"shares"};
  softmax.attributes["axis"] = std::int64_t{-1};
  graph.nodes = {product, softmax};
  return graph;
}

}  // namespace

TEST_CASE("classes on the last axis are compared there, position by position") {
  const TemporaryFolder folder;
  TestContext context(folder);
  std::mt19937_64 random(3);
  std::vector<float> x(20 * 6);
  for (auto& value : x) value = static_cast<float>(random() % 2000) / 1000 - 1;
  const auto data = save_arrays(context, {{"x", Tensor::of(DType::f32, {20, 3, 2}, x)}}, {});
  const auto student = save_model(context, reader(1)), teacher = save_model(context, reader(2));
  const ArrayDataset examples(context, data);
  std::vector<std::int64_t> every(20);
  for (std::size_t i = 0; i < every.size(); ++i) every[i] = static_cast<std::int64_t>(i);
  const auto shares = [&](const Artifact& artifact) {
    Session session(load_model(context, artifact));
    return session.run({{"x", examples.batch(every).at("x")}}).at("shares").to(at::kDouble);
  };
  const at::Tensor p = shares(teacher), q = shares(student), same = p.argmax(2).eq(q.argmax(2));
  const double kl = (p * (p.log() - q.log())).sum(2).mean().item<double>();
  REQUIRE(kl > 0.01);

  context.run("evaluator/agreement", {{"class_axis", -1}}, {{"model", student}, {"original", teacher}, {"data", data}});
  CHECK_THAT(context.figures.at("kl"), WithinAbs(kl, 1e-5));
  const double positions = same.to(at::kDouble).mean().item<double>(), whole = same.all(1).to(at::kDouble).mean().item<double>();
  REQUIRE(whole < positions);
  CHECK_THAT(context.figures.at("top1_agreement"), WithinAbs(positions, 1e-12));
  CHECK_THAT(context.figures.at("whole_agreement"), WithinAbs(whole, 1e-12));

  // One step over all examples: the first loss is the same divergence, along the Softmax's own axis.
  context.run("distiller/distill", {{"steps", 1}, {"batch", 20}, {"warmup", 0}, {"losses", {{"soft", 1.0}, {"temperature", 1.0}}}},
              {{"student", student}, {"teacher", teacher}, {"data", data}});
  CHECK_THAT(context.figures.at("loss_first"), WithinAbs(kl, 1e-5));
}
