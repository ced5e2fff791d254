#pragma once
/// Writes in place as functions: who shares memory with whom, and how a written view goes back into what it was taken from.
#include <map>
#include <set>
#include <string>
#include <vector>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {

/// A view that is a part of one axis of its base.
struct ViewOf {
  std::size_t base = 0;  ///< an object
  std::int64_t axis = 0;
  Item begin, end;
  bool removes = false;  ///< the axis is gone (select)
};

/// What the program's values are at this point of it.
class Environment {
 public:
  explicit Environment(std::size_t values) : slots_(values) {}

  /// Refuses a value whose memory somebody else has written to since: what it holds now is not known.
  const Item& read(const Call* call, std::size_t value, const std::string& where) const;
  /// Tensors that say nothing of their memory get their own.
  void set(std::size_t value, Item item);
  /// `self` was written to and now is `value` of the graph. Tensors of the same memory get to know it where that can be said.
  void write(const Call& call, const Item& self, const std::string& value);
  void remember(std::size_t view, ViewOf of) { views_[view] = std::move(of); }
  const Item& at(std::size_t value) const { return slots_.at(value).item; }
  std::size_t number() { return ++numbers_; }

 private:
  struct Slot {
    Item item;
    bool set = false;
  };
  void name(Item& item);
  void write_back(const Call& call, std::size_t object, const std::string& value, std::map<std::size_t, std::string>& renewed);

  std::vector<Slot> slots_;
  std::size_t numbers_ = 0;
  std::map<std::size_t, ViewOf> views_;
  std::map<std::size_t, std::string> current_;  // by object
  std::map<std::size_t, std::string> stale_;    // object → who wrote
};

}  // namespace espalier::torchscript
