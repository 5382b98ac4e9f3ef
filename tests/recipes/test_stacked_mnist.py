from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_blocks import (
    CrossReplicaBatchNorm2d,
    EqualizedLearningRate,
    MinibatchStdDev,
    NormalPrior,
    PixelNorm,
    SphericalPrior,
)
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.kinds.stacked import NUM_STACKS, stacked_numbers
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint
from recipes import stacked_mnist

TINY_ARGS = [
    *("--resolution", "16", "--generator-widths", "6", "5", "4", "--discriminator-widths", "2", "3"),
    *("--discriminator-steps", "2", "--latent-dim", "6", "--batch-size", "8", "--planned-steps", "4"),
    *("--sample-every", "0"),
]
TINY = {
    "resolution": 16,
    "generator_widths": (6, 5, 4),
    "discriminator_widths": (2, 3),
    "discriminator_steps": 1,
    "latent_dim": 6,
    "batch_size": 8,
}


# Networks


@pytest.mark.parametrize(
    ("preset", "generator", "discriminator"),
    [
        ("gan-k4", 286_795, 571),
        ("wgan-gp-k4", 90_187, 571),
        ("our-norm-k4", 90_067, 557),
        ("stddev-k4", 90_067, 573),
        ("progression-k4", 90_067 + 3 * (9 * (64 + 32 + 16) + 3), 573 + 4 * (2 + 4 + 8)),
        ("gan-k2", 286_795, 1861),
        ("wgan-gp-k2", 90_187, 1861),
        ("our-norm-k2", 90_067, 1833),
        ("stddev-k2", 90_067, 1849),
        ("progression-k2", 90_067 + 3 * (9 * (64 + 32 + 16) + 3), 1849 + 4 * (4 + 8 + 16)),
    ],
)
def test_the_networks_have_the_sizes_of_the_papers(preset: str, generator: int, discriminator: int):
    config = stacked_mnist.PRESETS[preset]()
    networks = stacked_mnist.RECIPE.build_generator(config), stacked_mnist.RECIPE.build_discriminator(config)
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [generator, discriminator]
    z, labels = stacked_mnist.RECIPE.build_prior(config).sample(4), torch.zeros(4)
    assert z.shape == (4, 256 if preset.startswith("gan") else 64)
    images = networks[0](z, labels)
    assert images.shape == (4, 3, 32, 32)
    assert images.abs().max() < 1
    assert networks[1](images, labels).shape == (4,)


def test_z_is_on_the_sphere_or_normal_as_the_networks_have_it():
    priors = [stacked_mnist.RECIPE.build_prior(stacked_mnist.PRESETS[name]()) for name in ("wgan-gp-k4", "gan-k4")]
    assert list(map(type, priors)) == [SphericalPrior, NormalPrior]


def test_the_length_is_that_of_the_code():
    images = {name: make().images_before(make().planned_steps + 1) for name, make in stacked_mnist.PRESETS.items()}
    for name, count in images.items():
        assert count == (15_000_000 if "progression" in name else 10_000_000)
    assert stacked_mnist.PRESETS["wgan-gp-k4"]().planned_steps == 31_250
    growing = stacked_mnist.PRESETS["progression-k4"]().schedule
    assert growing.growth_images == 3 * 2_500_000
    assert growing.at(499_999).resolution == 4
    assert (growing.at(1_500_000).resolution, growing.at(1_500_000).alpha) == (8, 0.5)


def kinds(network: nn.Module) -> list[type[nn.Module]]:
    shown = (CrossReplicaBatchNorm2d, PixelNorm, EqualizedLearningRate, MinibatchStdDev)
    return [type(module) for module in network.modules() if isinstance(module, shown)]


