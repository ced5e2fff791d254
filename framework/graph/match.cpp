#include "graph/match.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "sdk/error.h"

namespace espalier {
namespace {

std::string quoted(const Node& node) { return fmt::format("{}'{}'", node.domain.empty() ? "" : node.domain + "::", node.op); }

bool same_number(double a, double b) { return static_cast<float>(a) == static_cast<float>(b); }  // files hold single precision

std::string text_of(const Attribute* attribute) {
  if (!attribute) return "absent";
  if (const auto* integer = std::get_if<std::int64_t>(attribute)) return std::to_string(*integer);
  if (const auto* number = std::get_if<double>(attribute)) return fmt::format("{:.6g}", *number);
  if (const auto* word = std::get_if<std::string>(attribute)) return "\"" + *word + "\"";
  if (const auto* list = std::get_if<std::vector<std::int64_t>>(attribute)) return fmt::format("[{}]", fmt::join(*list, ", "));
  return "of another kind";
}

bool same_attribute(const Attribute& a, const Attribute& b) {
  if (a.index() != b.index()) return false;
  if (const auto* number = std::get_if<double>(&a)) return same_number(*number, std::get<double>(b));
  if (const auto* integer = std::get_if<std::int64_t>(&a)) return *integer == std::get<std::int64_t>(b);
  if (const auto* word = std::get_if<std::string>(&a)) return *word == std::get<std::string>(b);
  if (const auto* list = std::get_if<std::vector<std::int64_t>>(&a)) return *list == std::get<std::vector<std::int64_t>>(b);
  return false;
}

std::size_t input_count(const Node& node) {
  std::size_t count = node.inputs.size();
  while (count > 0 && node.inputs[count - 1].empty()) --count;
  return count;
}

bool same_constant(const Tensor& a, const Tensor& b) {
  if (a.dtype != DType::f32) return std::ranges::equal(a.bytes, b.bytes) && a.strings == b.strings;
  const auto x = a.as<float>(), y = b.as<float>();
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!(std::abs(x[i] - y[i]) <= 2e-6F * (1 + std::abs(y[i])))) return false;
  return true;
}

class Matcher {
 public:
  Matcher(const Graph& given, const Graph& expected) : given_(given), expected_(expected), makes_(given), wants_(expected) {}

  GraphMatch run() {
    begin();
    while (match_ && !todo_.empty()) {
      const auto [want, have] = todo_.back();
      todo_.pop_back();
      compare(want, have);
    }
    match_.matched = pairs_.size();
    return std::move(match_);
  }

 private:
  static bool has(const std::vector<Value>& values, const std::string& name) {
    return std::any_of(values.begin(), values.end(), [&](const Value& value) { return value.name == name; });
  }
  void differ(std::string at, std::string difference) {
    match_.at = std::move(at);
    match_.difference = std::move(difference);
  }

  void begin() {
    for (const Value& output : given_.outputs)
      if (!has(expected_.outputs, output.name)) return differ(output.name, "the graph has an output more");
    for (const Value& output : expected_.outputs) {
      if (!has(given_.outputs, output.name)) return differ(output.name, "the graph has no such output");
      todo_.emplace_back(output.name, output.name);
    }
  }

  const Node* given_producer(const std::string& value) const {
    const auto node = makes_.producer_of(value);
    return node < 0 ? nullptr : &given_.nodes[static_cast<std::size_t>(node)];
  }

  /// Past nodes that hand a value on unchanged.
  std::string through(std::string value) const {
    for (const Node* node = given_producer(value); node && node->domain.empty() && node->op == "Identity";
         node = given_producer(value))
      value = node->input(0);
    return value;
  }
  std::string stored(const std::string& value) const {
    const Node* node = given_producer(through(value));
    if (!node || node->op != "Cast" || !node->domain.empty()) return through(value);
    const std::string from = through(node->input(0));
    const Tensor* tensor = given_.initializer(from);
    const bool half = tensor && (tensor->dtype == DType::f16 || tensor->dtype == DType::bf16);
    return half && node->integer("to", 0) == static_cast<std::int64_t>(DType::f32) ? from : through(value);
  }

