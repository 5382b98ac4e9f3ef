from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_blocks import ProjectionHead, UnconditionalHead, normalized_layer
from tests.reference import conditioning as reference


def make_head(**factories) -> ProjectionHead:
    return ProjectionHead(4, 3, **factories).double()


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_equals_the_sum_over_features(labels: list[int], seed: int):
    head = make_head()
    h = torch.randn(len(labels), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = reference.projection_logits(
        h.numpy(),
        labels,
        head.linear.weight.detach().numpy()[0],
        head.linear.bias.item(),
        head.embedding.weight.detach().numpy(),
    )
    assert head(h, torch.tensor(labels)).tolist() == pytest.approx(expected, abs=1e-12)


def test_labels_matter_only_through_the_class_vectors(rng: torch.Generator):
    head = make_head()
    h = torch.randn(3, 4, dtype=torch.float64, generator=rng)
    with torch.no_grad():
        head.embedding.weight[1] = head.embedding.weight[0]
    assert torch.equal(head(h, torch.tensor([0, 0, 0])), head(h, torch.tensor([1, 1, 1])))
    assert not torch.isclose(head(h, torch.tensor([0, 0, 0])), head(h, torch.tensor([2, 2, 2]))).any()


def test_is_linear_in_the_features_up_to_the_bias(rng: torch.Generator):
    head = make_head()
    h = torch.randn(3, 4, dtype=torch.float64, generator=rng)
    y = torch.tensor([0, 1, 2])
    bias = head.linear.bias
    torch.testing.assert_close(head(3 * h, y) - bias, 3 * (head(h, y) - bias))


def test_gradients_agree_with_finite_differences_to_second_order(rng: torch.Generator):
    head = make_head()
    h = torch.randn(3, 4, dtype=torch.float64, generator=rng, requires_grad=True)
    y = torch.tensor([2, 0, 2])

    def logits(h, *parameters):
        names = [name for name, _ in head.named_parameters()]
        return torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), (h, y))

    inputs = (h, *head.parameters())
    assert torch.autograd.gradcheck(logits, inputs)
    assert torch.autograd.gradgradcheck(logits, inputs)


def test_layers_come_from_the_factories():
    head = make_head(linear_layer=partial(nn.Linear, bias=False), embedding_layer=partial(nn.Embedding, padding_idx=0))
    assert set(head.state_dict()) == {"linear.weight", "embedding.weight"}
    assert head.linear.weight.shape == (1, 4)
    assert head.embedding.padding_idx == 0


def test_state_survives_a_round_trip(rng: torch.Generator):
    source, target = make_head(), make_head()
    assert list(source.state_dict()) == ["linear.weight", "linear.bias", "embedding.weight"]
    target.load_state_dict(source.state_dict())
    h, y = torch.randn(3, 4, dtype=torch.float64, generator=rng), torch.tensor([0, 1, 2])
    assert torch.equal(target(h, y), source(h, y))
    assert torch.equal(target.eval()(h, y), source(h, y))


def test_the_class_term_keeps_float32_under_autocast(rng: torch.Generator):
    head = ProjectionHead(64, 3)
    nn.init.zeros_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    h, y = torch.randn(5, 64, generator=rng), torch.tensor([0, 1, 2, 1, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(h, y)
    torch.testing.assert_close(logits, head(h, y), rtol=0, atol=1e-5)


def test_compiles_without_a_graph_break(rng: torch.Generator):
    head = make_head()
    h, y = torch.randn(3, 4, dtype=torch.float64, generator=rng), torch.tensor([0, 1, 2])
    torch.testing.assert_close(torch.compile(head, fullgraph=True, backend="eager")(h, y), head(h, y))


def test_works_on_the_meta_device():
    head = make_head().to("meta")
    h = torch.empty(2, 4, dtype=torch.float64, device="meta")
    assert head(h, torch.empty(2, dtype=torch.int64, device="meta")).shape == (2,)


@pytest.mark.parametrize("name", ["in_features", "num_classes"])
def test_rejects_sizes_of_zero(name: str):
    sizes = {"in_features": 4, "num_classes": 3, name: 0}
    with pytest.raises(ValueError, match=rf"^ProjectionHead: `{name}` must be greater than 0, but got {name}=0\.$"):
        ProjectionHead(**sizes)


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 1, 1)])
def test_rejects_features_of_another_shape(shape: tuple[int, ...]):
    got = ", ".join(map(str, shape))
    pattern = rf"^ProjectionHead: `h` must be of shape \(batch, 4\), but got h of shape \({got}\)\.$"
    with pytest.raises(ValueError, match=pattern):
        ProjectionHead(4, 3)(torch.zeros(shape), torch.zeros(2, dtype=torch.int64))


