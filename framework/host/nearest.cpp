#include <algorithm>
#include <cctype>

#include "host/catalog.h"

namespace espalier {
namespace {

constexpr std::size_t longest_name = 64;  // quadratic work: longer words are no slips of anything

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

/// Damerau–Levenshtein distance in its restricted form (optimal string alignment): insert, delete, replace, swap neighbours.
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.empty() || word.size() > longest_name) return std::nullopt;
  const std::string wanted = lower(word);
  std::optional<std::string> best;
  std::size_t best_distance = longest_name;
  for (const auto& candidate : candidates) {
    if (candidate.empty() || candidate.size() > longest_name) continue;
    const std::string other = lower(candidate);
    const std::size_t allowed = std::max<std::size_t>(1, std::max(wanted.size(), other.size()) / 3);
    const std::size_t gap = wanted.size() > other.size() ? wanted.size() - other.size() : other.size() - wanted.size();
    if (gap <= allowed) {
      const std::size_t d = distance(wanted, other);
      // One letter for one letter is another word, not a slip.
      if (d <= allowed && d < std::max(wanted.size(), other.size()) && d < best_distance) {
        best_distance = d;
        best = candidate;
      }
    }
    // "taylor" for "metric/taylor": the part after the kind was meant.
    const auto slash = other.rfind('/');
    if (slash != std::string::npos && wanted == other.substr(slash + 1) && best_distance > 0) {
      best_distance = 0;
      best = candidate;
    }
  }
  return best;
}

}  // namespace espalier
