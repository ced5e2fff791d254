/// Recurrent layers: LSTM (Hochreiter and Schmidhuber, 1997), GRU (Cho et al., 2014) and RNN. X [steps, batch, input], W
/// [directions, gates·hidden, input], R [directions, gates·hidden, hidden], B [directions, 2·gates·hidden], sequence_lens [batch],
/// initial_h and initial_c [directions, batch, hidden], P [directions, 3·hidden] → Y [steps, directions, batch, hidden], Y_h, Y_c.
#include "graph/ops/recurrent.h"

#include <algorithm>
#include <map>
#include <optional>

#include "graph/ops/rules.h"
#include "sdk/error.h"

namespace espalier {
namespace ops {
namespace {

using OptionalNumbers = std::vector<std::optional<double>>;

std::string label(const Node& node) { return "node '" + node.name + "' (" + node.op + ")"; }

std::string lower(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return word;
}

Activation::Kind kind_of(const Node& node, const std::string& name) {
  static const std::map<std::string, Activation::Kind> kinds{{"relu", Activation::relu},
                                                             {"tanh", Activation::tanh},
                                                             {"sigmoid", Activation::sigmoid},
                                                             {"affine", Activation::affine},
                                                             {"leakyrelu", Activation::leaky_relu},
                                                             {"thresholdedrelu", Activation::thresholded_relu},
                                                             {"scaledtanh", Activation::scaled_tanh},
                                                             {"hardsigmoid", Activation::hard_sigmoid},
                                                             {"elu", Activation::elu},
                                                             {"softsign", Activation::softsign},
                                                             {"softplus", Activation::softplus}};
  const auto found = kinds.find(lower(name));
  if (found == kinds.end()) throw_invalid("there is no activation '" + name + "'", label(node));
  return found->second;
}

bool takes_alpha(Activation::Kind kind) {
  return kind == Activation::affine || kind == Activation::leaky_relu || kind == Activation::thresholded_relu ||
         kind == Activation::scaled_tanh || kind == Activation::hard_sigmoid || kind == Activation::elu;
}
bool takes_beta(Activation::Kind kind) {
  return kind == Activation::affine || kind == Activation::scaled_tanh || kind == Activation::hard_sigmoid;
}
std::optional<double> default_alpha(Activation::Kind kind) {
  if (kind == Activation::leaky_relu) return 0.01;
  if (kind == Activation::hard_sigmoid) return 0.2;
  if (kind == Activation::thresholded_relu || kind == Activation::elu) return 1.0;
  return std::nullopt;
}
std::optional<double> default_beta(Activation::Kind kind) {
  return kind == Activation::hard_sigmoid ? std::optional(0.5) : std::nullopt;
}

/// The values of activation_alpha or activation_beta, one for each function that takes one, in order. A list as long as the
/// functions might also go by place; where that says something else, nobody can tell.
OptionalNumbers consumed(const Node& node, const char* attribute, const std::vector<Activation::Kind>& kinds,
                         bool (*takes)(Activation::Kind)) {
  OptionalNumbers out(kinds.size());
  const auto at = node.attributes.find(attribute);
  if (at == node.attributes.end()) return out;
  const auto* list = std::get_if<std::vector<double>>(&at->second);
  if (!list) throw_invalid(std::string(attribute) + " is no list of numbers", label(node));
  std::size_t next = 0;
  for (std::size_t i = 0; i < kinds.size(); ++i)
    if (takes(kinds[i]) && next < list->size()) out[i] = (*list)[next++];
  if (list->size() == kinds.size()) {
    for (std::size_t i = 0; i < kinds.size(); ++i)
      if (takes(kinds[i]) && out[i] != (*list)[i])
        throw_unsupported(std::string(attribute) + " can be read by order and by place, which differ", label(node));
  } else if (next < list->size()) {
    throw_invalid(std::string(attribute) + " has more values than functions that take one", label(node));
  }
  return out;
}

std::vector<Activation::Kind> kinds_of(const Node& node, std::size_t each, std::size_t directions) {
  std::vector<Activation::Kind> defaults{Activation::sigmoid, Activation::tanh, Activation::tanh}, kinds;
  if (each == 1) defaults = {Activation::tanh};
  const auto at = node.attributes.find("activations");
  if (at == node.attributes.end()) {
    for (std::size_t i = 0; i < each * directions; ++i) kinds.push_back(defaults[i % each]);
    return kinds;
  }
  const auto* names = std::get_if<std::vector<std::string>>(&at->second);
  if (!names) throw_invalid("activations is no list of names", label(node));
  // The schema's own default of RNN has two names even for one direction.
  const bool spare = node.op == "RNN" && directions == 1 && names->size() == 2;
  if (!spare && names->size() != each * directions)
    throw_invalid(std::to_string(names->size()) + " activations where " + std::to_string(each * directions) + " are needed",
                  label(node));
  for (std::size_t i = 0; i < each * directions; ++i) kinds.push_back(kind_of(node, (*names)[i]));
  return kinds;
}

}  // namespace

bool Activation::keeps_zero() const {
  if (kind == affine) return beta == 0;
  if (kind == hard_sigmoid) return beta <= 0;
  return kind != sigmoid && kind != softplus;
}

Recurrent::Recurrent(const Node& node) {
  const std::string direction = node.text("direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional")
    throw_invalid("direction is '" + direction + "'", label(node));
  gates = node.op == "LSTM" ? 4 : node.op == "GRU" ? 3 : 1;
  directions = direction == "bidirectional" ? 2 : 1;
  reverse = direction == "reverse";
  const std::int64_t layout = node.integer("layout", 0);
  if (layout != 0 && layout != 1) throw_invalid("layout is " + std::to_string(layout), label(node));
  batch_first = layout == 1;
  clip = node.number("clip", 0);
  if (node.has("clip") && !(clip > 0)) throw_invalid("clip is not positive", label(node));
  coupled = node.integer("input_forget", 0) != 0;
  linear_before_reset = node.op == "GRU" && node.integer("linear_before_reset", 0) != 0;

  const std::size_t each = node.op == "LSTM" ? 3 : node.op == "GRU" ? 2 : 1;
  const auto kinds = kinds_of(node, each, static_cast<std::size_t>(directions));
  const OptionalNumbers alphas = consumed(node, "activation_alpha", kinds, takes_alpha);
  const OptionalNumbers betas = consumed(node, "activation_beta", kinds, takes_beta);
  activations.resize(static_cast<std::size_t>(directions));
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const auto alpha = alphas[i] ? alphas[i] : default_alpha(kinds[i]), beta = betas[i] ? betas[i] : default_beta(kinds[i]);
    if ((takes_alpha(kinds[i]) && !alpha) || (takes_beta(kinds[i]) && !beta))
      throw_unsupported("activation " + std::to_string(i) + " has no default for its alpha and beta", label(node));
    activations[i / each].push_back({kinds[i], alpha.value_or(0), beta.value_or(0)});
  }
}

/// The first function is that of the gates, where any number is as good; an RNN has no other.
bool Recurrent::keeps_zero() const {
  for (const auto& functions : activations)
    for (std::size_t i = gates == 1 ? 0 : 1; i < functions.size(); ++i)
      if (!functions[i].keeps_zero()) return false;
  return true;
}

}  // namespace ops

