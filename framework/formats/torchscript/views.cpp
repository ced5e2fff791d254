#include "formats/torchscript/views.h"

#include <limits>

#include "sdk/error.h"

namespace espalier::torchscript {
namespace {

constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max();

template <class Visit>
void each_tensor(Item& item, const Visit& visit) {
  if (item.kind == Item::Kind::tensor) visit(item);
  for (Item& inner : item.items) each_tensor(inner, visit);
}

std::string part(const Call& call, const std::string& base, std::int64_t axis, const std::string& begin, const std::string& end) {
  return call.add("Slice", {base, begin, end, call.list({axis})});
}

const std::string* written_by(const Item& item, const std::map<std::size_t, std::string>& stale) {
  if (item.kind == Item::Kind::tensor)
    if (const auto found = stale.find(item.object); found != stale.end()) return &found->second;
  for (const Item& inner : item.items)
    if (const auto* found = written_by(inner, stale)) return found;
  return nullptr;
}

}  // namespace

const Item& Environment::read(const Call* call, std::size_t value, const std::string& where) const {
  if (value >= slots_.size() || !slots_[value].set)
    throw_invalid("an operation reads a value that nothing makes", where, "the file is damaged");
  const Item& item = slots_[value].item;
  if (stale_.empty()) return item;
  if (const auto* writer = written_by(item, stale_)) {
    const std::string why = "it reads memory that " + *writer + " has written to through another view";
    const std::string hint = "write the model without assigning to parts of tensors in place";
    if (call) call->refuse(why, hint);
    throw_unsupported("an output of the model: " + why, where, hint);
  }
  return item;
}

void Environment::name(Item& item) {
  each_tensor(item, [this](Item& tensor) {
    if (tensor.storage == 0) tensor.storage = number();
    if (tensor.object == 0) tensor.object = number();
    current_.try_emplace(tensor.object, tensor.name);
  });
}

void Environment::set(std::size_t value, Item item) {
  name(item);
  slots_.at(value) = {std::move(item), true};
}

void Environment::write(const Call& call, const Item& self, const std::string& value) {
  std::map<std::size_t, std::string> renewed{{self.object, value}};
  write_back(call, self.object, value, renewed);
  for (Slot& slot : slots_)
    each_tensor(slot.item, [&](Item& tensor) {
      if (tensor.storage != self.storage) return;
      if (const auto found = renewed.find(tensor.object); found != renewed.end())
        tensor.name = found->second;
      else
        stale_.emplace(tensor.object, call.operation.kind);
    });
  for (const auto& [object, now] : renewed) current_[object] = now;
}

/// The base with its part replaced, and so on to the whole of the memory.
void Environment::write_back(const Call& call, std::size_t object, const std::string& value,
                             std::map<std::size_t, std::string>& renewed) {
  const auto found = views_.find(object);
  if (found == views_.end() || stale_.contains(found->second.base)) return;
  const ViewOf& of = found->second;
  const std::string& base = current_.at(of.base);
  std::vector<std::string> parts;
  if (!of.begin.constant() || of.begin.integer != 0)
    parts.push_back(part(call, base, of.axis, call.list({0}), call.length(of.begin)));
  parts.push_back(of.removes ? call.add("Unsqueeze", {value, call.list({of.axis})}) : value);
  if (!of.end.constant() || of.end.integer != kFar)
    parts.push_back(part(call, base, of.axis, call.length(of.end), call.list({kFar})));
  const std::string whole = parts.size() == 1 ? parts[0] : call.add("Concat", parts, {{"axis", of.axis}});
  renewed[of.base] = whole;
  write_back(call, of.base, whole, renewed);
}

}  // namespace espalier::torchscript
