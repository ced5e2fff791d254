"""Architectures that nobody here wrote, through import, a training step and a cut of 30 %: what works, and why not where not.

python tests/zoo/zoo.py [--only NAME…] [--program build/release/bin/zoo_row] [--keep FOLDER] [--table docs/zoo.md] [--ways WAY…]

Needs the tests' Python (torch, transformers, onnxscript, onnxruntime; torch-pruning for its column). Each model is made from a
configuration (architectures.py), exported by both of torch.onnx's exporters, and goes through the program: equality with ONNX Runtime
on three inputs, a training step, every free group cut by magnitude, mask against cut, onnx.checker and ONNX Runtime on the cut
file. `--ways trace` takes a TorchScript trace as a way in beside the exporters; what is expected then comes from torch. Torch-Pruning cuts the same model, by magnitude, too. Exits 1 when anything that ran disagrees, or when fewer architectures agree
or are cut than --agree and --cut say.
"""
import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np

TOLERANCE = 1e-4  # relative to an output's largest element
SAMPLES = 3
WAYS = ("dynamo", "script")
root = pathlib.Path(__file__).resolve().parents[2]


def varied(inputs, number):
    """Inputs like the given ones: other words and other numbers, masks as they are."""
    import torch
    generator = torch.Generator().manual_seed(100 + number)
    answer = {}
    for name, value in inputs.items():
        if value.is_floating_point():
            value = torch.randn(value.shape, generator=generator)
        elif "mask" not in name and "token_type" not in name:
            value = torch.randint(4, int(value.max()) + 1, value.shape, generator=generator)
        answer[name] = value
    return answer


def export(exporter, module, inputs, batched, file):
    """Returns why it could not be, or an empty string."""
    import torch
    values = tuple(inputs.values())
    names = list(inputs)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if exporter == "dynamo":
                # Axes of one name are one length, as a person would say it; where an architecture fixes or ties some, the exporter
                # finds them itself; else the model is exported for one shape.
                shared = {axis: torch.export.Dim(axis) for axes in batched.values() for axis in axes.values()}
                ways = [lambda axis: shared[axis], lambda axis: torch.export.Dim.DYNAMIC] if batched else []
                for way in ways + [None]:
                    shapes = None if way is None else {"values": tuple(
                        {axis: way(called) for axis, called in batched.get(name, {}).items()} for name in names)}
                    try:
                        torch.onnx.export(module, values, str(file), input_names=names, dynamo=True, external_data=False,
                                          dynamic_shapes=shapes, optimize=True)
                        return ""
                    except Exception:
                        if way is None:
                            raise
            else:
                torch.onnx.export(module, values, str(file), input_names=names, dynamo=False, opset_version=17, dynamic_axes=batched or None)
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def named(module, names):
    """A trace calls its inputs what forward() does."""
    import torch
    made = {}
    exec(f"def forward(self, {', '.join(names)}):\n    return self.inner({', '.join(names)})", made)
    wrapped = type("Named", (torch.nn.Module,), {"forward": made["forward"]})()
    wrapped.inner = module
    return wrapped.eval()


def trace(module, inputs, file):
    """Returns why it could not be, or an empty string."""
    import torch
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.jit.trace(named(module, list(inputs)), tuple(inputs.values()), strict=False, check_trace=False).save(str(file))
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def answers(module, samples):
    import torch
    with torch.no_grad():
        found = [module(*sample.values()) for sample in samples]
    return [[o.numpy() for o in (f if isinstance(f, tuple) else (f,))] for f in found]


def runtime(file, inputs):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return [session.run(None, {k: v.numpy() for k, v in sample.items() if k in wanted}) for sample in inputs]


def worst(expected, folder, scale=None):
    """Largest difference of FOLDER/N/K.npy from what is expected, relative to each output's largest element, there or in the folder
    `scale`: a detector that finds nothing any more answers with rounding errors."""
    off = 0.0
    for n, outputs in enumerate(expected):
        for k, want in enumerate(outputs):
            got = np.load(folder / str(n) / f"{k}.npy")
            if got.shape != want.shape:
                return float("inf")
            if want.size:
                largest = max([np.abs(want).max(), 1e-12] + ([np.abs(np.load(scale / str(n) / f"{k}.npy")).max()] if scale else []))
                off = max(off, float(np.abs(got.astype(np.float64) - want).max() / largest))
    return off if np.isfinite(off) else float("inf")


