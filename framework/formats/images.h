#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace espalier {

/// Eight bits a sample, rows from the top, samples of a pixel beside each other.
struct Image {
  std::int64_t width = 0, height = 0, channels = 0;  ///< 1: grey, 3: red, green, blue
  std::vector<std::uint8_t> samples;                 ///< height · width · channels
};

/// A PNG file, or a PGM or PPM (binary: P5, P6). Transparency lies over black; 16-bit samples are rounded to 8. Sides are at most
/// 16,384 pixels. Throws Error(invalid_input) for a damaged file, Error(unsupported) for another format.
Image parse_image(std::span<const std::byte> bytes, const std::string& where);

/// All pixels grey (luma of ITU-R BT.601) or coloured.
Image with_channels(Image image, std::int64_t channels);

}  // namespace espalier
