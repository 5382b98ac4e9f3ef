import copy
import gc
import weakref
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from gan_blocks import advance_power_iteration, frozen_power_iteration, spectral_norm
from gan_blocks.spectral.advancing import PaddedGroup
from gan_blocks.spectral.tracking import SingularVectorTracker

Pairs = Sequence[tuple[SingularVectorTracker, Tensor]]


class Squash(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh()


class TwoWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6, 4))


def trackers(model: nn.Module) -> list[SingularVectorTracker]:
    return [module for module in model.modules() if isinstance(module, SingularVectorTracker)]


def vectors(model: nn.Module) -> list[Tensor]:
    return [vector.clone() for tracker in trackers(model) for vector in (tracker.u, tracker.v)]


def many_layers() -> nn.ModuleList:
    pair = spectral_norm(spectral_norm(TwoWeights(), "left"), "right")
    behind = nn.Linear(6, 4)
    register_parametrization(behind, "weight", Squash())
    layers: list[nn.Module] = [
        *(spectral_norm(nn.Linear(6, 4)) for _ in range(3)),
        *(spectral_norm(nn.Linear(6, 4), num_singular_values=2) for _ in range(2)),
        *(spectral_norm(nn.Linear(6, 4), n_power_iterations=3) for _ in range(2)),
        spectral_norm(nn.Conv2d(3, 4, (1, 2))),
        spectral_norm(nn.Conv2d(3, 4, (2, 1))).to(memory_format=torch.channels_last),
        spectral_norm(nn.ConvTranspose2d(3, 4, (1, 2))),
        spectral_norm(nn.Embedding(7, 6)),
        spectral_norm(nn.Bilinear(2, 3, 4)),
        nn.Linear(6, 4),
        spectral_norm(behind),
        pair,
    ]
    return nn.ModuleList(layers).double()


def update(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


@pytest.mark.parametrize("limit", [0, 32_768])
def test_advancing_together_equals_every_layer_noticing_its_update(limit: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(advance_power_iteration.__globals__, "_LARGEST_STACKED_WEIGHT", limit)
    together = many_layers()
    alone = copy.deepcopy(together)
    for _ in range(3):
        update(together)
        update(alone)
        advance_power_iteration(together)
        for layer in alone.modules():
            for name in ("weight", "left", "right"):
                getattr(layer, name, None)
    torch.testing.assert_close(vectors(together), vectors(alone), atol=1e-12, rtol=0)


@pytest.mark.parametrize("lose", [lambda tracker: tracker.reset_parameters(), lambda tracker: tracker.u.zero_()])
def test_vectors_that_start_anew_take_the_steps_of_their_own_layer(lose: Callable[[SingularVectorTracker], object]):
    found = []
    for advance in (advance_power_iteration, lambda model: [layer.weight for layer in model]):
        torch.manual_seed(0)
        model = nn.ModuleList(spectral_norm(nn.Linear(6, 4).double(), warmup_iterations=steps) for steps in (1, 15))
        for tracker in trackers(model):
            lose(tracker)
        advance(model)
        found.append(vectors(model))
    torch.testing.assert_close(*found, atol=1e-12, rtol=0)


def test_stacked_weights_advance_in_one_product(monkeypatch: pytest.MonkeyPatch):
    names = advance_power_iteration.__globals__
    alike: list[int] = []
    padded: list[int] = []
    advance_alike, advance_padded = names["advance_together"], PaddedGroup.advance

    def record_alike(pairs: Pairs, steps: int) -> None:
        alike.append(len(pairs))
        advance_alike(pairs, steps)

    def record_padded(group: PaddedGroup, pairs: Pairs, steps: int) -> bool:
        padded.append(len(pairs))
        return advance_padded(group, pairs, steps)

    monkeypatch.setitem(names, "advance_together", record_alike)
    monkeypatch.setattr(PaddedGroup, "advance", record_padded)
    advance_power_iteration(many_layers())
    # Two weights with two vectors each, and the transposed one; of those with one, all others but for their steps.
    assert sorted(alike) == [1, 2]
    assert sorted(padded) == [2, 10]


def forgetful_advance(model: nn.Module) -> None:
    advance_power_iteration(nn.ModuleList([model]))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.float(),
        lambda model: model.to(memory_format=torch.channels_last),
        lambda model: model[0].parametrizations.weight[0].reset_parameters(),
        lambda model: setattr(model[0].parametrizations.weight[0], "n_power_iterations", 2),
        lambda model: remove_parametrizations(model[1], "weight"),
        lambda model: frozen_power_iteration(model[2]).__enter__(),
        lambda model: model.append(spectral_norm(nn.Linear(9, 3).double())),
    ],
    ids=["dtype", "layout", "fresh", "steps", "removed", "frozen", "added"],
)
def test_what_is_remembered_of_a_model_follows_its_changes(change: Callable[[nn.Module], object]):
    found = []
    for advance in (advance_power_iteration, forgetful_advance):
        torch.manual_seed(0)
        model = many_layers()
        for step in (lambda _: None, change, lambda _: None):
            step(model)
            update(model)
            advance(model)
        found.append(vectors(model))
    torch.testing.assert_close(*found, atol=0, rtol=0)


