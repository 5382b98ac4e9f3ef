"""What one update of G from the best or the worst samples does to samples (Sinha et al. 2020, Figures 2 and 3).

The paper's text draws 1,000 samples and updates from the top 7,500 or bottom 2,500 of them; here it is 10,000. Its step
of "gradient descent" is one, without Adam: the moments would mix in earlier batches. In float64, since one step moves
a sample by less than float32 resolves.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan_blocks import bottom_k_mask, non_saturating_generator_loss, top_k_mask
from gan_blocks.engine.pictures import new_figure, save_figure

__all__ = ["UpdateEffect", "analyze", "draw_analysis", "tabulate_analysis"]

BINS = ("0 to 1", "1 to 2", "2 to 3", "3 to 4", "over 4")
TOP_SHARE = 0.75


class UpdateEffect(NamedTuple):
    """Means over the samples of each distance bin; NaN where a bin is empty."""

    counts: Tensor  # (bins,)
    cosine: dict[str, Tensor]  # by update, (bins,)
    change: dict[str, Tensor]  # of the distance, in standard deviations


def analyze(
    generator: nn.Module, discriminator: nn.Module, *, centers: Tensor, std: float, z: Tensor, learning_rate: float
) -> UpdateEffect:
    """Compare an update from the top 75 % with one from the bottom 25 %, from the same G, D and z.

    Args:
        generator: It is not changed.
        discriminator: Its D.
        centers: The modes, ``(modes, 2)``.
        std: Standard deviation of a mode.
        z: Latents, ``(batch, latent_dim)``.
        learning_rate: Of the step of gradient descent.
    """
    z, centers = z.double(), centers.double()
    g, d = copy.deepcopy(generator).double(), copy.deepcopy(discriminator).double()
    with torch.no_grad():
        before = g(z)
        scores = d(before)[:, 0]
    oracle, distance = _to_nearest(before, centers)
    bins = (distance / std).ceil().clamp(1, len(BINS)).long() - 1
    top = round(TOP_SHARE * len(scores))
    masks = {"top": top_k_mask(scores, top), "bottom": bottom_k_mask(scores, len(scores) - top)}
    cosine, change = {}, {}
    for name, mask in masks.items():
        after = _updated(g, d, z, mask, learning_rate)
        moved = torch.nn.functional.cosine_similarity(after - before, oracle, eps=1e-300)
        cosine[name] = _mean_by_bin(moved, bins)
        change[name] = _mean_by_bin((_to_nearest(after, centers)[1] - distance) / std, bins)
    return UpdateEffect(torch.bincount(bins, minlength=len(BINS)), cosine, change)


def tabulate_analysis(found: Sequence[UpdateEffect], *, steps: int, modes: int) -> str:
    """Means over the seeds as Markdown."""
    counts = torch.stack([effect.counts for effect in found]).sum(dim=0).tolist()
    columns = [
        torch.stack([getattr(effect, measure)[update] for effect in found]).nanmean(dim=0).tolist()
        for measure in ("cosine", "change")
        for update in ("top", "bottom")
    ]
    lines = [
        f"{modes} modes, {steps:,} steps of plain training, {len(found)} seeds",
        "",
        "| distance to the nearest mode (sd) | samples | cosine to the oracle, top 75 % | bottom 25 % "
        "| change of distance (sd), top 75 % | bottom 25 % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, count, *values in zip(BINS, counts, *columns, strict=True):
        cosines, changes = values[:2], values[2:]
        cells = [*(f"{value:+.3f}" for value in cosines), *(f"{value:+.2e}" for value in changes)]
        lines.append(f"| {name} | {count:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw_analysis(path: Path, found: Sequence[UpdateEffect]) -> None:
    """Bars as in Figures 2 and 3: top-k on the left, bottom-k on the right."""
    figure = new_figure(9, 7, dpi=90)
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    labels = {"cosine": "mean cosine to the nearest mode", "change": "mean change of distance (sd)"}
    for row, (measure, label) in zip(grid, labels.items(), strict=True):
        row[0].set_ylabel(label)
        for axes, update in zip(row, ("top", "bottom"), strict=True):
            means = torch.stack([getattr(effect, measure)[update] for effect in found]).nanmean(dim=0)
            axes.bar(range(1, len(BINS) + 1), means.tolist(), color="tab:blue" if update == "top" else "tab:red")
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_title("update from the top 75 %" if update == "top" else "update from the bottom 25 %")
    for axes in grid[1]:
        axes.set_xlabel("distance to the nearest mode (sd)")
        axes.set_xticks(range(1, len(BINS) + 1), BINS)
    save_figure(path, figure)


def _updated(g: nn.Module, d: Callable[[Tensor], Tensor], z: Tensor, mask: Tensor, learning_rate: float) -> Tensor:
    """The samples after one step of gradient descent from the marked ones."""
    moved = copy.deepcopy(g)
    loss = non_saturating_generator_loss(fake_logits=d(moved(z))[:, 0][mask])
    parameters = list(moved.parameters())
    with torch.no_grad():
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.sub_(gradient, alpha=learning_rate)
        samples: Tensor = moved(z)
    return samples


def _to_nearest(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The vector from each point to its nearest mode, and its length."""
    nearest = torch.cdist(points, centers).argmin(dim=1)
    vectors = centers[nearest] - points
    return vectors, vectors.norm(dim=1)


def _mean_by_bin(values: Tensor, bins: Tensor) -> Tensor:
    sums = torch.zeros(len(BINS), dtype=values.dtype).index_add(0, bins, values)
    return sums / torch.bincount(bins, minlength=len(BINS))
