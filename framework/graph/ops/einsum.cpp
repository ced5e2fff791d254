#include "graph/ops/einsum.h"

#include <algorithm>
#include <map>

#include "graph/ops/rules.h"

namespace espalier::ops {
namespace {

constexpr char kEllipsis = '.';

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::optional<std::string> parse_term(std::string_view text) {
  std::string term;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ' ') continue;
    if (text.substr(i, 3) == "...") {
      if (term.find(kEllipsis) != std::string::npos) return std::nullopt;
      term += kEllipsis;
      i += 2;
    } else if (is_letter(text[i])) {
      term += text[i];
    } else {
      return std::nullopt;
    }
  }
  return term;
}

/// Without "->" the letters that occur once, in order, behind the ellipsis.
std::string implied(const std::vector<std::string>& inputs) {
  std::map<char, int> times;
  for (const auto& term : inputs)
    for (char c : term) ++times[c];
  std::string out = times.contains(kEllipsis) ? std::string(1, kEllipsis) : "";
  for (const auto& [letter, n] : times)
    if (letter != kEllipsis && n == 1) out += letter;
  return out;
}

}  // namespace

std::string Equation::text() const {
  std::string out;
  const auto add = [&](const std::string& term) {
    for (char c : term) out += c == kEllipsis ? "..." : std::string(1, c);
  };
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (i > 0) out += ',';
    add(inputs[i]);
  }
  out += "->";
  add(output);
  return out;
}

std::optional<Equation> parse_equation(std::string_view text, std::size_t inputs, std::string& problem) {
  problem = "'" + std::string(text.substr(0, 200)) + "' is no equation of " + std::to_string(inputs) + " inputs";
  Equation equation;
  const auto arrow = text.find("->");
  std::string_view left = text.substr(0, arrow);
  for (bool more = true; more;) {
    const auto comma = left.find(',');
    const auto term = parse_term(left.substr(0, comma));
    if (!term) return std::nullopt;
    equation.inputs.push_back(*term);
    more = comma != std::string_view::npos;
    if (more) left.remove_prefix(comma + 1);
  }
  if (equation.inputs.size() != inputs) return std::nullopt;
  equation.output = implied(equation.inputs);
  if (arrow == std::string_view::npos) return equation;
  const bool spread = equation.output.find(kEllipsis) != std::string::npos;
  const auto output = parse_term(text.substr(arrow + 2));
  if (!output) return std::nullopt;
  equation.output = *output;
  problem =
      "the output of '" + std::string(text.substr(0, 200)) + "' has an axis twice, or one that no input has, or lacks the ellipsis";
  if (spread != (output->find(kEllipsis) != std::string::npos)) return std::nullopt;
  for (char c : *output) {
    const auto has = [c](const std::string& term) { return term.find(c) != std::string::npos; };
    if (std::count(output->begin(), output->end(), c) > 1 || std::none_of(equation.inputs.begin(), equation.inputs.end(), has))
      return std::nullopt;
  }
  return equation;
}

}  // namespace espalier::ops

namespace espalier {
namespace {

using namespace ops;

/// The equation over this node's shapes.
struct Terms {
  Equation equation;
  std::map<char, Dim> lengths;
  Shape ellipsis;
  std::vector<std::size_t> spread;  ///< by input: axes of its ellipsis

  explicit Terms(const NodeView& view) {
    std::string problem;
    const auto parsed = parse_equation(view.node.text("equation", ""), view.node.inputs.size(), problem);
    if (!parsed) view.fail(problem);
    equation = *parsed;
    for (std::size_t slot = 0; slot < equation.inputs.size(); ++slot) read(view, slot);
  }
  /// First axis of letter number `position` of a term.
  std::size_t axis(const std::string& term, std::size_t position, std::size_t spread_axes) const {
    const auto dots = term.find('.');
    return dots != std::string::npos && dots < position ? position + spread_axes - 1 : position;
  }

