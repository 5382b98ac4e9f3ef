"""DC-GAN, MSGAN and the Wasserstein GANs: networks of strided convolutions, losses, and whole runs of tiny ones."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import CrossReplicaBatchNorm2d
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import sample
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.inspection.dry_run import WithoutInitialization
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint
from recipes import dcgan, wgan_gp
from tests.engine.kept_gradients import keep_gradients, kept_gradients

TINY = dcgan.Config(resolution=16, widths=(6, 4), latent_dim=5, batch_size=8, planned_steps=6, standing_batches=2)
TINY_ARGS = [
    *("--resolution", "16", "--widths", "6", "4", "--latent-dim", "5", "--batch-size", "8"),
    *("--standing-batches", "2", "--ema-start", "2", "--planned-steps", "6", "--sample-every", "0"),
]
CRITIC = wgan_gp.Config(resolution=16, widths=(6, 4), latent_dim=5, batch_size=8, planned_steps=6, standing_batches=2)
CLIPPED = dataclasses.replace(
    CRITIC, constraint="weight-clipping", optimizer="rmsprop", generator_lr=5e-5, discriminator_lr=5e-5
)
LATE = 100  # a step at which k of these schedules has reached its floor


class Training:
    """A training step by step, without its folder."""

    def __init__(self, data: Path, recipe: Recipe, config: dcgan.Config, **options: object) -> None:
        run = RunOptions(threads=1, channels_last=False, precision="fp64", **options)
        images = load_images(f"npz:{data}", resolution=config.resolution, channels=1, num_classes=1)
        self.recipe, self.config = recipe, config
        self.source = BatchSource(images, recipe.build_prior(config), config, run)
        self.state: TrainingState = build_state(recipe, config, run)
        keep_gradients(self.state)

    def step(self, step: int) -> dict[str, Tensor]:
        return self.recipe.train_step(self.state, self.source.step(step), self.config)


@pytest.fixture
def training(tiny_data: Path) -> Iterator[Callable[..., Training]]:
    made: list[Training] = []

    def make(config: dcgan.Config = TINY, *, recipe: Recipe = dcgan.RECIPE, **options) -> Training:
        made.append(Training(tiny_data, recipe, config, **options))
        return made[-1]

    yield make
    for each in made:
        each.source.close()


def calls_of(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """First argument and output of each of its calls from now on."""
    calls: list[tuple[Tensor, Tensor]] = []
    network.register_forward_hook(lambda _, args, output: calls.append((args[0].detach(), output.detach())))
    return calls


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# The networks


def test_the_parameters_are_those_of_the_papers_figure_and_its_mirror():
    widths = (1024, 512, 256, 128)
    inner = sum(16 * before * after + 2 * after for before, after in pairwise(widths))  # with gains and biases
    generator = 100 * 1024 * 16 + 2 * 1024 + inner + 16 * 128 * 3 + 3
    inner = sum(16 * before * after + 2 * after for before, after in pairwise(reversed(widths)))
    discriminator = 16 * 3 * 128 + 128 + inner + 1024 * 16 + 1
    config = dcgan.PRESETS["lsun-64"]()
    with WithoutInitialization(), torch.device("meta"):
        networks = dcgan.RECIPE.build_generator(config), dcgan.RECIPE.build_discriminator(config)
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [generator, discriminator]


def test_batch_norm_is_everywhere_but_in_the_generators_output_and_the_discriminators_input():
    generator, discriminator = dcgan.RECIPE.build_generator(TINY), dcgan.RECIPE.build_discriminator(TINY)
    assert len([m for m in generator.modules() if isinstance(m, CrossReplicaBatchNorm2d)]) == 2
    assert [isinstance(block.norm, CrossReplicaBatchNorm2d) for block in (*generator.blocks, generator.to_rgb)] == [
        True,
        False,
    ]
    assert [isinstance(block.norm, CrossReplicaBatchNorm2d) for block in discriminator.blocks] == [False, True]
    assert not list(discriminator.buffers())  # statistics of the batch at hand
    kinds = [type(block.act) for network in (generator, discriminator) for block in network.blocks]
    assert kinds == [nn.ReLU, nn.LeakyReLU, nn.LeakyReLU]
    assert discriminator.blocks[0].act.negative_slope == 0.2
    assert isinstance(generator.to_rgb.act, nn.Tanh)


def test_weights_start_with_a_deviation_of_two_hundredths_and_biases_at_zero():
    config = dataclasses.replace(TINY, widths=(64, 32))
    for network in (dcgan.RECIPE.build_generator(config), dcgan.RECIPE.build_discriminator(config)):
        for name, parameter in network.named_parameters():
            if "norm" in name:
                assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight"))))
            elif name.endswith("bias"):
                assert torch.equal(parameter, torch.zeros_like(parameter))
            else:
                error = 4 * 0.02 / math.sqrt(2 * parameter.numel())  # four standard errors of a standard deviation
                assert parameter.std().item() == pytest.approx(0.02, abs=error)
                assert parameter.mean().abs() < 4 * 0.02 / math.sqrt(parameter.numel())


@pytest.mark.parametrize("preset", list(dcgan.PRESETS))
def test_every_preset_makes_images_and_logits_from_uniform_latents(preset: str):
    config = dcgan.PRESETS[preset]()
    z = dcgan.RECIPE.build_prior(config).sample(64)
    assert z.shape == (64, 100)
    assert 0.98 < z.abs().max() <= 1
    with WithoutInitialization(), torch.device("meta"):
        labels = torch.zeros(2, dtype=torch.int64)
        images = dcgan.RECIPE.build_generator(config)(torch.zeros(2, 100), labels)
        assert images.shape == (2, config.image_channels, config.resolution, config.resolution)
        assert dcgan.RECIPE.build_discriminator(config)(images, labels).shape == (2,)


# The step


def test_real_and_generated_images_are_judged_apart_by_the_non_saturating_loss(training: Callable[..., Training]):
    run = training()
    calls = calls_of(run.state.discriminator)
    losses = run.step(1)
    (part,) = run.source.step(1).discriminator(0)
    assert [len(images) for images, _ in calls] == [8, 8, 8]
    assert torch.equal(calls[0][0], part.real_images)
    real, fake, of_g = (logits.tolist() for _, logits in calls)
    assert losses["loss_d"].item() == pytest.approx(sum(map(softplus, [*fake, *(-x for x in real)])) / 8)
    assert losses["loss_g"].item() == pytest.approx(sum(softplus(-x) for x in of_g) / 8)


def test_mode_seeking_adds_the_penalty_of_the_halves_of_the_batch(training: Callable[..., Training]):
    config = dataclasses.replace(TINY, batch_size=7, mode_seeking=0.25)  # one sample is in no pair
    run = training(config)
    made, judged = calls_of(run.state.generator), calls_of(run.state.discriminator)
    losses = run.step(1)
    z, images = made[-1]
    image_distance = sum((images[i] - images[i + 3]).abs().mean().item() for i in range(3)) / 3
    z_distance = sum((z[i] - z[i + 3]).abs().mean().item() for i in range(3)) / 3
    adversarial = sum(softplus(-x) for x in judged[-1][1].tolist()) / 7
    assert losses["loss_g"].item() == pytest.approx(adversarial)
    assert losses["mode_seeking_penalty"].item() == pytest.approx(0.25 / (image_distance / z_distance + 1e-5))


def test_the_presets_of_msgan_add_mode_seeking_and_nothing_else():
    for name, preset in dcgan.PRESETS.items():
        if name.startswith("msgan-"):
            plain = dcgan.PRESETS[name.removeprefix("msgan-")]()
            assert preset() == dataclasses.replace(plain, mode_seeking=1.0)
            assert plain.mode_seeking == 0


def test_mode_seeking_without_pairs_says_so(training: Callable[..., Training]):
    run = training(dataclasses.replace(TINY, mode_seeking=1.0), accumulate=8)
    with pytest.raises(UserError, match=r"^--mode-seeking needs pairs: micro-batches of at least 2 samples"):
        run.step(1)


# The Wasserstein GANs


def test_the_critic_is_dc_gans_discriminator_without_batch_norm():
    critic, generator = wgan_gp.RECIPE.build_discriminator(CRITIC), wgan_gp.RECIPE.build_generator(CRITIC)
    assert not any(isinstance(module, CrossReplicaBatchNorm2d) for module in critic.modules())
    assert {name for name, _ in critic.named_parameters() if name.endswith("bias")} == {
        *("blocks.0.conv.bias", "blocks.1.conv.bias", "head.linear.bias")
    }
    images = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(critic(images, torch.zeros(4))[:2], critic(images[:2], torch.zeros(2)))
    assert str(generator) == str(dcgan.RECIPE.build_generator(TINY))


def test_the_critic_loss_is_the_difference_of_means_and_a_penalty_with_one_mix_for_each_pair(
    training: Callable[..., Training],
):
    run = training(dataclasses.replace(CRITIC, discriminator_steps=1), recipe=wgan_gp.RECIPE)
    before = training(run.config, recipe=wgan_gp.RECIPE).state.discriminator
    calls = calls_of(run.state.discriminator)
    losses = run.step(1)
    (real_images, real), (fake_images, fake), (mixed, _), (_, of_g) = calls
    slopes = []
    for index in range(8):  # each on its own line, at one place of it for all pixels
        shares = (mixed[index] - real_images[index]) / (fake_images[index] - real_images[index])
        torch.testing.assert_close(shares, shares.mean().expand_as(shares))
        assert 0 < shares.mean() < 1
        image = mixed[index : index + 1].clone().requires_grad_()
        (slope,) = torch.autograd.grad(before(image, torch.zeros(1)).sum(), image)
        slopes.append(slope.square().sum().sqrt().item())
    penalty = 10 * sum((slope - 1) ** 2 for slope in slopes) / 8
    assert losses["loss_d"].item() == pytest.approx((fake.mean() - real.mean()).item(), rel=1e-9)
    assert losses["gradient_penalty"].item() == pytest.approx(penalty, rel=1e-9)
    assert losses["loss_g"].item() == pytest.approx(-of_g.mean().item())


def test_the_critic_is_updated_five_times_with_batches_of_its_own(training: Callable[..., Training]):
    run = training(CRITIC, recipe=wgan_gp.RECIPE)
    calls = calls_of(run.state.discriminator)
    run.step(2)
    assert len(calls) == 5 * 3 + 1
    assert len({images.sum().item() for images, _ in calls}) == 16


def test_weight_clipping_has_no_penalty_and_bounds_every_parameter_after_each_update(
    training: Callable[..., Training],
):
    run = training(dataclasses.replace(CLIPPED, discriminator_lr=0.1), recipe=wgan_gp.RECIPE)
    seen: list[float] = []
    run.state.discriminator.register_forward_pre_hook(
        lambda critic, _: seen.append(max(p.abs().max().item() for p in critic.parameters()))
    )
    calls = calls_of(run.state.discriminator)
    losses = run.step(1)
    assert len(calls) == 5 * 2 + 1
    assert seen[0] > 0.01  # the weights that it starts with
    assert seen[2:] == [0.01] * 9
    differences = [(calls[2 * n + 1][1].mean() - calls[2 * n][1].mean()).item() for n in range(5)]
    assert losses["loss_d"].item() == pytest.approx(sum(differences) / 5)


def test_weight_clipping_descends_by_rmsprop(training: Callable[..., Training]):
    """Its first step, with mean square 0.01 g^2, is ten times the rate in the direction of the gradient's sign."""
    run = training(CLIPPED, recipe=wgan_gp.RECIPE)
    before = {name: value.clone() for name, value in run.state.generator.named_parameters()}
    run.step(1)
    for name, value in run.state.generator.named_parameters():
        gradient = kept_gradients(run.state.generator)[name]
        step = (before[name] - value)[gradient.abs() > 1e-4]
        torch.testing.assert_close(step, 5e-4 * gradient[gradient.abs() > 1e-4].sign(), rtol=1e-2, atol=0)


