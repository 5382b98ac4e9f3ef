"""Both players from a Config's seed, ready to train.

Tested in ``tests/engine/recipe/test_build.py``.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gan_blocks import ExponentialMovingAverage, Prior, checkpoint_activations
from gan_blocks.engine.base.devices import torch_device
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.eval_mode import eval_mode
from gan_blocks.engine.base.failed_layer import naming_failed_construction, naming_failed_layer
from gan_blocks.engine.base.memory import keep_freed_memory, within_memory
from gan_blocks.engine.base.parallel.processes import main_rank_only
from gan_blocks.engine.base.randomness import random_stream, seeded_construction, seeded_noise
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.memory_format import to_channels_last
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.runs.weights import first_not_finite

__all__ = ["build_state", "check_extra", "check_networks", "config_at", "construct", "follow_config"]


def build_state(recipe: Recipe[Any], config: TrainingConfig, options: RunOptions) -> TrainingState:
    """Build both players from the Config's seed, ready to train.

    Raises:
        UserError: If there is no room for them.
    """
    device, dtype = torch_device(options.device), options.dtype()
    keep_freed_memory()
    # Weights and gradients, and G's average.
    with seeded_construction(config.seed, "generator"):
        generator = construct("generator", lambda: recipe.build_generator(config).to(device, dtype), copies=3)
    with seeded_construction(config.seed, "discriminator"):
        discriminator = construct(
            "discriminator", lambda: recipe.build_discriminator(config).to(device, dtype), copies=2
        )
    if options.channels_last:
        to_channels_last(generator)
        to_channels_last(discriminator)
    optimizer_g, optimizer_d = recipe.build_optimizers(config, generator, discriminator)
    ema = ExponentialMovingAverage(generator, config.ema_decay)
    if options.checkpoint_activations:
        for network in (generator, discriminator):
            for block in _checkpointed_blocks(network):
                checkpoint_activations(block)
    return TrainingState(
        generator,
        discriminator,
        ema,
        optimizer_g,
        optimizer_d,
        device,
        bf16=options.precision == "bf16",
        nan_scores=torch.zeros((), dtype=torch.int64, device=device),
    )


def construct(name: str, build: Callable[[], nn.Module], *, copies: int) -> nn.Module:
    """Build the generator or the discriminator; what prevents it is a line.

    Args:
        name: Which.
        build: Returns it.
        copies: Of its weights, for which there must be memory.

    Raises:
        UserError: If a part refuses its arguments, a size is beyond what a tensor or the memory can have, or a layer
            waits for its first input to get its sizes.
    """
    with naming_failed_construction(f"the {name}"), within_memory("the networks of these options", copies=copies):
        network = build()
    for place, layer in network.named_modules():
        if any(map(is_lazy, (*layer.parameters(recurse=False), *layer.buffers(recurse=False)))):
            what = f"a lazy layer, {place or 'itself'} ({type(layer).__name__})"
            remedy = "give it its input size, since networks are built without a first batch"
            raise main_rank_only(UserError(f"the {name} has {what}: {remedy}."))
    return network


def _checkpointed_blocks(network: nn.Module) -> Iterable[nn.Module]:
    """The modules whose activations are computed again: those that the network names, or the children of ``blocks``."""
    if (named := getattr(network, "checkpointed_blocks", None)) is not None:
        of_network: Iterable[nn.Module] = named()
        return of_network
    blocks = dict(network.named_children()).get("blocks")
    if blocks is None:
        rule = "needs networks with a method checkpointed_blocks(), or with a module `blocks` whose children they are"
        raise UserError(f"--checkpoint-activations {rule}, but {type(network).__name__} has neither.")
    return blocks.children()


def follow_config(recipe: Recipe[Any], state: TrainingState, config: TrainingConfig) -> None:
    """Give the optimizers the hyperparameters that fresh ones would have by this Config; their state stays."""
    fresh = recipe.build_optimizers(config, state.generator, state.discriminator)
    for optimizer, model in zip((state.optimizer_g, state.optimizer_d), fresh, strict=True):
        for group, wanted in zip(optimizer.param_groups, model.param_groups, strict=True):
            group.update({name: value for name, value in wanted.items() if name != "params"})


NETWORK_SAMPLES = 2


@torch.no_grad()
def check_networks(state: TrainingState, prior: Prior, config: TrainingConfig) -> None:
    """Try both networks on a few samples, in eval mode: nothing of them changes.

    Raises:
        UserError: If a value of theirs is not finite, a layer fails, G does not make images of the Config's shape, or D
            no logits for each: under top-k training, which ranks samples, one.
    """
    built = {"generator": state.generator.state_dict(), "discriminator": state.discriminator.state_dict()}
    if problem := first_not_finite(built):
        remedy = "initialize them, or register a constant, such as a mask, with persistent=False"
        raise main_rank_only(UserError(f"{problem} when it is built: {remedy}."))
    z = prior.at(1).sample(NETWORK_SAMPLES, generator=random_stream(config.seed, "shapes"))
    labels = torch.arange(NETWORK_SAMPLES, device=state.device) % config.num_classes
    reference = next(state.generator.parameters())
    named = {"the generator": state.generator, "the discriminator": state.discriminator}
    noise = seeded_noise(config.seed, "shapes", device=state.device)
    with state.autocast(), noise, eval_mode(*named.values()), naming_failed_layer(named):
        images = state.generator(z.to(reference), labels)
        wanted = (NETWORK_SAMPLES, config.image_channels, config.resolution, config.resolution)
        if not isinstance(images, Tensor) or tuple(images.shape) != wanted:
            rule = "(batch, image_channels, resolution, resolution)"
            raise main_rank_only(UserError(f"the generator must return {rule}, here {wanted}, but {_got(images)}."))
        logits = state.discriminator(images, labels)
        if not isinstance(logits, Tensor) or logits.shape[:1] != (NETWORK_SAMPLES,):
            rule = f"logits of shape (batch,), here ({NETWORK_SAMPLES},)"
            raise main_rank_only(UserError(f"the discriminator must return {rule}, but {_got(logits)}."))
        if config.top_k_gamma < 1 and tuple(logits.shape) not in ((NETWORK_SAMPLES,), (NETWORK_SAMPLES, 1)):
            rule = "one logit for each sample, (batch,) or (batch, 1), with --top-k-gamma below 1"
            raise main_rank_only(UserError(f"the discriminator must return {rule}, but {_got(logits)}."))
    state.note_forms()


def _got(value: object) -> str:
    return f"returned {tuple(value.shape)}" if isinstance(value, Tensor) else f"returned {type(value).__name__}"


def config_at(config: TrainingConfig, step: int) -> TrainingConfig:
    """The Config of a step, by its schedules.

    Raises:
        UserError: If ``at`` returns no such Config, or changes what holds for a whole training.
    """
    now = config.at(config.images_before(step))
    if now is config:
        return config
    if type(now) is not type(config):
        raise main_rank_only(
            UserError(f"Config.at must return a {type(config).__name__}, but returned {type(now).__name__}.")
        )
    for field in fields(TrainingConfig):
        if field.name != "ema_decay" and getattr(now, field.name) != getattr(config, field.name):
            raise main_rank_only(
                UserError(f"Config.at must not change {field.name}, which holds for a whole training.")
            )
    return now


def check_extra(state: TrainingState) -> None:
    """Check what a recipe keeps of its own.

    Raises:
        UserError: If it is not tensors by name, on the device where a resumed run has them.
    """
    for name, value in state.extra.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            got = f"{name!r}: {type(value).__name__}"
            raise main_rank_only(UserError(f"state.extra must hold tensors by name, but holds {got}."))
        if value.device.type != state.device.type:
            rule = f"on state.device ({state.device}), where --resume puts them"
            raise main_rank_only(UserError(f"state.extra must hold tensors {rule}, but {name} is on {value.device}."))