  void compare(const std::string& want, const std::string& have_named) {
    if (want.empty() || have_named.empty()) {
      if (want != have_named) differ(want + have_named, "an optional input is there on one side only");
      return;
    }
    const std::string have = through(have_named);
    if (const Tensor* constant = expected_.initializer(want)) {  // of which the given graph may have several copies
      if (constants_.emplace(want, have).second) compare_constant(want, *constant, have);
      return;
    }
    const auto [pair, fresh] = pairs_.try_emplace(want, have);
    if (!fresh) {
      if (pair->second != have) differ(have, fmt::format("another value than '{}' is read here", pair->second));
      return;
    }
    if (has(expected_.inputs, want)) {
      if (have != want) differ(have, fmt::format("the input '{}' is expected here", want));
    } else if (const auto node = wants_.producer_of(want); node >= 0) {
      compare_nodes(expected_.nodes[static_cast<std::size_t>(node)], want, have);
    } else {
      take_weight(want, have);
    }
  }

  void compare_constant(const std::string& want, const Tensor& constant, const std::string& have) {
    const Tensor* tensor = given_.initializer(have);
    if (!tensor) return differ(have, fmt::format("the constant '{}' is expected here", want));
    if (tensor->dtype != constant.dtype || tensor->shape != constant.shape)
      return differ(have,
                    fmt::format("a constant {} [{}] stands where '{}', {} [{}], is expected", to_string(tensor->dtype),
                                fmt::join(tensor->shape, ", "), want, to_string(constant.dtype), fmt::join(constant.shape, ", ")));
    if (!same_constant(*tensor, constant)) differ(have, fmt::format("the constant has other values than '{}'", want));
  }

  void take_weight(const std::string& want, const std::string& have) {
    const std::string name = stored(have);
    const Tensor* tensor = given_.initializer(name);
    if (!tensor) {
      const Node* node = given_producer(name);
      if (!node) return differ(name, fmt::format("the weight '{}' is expected here, not an input", want));
      return differ(node->name, fmt::format("{} makes what should be the stored weight '{}'", quoted(*node), want));
    }
    if (tensor->dtype != DType::f32 && tensor->dtype != DType::f16 && tensor->dtype != DType::bf16)
      return differ(name, fmt::format("the weight is {}; f32, f16 and bf16 are expected", to_string(tensor->dtype)));
    match_.weights[want] = name;
  }

  void compare_nodes(const Node& want, const std::string& output, const std::string& have) {
    const Node* node = given_producer(have);
    if (!node) return differ(have, fmt::format("it is read where the result of {} ({}) is expected", quoted(want), want.name));
    if (node->op != want.op || node->domain != want.domain)
      return differ(node->name, fmt::format("{} stands where {} ({}) is expected", quoted(*node), quoted(want), want.name));
    const auto place = [](const Node& of, const std::string& value) {
      return std::find(of.outputs.begin(), of.outputs.end(), value) - of.outputs.begin();
    };
    if (place(*node, have) != place(want, output)) return differ(node->name, "another output of the node is read");
    const std::size_t count = input_count(want);
    if (input_count(*node) != count)
      return differ(node->name, fmt::format("it has {} inputs where {} are expected", input_count(*node), count));
    if (!same_attributes(*node, want)) return;
    for (std::size_t i = 0; i < count; ++i) todo_.emplace_back(want.inputs[i], node->inputs[i]);
  }

  bool same_attributes(const Node& have, const Node& want) {
    const auto of = [](const Node& node, const std::string& name) -> const Attribute* {
      const auto found = node.attributes.find(name);
      return found == node.attributes.end() ? nullptr : &found->second;
    };
    for (const Node* side : {&have, &want})
      for (const auto& [name, ignored] : side->attributes) {
        const Attribute *a = of(have, name), *b = of(want, name);
        if (a && b && same_attribute(*a, *b)) continue;
        differ(have.name, fmt::format("{} of {} is {} where {} is expected", name, quoted(have), text_of(a), text_of(b)));
        return false;
      }
    return true;
  }

  const Graph &given_, &expected_;
  const Uses makes_, wants_;
  GraphMatch match_;
  std::map<std::string, std::string> pairs_;  // expected value → given value
  std::set<std::pair<std::string, std::string>> constants_;
  std::vector<std::pair<std::string, std::string>> todo_;
};

}  // namespace

GraphMatch match_graphs(const Graph& given, const Graph& expected) { return Matcher(given, expected).run(); }

}  // namespace espalier
