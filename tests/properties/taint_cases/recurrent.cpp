#include "../taint_cases.h"

namespace espalier::test {
namespace {

/// One step and no initial state: only then does a poisoned unit stay alone, before the others read it.
std::vector<SingleNode> recurrent() {
  std::vector<SingleNode> cases;
  const Attribute both = std::string("bidirectional");
  for (const auto& [op, gates] : std::vector<std::pair<const char*, std::int64_t>>{{"LSTM", 4}, {"GRU", 3}, {"RNN", 1}}) {
    const std::int64_t rows = gates * 5;
    // NaN times the state's zero is NaN, and R spreads it, where a GRU resets before its product; zero times zero is not.
    std::map<std::string, Attribute> plain, two{{"direction", both}, {"hidden_size", std::int64_t{5}}},
        turned{{"direction", both}, {"layout", one()}};
    if (std::string_view(op) == "GRU")
      for (auto* each : {&plain, &two, &turned}) (*each)["linear_before_reset"] = one();
    cases.push_back(single_node(op, {data({1, 3, 4}), data({1, rows, 4}), data({1, rows, 5}), data({1, 2 * rows})}, plain, 2));
    cases.push_back(single_node(op, {data({1, 3, 4}), data({2, rows, 4}), data({2, rows, 5}), data({2, 2 * rows})}, two, 2));
    cases.push_back(single_node(op, {data({3, 1, 4}), data({2, rows, 4}), data({2, rows, 5})}, turned, 1));
  }
  cases.push_back(single_node(
      "LSTM",
      {data({1, 3, 4}), data({1, 20, 4}), data({1, 20, 5}), data({1, 40}), absent(), absent(), data({1, 3, 5}), data({1, 15})}, {},
      3));
  return cases;
}

/// The states that these give are not made of all that the outputs are made of: here they are not asked for.
std::vector<SingleNode> with_state() {
  std::vector<SingleNode> cases;
  const std::map<std::string, Attribute> heads{{"q_num_heads", std::int64_t{6}}, {"kv_num_heads", std::int64_t{3}}};
  auto linear = heads;
  linear["update_rule"] = std::string("linear");
  cases.push_back(single_node("LinearAttention", {data({2, 4, 12}), data({2, 4, 6}), data({2, 4, 9})}, linear, 1, 27));
  cases.push_back(single_node(
      "LinearAttention", {data({2, 4, 12}), data({2, 4, 6}), data({2, 4, 9}), data({2, 3, 2, 3}), data({2, 4, 6}), data({2, 4, 3})},
      heads, 1, 27));
  cases.push_back(single_node("LinearAttention",
                              {data({2, 4, 12}), data({2, 4, 6}), data({2, 4, 9}), absent(), data({2, 4, 3}), data({2, 4, 1})},
                              heads, 1, 27));
  cases.push_back(single_node("CausalConvWithState", {data({2, 6, 5}), data({6, 1, 3}), data({6})}, {}, 1, 27));
  cases.push_back(single_node("CausalConvWithState", {data({2, 6, 1}), data({6, 1, 3}), absent(), data({2, 6, 2})},
                              {{"activation", std::string("silu")}}, 1, 27));
  return cases;
}

std::vector<SingleNode> losses() {
  std::vector<SingleNode> cases;
  const std::map<std::string, Attribute> each{{"reduction", std::string("none")}};
  for (const auto* op : {"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"}) {
    cases.push_back(single_node(op, {data({4, 3, 2}), table({4, 2}, {0, 1, 2, 0, 1, 2, 0, 1}), data({3})}, each));
    cases.push_back(single_node(op, {data({4, 3}), table({4}, {0, 1, 2, 0})}));
  }
  cases.push_back(single_node("SoftmaxCrossEntropyLoss", {data({4, 3, 2}), table({4, 2}, {0, 1, 2, 0, 1, 2, 0, 1})}, each, 2));
  return cases;
}

std::vector<SingleNode> windows() {
  return {single_node("Attention", {data({2, 6, 5, 4}), data({2, 3, 5, 4}), data({2, 3, 5, 4})},
                      {{"left_window_size", one()}, {"right_window_size", one()}}, 1, 25)};
}

const RegisterTaint registered[] = {RegisterTaint{recurrent}, RegisterTaint{with_state}, RegisterTaint{losses},
                                    RegisterTaint{windows}};

}  // namespace
}  // namespace espalier::test