@pytest.mark.parametrize("size", ["k4", "k2"])
def test_methods_differ_as_the_columns_of_the_table_do(size: str):
    names = ("gan", "wgan-gp", "our-norm", "stddev", "progression")
    configs = {name: stacked_mnist.PRESETS[f"{name}-{size}"]() for name in names}
    generators = {name: kinds(stacked_mnist.RECIPE.build_generator(config)) for name, config in configs.items()}
    discriminators = {name: kinds(stacked_mnist.RECIPE.build_discriminator(config)) for name, config in configs.items()}
    assert generators["gan"] == generators["wgan-gp"] == [CrossReplicaBatchNorm2d] * 4
    assert discriminators["gan"] == discriminators["wgan-gp"] == [CrossReplicaBatchNorm2d] * 3
    assert sorted(map(str, generators["our-norm"])) == sorted(map(str, [PixelNorm] * 4 + [EqualizedLearningRate] * 5))
    assert generators["stddev"] == generators["our-norm"]
    assert discriminators["our-norm"] == [EqualizedLearningRate] * 4
    assert discriminators["stddev"] == [EqualizedLearningRate] * 3 + [MinibatchStdDev, EqualizedLearningRate]
    assert generators["progression"].count(EqualizedLearningRate) == 5 + 3
    assert discriminators["progression"].count(EqualizedLearningRate) == 4 + 3
    assert replace(configs["our-norm"], norm="batch") == configs["wgan-gp"]
    assert replace(configs["stddev"], minibatch_stddev=False) == configs["our-norm"]


@pytest.mark.parametrize("networks", ["karras", "metz"])
@pytest.mark.parametrize("norm", ["batch", "equalized"])
def test_features_keep_their_scale_through_the_generator(networks: str, norm: str):
    torch.manual_seed(0)
    generator = stacked_mnist.RECIPE.build_generator(stacked_mnist.Config(networks=networks, norm=norm))
    maps: list[Tensor] = []
    for layer in generator.modules():
        if isinstance(layer, nn.LeakyReLU | nn.ReLU):
            layer.register_forward_pre_hook(lambda _layer, inputs: maps.append(inputs[0]))
    generator(torch.randn(64, 64), torch.zeros(64))
    assert len(maps) == 4
    for features in maps[1:] if norm == "equalized" else maps:  # the first layer's fan-in is four times that of a pixel
        assert 0.4 < features.square().mean().sqrt() < 2.5


def test_the_networks_compute_what_the_code_of_the_paper_says():
    torch.manual_seed(0)
    config = stacked_mnist.Config(norm="equalized", minibatch_stddev=True)
    generator, discriminator = (
        build(config).double()
        for build in (stacked_mnist.RECIPE.build_generator, stacked_mnist.RECIPE.build_discriminator)
    )
    z, labels = torch.randn(3, 64, dtype=torch.float64), torch.zeros(3)
    h = torch.einsum("bi,iohw->bohw", z, generator.stem.weight) + generator.stem.bias[:, None, None]
    for number in range(4):
        h = F.leaky_relu(h, 0.3)
        h = h / (h.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
        if number < 3:
            conv = generator.convs[number]
            h = F.conv2d(h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), conv.weight, conv.bias, padding=1)
    to_rgb = generator.to_rgb["32"]
    images = F.conv2d(h, to_rgb.weight, to_rgb.bias, padding=1).tanh()
    torch.testing.assert_close(generator(z, labels), images)

    x = images
    for conv in discriminator.convs:
        x = F.avg_pool2d(F.leaky_relu(F.conv2d(x, conv.weight, conv.bias, padding=1), 0.2), 2)
    deviation = (x.var(dim=0, correction=0) + 1e-8).sqrt().mean()
    x = torch.cat([x, deviation.expand(3, 1, 4, 4)], dim=1).flatten(1)
    logits = (x @ discriminator.linear.weight.T + discriminator.linear.bias)[:, 0]
    torch.testing.assert_close(discriminator(images, labels), logits)


