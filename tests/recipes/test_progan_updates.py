"""What ProGAN's steps do beside the plain ones: joint updates, top-k, least squares with noise, rates that rise."""

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import AdaptiveGaussianNoise
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.recipe.batches import top_k_schedule
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint
from recipes import progan
from tests.engine.kept_gradients import kept_gradients
from tests.recipes.tiny_progan import TINY, TINY_ARGS, Training, spy_on_discriminator

FADING = 4  # a step at which alpha is 0.5


@pytest.fixture
def training(tiny_data: Path) -> Iterator[Callable[..., Training]]:
    made: list[Training] = []

    def make(*, accumulate: int = 1, **changes) -> Training:
        made.append(Training(tiny_data, dataclasses.replace(TINY, **changes), precision="fp64", accumulate=accumulate))
        return made[-1]

    yield make
    for each in made:
        each.source.close()


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """Those that are not zero, of a network's own backward pass."""
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def step_gradients(network: nn.Module) -> dict[str, Tensor]:
    """Those that are not zero, of its last update."""
    return {name: gradient for name, gradient in kept_gradients(network).items() if gradient.any()}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-9, atol=1e-12, msg=name)


def differs(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return any(not torch.allclose(value, wanted[name], rtol=1e-6, atol=1e-12) for name, value in found.items())


class Before:
    """Both networks as they are before a step, grown to where it takes them, without gradients of theirs."""

    def __init__(self, run: Training, step: int) -> None:
        self.generator, self.discriminator = copy.deepcopy((run.state.generator, run.state.discriminator))
        for network in (self.generator, self.discriminator):
            network.grow(run.config.images_before(step))
            network.requires_grad_(True)
            network.zero_grad()


def until(run: Training, step: int) -> Before:
    """Train up to a step."""
    for number in range(1, step):
        run.step(number)
    return Before(run, step)


def least_squares_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """D's loss with generated images at a tenth, written out."""
    none = torch.zeros(len(real))
    on_real, on_fake = discriminator(real, none), discriminator(fake, none)
    return (on_real - 1).square().mean() / 2 + 0.1 * on_fake.square().mean() / 2


JOINT = {"joint_updates": True, "loss": "least-squares", "fake_weight": 0.1}


def test_joint_updates_take_both_gradients_at_the_weights_before_and_from_the_same_images(training):
    run = training(**JOINT)
    before = until(run, FADING)
    (part,) = run.source.step(FADING).discriminator(0)
    run.step(FADING)
    none, position = torch.zeros(8), run.config.position(FADING)
    assert (position.resolution, position.alpha) == (8, 0.5)
    fake = before.generator(part.fake.z, none)
    real = progan.real_images_at(part.real_images, position.resolution, position.alpha)
    least_squares_loss(before.discriminator, real, fake.detach()).backward()
    of_d = gradients(before.discriminator)
    ((before.discriminator(fake, none) - 1).square().mean() / 2).backward()
    assert_equal(step_gradients(run.state.discriminator), of_d)
    assert_equal(step_gradients(run.state.generator), gradients(before.generator))


def test_updates_in_turn_see_the_new_discriminator_and_images_of_their_own(training):
    joint, in_turn = training(**JOINT), training(**{**JOINT, "joint_updates": False})
    for run in (joint, in_turn):
        run.step(1)
    assert_equal(step_gradients(joint.state.discriminator), step_gradients(in_turn.state.discriminator))
    assert differs(step_gradients(joint.state.generator), step_gradients(in_turn.state.generator))


def test_after_joint_updates_both_have_taken_adams_step_and_the_average_follows(training):
    run = training(**JOINT, ema_decay=0.5)
    before = Before(run, 1)
    run.step(1)
    for network, old in (
        (run.state.generator, before.generator),
        (run.state.discriminator, before.discriminator),
    ):
        start = dict(old.named_parameters())
        for name, parameter in network.named_parameters():
            g = kept_gradients(network).get(name, torch.zeros_like(parameter))
            torch.testing.assert_close(parameter.detach(), (start[name] - 1e-3 * g / (g.abs() + 1e-8)).detach())
    start, now = dict(before.generator.named_parameters()), dict(run.state.generator.named_parameters())
    for name, value in run.state.ema.module.named_parameters():
        torch.testing.assert_close(value, ((start[name] + now[name]) / 2).detach())


@pytest.mark.parametrize("accumulate", [2, 8])
def test_joint_updates_of_micro_batches_are_those_of_the_whole_batch(training, accumulate: int):
    changes = {"joint_updates": True, "batch_statistics": "none", "gradient_coefficient": 1e-9}
    whole, parts = training(**changes), training(**changes, accumulate=accumulate)
    for run in (whole, parts):
        run.step(1)
    for network in ("generator", "discriminator"):
        found, wanted = (step_gradients(getattr(run.state, network)) for run in (parts, whole))
        assert found.keys() == wanted.keys()
        for name, value in found.items():  # the penalty draws its mixtures for each part, a billionth of the loss
            torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-9)


