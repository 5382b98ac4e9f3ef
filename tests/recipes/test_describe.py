import subprocess
import sys
from pathlib import Path

import pytest

from recipes import biggan_deep, describe


def test_totals_are_the_parameters_of_the_networks(capsys: pytest.CaptureFixture[str]):
    assert describe.main(["biggan_deep", "--preset", "imagenet-128"]) == 0
    page = capsys.readouterr().out
    assert "50,388,609" in page
    assert "34,590,210" in page


@pytest.mark.parametrize("preset", list(biggan_deep.PRESETS))
def test_every_preset_is_described(preset: str):
    tables = describe.describe("biggan_deep", preset)
    config = biggan_deep.PRESETS[preset]()
    rgb_channels = config.channels if config.wide_rgb_conv else config.image_channels
    assert tables["Generator"][-1].output_shape == (rgb_channels, config.resolution, config.resolution)


def test_describing_needs_less_than_a_gibibyte_and_not_the_compiler():
    program = (
        "import resource, sys; from recipes import biggan_deep, describe;"
        "[describe.describe('biggan_deep', preset) for preset in biggan_deep.PRESETS];"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    kibibytes, *modules = output.split()
    assert int(kibibytes) < 2**20
    # These take longer to import than torch itself: a kernel of the meta device that is written in Python needs them.
    assert {"torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "sympy"}.isdisjoint(modules)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["biggan_deap"], "there is no recipe named biggan_deap."),
        (["sample"], "recipes.sample is a command, not a training recipe."),
        (["biggan_deep", "--preset", "x"], "--preset must be one of"),
    ],
)
def test_bad_names_end_with_one_line_and_status_2(args: list[str], message: str, capfd: pytest.CaptureFixture[str]):
    assert describe.main(args) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"describe: error: {message}")


@pytest.mark.parametrize("preset", list(biggan_deep.PRESETS))
def test_the_readme_shows_the_parameters_of_every_preset(preset: str):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (row,) = [line for line in readme.splitlines() if f"| `{preset}` |" in line]
    totals = [sum(entry.parameters for entry in rows) for rows in describe.describe("biggan_deep", preset).values()]
    assert [f"{total:,}" in row for total in totals] == [True, True]
