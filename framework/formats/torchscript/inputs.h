#pragma once
/// What a TorchScript file does not say of its inputs: types and shapes, in a notation of one line each,
/// "x: f32[batch,3,32,32]". A name stands for any length; equal names are equal lengths.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/torchscript/program.h"

namespace espalier::torchscript {

using InputTypes = std::map<std::string, Value>;

/// Throws Error(invalid_input) naming what is wrong; `where` is the parameter or file that said it.
Value parse_input(std::string_view text, const std::string& where);
InputTypes parse_inputs(const std::vector<std::string>& lines, const std::string& where);
/// The notation's text of a graph's inputs, one a line.
std::string write_inputs(const std::vector<Value>& inputs);

/// Which lengths of the traced inputs are taken as free.
enum class Free { batch_and_sequence, batch, none };
/// Values for the arguments from what they were traced with: the first axis is the batch wherever it is as long as the first
/// input's, the second of tokens and masks (integers, booleans) the sequence.
InputTypes types_of_examples(const Program& program, Free free);

}  // namespace espalier::torchscript