TOP_K = {"top_k_gamma": 0.1, "top_k_floor": 0.4, "top_k_decay_images": 1}  # 3 of 8 from the second step on


@pytest.mark.parametrize("sizes", [{}, {"batch_sizes": (8, 8, 8), "batch_size": 2}])  # which says nothing then
def test_top_k_learns_from_the_best_of_the_whole_batch_while_the_networks_grow(training, sizes):
    run = training(**TOP_K, **sizes)
    before = until(run, FADING)
    (fake,) = run.source.step(FADING).generator()
    assert run.source.step(FADING).k == 3
    run.step(FADING)
    run.state.discriminator.requires_grad_(False)
    logits = run.state.discriminator(before.generator(fake.z, torch.zeros(8)), torch.zeros(8))  # D looks across all
    best = sorted(range(8), key=lambda index: -logits[index].item())[:3]
    (-sum(logits[index] for index in best) / 3).backward()
    assert_equal(step_gradients(run.state.generator), gradients(before.generator))
    fewer = run.state.discriminator(before.generator(fake.z, torch.zeros(8))[best], torch.zeros(3))
    assert not torch.allclose(fewer, logits[best])  # scores among the best alone would be others


def test_top_k_over_micro_batches_keeps_the_scores_that_each_has(training):
    run = training(**TOP_K, accumulate=2)
    before = until(run, FADING)
    parts = list(run.source.step(FADING).generator())
    run.step(FADING)
    run.state.discriminator.requires_grad_(False)
    none = torch.zeros(4)
    logits = torch.cat([run.state.discriminator(before.generator(part.z, none), none) for part in parts])
    best = sorted(range(8), key=lambda index: -logits[index].item())[:3]
    (-sum(logits[index] for index in best) / 3).backward()
    assert_equal(step_gradients(run.state.generator), gradients(before.generator))


def test_while_k_is_the_batch_a_growing_step_is_the_plain_one_to_the_last_bit(training):
    plain, top_k = training(batch_sizes=(8, 6, 3)), training(batch_sizes=(8, 6, 3), top_k_gamma=0.5)
    for step in range(1, 4):
        for run in (plain, top_k):
            run.step(step)
    for name, value in plain.state.generator.state_dict().items():
        assert torch.equal(value, top_k.state.generator.state_dict()[name]), name


@pytest.mark.parametrize(
    ("gamma", "epochs", "ks"),
    [(0.9, 0, (16, 14, 6, 3)), (0.9, 1, (14, 12, 5, 2)), (0.9, 2, (12, 11, 4, 2)), (0.9, 99, (8, 7, 3, 1))],
)
def test_k_is_a_share_of_the_batch_that_there_is(gamma: float, epochs: int, ks: tuple[int, ...]):
    config = dataclasses.replace(TINY, top_k_gamma=gamma)
    schedules = [top_k_schedule(config, 100, batch_size=size) for size in (16, 14, 6, 3)]
    assert tuple(schedule.k(images=100 * epochs) for schedule in schedules) == ks


def test_a_number_is_the_least_k_of_batches_that_have_as_many():
    config = dataclasses.replace(TINY, top_k_gamma=0.1, top_k_floor=5)
    schedules = [top_k_schedule(config, 100, batch_size=size) for size in (16, 14, 6, 3)]
    assert [schedule.k(images=1000) for schedule in schedules] == [5, 5, 5, 3]
    larger = dataclasses.replace(TINY, batch_sizes=(16, 6, 3), stddev_group_size=0, top_k_gamma=0.1, top_k_floor=12)
    assert larger.batch_size < 12  # which says nothing where each resolution has a batch of its own
    with pytest.raises(UserError, match=r"^--top-k-floor must be .* up to the batch of 16, but got 17\.$"):
        dataclasses.replace(larger, top_k_floor=17)


