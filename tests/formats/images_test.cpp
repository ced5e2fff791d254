#include "formats/images.h"

#include <png.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "abuse.h"

using namespace espalier;
using abuse::Bytes;
using Catch::Matchers::ContainsSubstring;

namespace {

Image read(const std::string& text) { return parse_image(abuse::bytes_of(text), "x.png"); }

std::string png(std::uint32_t width, std::uint32_t height, std::uint32_t format, const std::vector<std::uint8_t>& samples) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = format;
  png_alloc_size_t size = 0;
  REQUIRE(png_image_write_to_memory(&image, nullptr, &size, 0, samples.data(), 0, nullptr));
  std::string out(size, '\0');
  REQUIRE(png_image_write_to_memory(&image, out.data(), &size, 0, samples.data(), 0, nullptr));
  out.resize(size);
  return out;
}

}  // namespace

TEST_CASE("images: PNG, PGM and PPM") {
  const std::vector<std::uint8_t> grey{0, 50, 100, 150, 200, 255}, colour{255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9};
  const Image one = read(png(3, 2, PNG_FORMAT_GRAY, grey));
  CHECK((one.width == 3 && one.height == 2 && one.channels == 1));
  CHECK(one.samples == grey);
  CHECK(read(png(2, 2, PNG_FORMAT_RGB, colour)).samples == colour);
  CHECK(read(std::string("P5 # a comment\n3 2\n255\n") + std::string(grey.begin(), grey.end())).samples == grey);
  CHECK(read(std::string("P6 2 2 255\n") + std::string(colour.begin(), colour.end())).samples == colour);
  CHECK(read(std::string("P5 2 1 65535\n") + std::string("\xff\xff\x80\x00", 4)).samples == std::vector<std::uint8_t>{255, 128});
  CHECK(read(std::string("P5 2 1 3\n") + std::string("\x01\x03", 2)).samples == std::vector<std::uint8_t>{85, 255});
}

TEST_CASE("images: grey and colour") {
  const Image red{1, 1, 3, {255, 0, 0}};
  CHECK(with_channels(red, 1).samples == std::vector<std::uint8_t>{76});
  CHECK(with_channels(Image{1, 1, 1, {7}}, 3).samples == std::vector<std::uint8_t>{7, 7, 7});
}

TEST_CASE("images: what is refused") {
  CHECK_THAT(abuse::error_of([] { read("GIF89a"); }).what(), ContainsSubstring("no image") && ContainsSubstring("x.png"));
  CHECK_THAT(abuse::error_of([] { read("P5 100000 2 255\n"); }).what(), ContainsSubstring("100000 × 2"));
  CHECK_THAT(abuse::error_of([] { read("P6 16384 16384 255\nabc"); }).what(), ContainsSubstring("cannot stand in"));
  CHECK_THAT(abuse::error_of([] { read("P5 2 2 255\nabc"); }).what(), ContainsSubstring("4 are needed"));
  const std::string whole = png(3, 2, PNG_FORMAT_GRAY, {0, 50, 100, 150, 200, 255});
  CHECK_THAT(abuse::error_of([&] { read(whole.substr(0, whole.size() - 20)); }).what(), ContainsSubstring("PNG image"));
}

TEST_CASE("images: damaged files never do more than be refused") {
  for (const std::string& good :
       {png(8, 8, PNG_FORMAT_RGBA, std::vector<std::uint8_t>(256, 77)), "P6 4 4 255\n" + std::string(48, 'x')}) {
    const abuse::Outcome outcome = abuse::mistreat(abuse::bytes_of(good), [](const Bytes& bytes) { parse_image(bytes, "x.png"); });
    INFO(outcome.failure);
    CHECK(outcome.survived);
    CHECK(outcome.refused > 50);
  }
}