def test_rejects_another_number_of_labels():
    pattern = r"^ProjectionHead: `y` must be of shape \(2,\), but got y of shape \(1,\)\.$"
    with pytest.raises(ValueError, match=pattern):
        ProjectionHead(4, 3)(torch.zeros(2, 4), torch.zeros(1, dtype=torch.int64))


def test_rejects_labels_that_are_not_class_indices():
    with pytest.raises(
        TypeError, match=r"^ProjectionHead: `y` must be of dtype int64, but got y of dtype torch\.int32\.$"
    ):
        ProjectionHead(4, 3)(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int32))
    pattern = r"^ProjectionHead: `y` must be of shape \(batch, 3\) where it is floating, but got y of shape \(2,\)\."
    with pytest.raises(ValueError, match=pattern + r" Labels are int64, of shape \(batch,\)\.$"):
        ProjectionHead(4, 3)(torch.zeros(2, 4), torch.zeros(2))
    pattern = r"^ProjectionHead: `y` must be at least 0 and less than num_classes=3, but got values from 0 to 3\.$"
    with pytest.raises(ValueError, match=pattern):
        ProjectionHead(4, 3)(torch.zeros(2, 4), torch.tensor([0, 3]))


@given(batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_unconditional_head_equals_the_sum_over_features(batch: int, seed: int):
    head = UnconditionalHead(4).double()
    h = torch.randn(batch, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weight, bias = head.linear.weight.detach().numpy()[0], head.linear.bias.item()
    table = torch.zeros(1, 4).numpy()
    expected = reference.projection_logits(h.numpy(), [0] * batch, weight, bias, table)
    assert head(h).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_unconditional_head_is_the_projection_head_without_class_vectors(rng: torch.Generator):
    projection, head = make_head(), UnconditionalHead(4).double()
    nn.init.zeros_(projection.embedding.weight)
    assert list(head.state_dict()) == ["linear.weight", "linear.bias"]
    head.load_state_dict({key: value for key, value in projection.state_dict().items() if key.startswith("linear")})
    h = torch.randn(3, 4, dtype=torch.float64, generator=rng)
    torch.testing.assert_close(head(h), projection(h, torch.tensor([0, 1, 2])), rtol=0, atol=1e-14)
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    assert torch.equal(compiled(h), head(h))
    assert head.to("meta")(h.to("meta")).shape == (3,)


def test_the_gradient_of_the_unconditional_head_agrees_with_finite_differences(rng: torch.Generator):
    head = UnconditionalHead(4).double()
    h = torch.randn(3, 4, dtype=torch.float64, generator=rng, requires_grad=True)
    assert torch.autograd.gradcheck(head, (h,))
    assert torch.autograd.gradgradcheck(lambda h: head(h).square(), (h,))


def test_the_linear_layer_of_the_unconditional_head_comes_from_the_factory():
    head = UnconditionalHead(4, linear_layer=partial(nn.Linear, bias=False))
    assert set(head.state_dict()) == {"linear.weight"}
    assert head.linear.weight.shape == (1, 4)


def test_the_unconditional_head_rejects_sizes_of_zero_and_features_of_another_shape():
    pattern = r"^UnconditionalHead: `in_features` must be greater than 0, but got in_features=0\.$"
    with pytest.raises(ValueError, match=pattern):
        UnconditionalHead(0)
    for shape in ((2, 5), (2, 4, 1, 1)):
        got = ", ".join(map(str, shape))
        pattern = rf"^UnconditionalHead: `h` must be of shape \(batch, 4\), but got h of shape \({got}\)\.$"
        with pytest.raises(ValueError, match=pattern):
            UnconditionalHead(4)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_of_classes_compare_with_the_mixture_of_their_vectors(dtype: torch.dtype, rng: torch.Generator):
    head = ProjectionHead(4, 3, embedding_layer=normalized_layer(nn.Embedding))
    h = torch.randn(2, 4, generator=rng)
    halves = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]], dtype=dtype)
    first, last = (head(h[:1], torch.tensor([label])) for label in (0, 2))
    expected = torch.cat([(first + last) / 2, head(h[1:], torch.tensor([1]))])
    torch.testing.assert_close(head(h, halves), expected)
