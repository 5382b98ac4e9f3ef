"""Convert weights from and to the layouts of other code.

From another layout, the command writes a run folder. The other commands treat it like any run, and --init-from starts
a training from it:

    gan-blocks convert --from huggingface-biggan-deep --generator pytorch_model.bin --run-dir runs/deep-128
    gan-blocks convert --from biggan-pytorch --generator G_ema.pth --discriminator D.pth --run-dir runs/biggan

In the other direction, it writes the networks of a run into the folder --out:

    gan-blocks convert --to biggan-pytorch --run runs/NAME --out exported

Files are safetensors or pickled by torch, whatever their suffix; reading them runs no code. The command recognizes the
networks by the names and shapes of the tensors, and checks all of them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from safetensors.torch import save
from torch import Tensor

from gan_blocks.engine import Recipe, RunFolder, UserError
from gan_blocks.engine.base import (
    DamagedJsonError,
    check_regular,
    parse_object,
    parse_options,
    replace_durably,
    run_command,
)
from gan_blocks.engine.sampling import load_for_export, write_converted_run
from recipes import biggan_deep
from recipes.layouts.biggan_pytorch import (
    ARCHITECTURES,
    LAST_EPS,
    biggan_pytorch_obstacles,
    biggan_pytorch_options,
    convert_biggan_pytorch,
    export_biggan_pytorch,
)
from recipes.layouts.huggingface_biggan_deep import (
    convert_huggingface_biggan_deep,
    export_huggingface_biggan_deep,
    huggingface_config,
)
from recipes.layouts.key_map import Converted
from recipes.layouts.state_dict_file import holds_json, read_pickled_options, read_state_dict

__all__ = [
    "Converted",
    "Options",
    "convert_biggan_pytorch",
    "convert_huggingface_biggan_deep",
    "export_biggan_pytorch",
    "export_huggingface_biggan_deep",
    "main",
]

Layout = Literal["huggingface-biggan-deep", "biggan-pytorch"]
RECIPES: dict[Layout, tuple[Recipe[Any], ...]] = {
    "huggingface-biggan-deep": (biggan_deep.RECIPE,),
    "biggan-pytorch": tuple(architecture.RECIPE for architecture in ARCHITECTURES),
}


@dataclass(frozen=True)
class Options:
    """What to convert, and where to put it."""

    layout: Annotated[Layout | None, tyro.conf.arg(name="from")] = None
    """Layout of the files to read: huggingface-biggan-deep (pytorch-pretrained-biggan) or biggan-pytorch."""

    generator: Path | None = None
    """File with the state dict of G in that layout."""

    discriminator: Path | None = None
    """File with the state dict of D, if there is one (biggan-pytorch only)."""

    config: Path | None = None
    """Options of that code, to check the tensors against: JSON, such as its config.json, or BigGAN-PyTorch's
    state_dict.pth."""

    bn_eps: float | None = None
    """What BatchNorm in G adds to variances (biggan-pytorch only; default: BN_eps of --config, or 1e-5)."""

    last_bn_eps: float | None = None
    """The same for G's last norm (default: 1e-5)."""

    truncation: float = 1.0
    """Truncation of the BatchNorm statistics in ema.safetensors, for using only that file; the run keeps all 51
    tables, from which gan-blocks sample --truncation chooses (huggingface-biggan-deep only)."""

    run_dir: Path | None = None
    """Folder of the new run (default: a new runs/RECIPE-converted-TIME)."""

    to: Layout | None = None
    """The other direction: the layout to write."""

    run: Path | None = None
    """The run whose averaged G and whose D are written, from its newest checkpoint."""

    out: Path = Path("exported")
    """Folder for generator.safetensors, discriminator.safetensors and config.json."""

    def __post_init__(self) -> None:
        """Check what goes together."""
        if (self.layout is None) == (self.to is None):
            raise UserError("give one of --from LAYOUT and --to LAYOUT.")
        if self.layout is not None and self.generator is None:
            raise UserError("--from needs --generator FILE.")
        if self.layout == "huggingface-biggan-deep" and self.discriminator is not None:
            raise UserError("the layout huggingface-biggan-deep has no discriminator: leave out --discriminator.")
        for option, eps in (("--bn-eps", self.bn_eps), ("--last-bn-eps", self.last_bn_eps)):
            if eps is not None and self.layout != "biggan-pytorch":
                raise UserError(f"{option} goes only with --from biggan-pytorch: other files say what it is.")
            if eps is not None and not 0 < eps < math.inf:
                raise UserError(f"{option} must be a number greater than 0, but got {eps:g}.")
        if self.to is not None and self.run is None:
            raise UserError("--to needs --run RUN.")
        if not 0 <= self.truncation <= 1:
            raise UserError(f"--truncation must be from 0 to 1, where the tables are, but got {self.truncation}.")
        if self.truncation != 1 and self.layout != "huggingface-biggan-deep":
            raise UserError("--truncation goes only with --from huggingface-biggan-deep: other files have no tables.")