def test_a_growing_run_with_top_k_logs_k_and_goes_on_bit_for_bit(tiny_data: Path, tmp_path: Path):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--batch-sizes", "8", "6", "3", "--log-every", "1"]
    args += ["--top-k-gamma", "0.8", "--top-k-floor", "0.5", "--top-k-decay-images", "16", "--steps"]
    assert_goes_on(args, tmp_path, stop="7")
    logged = [line["k"] for line in log(tmp_path / "whole")]
    config = dataclasses.replace(TINY, batch_sizes=(8, 6, 3))
    sizes = [config.batch_size_at(step) for step in range(1, 11)]
    wanted = [
        math.floor(max(0.8 ** (config.images_before(step) // 16), 0.5) * size) for step, size in enumerate(sizes, 1)
    ]
    assert set(sizes) == {8, 6, 3}
    assert logged == wanted
    assert len(set(wanted)) > 3


def assert_goes_on(args: list[str], folder: Path, *, stop: str) -> None:
    assert progan.RECIPE.main([*args, "10", "--run-dir", str(folder / "whole")]) == 0
    for steps in (stop, "10"):
        assert progan.RECIPE.main([*args, steps, "--run-dir", str(folder / "parts")]) == 0
    whole, parts = (load_latest_checkpoint(folder / name / "checkpoints") for name in ("whole", "parts"))
    assert whole.step == parts.step == 10
    for file, tensors in whole.tensors.items():
        for name, value in tensors.items():
            assert torch.equal(value, parts.tensors[file][name]), (file, name)
    assert log(folder / "whole") == log(folder / "parts")


def log(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "event" not in line]


def test_a_run_with_joint_updates_noise_and_rising_rates_goes_on_bit_for_bit(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Stopped while they rise; after the end of the rise, the optimizers have the Config's own rates."""
    used: list[float] = []
    plain_step = progan.RECIPE.train_step

    def spying(state, batches, config):
        used.append(state.optimizer_g.param_groups[0]["lr"])
        return plain_step(state, batches, config)

    monkeypatch.setattr(progan, "RECIPE", dataclasses.replace(progan.RECIPE, train_step=spying))
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--log-every", "1", "--rampup-images", "40"]
    args += ["--joint-updates", "True", "--loss", "least-squares", "--fake-weight", "0.1", "--generator-lr", "0.002"]
    assert_goes_on([*args, "--steps"], tmp_path, stop="3")
    shares = [math.exp(-5 * (1 - min(1, 8 * step / 40)) ** 2) for step in range(10)]
    assert used[:10] == pytest.approx([0.002 * share for share in shares], rel=1e-12)
    assert used[5:10] == [0.002] * 5
    assert used[10:] == used[:10]
    lines = log(tmp_path / "whole")
    assert [line["generator_lr"] for line in lines] == used[:10]
    assert [line["discriminator_lr"] for line in lines] == pytest.approx([0.001 * share for share in shares], rel=1e-12)


def test_rates_are_only_logged_where_they_rise(training):
    terms = {"loss_d", "gradient_penalty", "drift_penalty", "loss_g"}
    assert set(training().step(1)) == terms | {"resolution", "alpha"}


def noises(discriminator: nn.Module) -> list[AdaptiveGaussianNoise]:
    return [module for module in discriminator.modules() if isinstance(module, AdaptiveGaussianNoise)]


@pytest.mark.parametrize(("updates", "accumulate"), [(1, 1), (2, 1), (2, 2)])
def test_the_noise_follows_the_scores_of_generated_images_in_the_last_update_of_d(training, updates, accumulate):
    run = training(loss="least-squares", discriminator_steps=updates, accumulate=accumulate)
    calls, wanted = spy_on_discriminator(run.state), 0.0
    nn.init.zeros_(run.state.discriminator.head.linear.bias)  # sure from the start, so that there is something to see
    for step in range(1, 4):
        calls.clear()
        run.step(step)
        of_d = [logits for _, logits in calls[: 2 * updates * accumulate]]  # real and generated, one after the other
        mean = torch.cat(of_d[1::2][-accumulate:]).mean().item()
        wanted = 0.9 * wanted + 0.1 * min(1.0, max(0.0, 1 - mean))
    assert len(noises(run.state.discriminator)) == 2 * 2 + 2  # each 3x3 and 4x4 convolution
    found = [noise.output_average.item() for noise in noises(run.state.discriminator)]
    assert found == pytest.approx([wanted] * 6, rel=1e-9)
    assert 0 < wanted < 0.3
    assert not noises(run.state.discriminator.from_rgb)


def test_generated_images_weigh_as_asked_in_least_squares(training):
    run = training(loss="least-squares", fake_weight=0.1)
    before = Before(run, 1)
    (part,) = run.source.step(1).discriminator(0)
    loss = run.step(1)["loss_d"]
    fake, real = before.generator(part.fake.z, torch.zeros(8)), progan.real_images_at(part.real_images, 4, 1.0)
    torch.testing.assert_close(loss, least_squares_loss(before.discriminator, real, fake).detach().to(loss))


@pytest.mark.parametrize("batch_statistics", ["stddev", "discrimination"])
def test_a_noisy_discriminator_begins_by_taking_all_for_real(batch_statistics: str):
    """As the published code, where real images have the target 0: no noise before D has learned to tell."""
    config = dataclasses.replace(TINY, loss="least-squares", batch_statistics=batch_statistics)
    plain = progan.RECIPE.build_discriminator(dataclasses.replace(config, loss="wasserstein"))
    noisy = progan.RECIPE.build_discriminator(config)
    last = {"stddev": "head.linear.bias", "discrimination": "head.linear.1.bias"}[batch_statistics]
    assert dict(noisy.named_parameters())[last].tolist() == [1.0]
    assert dict(plain.named_parameters())[last].tolist() == [0.0]


def test_a_rise_needs_a_number_of_images():
    with pytest.raises(UserError, match=r"^--rampup-images must be a whole number, but got 0\.5\.$"):
        dataclasses.replace(TINY, rampup_images=0.5)
    assert TINY.at(0) is TINY
