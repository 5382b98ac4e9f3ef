"""What training is built from."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.registry import find_recipe
from recipes import biggan_deep, sngan

GREY = biggan_deep.Config(
    resolution=16,
    channels=8,
    generator_widths=(1, 1, 1),
    discriminator_widths=(1, 1, 2),
    attention_resolution=8,
    latent_dim=6,
    embedding_dim=5,
)


def test_every_map_of_a_discriminator_of_grey_images_is_channels_last():
    discriminator = build_state(find_recipe("biggan_deep"), GREY, RunOptions(channels_last=True)).discriminator
    formats: dict[str, bool] = {}

    def note(name: str, output: Tensor) -> None:
        formats[name] = output.is_contiguous(memory_format=torch.channels_last)

    for name, module in discriminator.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
    images = torch.randn(2, 1, GREY.resolution, GREY.resolution, requires_grad=True)
    discriminator(images, torch.zeros(2, dtype=torch.int64)).sum().backward()
    assert len(formats) > 10
    assert all(formats.values()), formats
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_channels_last_changes_no_result():
    recipe = find_recipe("biggan_deep")
    images, labels = torch.randn(2, 1, GREY.resolution, GREY.resolution), torch.tensor([0, 1])
    logits = [
        build_state(recipe, GREY, RunOptions(channels_last=kind, precision="fp64")).discriminator(
            images.double(), labels
        )
        for kind in (False, True)
    ]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-10, atol=1e-10)


def test_activations_are_not_checkpointed_in_networks_without_blocks():
    plain = dataclasses.replace(sngan.RECIPE, build_generator=lambda config: torch.nn.Linear(1, 1))
    with pytest.raises(UserError) as error:
        build_state(plain, sngan.PRESETS["mnist5k-32"](), RunOptions(checkpoint_activations=True))
    rule = "needs networks with a method checkpointed_blocks(), or with a module `blocks` whose children they are"
    assert str(error.value) == f"--checkpoint-activations {rule}, but Linear has neither."


def test_a_network_may_name_the_blocks_whose_activations_are_computed_again():
    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()) for _ in range(2))

        def checkpointed_blocks(self) -> list[torch.nn.Module]:
            return [self.second]

    named = dataclasses.replace(sngan.RECIPE, build_generator=lambda config: Named())
    network = build_state(named, sngan.PRESETS["mnist5k-32"](), RunOptions(checkpoint_activations=True)).generator
    calls: list[str] = []
    for name, block in network.named_children():
        block[0].register_forward_hook(lambda *_, name=name: calls.append(name))
    network.second(network.first(torch.ones(1, 2))).sum().backward()
    assert calls == ["first", "second", "second"]