namespace {

using namespace ops;
using Slots = RecurrentSlots;

struct Lengths {
  Dim steps, batch, input, hidden;
};

void check_shape(const NodeView& view, std::size_t slot, const Shape& wanted, const char* what) {
  if (!view.has(slot)) return;
  check_rank(view, slot, wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i)
    check_equal(view, view.in(slot).shape[i], wanted[i], "axis " + std::to_string(i) + " of " + what);
}

/// [directions, batch, hidden], or with layout 1 [batch, directions, hidden].
Shape state_shape(const Recurrent& r, const Lengths& l) {
  return r.batch_first ? Shape{l.batch, r.directions, l.hidden} : Shape{r.directions, l.batch, l.hidden};
}

Lengths lengths(const NodeView& view, const Recurrent& r) {
  for (std::size_t slot : {Slots::x, Slots::w, Slots::r}) check_rank(view, slot, 3);
  const Shape& x = view.in(Slots::x).shape;
  Lengths l{x[r.batch_first ? 1 : 0], x[r.batch_first ? 0 : 1], x[2], view.in(Slots::r).shape[2]};
  if (view.node.has("hidden_size")) {
    const std::int64_t given = view.node.integer("hidden_size", 0);
    if (given < 1) view.fail("hidden_size is " + std::to_string(given));
    check_equal(view, l.hidden, given, "R against hidden_size");
    l.hidden = given;
  }
  const Dim gates = l.hidden * r.gates;
  check_shape(view, Slots::w, {r.directions, gates, l.input}, "W");
  check_shape(view, Slots::r, {r.directions, gates, l.hidden}, "R");
  check_shape(view, Slots::b, {r.directions, gates * 2}, "B");
  check_shape(view, Slots::lengths, {l.batch}, "sequence_lens");
  check_shape(view, Slots::h, state_shape(r, l), "initial_h");
  if (view.node.op != "LSTM") return l;
  check_shape(view, Slots::c, state_shape(r, l), "initial_c");
  check_shape(view, Slots::p, {r.directions, l.hidden * 3}, "P");
  return l;
}

std::vector<ValueInfo> infer_recurrent(const NodeView& view) {
  const Recurrent r(view.node);
  const Lengths l = lengths(view, r);
  const DType type = view.in(Slots::x).dtype;
  Shape y = r.batch_first ? Shape{l.batch, l.steps, r.directions, l.hidden} : Shape{l.steps, r.directions, l.batch, l.hidden};
  std::vector<ValueInfo> out{value(type, std::move(y)), value(type, state_shape(r, l))};
  if (view.node.op == "LSTM") out.push_back(value(type, state_shape(r, l)));
  return out;
}

/// A node's axes: the step, the direction, the batch and the unit of inputs and outputs that have them.
class Axes {
 public:
  Axes(const NodeView& view, const Recurrent& r, std::int64_t hidden, AxisMaps& maps)
      : view_(view), r_(r), hidden_(hidden), maps_(maps) {}

