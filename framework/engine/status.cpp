#include "engine/engine.h"

namespace espalier {

std::string_view to_string(StageStatus status) {
  switch (status) {
    case StageStatus::waiting:
      return "waiting";
    case StageStatus::running:
      return "running";
    case StageStatus::ran:
      return "ran";
    case StageStatus::cached:
      return "cached";
    case StageStatus::failed:
      return "failed";
    case StageStatus::skipped:
      return "skipped";
    case StageStatus::cancelled:
      return "cancelled";
  }
  return "unknown";
}

}  // namespace espalier
