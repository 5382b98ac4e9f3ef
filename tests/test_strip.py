"""The picture at the top of the README is what its script makes of the gallery's, and small."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"


def test_it_is_what_the_script_makes_and_small_enough_for_a_front_page():
    spec = importlib.util.spec_from_file_location("_strip", DOCS / "_strip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made, path = module.strip().convert("RGB"), DOCS / "images" / "strip.png"
    with Image.open(path) as kept:
        assert kept.size == made.size
        difference = np.abs(np.asarray(kept.convert("RGB"), dtype=float) - np.asarray(made, dtype=float))
    assert difference.mean() < 1  # versions of pillow draw letters otherwise by a little
    assert path.stat().st_size <= 400_000
    assert "![" in (readme := (DOCS.parent / "README.md").read_text())
    assert readme.index("docs/images/strip.png") < readme.index("## ")
