#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "formats/model_writer.h"
#include "formats/torchscript/lowering.h"
#include "formats/torchscript/views.h"
#include "graph/passes.h"
#include "sdk/error.h"

namespace espalier::torchscript {
namespace {

std::map<std::string, Rule>& registry() {
  static std::map<std::string, Rule> rules;
  return rules;
}

constexpr const char* kSayInputs =
    "say it: inputs = [\"NAME: f32[batch,3,32,32]\"] of source/torchscript; or trace the model (torch.jit.trace keeps what it was "
    "traced "
    "with), or give torch.jit.save _extra_files={\"espalier.inputs\": \"NAME: f32[batch,3,32,32]\"}";

const std::string& hint_for(const std::string& kind) {
  static const std::string flow =
      "control flow that depends on the input is not read; trace the model (torch.jit.trace) with inputs of the kind you mean";
  static const std::string state = "the module changes itself; export it without state (use_cache=False, eval())";
  static const std::string other = "export the model to ONNX, or write it without this operator";
  if (kind == "prim::If" || kind == "prim::Loop") return flow;
  return kind == "prim::SetAttr" || kind == "prim::GetAttr" || kind == "prim::CallMethod" ? state : other;
}

class Lowering {
 public:
  Lowering(const Program& program, const InputTypes& types, const std::string& where)
      : program_(program), types_(types), where_(where), values_(program.values) {}

  Graph run() {
    for (const Argument& argument : program_.arguments) take(argument);
    count_readers();
    for (const Operation& operation : program_.operations) step(operation);
    give_outputs();
    builder_.graph.metadata = program_.metadata;
    remove_dead(builder_.graph);
    builder_.graph.sort();
    builder_.graph.validate();
    return std::move(builder_.graph);
  }

 private:
  void take(const Argument& argument) {
    const auto found = types_.find(argument.name);
    if (!argument.tensor) {
      values_.set(argument.value, Item{});  // of no use to the graph: optional arguments that nobody gave
      if (found != types_.end())
        throw_unsupported("input '" + argument.name + "' is of type " + argument.type, where_, "only tensors are inputs");
      return;
    }
    if (found == types_.end())
      throw_invalid("nothing is known of the type and shape of input '" + argument.name + "'", where_, kSayInputs);
    Value value = found->second;
    value.name = argument.name;
    builder_.input(value);
    values_.set(argument.value, Item::of_tensor(value.name));
  }

  /// Parameters that more than one operation reads keep their layout.
  void count_readers() {
    std::map<std::size_t, std::string> weights;
    std::map<std::string, std::size_t> readers;
    for (const Operation& operation : program_.operations) {
      if (!operation.weight.empty()) weights[operation.outputs.at(0)] = operation.weight;
      for (std::size_t input : operation.inputs)
        if (const auto found = weights.find(input); found != weights.end() && ++readers[found->second] > 1)
          many_.insert(found->second);
    }
  }

  void step(const Operation& operation) {
    if (operation.constant) {
      values_.set(operation.outputs.at(0), constant(operation, *operation.constant));
      return;
    }
    const Call naming(builder_, operation, {}, where_, shared_);
    std::vector<Item> inputs;
    for (std::size_t input : operation.inputs) inputs.push_back(values_.read(&naming, input, where_));
    Call call(builder_, operation, std::move(inputs), where_, shared_);
    Rule rule = find_rule(operation.kind);
    if (!rule && operation.in_place && operation.kind.ends_with('_'))
      rule = find_rule(operation.kind.substr(0, operation.kind.size() - 1));
    if (!rule) call.refuse("no such operator is read", hint_for(operation.kind));
    Item result = located(call, rule);
    if (operation.in_place) {
      Item self = call.inputs().at(0);
      if (const Tensor* known = self.kind == Item::Kind::tensor ? call.initializer(self.name) : nullptr;
          known && constants_.contains(self.storage))
        call.refuse("it writes to a constant of the model", "the module changes itself; export it without state");
      self.name = like_self(call, result);
      values_.write(call, self, self.name);
      if (!operation.outputs.empty()) values_.set(operation.outputs[0], std::move(self));
      return;
    }
    distribute(call, std::move(result));
  }

  /// An error of the graph's own rules does not know where in the program it happened.
  Item located(Call& call, Rule rule) const {
    try {
      return rule(call);
    } catch (const Error& error) {
      if (error.where() == where_) throw;
      call.refuse(error.message(), error.hint());
    } catch (const std::exception& error) {  // .at() of an operation with too few inputs
      call.refuse(std::string("it is malformed: ") + error.what(), "the file is damaged");
    }
  }

