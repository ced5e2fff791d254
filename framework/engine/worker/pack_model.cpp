#include "engine/tools/tools.h"
#include "engine/worker/stage_context.h"
#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// pack-model {"store", "artifact", "out"}: OUT/model.onnx and OUT/model.data from a model artifact.
int pack_model(int argc, char** argv) {
  if (argc != 2) throw_invalid("pack-model takes one argument, its request");
  const Json request = Json::parse(argv[1]);
  const std::filesystem::path out = request.at("out").get<std::string>();
  const auto digest = Digest::from_hex(request.at("artifact").get<std::string>());
  if (!digest) throw_invalid("pack-model: not a digest");
  const StageContext context({{"store", request.at("store")}}, -1);
  const Artifact artifact = Store::open(request.at("store").get<std::string>(), true).artifact(*digest);
  if (artifact.type != ArtifactType::model) throw_invalid("pack-model: the artifact is no model");
  write_onnx(load_model(context, artifact), out / "model.onnx");
  return 0;
}

const RegisterTool registered{"pack-model", pack_model};

}  // namespace
}  // namespace espalier
