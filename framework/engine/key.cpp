#include "engine/key.h"

#include <string.h>

#include <bit>
#include <cmath>

#include "host/parameter.h"
#include "sdk/error.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kFolderFiles = 10000;

void encode(KeyEncoder& encoder, const Json& json) {
  switch (json.type()) {
    case Json::value_t::object:
      encoder.begin("object");
      for (const auto& [name, value] : json.items()) {
        encoder.text(name);
        encode(encoder, value);
      }
      encoder.end();
      break;
    case Json::value_t::array:
      encoder.begin("array");
      for (const Json& value : json) encode(encoder, value);
      encoder.end();
      break;
    case Json::value_t::string:
      encoder.text(json.get_ref<const std::string&>());
      break;
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      encoder.integer(json.get<std::int64_t>());
      break;
    case Json::value_t::number_float:
      encoder.begin("number");
      encoder.integer(std::bit_cast<std::int64_t>(json.get<double>() == 0 ? 0.0 : json.get<double>()));
      encoder.end();
      break;
    case Json::value_t::boolean:
      encoder.begin(json.get<bool>() ? "true" : "false");
      encoder.end();
      break;
    default:
      encoder.begin("null");
      encoder.end();
  }
}

/// Files beside an ONNX model that its external tensors name. Every such name stands in the file as a map entry, key "location":
/// its bytes are searched for, in sub-graphs and attributes too, without parsing.
std::vector<std::string> external_locations(const fs::path& file) {
  static constexpr char kMark[] = "\x0a\x08location\x12";
  constexpr std::size_t mark = sizeof kMark - 1;
  const MappedFile mapped(file);
  const auto* at = reinterpret_cast<const char*>(mapped.bytes().data());
  const char* const end = at + mapped.bytes().size();
  std::set<std::string> found;
  while (at < end) {
    at = static_cast<const char*>(::memmem(at, static_cast<std::size_t>(end - at), kMark, mark));
    if (at == nullptr) break;
    at += mark;
    std::uint64_t length = 0;
    int shift = 0;
    while (at < end && shift < 28) {
      const auto byte = static_cast<unsigned char>(*at++);
      length |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      shift += 7;
      if (byte < 0x80) break;
    }
    if (length <= 4096 && length <= static_cast<std::uint64_t>(end - at)) found.emplace(at, length);
  }
  return {found.begin(), found.end()};
}

void add_bytes(std::uint64_t& bytes, const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (const auto& item : fs::recursive_directory_iterator(path, error))
      if (item.is_regular_file(error)) bytes += item.file_size(error);
  } else if (const auto size = fs::file_size(path, error); !error) {
    bytes += size;
  }
}

/// What a stage's result depends on beside its inputs, its own components included.
struct Depends {
  bool seed = false, threads = false, byte_exact = true;
};

void add_depends(Depends& all, const Catalog& catalog, const ComponentInfo& component, const Json& values) {
  all.seed = all.seed || component.uses_seed;
  all.threads = all.threads || component.uses_threads;
  all.byte_exact = all.byte_exact && component.byte_exact;
  for (const ParameterInfo& info : component.parameters) {
    const auto given = values.find(info.name);
    for (const Json& one : components_in(info, given == values.end() ? info.default_value : *given))
      if (const ComponentInfo* inner = catalog.find(one.value("use", ""))) add_depends(all, catalog, *inner, one);
  }
}

void add_source_bytes(std::uint64_t& bytes, const Catalog& catalog, const ComponentInfo& component, const Json& values) {
  for (const ParameterInfo& info : component.parameters) {
    const auto value = values.find(info.name);
    if (value == values.end()) continue;
    if (info.type == "path" && value->is_string()) add_bytes(bytes, value->get<std::string>());
    if (info.type == "list<path>")
      for (const Json& path : *value)
        if (path.is_string()) add_bytes(bytes, path.get<std::string>());
    for (const Json& one : components_in(info, *value))
      if (const ComponentInfo* inner = catalog.find(one.value("use", ""))) add_source_bytes(bytes, catalog, *inner, one);
  }
}

}  // namespace

Digest key_digest(const Json& preimage) {
  KeyEncoder encoder;
  encode(encoder, preimage);
  return encoder.finish();
}

KeyMaker::KeyMaker(Store& store, const Catalog& catalog, Installation installation)
    : store_(store), catalog_(catalog), installation_(std::move(installation)) {}

const ComponentInfo& KeyMaker::component(const std::string& name) const {
  const ComponentInfo* info = catalog_.find(name);
  if (info == nullptr)
    throw_invalid("no installed plugin offers the component \"" + name + "\"", {}, "espalier plugins lists what there is");
  return *info;
}

Json KeyMaker::code(const ComponentInfo& component) {
  const std::string plugin = store_.file_digest(component.file).hex();
  const std::lock_guard guard(mutex_);
  if (libraries_.is_null()) {
    Json libraries = Json::object();
    for (const fs::path& file : installation_.code()) libraries[file.filename().string()] = store_.file_digest(file).hex();
    libraries_ = std::move(libraries);
  }
  Json runtimes = Json::object();
  for (const std::string& runtime : component.runtimes) {
    auto known = runtimes_.find(runtime);
    if (known == runtimes_.end()) known = runtimes_.emplace(runtime, installation_.runtime_version(runtime)).first;
    runtimes[runtime] = known->second;
  }
  return {{"plugin", plugin}, {"libraries", libraries_}, {"runtimes", runtimes}};
}

