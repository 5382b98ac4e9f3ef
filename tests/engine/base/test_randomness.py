import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_blocks.engine.base.randomness import random_stream, sample_indices, seeded_construction, seeded_noise


def draw(*key: int | str, seed: int = 0) -> list[float]:
    return torch.rand(4, generator=random_stream(seed, *key)).tolist()


def test_a_stream_is_a_function_of_seed_and_key_alone():
    first = draw("latents", 3)
    torch.manual_seed(99)
    draw("something else")
    assert draw("latents", 3) == first


def test_every_part_of_the_key_and_the_seed_changes_the_stream():
    keys = [(), ("a",), ("a", 1), ("a", "1"), (1, "a"), ("a1",), ("a", 1, 0), ("a,", 1), ("a', 'b",), ("a", "b")]
    streams = [tuple(draw(*key, seed=seed)) for key in keys for seed in (0, 1, -1, 2**70)]
    assert len(set(streams)) == len(streams)


def test_the_seed_and_the_first_part_of_the_key_do_not_run_together():
    assert draw(23, seed=1) != draw(3, seed=12)


def test_neighboring_steps_are_unrelated():
    steps = torch.stack([torch.randn(500, generator=random_stream(0, "latents", step)) for step in range(20)])
    correlations = torch.corrcoef(steps) - torch.eye(20)
    assert correlations.abs().max() < 0.25  # 5.6 standard deviations


def test_the_hash_is_the_one_that_published_runs_used():
    digest = hashlib.blake2b(b"(5, 'latents', 7)", digest_size=8, person=b"gan_blocks").digest()
    assert random_stream(5, "latents", 7).initial_seed() == int.from_bytes(digest, "little")
    assert random_stream(5, "latents", 7).initial_seed() == 11798740549543239079


@pytest.mark.parametrize("seven", [np.int64(7), np.uint8(7), torch.tensor(7)])
def test_integers_of_other_libraries_are_integers(seven: int):
    assert draw("latents", seven) == draw("latents", 7)
    assert draw("latents", seed=seven) == draw("latents", seed=7)


def test_rejects_a_float_in_the_key():
    with pytest.raises(TypeError, match="float"):
        random_stream(0, "latents", 0.5)  # type: ignore[arg-type]


def test_a_stream_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw("latents")
    sample_indices(0, 10, 0, 25)
    assert torch.equal(torch.get_rng_state(), before)


@given(seed=st.integers(0, 2**40), num_images=st.integers(1, 30), epoch=st.integers(0, 10**6))
def test_an_epoch_holds_every_image_once(seed: int, num_images: int, epoch: int):
    indices = sample_indices(seed, num_images, epoch * num_images, num_images)
    assert indices.dtype == torch.int64
    assert sorted(indices.tolist()) == list(range(num_images))


@given(num_images=st.integers(1, 20), start=st.integers(0, 100), counts=st.lists(st.integers(0, 45), max_size=5))
def test_batches_of_any_size_follow_one_sequence(num_images: int, start: int, counts: list[int]):
    whole = sample_indices(3, num_images, 0, start + sum(counts)).tolist()
    for count in counts:
        assert sample_indices(3, num_images, start, count).tolist() == whole[start : start + count]
        start += count


def test_epochs_and_seeds_have_their_own_order():
    orders = [sample_indices(seed, 50, epoch * 50, 50).tolist() for seed in range(3) for epoch in range(3)]
    assert len(set(map(tuple, orders))) == 9
    assert list(range(50)) not in orders


def test_a_caller_may_change_the_indices_it_got():
    first = sample_indices(0, 8, 0, 8)
    copy = first.clone()
    first.zero_()
    assert torch.equal(sample_indices(0, 8, 0, 8), copy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 1), "`num_images` must be at least 1, but got num_images=0."),
        ((5, -1, 1), "`start` must be at least 0, but got start=-1."),
        ((5, 0, -2), "`count` must be at least 0, but got count=-2."),
    ],
)
def test_rejects_impossible_ranges(arguments: tuple[int, int, int], message: str):
    with pytest.raises(ValueError, match=r"^sample_indices: ") as caught:
        sample_indices(0, *arguments)
    assert str(caught.value) == f"sample_indices: {message}"


def build(seed: int, name: str) -> torch.Tensor:
    with seeded_construction(seed, name):
        return nn.Linear(3, 3).weight.detach()


def test_construction_is_a_function_of_seed_and_key():
    first = build(0, "generator")
    torch.rand(3)
    assert torch.equal(build(0, "generator"), first)
    assert not torch.equal(build(1, "generator"), first)
    assert not torch.equal(build(0, "discriminator"), first)


def test_construction_leaves_the_global_generator_as_it_was_even_after_an_error():
    before = torch.get_rng_state()
    build(0, "generator")
    with pytest.raises(ZeroDivisionError), seeded_construction(0, "generator"):
        torch.rand(1 // 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_a_function_of_seed_and_key_and_leaves_the_global_generator_as_it_was():
    def noise(seed: int, *key: int | str) -> torch.Tensor:
        with seeded_noise(seed, *key, device=torch.device("cpu")):
            return torch.rand(3)

    before = torch.get_rng_state()
    first = noise(0, "generator", 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(noise(0, "generator", 1), first)
    for other in (noise(1, "generator", 1), noise(0, "generator", 2), noise(0, "discriminator", 1)):
        assert not torch.equal(other, first)
