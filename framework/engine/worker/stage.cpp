#include "engine/worker/stage.h"

#include <cstdio>
#include <exception>
#include <new>

#include "engine/worker/loader.h"
#include "engine/worker/stage_context.h"
#include "engine/worker/warm.h"
#include "sdk/error.h"

namespace espalier {
namespace {

Json read_request(int request) {
  const MappedFile file("/proc/self/fd/" + std::to_string(request));
  return Json::parse(std::string_view(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()));
}

}  // namespace

int run_stage(int request, int channel) {
  std::unique_ptr<StageContext> context;
  try {
    context = std::make_unique<StageContext>(read_request(request), channel);
    set_threads(context->threads());
    const std::string use = context->use();
    run_component(context->plugin_of(use), use, *context);
    std::fflush(nullptr);
    context->finish();
    return 0;
  } catch (const Error& error) {
    if (context)
      context->fail(error);
    else
      std::fprintf(stderr, "%s\n", error.what());
  } catch (const std::bad_alloc&) {
    if (context) context->fail(Error(ErrorCode::resource, "out of memory"));
  } catch (const std::exception& error) {
    if (context)
      context->fail(Error(ErrorCode::internal, error.what()));
    else
      std::fprintf(stderr, "%s\n", error.what());
  }
  std::fflush(nullptr);
  return 1;
}

}  // namespace espalier