  void link() {
    maps_.reduce(AxisMaps::in(Slots::x, 2), AxisMaps::in(Slots::w, 2));
    maps_.pin(AxisMaps::in(Slots::x, r_.batch_first ? 1 : 0), "steps of a recurrent layer");
    for (std::size_t slot = Slots::w; slot <= Slots::b; ++slot) direction(AxisMaps::in(slot, 0), slot);
    blocks(Slots::w, 1, r_.gates);
    blocks(Slots::r, 1, r_.gates);
    blocks(Slots::b, 1, 2 * r_.gates);
    maps_.same(AxisMaps::in(Slots::x, r_.batch_first ? 0 : 1), AxisMaps::in(Slots::lengths, 0));
    state(AxisMaps::in, Slots::h, view_.has(Slots::h));
    if (view_.node.op == "LSTM") {
      direction(AxisMaps::in(Slots::p, 0), Slots::p);
      blocks(Slots::p, 1, 3);
      state(AxisMaps::in, Slots::c, view_.has(Slots::c));
    }
    output();
    for (std::size_t slot = 1; slot < view_.node.outputs.size(); ++slot) state(AxisMaps::out, slot, true);
    // A unit is read by all units through its column of R.
    if (r_.keeps_zero())
      maps_.whole(unit(), true, "the units of a recurrent layer read each other");
    else
      maps_.whole(unit(), false, "an activation of this layer is not zero at zero");
  }

 private:
  static AxisMaps::Port unit() { return AxisMaps::in(Slots::r, 2); }

