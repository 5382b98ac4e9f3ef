import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import CrossReplicaBatchNorm2d
from tests.drawn import draw
from tests.layers.collecting_norms import affinities, build, collect, expected, kinds
from tests.reference import layers as reference


@kinds
@affinities
@given(batch=st.integers(1, 3), size=st.integers(1, 3), eps=st.floats(1e-5, 1), mean=st.sampled_from([0, -5, 1000]))
def test_train_mode_normalizes_by_the_mean_and_biased_variance_of_the_batch(
    statistics: str, affine: bool, batch: int, size: int, eps: float, mean: float
):
    x = draw(batch, 3, size, 2, mean=mean)
    norm = build(statistics=statistics, affine=affine, eps=eps)
    np.testing.assert_allclose(norm(x).detach(), expected(norm, x, *reference.moments(x.numpy())), atol=1e-9)


def exact_sums(values: Tensor) -> list[float]:
    """Over samples and pixels, for each channel, without rounding on the way."""
    return [math.fsum(channel.flatten().tolist()) for channel in values.unbind(1)]


@kinds
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_in_float64_the_zero_gradient_of_a_bias_in_front_is_zero_up_to_one_rounding(
    statistics: str, memory_format: torch.memory_format
):
    x = draw(12, 3, 32, 32, mean=3).contiguous(memory_format=memory_format).requires_grad_()
    output_gradient = draw(12, 3, 32, 32, seed=1).abs().contiguous(memory_format=memory_format)
    norm = build(statistics=statistics, momentum=1.0)
    norm(x).backward(output_gradient)
    for left, scale in zip(exact_sums(x.grad), exact_sums(output_gradient), strict=True):
        assert abs(left) <= 2**-52 * scale
    if statistics == "running":
        means = [total / (12 * 32 * 32) for total in exact_sums(x.detach())]
        np.testing.assert_allclose(norm.running_mean, means, rtol=2**-51)


@given(momentum=st.floats(0, 1))
def test_running_statistics_move_by_the_momentum_toward_mean_and_unbiased_variance(momentum: float):
    norm = build(momentum=momentum)
    mean, variance = np.zeros(3), np.ones(3)
    for seed in range(2):
        x = draw(2, 3, 2, 2, seed=seed, mean=3)
        norm(x)
        batch_mean, batch_variance = reference.moments(x.numpy())
        mean = (1 - momentum) * mean + momentum * batch_mean
        variance = (1 - momentum) * variance + momentum * batch_variance * 8 / 7
    np.testing.assert_allclose(norm.running_mean, mean, atol=1e-12)
    np.testing.assert_allclose(norm.running_var, variance, atol=1e-12)


@affinities
def test_eval_mode_uses_the_running_statistics_and_leaves_them(affine: bool):
    norm = build(affine=affine)
    norm(draw(4, 3, 2, 2, mean=2))
    norm.eval()
    before = copy.deepcopy(norm.state_dict())
    x = draw(1, 3, 1, 1, seed=5)
    mean, variance = norm.running_mean.numpy(), norm.running_var.numpy()
    np.testing.assert_allclose(norm(x).detach(), expected(norm, x, mean, variance), atol=1e-12)
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


@affinities
def test_batch_statistics_are_used_in_eval_mode_too_and_need_no_buffers(affine: bool):
    norm = build(affine=affine, statistics="batch")
    x = draw(2, 3, 2, 2)
    assert torch.equal(norm.train()(x), norm.eval()(x))
    assert not list(norm.buffers())


@given(mean=st.floats(-1000, 1000), scale=st.floats(1, 100))
def test_output_has_zero_mean_and_unit_variance_whatever_the_input(mean: float, scale: float):
    y = CrossReplicaBatchNorm2d(3, affine=False, eps=1e-8, dtype=torch.float64)(scale * draw(4, 3, 2, 2) + mean)
    np.testing.assert_allclose(reference.moments(y.numpy()), [np.zeros(3), np.ones(3)], atol=1e-6)


def test_each_sample_depends_on_the_whole_batch_in_train_mode_and_on_itself_in_eval_mode():
    norm = build()
    x = draw(4, 3, 2, 2)
    assert not torch.allclose(norm(x)[:2], norm(x[:2]))
    norm.eval()
    assert torch.equal(norm(x)[:2], norm(x[:2]))


