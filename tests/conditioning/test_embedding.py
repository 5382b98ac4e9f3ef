import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import ProjectedEmbedding, SharedEmbedding
from tests.reference import conditioning as reference


@given(labels=st.lists(st.integers(0, 4), max_size=6))
def test_returns_the_row_of_each_label(labels: list[int]):
    embedding = SharedEmbedding(5, 3, dtype=torch.float64)
    table = embedding.weight.detach().numpy()
    c = embedding(torch.tensor(labels, dtype=torch.int64))
    assert c.shape == (len(labels), 3)
    if labels:
        assert (c.detach().numpy() == reference.embedding(table, labels)).all()


@given(weights=st.lists(st.lists(st.floats(-2, 2), min_size=5, max_size=5), min_size=1, max_size=4))
def test_mixes_the_rows_by_weights(weights: list[list[float]]):
    embedding = SharedEmbedding(5, 3, dtype=torch.float64)
    table = embedding.weight.detach().numpy()
    c = embedding(torch.tensor(weights, dtype=torch.float64))
    np.testing.assert_allclose(c.detach().numpy(), reference.embedding_mixture(table, weights), rtol=1e-12, atol=1e-12)


def test_one_hot_weights_give_exactly_the_row_of_the_label():
    embedding = SharedEmbedding(7, 3)
    y = torch.tensor([6, 0, 3])
    assert torch.equal(embedding(torch.nn.functional.one_hot(y, 7).float()), embedding(y))


def test_the_gradient_of_a_row_is_the_sum_over_the_samples_of_its_class():
    embedding = SharedEmbedding(4, 2, dtype=torch.float64)
    weights = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], dtype=torch.float64)
    (embedding(torch.tensor([1, 3, 1])) * weights).sum().backward()
    expected = torch.tensor([[0.0, 0.0], [101.0, 202.0], [0.0, 0.0], [10.0, 20.0]], dtype=torch.float64)
    assert torch.equal(embedding.weight.grad, expected)


def test_gradients_agree_with_finite_differences():
    embedding = SharedEmbedding(3, 2, dtype=torch.float64)
    y = torch.tensor([2, 0, 2])
    assert torch.autograd.gradcheck(
        lambda weight: torch.func.functional_call(embedding, {"weight": weight}, (y,)), (embedding.weight,)
    )


def test_starts_from_a_standard_normal_table_of_the_given_generator(rng: torch.Generator):
    embedding = SharedEmbedding(200, 100)
    embedding.reset_parameters(generator=rng)
    drawn = embedding.weight.detach().clone()
    # 20,000 draws: five standard errors of the mean and of the variance.
    assert abs(drawn.mean().item()) < 5 / 20_000**0.5
    assert abs(drawn.var().item() - 1) < 5 * (2 / 20_000) ** 0.5
    embedding.reset_parameters(generator=rng.manual_seed(0))
    assert torch.equal(embedding.weight, drawn)


def test_has_one_key_and_survives_a_round_trip():
    source, target = SharedEmbedding(5, 3), SharedEmbedding(5, 3)
    assert list(source.state_dict()) == ["weight"]
    target.load_state_dict(source.state_dict())
    y = torch.arange(5)
    assert torch.equal(target(y), source(y))


def test_evaluation_changes_nothing():
    embedding = SharedEmbedding(5, 3)
    y = torch.tensor([4, 0])
    assert torch.equal(embedding.eval()(y), embedding.train()(y))


def test_works_on_the_meta_device():
    embedding = SharedEmbedding(5, 3, device="meta")
    assert embedding(torch.zeros(2, dtype=torch.int64, device="meta")).shape == (2, 3)


def test_compiles_without_a_graph_break():
    embedding = SharedEmbedding(5, 3)
    y = torch.tensor([4, 0, 4])
    assert torch.equal(torch.compile(embedding, fullgraph=True, backend="eager")(y), embedding(y))