 private:
  void read(const NodeView& view, std::size_t slot) {
    const std::string& term = equation.inputs[slot];
    const Shape& shape = view.in(slot).shape;
    const bool dots = term.find('.') != std::string::npos;
    const std::size_t letters = term.size() - (dots ? 1 : 0);
    if (shape.size() < letters || (!dots && shape.size() != letters))
      view.fail("input " + std::to_string(slot) + " has shape " + text(shape) + ", the equation gives it " +
                std::to_string(letters) + " axes");
    spread.push_back(shape.size() - letters);
    for (std::size_t i = 0; i < term.size(); ++i) {
      const std::size_t at = axis(term, i, spread.back());
      if (term[i] == '.') {
        const auto begin = shape.begin() + static_cast<std::ptrdiff_t>(at);
        ellipsis = broadcast(view, ellipsis, Shape(begin, begin + static_cast<std::ptrdiff_t>(spread.back())));
        continue;
      }
      const auto [known, fresh] = lengths.try_emplace(term[i], shape[at]);
      if (!fresh) known->second = broadcast(view, {known->second}, {shape[at]})[0];
    }
  }
};

std::vector<ValueInfo> infer_einsum(const NodeView& view) {
  const Terms terms(view);
  std::vector<std::size_t> slots;
  for (std::size_t i = 0; i < view.node.inputs.size(); ++i) slots.push_back(i);
  same_types(view, slots);
  Shape out;
  for (char c : terms.equation.output) {
    if (c == '.')
      out.insert(out.end(), terms.ellipsis.begin(), terms.ellipsis.end());
    else
      out.push_back(terms.lengths.at(c));
  }
  return {value(view.in(0).dtype, std::move(out))};
}

void pin_all(AxisMaps& maps, const std::vector<AxisMaps::Port>& ports, const std::string& reason) {
  for (const auto& port : ports) maps.pin(port, reason);
}

/// A letter of the output is the same axis everywhere; one that is summed over is matched between its inputs. An axis of length 1
/// among longer ones is broadcast and says nothing; a diagonal is pinned.
void link_letter(const NodeView& view, const Terms& terms, char letter, AxisMaps& maps) {
  std::vector<AxisMaps::Port> members;
  bool diagonal = false, decided = true;
  const Dim& length = terms.lengths.at(letter);
  for (std::size_t slot = 0; slot < terms.equation.inputs.size(); ++slot) {
    const std::string& term = terms.equation.inputs[slot];
    diagonal = diagonal || std::count(term.begin(), term.end(), letter) > 1;
    for (std::size_t i = 0; i < term.size(); ++i) {
      if (term[i] != letter) continue;
      const std::size_t axis = terms.axis(term, i, terms.spread[slot]);
      const Dim& own = view.in(slot).shape[axis];
      if (own == Dim(1) && own != length) continue;
      decided = decided && own == length;
      members.push_back(AxisMaps::in(slot, axis));
    }
  }
  const auto place = terms.equation.output.find(letter);
  const bool summed = place == std::string::npos;
  if (!summed) members.push_back(AxisMaps::out(0, terms.axis(terms.equation.output, place, terms.ellipsis.size())));
  if (diagonal || !decided) return pin_all(maps, members, diagonal ? "a diagonal" : "a broadcast that is not decided");
  if (length == Dim(1)) return;
  if (summed && members.size() == 1) return maps.whole(members[0], false, "Einsum sums over this axis");
  for (std::size_t i = 0; i + 1 < members.size(); ++i) maps.same(members[i], members.back());
}

void link_ellipsis(const NodeView& view, const Terms& terms, AxisMaps& maps) {
  const auto place = terms.equation.output.find('.');
  if (place == std::string::npos) return;
  const std::size_t width = terms.ellipsis.size();
  for (std::size_t slot = 0; slot < terms.equation.inputs.size(); ++slot) {
    const auto dots = terms.equation.inputs[slot].find('.');
    for (std::size_t i = 0; dots != std::string::npos && i < terms.spread[slot]; ++i) {
      const auto a = AxisMaps::in(slot, dots + i), b = AxisMaps::out(0, place + width - terms.spread[slot] + i);
      const Dim &in = view.in(slot).shape[dots + i], &out = view.out(0).shape[b.axis];
      if (in == out && in != Dim(1)) maps.same(a, b);
      if (in != out && in != Dim(1)) pin_all(maps, {a, b}, "a broadcast that is not decided");
    }
  }
}

void axes_einsum(const NodeView& view, AxisMaps& maps) {
  const Terms terms(view);
  for (const auto& [letter, length] : terms.lengths) link_letter(view, terms, letter, maps);
  link_ellipsis(view, terms, maps);
}

/// As if all inputs were multiplied at once.
double macs_einsum(const NodeView& view, const Bindings& bindings) {
  const Terms terms(view);
  double n = elements(terms.ellipsis, bindings) * static_cast<double>(terms.equation.inputs.size() - 1);
  for (const auto& [letter, length] : terms.lengths) n *= static_cast<double>(evaluate(length, bindings));
  return n;
}

const RegisterOperator einsum{{"Einsum", "", 12, infer_einsum, axes_einsum, macs_einsum, nullptr, true}};

}  // namespace
}  // namespace espalier
