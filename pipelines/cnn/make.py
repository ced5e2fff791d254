#!/usr/bin/env python3
"""Writes what pipelines/cnn-60.toml starts from: an untrained CNN as ONNX, and handwritten digits in a field as arrays.

    pipelines/cnn/make.py [OUT]      default: the folder data/ beside this script

Each of 1,797 digits of 8 × 8 pixels is drawn at twice its size somewhere in a field of 32 × 32, with noise: a task that is easy for
convolutions and hard for whatever looks at pixels one by one. 30 % of the digits are held out; the others are drawn several times.

OUT gets model.onnx, train-images.npy and heldout-images.npy (uint8, [N, 1, 32, 32]), train-labels.npy and heldout-labels.npy (int64)
and baseline.json: the accuracy of a logistic regression on the same pixels. The digits (Optical Recognition of Handwritten Digits, UCI;
CC BY 4.0) lie in the scikit-learn package that `./espalier setup` unpacks; nothing of it is run. Needs numpy and onnx; without them
it starts again in the environment that the set-up made.
"""
import argparse
import gzip
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))
import set_up_python  # noqa: E402

try:
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    set_up_python.start_again(missing)


def digits(file):
    if not file.exists():
        sys.exit(f"make.py: there is no {file}; run `./espalier setup` once, or name the file with --digits")
    with gzip.open(file, "rt") as lines:
        table = numpy.loadtxt(lines, delimiter=",")
    if table.ndim != 2 or table.shape[1] != 65:
        sys.exit(f"make.py: {file} holds {table.shape} numbers, expected 64 pixels and a label a line")
    return table[:, :64].reshape(-1, 8, 8) / 16, table[:, 64].astype(numpy.int64)


def drawn(images, labels, copies, field, random):
    """Each image `copies` times, linearly enlarged to 16 × 16, at random places of noisy fields, as bytes."""
    at = numpy.linspace(0, 7, 16)
    low = numpy.minimum(at.astype(int), 6)
    enlarge = numpy.zeros((16, 8))
    enlarge[numpy.arange(16), low] = 1 - (at - low)
    enlarge[numpy.arange(16), low + 1] += at - low
    large = enlarge @ images @ enlarge.T
    fields = random.normal(0.1, 0.1, (copies * len(images), field, field))
    for number in range(len(fields)):
        y, x = random.integers(0, field - 16 + 1, 2)
        fields[number, y:y + 16, x:x + 16] += large[number % len(images)]
    return (fields.clip(0, 1) * 255).round().astype(numpy.uint8)[:, None], numpy.tile(labels, copies)


def network(width, field, seed, batch):
    """Five 3 × 3 convolutions (1, 2, 2, 4 and 4 times `width` channels), two poolings, a linear layer; He's initial weights."""
    random = numpy.random.default_rng(seed)
    nodes, weights = [], []

    def weight(name, shape, spread):
        weights.append(numpy_helper.from_array((random.standard_normal(shape) * spread).astype(numpy.float32), name))
        return name

    def convolution(name, source, inputs, outputs):
        kernel = weight(f"{name}.weight", (outputs, inputs, 3, 3), (2 / (9 * inputs)) ** 0.5)
        bias = weight(f"{name}.bias", (outputs,), 0.0)
        nodes.append(helper.make_node("Conv", [source, kernel, bias], [f"{name}.out"], name=f"/{name}/Conv", kernel_shape=[3, 3], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"{name}.out"], [f"{name}.relu"], name=f"/{name}/Relu"))
        return f"{name}.relu"

    def pool(name, source):
        nodes.append(helper.make_node("MaxPool", [source], [f"{name}.out"], name=f"/{name}/MaxPool", kernel_shape=[2, 2], strides=[2, 2]))
        return f"{name}.out"

    x = convolution("conv1", "input", 1, width)
    x = convolution("conv2", x, width, 2 * width)
    x = pool("pool1", convolution("conv3", x, 2 * width, 2 * width))
    x = convolution("conv4", x, 2 * width, 4 * width)
    x = convolution("conv5", x, 4 * width, 4 * width)
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean.out"], name="/mean/GlobalAveragePool"))
    nodes.append(helper.make_node("Flatten", ["mean.out"], ["flat.out"], name="/flat/Flatten"))
    head = [weight("head.weight", (10, 4 * width), (1 / (4 * width)) ** 0.5), weight("head.bias", (10,), 0.0)]
    nodes.append(helper.make_node("Gemm", ["flat.out", *head], ["scores"], name="/head/Gemm", transB=1))
    graph = helper.make_graph(
        nodes, "digits", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch or "batch", 1, field, field])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch or "batch", 10])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10, producer_name="espalier cnn")
    onnx.checker.check_model(model, full_check=True)
    return model


def logistic_regression(train, heldout, steps=300):
    """Multinomial logistic regression by gradient descent, weight decay 1e-4; accuracy on the held-out examples."""
    flat = [numpy.hstack([images.reshape(len(images), -1) / 255, numpy.ones((len(images), 1))]) for images, _ in (train, heldout)]
    weights, wanted = numpy.zeros((flat[0].shape[1], 10)), numpy.eye(10)[train[1]]
    for _ in range(steps):
        scores = flat[0] @ weights
        likely = numpy.exp(scores - scores.max(1, keepdims=True))
        likely /= likely.sum(1, keepdims=True)
        weights -= 0.1 * (flat[0].T @ (likely - wanted) / len(wanted) + 1e-4 * weights)
    return float(((flat[1] @ weights).argmax(1) == heldout[1]).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=pathlib.Path, default=HERE / "data")
    parser.add_argument("--digits", type=pathlib.Path, default=ROOT / "pipelines/data/sklearn/datasets/data/digits.csv.gz")
    parser.add_argument("--width", type=int, default=40, help="channels of the first convolution")
    parser.add_argument("--field", type=int, default=32, help="pixels of a side of the images; a digit has 16")
    parser.add_argument("--copies", type=int, default=6, help="drawings of each digit to train on")
    parser.add_argument("--batch", type=int, default=0, help="a fixed batch of the model; 0: any")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.width < 1 or arguments.copies < 1 or arguments.field < 16 or arguments.batch < 0:
        sys.exit("make.py: --width and --copies must be 1 or more, --field 16, --batch 0")
    images, labels = digits(arguments.digits)
    arguments.out.mkdir(parents=True, exist_ok=True)
    onnx.save(network(arguments.width, arguments.field, arguments.seed, arguments.batch), arguments.out / "model.onnx")
    random = numpy.random.default_rng(arguments.seed)
    order = random.permutation(len(labels))
    held = round(0.3 * len(labels))
    parts = {"heldout": drawn(images[order[:held]], labels[order[:held]], 2, arguments.field, random),
             "train": drawn(images[order[held:]], labels[order[held:]], arguments.copies, arguments.field, random)}
    for part, (fields, classes) in parts.items():
        numpy.save(arguments.out / f"{part}-images.npy", fields)
        numpy.save(arguments.out / f"{part}-labels.npy", classes)
    accuracy = logistic_regression(parts["train"], parts["heldout"])
    baseline = {"logistic_regression_accuracy": accuracy, "train": len(parts["train"][1]), "heldout": len(parts["heldout"][1])}
    (arguments.out / "baseline.json").write_text(json.dumps(baseline, indent=2) + "\n")
    print(f"{arguments.out}: {len(labels)} digits; logistic regression reaches {accuracy:.4f} on {baseline['heldout']} held out")


if __name__ == "__main__":
    main()