def read_run(options: Options) -> None:
    """Convert the files of another layout into a run."""
    assert options.layout is not None
    assert options.generator is not None
    generator = read_state_dict(options.generator)
    given = None if options.config is None else _read_options(options.config)
    if options.layout == "huggingface-biggan-deep":
        converted = convert_huggingface_biggan_deep(generator, config=given, truncation=options.truncation)
    else:
        discriminator = None if options.discriminator is None else read_state_dict(options.discriminator)
        converted = convert_biggan_pytorch(
            generator, discriminator, config=given, bn_eps=options.bn_eps, last_bn_eps=options.last_bn_eps
        )
    for name, value in converted.generator.items():
        if name.endswith("running_var") and (value < 0).any():
            raise UserError(f"{options.generator} has a variance below 0, in {name}: it is damaged.")
    folder = write_converted_run(
        options.run_dir,
        recipe=converted.recipe.identity,
        config=converted.config,
        layout=options.layout,
        generator=converted.generator,
        discriminator=converted.discriminator,
        tables=converted.statistics,
    )
    classes, side = converted.config.num_classes, converted.config.resolution
    both = "generator" if converted.discriminator is None else "generator and discriminator"
    print(f"A {both} of {converted.recipe.name}, {classes} classes, {side}x{side} pixels: {folder.path}")
    for note in converted.notes:
        print(note)
    if converted.discriminator is None:
        print("There is no discriminator: a training with --init-from starts with a fresh one.")


def write_layout(options: Options) -> None:
    """Write the networks of a run in another layout."""
    assert options.run is not None
    assert options.to is not None
    made_by = RunFolder.open(options.run).recipe
    fitting = [recipe for recipe in RECIPES[options.to] if made_by.is_of(recipe.identity)]
    if not fitting:
        raise UserError(f"the layout {options.to} has no networks of {made_by.name}.")
    trained = load_for_export(options.run, recipe=fitting[0])
    for note in trained.notes:
        print(note)
    files: dict[str, bytes] = {}
    described: Mapping[str, object]
    if options.to == "huggingface-biggan-deep":
        generator = export_huggingface_biggan_deep(trained.generator, config=trained.config, statistics=trained.tables)
        described = huggingface_config(trained.config)
        if trained.tables is None:
            print("The run has no tables of statistics: those without truncation stand for every truncation.")
    else:
        generator, discriminator = export_biggan_pytorch(
            trained.generator, trained.discriminator, config=trained.config, last_bn_eps=LAST_EPS
        )
        described = biggan_pytorch_options(trained.config)
        if reasons := biggan_pytorch_obstacles(trained.config, discriminator=discriminator is not None):
            print(f"BigGAN-PyTorch itself cannot build these networks from config.json: {'; '.join(reasons)}.")
        if discriminator is not None:
            files["discriminator.safetensors"] = _encode(discriminator)
    files |= {
        "generator.safetensors": _encode(generator),
        "config.json": json.dumps(described, indent=2).encode() + b"\n",
    }
    other = options.out / "discriminator.safetensors"
    if other.name not in files and other.exists():
        raise UserError(f"{other} is of an earlier call, and there is none to go with this G: name another --out.")
    for name, data in files.items():
        replace_durably(options.out / name, data)
    print(f"{', '.join(sorted(files))} in the layout {options.to}: {options.out}")


def _encode(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})


def _read_options(path: Path) -> Mapping[str, Any]:
    check_regular(path, "--config")
    try:
        found = parse_object(path.read_bytes(), {}) if holds_json(path) else read_pickled_options(path)
        inner = found.get("config")
        return inner if isinstance(inner, Mapping) else found
    except OSError as error:
        raise UserError(f"--config {path} cannot be read as JSON: {error.strerror}.") from None
    except DamagedJsonError:
        raise UserError(f"--config {path} must hold a JSON object.") from None


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m recipes.convert") -> int:
    """Convert; see ``gan-blocks convert --help``."""

    def command() -> int:
        options = parse_options(Options, prog=prog, description=__doc__ or "", args=argv)
        (read_run if options.layout is not None else write_layout)(options)
        return 0

    return run_command("convert", command)


if __name__ == "__main__":
    raise SystemExit(main())
