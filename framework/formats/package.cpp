#include "formats/package.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fstream>

#include "formats/bounds.h"
#include "formats/model_artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

constexpr int kSchema = 1;
constexpr const char* kDescription = "package.json";
constexpr const char* kTokenizer = "tokenizer.json";
constexpr std::uint64_t kCopyBelow = 1 << 20;
constexpr std::uint64_t kLongestDescription = 16 << 20;

/// A file's name in a package: relative, no part that climbs or hides.
bool plain_name(const std::string& name) {
  const fs::path path(name);
  if (name.empty() || name.size() > 1024 || path.is_absolute() || name.find('\0') != std::string::npos ||
      name.find('\\') != std::string::npos)
    return false;
  for (const auto& part : path) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

Json metadata(const Graph& graph, const char* key) {
  const auto found = graph.metadata.find(key);
  return found == graph.metadata.end() ? Json() : Json(found->second);
}

/// The same blocks under a second inode where the file system can; a runtime may then even write to its copy.
bool reflink(const fs::path& from, const fs::path& to) {
  const int in = ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
  if (in < 0) return false;
  const int out = ::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  const bool done = out >= 0 && ::ioctl(out, FICLONE, in) == 0;
  ::close(in);
  if (out >= 0) ::close(out);
  if (out >= 0 && !done) ::unlink(to.c_str());
  return done;
}

void lay_out(const fs::path& from, const fs::path& to, std::uint64_t size) {
  std::error_code error;
  if (size >= kCopyBelow) {
    if (reflink(from, to)) return;
    fs::create_hard_link(from, to, error);  // runtimes read through links; onnx's own checker does not
    if (!error) return;
  }
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (error) throw Error(ErrorCode::resource, "cannot be written: " + error.message(), to.string(), "is the disk full?");
}

[[noreturn]] void damaged(const std::string& message, const fs::path& where) {
  throw Error(ErrorCode::corrupt, message, where.string(), "export the package again");
}

void check_file(const fs::path& folder, const std::string& name, const Json& entry, bool check_digest) {
  const std::string where = (folder / kDescription).string();
  if (!plain_name(name)) throw_invalid("file name '" + name + "' leaves the package", where, "the package is damaged");
  const bool whole = entry.is_object() && entry.contains("size") && entry["size"].is_number_unsigned() &&
                     entry.contains("digest") && entry["digest"].is_string();
  const auto digest = whole ? Digest::from_hex(entry["digest"].get<std::string>()) : std::nullopt;
  if (!digest) throw_invalid("file '" + name + "' has no size or digest", where, "the package is damaged");
  const fs::path path = folder / name;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) damaged("the file is missing", path);
  const std::uint64_t size = fs::file_size(path, error);
  if (error || size != entry["size"].get<std::uint64_t>())
    damaged(fmt::format("the file has {} bytes, the package says {}", size, entry["size"].dump()), path);
  if (check_digest && sha256_file(path) != *digest) damaged("the file's bytes do not match its digest", path);
}

}  // namespace

Artifact save_package(Context& context, const Graph& model, const Artifact& model_artifact, const PackageSpec& spec) {
  Artifact package;
  package.type = ArtifactType::package;
  for (const auto& [name, file] : spec.files) {
    if (!plain_name(name) || name == kDescription || name == kTokenizer)
      throw Error(ErrorCode::internal, "a package cannot hold a file '" + name + "'");
    package.blobs[name] = context.put_file(file);
  }
  if (const auto tokenizer = model_artifact.blobs.find(kTokenizer); tokenizer != model_artifact.blobs.end())
    package.blobs[kTokenizer] = tokenizer->second;

  Json files = Json::object();
  std::uint64_t size = 0;
  for (const auto& [name, blob] : package.blobs) {
    files[name] = {{"digest", blob.digest.hex()}, {"size", blob.size}};
    size += blob.size;
  }
  Json provenance = spec.provenance;
  provenance["model"] = model_artifact.digest().hex();
  const Json tokenizer = metadata(model, "espalier.tokenizer"), task = metadata(model, "espalier.task");
  const Json description{{"schema", kSchema},
                         {"backend", spec.backend},
                         {"runtime", spec.runtime},
                         {"files", std::move(files)},
                         {"inputs", describe_values(model.inputs)},
                         {"outputs", describe_values(model.outputs)},
                         {"tokenizer", tokenizer},
                         {"task", task},
                         {"provenance", std::move(provenance)},
                         {"licence", metadata(model, "licence")},
                         {"options", spec.options}};
  const std::string text = description.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  package.blobs[kDescription] = context.put(std::as_bytes(std::span(text)));
  package.meta["backend"] = spec.backend;
  if (!tokenizer.is_null()) package.meta["tokenizer"] = tokenizer;
  if (!task.is_null()) package.meta["task"] = task;
  package.meta["size_bytes"] = size + text.size();
  for (const char* fact : {"macs", "activation_bytes"})
    if (const auto found = model_artifact.meta.find(fact); found != model_artifact.meta.end()) package.meta[fact] = *found;
  package.meta["parameters"] =
      model_artifact.meta.contains("parameters") ? model_artifact.meta["parameters"] : Json(model.parameter_count());
  return package;
}

fs::path unpack(Context& context, const Artifact& package) {
  const fs::path folder = context.scratch() / ("package-" + package.digest().hex().substr(0, 16));
  std::error_code error;
  for (const auto& [name, blob] : package.blobs) {
    if (!plain_name(name))
      throw Error(ErrorCode::corrupt, "file name '" + name + "' leaves the package", "package " + package.digest().hex());
    const fs::path from = context.path(blob), to = folder / name;
    // The name says what it holds: what an earlier call laid out whole is there already.
    if (fs::is_regular_file(to, error) && fs::file_size(to, error) == blob.size) continue;
    fs::create_directories(to.parent_path(), error);
    if (error) throw Error(ErrorCode::resource, "cannot be made: " + error.message(), to.parent_path().string());
    fs::remove(to, error);
    lay_out(from, to, blob.size);
  }
  return folder;
}

Json read_package(const fs::path& folder, bool check_digests) {
  const fs::path file = folder / kDescription;
  std::error_code error;
  if (!fs::is_regular_file(file, error))
    throw_invalid("there is no package.json", folder.string(), "is it the folder of an exported package?");
  if (fs::file_size(file, error) > kLongestDescription)
    throw_invalid("package.json has more than 16 MiB", folder.string(), "the package is damaged");
  const MappedFile mapped(file);
  Json description = parse_json({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, file.string());
  if (!description.is_object()) throw_invalid("package.json is no object", file.string(), "the package is damaged");
  const Json schema = description.value("schema", Json());
  if (!schema.is_number_integer()) throw_invalid("package.json names no schema", file.string(), "the package is damaged");
  if (schema != kSchema)
    throw_unsupported("package schema " + schema.dump(), file.string(), "this program reads schema 1; use a newer one");
  for (const char* key : {"backend", "files"}) {
    const bool there = description.contains(key) &&
                       (key == std::string_view("files") ? description[key].is_object() : description[key].is_string());
    if (!there) throw_invalid(fmt::format("package.json has no '{}'", key), file.string(), "the package is damaged");
  }
  for (const auto& [name, entry] : description["files"].items()) check_file(folder, name, entry, check_digests);
  return description;
}

}  // namespace espalier
