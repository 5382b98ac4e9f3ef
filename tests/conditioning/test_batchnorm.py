from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as fwAD
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import ConditionalBatchNorm2d, CrossReplicaBatchNorm2d, standing_statistics
from gan_blocks.conditioning import _modulation
from tests.drawn import draw
from tests.reference import conditioning as reference

CHANNELS, WIDTH = 3, 2


@contextmanager
def taking(path: str) -> Iterator[None]:
    """Go by the plain formula, or by the folded one, which large maps take in train mode and all in eval mode."""
    with pytest.MonkeyPatch.context() as patch:
        if path == "plain":
            patch.setattr(_modulation.FoldableBatchNorm2d, "moments", lambda norm, x: None)
        else:
            patch.setattr(_modulation, "_SMALLEST_TRAINING_MAP", 0)
            patch.setattr(_modulation.FoldableBatchNorm2d, "forward", None)
        yield


both_paths = pytest.mark.parametrize("path", ["plain", "folded"])


def make_norm(statistics: str = "running", **options: float) -> ConditionalBatchNorm2d:
    norm = ConditionalBatchNorm2d(CHANNELS, WIDTH, statistics=statistics, dtype=torch.float64, **options)
    with torch.no_grad():
        for seed, projection in enumerate((norm.gain, norm.bias)):
            projection.weight.copy_(draw(CHANNELS, WIDTH, seed=10 + seed))
    return norm


def expected(norm: ConditionalBatchNorm2d, x: Tensor, condition: Tensor, moments=None) -> np.ndarray:
    weights = (projection.weight.detach().numpy() for projection in (norm.gain, norm.bias))
    return reference.conditional_batch_norm(x.numpy(), condition.numpy(), *weights, norm.norm.eps, moments)