Json KeyMaker::source(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    Json files = Json::object();
    for (const auto& item : fs::recursive_directory_iterator(path)) {
      if (!item.is_regular_file()) continue;
      if (files.size() >= kFolderFiles)
        throw_invalid("the folder holds more than 10000 files", path.string(), "name the files instead");
      files[fs::relative(item.path(), path).generic_string()] = store_.file_digest(item.path()).hex();
    }
    return {{"folder", files}};
  }
  const Digest digest = store_.file_digest(path);
  Json identity = {{"file", digest.hex()}};
  if (path.extension() != ".onnx") return identity;
  auto known = store_.derived("onnx-external", digest);
  if (!known) {
    known = Json(external_locations(path)).dump(-1, ' ', false, Json::error_handler_t::replace);
    store_.remember_derived("onnx-external", digest, *known);
  }
  Json external = Json::object();
  for (const Json& location : Json::parse(*known)) {
    const fs::path file = path.parent_path() / location.get<std::string>();
    external[location.get<std::string>()] = fs::is_regular_file(file, error) ? Json(store_.file_digest(file).hex()) : Json(nullptr);
  }
  if (!external.empty()) identity["external"] = std::move(external);
  return identity;
}

Json KeyMaker::parameter(const ComponentInfo& owner, const ParameterInfo& info, const Json& value) {
  const auto wrong = [&]() -> Json {
    throw Error(ErrorCode::internal,
                "parameter \"" + info.name + "\" of " + owner.name + " is no " + info.type + ": " + value.dump());
  };
  if (value.is_null()) return nullptr;
  const std::string& type = info.type;
  if (type.starts_with("list<") && type.ends_with(">")) {
    if (!value.is_array()) return wrong();
    ParameterInfo item = info;
    item.type = type.substr(5, type.size() - 6);
    Json items = Json::array();
    for (const Json& one : value) items.push_back(parameter(owner, item, one));
    return items;
  }
  if (type == "map<number>") {
    if (!value.is_object()) return wrong();
    Json numbers = Json::object();
    for (const auto& [name, number] : value.items()) numbers[name] = number.get<double>();
    return numbers;
  }
  if (type == "number") return value.is_number() ? Json(value.get<double>()) : wrong();
  if (type == "integer") return value.is_number() ? Json(value.get<std::int64_t>()) : wrong();
  if (type == "boolean") return value.is_boolean() ? value : wrong();
  if (type == "string") return value.is_string() ? value : wrong();
  if (type == "path") return value.is_string() ? source(value.get<std::string>()) : wrong();
  if (type == "component") {
    if (!value.is_object() || !value.contains("use")) return wrong();
    const ComponentInfo& inner = component(value.at("use").get<std::string>());
    Json identity = {{"component", inner.name}, {"code", code(inner)}, {"parameters", parameters(inner, value)}};
    if (!info.fields.empty()) {
      ComponentInfo own;
      own.name = owner.name + "'s " + info.name;
      own.parameters = info.fields;
      identity["fields"] = parameters(own, value);
    }
    return identity;
  }
  throw_invalid("the manifest declares parameter \"" + info.name + "\" of unknown type \"" + type + "\"", owner.name,
                "use one of the types that the plugin guide lists");
}

Json KeyMaker::parameters(const ComponentInfo& owner, const Json& values) {
  Json canonical = Json::object();
  for (const ParameterInfo& info : owner.parameters) {
    const auto given = values.find(info.name);
    canonical[info.name] = parameter(owner, info, given == values.end() ? info.default_value : *given);
  }
  return canonical;
}

StageKey KeyMaker::key(const Stage& stage, const std::map<std::string, std::vector<Digest>>& inputs) {
  const ComponentInfo& info = stage.component != nullptr ? *stage.component : component(stage.use);
  Json preimage = {
      {"format", kKeyFormat}, {"component", info.name}, {"code", code(info)}, {"parameters", parameters(info, stage.params)}};
  Json ports = Json::object(), backends = Json::object();
  for (const auto& [port, digests] : inputs) {
    Json list = Json::array();
    for (const Digest& digest : digests) {
      list.push_back(digest.hex());
      // A package is run by the component that made it: its code decides what the consumer measures.
      const Artifact artifact = store_.artifact(digest);
      const auto named = artifact.meta.find("backend");
      const std::string backend = named != artifact.meta.end() && named->is_string() ? named->get<std::string>() : "";
      if (!backend.empty()) backends[backend] = code(component(backend));
    }
    ports[port] = std::move(list);
  }
  preimage["inputs"] = std::move(ports);
  if (!backends.empty()) preimage["backends"] = std::move(backends);
  Depends depends;
  add_depends(depends, catalog_, info, stage.params);
  if (depends.seed) preimage["seed"] = stage.seed;
  if (!depends.byte_exact) {
    static const Json profile = numeric_profile();
    preimage["profile"] = profile;
    preimage["device"] = stage.device;
    if (depends.threads) preimage["threads"] = stage.threads;
  }
  if (info.exclusive) {
    static const Json machine = machine_fingerprint();
    preimage["machine"] = machine;
  }
  return {key_digest(preimage), std::move(preimage)};
}

std::uint64_t KeyMaker::source_bytes(const Stage& stage) const {
  std::uint64_t bytes = 0;
  if (stage.component != nullptr) add_source_bytes(bytes, catalog_, *stage.component, stage.params);
  return bytes;
}

}  // namespace espalier