def through(program, file, folder, inputs, expected=None):
    """What became of one file: compared with what is expected of it, which ONNX Runtime says where nothing else does."""
    for n, sample in enumerate(inputs):
        (folder / "inputs" / str(n)).mkdir(parents=True)
        for name, value in sample.items():
            np.save(folder / "inputs" / str(n) / f"{name}.npy", value.numpy())
    done = subprocess.run([program, file, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=900)
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        said = done.stderr.strip()[-300:].replace(f"{root}/", "")  # the page speaks of no machine's folders
        return {"failed": "program", "reason": f"exit status {done.returncode}: {said}"}
    expected = expected or runtime(file, inputs)
    if answer.get("ran"):
        answer["difference"] = worst(expected, folder / "whole")
    if (folder / "cut.onnx").exists():
        import onnx
        try:
            onnx.checker.check_model(str(folder / "cut.onnx"), full_check=True)
            answer["cut_difference"] = worst(runtime(folder / "cut.onnx", inputs), folder / "cut", folder / "whole")
        except Exception as error:
            answer["cut_refused"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return answer


def torch_pruning(name):
    """30 % of everything that Torch-Pruning finds, by magnitude, the outputs' own layers kept; the better of cutting whole heads and of
    cutting elements within heads. States the share of parameters gone, or why not."""
    import torch
    import torch_pruning
    from torch import nn

    from architectures import ARCHITECTURES, LABELS, WORDS
    answers = []
    for pruned_heads in (True, False):
        try:
            torch.manual_seed(1)
            module, inputs, _ = ARCHITECTURES[name]()
            example = tuple(inputs.values())
            layers = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Conv1d))]
            before = sum(p.numel() for p in module.parameters())
            expected = module(*example)
            expected = expected if isinstance(expected, tuple) else (expected,)
            config = module.model.config
            text = getattr(config, "text_config", config)
            count = getattr(text, "num_attention_heads", None)
            heads = {}
            for label, layer in module.named_modules():
                if isinstance(layer, nn.Linear) and label.rsplit(".", 1)[-1] in ("q_proj", "query", "k_proj", "key", "v_proj", "value"):
                    groups = getattr(text, "num_key_value_heads", count) if label.rsplit(".", 1)[-1][0] in "kv" else count
                    if isinstance(groups, int):
                        heads[layer] = groups
            last = [m for m in layers if getattr(m, "out_features", None) in (WORDS, LABELS)]
            pruner = torch_pruning.pruner.MagnitudePruner(
                module, example, importance=torch_pruning.importance.MagnitudeImportance(), pruning_ratio=0.3, ignored_layers=last,
                num_heads=heads if pruned_heads else {}, prune_num_heads=pruned_heads, prune_head_dims=not pruned_heads,
                output_transform=lambda out: sum(o.sum() for o in (out if isinstance(out, tuple) else (out,))))
            pruner.step()
            with torch.no_grad():
                given = module(*example)
            given = given if isinstance(given, tuple) else (given,)
            if [g.shape for g in given] != [e.shape for e in expected]:
                raise ValueError("the outputs have other shapes")
            after = sum(p.numel() for p in module.parameters())
            if after >= before:
                raise ValueError("nothing was cut")
            answers.append({"gone": 1 - after / before})
        except Exception as error:
            answers.append({"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]})
    good = [a for a in answers if "gone" in a]
    return max(good, key=lambda a: a["gone"]) if good else answers[0]


def into_log(folder):
    """Exporters print graphs where they fail, some past Python's own streams."""
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)


def row(name, program, folder, result, ways=WAYS):
    """What becomes of one architecture; in a process of its own, writes `result`."""
    import torch
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    into_log(folder)
    from architectures import ARCHITECTURES
    answer = {"name": name, "exports": {}}
    try:
        module, inputs, batched = ARCHITECTURES[name]()
        samples = [inputs] + [varied(inputs, n) for n in range(1, SAMPLES)]
        for exporter in ways:
            place = folder / exporter
            place.mkdir(parents=True)
            start = time.perf_counter()
            traced = exporter == "trace"
            file = place / ("model.pt" if traced else "model.onnx")
            refused = trace(module, inputs, file) if traced else export(exporter, module, inputs, batched, file)
            taken = time.perf_counter() - start
            answer["exports"][exporter] = {"refused": refused} if refused else through(
                program, file, place, samples, answers(module, samples) if traced else None)
            answer["exports"][exporter]["seconds_export"] = taken
            result.write_text(json.dumps(answer))
    except Exception as error:
        answer["broken"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        result.write_text(json.dumps(answer))


def peer(name, program, folder, result, _=None):
    """Torch-Pruning's side of a row; in a process of its own, which it may not leave."""
    import torch
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    into_log(folder)
    result.write_text(json.dumps({"torch_pruning": torch_pruning(name)}))


LIMITS = {"row": (row, 600), "peer": (peer, 120)}  # seconds


def run_rows(names, program, keep, jobs, with_peer, ways):
    import torch  # imported before the processes part, so that they share it
    import transformers
    with contextlib.suppress(ModuleNotFoundError):
        import onnxscript
    transformers.logging.set_verbosity_error()
    context = multiprocessing.get_context("fork")
    waiting = [(name, part) for name in names for part in (["row", "peer"] if with_peer else ["row"])]
    left = {name: sum(n == name for n, _ in waiting) for name in names}
    running, rows = {}, {name: {"name": name, "exports": {}} for name in names}
    while waiting or running:
        while waiting and len(running) < jobs:
            name, part = waiting.pop(0)
            folder = keep / name.replace(" ", "-").replace(",", "") / part
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            process = context.Process(target=LIMITS[part][0], args=(name, program, folder, folder / "found.json", ways))
            process.start()
            running[name, part] = (process, folder, time.monotonic())
        for (name, part), (process, folder, began) in list(running.items()):
            late = time.monotonic() - began > LIMITS[part][1]
            if process.is_alive() and late:
                process.kill()
            process.join(0.2)
            if process.is_alive():
                continue
            del running[name, part]
            file = folder / "found.json"
            if file.exists():
                rows[name].update(json.loads(file.read_text()))
            why = "ran past its limit" if late else f"the process ended with {process.exitcode}"
            if process.exitcode and part == "row":
                rows[name]["broken"] = why
            elif process.exitcode:
                rows[name]["torch_pruning"] = {"failed": why}
            left[name] -= 1
            if not left[name]:
                print(summary(rows[name]), file=sys.stderr, flush=True)
    return [rows[name] for name in names]


def agrees(answer):
    return answer.get("difference", float("inf")) <= TOLERANCE


def is_cut(answer):
    return agrees(answer) and answer.get("mask_difference", float("inf")) <= TOLERANCE and answer.get("cut_difference", float("inf")) <= TOLERANCE


def main_export(answer):
    """The export that the row speaks of: the one that came further, the newer exporter's where both did."""
    exports = answer["exports"]
    return max(exports, key=lambda e: (is_cut(exports[e]), agrees(exports[e]), exports[e].get("groups", {}).get("free", 0) > 0, e == "dynamo"), default=None)


def trouble(answer):
    """Why a file did not get through, in one line."""
    if answer.get("refused"):
        return "not exported: " + answer["refused"]
    if not agrees(answer) and "difference" in answer:
        return f"differs from ONNX Runtime by {answer['difference']:.1e}"
    if answer.get("failed"):
        return f"{answer['failed']}: {answer['reason']}"
    if answer.get("cut_refused"):
        return "the cut file: " + answer["cut_refused"]
    if not is_cut(answer):
        return f"mask and cut differ by {answer.get('mask_difference')}, ONNX Runtime by {answer.get('cut_difference')}"
    return ""


def summary(answer):
    parts = [f"{answer['name']:22}"]
    for exporter, export in answer["exports"].items():
        if is_cut(export):
            groups = export["groups"]
            parts.append(f"{exporter}: {groups['free']} groups, {groups['parameters_free'] / export['parameters']:.0%} free, "
                         f"{1 - export['parameters_cut'] / export['parameters']:.0%} cut")
        else:
            parts.append(f"{exporter}: {trouble(export)}")
    if "broken" in answer:
        parts.append("broken: " + answer["broken"])
    peer = answer.get("torch_pruning", {})
    parts.append("torch-pruning: " + (f"{peer['gone']:.0%}" if "gone" in peer else peer.get("failed", "not run")))
    return "\n    ".join(parts)


def main():
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    from architectures import ARCHITECTURES
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(ARCHITECTURES))
    parser.add_argument("--program", type=pathlib.Path, default=root / "build/release/bin/zoo_row")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="where files stay; otherwise they go")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="all rows, as found")
    parser.add_argument("--table", type=pathlib.Path, metavar="FILE", help="the page docs/zoo.md")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=[*WAYS, "trace"], help="how models come in")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--agree", type=int, default=0, metavar="N", help="how many have to agree with ONNX Runtime")
    parser.add_argument("--cut", type=int, default=0, metavar="N", help="how many have to be cut")
    parser.add_argument("--no-peer", action="store_true", help="without Torch-Pruning")
    arguments = parser.parse_args()
    names = arguments.only or list(ARCHITECTURES)
    with tempfile.TemporaryDirectory() as scratch:
        rows = run_rows(names, arguments.program.resolve(), arguments.keep or pathlib.Path(scratch), arguments.jobs, not arguments.no_peer, arguments.ways)
    agreed = [r for r in rows if any(agrees(e) for e in r["exports"].values())]
    cut = [r for r in rows if any(is_cut(e) for e in r["exports"].values())]
    peers = [r for r in rows if "gone" in r.get("torch_pruning", {})]
    print(f"{len(rows)} architectures: {len(agreed)} agree with ONNX Runtime, {len(cut)} are cut; Torch-Pruning cuts {len(peers)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    if arguments.table:
        from page import page
        arguments.table.write_text(page(rows))
    wrong = [r["name"] for r in rows if any("difference" in e and not agrees(e) for e in r["exports"].values())]
    if wrong:
        print("disagree: " + ", ".join(wrong))
    return 1 if wrong or len(agreed) < arguments.agree or len(cut) < arguments.cut else 0


if __name__ == "__main__":
    sys.exit(main())
