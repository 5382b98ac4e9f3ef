import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import BernoulliPrior, NormalPrior, SphericalPrior, UniformPrior
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.sampling.latent_paths import interpolate_classes, interpolate_latents, latent_walk


@given(paths=st.integers(1, 4), dim=st.integers(2, 9), steps=st.integers(2, 6), seed=st.integers(0, 99))
@pytest.mark.parametrize("path", ["spherical", "linear"])
def test_a_path_begins_and_ends_exactly_at_its_ends(path: str, paths: int, dim: int, steps: int, seed: int):
    start, end = torch.randn(2, paths, dim, generator=torch.Generator().manual_seed(seed))
    points = interpolate_latents(start, end, steps, path=path)
    assert points.shape == (paths, steps, dim)
    assert torch.equal(points[:, 0], start)
    assert torch.equal(points[:, -1], end)


def test_the_spherical_path_turns_and_stretches_evenly(rng: torch.Generator):
    start, end = torch.randn(2, 3, 7, generator=rng, dtype=torch.float64)
    points = interpolate_latents(start, end, 5)
    for a, b, row in zip(start.tolist(), end.tolist(), points.tolist(), strict=True):
        length_a, length_b = math.hypot(*a), math.hypot(*b)
        angle = math.acos(sum(x * y for x, y in zip(a, b, strict=True)) / length_a / length_b)
        for number, point in enumerate(row):
            t = number / 4
            assert math.hypot(*point) == pytest.approx((1 - t) * length_a + t * length_b)
            turned = sum(x * y for x, y in zip(a, point, strict=True)) / length_a / math.hypot(*point)
            assert turned == pytest.approx(math.cos(t * angle))
            # In the plane of both ends: nothing is left when its share of them is taken away.
            u = [y / length_b - x / length_a * math.cos(angle) for x, y in zip(a, b, strict=True)]
            expected = [
                math.cos(t * angle) * x / length_a + math.sin(t * angle) * v / math.sin(angle)
                for x, v in zip(a, u, strict=True)
            ]
            assert [p / math.hypot(*point) for p in point] == pytest.approx(expected)


def test_halfway_the_line_is_shorter_and_the_great_circle_is_not():
    start, end = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert interpolate_latents(start, end, 3, path="linear")[0, 1].tolist() == [1.0, 1.0]
    assert interpolate_latents(start, end, 3)[0, 1].norm().item() == pytest.approx(2.0)


@pytest.mark.parametrize("end", [[3.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], ids=["same direction", "opposite", "zero"])
def test_where_no_great_circle_leads_it_is_the_line(end: list[float]):
    start, stop = torch.tensor([[1.0, 0.0]]), torch.tensor([end])
    assert torch.equal(interpolate_latents(start, stop, 4), interpolate_latents(start, stop, 4, path="linear"))


def test_class_weights_go_from_one_hot_to_one_hot_and_sum_to_one():
    weights = interpolate_classes(torch.tensor([2, 1]), torch.tensor([0, 1]), 5, num_classes=3)
    assert weights[0].tolist() == [[0, 0, 1], [0.25, 0, 0.75], [0.5, 0, 0.5], [0.75, 0, 0.25], [1, 0, 0]]
    assert weights[1].tolist() == [[0, 1, 0]] * 5


@pytest.mark.parametrize("prior", [NormalPrior(6, std=2.0), SphericalPrior(6), UniformPrior(6)], ids=repr)
def test_a_walk_stays_on_the_sphere_of_its_prior(prior: NormalPrior, rng: torch.Generator):
    z = latent_walk(prior, 40, sigma=3, generator=rng)
    radius = math.sqrt(prior.variance.sum().item())
    torch.testing.assert_close(z.norm(dim=1), torch.full((40,), radius))


def test_a_walk_is_blurred_noise_put_onto_the_sphere():
    frames, dim, sigma = 7, 3, 1.5
    z = latent_walk(NormalPrior(dim), frames, sigma=sigma, generator=torch.Generator().manual_seed(4))
    x = torch.randn(frames, dim, generator=torch.Generator().manual_seed(4), dtype=torch.float64).tolist()
    for t in range(frames):
        y = [0.0] * dim
        for s in range(frames):
            distance = min((t - s) % frames, (s - t) % frames)
            for i in range(dim):
                y[i] += math.exp(-(distance**2) / (2 * sigma**2)) * x[s][i]
        assert z[t].tolist() == pytest.approx([math.sqrt(dim) * value / math.hypot(*y) for value in y], rel=1e-5)


def test_a_walk_moves_little_from_frame_to_frame_and_around_its_end(rng: torch.Generator):
    z = latent_walk(NormalPrior(128), 200, sigma=10, generator=rng)
    moves = (z - z.roll(1, dims=0)).norm(dim=1)
    # A blur of s.d. sigma makes neighbors correlate as exp(-1 / 4 sigma^2), so |difference|^2 = 2 d (1 - that).
    expected = math.sqrt(2 * 128 * (1 - math.exp(-1 / 400)))
    assert moves.mean().item() == pytest.approx(expected, rel=0.1)
    assert moves[0].item() < 2 * expected
    assert (z[0] - z[100]).norm().item() > 8 * expected


def test_a_walk_refuses_a_prior_that_is_not_around_zero(rng: torch.Generator):
    pattern = r"^a walk needs a prior around zero, such as a normal one, but BernoulliPrior is not\.$"
    with pytest.raises(UserError, match=pattern):
        latent_walk(BernoulliPrior(4), 10, sigma=1, generator=rng)