  /// What is written in place keeps type and shape of what it is written to.
  static std::string like_self(const Call& call, const Item& result) {
    const Item& self = call.inputs().at(0);
    if (self.kind != Item::Kind::tensor || result.kind != Item::Kind::tensor) call.refuse("what it writes to is no tensor");
    std::string value = call.cast(result.name, call.dtype(self.name));
    if (call.shape(value) != call.shape(self.name)) {
      std::vector<Item> lengths;
      for (std::size_t i = 0; i < call.rank(self.name); ++i) lengths.push_back(call.length_of(self.name, i));
      value = call.add("Expand", {value, call.lengths(lengths)});
    }
    return value;
  }

  void distribute(const Call& call, Item result) {
    const Operation& operation = call.operation;
    const bool several = operation.outputs.size() != 1;
    if (several && (result.kind != Item::Kind::list || result.items.size() < operation.outputs.size()))
      call.refuse(fmt::format("{} outputs are wanted of it", operation.outputs.size()));
    for (std::size_t i = 0; i < operation.outputs.size(); ++i) {
      Item item = several ? result.items[i] : result;
      own(call, i, item);
      remember_view(call, item);
      values_.set(operation.outputs[i], std::move(item));
    }
  }

  /// A result is a tensor of its own, unless the operator hands its input on; its memory is its own, unless it may be the input's.
  void own(const Call& call, std::size_t output, Item& item) {
    static const std::set<std::string, std::less<>> hands_on{"prim::ListConstruct",
                                                             "prim::TupleConstruct",
                                                             "prim::DictConstruct",
                                                             "prim::ListUnpack",
                                                             "prim::TupleUnpack",
                                                             "prim::TupleIndex",
                                                             "aten::__getitem__",
                                                             "aten::detach",
                                                             "aten::alias",
                                                             "aten::dropout",
                                                             "aten::feature_dropout",
                                                             "aten::alpha_dropout",
                                                             "aten::feature_alpha_dropout"};
    if (hands_on.contains(call.operation.kind)) return;
    const auto& shares = call.operation.shares;
    const auto input = output < shares.size() ? shares[output] : std::nullopt;
    const Item* with = input ? &call.inputs().at(*input) : nullptr;
    if (call.operation.kind == "aten::type_as") with = &call.inputs().at(0);  // its schema does not say so
    const auto visit = [&](Item& tensor) {
      tensor.storage = with && with->kind == Item::Kind::tensor ? with->storage : 0;
      tensor.object = values_.number();
    };
    if (item.kind == Item::Kind::tensor) visit(item);
    for (Item& each : item.items)
      if (each.kind == Item::Kind::tensor) visit(each);
  }

  void remember_view(const Call& call, const Item& item) {
    const std::string& kind = call.operation.kind;
    const bool slice = kind == "aten::slice", select = kind == "aten::select";
    if ((!slice && !select) || item.kind != Item::Kind::tensor || call.inputs()[0].kind != Item::Kind::tensor) return;
    if (slice && call.integer("step") != 1) return;
    constexpr std::int64_t far = std::numeric_limits<std::int64_t>::max();
    ViewOf view;
    view.base = call.inputs()[0].object;
    view.axis = static_cast<std::int64_t>(call.axis("dim", call.rank(call.inputs()[0].name)));
    view.begin = slice ? (call.given("start") ? call.item("start") : Item::of_integer(0)) : call.item("index");
    view.removes = select;
    if (slice) view.end = call.given("end") ? call.item("end") : Item::of_integer(far);
    if (select && !view.begin.constant()) return;
    if (select) view.end = Item::of_integer(view.begin.integer == -1 ? far : view.begin.integer + 1);
    values_.remember(item.object, view);
  }

  Item constant(const Operation& operation, const Literal& literal) {
    struct Maker {
      Lowering& self;
      const Operation& operation;
      Item operator()(std::monostate) const { return {}; }
      Item operator()(bool value) const { return Item::of_flag(value); }
      Item operator()(std::int64_t value) const { return Item::of_integer(value); }
      Item operator()(double value) const { return Item::of_number(value); }
      Item operator()(const std::string& value) const {
        Item item;
        item.kind = Item::Kind::text;
        item.name = value;
        return item;
      }
      Item operator()(const Tensor& value) const { return self.tensor(operation, value); }
      Item operator()(const Literals& values) const {
        std::vector<Item> items;
        for (const Literal& value : values) items.push_back(std::visit(*this, value.value));
        return Item::of_list(std::move(items));
      }
    };
    return std::visit(Maker{*this, operation}, literal.value);
  }

