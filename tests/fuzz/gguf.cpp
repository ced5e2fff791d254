// A GGUF file: its directory, every tensor, and the model and tokenizer that it may describe.
#include <stdlib.h>
#include <unistd.h>

#include "formats/gguf.h"
#include "target.h"

using namespace espalier;

namespace {

/// GGUF files are mapped, so there has to be one.
class TemporaryFile {
 public:
  explicit TemporaryFile(fuzz::Bytes bytes) {
    const int file = mkstemp(path_);
    if (file < 0 || write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) abort();
    close(file);
  }
  ~TemporaryFile() { unlink(path_); }
  const char* path() const { return path_; }

 private:
  char path_[32] = "/tmp/espalier-fuzz-XXXXXX";
};

}  // namespace

ESPALIER_FUZZ(gguf, bytes) {
  const TemporaryFile file(bytes);
  const GgufFile gguf = GgufFile::open(file.path());
  for (const GgufFile::Entry& entry : gguf.tensors()) {
    try {
      gguf.dequantize(entry);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::internal) throw;
    }
  }
  import_gguf(file.path());
}
