"""The page docs/zoo.md out of zoo.py's rows."""
import zoo

HEAD = """# The zoo

Small models with random weights, made from `transformers`' configurations, exported by `torch.onnx`, and put through Espalier without a
line of code for any of them. `{command}` made this page{where}; `--only NAME` makes one row again.

- **agrees**: outputs equal to ONNX Runtime's on {samples} inputs, within {tolerance:g} of an output's largest element; the figure is the worst.
- **free**: share of the model's parameters that lie in some unit which can be removed exactly (feed-forward widths, groups of attention heads, inner
  convolution channels, the residual stream where its norms are RMS norms). A LayerNorm sees the stream's mean, so that its width is not free.
- **cut**: share of the parameters gone after 30 % of every free group went, least magnitude first. Counted only when the cut model equals
  its mask, `onnx.checker` takes it, and ONNX Runtime gives what our runner gives, each within {tolerance:g}.
- **step**: one step of gradient descent lowered the loss, with finite gradients for all weights that the outputs depend on.
- **exports**: which of `torch.onnx`'s exporters (dynamo, script) gave a file that got all the way; the row speaks of the one in bold.
- **Torch-Pruning**: share of parameters gone when `torch-pruning` cuts the same PyTorch model by 30 % (magnitude, outputs kept, better of two
  settings for attention heads), or that it fails. Its share counts the residual stream's width, too.

{agreed} of {all} agree with ONNX Runtime, {cut} are cut; Torch-Pruning cuts {peers}.
"""


def share(part, whole):
    return f"{100 * part / whole:.0f} %"


def step_of(training):
    if training is None:
        return "no"
    if training["not_finite"] or not training["after"] < training["before"]:
        return "no"
    return "yes"


def row(answer):
    name = answer["name"]
    peer = answer.get("torch_pruning", {})
    theirs = share(peer["gone"], 1) if "gone" in peer else "fails" if peer else ""
    best = zoo.main_export(answer)
    if best is None:
        return f"| {name} | | | | | | | | {theirs} |"
    e = answer["exports"][best]
    done = [f"**{x}**" if x == best else x for x in answer["exports"] if zoo.is_cut(answer["exports"][x])]
    groups = e.get("groups", {})
    parameters = e.get("parameters")
    cells = [name, f"{parameters:,}" if parameters else "", f"{e['nodes']} → {e['nodes_normal']}" if "nodes_normal" in e else "",
             f"{e['difference']:.0e}" if zoo.agrees(e) else "no",
             step_of(e.get("training")), share(groups["parameters_free"], parameters) if groups else "",
             share(parameters - e["parameters_cut"], parameters) if zoo.is_cut(e) else "no", ", ".join(done), theirs]
    return "| " + " | ".join(cells) + " |"


def misses(rows):
    lines = []
    for answer in rows:
        for exporter, e in answer["exports"].items():
            if why := zoo.trouble(e):
                lines.append(f"- {answer['name']}, {exporter}: {why}")
        if "broken" in answer:
            lines.append(f"- {answer['name']}: {answer['broken']}")
    return lines


def page(rows):
    import onnxruntime
    import torch
    import transformers
    where = f" (transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, ONNX Runtime {onnxruntime.__version__})"
    text = HEAD.format(command="PY tests/zoo/zoo.py --table docs/zoo.md", where=where, samples=zoo.SAMPLES, tolerance=zoo.TOLERANCE, all=len(rows),
                       agreed=sum(any(zoo.agrees(e) for e in r["exports"].values()) for r in rows),
                       cut=sum(any(zoo.is_cut(e) for e in r["exports"].values()) for r in rows),
                       peers=sum("gone" in r.get("torch_pruning", {}) for r in rows))
    if not any("torch_pruning" in r for r in rows):
        text = text.replace("; Torch-Pruning cuts 0.", ". Torch-Pruning did not run beside this table.")
    text += "\n| model | parameters | nodes → normal form | agrees | step | free | cut | exports | Torch-Pruning |\n"
    text += "| --- | ---: | ---: | ---: | --- | ---: | ---: | --- | ---: |\n"
    text += "\n".join(row(r) for r in rows) + "\n"
    if missed := misses(rows):
        text += "\n## What does not get through, and why\n\n" + "\n".join(missed) + "\n"
    return text
