#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "sdk/digest.h"

namespace espalier {

using Json = nlohmann::json;

/// The closed list of artifact types.
enum class ArtifactType { model, dataset, tokenizer, scores, masks, statistics, figures, package };
std::string_view to_string(ArtifactType type);
/// Throws Error(invalid_input) for a name that is not in the list.
ArtifactType artifact_type_from(std::string_view name);

struct BlobRef {
  Digest digest;
  std::uint64_t size = 0;
  bool operator==(const BlobRef&) const = default;
};

/// An artifact as the store keeps it: a small manifest that names its blobs. The digest of an artifact is the SHA-256 of
/// manifest(): JSON with sorted keys, no white space, no time stamps, no paths of this machine.
///
/// meta, by type (all keys optional unless said):
///   model      "task" ("causal-lm" | "image-classification" | …), "tokenizer" (digest of the tokenizer artifact), "parameters"
///   dataset    "kind": "tokens", "sequence", "count", "tokenizer", "tokens"
///   package    "backend": component that opens it (its code identity enters the key of every consumer), "tokenizer"
struct Artifact {
  ArtifactType type = ArtifactType::figures;
  Json meta = Json::object();
  std::map<std::string, BlobRef> blobs;  ///< logical name → bytes; names are relative paths without ".." (checked on parse)

  std::string manifest() const;
  Digest digest() const;
  /// Throws Error(corrupt) when the text is not a manifest.
  static Artifact parse(std::string_view manifest);
};

/// A read-only mapping of a file. Keeps the mapping alive as long as a copy of owner() lives. An empty file maps to an empty span.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws Error(resource) with the path and errno's text.
  explicit MappedFile(const std::filesystem::path& path);
  std::span<const std::byte> bytes() const { return bytes_; }
  std::shared_ptr<const void> owner() const { return owner_; }

  /// Gives the whole pages of `bytes` back to the system when `owner` is a mapping: they no longer count as this process's memory
  /// and are read again when touched. Does nothing for other owners.
  static void release(const std::shared_ptr<const void>& owner, std::span<const std::byte> bytes);

 private:
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
};

}  // namespace espalier
