#include <catch2/catch_test_macros.hpp>

#include "graph/passes.h"
#include "single_node.h"

using namespace espalier;

TEST_CASE("element types of a few bits are packed") {
  CHECK(byte_size(DType::i2, 5) == 2);
  CHECK(byte_size(DType::u2, 4) == 1);
  CHECK(byte_size(DType::f4e2m1, 3) == 2);
  CHECK(byte_size(DType::f8e8m0, 3) == 3);
  CHECK(byte_size(DType::i2, 0) == 0);
  CHECK_THROWS_AS(byte_size(DType::i2, -1), Error);
  for (std::int64_t type = 1; type <= kLastType; ++type)
    CHECK(dtype_from(to_string(static_cast<DType>(type))) == static_cast<DType>(type));
  CHECK(to_string(static_cast<DType>(kLastType + 1)) == "undefined");
  CHECK(is_floating(DType::f4e2m1));
  CHECK_FALSE(is_floating(DType::i2));
}

TEST_CASE("functions of one value link every axis") {
  for (const char* op : {"Asin", "Acos", "Atan", "Sinh", "Cosh", "Tan", "Asinh", "Atanh", "Softsign", "Selu", "Celu", "Mish",
                         "Shrink", "ThresholdedRelu", "Sign", "Dropout"}) {
    SingleNode n(op);
    n.input({sym("batch"), 8}, DType::bf16);
    INFO(op);
    CHECK(n.shape() == "[batch, 8]");
    CHECK(n.out().dtype == DType::bf16);
    CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
    CHECK(n.marks().empty());
  }
  CHECK(SingleNode("Acosh").input({2, 8}).marks() == Texts{"pin i0.0", "pin i0.1", "pin o0.0", "pin o0.1"});
  CHECK(SingleNode("Shrink").input({8}).set("lambd", -1.0).marks() == Texts{"pin i0.0", "pin o0.0"});
  SingleNode binarizer("Binarizer");
  binarizer.node.domain = "ai.onnx.ml";
  binarizer.graph.opsets["ai.onnx.ml"] = 1;
  binarizer.input({2, 8});
  CHECK(binarizer.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
  for (const char* op : {"IsNaN", "IsInf"}) CHECK(SingleNode(op).input({8}).out().dtype == DType::boolean);
}

TEST_CASE("functions refuse types that they do not compute with") {
  CHECK(SingleNode("Acos").input({2}, DType::i32).refusal() == "input 0 is of type int32");
  CHECK(SingleNode("Abs").input({2}, DType::f8e5m2).refusal() == "input 0 is of type float8e5m2");
  CHECK(SingleNode("Abs").input({2}, DType::u64).refusal().empty());
  CHECK(SingleNode("Neg").input({2}, DType::boolean).refusal() != "");
  CHECK(SingleNode("Shrink").input({2}, DType::i64).refusal() != "");
  CHECK(SingleNode("IsNaN").input({2}, DType::i64).refusal() == "the input is no floating value but int64");
  CHECK(SingleNode("BitwiseNot").input({2}).refusal() == "input 0 is of type float32");
  CHECK(SingleNode("BitwiseAnd").input({2}, DType::i4).input({2}, DType::i4).refusal() != "");
  CHECK(SingleNode("Add").input({2}, DType::boolean).input({2}, DType::boolean).refusal() != "");
  CHECK(SingleNode("Mean").input({2}, DType::i32).refusal() != "");
  CHECK(SingleNode("Equal").input({2}, DType::string).input({2}, DType::string).refusal() == "input 0 is of type string");
  CHECK(SingleNode("Equal").input({2}, DType::boolean).input({2}, DType::boolean).refusal().empty());
  CHECK(SingleNode("Xor").input({2}).input({2}).refusal() == "input 0 is no boolean but float32");
  CHECK(SingleNode("Where").input({2}, DType::boolean).input({2}, DType::string).input({2}, DType::string).refusal() != "");
  CHECK(SingleNode("Hardmax").input({2}, DType::i32).refusal() != "");
  CHECK(SingleNode("Dropout").input({2}, DType::i32).refusal() != "");
}

TEST_CASE("functions of several values tell bad nodes") {
  CHECK(SingleNode("BitShift").input({2}, DType::u8).input({2}, DType::u8).refusal() == "direction is ''");
  CHECK(SingleNode("BitShift").input({2}, DType::i8).input({2}, DType::i8).set("direction", std::string("LEFT")).refusal() != "");
  CHECK(SingleNode("Mod").input({2}).input({2}).refusal() == "fmod is 0, and the values are floating");
  CHECK(SingleNode("Mod", 28).input({2}).input({2}).refusal().empty());
  CHECK(SingleNode("Mod").input({2}).input({2}).set("fmod", std::int64_t{2}).refusal() == "fmod is 2");
  CHECK(SingleNode("PRelu").input({2, 3}).weight({4}).refusal() != "");
  CHECK(SingleNode("PRelu").input({3}).weight({2, 3}).refusal() == "slope [2, 3] does not broadcast to [3]");
  CHECK(SingleNode("PRelu").input({1, 3}).weight({2, 1}).refusal() != "");
  CHECK(SingleNode("PRelu").input({2, 8, 4}).weight({8, 1}).links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2=o0.2", "i1.0=o0.1"});
  CHECK(SingleNode("SwiGLU", 28).input({2, 3}).input({3}).refusal() == "inputs of shapes [2, 3] and [3]");
  CHECK(SingleNode("SwiGLU", 28).input({2, 3}).input({2, 1}).refusal() != "");
  CHECK(SingleNode("Sum").refusal() == "the node has 0 inputs");
  CHECK(SingleNode("Sum").input({2, 3}).input({3}).input({}).shape() == "[2, 3]");
  CHECK(SingleNode("Mod").input({2, 8}, DType::i32).input({8}, DType::i32).marks() == Texts{"pin i1.0"});
}

TEST_CASE("remainders of shape arithmetic are known") {
  const auto content = [](std::vector<std::int64_t> a, std::vector<std::int64_t> b, std::int64_t fmod) {
    return SingleNode("Mod").list(std::move(a)).list(std::move(b)).set("fmod", fmod).out().content;
  };
  CHECK(content({7, -7, 7, -7}, {3, 3, -3, -3}, 0) == std::vector<Dim>{1, 2, -2, -1});
  CHECK(content({7, -7, 7, -7}, {3, 3, -3, -3}, 1) == std::vector<Dim>{1, -1, 1, -1});
  CHECK(content({INT64_MIN}, {-1}, 0) == std::vector<Dim>{0});
  CHECK_FALSE(content({1}, {0}, 0));
}

TEST_CASE("casts tell which types they do not know") {
  const auto cast = [](const char* op, std::int64_t to) { return SingleNode(op, 28).input({2}).set("to", to).refusal(); };
  CHECK(cast("Cast", 0) == "cannot cast to element type 0");
  CHECK(cast("Cast", 27) == "a cast to element type 27");
  CHECK(cast("Cast", 8) == "a cast from float32 to string");
  CHECK(cast("Cast", 14) == "a cast from float32 to complex64");
  for (std::int64_t to : {17, 18, 19, 20, 21, 22, 23, 24, 25, 26}) CHECK(cast("Cast", to).empty());
  CHECK(cast("BitCast", 6).empty());
  CHECK(cast("BitCast", 7) == "the bits of float32 are no int64");
  CHECK(SingleNode("BitCast", 28).input({2}, DType::u8).set("to", std::int64_t{9}).refusal() == "bits that are read as bool");
  CHECK(SingleNode("Cast").input({2}, DType::string).set("to", std::int64_t{1}).refusal() != "");
  CHECK(SingleNode("Cast").input({2}).set("to", std::int64_t{24}).set("round_mode", std::string("odd")).refusal() ==
        "round_mode is 'odd'");
  CHECK(SingleNode("CastLike").input({2, 3}).input({}, DType::string).refusal() != "");
  SingleNode like("CastLike");
  like.input({2, 3}).input({7}, DType::i16);
  CHECK(like.out().dtype == DType::i16);
  CHECK(like.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
  CHECK(like.marks().empty());
}

TEST_CASE("CastLike becomes Cast where the type is known") {
  SingleNode n("CastLike");
  n.input({2, 3}).input({7}, DType::f16).set("saturate", std::int64_t{0});
  n.graph.outputs = {{"y", DType::f16, {2, 3}}};
  CHECK(optimize(n.graph, {"cast-like"})[0].changes == 1);
  CHECK(n.graph.nodes[0].op == "Cast");
  CHECK(n.graph.nodes[0].inputs == std::vector<std::string>{"x0"});
  CHECK(n.graph.nodes[0].integer("to", 0) == static_cast<std::int64_t>(DType::f16));
  CHECK(n.graph.nodes[0].integer("saturate", 1) == 0);
  CHECK(optimize(n.graph, {"cast-like"})[0].changes == 0);
}

TEST_CASE("Trilu and EyeLike stay where they are") {
  SingleNode n("Trilu");
  n.input({2, 6, 4, 5}).scalar(1);
  CHECK(n.shape() == "[2, 6, 4, 5]");
  CHECK(n.marks() == Texts{"pin i0.2", "pin i0.3"});
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2=o0.2", "i0.3=o0.3"});
  CHECK(SingleNode("Trilu").input({5}).refusal() == "input 0 has shape [5], matrices are needed");
  CHECK(SingleNode("Trilu").input({5, 5}).list({1, 2}).refusal() == "the diagonal is no one number");
  CHECK(SingleNode("Trilu").input({5, 5}).input({}).refusal() == "the diagonal is of type float32");

  SingleNode eye("EyeLike");
  eye.input({3, sym("n")}, DType::i32);
  CHECK(eye.out().dtype == DType::i32);
  CHECK(eye.marks() == Texts{"pin i0.0", "pin i0.1", "pin o0.0", "pin o0.1"});
  CHECK(SingleNode("EyeLike").input({3, 4}).set("dtype", std::int64_t{9}).out().dtype == DType::boolean);
  CHECK(SingleNode("EyeLike").input({3}).refusal() != "");
  CHECK(SingleNode("EyeLike").input({3, 4}).set("dtype", std::int64_t{99}).refusal() == "dtype is 99");
  CHECK(SingleNode("EyeLike").input({3, 4}).set("dtype", std::int64_t{8}).refusal() == "a matrix of type string");
}

TEST_CASE("Hardmax uses its axis whole") {
  CHECK(SingleNode("Hardmax").input({2, 3, 4}).marks() == Texts{"inexact i0.2"});
  CHECK(SingleNode("Hardmax", 11).input({2, 3, 4}).marks() == Texts{"inexact i0.1", "inexact i0.2"});
  CHECK(SingleNode("Hardmax").input({2, 3}).set("axis", std::int64_t{2}).refusal() != "");
  CHECK(SingleNode("Hardmax").input({}).refusal() != "");
}

TEST_CASE("Dropout hands its input on, and its mask only to nobody") {
  SingleNode n("Dropout");
  n.input({2, 8}).outputs(2);
  CHECK(n.out(1).dtype == DType::boolean);
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.0=o1.0", "i0.1=o0.1", "i0.1=o1.1"});
  CHECK(n.marks().empty());
  n.graph.outputs = {{"y1", DType::boolean, {2, 8}}};
  CHECK(n.marks() == Texts{"pin o1.0", "pin o1.1"});
  CHECK(SingleNode("Dropout", 7).input({2, 8}).outputs(2).out(1).dtype == DType::f32);
  CHECK(SingleNode("Dropout").input({2}).weight({2}).refusal() == "input 1 is no one number");
  CHECK(SingleNode("Dropout").input({2}).weight({}).weight({}).refusal() == "training_mode is no boolean");
}
