import pytest
import torch

from gan_blocks import nearest_neighbors
from gan_blocks.metrics import nearest


def brute(queries: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    differences = queries.double().flatten(1)[:, None] - references.double().flatten(1)
    return differences.square().sum(dim=2).sqrt()


@pytest.mark.parametrize("rows", [3, 7, 4096])
def test_agrees_with_all_pairs_whatever_the_blocks(rows: int, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nearest, "MAX_BLOCK_ROWS", rows)
    queries, references = torch.rand(11, 2, 3, generator=rng), torch.rand(20, 2, 3, generator=rng)
    found = nearest_neighbors(queries, references, num_neighbors=4)
    expected = brute(queries, references).topk(4, largest=False)
    torch.testing.assert_close(found.distances, expected.values)
    assert torch.equal(found.numbers, expected.indices)


@pytest.mark.parametrize("rows", [1, 6])
def test_as_many_samples_are_read_at_once_as_it_is_told(rows: int, rng: torch.Generator):
    read = InAFile(torch.rand(9, 4, generator=rng))
    found = nearest_neighbors(read, read, rows_at_once=rows)
    assert torch.equal(found.numbers, torch.arange(9)[:, None])
    assert read.most == rows


def test_leaves_out_what_is_excluded_also_behind_the_first_block(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nearest, "MAX_BLOCK_ROWS", 4)
    points = torch.rand(10, 3, generator=rng)
    found = nearest_neighbors(points, points, num_neighbors=2, excluded=torch.arange(10))
    expected = brute(points, points).fill_diagonal_(torch.inf).topk(2, largest=False)
    torch.testing.assert_close(found.distances, expected.values)
    assert torch.equal(found.numbers, expected.indices)


def test_a_copy_is_at_distance_0(rng: torch.Generator):
    points = 100 + torch.rand(40, 30, generator=rng)
    found = nearest_neighbors(points[:5], points)
    assert found.numbers.flatten().tolist() == [0, 1, 2, 3, 4]
    assert found.distances.max() < 1e-5


class InAFile:
    def __init__(self, samples: torch.Tensor) -> None:
        self.samples, self.shape, self.device, self.most = samples, samples.shape, samples.device, 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, numbers: torch.Tensor) -> torch.Tensor:
        self.most = max(self.most, len(numbers))
        return self.samples[numbers]


def test_reads_what_need_not_be_in_memory(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nearest, "MAX_BLOCK_ELEMENTS", 12)
    samples = torch.rand(9, 4, generator=rng)
    read = InAFile(samples)
    assert torch.equal(nearest_neighbors(read, read).numbers, torch.arange(9)[:, None])
    assert read.most == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_neighbors": 0}, "`num_neighbors` must be greater than 0, but got num_neighbors=0"),
        ({"num_neighbors": 4}, "`references` must be of shape (references, 4) with 4 or more, but got shape (3, 4)"),
        (
            {"num_neighbors": 3, "excluded": torch.arange(2)},
            "`references` must be of shape (references, 4) with 4 or more, but got shape (3, 4)",
        ),
        ({"references": torch.zeros(3, 5)}, "of shape (references, 4) with 1 or more, but got shape (3, 5)"),
        ({"excluded": torch.arange(3)}, "`excluded` must be of shape (2,), but got"),
        (
            {"queries": torch.full((2, 4), torch.nan)},
            "`queries` must be finite, but got queries='sample 0 with values that are not'",
        ),
        (
            {"references": torch.tensor([[0.0] * 4] * 2 + [[torch.inf] * 4]), "rows_at_once": 1},
            "`references` must be finite, but got references='sample 2 with values that are not'",
        ),
    ],
)
def test_rejects_what_cannot_be_searched(options: dict[str, object], message: str):
    arguments = {"queries": torch.zeros(2, 4), "references": torch.zeros(3, 4), **options}
    with pytest.raises(ValueError, match="nearest_neighbors: ") as error:
        nearest_neighbors(**arguments)
    assert message in str(error.value)
