import copy
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import (
    CollectsStatistics,
    ConditionalBatchNorm2d,
    CrossReplicaBatchNorm2d,
    collects_statistics,
    standing_statistics,
)
from tests.drawn import draw
from tests.reference import layers as reference


def draw_batches(*sizes: int, mean: float = 0.0) -> list[tuple[Tensor]]:
    return [(draw(size, 3, 2, 2, seed=seed, mean=mean + seed),) for seed, size in enumerate(sizes)]


def build_chain(statistics: str = "running") -> nn.Sequential:
    norms = (CrossReplicaBatchNorm2d(3, statistics=statistics, dtype=torch.float64) for _ in range(2))
    return nn.Sequential(next(norms), nn.ReLU(), next(norms))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("statistics", ["running", "batch"])
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), mean=st.sampled_from([0, 1000]))
def test_every_layer_gets_the_pooled_moments_of_what_it_has_seen(statistics: str, sizes: list[int], mean: float):
    chain, batches = build_chain(statistics), draw_batches(*sizes, mean=mean)
    standing_statistics(chain, batches)
    wanted = reference.standing_statistics([x.numpy() for (x,) in batches], eps=1e-4)
    for layer, (mean_, variance) in zip((chain[0], chain[2]), wanted, strict=True):
        np.testing.assert_allclose(layer.running_mean, mean_, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.running_var, variance, rtol=1e-8)


