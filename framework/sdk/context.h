#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sdk/artifact.h"
#include "sdk/component.h"
#include "sdk/params.h"

namespace espalier {

enum class LogLevel { debug, info, warning, error };

/// One report of progress of a stage. `values` are shown live ("loss" 3.21).
struct Progress {
  std::uint64_t step = 0;
  std::uint64_t total = 0;  ///< 0: unknown
  std::string_view label;   ///< what is being done, in a few words
  std::vector<std::pair<std::string, double>> values;
};

/// All that a stage may know and all that it may change. Nothing else is input to a stage: no environment, no clock, no path
/// outside what a port or a parameter names. Used from the stage's own thread unless a member says otherwise.
class Context {
 public:
  virtual ~Context();

  // --- inputs ------------------------------------------------------------------------------------------------------------
  virtual const Params& params() const = 0;
  /// The artifact on an input port; throws Error(internal) if the manifest does not declare the port, or it is optional and unset.
  virtual const Artifact& input(std::string_view port) const = 0;
  virtual bool has_input(std::string_view port) const = 0;
  /// For ports declared "many": every artifact, in the order of the recipe.
  virtual std::vector<Artifact> inputs(std::string_view port) const = 0;
  /// Bytes of a blob, mapped read-only; nothing is copied. Throws Error(corrupt) when the blob is missing or has another size.
  virtual MappedFile map(const BlobRef& blob) const = 0;
  /// Where the blob lies; for runtimes that want a file. Never write to it.
  virtual std::filesystem::path path(const BlobRef& blob) const = 0;
  virtual std::uint64_t seed() const = 0;
  virtual int threads() const = 0;
  virtual const std::string& device() const = 0;  ///< "cpu" today

  // --- outputs -----------------------------------------------------------------------------------------------------------
  /// Stores bytes; a blob that the store already has is not written again.
  virtual BlobRef put(std::span<const std::byte> bytes) = 0;
  /// As put(), when the digest is known already: costs nothing if the store has it.
  virtual BlobRef put(std::span<const std::byte> bytes, const Digest& known) = 0;
  /// Takes the file over (moves it where it can).
  virtual BlobRef put_file(const std::filesystem::path& file) = 0;
  virtual void output(std::string_view port, Artifact artifact) = 0;
  /// A flat number under one of the pinned names (perplexity, size_bytes, …).
  virtual void figure(std::string_view name, double value) = 0;
  /// Structured evidence for the report, kept with the stage's result: e.g. "curve.loss": [[step, value], …],
  /// "widths": {"columns": […], "rows": [[…]]}, "samples.decode_ms": […], "passes": {"columns": …, "rows": …}.
  virtual void detail(std::string_view name, Json value) = 0;

  // --- life --------------------------------------------------------------------------------------------------------------
  virtual void log(LogLevel level, std::string_view message) = 0;  ///< any thread
  virtual void progress(const Progress& p) = 0;                    ///< any thread; throttled by the host side
  /// Throws Error(cancelled) when the run is being stopped. Call it in every long loop.
  virtual void check_cancelled() const = 0;
  /// A private folder that survives a crash under the same action key (resume files live here); removed after success.
  virtual std::filesystem::path scratch() = 0;

  // --- components as parameters --------------------------------------------------------------------------------------------
  /// The component that the recipe put into parameter `name` (`metric = { use = "metric/taylor", … }`).
  virtual ComponentHandle component(std::string_view name) = 0;
  /// The component that an input artifact's meta["backend"] names (e.g. to run a package).
  virtual ComponentHandle component_for(const Artifact& artifact) = 0;
  /// The components in one parameter, in the recipe's order: one for type component, any number for list<component>, none where the
  /// recipe says nothing. `params` are the stage's own or those of a component that came from here: nesting goes to any depth. The
  /// owner's own fields of an element ("weight") stand among the handle's params.
  virtual std::vector<ComponentHandle> components(const Params& params, std::string_view name);
};

}  // namespace espalier
