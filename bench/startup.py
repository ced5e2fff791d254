#!/usr/bin/env python3
"""Whole-process times of what people type most, launcher included, beside a bare `python3 -c pass` in the same alternating runs.

    bench/startup.py RECIPE [--runs N] [--store DIR]

RECIPE's cached rerun is timed: run it once before, or the first turn does its work. Prints the median, the least and the ratio to the bare interpreter, and exits 1
when a limit is passed: 30 ms for `plugins` and `validate`, 60 ms for a wholly cached `run`.
"""
import argparse
import pathlib
import statistics
import subprocess
import sys
import time

root = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("recipe")
parser.add_argument("--runs", type=int, default=20)
parser.add_argument("--store")
options = parser.parse_args()
espalier = str(root / "espalier")
store = ["--store", options.store] if options.store else []
commands = {
    "plugins": ([espalier, "plugins"], 30),
    "validate": ([espalier, "validate", options.recipe], 30),
    "run, cached": ([espalier, "run", options.recipe, "--json", *store], 60),
    "python3 -c pass": (["python3", "-c", "pass"], None),
}
samples = {name: [] for name in commands}
for turn in range(options.runs + 2):
    for name, (command, _) in commands.items():
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        took = (time.perf_counter() - start) * 1000
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed with {done.returncode}")
        if b'"status":"ran"' in done.stdout and turn > 0:
            sys.exit("the recipe does not stay cached")
        if turn >= 2:
            samples[name].append(took)
bare = statistics.median(samples["python3 -c pass"])
late = False
for name, (_, limit) in commands.items():
    median = statistics.median(samples[name])
    late |= limit is not None and median > limit
    print(f"{name:16} median {median:6.1f} ms   least {min(samples[name]):6.1f} ms   {median / bare:5.2f} x bare python"
          + (f"   limit {limit} ms" if limit else ""))
sys.exit(1 if late else 0)