@pytest.mark.parametrize("name", ["num_classes", "embedding_dim"])
def test_rejects_an_empty_table(name: str):
    sizes = {"num_classes": 5, "embedding_dim": 3, name: 0}
    with pytest.raises(ValueError, match=rf"^SharedEmbedding: `{name}` must be greater than 0, but got {name}=0\.$"):
        SharedEmbedding(**sizes)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
def test_rejects_labels_that_are_not_int64(dtype: torch.dtype):
    pattern = rf"^SharedEmbedding: `y` must be of dtype int64, but got y of dtype {dtype}\.$"
    with pytest.raises(TypeError, match=pattern):
        SharedEmbedding(5, 3)(torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 5, 1)])
def test_rejects_weights_that_are_not_one_a_class(shape: tuple[int, ...]):
    got = str(shape).replace("(", r"\(").replace(")", r"\)")
    pattern = rf"^SharedEmbedding: `y` must be of shape \(batch, 5\) where it is floating, but got y of shape {got}\."
    with pytest.raises(ValueError, match=pattern):
        SharedEmbedding(5, 3)(torch.zeros(shape))


def test_rejects_one_hot_labels():
    pattern = r"^SharedEmbedding: `y` must be of shape \(batch,\), but got y of shape \(2, 5\)\.$"
    with pytest.raises(ValueError, match=pattern):
        SharedEmbedding(5, 3)(torch.zeros(2, 5, dtype=torch.int64))


@pytest.mark.parametrize(("labels", "span"), [([0, 5], "0 to 5"), ([-1, 3], "-1 to 3")])
def test_rejects_labels_outside_the_table(labels: list[int], span: str):
    pattern = rf"^SharedEmbedding: `y` must be at least 0 and less than num_classes=5, but got values from {span}\.$"
    with pytest.raises(ValueError, match=pattern):
        SharedEmbedding(5, 3)(torch.tensor(labels))


def test_a_projected_embedding_is_the_projection_of_the_generator_s_row():
    shared, embedding = SharedEmbedding(5, 3), ProjectedEmbedding(5, 3, 4).double()
    embedding.follow(shared)
    projection, table = embedding.projection.weight.detach().numpy(), shared.weight.detach().double().numpy()
    expected = [[sum(projection[o][i] * table[y][i] for i in range(3)) for o in range(4)] for y in (4, 0, 4)]
    found = embedding(torch.tensor([4, 0, 4])).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_projected_embedding_learns_the_projection_alone_and_follows_on_request():
    shared, embedding = SharedEmbedding(5, 3), ProjectedEmbedding(5, 3, 4)
    assert [name for name, _ in embedding.named_parameters()] == ["projection.weight"]
    embedding.follow(shared)
    before = embedding(torch.tensor([2])).detach()
    with torch.no_grad():
        shared.weight.mul_(2)
    assert torch.equal(embedding(torch.tensor([2])), before)
    embedding.follow(shared)
    torch.testing.assert_close(embedding(torch.tensor([2])), 2 * before)


def test_a_projected_embedding_rejects_what_does_not_fit():
    embedding = ProjectedEmbedding(5, 3, 4)
    with pytest.raises(ValueError, match=r"ProjectedEmbedding: `embedding\.weight` must be of shape \(5, 3\)"):
        embedding.follow(SharedEmbedding(5, 2))
    with pytest.raises(ValueError, match="out_features"):
        ProjectedEmbedding(5, 3, 0)
    with pytest.raises(TypeError, match="y"):
        embedding(torch.tensor([1.0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_classes_may_be_of_any_floating_dtype(dtype: torch.dtype):
    embedding = SharedEmbedding(3, 2)
    torch.testing.assert_close(embedding(torch.eye(3, dtype=dtype)), embedding(torch.arange(3)))


@pytest.mark.parametrize("y", [[0, 1], [[1.0, 0.0, 0.0]]])
def test_rejects_what_is_no_tensor(y: object):
    message = r"^SharedEmbedding: `y` must be a tensor of labels or of class weights, but got y of type list\.$"
    with pytest.raises(TypeError, match=message):
        SharedEmbedding(3, 2)(y)