def test_presets_have_the_settings_of_the_papers():
    for name in ("fashion-mnist-32", "cifar10-32"):
        penalized, clipped = wgan_gp.PRESETS[name](), wgan_gp.PRESETS[f"clipping-{name}"]()
        assert (penalized.generator_lr, penalized.discriminator_lr) == (1e-4, 1e-4)
        assert (penalized.adam_beta1, penalized.adam_beta2, penalized.gradient_coefficient) == (0, 0.9, 10)
        assert (clipped.generator_lr, clipped.discriminator_lr, clipped.clip_bound) == (5e-5, 5e-5, 0.01)
        for config in (penalized, clipped):
            assert (config.batch_size, config.discriminator_steps, config.latent) == (64, 5, "normal")


# Top-k with a discriminator that looks across samples


def test_top_k_takes_the_best_logits_of_the_whole_batch(training: Callable[..., Training]):
    run = training(dataclasses.replace(TINY, top_k_gamma=0.5, top_k_floor=3))
    calls = calls_of(run.state.discriminator)
    loss = run.step(LATE)["loss_g"].item()
    assert len(calls[-1][1]) == 8
    best = sorted(calls[-1][1].tolist())[-3:]
    assert loss == pytest.approx(sum(softplus(-x) for x in best) / 3)


