import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_blocks import advance_power_iteration, hinge_discriminator_loss
from gan_blocks.engine.base.errors import UserError
from recipes import biggan_deep

TINY = biggan_deep.Config(
    resolution=16,
    num_classes=3,
    channels=8,
    latent_dim=6,
    embedding_dim=5,
    generator_widths=(2, 2, 1),
    discriminator_widths=(1, 2, 2),
    attention_resolution=8,
)


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("preset", "wide_rgb_conv", "generator", "discriminator"),
    [
        ("imagenet-128", False, 50_244_484, 34_590_210),
        ("imagenet-128", True, 50_388_609, 34_590_210),
        ("imagenet-256", True, 55_880_833, 38_247_426),
        ("imagenet-512", True, 56_163_905, 38_301_122),
    ],
)
def test_parameter_counts_are_the_integers_of_the_published_networks(
    preset: str, wide_rgb_conv: bool, generator: int, discriminator: int
):
    config = dataclasses.replace(biggan_deep.PRESETS[preset](), wide_rgb_conv=wide_rgb_conv)
    with torch.device("meta"):
        assert count(biggan_deep.RECIPE.build_generator(config)) == generator
        assert count(biggan_deep.RECIPE.build_discriminator(config)) == discriminator


def test_imagenet_presets_keep_all_channels_of_the_rgb_convolution_as_the_released_weights_do():
    assert all(preset().wide_rgb_conv for name, preset in biggan_deep.PRESETS.items() if name.startswith("imagenet"))


def test_the_wide_rgb_convolution_gives_images_and_gradients_as_if_all_its_channels_were_computed():
    config = dataclasses.replace(biggan_deep.mnist5k_32(), channels=8, image_channels=3, wide_rgb_conv=True)
    conv = biggan_deep.RECIPE.build_generator(config).double().to_rgb
    assert isinstance(conv, nn.Conv2d)
    x = torch.randn(2, conv.in_channels, 5, 5, dtype=torch.float64, requires_grad=True)
    weighs = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    parameters = list(conv.parameters())
    assert len(parameters[0]) == 8
    conv.eval()  # the singular vectors stay
    quick, plain = conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1)[:, :3]
    torch.testing.assert_close(quick, plain, rtol=0, atol=1e-12)
    for found, wanted in zip(
        torch.autograd.grad((quick * weighs).sum(), [x, *parameters]),
        torch.autograd.grad((plain * weighs).sum(), [x, *parameters]),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("preset", list(biggan_deep.PRESETS))
def test_every_preset_has_attention_where_its_tables_say(preset: str):
    config = biggan_deep.PRESETS[preset]()
    place = {"mnist5k-32": 8, "cifar10-32": 16}.get(preset, 64)  # of the first two, our choice
    seen: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        generator, discriminator = (
            biggan_deep.RECIPE.build_generator(config),
            biggan_deep.RECIPE.build_discriminator(config),
        )
        for name, network in (("G", generator), ("D", discriminator)):
            network.attention.register_forward_pre_hook(
                lambda module, args, name=name: seen.__setitem__(name, tuple(args[0].shape[2:]))
            )
        labels = torch.zeros(1, dtype=torch.int64)
        images = generator(torch.zeros(1, config.latent_dim), labels)
        logits = discriminator(images, labels)
    assert images.shape == (1, config.image_channels, config.resolution, config.resolution)
    assert logits.shape == (1,)
    assert seen == {"G": (place, place), "D": (place, place)}


def test_images_lie_between_minus_one_and_one(rng: torch.Generator):
    generator = biggan_deep.RECIPE.build_generator(TINY)
    images = generator(10 * torch.randn(4, 6, generator=rng), torch.tensor([0, 1, 2, 0]))
    assert images.abs().max() <= 1


def test_the_class_changes_the_image_and_the_logit(rng: torch.Generator):
    generator, discriminator = (
        biggan_deep.RECIPE.build_generator(TINY).eval(),
        biggan_deep.RECIPE.build_discriminator(TINY).eval(),
    )
    z = torch.randn(1, 6, generator=rng)
    first, second = (generator(z, torch.tensor([label])) for label in (0, 1))
    assert not torch.equal(first, second)
    assert discriminator(first, torch.tensor([0])) != discriminator(first, torch.tensor([1]))


def test_accumulating_micro_batches_gives_the_gradients_of_the_whole_batch_in_the_discriminator(rng: torch.Generator):
    discriminator = biggan_deep.RECIPE.build_discriminator(TINY)
    images = [torch.randn(32, 1, 16, 16, generator=rng).clamp(-1, 1) for _ in range(2)]
    labels = torch.randint(3, (32,), generator=rng)

    def gradients(parts: int) -> dict[str, torch.Tensor]:
        discriminator.zero_grad()
        for real, fake, part in zip(*(x.tensor_split(parts) for x in (*images, labels)), strict=True):
            loss = hinge_discriminator_loss(
                real_logits=discriminator(real, part), fake_logits=discriminator(fake, part)
            )
            (loss * len(part) / 32).backward()
        return {name: parameter.grad.clone() for name, parameter in discriminator.named_parameters()}

    whole, split = gradients(1), gradients(4)
    for name, gradient in whole.items():
        assert torch.linalg.norm(split[name] - gradient) <= 1e-5 * torch.linalg.norm(gradient), name


def test_power_iteration_advances_once_a_step_however_often_the_weights_are_read(rng: torch.Generator):
    discriminator = biggan_deep.RECIPE.build_discriminator(TINY)
    images, labels = torch.randn(4, 1, 16, 16, generator=rng), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    advance_power_iteration(discriminator)
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    for _ in range(3):
        discriminator(images, labels)
    assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "--batch-size must be greater than 0, but got 0."),
        ({"ema_decay": 1.5}, "--ema-decay must be from 0 to 1, but got 1.5."),
        ({"image_channels": 2}, "--image-channels must be 1 or 3, but got 2."),
        ({"channels": 12}, "--channels must be a multiple of 8, but got 12."),
        (
            {"resolution": 64},
            "--resolution must be 32, which is 4 doubled once for each of --generator-widths but the first, "
            "but got 64.",
        ),
        (
            {"generator_widths": (1, 2, 2, 4)},
            "--generator-widths must be non-increasing (shortcuts drop), but got 1 2 2 4.",
        ),
        (
            {"discriminator_widths": (4, 2, 2, 1)},
            "--discriminator-widths must be non-decreasing (shortcuts add), but got 4 2 2 1.",
        ),
        ({"attention_resolution": 32}, "--attention-resolution must be one of [0, 16, 8], but got 32."),
        (
            {"discriminator_final_size": 3},
            "--discriminator-final-size must be one of [16, 8, 4], where --discriminator-widths lead, but got 3.",
        ),
        ({"generator_widths": (4,)}, "--generator-widths must be two or more numbers greater than 0, but got 4."),
    ],
)
def test_rejects_a_config_that_cannot_work(change: dict[str, object], message: str):
    with pytest.raises(UserError) as error:
        biggan_deep.Config(**change)
    assert str(error.value) == message
