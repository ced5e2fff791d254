#include "run/iterative_state.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <system_error>

#include "sdk/error.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view magic = "espalier iterative pruning 1\n";
constexpr std::size_t digest_size = 64;  // hexadecimal

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(); }
std::optional<double> number_of(const Json& value) { return value.is_null() ? std::nullopt : std::optional(value.get<double>()); }

Json json_of(const RoundRecord& r) {
  return {{"round", r.round},          {"parameters", r.parameters}, {"sparsity", r.sparsity}, {"before", json_of(r.before)},
          {"after", json_of(r.after)}, {"seconds", r.seconds},       {"kept", r.kept}};
}

RoundRecord record_of(const Json& json) {
  RoundRecord record;
  json.at("round").get_to(record.round);
  json.at("parameters").get_to(record.parameters);
  json.at("sparsity").get_to(record.sparsity);
  record.before = number_of(json.at("before"));
  record.after = number_of(json.at("after"));
  json.at("seconds").get_to(record.seconds);
  json.at("kept").get_to(record.kept);
  return record;
}

}  // namespace

void write_iterative_state(const fs::path& file, const std::string& key, const IterativeState& state) {
  Json rounds = Json::array();
  for (const RoundRecord& record : state.rounds) rounds.push_back(json_of(record));
  const std::string body = Json{
      {"key", key},
      {"round", state.round},
      {"model", state.model.manifest()},
      {"removal", state.removal},
      {"original_loss", json_of(state.original_loss)},
      {"rounds", std::move(rounds)},
      {"losses", state.losses},
      {"compensation",
       state.compensation}}.dump();
  const fs::path aside = file.string() + ".new";
  std::ofstream out(aside, std::ios::binary | std::ios::trunc);
  out << magic << sha256(body).hex() << body;
  out.close();
  std::error_code error;
  if (out) fs::rename(aside, file, error);
  if (!out || error) {
    fs::remove(aside, error);
    throw Error(ErrorCode::resource, "cannot write the state of iterative pruning", file.string(), "free some space");
  }
}

std::optional<IterativeState> read_iterative_state(const fs::path& file, const std::string& key, std::string& why) {
  why.clear();
  std::error_code error;
  if (!fs::exists(file, error)) return std::nullopt;
  const auto refuse = [&](std::string reason) {
    why = std::move(reason);
    return std::nullopt;
  };
  try {
    std::ifstream in(file, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    if (text.size() < magic.size() + digest_size || text.compare(0, magic.size(), magic) != 0)
      return refuse("it is of another version, or damaged");
    const std::string body = text.substr(magic.size() + digest_size);
    if (text.compare(magic.size(), digest_size, sha256(body).hex()) != 0) return refuse("it is damaged");
    const Json json = Json::parse(body);
    if (json.at("key") != key) return refuse("it belongs to another run");
    IterativeState state;
    json.at("round").get_to(state.round);
    state.model = Artifact::parse(json.at("model").get<std::string>());
    json.at("removal").get_to(state.removal);
    state.original_loss = number_of(json.at("original_loss"));
    for (const Json& each : json.at("rounds")) state.rounds.push_back(record_of(each));
    json.at("losses").get_to(state.losses);
    state.compensation = json.at("compensation");
    if (state.round < 1 || state.rounds.size() != static_cast<std::size_t>(state.round)) return refuse("its rounds do not add up");
    return state;
  } catch (const std::exception& problem) {
    return refuse(problem.what());
  }
}

}  // namespace espalier
