"""Tests the library's parts with the oldest torch, einops and numpy that pyproject.toml promises.

``python -m tests.oldest_torch FOLDER`` makes an environment of these in FOLDER, unless it is there, and runs the tests
of the parts in it; what follows FOLDER goes to pytest. It is run by hand: the build of torch that pip finds first is
several gigabytes large.
"""

import argparse
import os
import subprocess
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PARTS = ("blocks", "conditioning", "latents", "layers", "losses", "metrics", "spectral", "training")
TOOLS = ("hypothesis", "pytest", "pytest-xdist", "scipy")


def oldest(dependencies: Iterable[str]) -> list[str]:
    """The lowest versions that requirements such as ``torch>=2.6`` allow, as requirements."""
    found = []
    for requirement in map(Requirement, dependencies):
        (lowest,) = [each.version for each in requirement.specifier if each.operator == ">="]
        found.append(f"{requirement.name}=={lowest}")
    return found


def make_environment(folder: Path) -> Path:
    """Its interpreter. The parts need no extra; what the tests share needs the engine's."""
    python, done = folder / "bin" / "python", folder / ".installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        words = ["--disable-pip-version-check", *oldest(dependencies), *TOOLS, "--editable", f"{ROOT}[engine]"]
        subprocess.run([python, "-m", "pip", "install", *words], check=True)
        done.touch()
    return python


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oldest_torch", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the environment; made when missing")
    asked, options = parser.parse_known_args()
    python = make_environment(asked.folder.resolve())
    subprocess.run([python, "-c", "import torch; print('torch', torch.__version__)"], check=True)
    words = ["-q", "-n", "2", "-m", "not slow", *(f"tests/{part}" for part in PARTS), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([python, "-m", "pytest", *words], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
