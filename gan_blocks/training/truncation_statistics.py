"""Batch-norm statistics tabulated over the truncation of z.

Tested in ``tests/training/test_truncation_statistics.py``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, bad_value, check_module

__all__ = ["BatchNormTable", "TruncatedBatchNormStatistics"]

ROUNDING = 1e-6  # truncations in float32 are not quite the numbers that one writes


class BatchNormTable(NamedTuple):
    """The statistics of one batch norm, one row for each truncation."""

    means: Tensor
    """Means, ``(truncations, channels)``."""
    variances: Tensor
    """Variances, ``(truncations, channels)``."""


class TruncatedBatchNormStatistics:
    r"""Batch-norm statistics of a generator for every truncation, from tables for a few.

    A generator sees narrower features the more its z is truncated, so each truncation has statistics of its own.
    :func:`standing_statistics` measures them for one; the generators released with BigGAN come with tables for 51
    truncations, 0, 0.02, ..., 1, and no data to measure with. Between two rows, mean and variance are interpolated:

    .. math:: \mu(t) = (1 - w)\,\mu_i + w\,\mu_{i+1}, \qquad \sigma^2(t) = (1 - w)\,\sigma^2_i + w\,\sigma^2_{i+1},
        \qquad w = \frac{t - t_i}{t_{i+1} - t_i}

    so that at :math:`t_i` the statistics are row i, and close to it close to row i.

    What a truncation t means is up to who made the tables. In the released ones z is t times a normal vector truncated
    at 2: :func:`gan_blocks.truncated_prior` calls that definition ``"scaled"``.

    Args:
        truncations: The truncations of the rows, at least one, ascending.
        tables: The table of each :class:`CrossReplicaBatchNorm2d` by its name in the model, such as
            ``blocks.0.norm1.norm``.

    Attributes:
        truncations: The truncations, ``(rows,)``, in float64 on the CPU.
        tables: The tables.

    Shape:
        - truncations: ``(rows,)``
        - tables: ``(rows, channels)``, twice for each layer

    Raises:
        ValueError: If there is no table, or truncations are not ascending numbers, or a table does not have a row for
            each.

    References:
        Brock et al. 2018, section 3.1 and Appendix C.1.

    Example:
        >>> from gan_blocks import CrossReplicaBatchNorm2d
        >>> table = BatchNormTable(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [3.0]]))
        >>> statistics = TruncatedBatchNormStatistics(torch.tensor([0.0, 1.0]), {"": table})
        >>> norm = CrossReplicaBatchNorm2d(1)
        >>> statistics.apply(norm, truncation=0.25)
        >>> norm.running_mean.item(), norm.running_var.item()
        (1.0, 1.5)
    """

    def __init__(self, truncations: Tensor, tables: Mapping[str, BatchNormTable]) -> None:
        owner = "TruncatedBatchNormStatistics"
        if truncations.dim() != 1 or len(truncations) == 0:
            raise bad_shape(owner, "truncations", "(rows,) with at least one row", truncations)
        self.truncations = truncations.detach().cpu().double()
        steps = self.truncations.diff()
        if not (self.truncations.isfinite().all() and (steps > 0).all()):
            raise bad_value(owner, "truncations", "ascending finite numbers", truncations.tolist())
        if not tables:
            raise bad_value(owner, "tables", "the tables of at least one layer", dict(tables))
        for name, table in tables.items():
            for kind, values in zip(("means", "variances"), table, strict=True):
                if values.dim() != 2 or len(values) != len(truncations) or values.shape != table.means.shape:
                    raise bad_shape(owner, f"tables[{name!r}].{kind}", f"({len(truncations)}, channels)", values)
        self.tables = dict(tables)

    def at(self, truncation: float) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and variance of every layer at one truncation.

        Args:
            truncation: From the first to the last truncation of the tables.

        Raises:
            ValueError: If it lies outside the tables.
        """
        low, high = self.truncations[0].item(), self.truncations[-1].item()
        if not low - ROUNDING <= truncation <= high + ROUNDING:
            raise bad_value("TruncatedBatchNormStatistics", "truncation", f"from {low:g} to {high:g}", truncation)
        truncation = min(max(truncation, low), high)
        above = int(torch.searchsorted(self.truncations, truncation))
        below = max(above - 1, 0)
        span = (self.truncations[above] - self.truncations[below]).item()
        weight = (truncation - self.truncations[below].item()) / span if span else 0.0
        return {
            name: (
                torch.lerp(means[below], means[above], weight),
                torch.lerp(variances[below], variances[above], weight),
            )
            for name, (means, variances) in self.tables.items()
        }

    def apply(self, model: nn.Module, *, truncation: float) -> None:
        """Give every batch norm of a model its statistics at one truncation, to evaluate with.

        They go where :func:`standing_statistics` puts its own.

        Args:
            model: The generator that the tables belong to.
            truncation: From the first to the last truncation of the tables.

        Raises:
            ValueError: If ``truncation`` lies outside the tables, or they are those of other layers than the model's
                norms with a method ``set_statistics``, such as :class:`CrossReplicaBatchNorm2d`; the model does not
                change then.
        """
        check_module("TruncatedBatchNormStatistics", "model", model)
        statistics = self.at(truncation)
        layers: dict[str, Any] = {name: part for name, part in model.named_modules() if hasattr(part, "set_statistics")}
        wanted = {name: layer.num_features for name, layer in layers.items()}
        given = {name: len(mean) for name, (mean, _) in statistics.items()}
        if wanted != given:
            different = sorted(wanted.items() ^ given.items())
            name = different[0][0]
            channels = [f"{sizes[name]} channels" if name in sizes else "no table" for sizes in (wanted, given)]
            if name not in wanted:
                channels[0] = "no batch norm"
            rule = f"the model of the tables, but `{name}` has {channels[1]} there and {channels[0]} in the model"
            raise ValueError(f"TruncatedBatchNormStatistics: `model` must be {rule}.")
        for name, (mean, variance) in statistics.items():
            layers[name].set_statistics(mean, variance)

    def __repr__(self) -> str:
        low, high = self.truncations[0].item(), self.truncations[-1].item()
        rows = f"{len(self.truncations)} rows from {low:g} to {high:g}"
        return f"TruncatedBatchNormStatistics({len(self.tables)} layers, {rows})"
