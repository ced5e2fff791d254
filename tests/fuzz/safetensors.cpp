#include "formats/safetensors.h"
#include "target.h"

using namespace espalier;

ESPALIER_FUZZ(safetensors, bytes) {
  const fuzz::Owned owned(bytes);
  std::map<std::string, std::string> metadata;
  const auto tensors = parse_safetensors(owned.view(), owned.bytes, "fuzz", &metadata);
  std::uint64_t sum = 0;
  for (const auto& [name, tensor] : tensors)
    for (const std::byte byte : tensor.bytes) sum += static_cast<unsigned>(byte);
  // Read once, it can be written and read again.
  const auto again = write_safetensors(tensors, metadata);
  if (parse_safetensors(again, nullptr, "again").size() != tensors.size()) throw std::logic_error("tensors were lost");
  if (sum == 1) throw_invalid("never");
}
