#include "engine/estimate.h"
#include "engine/installation.h"
#include "engine/tool.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kName = "machine-speed/1";

Digest machine_of(int threads) { return sha256(Json{{"machine", machine_fingerprint()}, {"threads", threads}}.dump()); }

std::optional<MachineSpeed> parse(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const MachineSpeed speed{json.value("flops", 0.0), json.value("bandwidth", 0.0)};
  return speed.flops > 0 && speed.bandwidth > 0 ? std::optional(speed) : std::nullopt;
}

}  // namespace

std::optional<MachineSpeed> known_speed(Store& store, int threads) {
  const auto text = store.derived(kName, machine_of(threads));
  return text ? parse(*text) : std::nullopt;
}

MachineSpeed measure_speed(Store& store, int threads) {
  const std::string text = run_tool(ToolProgram::worker, "measure-machine", Json{{"threads", threads}}.dump());
  const auto speed = parse(text);
  if (!speed) throw Error(ErrorCode::failed, "the worker measured no speed: \"" + text.substr(0, 80) + "\"", "measure-machine");
  store.remember_derived(kName, machine_of(threads), text);
  return *speed;
}

}  // namespace espalier