def test_a_model_that_has_advanced_can_go():
    model = many_layers()
    advance_power_iteration(model)
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


def test_reads_after_an_explicit_advance_do_not_advance_again():
    model = many_layers()
    update(model)
    advance_power_iteration(model)
    before = vectors(model)
    for layer in model:
        _ = getattr(layer, "weight", None)
    torch.testing.assert_close(vectors(model), before, atol=0, rtol=0)


def test_an_explicit_advance_works_in_evaluation_mode_and_without_an_update():
    model = spectral_norm(nn.Linear(6, 4), warmup_iterations=1).eval()
    before = vectors(model)
    advance_power_iteration(model)
    assert not torch.equal(vectors(model)[0], before[0])


@pytest.mark.parametrize("count", [1, 5])
def test_the_number_of_iterations_can_be_chosen(count: int):
    once, repeated = (spectral_norm(nn.Linear(6, 4), warmup_iterations=1) for _ in range(2))
    repeated.load_state_dict(once.state_dict())
    advance_power_iteration(once, n_power_iterations=count)
    for _ in range(count):
        advance_power_iteration(repeated)
    torch.testing.assert_close(vectors(once), vectors(repeated))


def test_buffers_are_written_in_place():
    model = spectral_norm(nn.Conv2d(3, 4, 3), num_singular_values=2)
    before = [vector.data_ptr() for vector in (trackers(model)[0].u, trackers(model)[0].v)]
    advance_power_iteration(model)
    assert [vector.data_ptr() for vector in (trackers(model)[0].u, trackers(model)[0].v)] == before


def test_a_module_used_twice_advances_once():
    layer = spectral_norm(nn.Linear(4, 4), warmup_iterations=1)
    twin = copy.deepcopy(layer)
    advance_power_iteration(nn.Sequential(layer, layer))
    advance_power_iteration(twin)
    torch.testing.assert_close(vectors(layer), vectors(twin), atol=0, rtol=0)


def test_a_model_without_spectral_norm_is_left_alone():
    advance_power_iteration(nn.Linear(2, 2))


def test_nothing_advances_while_frozen_and_nested_contexts_end_with_the_last():
    model = spectral_norm(nn.Linear(6, 4), warmup_iterations=1)
    before = vectors(model)
    update(model)
    with frozen_power_iteration(model):
        with frozen_power_iteration(model):
            _ = model.weight
        _ = model.weight
        advance_power_iteration(model)
    torch.testing.assert_close(vectors(model), before, atol=0, rtol=0)
    _ = model.weight
    assert not torch.equal(vectors(model)[0], before[0])


def test_an_error_inside_a_frozen_context_ends_it():
    model = spectral_norm(nn.Linear(6, 4))
    with pytest.raises(KeyError), frozen_power_iteration(model):
        raise KeyError
    assert trackers(model)[0].frozen == 0


def test_rejects_less_than_one_iteration():
    rule = r"^advance_power_iteration: `n_power_iterations` must be at least 1, but got n_power_iterations=0\.$"
    with pytest.raises(ValueError, match=rule):
        advance_power_iteration(nn.Linear(2, 2), n_power_iterations=0)