def test_micro_batches_are_judged_whole_so_that_the_chosen_keep_the_logits_they_were_chosen_by(
    training: Callable[..., Training],
):
    """Judged without their neighbors, batch norm would give the chosen ones other logits."""
    run = training(dataclasses.replace(TINY, top_k_gamma=0.5, top_k_floor=3), accumulate=2)
    calls = calls_of(run.state.discriminator)
    loss = run.step(LATE)["loss_g"].item()
    scores = torch.cat([logits for _, logits in calls[4:6]])  # after real and generated images, twice
    graph = torch.cat([logits for _, logits in calls[6:8]])
    torch.testing.assert_close(graph, scores)
    best = sorted(scores.tolist())[-3:]
    assert loss == pytest.approx(sum(softplus(-x) for x in best) / 3)


@pytest.mark.parametrize("change", [{}, {"mode_seeking": 1.0}])
def test_the_gradient_of_a_top_k_step_is_that_of_the_loss_written_out(
    change: dict[str, float], training: Callable[..., Training]
):
    run = training(dataclasses.replace(TINY, top_k_gamma=0.5, top_k_floor=3, **change))
    (fake,) = run.source.step(LATE).generator()
    before = training(run.config).state.generator
    run.step(LATE)
    images = before(fake.z, fake.labels)
    logits = run.state.discriminator(images, fake.labels)
    loss = sum(nn.functional.softplus(-logits[index]) for index in logits.argsort()[-3:]) / 3
    if change:
        distance = (images[:4] - images[4:]).abs().mean() / (fake.z[:4] - fake.z[4:]).abs().mean()
        loss = loss + 1 / (distance + 1e-5)
    loss.backward()
    wanted = dict(before.named_parameters())
    for name, gradient in kept_gradients(run.state.generator).items():
        torch.testing.assert_close(gradient, wanted[name].grad, rtol=1e-9, atol=1e-12)


