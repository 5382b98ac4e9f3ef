"""What a recipe may ask of the two updates: pairs, augmentation, schedules, tensors of its own."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_blocks.engine import (
    PairBatch,
    TrainingState,
    fake_images_of,
    load_images,
    score_fake,
    score_generator_pair,
    score_pair,
    score_separately,
    update_discriminator,
    update_generator,
)
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state, check_networks, config_at, follow_config
from gan_blocks.engine.recipe.options import RunOptions
from recipes import sngan
from tests.engine.training.updates import gradients, prepared


@pytest.mark.parametrize("in_optimizer", [True, False])
def test_frozen_layers_of_both_networks_keep_their_weights_and_the_others_learn(
    config: sngan.Config, in_optimizer: bool
):
    def frozen_generator(config: sngan.Config) -> torch.nn.Module:
        network = sngan.RECIPE.build_generator(config)
        network.stem.requires_grad_(False)
        return network

    def frozen_discriminator(config: sngan.Config) -> torch.nn.Module:
        network = sngan.RECIPE.build_discriminator(config)
        network.blocks[0].requires_grad_(False)
        return network

    builders = {"build_generator": frozen_generator, "build_discriminator": frozen_discriminator}
    state, batches = prepared(config, dataclasses.replace(sngan.RECIPE, **builders))
    frozen = [state.generator.stem, state.discriminator.blocks[0]]
    if not in_optimizer:
        for optimizer, layer in zip((state.optimizer_g, state.optimizer_d), frozen, strict=True):
            (group,) = optimizer.param_groups
            left_out = set(layer.parameters())
            group["params"] = [parameter for parameter in group["params"] if parameter not in left_out]
    networks = (state.generator, state.discriminator)
    before = [copy.deepcopy(dict(network.named_parameters())) for network in networks]
    for _ in range(2):
        sngan.RECIPE.train_step(state, batches, config)
    for network, layer, old in zip(networks, frozen, before, strict=True):
        kept = {name for name, parameter in network.named_parameters() if torch.equal(parameter, old[name])}
        assert kept == {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        assert len(kept) == len(list(layer.parameters())) > 0


def test_a_discriminator_that_a_recipe_has_frozen_for_a_pass_of_its_own_learns_in_its_turn(config: sngan.Config):
    state, batches = prepared(config)
    state.discriminator.requires_grad_(False)
    before = copy.deepcopy(state.discriminator.state_dict())
    sngan.RECIPE.train_step(state, batches, config)
    moved = [name for name, _ in state.discriminator.named_parameters()]
    assert all(not torch.equal(state.discriminator.state_dict()[name], before[name]) for name in moved)


def test_gradients_of_weights_that_the_optimizer_leaves_out_do_not_add_up(config: sngan.Config):
    state, batches = prepared(config)
    first = next(state.discriminator.parameters())
    group = state.optimizer_d.param_groups[0]
    group["params"].remove(first)
    group["lr"] = 0.0  # so that every update has the gradient of the first, but for singular vectors that converge
    batches.discriminator = lambda _number, parts=batches.discriminator: parts(0)  # type: ignore[method-assign]
    norms: list[float] = []

    def note(_discriminator: torch.nn.Module) -> None:
        norms.append(first.grad.norm().item())

    steps = dataclasses.replace(config, discriminator_steps=3)
    update_discriminator(state, batches, steps, loss_of(state), before_step=note)
    assert norms[0] > 0
    assert norms == pytest.approx([norms[0]] * 3, rel=0.1)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_terms_of_a_loss_are_descended_as_their_sum_and_returned_by_name(config: sngan.Config, accumulate: int):
    config = dataclasses.replace(config, discriminator_steps=2)
    terms: list[dict[str, Tensor]] = []

    def named(part: PairBatch) -> dict[str, Tensor]:
        real_logits, fake_logits = score_pair(state, part)
        terms.append({"loss_d": (fake_logits - real_logits).mean(), "score_penalty": real_logits.square().mean()})
        return terms[-1] if part.update == 1 else terms[-1] | {"late_penalty": 0.0}  # type: ignore[dict-item]

    def decay() -> Tensor:
        return sum((p.square().sum() for p in state.discriminator.parameters()), torch.zeros(()))

    def constant() -> Tensor:
        return torch.ones(())

    state, batches = prepared(config, accumulate=accumulate)
    penalties = {"decay_penalty": decay, "absent_penalty": constant}
    logged = update_discriminator(state, batches, config, named, penalties=penalties)
    by_name, trained = gradients(state.discriminator), state.discriminator
    assert set(logged) == {"loss_d", "score_penalty", "late_penalty", "decay_penalty"}
    for name in ("loss_d", "score_penalty"):
        torch.testing.assert_close(logged[name], torch.stack([term[name] for term in terms]).mean(), check_dtype=False)
    assert not any(value.requires_grad for value in logged.values())

    state, batches = prepared(config, accumulate=accumulate)

    def whole(part: PairBatch) -> Tensor:
        loss, *others = named(part).values()
        return sum(others, loss)

    summed = update_discriminator(state, batches, config, whole, penalties=[decay])
    torch.testing.assert_close(summed, sum(logged.values()))
    assert all(map(torch.equal, gradients(state.discriminator), by_name))
    assert all(map(torch.equal, state.discriminator.parameters(), trained.parameters()))


def loss_of(state: TrainingState) -> Callable[[PairBatch], Tensor]:
    return lambda part: score_pair(state, part)[1].square().mean()


def test_penalties_that_can_be_gone_through_once_count_in_every_update(config: sngan.Config):
    config = dataclasses.replace(config, discriminator_steps=3)
    state, batches = prepared(config)
    one = next(state.discriminator.parameters())
    counted: list[int] = []

    def penalty() -> Tensor:
        counted.append(1)
        return one.square().sum()

    update_discriminator(state, batches, config, loss_of(state), penalties=(each for each in [penalty]))
    assert len(counted) == 3


@pytest.mark.parametrize("where", ["micro-batch", "update"])
def test_a_loss_names_its_terms_always_or_never(config: sngan.Config, where: str):
    config = dataclasses.replace(config, discriminator_steps=2)
    state, batches = prepared(config, accumulate=2)
    calls: list[int] = []

    def loss(part: PairBatch) -> Any:
        calls.append(1)
        value = loss_of(state)(part)
        return {"loss_d": value} if len(calls) <= (1 if where == "micro-batch" else 2) else value

    with pytest.raises(UserError, match=r"^a loss must name its terms in every micro-batch and update, or in none\.$"):
        update_discriminator(state, batches, config, loss)


@pytest.mark.parametrize("top_k", [False, True])
def test_the_two_of_a_pair_have_one_label_in_both_updates(config: sngan.Config, top_k: bool):
    if top_k:
        config = dataclasses.replace(config, top_k_gamma=0.01, top_k_floor=2, top_k_decay_images=1)
    images = load_images(config.data, resolution=16, channels=1, num_classes=3)
    run = RunOptions(device="cpu", precision="fp64")
    state = build_state(sngan.RECIPE, config, run)
    batches = BatchSource(images, sngan.RECIPE.build_prior(config), config, run).step(50)
    labels: list[Tensor] = []
    state.discriminator.register_forward_pre_hook(lambda _module, inputs: labels.append(inputs[1].clone()))

    def loss_d(part: PairBatch) -> Tensor:
        real_logits, fake_logits = score_separately(state, part, fake_images_of(state, part))
        return (fake_logits - real_logits).mean()

    def loss_g(part: PairBatch) -> Tensor:
        real_logits, fake_logits = score_generator_pair(state, part)
        assert real_logits.shape == fake_logits.shape == ((2,) if top_k else (6,))
        return (real_logits - fake_logits).mean()

    update_discriminator(state, batches, config, loss_d, same_labels=True)
    update_generator(state, batches, config, loss_g, same_labels=True)
    assert len(labels) == 4
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(labels[2], labels[3])


def test_optimizers_follow_a_config_and_keep_their_state(config: sngan.Config):
    state, batches = prepared(config)
    sngan.RECIPE.train_step(state, batches, config)
    moments = {key: dict(value) for key, value in state.optimizer_g.state.items()}
    follow_config(sngan.RECIPE, state, dataclasses.replace(config, generator_lr=0.5, adam_beta2=0.5))
    (group,) = state.optimizer_g.param_groups
    assert (group["lr"], group["betas"]) == (0.5, (config.adam_beta1, 0.5))
    assert state.optimizer_d.param_groups[0]["lr"] == config.discriminator_lr
    assert group["params"] == list(state.generator.parameters())
    assert all(state.optimizer_g.state[key]["step"] is value["step"] for key, value in moments.items())


class Neighborly(torch.nn.Module):
    """Somebody's layer in which samples see one another, and which says so."""

    looks_across_samples = True

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)


