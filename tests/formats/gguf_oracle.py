"""Values of quantized blocks as llama.cpp's own Python package reads them.

gguf_oracle.py SEED FOLDER: for each type that it dequantizes, FOLDER/TYPE.blocks (random blocks whose scales are finite) and FOLDER/TYPE.f32
"""
import pathlib
import sys

import gguf
import numpy
from gguf import quants

# Offsets of half-precision (or, last, single-precision) scales in a block.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208]}


def main(seed, folder):
    rng = numpy.random.default_rng(seed)
    for name, offsets in SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        size = gguf.GGML_QUANT_SIZES[kind][1]
        blocks = rng.integers(0, 256, (200, size), dtype=numpy.uint8)
        for at in offsets:
            scales = rng.normal(0, 0.05, (200, 1)).astype("<f2")
            scales[:4, 0] = [0, 6e-8, -60000, 1e-4]  # zero, subnormal, nearly the largest
            blocks[:, at:at + 2] = scales.view(numpy.uint8)
        blocks.tofile(folder / f"{name}.blocks")
        quants.dequantize(blocks, kind).astype("<f4").tofile(folder / f"{name}.f32")


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