def test_float32_survives_a_mean_of_a_thousand():
    chain, batches = build_chain().float(), [(draw(n, 3, 8, 8, seed=n, mean=1000).float(),) for n in (3, 1, 5)]
    standing_statistics(chain, batches)
    mean, variance = reference.moments(torch.cat([x for (x,) in batches]).double().numpy())
    np.testing.assert_allclose(chain[0].running_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(chain[0].running_var, variance, rtol=1e-4)


def test_the_split_into_batches_matters_to_all_layers_but_the_first():
    whole, split = build_chain(), build_chain()
    x = torch.cat([x for (x,) in draw_batches(2, 4, 1)])
    standing_statistics(whole, [(x,)])
    standing_statistics(split, [(x[:3],), (x[3:],)])
    torch.testing.assert_close(split[0].running_var, whole[0].running_var, rtol=1e-12, atol=0)
    assert not torch.allclose(split[2].running_var, whole[2].running_var, rtol=1e-3)


def test_the_order_of_batches_does_not_matter():
    one, other, batches = build_chain(), build_chain(), draw_batches(2, 4, 1)
    standing_statistics(one, batches)
    standing_statistics(other, reversed(batches))
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_samples_no_longer_depend_on_their_batch():
    chain, ((x,),) = build_chain("batch").eval(), draw_batches(4)
    assert not torch.allclose(chain(x)[:2], chain(x[:2]))
    standing_statistics(chain, draw_batches(4, 4))
    assert torch.equal(chain(x)[:1], chain(x[:1]))


def test_one_batch_reproduces_the_output_of_train_mode_on_it():
    chain, ((x,),) = build_chain(), draw_batches(4)
    in_train_mode = chain(x)
    standing_statistics(chain, [(x,)])
    torch.testing.assert_close(chain.eval()(x), in_train_mode, rtol=1e-12, atol=1e-12)


def test_a_second_call_starts_afresh():
    once, twice, batches = build_chain(), build_chain(), draw_batches(2, 3)
    standing_statistics(once, batches)
    standing_statistics(twice, draw_batches(4, mean=7))
    standing_statistics(twice, batches)
    assert_unchanged(twice, snapshot(once))


def test_reaches_the_norm_inside_a_conditional_one_and_passes_all_arguments():
    norm = ConditionalBatchNorm2d(3, 2, dtype=torch.float64)
    batches = [(x, draw(x.shape[0], 2)) for (x,) in draw_batches(2, 5)]
    standing_statistics(norm, batches)
    mean, variance = reference.moments(torch.cat([x for x, _ in batches]).numpy())
    np.testing.assert_allclose(norm.norm.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(norm.norm.running_var, variance, rtol=1e-12)


class Witness(nn.Module):
    """Writes down in which state it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[bool, bool]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add((self.training, torch.is_grad_enabled()))
        return x


def test_everything_else_is_in_eval_mode_without_gradients_and_then_in_its_own_mode_again():
    model = nn.Sequential(
        Witness(), CrossReplicaBatchNorm2d(3), nn.Sequential(Witness()), CrossReplicaBatchNorm2d(3)
    ).train()
    model[1].eval()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    standing_statistics(model.float(), [(x.float(),) for (x,) in draw_batches(2, 2)])
    assert model[0].seen == model[2][0].seen == {(False, False)}
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


def test_dropout_is_off():
    model = nn.Sequential(nn.Dropout(0.5), CrossReplicaBatchNorm2d(3, dtype=torch.float64))
    batches = draw_batches(2, 3)
    standing_statistics(model, batches)
    mean, _ = reference.moments(torch.cat([x for (x,) in batches]).numpy())
    np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-12)


class TwoBranches(nn.Module):
    """Normalizes by one of two layers, and by one of torch's that has no running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(CrossReplicaBatchNorm2d(3, dtype=torch.float64) for _ in range(2))
        self.foreign = nn.BatchNorm2d(3, track_running_stats=False, dtype=torch.float64)

    def forward(self, x: Tensor, branch: int) -> Tensor:
        return self.norms[branch](self.foreign(x))


def test_leaves_unreached_layers_and_those_without_running_statistics_alone():
    model = TwoBranches()
    standing_statistics(model, [(x, 1) for (x,) in draw_batches(3, 2)])
    assert model.norms[0].running_mean.tolist() == [0, 0, 0]
    assert model.norms[0].running_var.tolist() == [1, 1, 1]
    assert model.norms[1].running_var.tolist() != [1, 1, 1]
    assert model.foreign.running_mean is None


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norms_of_torch_get_what_ours_get(momentum: float | None):
    """Each layer normalizes by the batch at hand meanwhile, or the second would see other values than ours does."""
    batches = draw_batches(3, 2, 4)
    ours = nn.Sequential(*(CrossReplicaBatchNorm2d(3, eps=1e-5, dtype=torch.float64) for _ in range(2)))
    theirs = nn.Sequential(*(nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64) for _ in range(2)))
    for model in (ours, theirs):
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        standing_statistics(model, batches)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(other.running_mean, mine.running_mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(other.running_var, mine.running_var, rtol=1e-10, atol=1e-12)
        assert other.num_batches_tracked == 0
        assert (other.training, other.momentum) == (True, momentum)
        assert "forward" not in vars(other)


def test_an_exception_leaves_a_batch_norm_of_torch_as_it_was():
    norm = nn.BatchNorm2d(3, dtype=torch.float64)
    with pytest.raises(TypeError):
        standing_statistics(norm, [draw_batches(2)[0], None])  # type: ignore[list-item]
    assert norm.running_mean.tolist() == [0, 0, 0]
    assert "forward" not in vars(norm)


def test_a_compiled_model_gets_the_same_statistics():
    torch.compiler.reset()
    chain, twin, batches = build_chain("batch"), build_chain("batch"), draw_batches(*range(1, 12))
    standing_statistics(twin, batches)
    compiled = torch.compile(chain, fullgraph=True, backend="eager")
    standing_statistics(compiled, batches)
    assert_unchanged(chain, snapshot(twin))
    x = draw(2, 3, 2, 2)
    assert torch.equal(compiled.eval()(x), twin.eval()(x))


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_an_exception_leaves_the_old_statistics_and_modes(statistics: str):
    def fail_after_two() -> Iterator[tuple[Tensor]]:
        yield from draw_batches(2, 2)
        raise KeyError("out of noise")

    chain, x = build_chain(statistics), draw(2, 3, 2, 2)
    chain(x)
    chain[0].eval()
    before = snapshot(chain)
    with pytest.raises(KeyError, match="out of noise"):
        standing_statistics(chain, fail_after_two())
    assert_unchanged(chain, before)
    assert [module.training for module in chain.modules()] == [True, False, True, True]
    chain(x)  # the layers no longer collect: the one in train mode moves its running statistics, if it has any
    if statistics == "running":
        assert torch.equal(chain[0].running_mean, before["0.running_mean"])
        assert not torch.equal(chain[2].running_mean, before["2.running_mean"])


@pytest.mark.parametrize("batches", [[], ()])
def test_rejects_no_batches_and_leaves_the_model_alone(batches: list[tuple[Tensor]]):
    chain = build_chain()
    before = snapshot(chain)
    message = (
        r"^standing_statistics: `batches` must be an iterable of at least one tuple of arguments, "
        r"but got batches=(\[\]|\(\))\. A generator that has been used up is empty\.$"
    )
    with pytest.raises(ValueError, match=message):
        standing_statistics(chain, batches)
    assert_unchanged(chain, before)
    assert chain.training


def test_rejects_a_batch_that_is_a_bare_tensor():
    message = (
        r"^standing_statistics: `batches` must be an iterable of tuples of arguments, "
        r"but got batches of type Tensor\.$"
    )
    with pytest.raises(TypeError, match=message):
        standing_statistics(build_chain(), [draw(2, 3, 2, 2)])  # type: ignore[list-item]


def test_rejects_a_model_without_any_batch_norm():
    message = (
        r"^standing_statistics: `model` must be a module with a batch norm in it, or another norm that collects "
        r"statistics, but got model='GroupNorm'\.$"
    )
    with pytest.raises(ValueError, match=message):
        standing_statistics(nn.GroupNorm(1, 3), draw_batches(2))


class RunningScale(nn.Module):
    """Somebody's norm of another kind: divides by the largest value that it has seen, over all processes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.ones(()))
        self.pooled: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.pooled is None:
            return x / self.largest
        self.pooled = torch.maximum(self.pooled, x.abs().max())
        return x / x.abs().max()

    def start_collecting(self) -> None:
        self.pooled = torch.zeros(())

    def collected_row(self, like: Tensor) -> Tensor:
        return self.pooled.reshape(1).to(like.device, torch.float64)

    def collect_rows(self, rows: Tensor, like: Tensor) -> None:
        self.pooled = rows.max().to(like)

    def stop_collecting(self, *, store: bool) -> None:
        if store and self.pooled is not None:
            self.largest.copy_(self.pooled)
        self.pooled = None


def test_a_norm_written_elsewhere_takes_part_by_its_methods():
    norm = RunningScale()
    assert isinstance(norm, CollectsStatistics)
    model = nn.Sequential(norm, CrossReplicaBatchNorm2d(1))
    standing_statistics(model, [(torch.full((2, 1, 2, 2), value),) for value in (3.0, -5.0, 4.0)])
    assert norm.largest.item() == 5
    assert norm.pooled is None
    with pytest.raises(RuntimeError, match="of its own"):
        standing_statistics(model, failing_batches())
    assert norm.largest.item() == 5


def failing_batches() -> Iterator[tuple[Tensor]]:
    yield (torch.full((2, 1, 2, 2), 9.0),)
    raise RuntimeError("of its own")


def test_the_compiler_is_not_imported_for_it(monkeypatch: pytest.MonkeyPatch):
    """That takes seconds, of every command that draws samples."""
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    standing_statistics(build_chain(), draw_batches(2))
    assert "torch._dynamo" not in sys.modules


@pytest.mark.parametrize(
    ("norm", "takes_part"),
    [
        (CrossReplicaBatchNorm2d(3), True),
        (nn.BatchNorm2d(3), True),
        (nn.BatchNorm2d(3, track_running_stats=False), False),
        (nn.InstanceNorm2d(3, track_running_stats=True), False),
        (nn.Identity(), False),
    ],
)
def test_whether_a_model_has_anything_to_collect_is_what_the_function_refuses_by(norm: nn.Module, takes_part: bool):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), norm)
    assert collects_statistics(model) == takes_part
    batches = [(torch.randn(2, 3, 2, 2),)]
    if takes_part:
        standing_statistics(model, batches)
    else:
        with pytest.raises(ValueError, match=r"^standing_statistics: `model` must be a module with a batch norm in it"):
            standing_statistics(model, batches)