@kinds
@pytest.mark.parametrize("training", [True, False])
def test_gradients_agree_with_finite_differences(statistics: str, training: bool):
    norm = build(statistics=statistics, eps=0.1).train(training)
    norm.running_var = norm.running_var if norm.running_var is None else norm.running_var * 2.5
    x = draw(2, 3, 2, 1).requires_grad_()
    inputs = (x, *norm.parameters())

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@kinds
@affinities
def test_state_survives_a_round_trip_into_a_fresh_layer(statistics: str, affine: bool):
    x = draw(2, 3, 2, 2)
    norm = build(statistics=statistics, affine=affine)
    collect(norm, draw(2, 3, 2, 2, seed=1))
    file = io.BytesIO()
    torch.save(norm.state_dict(), file)
    file.seek(0)
    fresh = CrossReplicaBatchNorm2d(3, statistics=statistics, affine=affine, dtype=torch.float64)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert fresh.state_dict().keys() == norm.state_dict().keys()
    assert torch.equal(fresh.eval()(x), norm.eval()(x))


def test_a_fresh_layer_of_batch_statistics_has_nothing_but_its_parameters_to_save():
    norm = build(statistics="batch")
    assert list(norm.state_dict()) == ["weight", "bias"]
    build(statistics="batch").load_state_dict(norm.state_dict())


@kinds
def test_loading_reports_statistics_of_another_width_and_missing_ones(statistics: str):
    norm = CrossReplicaBatchNorm2d(3, statistics=statistics, affine=False)
    with pytest.raises(RuntimeError, match="size mismatch for running_mean"):
        norm.load_state_dict({"running_mean": torch.zeros(4), "running_var": torch.zeros(4)})
    with pytest.raises(RuntimeError, match=r"Missing key.*running_var"):
        CrossReplicaBatchNorm2d(3, statistics=statistics, affine=False).load_state_dict(
            {"running_mean": torch.zeros(3)}
        )


@kinds
@affinities
@pytest.mark.parametrize("training", [True, False])
def test_keeps_channels_last_and_the_values(statistics: str, affine: bool, training: bool):
    norm = build(statistics=statistics, affine=affine).train(training)
    x = draw(2, 3, 4, 4)
    y = norm(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, norm(x))


@kinds
@affinities
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_inputs_keep_their_dtype_and_get_float32_statistics(
    statistics: str, affine: bool, memory_format: torch.memory_format
):
    x = draw(8, 3, 8, 8, mean=20).to(torch.bfloat16, memory_format=memory_format)
    norm = CrossReplicaBatchNorm2d(3, affine=affine, statistics=statistics, momentum=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm(x)
    mean, variance = reference.moments(x.double().numpy())
    wanted = reference.batch_norm(x.double().numpy(), mean, variance, np.ones(3), np.zeros(3), norm.eps)
    assert y.dtype == torch.bfloat16
    # Half a unit in the last of 8 bits, at values below 4; a mean rounded to bfloat16 would be 0.06 off.
    np.testing.assert_allclose(y.detach().double(), wanted, atol=0.012)
    collect(norm, x)
    assert norm.running_mean.dtype == torch.float32
    np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-6)


@kinds
def test_a_layer_converted_to_bfloat16_runs_in_both_modes(statistics: str):
    norm = CrossReplicaBatchNorm2d(3, statistics=statistics).bfloat16()
    x = draw(2, 3, 4, 4).bfloat16()
    assert norm(x).dtype == norm.eval()(x).dtype == torch.bfloat16


@kinds
@affinities
def test_compiles_without_graph_breaks(statistics: str, affine: bool):
    torch.compiler.reset()
    # In float64, a call that is not compiled adds up in another order, to the last bits more exact.
    x = draw(2, 3, 2, 2).float()
    norm = build(statistics=statistics, affine=affine).float()
    twin = copy.deepcopy(norm)
    compiled = torch.compile(norm, fullgraph=True, backend="eager")
    for training in (True, False):
        twin.train(training)
        norm.train(training)
        assert torch.equal(compiled(x), twin(x))
    for layer, call in ((norm, compiled), (twin, twin)):
        layer.start_collecting()
        call(x)
        call(2 * x)
        layer.stop_collecting(store=True)
    assert torch.equal(norm.running_var, twin.running_var)
    assert torch.equal(compiled(x), twin(x))


