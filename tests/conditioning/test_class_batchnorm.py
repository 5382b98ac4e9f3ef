import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_blocks import ClassConditionalBatchNorm2d, ConditionalBatchNorm2d, CrossReplicaBatchNorm2d, standing_statistics
from gan_blocks.conditioning import _modulation
from tests.drawn import draw
from tests.reference import conditioning as reference

CHANNELS, CLASSES = 3, 4
modes = pytest.mark.parametrize("training", [True, False])


def make_norm(**options) -> ClassConditionalBatchNorm2d:
    norm = ClassConditionalBatchNorm2d(CHANNELS, CLASSES, dtype=torch.float64, **options)
    with torch.no_grad():
        for seed, table in enumerate((norm.gain, norm.bias)):
            table.weight.copy_(draw(CLASSES, CHANNELS, seed=10 + seed))
    return norm


def expected(norm: ClassConditionalBatchNorm2d, x: Tensor, labels: list[int], moments=None) -> np.ndarray:
    tables = (table.weight.detach().numpy() for table in (norm.gain, norm.bias))
    return reference.class_batch_norm(x.numpy(), labels, *tables, norm.norm.eps, moments)


@given(
    labels=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=3),
    height=st.integers(2, 4),
    mean=st.sampled_from([0.0, -3.0, 1000.0]),
    folded=st.booleans(),
)
def test_train_mode_equals_the_sum_over_pixels(labels: list[int], height: int, mean: float, folded: bool):
    norm, x = make_norm(), draw(len(labels), CHANNELS, height, 2, seed=height) + mean
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_modulation, "_SMALLEST_TRAINING_MAP", 0 if folded else 10**9)
        y = norm(x, torch.tensor(labels))
    np.testing.assert_allclose(y.detach(), expected(norm, x, labels), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_eval_mode_normalizes_by_the_running_moments_and_leaves_them(mean: float):
    norm, labels = make_norm(), [3, 0]
    for step in range(3):
        norm(2 * draw(4, CHANNELS, 3, 3, seed=step) + mean, torch.tensor([0, 1, 2, 3]))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = draw(2, CHANNELS, 3, 3, seed=7)
    moments = norm.norm.running_mean.numpy(), norm.norm.running_var.numpy()
    y = norm.eval()(x, torch.tensor(labels))
    np.testing.assert_allclose(y.detach(), expected(norm, x, labels, moments), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


def test_weights_mix_the_rows_of_the_classes():
    norm, x = make_norm().eval(), draw(3, CHANNELS, 2, 2)
    labels, other = torch.tensor([3, 0, 1]), torch.tensor([1, 0, 2])
    one_hot, other_hot = (torch.nn.functional.one_hot(y, CLASSES).double() for y in (labels, other))
    assert torch.equal(norm(x, one_hot), norm(x, labels))
    # Gain and bias are linear in the weights, so the output is too.
    torch.testing.assert_close(
        norm(x, 0.25 * one_hot + 0.75 * other_hot),
        0.25 * norm(x, labels) + 0.75 * norm(x, other),
        rtol=1e-12,
        atol=1e-12,
    )


def test_eval_mode_normalizes_by_standing_statistics_where_there_are_any():
    norm = make_norm(statistics="batch")
    batches = [(draw(size, CHANNELS, 3, 3, seed=size) + 5, torch.arange(size)) for size in (2, 3)]
    standing_statistics(norm, batches)
    together = np.concatenate([x.numpy() for x, _ in batches])
    moments = together.mean((0, 2, 3)), together.var((0, 2, 3))
    x = draw(1, CHANNELS, 2, 2, seed=9)
    y = norm.eval()(x, torch.tensor([2]))
    np.testing.assert_allclose(y.detach(), expected(norm, x, [2], moments), rtol=1e-9, atol=1e-9)


@modes
def test_a_new_layer_is_the_plain_normalization_for_every_class(training: bool):
    norm = ClassConditionalBatchNorm2d(CHANNELS, CLASSES, dtype=torch.float64).train(training)
    plain = CrossReplicaBatchNorm2d(CHANNELS, affine=False, dtype=torch.float64).train(training)
    x = draw(CLASSES, CHANNELS, 3, 3)
    torch.testing.assert_close(norm(x, torch.arange(CLASSES)), plain(x))


@modes
def test_it_is_the_conditional_norm_of_one_hot_labels(training: bool):
    norm = make_norm().train(training)
    conditional = ConditionalBatchNorm2d(CHANNELS, CLASSES, dtype=torch.float64).train(training)
    with torch.no_grad():
        conditional.gain.weight.copy_(norm.gain.weight.T)
        conditional.bias.weight.copy_(norm.bias.weight.T)
    x, labels = draw(3, CHANNELS, 2, 2), torch.tensor([3, 1, 3])
    one_hot = torch.eye(CLASSES, dtype=torch.float64)[labels]
    torch.testing.assert_close(norm(x, labels), conditional(x, one_hot))


def test_a_sample_sees_the_row_of_its_own_class_alone():
    norm, x, labels = make_norm(), draw(3, CHANNELS, 2, 2), torch.tensor([0, 1, 0])
    before = norm(x, labels)
    with torch.no_grad():
        norm.gain.weight[1] += 1
    assert (norm(x, labels) != before).flatten(1).any(1).tolist() == [False, True, False]


@modes
def test_gradients_agree_with_finite_differences(training: bool):
    norm, labels = make_norm(eps=0.1), torch.tensor([2, 0])
    norm(3 * draw(4, CHANNELS, 3, 3) + 1, torch.arange(4))
    norm.train(training)
    inputs = (draw(2, CHANNELS, 2, 3, seed=1).requires_grad_(), norm.gain.weight, norm.bias.weight)

    def run(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"gain.weight": gain, "bias.weight": bias}, (x, labels))

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@modes
def test_keeps_the_memory_format_and_compiles_without_a_graph_break(training: bool):
    norm, labels = make_norm().train(training), torch.tensor([1, 2])
    x = draw(2, CHANNELS, 4, 5).contiguous(memory_format=torch.channels_last)
    y = norm(x, labels)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(torch.compile(norm, fullgraph=True, backend="eager")(x, labels), y)


def test_state_survives_a_round_trip_and_reset_forgets_the_classes():
    source, target = make_norm(), ClassConditionalBatchNorm2d(CHANNELS, CLASSES, dtype=torch.float64)
    x, labels = draw(2, CHANNELS, 3, 3), torch.tensor([0, 3])
    source(x, labels)
    assert set(source.state_dict()) == {"norm.running_mean", "norm.running_var", "gain.weight", "bias.weight"}
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.eval()(x, labels), source.eval()(x, labels))
    target.reset_parameters()
    assert not target.gain.weight.any()
    assert not target.bias.weight.any()