def test_a_discriminator_whose_samples_see_one_another_is_given_the_whole_batch_under_top_k(config: sngan.Config):
    top = dataclasses.replace(config, top_k_gamma=0.01, top_k_floor=3, top_k_decay_images=1)
    for extra, sizes in ((torch.nn.Identity(), {3}), (Neighborly(), {6})):
        run = RunOptions(device="cpu", precision="fp64", accumulate=1)
        state = build_state(sngan.RECIPE, top, run)
        state.discriminator.add_module("extra", extra)
        images = load_images(top.data, resolution=16, channels=1, num_classes=3)
        (fake,) = BatchSource(images, sngan.RECIPE.build_prior(top), top, run).step(50).generator()
        judged: list[int] = []
        state.discriminator.register_forward_hook(lambda _m, _i, logits, judged=judged: judged.append(len(logits)))
        chosen = torch.tensor([True, False] * 3)
        logits = score_fake(state, dataclasses.replace(fake, chosen=chosen))
        assert len(logits) == 3
        assert set(judged) == sizes


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"batch_size": 4}, "Config.at must not change batch_size, which holds for a whole training."),
        ({"seed": 4}, "Config.at must not change seed, which holds for a whole training."),
        (None, "Config.at must return a Config, but returned NoneType."),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(config: sngan.Config, change: dict[str, Any] | None, problem: str):
    class Scheduled(sngan.Config):
        def at(self, images: int) -> Any:
            return None if change is None else dataclasses.replace(self, **change)

    Scheduled.__name__ = "Config"
    with pytest.raises(UserError) as error:
        config_at(Scheduled(**vars(config)), 1)
    assert str(error.value) == problem


