"""Any ONNX file through what the zoo's rows go through: equality with ONNX Runtime, a training step, a cut of 30 % of every free group,
mask against cut, onnx.checker, and ONNX Runtime and OpenVINO on the cut file.

python tests/zoo/file.py MODEL.onnx --shape NAME=2x3x48x320 … [--words NAME=VOCABULARY …] [--samples 20] [--keep FOLDER]

Inputs of four axes are pictures of words (needs Pillow), others normal numbers. Prints one line of JSON. Exits 1 when something disagrees.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np

import zoo

OPENVINO = 1e-3  # its kernels' rounding on pictures


class Numbers:
    """An input as zoo.through() wants it."""

    def __init__(self, array):
        self.array = array

    def numpy(self):
        return self.array


def picture(shape, random):
    """Dark words on light ground in [-1, 1]: on noise a detector's answers are all but zero, where nothing can be compared."""
    from PIL import Image, ImageDraw, ImageFont
    images = []
    for _ in range(shape[0]):
        image = Image.new("RGB", (shape[3], shape[2]), "white")
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=min(32, shape[2] - 8))
        for line in range(0, shape[2] - font.size // 2, font.size + 8):
            letters = random.choice(list("abcdefghijklmnopqrstuvwxyzABCDEFGH  0123456789"), shape[3] // 12)
            draw.text((4, line), "".join(letters), fill="black", font=font)
        images.append(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)
    return np.ascontiguousarray(np.stack(images))


def inputs(shapes, words, number):
    random = np.random.default_rng(number)
    sample = {}
    for name, shape in shapes.items():
        if name in words:
            sample[name] = Numbers(random.integers(0, words[name], shape, dtype=np.int64))
        else:
            sample[name] = Numbers(picture(shape, random) if len(shape) == 4 else random.standard_normal(shape, dtype=np.float32))
    return sample


def open_vino(file, samples):
    import openvino
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(file)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = (compiled({name: value.numpy() for name, value in sample.items()}) for sample in samples)
    return [[answer[port] for port in compiled.outputs] for answer in answers]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--shape", nargs="+", required=True, metavar="NAME=AxBxC")
    parser.add_argument("--words", nargs="*", default=[], metavar="NAME=N", help="inputs of integers below N")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--program", type=pathlib.Path, default=zoo.root / "build/release/bin/zoo_row")
    arguments = parser.parse_args()
    shapes = {name: [int(n) for n in shape.split("x")] for name, shape in (s.split("=") for s in arguments.shape)}
    words = {name: int(n) for name, n in (w.split("=") for w in arguments.words)}
    samples = [inputs(shapes, words, number) for number in range(arguments.samples)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or pathlib.Path(scratch)
        answer = zoo.through(arguments.program, arguments.model, folder, samples)
        if (folder / "cut.onnx").exists():
            answer["cut_difference_openvino"] = zoo.worst(open_vino(folder / "cut.onnx", samples), folder / "cut", folder / "whole")
    print(json.dumps(answer))
    return 0 if zoo.is_cut(answer) and answer["cut_difference_openvino"] <= OPENVINO else 1


if __name__ == "__main__":
    sys.exit(main())
