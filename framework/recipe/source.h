#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "recipe/node.h"

namespace espalier {

/// The text of a recipe. Throws Error when the file cannot be read; a file past 4 MiB or not UTF-8 is one finding and no text.
std::optional<std::string> read_recipe_text(const std::filesystem::path& file, Findings& findings);

/// TOML 1.0 → a table in the order of the text, or one finding ("syntax", "duplicate", "too-deep"). Nothing in the text can exhaust
/// the stack: nesting is bounded before and while it is parsed.
std::optional<Node> parse_toml(const std::string& text, Findings& findings);

/// One TOML value ("0.3", "[1, 2]", "'text'"), or nothing when the text is not exactly one.
std::optional<Node> parse_toml_value(const std::string& text);

}  // namespace espalier
