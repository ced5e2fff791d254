#pragma once
/// What sources of single model files share: normal form with its report, and the tokenizer that the stage names.
#include "graph/graph.h"
#include "sdk/context.h"

namespace espalier {

/// Heads and widths are found in the operators that an exporter spelled out, not in their spelling. Detail: normal_form.
void bring_to_normal_form(Context& context, Graph& graph);

/// Output `tokenizer` from parameter `tokenizer_file`, absent where that is not given; the graph names it. What an earlier owner of
/// the file said of its tokenizer holds in that store only, and goes.
void put_named_tokenizer(Context& context, Graph& graph);

}  // namespace espalier
