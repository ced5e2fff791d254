#include "graph/shape.h"

#include <algorithm>
#include <limits>

#include "sdk/digest.h"
#include "sdk/error.h"

namespace espalier {
namespace {

// Expressions grow with hostile shape arithmetic (x·x·x…); past these sizes one is known by its digest alone.
constexpr std::size_t kLongestName = 512, kMostTerms = 64;
constexpr int kDeepest = 16;

std::int64_t add(std::int64_t a, std::int64_t b) {
  std::int64_t r;
  if (__builtin_add_overflow(a, b, &r))
    throw_invalid("a dimension overflows 64 bits: " + std::to_string(a) + " + " + std::to_string(b));
  return r;
}

std::int64_t multiply(std::int64_t a, std::int64_t b) {
  std::int64_t r;
  if (__builtin_mul_overflow(a, b, &r))
    throw_invalid("a dimension overflows 64 bits: " + std::to_string(a) + " * " + std::to_string(b));
  return r;
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0) throw_invalid("a dimension is divided by zero");
  if (b == -1) return multiply(a, -1);
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

std::string bounded(std::string name) {
  return name.size() <= kLongestName ? name : "expression_" + sha256(std::string_view(name)).hex().substr(0, 24);
}

/// "a*floor(b/2)" → its factors, split at stars outside parentheses.
std::vector<std::string> factors(const std::string& monomial) {
  std::vector<std::string> out(1);
  int depth = 0;
  for (char c : monomial) {
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (c == '*' && depth == 0)
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

std::string join(std::vector<std::string> parts) {
  std::sort(parts.begin(), parts.end());
  std::string out;
  for (const auto& p : parts) out += (out.empty() ? "" : "*") + p;
  return bounded(std::move(out));
}

/// What is left of `monomial` when the factors of `by` are taken out; nothing when one of them is missing.
std::optional<std::vector<std::string>> without(const std::string& monomial, const std::string& by) {
  std::vector<std::string> left = factors(monomial);
  for (const auto& f : factors(by)) {
    auto it = std::find(left.begin(), left.end(), f);
    if (it == left.end()) return std::nullopt;
    left.erase(it);
  }
  return left;
}

bool is_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

/// Reads what text() writes; `leaf` gives the meaning of a name. Fails (false) on anything else.
class DimReader {
 public:
  using Leaf = Dim (*)(const std::string& name, const void* context);
  DimReader(std::string_view text, Leaf leaf, const void* context) : text_(text), leaf_(leaf), context_(context) {}
  static Dim plain(std::string name) {
    Dim d;
    d.terms_[std::move(name)] = 1;
    return d;
  }
  static Dim sum_of(std::int64_t constant, std::map<std::string, std::int64_t> terms) {
    Dim d;
    d.constant_ = constant;
    std::erase_if(terms, [](const auto& t) { return t.second == 0; });
    if (terms.size() > kMostTerms) {
      d.terms_ = std::move(terms);
      std::string name = d.text();
      return plain("expression_" + sha256(std::string_view(name)).hex().substr(0, 24));
    }
    d.terms_ = std::move(terms);
    return d;
  }

  bool read(Dim& out) {
    bool ok = sum(out, 0);
    skip();
    return ok && at_ == text_.size();
  }

 private:
  void skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool sum(Dim& out, int depth) {
    bool minus = take('-');
    if (!product(out, depth)) return false;
    if (minus) out = Dim(-1) * out;
    for (;;) {
      if (take('+'))
        minus = false;
      else if (take('-'))
        minus = true;
      else
        return true;
      Dim next;
      if (!product(next, depth)) return false;
      out = minus ? out - next : out + next;
    }
  }
  bool product(Dim& out, int depth) {
    if (!atom(out, depth)) return false;
    while (take('*')) {
      Dim next;
      if (!atom(next, depth)) return false;
      out = out * next;
    }
    return true;
  }
  bool atom(Dim& out, int depth) {
    if (depth > kDeepest) return false;
    skip();
    if (at_ >= text_.size()) return false;
    if (take('(')) return sum(out, depth + 1) && take(')');
    const std::size_t begin = at_;
    if (is_digit(text_[at_])) {
      std::int64_t n = 0;
      for (; at_ < text_.size() && is_digit(text_[at_]); ++at_) {
        if (n > (std::numeric_limits<std::int64_t>::max() - 9) / 10) return false;
        n = n * 10 + (text_[at_] - '0');
      }
      out = Dim(n);
      return at_ >= text_.size() || !is_start(text_[at_]);
    }
    if (!is_start(text_[at_])) return false;
    while (at_ < text_.size() && (is_start(text_[at_]) || is_digit(text_[at_]) || text_[at_] == '.' || text_[at_] == ':')) ++at_;
    std::string name(text_.substr(begin, at_ - begin));
    if (at_ < text_.size() && text_[at_] == '(') {
      if (name == "floor") {
        Dim a, b;
        ++at_;
        if (!sum(a, depth + 1) || !take('/') || !sum(b, depth + 1) || !take(')') || b == Dim(0)) return false;
        out = floor_div(a, b);
        return true;
      }
      int open = 0;  // another function: known by its text
      do {
        open += text_[at_] == '(' ? 1 : text_[at_] == ')' ? -1 : 0;
        ++at_;
      } while (open > 0 && at_ < text_.size());
      if (open != 0) return false;
      name = std::string(text_.substr(begin, at_ - begin));
    }
    out = leaf_(name, context_);
    return true;
  }

  std::string_view text_;
  Leaf leaf_;
  const void* context_;
  std::size_t at_ = 0;
};

Dim Dim::symbol(std::string name) {
  if (name.empty()) throw_invalid("a symbolic dimension has no name");
  if (name.find_first_of("+-*/(") != std::string::npos && name.size() <= kLongestName) {
    Dim d;
    DimReader reader(
        name, [](const std::string& leaf, const void*) { return DimReader::plain(leaf); }, nullptr);
    if (reader.read(d)) return d;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == '*' || c == '(' || c == ')'; }, '_');
  }
  return DimReader::plain(bounded(std::move(name)));
}

std::int64_t Dim::value() const {
  if (!known()) throw Error(ErrorCode::internal, "the dimension " + text() + " is not known");
  return constant_;
}

std::string Dim::text() const {
  std::string out;
  for (const auto& [name, k] : terms_) {
    const std::string size =
        k == 1 || k == -1 ? name
                          : std::to_string(k < 0 ? 0 - static_cast<std::uint64_t>(k) : static_cast<std::uint64_t>(k)) + "*" + name;
    if (out.empty())
      out = (k < 0 ? "-" : "") + size;
    else
      out += (k < 0 ? " - " : " + ") + size;
  }
  if (out.empty()) return std::to_string(constant_);
  if (constant_ > 0) out += " + " + std::to_string(constant_);
  if (constant_ < 0) out += " - " + std::to_string(0 - static_cast<std::uint64_t>(constant_));
  return out;
}

Dim operator+(const Dim& a, const Dim& b) {
  if (a.known() && b.known()) return Dim(add(a.constant_, b.constant_));
  auto terms = a.terms_;
  for (const auto& [name, k] : b.terms_) terms[name] = add(terms[name], k);
  return DimReader::sum_of(add(a.constant_, b.constant_), std::move(terms));
}

Dim operator-(const Dim& a, const Dim& b) { return a + Dim(-1) * b; }

Dim operator*(const Dim& a, const Dim& b) {
  if (a.known() && b.known()) return Dim(multiply(a.constant_, b.constant_));
  if (a.terms_.size() * b.terms_.size() > kMostTerms) return DimReader::plain(join({"(" + a.text() + ")", "(" + b.text() + ")"}));
  std::map<std::string, std::int64_t> terms;
  auto put = [&](const std::string& name, std::int64_t k) { terms[name] = add(terms[name], k); };
  for (const auto& [name, k] : a.terms_) put(name, multiply(k, b.constant_));
  for (const auto& [name, k] : b.terms_) put(name, multiply(k, a.constant_));
  for (const auto& [x, kx] : a.terms_) {
    for (const auto& [y, ky] : b.terms_) {
      auto parts = factors(x), more = factors(y);
      parts.insert(parts.end(), more.begin(), more.end());
      put(join(std::move(parts)), multiply(kx, ky));
    }
  }
  return DimReader::sum_of(multiply(a.constant_, b.constant_), std::move(terms));
}

Dim floor_div(const Dim& a, const Dim& b) {
  if (b == Dim(0)) throw_invalid("a dimension (" + a.text() + ") is divided by zero");
  if (a == Dim(0) || b == Dim(1)) return a;
  if (a == b) return Dim(1);
  if (b.known()) {
    std::map<std::string, std::int64_t> terms;
    bool exact = true;
    for (const auto& [name, k] : a.terms_) {
      exact = exact && k % b.constant_ == 0;
      if (exact) terms[name] = floor_divide(k, b.constant_);
    }
    if (exact) return DimReader::sum_of(floor_divide(a.constant_, b.constant_), std::move(terms));
  } else if (b.constant_ == 0 && b.terms_.size() == 1 && a.constant_ == 0) {
    const auto& [by, k] = *b.terms_.begin();
    Dim out;
    bool exact = true;
    for (const auto& [name, n] : a.terms_) {
      auto left = without(name, by);
      exact = exact && left && n % k == 0;
      if (!exact) break;
      Dim share(floor_divide(n, k));
      out = out + (left->empty() ? share : share * DimReader::plain(join(*left)));
    }
    if (exact) return out;
  }
  return DimReader::plain(bounded("floor((" + a.text() + ")/(" + b.text() + "))"));
}

std::string text(const Shape& shape) {
  std::string out = "[";
  for (const Dim& d : shape) out += (out.size() > 1 ? ", " : "") + d.text();
  return out + "]";
}

std::optional<std::int64_t> element_count(const Shape& shape) {
  std::int64_t n = 1;
  bool zero = false;
  for (const Dim& d : shape) {
    if (!d.known()) return std::nullopt;
    zero = zero || d.constant() == 0;
  }
  if (zero) return 0;
  for (const Dim& d : shape) n = multiply(n, d.constant());
  return n;
}

std::int64_t evaluate(const Dim& dim, const std::map<std::string, std::int64_t>& bindings) {
  std::int64_t sum = dim.constant();
  auto leaf = [](const std::string& name, const void* context) {
    const auto& known = *static_cast<const std::map<std::string, std::int64_t>*>(context);
    auto it = known.find(name);
    return Dim(it == known.end() ? 1 : it->second);
  };
  for (const auto& [name, k] : dim.terms()) {
    Dim value(1);
    if (auto it = bindings.find(name); it != bindings.end())
      value = it->second;
    else if (Dim read; DimReader(name, leaf, &bindings).read(read) && read.known())
      value = read;
    sum = add(sum, multiply(k, value.value()));
  }
  return sum;
}

}  // namespace espalier