def test_networks_that_grow_pass_from_one_size_to_the_next():
    torch.manual_seed(0)
    config = stacked_mnist.PRESETS["progression-k4"]()
    generator, discriminator = (
        stacked_mnist.RECIPE.build_generator(config),
        stacked_mnist.RECIPE.build_discriminator(config),
    )
    z, labels = SphericalPrior(64).sample(8), torch.zeros(8)

    def at(images_seen: int, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        for network in (generator, discriminator):
            network.grow(images_seen)
        made = generator(z, labels)
        return made, discriminator(made if images is None else images, labels)

    small, of_small = at(499_999)
    assert small.shape == (8, 3, 4, 4)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    begun, of_begun = at(500_000, large)  # alpha is 0: nothing of the new layers is seen
    torch.testing.assert_close(begun, large)
    torch.testing.assert_close(of_begun, of_small)
    grown, _ = at(7_500_000)
    assert grown.shape == (8, 3, 32, 32)
    halfway, _ = at(1_500_000)
    generator.grow(2_500_000)
    whole = generator(z, labels)
    torch.testing.assert_close(halfway.atanh(), (large.atanh() + whole.atanh()) / 2, rtol=1e-3, atol=1e-4)


# Training


@pytest.fixture
def step(tiny_data: Path) -> Callable[..., tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]], Tensor]]:
    """Make one step and give its losses, the calls of D as (images, logits), and the real images."""

    def make(preset: str, **changes) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]], Tensor]:
        config = replace(stacked_mnist.PRESETS[preset](), data=f"npz:{tiny_data}", **TINY, **changes)
        options = RunOptions(device="cpu", threads=1)
        images = load_images(config.data, resolution=16, channels=3, num_classes=1)
        state = build_state(stacked_mnist.RECIPE, config, options)
        calls: list[tuple[Tensor, Tensor]] = []
        state.discriminator.register_forward_hook(
            lambda _module, inputs, output: calls.append((inputs[0].detach(), output.detach()))
        )
        source = BatchSource(images, stacked_mnist.RECIPE.build_prior(config), config, options)
        batches = source.step(1)
        (part,) = batches.discriminator(0)
        losses = stacked_mnist.RECIPE.train_step(state, batches, config)
        source.close()
        return losses, calls, part.real_images

    return make


def test_the_plain_loss_is_non_saturating_and_judges_in_separate_calls(step):
    losses, calls, real_images = step("gan-k4")
    (real, real_logits), (fake, fake_logits), (_, judged) = calls
    assert torch.equal(real, real_images)
    assert fake.shape == real.shape
    wanted = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    torch.testing.assert_close(losses["loss_d"], wanted)
    torch.testing.assert_close(losses["loss_g"], F.softplus(-judged).mean())


@pytest.mark.parametrize("preset", ["wgan-gp-k4", "our-norm-k4", "stddev-k4"])
def test_the_loss_of_wgan_gp_adds_a_penalty_at_mixed_images(step, preset: str):
    losses, calls, real_images = step(preset, gradient_coefficient=1e-12)
    (real, real_logits), (fake, fake_logits), (mixed, _), (_, judged) = calls
    assert torch.equal(real, real_images)
    torch.testing.assert_close(losses["loss_d"], fake_logits.mean() - real_logits.mean())
    torch.testing.assert_close(losses["loss_g"], -judged.mean())
    shares = (mixed - real).flatten(1).norm(dim=1) / (fake - real).flatten(1).norm(dim=1)
    torch.testing.assert_close(mixed, real + shares[:, None, None, None] * (fake - real), rtol=1e-4, atol=1e-4)
    with_penalty = step(preset, gradient_coefficient=10.0)[0]
    torch.testing.assert_close(with_penalty["gradient_penalty"], 1e13 * losses["gradient_penalty"])
    assert torch.equal(with_penalty["loss_d"], losses["loss_d"])


@pytest.mark.parametrize("preset", ["gan-k4", "stddev-k4", "progression-k4"])
def test_a_resumed_run_equals_the_one_that_was_never_stopped(preset: str, tiny_data: Path, tmp_path: Path):
    growth = (
        ["--stabilize-images", "16", "--fade-images", "16"]
        if "progression" in preset
        else ["--initial-resolution", "16"]
    )
    args = ["--preset", preset, "--data", f"npz:{tiny_data}", *TINY_ARGS, *growth, "--standing-batches", "2", "--steps"]
    assert stacked_mnist.RECIPE.main([*args, "4", "--run-dir", str(tmp_path / "whole")]) == 0
    for stop in ("2", "4"):
        assert stacked_mnist.RECIPE.main([*args, stop, "--run-dir", str(tmp_path / "parts")]) == 0
    whole, parts = (load_latest_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "parts"))
    for file, tensors in whole.tensors.items():
        for name, value in tensors.items():
            assert torch.equal(value, parts.tensors[file][name]), (file, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_resolution": 64}, "--initial-resolution must be 0 or one of [4, 8, 16, 32], but got 64."),
        (
            {"initial_resolution": 4, "networks": "metz"},
            "--networks must be karras to grow from --initial-resolution, but got metz.",
        ),
        (
            {"minibatch_stddev": True, "batch_size": 1},
            "--batch-size must be at least 2 with --minibatch-stddev, but got 1.",
        ),
        (
            {"resolution": 48},
            "--resolution must be 32, which is 4 doubled once for each of --generator-widths but the first, "
            "but got 48.",
        ),
        ({"num_classes": 10}, "--num-classes must be 1 (the networks have no classes), but got 10."),
        (
            {"resolution": 16},
            "--resolution must be 32, which is 4 doubled once for each of --generator-widths but the first, "
            "but got 16.",
        ),
        (
            {"discriminator_widths": (2, 4)},
            "--discriminator-widths must be 3 numbers greater than 0, one less than of --generator-widths, "
            "but got 2 4.",
        ),
        ({"gradient_coefficient": 0.0}, "--gradient-coefficient must be greater than 0, but got 0.0."),
    ],
)
def test_rejects_a_config_that_cannot_work(change: dict[str, object], message: str):
    with pytest.raises(UserError) as error:
        stacked_mnist.Config(**change)
    assert str(error.value) == message