@kinds
def test_runs_on_the_meta_device(statistics: str):
    norm = CrossReplicaBatchNorm2d(3, statistics=statistics, device="meta")
    x = torch.empty(2, 3, 2, 2, device="meta")
    assert norm(x).shape == norm.eval()(x).shape == x.shape
    assert all(tensor.is_meta for tensor in norm.state_dict().values())


def test_shows_its_arguments():
    wanted = "CrossReplicaBatchNorm2d(3, eps=0.0001, momentum=0.1, affine=True, statistics='running')"
    assert repr(CrossReplicaBatchNorm2d(3)) == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_features": 0}, r"`num_features` must be greater than 0, but got num_features=0\."),
        ({"num_features": 3, "eps": 0}, r"`eps` must be greater than 0, but got eps=0\."),
        ({"num_features": 3, "momentum": 1.5}, r"`momentum` must be from 0 to 1, but got momentum=1\.5\."),
        ({"num_features": 3, "momentum": -0.1}, r"`momentum` must be from 0 to 1, but got momentum=-0\.1\."),
        (
            {"num_features": 3, "statistics": "moving"},
            r"`statistics` must be 'running' or 'batch', but got statistics='moving'\.",
        ),
    ],
)
def test_rejects_arguments_out_of_range(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=rf"^CrossReplicaBatchNorm2d: {message}$"):
        CrossReplicaBatchNorm2d(**options)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 4, 2, 2), (2, 3), (3, 2, 2)])
def test_rejects_another_shape(training: bool, shape: tuple[int, ...]):
    got = ", ".join(map(str, shape))
    message = (
        r"^CrossReplicaBatchNorm2d: `x` must be of shape \(batch, 3, height, width\), "
        rf"but got x of shape \({got}\)\.$"
    )
    with pytest.raises(ValueError, match=message):
        CrossReplicaBatchNorm2d(3).train(training)(torch.zeros(shape))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("stored", "given"),
    [
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float16),
    ],
)
def test_rejects_dtypes_that_cannot_be_normalized_by_those_of_the_layer(
    stored: torch.dtype, given: torch.dtype, training: bool
):
    norm = CrossReplicaBatchNorm2d(3, dtype=stored).train(training)
    before = copy.deepcopy(norm.state_dict())
    rule = "torch.float32 or narrower" if stored == torch.float32 else str(stored)
    message = rf"^CrossReplicaBatchNorm2d: `x` must be of dtype {rule}, like the layer, but got x of dtype {given}\.$"
    with pytest.raises(TypeError, match=message):
        norm(torch.zeros(2, 3, 2, 2, dtype=given))
    assert all(value.equal(before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (0, 3, 2, 2)])
@pytest.mark.parametrize("mode", ["train", "batch", "collecting"])
def test_rejects_a_single_value_per_channel_where_the_batch_is_its_own_yardstick(shape: tuple[int, ...], mode: str):
    norm = CrossReplicaBatchNorm2d(3, statistics="batch" if mode == "batch" else "running").train(mode == "train")
    if mode == "collecting":
        norm.start_collecting()
    message = (
        r"^CrossReplicaBatchNorm2d: `x` must be of shape \(batch, 3, height, width\) with more than one value per "
        rf"channel, but got x of shape \({', '.join(map(str, shape))}\)\. "
        r"A single value has no variance to normalize by\.$"
    )
    with pytest.raises(ValueError, match=message):
        norm(torch.zeros(shape))


def test_takes_the_state_of_a_batch_norm_of_torch():
    theirs = nn.BatchNorm2d(3)
    theirs(torch.randn(4, 3, 2, 2) + 5)
    ours = CrossReplicaBatchNorm2d(3, eps=1e-5)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_rejects_an_average_over_all_batches():
    with pytest.raises(
        ValueError, match=r"^CrossReplicaBatchNorm2d: `momentum` must be from 0 to 1, but got momentum=None"
    ):
        CrossReplicaBatchNorm2d(3, momentum=None)
