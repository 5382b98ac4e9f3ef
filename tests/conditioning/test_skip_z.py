import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import FullSkipZ, HierarchicalSkipZ, NoSkipZ
from tests.reference import conditioning as reference

KINDS = [
    (FullSkipZ, reference.full_skip_z),
    (HierarchicalSkipZ, reference.hierarchical_skip_z),
    (NoSkipZ, reference.no_skip_z),
]


@pytest.mark.parametrize(("kind", "expected"), KINDS)
@given(chunk=st.integers(1, 4), width=st.integers(1, 5), num_blocks=st.integers(1, 6), batch=st.integers(1, 3))
def test_equals_the_concatenation_of_rows(kind, expected, chunk: int, width: int, num_blocks: int, batch: int):
    generator = torch.Generator().manual_seed(chunk + 10 * width)
    z = torch.randn(batch, chunk * (num_blocks + 1), dtype=torch.float64, generator=generator)
    c = torch.randn(batch, width, dtype=torch.float64, generator=generator)
    skip_z = kind(z.shape[1], width, num_blocks=num_blocks)
    parts = skip_z(z, c)
    stem, conditions = expected(z.numpy(), c.numpy(), num_blocks)
    assert (parts.stem.numpy() == stem).all()
    assert len(parts.conditions) == num_blocks
    for got, wanted in zip(parts.conditions, conditions, strict=True):
        assert (got.numpy() == wanted).all()
    assert skip_z.stem_features == parts.stem.shape[1]
    assert {skip_z.condition_dim} == {condition.shape[1] for condition in parts.conditions}


@pytest.mark.parametrize(("latent_dim", "num_blocks"), [(120, 5), (140, 6), (160, 7)])
def test_the_papers_networks_have_chunks_of_20_and_conditions_of_148(latent_dim: int, num_blocks: int):
    skip_z = HierarchicalSkipZ(latent_dim, 128, num_blocks=num_blocks)
    assert (skip_z.stem_features, skip_z.condition_dim) == (20, 148)


def test_every_component_of_a_hierarchical_z_reaches_exactly_one_place(rng: torch.Generator):
    z = torch.randn(2, 12, generator=rng, requires_grad=True)
    parts = HierarchicalSkipZ(12, 3, num_blocks=3)(z, torch.zeros(2, 3))
    (parts.stem.sum() + sum(condition.sum() for condition in parts.conditions)).backward()
    assert torch.equal(z.grad, torch.ones_like(z))


@pytest.mark.parametrize(("kind", "_"), KINDS)
def test_gradients_agree_with_finite_differences(kind, _, rng: torch.Generator):
    z, c = (torch.randn(2, n, dtype=torch.float64, generator=rng, requires_grad=True) for n in (6, 3))
    skip_z = kind(6, 3, num_blocks=2)
    # A tensor that is passed on as it is would be differentiated in place.
    assert torch.autograd.gradcheck(lambda z, c: (skip_z(1 * z, 1 * c).stem, *skip_z(1 * z, 1 * c).conditions), (z, c))


@pytest.mark.parametrize(("kind", "_"), KINDS)
def test_has_no_state_and_the_same_result_in_evaluation(kind, _, rng: torch.Generator):
    z, c = torch.randn(2, 6, generator=rng), torch.randn(2, 3, generator=rng)
    skip_z = kind(6, 3, num_blocks=2)
    assert skip_z.state_dict() == {}
    skip_z.load_state_dict({})
    training = skip_z(z, c)
    evaluation = skip_z.eval()(z, c)
    assert all(torch.equal(a, b) for a, b in zip(training.conditions, evaluation.conditions, strict=True))
    assert torch.equal(training.stem, evaluation.stem)


@pytest.mark.parametrize(("kind", "_"), KINDS)
def test_compiles_without_a_graph_break(kind, _, rng: torch.Generator):
    z, c = torch.randn(2, 6, generator=rng), torch.randn(2, 3, generator=rng)
    skip_z = kind(6, 3, num_blocks=2)
    compiled = torch.compile(skip_z, fullgraph=True, backend="eager")(z, c)
    assert torch.equal(compiled.stem, skip_z(z, c).stem)
    assert torch.equal(compiled.conditions[1], skip_z(z, c).conditions[1])


@pytest.mark.parametrize(("kind", "_"), KINDS)
def test_works_on_the_meta_device(kind, _):
    skip_z = kind(6, 3, num_blocks=2)
    parts = skip_z(torch.empty(4, 6, device="meta"), torch.empty(4, 3, device="meta"))
    assert parts.conditions[1].shape == (4, skip_z.condition_dim)


# 128 lies between 126 and 133; 3 is below the smallest multiple.
@pytest.mark.parametrize(("latent_dim", "num_blocks", "nearest"), [(128, 6, 126), (132, 6, 133), (3, 4, 5)])
def test_rejects_a_z_without_equal_chunks_and_names_the_nearest(latent_dim: int, num_blocks: int, nearest: int):
    pattern = (
        rf"^HierarchicalSkipZ: `latent_dim` must be a multiple of num_blocks \+ 1 = {num_blocks + 1}, "
        rf"but got latent_dim={latent_dim}\. The nearest is {nearest}\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        HierarchicalSkipZ(latent_dim, 8, num_blocks=num_blocks)


@pytest.mark.parametrize(("kind", "_"), KINDS)
@pytest.mark.parametrize("name", ["latent_dim", "embedding_dim", "num_blocks"])
def test_rejects_sizes_of_zero(kind, _, name: str):
    sizes = {"latent_dim": 6, "embedding_dim": 3, "num_blocks": 2, name: 0}
    pattern = rf"^{kind.__name__}: `{name}` must be greater than 0, but got {name}=0\.$"
    with pytest.raises(ValueError, match=pattern):
        kind(sizes["latent_dim"], sizes["embedding_dim"], num_blocks=sizes["num_blocks"])


@pytest.mark.parametrize(("kind", "_"), KINDS)
@pytest.mark.parametrize("shape", [(4, 5), (4, 6, 1), (6,)])
def test_rejects_a_z_of_another_width(kind, _, shape: tuple[int, ...]):
    got = ", ".join(map(str, shape))
    pattern = rf"^{kind.__name__}: `z` must be of shape \(batch, 6\), but got z of shape \({got},?\)\.$"
    with pytest.raises(ValueError, match=pattern):
        kind(6, 3, num_blocks=2)(torch.zeros(shape), torch.zeros(4, 3))


@pytest.mark.parametrize(("kind", "_"), KINDS)
@pytest.mark.parametrize("shape", [(4, 6), (3, 3), (4,)])
def test_rejects_an_embedding_that_does_not_fit_z(kind, _, shape: tuple[int, ...]):
    got = ", ".join(map(str, shape))
    pattern = rf"^{kind.__name__}: `embedding` must be of shape \(4, 3\), but got embedding of shape \({got},?\)\.$"
    with pytest.raises(ValueError, match=pattern):
        kind(6, 3, num_blocks=2)(torch.zeros(4, 6), torch.zeros(shape))


@pytest.mark.parametrize(("kind", "_"), KINDS)
@pytest.mark.parametrize("missing", ["z", "embedding"])
def test_an_input_that_is_missing_is_named(kind, _, missing: str):
    inputs = {"z": torch.zeros(4, 6), "embedding": torch.zeros(4, 3), missing: None}
    pattern = rf"^{kind.__name__}: `{missing}` must be a tensor, but got {missing} of type NoneType\.$"
    with pytest.raises(TypeError, match=pattern):
        kind(6, 3, num_blocks=2)(**inputs)
