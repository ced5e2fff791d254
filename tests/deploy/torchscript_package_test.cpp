// Packages for torch.jit.load: they answer as the model does.
#include <ATen/TensorOperators.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>

#include "deploy/tiny.h"
#include "formats/package.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("a TorchScript package continues a text as the model does") {
  Tiny& tiny = Tiny::get();
  const Artifact package = tiny.package("backend/torchscript", tiny.model);
  const auto folder = tiny.workshop.lay_out(package);
  CHECK(read_package(folder, true)["files"].contains("model.pt"));
  const auto packaged = tiny.open("backend/torchscript", folder);
  const auto own = language_model(tiny.graph(tiny.model), {2, false});
  const auto tokens = some_tokens(20);
  const auto compare = [&](std::span<const std::int64_t> part, bool all) {
    const at::Tensor expected = own->feed(part, all), given = packaged->feed(part, all);
    REQUIRE(given.sizes() == expected.sizes());
    CHECK((given - expected).abs().max().item<double>() < 1e-4);
    CHECK(packaged->position() == own->position());
  };
  compare(std::span(tokens).first(12), true);
  compare(std::span(tokens).subspan(12, 3), true);
  compare(std::span(tokens).subspan(15, 1), false);
  packaged->reset();
  own->reset();
  compare(std::span(tokens).first(5), false);

  const ComponentHandle backend = tiny.workshop.component("backend/torchscript");
  const auto model = backend.as<Runtime>().open_model(folder, {2, false});
  CHECK(model->inputs().front() == "input_ids");
  CHECK(model->outputs() == std::vector<std::string>{"logits"});
  CHECK_THROWS_WITH(model->run({}), ContainsSubstring("input_ids") && ContainsSubstring("missing"));
}

TEST_CASE("a broken archive in a package is refused") {
  Tiny& tiny = Tiny::get();
  const auto folder = tiny.workshop.lay_out(tiny.package("backend/torchscript", tiny.model));
  std::filesystem::resize_file(folder / "model.pt", std::filesystem::file_size(folder / "model.pt") / 2);
  const ComponentHandle backend = tiny.workshop.component("backend/torchscript");
  CHECK_THROWS_AS(backend.as<Runtime>().open_model(folder, {2, false}), Error);
}
