"""For the scripts beside recipes: starts one again in the environment that the set-up made, where a package it needs is missing."""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def start_again(missing):
    """Does not return. `missing` is the ImportError that says what is not there."""
    script, needs = pathlib.Path(sys.argv[0]).name, missing.name
    if os.environ.get("ESPALIER_SCRIPT_STARTED"):
        sys.exit(f"{script}: {needs} is missing; run `./espalier test -N` once (it makes an environment with it), or install it")
    folder = subprocess.run([ROOT / "espalier", "deps-dir"], capture_output=True, text=True, check=False).stdout.strip()
    python = pathlib.Path(folder) / "test-venv" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{script}: {needs} is missing, and there is no {python}; `./espalier test -N` makes it")
    os.execve(python, [str(python), *sys.argv], {**os.environ, "ESPALIER_SCRIPT_STARTED": "1"})
