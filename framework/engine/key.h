#pragma once
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine/installation.h"
#include "recipe/plan.h"
#include "store/store.h"

namespace espalier {

/// Grows whenever the meaning of a key's fields changes; all older entries are then misses.
inline constexpr int kKeyFormat = 1;

struct StageKey {
  Digest digest;
  Json preimage;  ///< all fields of the key, for people and for `why`
};

/// SHA-256 over a typed encoding of JSON: objects by sorted names, 1 and 1.0 different (parameters are brought to their schema's
/// type before), negative zero as zero.
Digest key_digest(const Json& preimage);

/// Makes action keys: component, code identity, parameters by schema, input digests, seed, numeric profile, machine. Never a path,
/// a time or the name of a host. May be used from several threads.
class KeyMaker {
 public:
  KeyMaker(Store& store, const Catalog& catalog, Installation installation = Installation::current());

  /// `inputs`: port → digests of the artifacts on it. Throws Error(invalid_input) for a file that cannot be read.
  StageKey key(const Stage& stage, const std::map<std::string, std::vector<Digest>>& inputs);
  /// Bytes of all files that the stage's parameters name.
  std::uint64_t source_bytes(const Stage& stage) const;
  const Installation& installation() const { return installation_; }

 private:
  Json code(const ComponentInfo& component);
  Json parameters(const ComponentInfo& component, const Json& values);
  Json parameter(const ComponentInfo& component, const ParameterInfo& info, const Json& value);
  Json source(const std::filesystem::path& path);
  const ComponentInfo& component(const std::string& name) const;

  Store& store_;
  const Catalog& catalog_;
  Installation installation_;
  std::mutex mutex_;  // guards the two memos
  Json libraries_;
  std::map<std::string, std::string> runtimes_;
};

}  // namespace espalier
