import pytest
import torch

from gan_blocks import SelfAttention2d
from gan_blocks.engine import UserError
from recipes import biggan, biggan_deep
from recipes.families.attention import attention_names, fit_stages, stages_at


def test_of_several_stages_of_one_height_each_gets_one():
    heights = [16, 8, 8, 8]
    assert stages_at([8, 16, 8], heights) == [1, 0, 2]
    assert attention_names([8, 16, 8, 8], heights) == {0: "16", 1: "8", 2: "8_2", 3: "8_3"}
    assert fit_stages([8, 8, 8, 16], heights)
    assert not fit_stages([16, 16], heights)
    assert not fit_stages([4], heights)
    assert attention_names([], heights) == {}


def heights_of_attention(network: torch.nn.Module, *inputs: torch.Tensor) -> list[int]:
    seen: list[int] = []
    for module in network.modules():
        if isinstance(module, SelfAttention2d):
            module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2]))
    network(*inputs)
    return seen


def test_a_discriminator_at_32_pixels_may_have_attention_after_every_block():
    config = biggan.Config(discriminator_final_size=8, discriminator_attention=(16, 8, 8, 8))
    with torch.device("meta"):
        network = biggan.RECIPE.build_discriminator(config)
        labels = torch.zeros(1, dtype=torch.int64)
        assert heights_of_attention(network, torch.zeros(1, 1, 32, 32), labels) == [16, 8, 8, 8]
    assert list(network.attention) == ["16", "8", "8_2", "8_3"]


def test_biggan_deep_may_have_attention_at_several_heights_of_each_network():
    wide = {"channels": 8, "discriminator_widths": (1, 4, 8, 8), "discriminator_final_size": 8}
    config = biggan_deep.Config(
        **wide, attention_resolution=8, generator_attention=(32, 16), discriminator_attention=(16, 8)
    )
    with torch.device("meta"):
        g, d = biggan_deep.RECIPE.build_generator(config), biggan_deep.RECIPE.build_discriminator(config)
        labels = torch.zeros(1, dtype=torch.int64)
        assert heights_of_attention(g, torch.zeros(1, 128), labels) == [8, 16, 32]
        assert heights_of_attention(d, torch.zeros(1, 1, 32, 32), labels) == [16, 8, 8]
    assert list(g.further_attention) == ["16", "32"]
    assert list(d.further_attention) == ["16", "8_2"]


def test_biggan_deep_may_have_attention_in_one_network_alone():
    config = biggan_deep.Config(attention_resolution=0, generator_attention=(16,))
    with torch.device("meta"):
        g, d = biggan_deep.RECIPE.build_generator(config), biggan_deep.RECIPE.build_discriminator(config)
    kinds = [any(isinstance(module, SelfAttention2d) for module in network.modules()) for network in (g, d)]
    assert kinds == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator_attention": (8,)}, "--generator-attention must be some of [16, 32], but got 8."),
        ({"discriminator_attention": (16, 16)}, "--discriminator-attention must be some of [16, 4], but got 16 16."),
    ],
)
def test_rejects_heights_that_no_free_stage_has(change: dict[str, tuple[int, ...]], message: str):
    with pytest.raises(UserError) as error:
        biggan_deep.Config(**change)
    assert str(error.value) == message