  /// One parameter is one initializer, however many constants it is.
  Item tensor(const Operation& operation, const Tensor& tensor) {
    const std::string& name = operation.weight;
    const auto found = name.empty() ? weights_.end() : weights_.find(name);
    std::string value;
    if (found != weights_.end() && builder_.graph.initializers.at(found->second).shape == tensor.shape) {
      value = found->second;
    } else {
      value = builder_.constant(tensor, name.empty() ? (tensor.shape.empty() ? "number" : "constant") : name);
      if (!name.empty() && found == weights_.end()) weights_[name] = value;
    }
    if (name.empty() || many_.contains(name)) shared_.insert(value);
    Item item = Item::of_tensor(value);
    auto& storage = storages_[value];
    if (storage == 0) storage = values_.number();
    constants_.insert(storage);
    item.storage = storage;
    return item;
  }

  void give_outputs() {
    std::vector<std::pair<std::string, Item>> outputs;
    for (std::size_t i = 0; i < program_.results.size(); ++i)
      collect(values_.read(nullptr, program_.results[i], where_), {}, outputs);
    if (outputs.empty()) throw_unsupported("the model returns no tensor", where_);
    std::set<std::string> taken;
    const bool named = program_.names.size() == outputs.size();
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      std::string name = named ? program_.names[i] : outputs[i].first;
      if (name.empty()) name = outputs.size() == 1 ? "output" : fmt::format("output.{}", i);
      while (!taken.insert(name).second || builder_.info(name)) name += "_";
      give(outputs[i].second.name, name);
    }
  }

  void collect(const Item& item, const std::string& name, std::vector<std::pair<std::string, Item>>& outputs) const {
    if (item.kind == Item::Kind::tensor) outputs.emplace_back(name, item);
    if (item.kind == Item::Kind::none) return;
    if (item.kind != Item::Kind::tensor && item.kind != Item::Kind::list)
      throw_unsupported("the model returns a number beside tensors", where_, "return tensors alone");
    for (std::size_t i = 0; i < item.items.size(); ++i) {
      std::string inner = i < item.keys.size() ? item.keys[i] : std::string();
      if (i >= item.keys.size() && !name.empty()) inner = fmt::format("{}.{}", name, i);
      collect(item.items[i], inner, outputs);
    }
  }

  void give(const std::string& value, const std::string& name) {
    const ValueInfo& info = *builder_.info(value);
    if (!info.rank_known || info.dtype == DType::undefined)
      throw_unsupported("the type and rank of output '" + name + "' cannot be derived", where_);
    Node node;
    node.op = "Identity";
    node.name = "/" + name + "/Identity";
    node.inputs = {value};
    node.outputs = {name};
    builder_.graph.nodes.push_back(std::move(node));
    builder_.graph.outputs.push_back({name, info.dtype, info.shape});
  }

  const Program& program_;
  const InputTypes& types_;
  const std::string& where_;
  Builder builder_;
  Environment values_;
  std::set<std::string> many_, shared_;
  std::map<std::string, std::string> weights_;
  std::map<std::string, std::size_t> storages_;
  std::set<std::size_t> constants_;  // memory of the model's own
};

}  // namespace

RegisterRule::RegisterRule(std::initializer_list<const char*> kinds, Rule rule) {
  for (const char* kind : kinds)
    if (!registry().emplace(kind, rule).second) throw Error(ErrorCode::internal, "two rules for one operator", kind);
}

Rule find_rule(const std::string& kind) {
  const auto found = registry().find(kind);
  return found == registry().end() ? nullptr : found->second;
}

Graph lower(const Program& program, const InputTypes& types, const std::string& where) {
  for (const auto& [name, type] : types) {
    const bool known =
        std::any_of(program.arguments.begin(), program.arguments.end(), [&](const Argument& a) { return a.name == name; });
    std::vector<std::string> names;
    for (const Argument& argument : program.arguments) names.push_back(argument.name);
    if (!known)
      throw_invalid(fmt::format("the model has no input '{}'", name), where, fmt::format("it has: {}", fmt::join(names, ", ")));
  }
  return Lowering(program, types, where).run();
}

}  // namespace espalier::torchscript
