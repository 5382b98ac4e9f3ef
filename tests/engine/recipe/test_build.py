"""What training is built from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import NormalPrior
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.inspection.dry_run import build_on_meta
from gan_blocks.engine.recipe.build import build_state, check_networks
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.registry import find_recipe
from gan_blocks.engine.recipe.state import TrainingState
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


class Lazy(nn.Module):
    def __init__(self, *, ready: bool) -> None:
        super().__init__()
        self.lin = nn.LazyLinear(2)
        self.norm = nn.Sequential(nn.LazyBatchNorm1d())
        if ready:
            self.norm(self.lin(torch.zeros(3, 4)))


def test_a_layer_that_waits_for_its_sizes_is_one_line():
    config = sngan.PRESETS["mnist5k-32"]()
    late = dataclasses.replace(sngan.RECIPE, build_discriminator=lambda config: Lazy(ready=False))
    message = r"^the discriminator has a lazy layer, lin \(LazyLinear\): give it its input size, since networks"
    with pytest.raises(UserError, match=message):
        build_state(late, config, RunOptions())
    with pytest.raises(UserError, match=message):
        build_on_meta(late, config)
    ready = dataclasses.replace(sngan.RECIPE, build_discriminator=lambda config: Lazy(ready=True))
    assert build_state(ready, config, RunOptions()).discriminator.lin.weight.shape == (2, 4)


class Critic(nn.Module):
    """D of images of any size, with a buffer of its own."""

    def __init__(self, buffer: Tensor | None = None, *, patches: int = 0) -> None:
        super().__init__()
        self.lin, self.patches = nn.Linear(1, 1), patches
        self.register_buffer("queue", torch.zeros(0) if buffer is None else buffer)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.lin(images.mean(dim=(1, 2, 3))[:, None])
        return logits.expand(-1, self.patches)[:, None] if self.patches else logits


def with_critic(critic: nn.Module, **optimizers: Any) -> TrainingState:
    recipe = dataclasses.replace(find_recipe("biggan_deep"), build_discriminator=lambda config: critic, **optimizers)
    return build_state(recipe, GREY, RunOptions(channels_last=False))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda critic: setattr(critic, "queue", torch.zeros(1)),
            "queue was (0,) in torch.float32 before training, but is (1,) in torch.float32 now",
        ),
        (
            lambda critic: setattr(critic, "queue", torch.zeros(0, dtype=torch.int64)),
            "queue was (0,) in torch.float32 before training, but is (0,) in torch.int64 now",
        ),
        (
            lambda critic: critic.register_buffer("count", torch.zeros(())),
            "count was not there before training, but is () in torch.float32 now",
        ),
        (lambda critic: delattr(critic, "queue"), "queue was (0,) in torch.float32 before training, but is gone now"),
    ],
)
def test_a_network_that_could_not_be_resumed_is_one_line(change: Callable[[nn.Module], object], problem: str):
    state = with_critic(Critic())
    state.restore(state.tensors())
    change(state.discriminator)
    with pytest.raises(UserError) as error:
        state.tensors()
    remedy = "Give it a fixed shape and dtype, or register it with persistent=False"
    assert str(error.value) == f"discriminator could not be resumed: {problem}. {remedy}."


class Grid(Critic):
    """Makes a buffer in its first forward pass."""

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        if not hasattr(self, "grid"):
            self.register_buffer("grid", torch.zeros(2))
        return super().forward(images, labels)


def test_a_buffer_of_the_first_forward_pass_is_there_when_a_run_is_resumed():
    state, resumed = with_critic(Grid()), with_critic(Grid())
    for each in (state, resumed):
        check_networks(each, NormalPrior(GREY.latent_dim), GREY)
    resumed.restore(state.tensors())


class Counting(torch.optim.SGD):
    """An optimizer as one may find it: it counts its steps in plain numbers."""

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["step"] = self.state[parameter].get("step", 0) + 1


def test_what_is_no_tensor_cannot_be_saved_and_is_one_line():
    def optimizers(config: Any, generator: nn.Module, discriminator: nn.Module) -> Any:
        return torch.optim.SGD(generator.parameters()), Counting(discriminator.parameters())

    state = with_critic(Critic(), build_optimizers=optimizers)
    assert "lin.weight.no_state" in state.tensors()["optimizer_d"]
    state.optimizer_d.step()
    rule = "must be a tensor, as all that a checkpoint holds, but is of"
    with pytest.raises(UserError) as error:
        state.tensors()
    assert str(error.value) == f"optimizer_d cannot be saved: lin.weight.step {rule} int."

    class Remembering(Critic):
        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    with pytest.raises(UserError) as error:
        with_critic(Remembering())
    assert str(error.value) == f"discriminator cannot be saved: _extra_state {rule} dict."


def test_a_buffer_that_is_not_finite_when_it_is_built_is_refused():
    mask = torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    prior = biggan_deep.RECIPE.build_prior(GREY)
    with pytest.raises(UserError) as error:
        check_networks(with_critic(Critic(mask)), prior, GREY)
    problem = "1 of 4 values of queue in discriminator are not finite when it is built"
    remedy = "initialize them, or register a constant, such as a mask, with persistent=False"
    assert str(error.value) == f"{problem}: {remedy}."
    check_networks(with_critic(Critic(torch.zeros(4))), prior, GREY)


def test_top_k_training_needs_one_logit_for_each_sample():
    prior = biggan_deep.RECIPE.build_prior(GREY)
    top_k = dataclasses.replace(GREY, top_k_gamma=0.5)
    check_networks(with_critic(Critic(patches=3)), prior, GREY)
    check_networks(with_critic(Critic()), prior, top_k)  # (batch, 1)
    with pytest.raises(UserError) as error:
        check_networks(with_critic(Critic(patches=3)), prior, top_k)
    rule = "one logit for each sample, (batch,) or (batch, 1), with --top-k-gamma below 1"
    assert str(error.value) == f"the discriminator must return {rule}, but returned (2, 1, 3)."
