import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import BatchNormTable, ConditionalBatchNorm2d, CrossReplicaBatchNorm2d, TruncatedBatchNormStatistics
from tests.reference import training as reference

GRID = torch.arange(51, dtype=torch.float64) / 50  # of the released generators


def random_table(rows: int, channels: int, seed: int = 0) -> BatchNormTable:
    rng = torch.Generator().manual_seed(seed)
    draw = [torch.rand(rows, channels, generator=rng, dtype=torch.float64) for _ in range(2)]
    return BatchNormTable(means=draw[0] * 20 - 10, variances=draw[1] + 0.1)


@given(
    grid=st.lists(st.integers(0, 1000), min_size=1, max_size=6, unique=True).map(sorted),
    place=st.floats(0, 1),
)
def test_statistics_between_rows_are_those_of_the_definition(grid: list[int], place: float):
    truncation = grid[0] + place * (grid[-1] - grid[0])
    table = random_table(len(grid), 3, seed=sum(grid))
    mean, variance = TruncatedBatchNormStatistics(torch.tensor(grid), {"": table}).at(truncation)[""]
    for got, rows in ((mean, table.means), (variance, table.variances)):
        wanted = [reference.interpolate([float(t) for t in grid], rows[:, c].tolist(), truncation) for c in range(3)]
        torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_every_truncation_of_the_grid_gives_its_own_row():
    """Among them 0.14, 0.28, 0.56, 0.58 and 0.94, which dividing by 0.02 puts beside their row."""
    table = random_table(51, 2)
    statistics = TruncatedBatchNormStatistics(GRID, {"": table})
    for row in range(51):
        mean, variance = statistics.at(float(f"{0.02 * row:.2f}"))[""]
        assert torch.equal(mean, table.means[row])
        assert torch.equal(variance, table.variances[row])


def test_the_ends_of_a_grid_in_float32_are_inside():
    table = random_table(3, 2)
    statistics = TruncatedBatchNormStatistics(torch.tensor([0.3, 0.5, 0.7]), {"": table})
    for truncation, row in ((0.3, 0), (0.7, 2)):
        torch.testing.assert_close(statistics.at(truncation)[""][0], table.means[row])


def test_statistics_close_to_a_row_are_close_to_that_row():
    """Nearer to 0.4 than to 0.42: swapped weights would give the neighbor's."""
    table = random_table(51, 4)
    mean, _ = TruncatedBatchNormStatistics(GRID, {"": table}).at(0.401)[""]
    torch.testing.assert_close(mean, 0.95 * table.means[20] + 0.05 * table.means[21], rtol=1e-9, atol=1e-9)


class Pair(nn.Module):
    def __init__(self, statistics: str) -> None:
        super().__init__()
        self.first = ConditionalBatchNorm2d(3, 2, statistics=statistics)
        self.last = CrossReplicaBatchNorm2d(2, statistics=statistics)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.last(self.first(x, condition)[:, :2])


def normalize(x: Tensor, table: BatchNormTable, row: int) -> Tensor:
    mean, variance = (values[row][None, :, None, None] for values in table)
    return (x - mean) / torch.sqrt(variance + 1e-4)


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_a_model_evaluates_by_the_statistics_of_its_layers(statistics: str, rng: torch.Generator):
    model = Pair(statistics).eval()
    tables = {"first.norm": random_table(51, 3), "last": random_table(51, 2, seed=1)}
    tables = {name: BatchNormTable(*(values.float() for values in table)) for name, table in tables.items()}
    TruncatedBatchNormStatistics(GRID, tables).apply(model, truncation=0.5)
    x, condition = torch.randn(2, 3, 4, 4, generator=rng), torch.randn(2, 2, generator=rng)
    gain, bias = (project(condition)[:, :, None, None] for project in (model.first.gain, model.first.bias))
    wanted = normalize(x, tables["first.norm"], 25) * (1 + gain) + bias
    wanted = normalize(wanted[:, :2], tables["last"], 25)
    torch.testing.assert_close(model(x, condition), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"first.norm": 3}, "`last` has no table there and 2 channels in the model"),
        ({"first.norm": 3, "last": 5}, "`last` has 5 channels there and 2 channels in the model"),
        ({"first.norm": 3, "last": 2, "more": 2}, "`more` has 2 channels there and no batch norm in the model"),
    ],
)
def test_rejects_another_model_and_leaves_it_alone(names: dict[str, int], found: str):
    model = Pair("running")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    statistics = TruncatedBatchNormStatistics(
        GRID, {name: random_table(51, channels) for name, channels in names.items()}
    )
    message = f"TruncatedBatchNormStatistics: `model` must be the model of the tables, but {found}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        statistics.apply(model, truncation=0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("truncation", [-0.01, 1.01, float("nan")])
def test_rejects_a_truncation_outside_the_tables(truncation: float):
    statistics = TruncatedBatchNormStatistics(GRID, {"": random_table(51, 2)})
    message = rf"^TruncatedBatchNormStatistics: `truncation` must be from 0 to 1, but got truncation={truncation}\.$"
    with pytest.raises(ValueError, match=message):
        statistics.at(truncation)


@pytest.mark.parametrize("truncations", [[0.0, 0.0], [1.0, 0.0], [0.0, float("nan")]])
def test_rejects_truncations_that_do_not_ascend(truncations: list[float]):
    message = r"^TruncatedBatchNormStatistics: `truncations` must be ascending finite numbers, but got truncations=\["
    with pytest.raises(ValueError, match=message):
        TruncatedBatchNormStatistics(torch.tensor(truncations), {"": random_table(2, 2)})


def test_rejects_no_truncations_and_no_tables():
    message = r"^TruncatedBatchNormStatistics: `truncations` must be of shape \(rows,\) with at least one row, but got"
    with pytest.raises(ValueError, match=message):
        TruncatedBatchNormStatistics(torch.zeros(0), {"": random_table(0, 2)})
    message = (
        r"^TruncatedBatchNormStatistics: `tables` must be the tables of at least one layer, but got tables=\{\}\.$"
    )
    with pytest.raises(ValueError, match=message):
        TruncatedBatchNormStatistics(GRID, {})


def test_rejects_a_table_of_other_rows():
    message = (
        r"^TruncatedBatchNormStatistics: `tables\['last'\]\.means` must be of shape \(51, channels\), "
        r"but got tables\['last'\]\.means of shape \(50, 2\)\.$"
    )
    with pytest.raises(ValueError, match=message):
        TruncatedBatchNormStatistics(GRID, {"last": random_table(50, 2)})


def test_a_batch_norm_rejects_statistics_of_other_channels():
    message = r"^CrossReplicaBatchNorm2d: `variance` must be of shape \(2,\), but got variance of shape \(3,\)\.$"
    with pytest.raises(ValueError, match=message):
        CrossReplicaBatchNorm2d(2).set_statistics(torch.zeros(2), torch.ones(3))


def test_a_norm_from_elsewhere_is_given_its_statistics():
    class OwnNorm(torch.nn.Module):
        num_features = 1

        def set_statistics(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
            self.given = (mean.item(), variance.item())

    table = BatchNormTable(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [3.0]]))
    model = torch.nn.Sequential(OwnNorm())
    TruncatedBatchNormStatistics(torch.tensor([0.0, 1.0]), {"0": table}).apply(model, truncation=0.25)
    assert model[0].given == (1.0, 1.5)