def test_rates_that_rise_are_logged(step):
    losses, _, _ = step("our-norm-k4")
    assert losses["generator_lr"] == losses["discriminator_lr"] == 1e-3  # those of the Config that the step is given
    assert (losses["resolution"], losses["alpha"]) == (16, 1)


def test_samples_that_would_be_judged_alone_are_refused(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = ["--preset", "stddev-k4", "--data", f"npz:{tiny_data}", *TINY_ARGS, "--run-dir", str(tmp_path / "run")]
    assert stacked_mnist.RECIPE.main([*args, "--accumulate", "8"]) == 2
    assert capsys.readouterr().err.endswith(
        "--accumulate 8 would make micro-batches of 1 of a batch of 8; each needs 2 or more for D's statistics across "
        "samples.\n"
    )


# Data


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_images("mnist5k", resolution=32, channels=1, num_classes=10)


@pytest.fixture(scope="module")
def stacks() -> ImageSet:
    return load_images("stacked-mnist5k", resolution=32, channels=3, num_classes=None)


def test_stacks_are_three_digits_whose_classes_make_the_number(digits: ImageSet, stacks: ImageSet):
    pixels = digits.read_pixels(torch.arange(len(digits)))[:, 0]
    by_bytes = {image.numpy().tobytes(): label for image, label in zip(pixels, digits.labels.tolist(), strict=True)}
    indices = torch.tensor([NUM_STACKS - 1, 0, 7, 7])
    images, labels = stacks.batch(indices)
    assert images.shape == (4, 3, 32, 32)
    raw = stacks.read_pixels(indices)
    for image, label in zip(raw, labels.tolist(), strict=True):
        hundreds, tens, ones = (by_bytes[channel.contiguous().numpy().tobytes()] for channel in image)
        assert label == 100 * hundreds + 10 * tens + ones
        assert stacks.class_names[label] == f"{hundreds}{tens}{ones}"
    assert torch.equal(raw[2], raw[3])


def test_all_numbers_are_equally_probable_and_the_same_at_each_loading(stacks: ImageSet):
    counts = torch.bincount(stacks.labels, minlength=1000)
    expected = NUM_STACKS / 1000
    assert 0.8 < ((counts - expected).square() / expected).mean() < 1.2  # chi square over its 999 degrees of freedom
    again = load_images("stacked-mnist5k", resolution=32, channels=3, num_classes=1)
    assert torch.equal(again.read_pixels(torch.arange(5)), stacks.read_pixels(torch.arange(5)))
    assert not again.labels.any()
    assert again.notes[-1] == "the 1,000 classes of the data are taken as one"


def test_the_first_channel_holds_the_hundreds():
    assert stacked_numbers(torch.tensor([[9, 8, 7], [0, 0, 1]])).tolist() == [987, 1]


def test_rejects_stacks_that_are_not_there(stacks: ImageSet):
    with pytest.raises(UserError) as error:
        load_images("stacked-mnist5k", resolution=32, channels=1, num_classes=1)
    assert str(error.value) == (
        "--data stacked-mnist5k: stacks have three channels, one a digit: --image-channels 3, not 1."
    )
    with pytest.raises(IndexError):
        stacks.read_pixels(torch.tensor([NUM_STACKS]))
