#include "cli/packed.h"

#include <unistd.h>

#include <cerrno>

#include "engine/tool.h"
#include "sdk/error.h"
#include "store/files.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

/// A folder beside the target that disappears unless it becomes the target.
class AsideFolder {
 public:
  explicit AsideFolder(const fs::path& target) : target_(target) {
    make_folders(target.parent_path());
    std::string name = (target.parent_path() / ("." + target.filename().string() + "-XXXXXX")).string();
    if (::mkdtemp(name.data()) == nullptr) throw_resource(target.parent_path(), "make a folder", errno);
    fs::permissions(name, fs::perms(0755));
    path_ = name;
  }
  ~AsideFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  void commit() {
    std::error_code error;
    if (fs::exists(target_)) fs::remove_all(target_, error);
    if (::rename(path_.c_str(), target_.c_str()) != 0) throw_resource(target_, "move a finished folder into place", errno);
    path_.clear();
  }

 private:
  fs::path target_, path_;
};

void copy_in(const fs::path& from, const fs::path& to) {
  make_folders(to.parent_path());
  std::error_code error;
  fs::copy_file(from, to, error);
  if (error) throw_resource(to, "copy from the store", error.value());
}

void write_text(const fs::path& file, const std::string& text) {
  AsideFile aside(file.parent_path());
  aside.write(std::as_bytes(std::span<const char>(text)));
  aside.commit(file);
}

/// The worker knows ONNX; this program knows no tensors.
void pack_model(const Store& store, const Digest& artifact, const fs::path& folder) {
  const Json request = {{"store", store.root().string()}, {"artifact", artifact.hex()}, {"out", folder.string()}};
  run_tool(ToolProgram::worker, "pack-model", request.dump());
}

bool may_replace(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) return true;
  if (!fs::is_directory(folder, error)) return false;
  if (fs::is_empty(folder, error)) return true;
  for (const char* mark : {"package.json", "manifest.json", "model.onnx"})
    if (fs::exists(folder / mark, error)) return true;
  return false;
}

}  // namespace

void write_packed(const Store& store, const Digest& digest, const fs::path& given) {
  fs::path folder = fs::absolute(given).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  if (!may_replace(folder)) throw_invalid("is there already, and is no packed artifact", folder.string(), "name another folder");
  const Artifact artifact = store.artifact(digest);
  for (const auto& [name, blob] : artifact.blobs)
    if (!store.has_blob(blob.digest))
      throw Error(ErrorCode::corrupt, "the blob of \"" + name + "\" is missing", store.blob_path(blob.digest).string(),
                  "run the recipe again");
  AsideFolder aside(folder);
  if (artifact.type == ArtifactType::model) {
    pack_model(store, digest, aside.path());
    const auto named = artifact.meta.find("tokenizer");
    const auto tokenizer =
        named != artifact.meta.end() && named->is_string() ? Digest::from_hex(named->get<std::string>()) : std::nullopt;
    if (tokenizer && store.has_blob(*tokenizer))
      for (const auto& [name, blob] : store.artifact(*tokenizer).blobs) copy_in(store.blob_path(blob.digest), aside.path() / name);
  } else {
    for (const auto& [name, blob] : artifact.blobs) copy_in(store.blob_path(blob.digest), aside.path() / name);
  }
  if (artifact.type != ArtifactType::package) write_text(aside.path() / "manifest.json", artifact.manifest() + "\n");
  aside.commit();
}

}  // namespace espalier
