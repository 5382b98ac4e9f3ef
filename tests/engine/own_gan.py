"""The recipe of the tutorial "A GAN of your own", and small options to run it with."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "own_gan.md"
CODE = re.findall(r"^```python\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)[0]
SMALL = [
    *("--resolution", "16", "--num-classes", "3", "--latent-dim", "4", "--width", "4", "--batch-size", "8"),
    *("--standing-batches", "2", "--ema-start", "2", "--threads", "1", "--sample-every", "0"),
]


def write_own_gan(folder: Path) -> Path:
    """The tutorial's file in a folder."""
    path = folder / "my_gan.py"
    path.write_text(CODE)
    return path


def write_own_package(folder: Path) -> Path:
    """The same recipe in a package as pip installs it; gives the folder for ``PYTHONPATH``."""
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    write_own_gan(package)
    metadata = folder / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[gan_blocks.recipes]\nmy_gan = my_package.my_gan:RECIPE\n")
    return folder


def run(*words: str, cwd: Path, path: Path | None = None, status: int = 0) -> str:
    """Run ``python WORDS`` as a user in another folder would; gives what it says on both channels."""
    # The project's own folder comes last, for a checkout that is not installed.
    places = [str(place) for place in (path, ROOT) if place is not None]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr
