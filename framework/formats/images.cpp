#include "formats/images.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::int64_t kLongestSide = 16384;
constexpr std::int64_t kPixelsPerByte = 8 * 1032;  // one bit a pixel, deflated as far as deflate goes

void check_size(std::int64_t width, std::int64_t height, std::size_t bytes, const std::string& where) {
  if (width < 1 || height < 1 || width > kLongestSide || height > kLongestSide)
    throw_invalid(fmt::format("the image claims {} × {} pixels", width, height), where,
                  fmt::format("sides of 1 to {} are read", kLongestSide));
  if (width * height / kPixelsPerByte > static_cast<std::int64_t>(bytes))
    throw_invalid(fmt::format("{} × {} pixels cannot stand in {} bytes", width, height, bytes), where, "the file is damaged");
}

Image parse_png(std::span<const std::byte> bytes, const std::string& where) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const auto damaged = [&] {
    const std::string cause = png.message;
    png_image_free(&png);
    throw_invalid("the PNG image cannot be read: " + cause, where, "the file is damaged or was cut short");
  };
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) damaged();
  try {
    check_size(png.width, png.height, bytes.size(), where);
  } catch (...) {
    png_image_free(&png);
    throw;
  }
  Image image{png.width, png.height, (png.format & PNG_FORMAT_FLAG_COLOR) ? 3 : 1, {}};
  png.format = image.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  image.samples.resize(PNG_IMAGE_SIZE(png));
  const png_color black{0, 0, 0};
  if (!png_image_finish_read(&png, &black, image.samples.data(), 0, nullptr)) damaged();
  return image;
}

/// A number of the header; white space and comments (# to the end of the line) may stand before it.
std::int64_t header_number(std::string_view& text, const std::string& where) {
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    if (text.empty() || text.front() != '#') break;
    text.remove_prefix(std::min(text.find('\n'), text.size()));
  }
  std::int64_t number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || number < 1)
    throw_invalid("the image's header has no number where one must be", where, "the file is damaged");
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

Image parse_pnm(std::string_view text, const std::string& where) {
  Image image;
  image.channels = text[1] == '6' ? 3 : 1;
  const std::size_t size = text.size();
  text.remove_prefix(2);
  image.width = header_number(text, where);
  image.height = header_number(text, where);
  const std::int64_t most = header_number(text, where);
  if (most > 65535) throw_invalid(fmt::format("the image's largest sample is {}", most), where, "the file is damaged");
  check_size(image.width, image.height, size, where);
  if (!text.empty()) text.remove_prefix(1);  // one white space
  const auto count = static_cast<std::size_t>(image.width * image.height * image.channels), width = std::size_t{1} + (most > 255);
  if (text.size() < count * width)
    throw_invalid(fmt::format("{} bytes of pixels, {} are needed", text.size(), count * width), where, "the file was cut short");
  image.samples.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto byte = [&](std::size_t at) { return static_cast<std::int64_t>(static_cast<unsigned char>(text[at])); };
    const std::int64_t sample = width == 1 ? byte(i) : byte(2 * i) << 8 | byte(2 * i + 1);
    image.samples[i] = static_cast<std::uint8_t>((std::min(sample, most) * 255 + most / 2) / most);
  }
  return image;
}

}  // namespace

Image parse_image(std::span<const std::byte> bytes, const std::string& where) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("\x89PNG\r\n\x1a\n")) return parse_png(bytes, where);
  if (text.starts_with("P5") || text.starts_with("P6")) return parse_pnm(text, where);
  throw_unsupported("this is no image that is read", where, "PNG and binary PGM and PPM are");
}

Image with_channels(Image image, std::int64_t channels) {
  if (image.channels == channels) return image;
  const auto pixels = static_cast<std::size_t>(image.width * image.height);
  Image out{image.width, image.height, channels, std::vector<std::uint8_t>(pixels * static_cast<std::size_t>(channels))};
  for (std::size_t i = 0; i < pixels; ++i) {
    if (channels == 3) {
      std::fill_n(out.samples.begin() + static_cast<std::ptrdiff_t>(3 * i), 3, image.samples[i]);
    } else {
      const std::uint8_t* p = image.samples.data() + 3 * i;
      out.samples[i] = static_cast<std::uint8_t>((299 * p[0] + 587 * p[1] + 114 * p[2] + 500) / 1000);
    }
  }
  return out;
}

}  // namespace espalier