  void direction(AxisMaps::Port port, std::size_t slot) {
    if (r_.directions > 1 && (port.output || view_.has(slot))) maps_.pin(port, "directions of a recurrent layer");
  }

  /// Unit j is index j of each of `count` blocks of an axis; what the outputs are made of is linked with them too.
  void blocks(std::size_t slot, std::size_t axis, std::int64_t count) {
    for (std::int64_t i = 0; i < count && view_.has(slot); ++i) {
      maps_.range(unit(), 0, AxisMaps::in(slot, axis), i * hidden_, hidden_);
      for (std::size_t out = 0; out < view_.node.outputs.size(); ++out)
        maps_.range(AxisMaps::in(slot, axis), i * hidden_, AxisMaps::out(out, out == 0 ? 3 : 2), 0, hidden_);
    }
  }

  void state(AxisMaps::Port (*port)(std::size_t, std::size_t), std::size_t slot, bool there) {
    if (!there) return;
    maps_.same(unit(), port(slot, 2));
    maps_.same(AxisMaps::in(Slots::x, r_.batch_first ? 0 : 1), port(slot, r_.batch_first ? 0 : 1));
    direction(port(slot, r_.batch_first ? 1 : 0), slot);
    if (port(slot, 2).output) return;
    for (std::size_t out = 0; out < view_.node.outputs.size(); ++out)
      maps_.same(port(slot, 2), AxisMaps::out(out, out == 0 ? 3 : 2));
  }

  void output() {
    maps_.same(unit(), AxisMaps::out(0, 3));
    maps_.same(AxisMaps::in(Slots::x, r_.batch_first ? 0 : 1), AxisMaps::out(0, r_.batch_first ? 0 : 2));
    maps_.pin(AxisMaps::out(0, r_.batch_first ? 1 : 0), "steps of a recurrent layer");
    direction(AxisMaps::out(0, r_.batch_first ? 2 : 1), 0);
  }

  const NodeView& view_;
  const Recurrent& r_;
  std::int64_t hidden_;
  AxisMaps& maps_;
};

void axes_recurrent(const NodeView& view, AxisMaps& maps) {
  const Recurrent r(view.node);
  const Lengths l = lengths(view, r);
  bool known = l.hidden.known();
  for (std::size_t slot : {Slots::w, Slots::r, Slots::b, Slots::p})
    if (view.has(slot) && !(slot == Slots::p && view.node.op != "LSTM")) known = known && view.in(slot).shape[1].known();
  if (known) {
    Axes(view, r, l.hidden.value(), maps).link();
    return;
  }
  for (std::size_t slot = 0; slot < view.node.inputs.size(); ++slot) pin_input(view, maps, slot, "the hidden size is not known");
  for (std::size_t slot = 0; slot < view.node.outputs.size(); ++slot) pin_output(view, maps, slot, "the hidden size is not known");
}

double macs_recurrent(const NodeView& view, const Bindings& bindings) {
  const Recurrent r(view.node);
  const Lengths l = lengths(view, r);
  return elements({l.steps, l.batch, l.hidden * (r.directions * r.gates)}, bindings) *
         static_cast<double>(evaluate(l.input, bindings) + evaluate(l.hidden, bindings));
}

void adjust_recurrent(Adjust& adjust) {
  const auto* kept = adjust.kept(adjust.node.input(Slots::r), 2);
  if (!kept) return;
  if (kept->empty()) NodeView{adjust.graph, adjust.node, adjust.before}.fail("no unit is left");
  adjust.node.attributes["hidden_size"] = static_cast<std::int64_t>(kept->size());
}

// Up to opset 6 output_sequence said whether Y is wanted; its name says that too.
const bool registered = [] {
  for (const char* name : {"LSTM", "GRU", "RNN"})
    RegisterOperator({name, "", 1, infer_recurrent, axes_recurrent, macs_recurrent, adjust_recurrent, true});
  return true;
}();

}  // namespace
}  // namespace espalier
