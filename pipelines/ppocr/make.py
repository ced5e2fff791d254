#!/usr/bin/env python3
"""Writes what pipelines/ppocr-rec.toml distils and measures on: pictures of rendered lines of text as arrays.

    pipelines/ppocr/make.py [OUT]      default: the folder data/ beside this script

Lines of 3 to 24 characters out of news (words, as they stand in it) and of numbers, in sizes, slants, colours, blur and noise of their
own, fitted into 48 × 320 pixels as the recogniser reads them: the text's height fills the picture, what is left on the right is
empty. OUT gets train.npy and heldout.npy (uint8, [N, 3, 48, 320]) and the lines as train.txt and heldout.txt; no line of one is in
the other. The news are those of the gensim package that `./espalier setup` unpacks; nothing of it is run. Needs numpy and Pillow (with
its built-in font); without them it starts again in the environment that the set-up made.
"""
import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))
import set_up_python  # noqa: E402

try:
    import numpy
    from PIL import Image, ImageDraw, ImageFilter, ImageFont
except ImportError as missing:
    set_up_python.start_again(missing)

HEIGHT, WIDTH = 48, 320


def lines_of(words, count, random):
    """Different lines: runs of words, some of them with capitals, and numbers with separators."""
    lines = {}
    while len(lines) < count:
        if random.random() < 0.2:
            line = "".join(random.choice(list("0123456789"), random.integers(3, 12))) + random.choice(["", "", ".5", " kg", "%", "-07", "/12"])
        else:
            first, line = random.integers(0, len(words) - 6), ""
            for word in words[first:first + random.integers(1, 5)]:
                if len(line) + len(word) + 1 <= 24:
                    line = f"{line} {word}".strip()
            style = random.random()
            line = line.upper() if style < 0.15 else line.title() if style < 0.3 else line
        if len(line) >= 3:
            lines[line] = None
    return list(lines)


def picture(line, random):
    """[3, HEIGHT, WIDTH] bytes."""
    size = int(random.integers(22, 44))
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = font.getbbox(line)
    margin = [int(m) for m in random.integers(1, 8, 4)]
    ground, ink = random.integers(150, 256, 3), random.integers(0, 90, 3)
    if random.random() < 0.25:
        ground, ink = ink, ground
    image = Image.new("RGB", (right - left + margin[0] + margin[1], bottom - top + margin[2] + margin[3]), tuple(int(c) for c in ground))
    ImageDraw.Draw(image).text((margin[0] - left, margin[2] - top), line, fill=tuple(int(c) for c in ink), font=font)
    slant = random.normal(0, 0.08)
    image = image.transform(image.size, Image.Transform.AFFINE, (1, slant, -slant * image.height / 2, 0, 1, 0), Image.Resampling.BILINEAR,
                            fillcolor=tuple(int(c) for c in ground))
    image = image.resize((min(WIDTH, max(16, round(image.width * HEIGHT / image.height))), HEIGHT), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.1)))
    pixels = numpy.asarray(image, dtype=numpy.float32)
    pixels = (pixels + random.normal(0, random.uniform(0, 10), pixels.shape)).clip(0, 255).round().astype(numpy.uint8)
    field = numpy.full((HEIGHT, WIDTH, 3), 128, dtype=numpy.uint8)  # 0 once normalised
    field[:, :pixels.shape[1]] = pixels
    return field.transpose(2, 0, 1)[::-1]  # blue, green, red, as the recogniser was trained


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=pathlib.Path, default=HERE / "data")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "pipelines/data/gensim/test/test_data/lee_background.cor")
    parser.add_argument("--train", type=int, default=2400, help="pictures to distil on")
    parser.add_argument("--heldout", type=int, default=300, help="pictures to measure on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.train < 1 or arguments.heldout < 1:
        sys.exit("make.py: --train and --heldout must be 1 or more")
    if not arguments.text.exists():
        sys.exit(f"make.py: there is no {arguments.text}; run `./espalier setup` once, or name a text with --text")
    words = [word for word in arguments.text.read_text(encoding="utf-8").split() if word.isascii()]
    if len(words) < 1000:
        sys.exit(f"make.py: {arguments.text} has {len(words)} words, expected 1000 or more")
    random = numpy.random.default_rng(arguments.seed)
    lines = lines_of(words, arguments.train + arguments.heldout, random)
    order = random.permutation(len(lines))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part, numbers in {"heldout": order[:arguments.heldout], "train": order[arguments.heldout:]}.items():
        numpy.save(arguments.out / f"{part}.npy", numpy.stack([picture(lines[n], random) for n in numbers]))
        (arguments.out / f"{part}.txt").write_text("".join(f"{lines[n]}\n" for n in numbers))
    print(f"{arguments.out}: {arguments.train} pictures to distil on, {arguments.heldout} to measure on, {HEIGHT} x {WIDTH}")


if __name__ == "__main__":
    main()
