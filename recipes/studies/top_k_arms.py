"""What the studies of top-k training compare, with the figures of the paper's Tables 3 and 5 (Sinha et al. 2020).

Tested in ``tests/recipes/studies/test_top_k.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from recipes.studies.top_k_players import Players

__all__ = ["VARIANTS", "Arm", "VariantName", "ablations", "arms_with_and_without"]

VariantName = Literal["dcgan", "wgan", "wgan_gp", "msgan", "sngan", "sagan"]


@dataclass(frozen=True)
class Variant:
    """A kind of GAN: where it comes from, and the FID that the paper's Table 3 has for it on CIFAR-10."""

    title: str
    recipe: str
    preset: str
    paper_plain: str
    paper_top_k: str


VARIANTS: Mapping[VariantName, Variant] = {
    "dcgan": Variant("DC-GAN", "dcgan", "fashion-mnist-32", "38.09", "35.62"),
    "wgan": Variant("WGAN, clipping", "wgan_gp", "clipping-fashion-mnist-32", "37.33", "34.41"),
    "wgan_gp": Variant("WGAN-GP", "wgan_gp", "fashion-mnist-32", "31.80", "29.83"),
    "msgan": Variant("MS-GAN", "dcgan", "msgan-fashion-mnist-32", "27.33", "26.54"),
    "sngan": Variant("SN-GAN", "sngan", "fashion-mnist-32", "21.36", "19.80"),
    "sagan": Variant("SA-GAN", "sagan", "fashion-mnist-32", "19.02", "17.93"),
}


@dataclass(frozen=True)
class Arm:
    """A row of the table, but for its seeds: a kind of GAN and what top-k training it has."""

    name: str
    """Begins the names of its runs' folders and results."""
    title: str
    header: str
    """Of its column on the sheet."""
    variant: Variant
    paper: str
    """The paper's FID on CIFAR-10."""
    gamma: float = 1.0
    floor: float = 0.5
    players: Players = "generator"
    """Whose loss sees only the k best samples."""

    @property
    def recipe(self) -> str:
        """The recipe that trains it."""
        return self.variant.recipe if self.players == "generator" else "top_k_players"


def arms_with_and_without(variants: Sequence[VariantName]) -> list[Arm]:
    """The rows of Table 3, those to compare beside each other."""
    arms = []
    for name in variants:
        variant = VARIANTS[name]
        arms.append(Arm(f"{name}_plain", variant.title, "plain", variant, variant.paper_plain))
        arms.append(Arm(f"{name}_top_k", f"top-k {variant.title}", "top-k", variant, variant.paper_top_k, gamma=0.99))
    return arms


def ablations() -> list[Arm]:
    """Table 5; what it varies has the proposed values otherwise, gamma 0.99 and nu half of the batch."""
    sagan = VARIANTS["sagan"]
    row = partial(Arm, header="SA-GAN", variant=sagan, gamma=0.99)
    return [
        Arm("plain", "plain", "SA-GAN", sagan, sagan.paper_plain),
        row("proposed", "gamma 0.99, nu 0.5", paper="17.93"),
        row("gamma_0.999", "gamma 0.999", paper="18.68", gamma=0.999),
        row("gamma_0.9", "gamma 0.9", paper="18.14", gamma=0.9),
        row("gamma_0.75", "gamma 0.75", paper="21.60", gamma=0.75),
        row("gamma_0.5", "gamma 0.5", paper="25.30", gamma=0.5),
        row("nu_0.9", "nu 0.9", paper="18.47", floor=0.9),
        row("nu_0.75", "nu 0.75", paper="18.08", floor=0.75),
        row("discriminator", "D", paper="27.44", players="discriminator"),
        row("both", "G & D", paper="27.57", players="both"),
    ]
