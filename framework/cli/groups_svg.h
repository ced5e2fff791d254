#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace espalier {

/// A picture of coupled groups, as `model groups --json` lists them: a line for each, on it a box for each member tensor, with the
/// axis that the group's units lie along drawn as stripes. What has stripes of one colour moves together. Text of the model is
/// escaped.
std::string groups_svg(const nlohmann::json& groups, const std::string& title);

}  // namespace espalier