# Whole runs


CLIPPING = ("--constraint", "weight-clipping", "--optimizer", "rmsprop")


@pytest.mark.parametrize(
    ("recipe", "extra"),
    [
        (dcgan.RECIPE, ("--mode-seeking", "1", "--top-k-gamma", "0.5", "--spectra-every", "3")),
        (wgan_gp.RECIPE, ("--top-k-gamma", "0.5")),
        (wgan_gp.RECIPE, CLIPPING),
    ],
)
def test_a_resumed_run_equals_the_one_that_was_never_stopped_and_can_be_sampled(
    recipe: Recipe, extra: tuple[str, ...], tiny_data: Path, tmp_path: Path
):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, *extra]
    assert recipe.main([*args, "--run-dir", str(tmp_path / "whole"), "--steps", "4"]) == 0
    for stop in ("2", "4"):
        assert recipe.main([*args, "--run-dir", str(tmp_path / "parts"), "--steps", stop]) == 0
    whole, parts = (load_latest_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "parts"))
    for file, tensors in whole.tensors.items():
        for name, value in tensors.items():
            assert torch.equal(value, parts.tensors[file][name]), (file, name)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss_g" in line] == [1, 2, 3, 4]
    assert sample.main(["--run", str(tmp_path / "whole"), "--out", str(tmp_path / "sheet.png")]) == 0


@pytest.mark.parametrize("recipe", [dcgan.RECIPE, wgan_gp.RECIPE])
def test_a_run_in_bfloat16_takes_its_steps(recipe: Recipe, tiny_data: Path, tmp_path: Path):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--precision", "bf16", "--steps", "2"]
    assert recipe.main([*args, "--run-dir", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("recipe", [dcgan.RECIPE, wgan_gp.RECIPE])
def test_activations_computed_again_give_the_same_bits(recipe: Recipe, tiny_data: Path, tmp_path: Path):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--steps", "2"]
    for name in ("False", "True"):
        assert recipe.main([*args, "--run-dir", str(tmp_path / name), "--checkpoint-activations", name]) == 0
    kept, again = (load_latest_checkpoint(tmp_path / name / "checkpoints") for name in ("False", "True"))
    for file, tensors in kept.tensors.items():
        for name, value in tensors.items():
            assert torch.equal(value, again.tensors[file][name]), (file, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 3}, "--num-classes must be 1 (these networks have no classes), but got 3."),
        (
            {"widths": (6, 4, 2)},
            "--resolution must be 32, which is 4 doubled once for each of --widths, but got 16.",
        ),
        ({"widths": (6, 0)}, "--widths must be two or more numbers greater than 0, but got 6 0."),
        ({"mode_seeking": -1.0}, "--mode-seeking must be at least 0, but got -1.0."),
    ],
)
def test_rejects_what_cannot_work(change: dict[str, object], message: str):
    with pytest.raises(UserError) as error:
        dataclasses.replace(TINY, **change)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_coefficient": 0.0}, "--gradient-coefficient must be greater than 0, but got 0.0."),
        ({"clip_bound": 0.0}, "--clip-bound must be greater than 0, but got 0.0."),
        ({"num_classes": 2}, "--num-classes must be 1 (these networks have no classes), but got 2."),
    ],
)
def test_rejects_a_critic_that_cannot_work(change: dict[str, object], message: str):
    with pytest.raises(UserError) as error:
        dataclasses.replace(CRITIC, **change)
    assert str(error.value) == message
