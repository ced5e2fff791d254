#include "formats/cutting.h"

#include <array>
#include <utility>

#include "sdk/error.h"

namespace espalier {

DelimiterBehavior delimiter_behavior(const std::string& name, const std::string& what, const std::string& where) {
  static constexpr std::array<std::pair<const char*, DelimiterBehavior>, 5> known = {
      {{"Removed", DelimiterBehavior::removed},
       {"Isolated", DelimiterBehavior::isolated},
       {"MergedWithPrevious", DelimiterBehavior::merged_with_previous},
       {"MergedWithNext", DelimiterBehavior::merged_with_next},
       {"Contiguous", DelimiterBehavior::contiguous}}};
  for (const auto& [text, behavior] : known) {
    if (name == text) return behavior;
  }
  throw_unsupported("the behaviour '" + name + "' of " + what, where,
                    "read are: Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

void Cutter::add(std::size_t end, bool delimiter) {
  bool joins = false;
  switch (behavior_) {
    case DelimiterBehavior::removed:
    case DelimiterBehavior::isolated:
      break;
    case DelimiterBehavior::contiguous:
      joins = delimiter == last_;
      break;
    case DelimiterBehavior::merged_with_previous:
      joins = delimiter && !last_;
      break;
    case DelimiterBehavior::merged_with_next:
      joins = !delimiter && last_;
      break;
  }
  if (!joins) flush();
  done_ = end;
  if (delimiter && behavior_ == DelimiterBehavior::removed) held_ = end;
  last_ = delimiter;
}

void Cutter::flush() {
  if (done_ > held_) {
    next_({piece_.text.substr(held_, done_ - held_), piece_.origin > held_ ? piece_.origin - held_ : 0});
  }
  held_ = done_;
}

}  // namespace espalier
