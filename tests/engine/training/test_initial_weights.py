"""Starting from another run's weights; the command is tried in tests/recipes/test_convert.py."""

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import SharedEmbedding, normalized_layer, spectral_norm
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.training.initial_weights import _load


class ClassShift(nn.Module):
    """Somebody's table of classes, and a tensor that happens to have as many rows."""

    class_tables = ("shifts",)

    def __init__(self, num_classes: int, rows: int) -> None:
        super().__init__()
        self.shifts = nn.Parameter(torch.randn(num_classes, 2))
        self.mixture = nn.Parameter(torch.randn(rows, 2))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return x + self.shifts[labels] @ self.mixture.T


def test_a_table_written_elsewhere_starts_fresh_for_other_classes_and_nothing_else_does():
    there, here = ClassShift(3, 4), ClassShift(5, 4)
    fresh = here.shifts.detach().clone()
    assert _load(here, there.state_dict(), "a run", (3, 5)) == [""]
    assert torch.equal(here.shifts, fresh)
    assert torch.equal(here.mixture, there.mixture)


def test_the_other_tensors_of_its_layer_have_to_fit():
    with pytest.raises(UserError, match=r"wrong shapes: mixture \(3, 2\) instead of \(5, 2\)"):
        _load(ClassShift(5, 5), ClassShift(3, 3).state_dict(), "a run", (3, 5))


@pytest.mark.parametrize("make", [nn.Embedding, normalized_layer(nn.Embedding)])
def test_embeddings_of_torch_start_fresh_with_what_normalizes_them(make):
    here, there = nn.Sequential(make(5, 2), nn.Linear(2, 5)), nn.Sequential(make(3, 2), nn.Linear(2, 5))
    assert _load(here, there.state_dict(), "a run", (3, 5)) == ["0"]
    assert torch.equal(here[1].weight, there[1].weight)


def test_a_layer_that_is_no_table_has_to_fit():
    with pytest.raises(UserError, match=r"wrong shapes: .*weight \(3, 2\) instead of \(5, 2\)"):
        _load(nn.Sequential(nn.Linear(2, 5)), nn.Sequential(nn.Linear(2, 3)).state_dict(), "a run", (3, 5))


class Tables(torch.nn.Module):
    """A table of classes as wide as another run's count of them, and one under a name of its own with spectral norm."""

    class_tables = ("table",)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.embedding = SharedEmbedding(num_classes, 8)
        self.table = torch.nn.Parameter(torch.randn(num_classes, 3))
        self.other = torch.nn.Parameter(torch.randn(8, 3))
        spectral_norm(self, "table")


def test_tables_are_renewed_whatever_their_width_and_their_name():
    there, here = Tables(8), Tables(5)
    fresh = {name: value.clone() for name, value in here.state_dict().items()}
    renewed = _load(here, there.state_dict(), "the run", (8, 5))
    assert renewed == ["", "embedding"]
    for name, value in here.state_dict().items():
        kept = name == "other"
        assert torch.equal(value, there.state_dict()[name] if kept else fresh[name]), name
