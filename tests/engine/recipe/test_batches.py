import numpy as np
import pytest
import torch

from gan_blocks import NormalPrior
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe import batches
from gan_blocks.engine.recipe.batches import BatchSource, PairBatch
from gan_blocks.engine.recipe.options import RunOptions
from recipes.biggan_deep import Config


@pytest.fixture
def config(tmp_path) -> Config:
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1).repeat(16, 1).repeat(16, 2)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(20) % 2)
    return Config(
        data=f"npz:{tmp_path / 'data.npz'}",
        resolution=16,
        num_classes=2,
        generator_widths=(1, 1, 1),
        discriminator_widths=(1, 1, 1),
        attention_resolution=8,
        batch_size=7,
        discriminator_steps=2,
        latent_dim=3,
    )


def source(config: Config, **options) -> BatchSource:
    images = load_images(config.data, resolution=16, channels=1, num_classes=2)
    return BatchSource(images, NormalPrior(config.latent_dim), config, RunOptions(device="cpu", **options))


def tensors(parts: list[PairBatch]) -> list[torch.Tensor]:
    fields = [(part.real_images, part.real_labels, part.fake.z, part.fake.labels) for part in parts]
    return [torch.cat(field) for field in zip(*fields, strict=True)]


@pytest.mark.parametrize("accumulate", [2, 3, 7])
def test_micro_batches_hold_what_the_whole_batch_holds(config: Config, accumulate: int):
    whole, split = source(config).step(5), source(config, accumulate=accumulate).step(5)
    for number in range(2):
        parts = list(split.discriminator(number))
        assert len(parts) == accumulate
        assert sum(part.share for part in parts) == pytest.approx(1)
        for one, many in zip(tensors(list(whole.discriminator(number))), tensors(parts), strict=True):
            assert torch.equal(one, many)
    (one,), many = list(whole.generator()), list(split.generator())
    assert torch.equal(one.z, torch.cat([part.z for part in many]))
    assert torch.equal(one.labels, torch.cat([part.labels for part in many]))


def test_it_counts_how_long_training_waits_for_images(config: Config, monkeypatch: pytest.MonkeyPatch):
    now = iter([10.0, 12.5, 20.0, 20.5])
    monkeypatch.setattr(batches.time, "monotonic", lambda: next(now))
    walked = source(config)
    for step in (1, 2):
        walked.step(step)
    assert walked.seconds_waited == 3.0


def test_a_step_holds_the_same_whatever_came_before_it(config: Config):
    walked = source(config)
    for step in range(1, 4):
        walked.step(step)
    for one, other in zip(
        tensors(list(walked.step(4).discriminator(1))),
        tensors(list(source(config).step(4).discriminator(1))),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_real_images_come_once_an_epoch_across_steps_and_updates(config: Config):
    batches = source(config)
    seen = torch.cat(
        [tensors(list(batches.step(step).discriminator(number)))[0][:, 0, 0, 0] for step in (1, 2) for number in (0, 1)]
    )
    assert len(seen[:20].unique()) == 20


def test_every_use_draws_its_own_latents(config: Config):
    step, following = (source(config).step(number) for number in (1, 2))
    draws = [next(iter(step.discriminator(number))).fake.z for number in (0, 1)]
    draws += [next(step.generator()).z, next(following.generator()).z]
    for first in range(4):
        for second in range(first):
            assert not torch.equal(draws[first], draws[second])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_both_players_may_be_updated_on_one_batch(config: Config, accumulate: int):
    plain = source(config, accumulate=accumulate).step(3)
    shared = plain.with_shared_latents()
    for of_d, of_g in zip(shared.discriminator(0), shared.generator(), strict=True):
        assert torch.equal(of_d.fake.z, of_g.z)
        assert torch.equal(of_d.fake.labels, of_g.labels)
        assert (of_d.share, of_d.noise_key) == (of_g.share, of_g.noise_key)
    assert not torch.equal(next(plain.generator()).z, next(shared.generator()).z)  # the others stay as they are
    for one, other in zip(plain.discriminator(1), shared.discriminator(1), strict=True):
        assert torch.equal(one.fake.z, other.fake.z)


def test_every_pass_through_the_networks_has_a_noise_of_its_own(config: Config):
    batches = source(config, accumulate=2)
    keys = [
        part.noise_key
        for step in (batches.step(1), batches.step(2))
        for parts in (step.discriminator(0), step.discriminator(1), step.generator())
        for part in parts
    ]
    assert len(set(keys)) == len(keys) == 12


@pytest.mark.parametrize("accumulate", [1, 3])
def test_pairs_of_an_update_of_g_are_real_images_of_the_labels_to_generate(config: Config, accumulate: int):
    whole, split = source(config).step(5), source(config, accumulate=accumulate).step(5)
    pairs = list(split.generator_pairs())
    for pair in pairs:
        assert torch.equal(pair.fake.labels, pair.real_labels)
    for one, many in zip(tensors(list(whole.generator_pairs())), tensors(pairs), strict=True):
        assert torch.equal(one, many)
    assert torch.equal(tensors(pairs)[2], torch.cat([part.z for part in split.generator()]))  # z is that of any update


def test_pairs_hold_every_image_once_an_epoch_in_an_order_of_their_own(config: Config):
    batches = source(config)
    drawn = [tensors(list(batches.step(step).generator_pairs()))[0][:, 0, 0, 0] for step in (1, 2, 3)]
    assert len(torch.cat(drawn)[:20].unique()) == 20
    shown = torch.cat([tensors(list(batches.step(1).discriminator(number)))[0][:, 0, 0, 0] for number in (0, 1)])
    assert not torch.equal(torch.cat(drawn)[:14], shown)