@modes
def test_works_on_the_meta_device(training: bool):
    norm = ClassConditionalBatchNorm2d(CHANNELS, CLASSES, device="meta").train(training)
    x, labels = torch.empty(2, CHANNELS, 3, 3, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    assert norm(x, labels).shape == x.shape


def test_rejects_sizes_of_zero():
    pattern = r"^ClassConditionalBatchNorm2d: `num_classes` must be greater than 0, but got num_classes=0\.$"
    with pytest.raises(ValueError, match=pattern):
        ClassConditionalBatchNorm2d(CHANNELS, 0)


def test_rejects_another_number_of_channels():
    pattern = r"^ClassConditionalBatchNorm2d: `x` must be of shape \(batch, 3, height, width\), but got x of shape"
    with pytest.raises(ValueError, match=pattern + r" \(2, 4, 2, 2\)\.$"):
        ClassConditionalBatchNorm2d(CHANNELS, CLASSES)(torch.zeros(2, 4, 2, 2), torch.tensor([0, 1]))


def test_rejects_labels_that_are_not_class_indices_of_each_sample():
    norm, x = ClassConditionalBatchNorm2d(CHANNELS, CLASSES), torch.zeros(2, CHANNELS, 2, 2)
    pattern = r"^ClassConditionalBatchNorm2d: `y` must be at least 0 and less than num_classes=4, but got values from"
    with pytest.raises(ValueError, match=pattern + r" 0 to 4\.$"):
        norm(x, torch.tensor([0, 4]))
    with pytest.raises(
        ValueError, match=r"^ClassConditionalBatchNorm2d: `y` must be of shape \(2,\), but got y of shape \(1,\)\.$"
    ):
        norm(x, torch.tensor([0]))
    pattern = r"^ClassConditionalBatchNorm2d: `y` must be of dtype int64, but got y of dtype torch\.int32\.$"
    with pytest.raises(TypeError, match=pattern):
        norm(x, torch.zeros(2, dtype=torch.int32))
    with pytest.raises(
        ValueError, match=r"^ClassConditionalBatchNorm2d: `y` must be of shape \(2, 4\), but got y of shape \(1, 4\)\.$"
    ):
        norm(x, torch.zeros(1, 4))
    pattern = r"^ClassConditionalBatchNorm2d: `y` must be of shape \(batch, 4\) where it is floating, but got y of"
    with pytest.raises(ValueError, match=pattern + r" shape \(2,\)\. Labels are int64, of shape \(batch,\)\.$"):
        norm(x, torch.zeros(2))
