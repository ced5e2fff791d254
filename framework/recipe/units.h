#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "recipe/plan.h"

namespace espalier {

/// "10m", "90s", "1h30m", "500ms", "2d" → seconds; nothing for other text, zero or more than 10 years.
std::optional<double> parse_duration(std::string_view text);
/// "4GiB", "512 MiB", "1.5GB", "4096" → bytes; binary and decimal units; nothing for other text, zero or more than 2^60.
std::optional<std::uint64_t> parse_bytes(std::string_view text);
/// ">1.0", "<= 30", "==4" → operator and bound.
std::optional<Requirement> parse_requirement(std::string_view text);

}  // namespace espalier
