#include <catch2/catch_test_macros.hpp>

#include "single_node.h"

using namespace espalier;

namespace {
std::int64_t whole(std::int64_t n) { return n; }
}  // namespace

TEST_CASE("DFT and STFT infer lengths and pin what they transform") {
  SingleNode n("DFT");
  n.input({sym("b"), 3, sym("n"), 1});
  CHECK(n.shape() == "[b, 3, n, 2]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
  CHECK(n.marks() == Texts{"pin i0.2", "pin i0.3", "pin o0.2", "pin o0.3"});
  n.scalar(9).set("onesided", whole(1));
  CHECK(n.shape() == "[b, 3, 5, 2]");
  CHECK(SingleNode("DFT").input({1, 5, 2}).set("onesided", whole(1)).set("inverse", whole(1)).shape() == "[1, 8, 1]");
  CHECK(SingleNode("DFT", 17).input({1, 5, 6, 2}).set("axis", whole(2)).shape() == "[1, 5, 6, 2]");
  CHECK(SingleNode("DFT", 17).input({1, 5, 6, 2}).set("axis", whole(3)).refusal() != "");
  CHECK(SingleNode("DFT").input({1, 5, 2}).absent().scalar(-1).refusal() != "");
  CHECK(SingleNode("DFT").input({1, 5, 2}).absent().scalar(7).refusal() != "");
  CHECK(SingleNode("DFT").input({1, 5, 3}).refusal() != "");
  SingleNode somewhere("DFT");
  somewhere.input({1, 5, 2}).absent().input({}, DType::i64);
  CHECK(somewhere.out().shape.size() == 3);
  CHECK(somewhere.links().empty());
  CHECK(SingleNode("DFT").input({2}).refusal() != "");
  CHECK(SingleNode("DFT").input({1, 5, 2}).scalar(0).refusal() != "");
  CHECK(SingleNode("DFT").input({1, 5, 2}).set("onesided", whole(1)).refusal() != "");
  CHECK(SingleNode("STFT").input({sym("b"), 16, 1}).scalar(4).weight({8}).shape() == "[b, 3, 5, 2]");
  CHECK(SingleNode("STFT").input({1, 16, 2}).scalar(4).absent().scalar(8).set("onesided", whole(0)).shape() == "[1, 3, 8, 2]");
  CHECK(SingleNode("STFT").input({1, 16, 1}).scalar(4).weight({8}).scalar(7).refusal() != "");
  CHECK(SingleNode("STFT").input({1, 16, 1}).scalar(0).weight({8}).refusal() != "");
  CHECK(SingleNode("STFT").input({1, 16, 1}).scalar(4).weight({17}).refusal() != "");
  CHECK(SingleNode("STFT").input({16, 1}).scalar(4).refusal() != "");
}

TEST_CASE("windows and the mel scale have the size that is asked for") {
  CHECK(SingleNode("HannWindow").scalar(7).shape() == "[7]");
  CHECK(SingleNode("HannWindow").scalar(7).set("output_datatype", whole(11)).out().dtype == DType::f64);
  CHECK(SingleNode("HannWindow").scalar(7).set("output_datatype", whole(8)).refusal() != "");
  CHECK(SingleNode("HannWindow").scalar(7).set("output_datatype", whole(77)).refusal() != "");
  CHECK(SingleNode("BlackmanWindow").scalar(-1).refusal() != "");
  CHECK(SingleNode("HammingWindow").list({1, 2}).refusal() != "");
  CHECK(SingleNode("MelWeightMatrix").scalar(4).scalar(16).scalar(8000).weight({}).weight({}).shape() == "[9, 4]");
  CHECK(SingleNode("MelWeightMatrix").scalar(4).scalar(0).scalar(8000).weight({}).weight({}).refusal() != "");
}

TEST_CASE("norms over places keep channels, norms over groups cut whole groups") {
  SingleNode instance("InstanceNormalization");
  instance.input({sym("b"), 8, 4}).weight({8}).weight({8});
  CHECK(instance.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2=o0.2", "i1.0=o0.1", "i2.0=o0.1"});
  CHECK(instance.marks() == Texts{"inexact i0.2"});
  CHECK(SingleNode("InstanceNormalization").input({1, 8, 4}).weight({7}).weight({8}).refusal() != "");
  SingleNode group("GroupNormalization");
  group.input({1, 8, 4}).weight({8}).weight({8}).set("num_groups", whole(4));
  CHECK(group.links() == Texts{"i0.0=o0.0", "i0.1*2=o0.1*2", "i0.2=o0.2", "i1.0*2=o0.1*2", "i2.0*2=o0.1*2"});
  group.cut({{{"x0", 1}, {0, 1, 6, 7}}});
  CHECK(group.node.integer("num_groups", 0) == 2);
  SingleNode old("GroupNormalization", 18);
  old.input({1, 8, 4}).weight({4}).weight({4}).set("num_groups", whole(4));
  CHECK(old.links() == Texts{"i0.0=o0.0", "i0.1*2=o0.1*2", "i0.2=o0.2", "i1.0*1=o0.1*2", "i2.0*1=o0.1*2"});
  SingleNode single("GroupNormalization");
  single.input({1, 8, 4}).weight({8}).weight({8}).set("num_groups", whole(1));
  CHECK(single.marks() == Texts{"inexact i0.1", "inexact i0.2"});
  CHECK(SingleNode("GroupNormalization").input({1, 8, 4}).weight({8}).weight({8}).refusal() == "num_groups is missing");
  CHECK(SingleNode("GroupNormalization").input({1, 8, 4}).weight({8}).weight({8}).set("num_groups", whole(3)).refusal() != "");
  CHECK(SingleNode("GroupNormalization").input({1, 8, 4}).weight({8}).weight({8}).set("num_groups", whole(0)).refusal() != "");
  CHECK(SingleNode("MeanVarianceNormalization").input({1, 8, 4}).refusal() != "");
  CHECK(SingleNode("MeanVarianceNormalization").input({1, 8, 4}).ints("axes", {1, 1}).refusal() != "");
  CHECK(SingleNode("LRN").input({1, 8, 4}).refusal() == "size is missing");
  CHECK(SingleNode("LRN").input({1, 8, 4}).set("size", whole(0)).refusal() != "");
  CHECK(SingleNode("LRN").input({1, 8, 4}).set("size", whole(3)).marks() == Texts{"pin i0.1"});
  CHECK(SingleNode("LayerNormalization").input({1, 8}).weight({8}).set("stash_type", whole(7)).refusal() != "");
}