@both_paths
@given(
    batch=st.integers(1, 3),
    height=st.integers(2, 4),
    width=st.integers(1, 3),
    mean=st.sampled_from([0.0, -3.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_train_mode_equals_the_sum_over_pixels(path: str, batch: int, height: int, width: int, mean: float, seed: int):
    x = draw(batch, CHANNELS, height, width, seed=seed) + mean
    condition = draw(batch, WIDTH, seed=seed + 1)
    norm = make_norm()
    with taking(path):
        y = norm(x, condition)
    np.testing.assert_allclose(y.detach(), expected(norm, x, condition), rtol=1e-9, atol=1e-9)


@both_paths
@given(seed=st.integers(0, 99), mean=st.sampled_from([0.0, -3.0, 1000.0]))
def test_eval_mode_normalizes_by_the_running_moments_and_leaves_them(path: str, seed: int, mean: float):
    norm = make_norm()
    for step in range(3):
        norm(2 * draw(4, CHANNELS, 3, 3, seed=seed + step) + mean, draw(4, WIDTH))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x, condition = draw(2, CHANNELS, 3, 3, seed=seed + 7), draw(2, WIDTH, seed=seed + 8)
    moments = norm.norm.running_mean.numpy(), norm.norm.running_var.numpy()
    assert moments[0].any()
    with taking(path):
        y = norm.eval()(x, condition)
    np.testing.assert_allclose(y.detach(), expected(norm, x, condition, moments), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


@both_paths
def test_train_mode_moves_the_running_moments_as_the_plain_layer_does(path: str):
    norm, plain = make_norm(), CrossReplicaBatchNorm2d(CHANNELS, affine=False, dtype=torch.float64)
    for seed in range(3):
        x = draw(2, CHANNELS, 3, 3, seed=seed)
        with taking(path):
            norm(x, draw(2, WIDTH))
        plain(x)
    torch.testing.assert_close(norm.norm.running_mean, plain.running_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.norm.running_var, plain.running_var, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_batch_statistics_are_used_in_both_modes_where_asked_for(training: bool):
    norm = make_norm("batch").train(training)
    x, condition = draw(2, CHANNELS, 3, 3), draw(2, WIDTH, seed=1)
    np.testing.assert_allclose(norm(x, condition).detach(), expected(norm, x, condition), rtol=1e-9, atol=1e-9)


@both_paths
@pytest.mark.parametrize("training", [True, False])
def test_a_condition_of_zeros_leaves_the_plain_normalization(path: str, training: bool):
    # The gain is centered at 1: without the 1 the output would vanish.
    norm, plain = (
        make_norm().train(training),
        CrossReplicaBatchNorm2d(CHANNELS, affine=False, dtype=torch.float64).train(training),
    )
    x = draw(2, CHANNELS, 3, 3)
    plain_output = plain(x)
    with taking(path):
        y = norm(x, torch.zeros(2, WIDTH, dtype=torch.float64))
    np.testing.assert_allclose(y.detach(), plain_output, rtol=1e-9, atol=1e-9)


@both_paths
def test_a_sample_sees_its_own_condition_alone(path: str):
    norm = make_norm()
    x, condition = draw(3, CHANNELS, 2, 2), draw(3, WIDTH, seed=1)
    changed = condition.clone()
    changed[1] += 1
    with taking(path):
        differs = (norm(x, condition) != norm(x, changed)).flatten(1).any(1)
    assert differs.tolist() == [False, True, False]


@both_paths
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_eval_mode_normalizes_by_standing_statistics_where_there_are_any(path: str, statistics: str):
    norm = make_norm(statistics)
    batches = [(draw(size, CHANNELS, 3, 3, seed=size) + 5, draw(size, WIDTH)) for size in (2, 3)]
    standing_statistics(norm, batches)
    together = np.concatenate([x.numpy() for x, _ in batches])
    moments = together.mean((0, 2, 3)), together.var((0, 2, 3))
    x, condition = draw(1, CHANNELS, 2, 2, seed=9), draw(1, WIDTH, seed=10)
    with taking(path):
        y = norm.eval()(x, condition)
    np.testing.assert_allclose(y.detach(), expected(norm, x, condition, moments), rtol=1e-9, atol=1e-9)


def check_gradients(norm: ConditionalBatchNorm2d) -> None:
    inputs = (draw(2, CHANNELS, 2, 3, seed=1), draw(2, WIDTH, seed=2), norm.gain.weight, norm.bias.weight)
    inputs = tuple(value.detach().clone().requires_grad_() for value in inputs)

    def run(x: Tensor, condition: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"gain.weight": gain, "bias.weight": bias}, (x, condition))

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@both_paths
@pytest.mark.parametrize("training", [True, False])
def test_gradients_agree_with_finite_differences(path: str, training: bool):
    norm = make_norm(eps=0.1)
    norm(3 * draw(4, CHANNELS, 3, 3) + 1, draw(4, WIDTH))
    with taking(path):
        check_gradients(norm.train(training))


def test_gradients_by_batch_statistics_agree_with_finite_differences():
    check_gradients(make_norm("batch", eps=0.1).eval())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, on the first use
@pytest.mark.parametrize("size", [8, 64])
def test_forward_mode_works_whatever_the_size_of_the_map(size: int, rng: torch.Generator):
    norm = ConditionalBatchNorm2d(16, WIDTH)
    x, t = torch.randn(2, 8, 16, size, size, generator=rng)
    condition = torch.randn(8, WIDTH, generator=rng)
    _, by_transform = torch.func.jvp(lambda x: norm(x, condition), (x,), (t,))
    with fwAD.dual_level():
        by_dual = fwAD.unpack_dual(norm(fwAD.make_dual(x, t), condition)).tangent
    norm.double()
    step, wide = 1e-5 * t.double(), condition.double()
    differences = (norm(x + step, wide) - norm(x - step, wide)) / 2e-5
    for tangent in (by_transform, by_dual):
        torch.testing.assert_close(tangent.double(), differences, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recorded", [False, True])
def test_evaluation_loses_no_digits_to_a_large_mean(recorded: bool, rng: torch.Generator):
    norm = ConditionalBatchNorm2d(16, WIDTH).eval()
    x, condition = 1e4 + 0.1 * torch.randn(4, 16, 8, 8, generator=rng), torch.randn(4, WIDTH, generator=rng)
    norm.norm.running_mean.fill_(1e4)
    norm.norm.running_var.fill_(0.01)
    before = x.clone()
    with torch.set_grad_enabled(recorded):
        y = norm(x, condition).detach()
    exact = norm.double()(x.double(), condition.double())
    torch.testing.assert_close(y.double(), exact, rtol=1e-6, atol=2e-6)
    assert torch.equal(x, before)


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_the_folded_path_is_exact_up_to_the_digits_that_the_mean_takes(mean: float, rng: torch.Generator):
    norm = ConditionalBatchNorm2d(16, WIDTH)
    x, condition = torch.randn(8, 16, 64, 64, generator=rng) + mean, torch.randn(8, WIDTH, generator=rng)
    delta = torch.randn(x.shape, generator=rng)

    def run(norm: ConditionalBatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [value.detach().to(dtype).requires_grad_() for value in (x, condition)]
        y = norm.to(dtype)(*inputs)
        return y, *torch.autograd.grad(y, (*inputs, norm.gain.weight, norm.bias.weight), delta.to(dtype))

    with taking("folded"):
        exact, folded = run(norm, torch.float64), run(norm, torch.float32)
    with taking("plain"):
        plain = run(norm, torch.float32)
        for got, wanted in zip(run(norm, torch.float64), exact, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    for ours, theirs, wanted in zip(folded, plain, exact, strict=True):
        # The sum of delta * x holds the mean's share too, which is taken out afterward.
        cancellation = 2e-7 * (1 + mean) * wanted.abs().max()
        assert (ours - wanted).abs().max() < 2 * (theirs - wanted).abs().max() + cancellation


def test_projections_come_from_the_factory_without_bias():
    calls = []

    def linear(*sizes: int, bias: bool = True) -> nn.Module:
        calls.append((sizes, bias))
        return nn.Linear(*sizes, bias=bias)

    ConditionalBatchNorm2d(CHANNELS, WIDTH, linear_layer=linear)
    assert calls == [((WIDTH, CHANNELS), False)] * 2


def test_state_survives_a_round_trip():
    source, target = make_norm(), ConditionalBatchNorm2d(CHANNELS, WIDTH, dtype=torch.float64)
    x, condition = draw(2, CHANNELS, 3, 3), draw(2, WIDTH)
    source(x, condition)
    assert set(source.state_dict()) == {"norm.running_mean", "norm.running_var", "gain.weight", "bias.weight"}
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.eval()(x, condition), source.eval()(x, condition))


@both_paths
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_keeps_the_memory_format(path: str, training: bool, memory_format: torch.memory_format):
    norm = make_norm().train(training)
    x, condition = draw(2, CHANNELS, 4, 5), draw(2, WIDTH)
    with taking(path):
        y = norm(x.contiguous(memory_format=memory_format), condition)
    assert y.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(y, norm(x, condition), rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_is_as_close_to_the_exact_result_as_its_rounding_allows(training: bool):
    norm = make_norm(momentum=1.0).float()
    x, condition = draw(8, CHANNELS, 8, 8) + 20, draw(8, WIDTH, seed=1)
    norm(x.float(), condition.float())
    norm.train(training)
    rounded = x.bfloat16()
    exact = norm.double()(rounded.double(), condition)
    norm.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm(rounded, condition.float())
    assert y.dtype == torch.bfloat16
    # Three roundings to 8 bits: of the normalized value (up to 4), of its gain and of the result (up to 8).
    assert (y - exact).abs().max() < 3 * 8 * 2**-8


def test_without_autocast_the_result_has_the_dtype_of_the_feature_map():
    norm = make_norm().float()
    assert norm(draw(2, CHANNELS, 2, 2).bfloat16(), draw(2, WIDTH).float()).dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_a_graph_break(training: bool):
    norm = make_norm().train(training)
    x, condition = draw(2, CHANNELS, 3, 3).requires_grad_(), draw(2, WIDTH)
    compiled = torch.compile(norm, fullgraph=True, backend="eager")(x, condition)
    (compiled_gradient,) = torch.autograd.grad(compiled.square().sum(), x)
    plain = norm(x, condition)
    (gradient,) = torch.autograd.grad(plain.square().sum(), x)
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close(compiled_gradient, gradient)


@pytest.mark.parametrize("training", [True, False])
def test_works_on_the_meta_device(training: bool):
    norm = ConditionalBatchNorm2d(CHANNELS, WIDTH, device="meta").train(training)
    x, condition = torch.empty(2, CHANNELS, 3, 3, device="meta"), torch.empty(2, WIDTH, device="meta")
    assert norm(x, condition).shape == x.shape


def test_rejects_a_condition_of_no_width():
    pattern = r"^ConditionalBatchNorm2d: `condition_dim` must be greater than 0, but got condition_dim=0\.$"
    with pytest.raises(ValueError, match=pattern):
        ConditionalBatchNorm2d(CHANNELS, 0)


@pytest.mark.parametrize("shape", [(2, WIDTH + 1), (1, WIDTH), (WIDTH,)])
def test_rejects_a_condition_that_does_not_fit(shape: tuple[int, ...]):
    got = ", ".join(map(str, shape))
    pattern = (
        rf"^ConditionalBatchNorm2d: `condition` must be of shape \(2, {WIDTH}\), "
        rf"but got condition of shape \({got},?\)\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        ConditionalBatchNorm2d(CHANNELS, WIDTH)(torch.zeros(2, CHANNELS, 2, 2), torch.zeros(shape))


def test_rejects_another_number_of_channels():
    with pytest.raises(ValueError, match=r"`x` must be of shape \(batch, 3, height, width\), but got x of shape"):
        ConditionalBatchNorm2d(CHANNELS, WIDTH)(torch.zeros(2, 4, 2, 2), torch.zeros(2, WIDTH))


@pytest.mark.parametrize("recorded", [False, True])
def test_evaluation_can_be_mapped_over_conditions(recorded: bool, rng: torch.Generator):
    norm = ConditionalBatchNorm2d(3, WIDTH).eval()
    x, conditions = torch.randn(1, 3, 4, 4, generator=rng), torch.randn(5, WIDTH, generator=rng)
    with torch.set_grad_enabled(recorded):
        mapped = torch.vmap(lambda condition: norm(x, condition[None])[0])(conditions)
        torch.testing.assert_close(mapped, norm(x.expand(5, -1, -1, -1), conditions))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_float64_norm_of_the_batch_has_forward_mode(rng: torch.Generator):
    norm = CrossReplicaBatchNorm2d(3).double()
    x, t = torch.randn(2, 4, 3, 5, 5, generator=rng, dtype=torch.float64)
    with fwAD.dual_level():
        tangent = fwAD.unpack_dual(norm(fwAD.make_dual(x, t))).tangent
    torch.testing.assert_close(tangent, (norm(x + 1e-5 * t) - norm(x - 1e-5 * t)) / 2e-5, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [4, 512])  # the larger map is normalized in one pass in training, too
def test_hooks_of_the_inner_norm_see_every_call(training: bool, size: int):
    norm, calls = ConditionalBatchNorm2d(1, WIDTH).train(training), []
    x, condition = torch.randn(2, 1, size, size), torch.randn(2, WIDTH)
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    wanted = norm(x, condition)
    norm.load_state_dict(state)
    norm.norm.register_forward_hook(lambda _norm, inputs, _output: calls.append(inputs[0]))
    torch.testing.assert_close(norm(x, condition), wanted)
    assert len(calls) == 1
    assert calls[0] is x


def test_a_condition_that_is_missing_is_named():
    norm = ConditionalBatchNorm2d(CHANNELS, WIDTH)
    message = r"^ConditionalBatchNorm2d: `condition` must be a tensor, but got condition of type NoneType\.$"
    with pytest.raises(TypeError, match=message):
        norm(torch.zeros(2, CHANNELS, 4, 4), None)
