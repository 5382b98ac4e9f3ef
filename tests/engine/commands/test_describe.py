import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import describe
from recipes import biggan, biggan_deep, dcgan, progan, sagan, sngan, wgan_gp

ROOT = Path(__file__).parents[3]


def test_totals_are_the_parameters_of_the_networks(capsys: pytest.CaptureFixture[str]):
    assert describe.main(["biggan_deep", "--preset", "imagenet-128"]) == 0
    page = capsys.readouterr().out
    assert "50,388,609" in page
    assert "34,590,210" in page


@pytest.mark.parametrize("preset", list(biggan_deep.PRESETS))
def test_every_preset_is_described(preset: str):
    config = biggan_deep.PRESETS[preset]()
    tables = describe.describe(biggan_deep.RECIPE, config)
    size = (config.image_channels, config.resolution, config.resolution)
    assert tables["Generator"][-1].output_shape == size


@pytest.mark.slow
def test_describing_needs_less_than_a_gibibyte_and_not_the_compiler():
    program = (
        "import resource, sys; from gan_blocks.engine.commands import describe; from recipes import biggan_deep;"
        "[describe.describe(biggan_deep.RECIPE, preset()) for preset in biggan_deep.PRESETS.values()];"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    kibibytes, *modules = output.split()
    assert int(kibibytes) < 2**20
    # These take longer to import than torch itself: a kernel of the meta device that is written in Python needs them.
    assert {"torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "sympy"}.isdisjoint(modules)


def test_every_option_of_the_config_is_taken(capsys: pytest.CaptureFixture[str]):
    changed = ["--channels", "64", "--num-classes", "18291", "--generator-attention", "64"]
    assert describe.main(["biggan", "--preset", "imagenet-256", *changed]) == 0
    config = replace(biggan.PRESETS["imagenet-256"](), channels=64, num_classes=18291, generator_attention=(64,))
    tables = describe.describe(biggan.RECIPE, config)
    page = capsys.readouterr().out
    for rows in tables.values():
        assert f"{sum(row.parameters for row in rows):,}" in page
    assert page.splitlines()[-1].endswith(f": {describe.table_1_parameters(tables):,}")


class Narrow(nn.Module):
    """A discriminator whose layers do not fit each other."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(1, 2, 3))


def test_a_layer_that_does_not_fit_is_one_line():
    recipe = replace(biggan_deep.RECIPE, build_discriminator=lambda config: Narrow())
    for command in (describe.describe, describe.describe_step):
        with pytest.raises(
            UserError, match=r"^the discriminator fails in layers\.2 \(Conv2d\), given \(., 4, 30, 30\): "
        ):
            command(recipe, biggan_deep.Config())


NAMES = "appendix_h, biggan, biggan_deep, dcgan, progan, sagan, sngan, stacked_mnist, top_k_players, wgan_gp"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["biggan_deap"],
            f"there is no recipe biggan_deap: name a registered one ({NAMES}), a file or a module. Perhaps you meant "
            "biggan_deep.",
        ),
        (
            ["sample"],
            f"there is no recipe sample: name a registered one ({NAMES}), a file or a module.",
        ),
        (["recipes.sample"], "recipes.sample is no recipe: the module has no RECIPE = Recipe(...)."),
        ([], f"the first word must name a recipe ({NAMES}, a file or a module), but got nothing."),
        (
            ["--preset", "x"],
            f"the first word must name a recipe ({NAMES}, a file or a module), but got --preset.",
        ),
        (
            ["biggan_deep", "--preset", "x"],
            f"--preset must be one of {', '.join(biggan_deep.PRESETS)}, but got x.",
        ),
        (["biggan_deep", "--world-size", "0"], "--world-size must be greater than 0, but got 0."),
        (["biggan_deep", "--channels", "0"], "--channels must be greater than 0, but got 0."),
    ],
)
def test_bad_names_end_with_one_line_and_status_2(args: list[str], message: str, capfd: pytest.CaptureFixture[str]):
    assert describe.main(args) == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines == [f"describe: error: {message}"]


RECIPES = {module.RECIPE.name: module.RECIPE for module in (biggan, biggan_deep, dcgan, progan, sagan, sngan, wgan_gp)}
PRESETS = [
    (name, preset)
    for name, recipe in RECIPES.items()
    for preset in recipe.presets
    if not (name == "progan" and preset.startswith("table1"))  # rows of which the guide says what they change
]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_the_list_of_presets_or_the_table_of_the_papers_rows_shows_the_parameters_of_every_preset(
    name: str, preset: str
):
    page = ROOT / (f"docs/{'recipes' if preset.startswith('table1') else 'presets'}.md")
    lines = page.read_text().splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{name}` |") and f"`{preset}`" in line]
    tables = describe.describe(RECIPES[name], RECIPES[name].presets[preset]())
    totals = [sum(entry.parameters for entry in rows) for rows in tables.values()]
    assert [f"{total:,}" in row for total in totals] == [True, True]


TABLE_1 = {1: "81.5", 2: "81.5", 3: "81.5", 4: "81.5", 5: "173.5", 6: "160.6", 7: "158.3", 8: "158.3", 9: "71.3"}


@pytest.mark.parametrize(("row", "millions"), TABLE_1.items())
def test_every_row_of_table_1_has_the_papers_number_of_parameters(
    row: int, millions: str, capsys: pytest.CaptureFixture[str]
):
    recipe = "sagan" if row <= 5 else "biggan"
    assert describe.main([recipe, "--preset", f"table1-row{row}"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    title, _, number = line.partition(": ")
    assert title == ("Param (G + D without G's shared embedding)" if row > 5 else "Param (G + D)")
    assert f"{int(number.replace(',', '')) / 1e6:.1f}" == millions


def test_what_processes_exchange_is_counted_from_the_networks(capsys: pytest.CaptureFixture[str]):
    exchanged = describe.describe_step(biggan_deep.RECIPE, biggan_deep.PRESETS["imagenet-128"](), num_processes=512)
    parameters_of_g, parameters_of_d = 50_388_609, 34_590_210
    assert exchanged.samples == 4
    assert exchanged.gradient_bytes == 4 * (parameters_of_g + 2 * parameters_of_d)
    assert exchanged.state_bytes == 4 * (5 * parameters_of_g + 4 * parameters_of_d)
    # Four in each of ten blocks and one before the last convolution; two updates of D, then G's forward and backward.
    assert exchanged.norm_messages == 41 * 4
    assert describe.main(["biggan_deep", "--preset", "imagenet-128", "--world-size", "512"]) == 0
    assert "messages of BatchNorm: 164, of 648.5 KiB in all" in capsys.readouterr().out


def test_the_memory_of_a_step_is_that_of_the_batch_at_the_end_of_the_training():
    costs = describe.describe_step(progan.RECIPE, progan.PRESETS["celebahq-1024"]())
    assert costs.samples == 3
    assert costs.update_bytes == (3 * (costs.activations_g + costs.activations_d), 6 * costs.activations_d)


def test_a_batch_that_processes_cannot_share_is_refused(capfd: pytest.CaptureFixture[str]):
    assert describe.main(["biggan_deep", "--preset", "imagenet-128", "--world-size", "3"]) == 2
    message = "--world-size must be a divisor of the batch of 2048, but got 3."
    assert capfd.readouterr() == ("", f"describe: error: {message}\n")