def test_networks_are_tried_before_the_first_step_and_stay_as_they_are(config: sngan.Config):
    state, _ = prepared(config)
    prior = sngan.RECIPE.build_prior(config)
    before = {name: value.clone() for name, value in state.tensors()["generator"].items()}
    check_networks(state, prior, config)
    assert state.generator.training
    assert all(torch.equal(value, before[name]) for name, value in state.tensors()["generator"].items())
    wider = dataclasses.replace(config, resolution=32, generator_widths=(2, 2, 1, 1), discriminator_widths=(1, 1, 2, 2))
    with pytest.raises(UserError) as error:
        check_networks(state, prior, wider)
    assert str(error.value) == (
        "the generator must return (batch, image_channels, resolution, resolution), here (2, 1, 32, 32), "
        "but returned (2, 1, 16, 16)."
    )
    state.discriminator.register_forward_hook(lambda _module, _inputs, logits: logits.mean())
    with pytest.raises(UserError, match=r"^the discriminator must return logits of shape .*, but returned \(\)\.$"):
        check_networks(state, prior, config)


def test_a_loss_and_its_batches_have_to_be_what_the_update_works_with(config: sngan.Config):
    state, batches = prepared(config)
    with pytest.raises(UserError, match=r"must be a tensor of one element, but got float\.$"):
        update_discriminator(state, batches, config, lambda part: 1.0)  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match=r"must be a tensor of one element, but got one of shape \(6,\)\.$"):
        update_generator(state, batches, config, lambda fake: score_fake(state, fake))
    with pytest.raises(UserError, match=r"^the term loss_d of a loss must be a tensor of one element, but got str\.$"):
        update_discriminator(state, batches, config, lambda part: {"loss_d": "0"})  # type: ignore[dict-item]
    with pytest.raises(UserError, match=r"must depend on the weights that learn, but it is a constant\.$"):
        update_discriminator(state, batches, config, lambda part: {"loss_d": torch.zeros(())})
    with pytest.raises(UserError, match=r"a tensor of one element, but got a complex one\.$"):
        update_discriminator(state, batches, config, lambda part: score_pair(state, part)[0].mean() * 1j)
    for wrong in ({"p": 1.0}, {"": torch.zeros}, [None], 3):
        with pytest.raises(UserError, match=r"^penalties must be functions without arguments, in a list or by name"):
            update_discriminator(state, batches, config, lambda part: torch.zeros(()), penalties=wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^decay must return a tensor of one element, but got NoneType\.$"):
        update_discriminator(state, batches, config, loss_of(state), penalties={"decay": lambda: None})  # type: ignore[dict-item, return-value]
    for unnamed in ({}, {"": torch.zeros(())}):
        with pytest.raises(UserError, match=r"^the loss of a micro-batch must name its terms, but got \["):
            update_discriminator(state, batches, config, lambda part, terms=unnamed: terms)
    with pytest.raises(UserError, match=r"same_labels=True\) gives the loss, but got a FakeBatch\.$"):
        update_generator(state, batches, config, lambda fake: score_generator_pair(state, fake)[0].mean())
    with pytest.raises(UserError, match=r"without same_labels=True, but got a PairBatch\.$"):
        update_generator(state, batches, config, lambda pair: score_fake(state, pair).mean(), same_labels=True)


@pytest.mark.parametrize(
    ("ramp", "wanted"),
    [(0.5, [0, 0.5 ** (1 / 1.5), 0.5**0.5, 0.9]), (0.0, [0, 0.9, 0.9, 0.9])],  # half-lives of 1.5 and 2 steps
)
def test_the_average_forgets_its_first_weights_fast_with_a_ramp(config: sngan.Config, ramp: float, wanted: list[float]):
    config = dataclasses.replace(config, ema_start=2, ema_decay=0.9, ema_rampup=ramp)
    state, batches = prepared(config)
    decays: list[float | None] = []
    state.ema.update = lambda _model, decay: decays.append(decay)  # type: ignore[method-assign]
    for batches.step in (2, 3, 4, 1000):
        update_generator(state, batches, config, lambda fake: -score_fake(state, fake).mean())
    assert decays == pytest.approx(wanted)
