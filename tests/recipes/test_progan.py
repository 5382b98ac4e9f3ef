import dataclasses
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from gan_blocks import (
    AdaptiveGaussianNoise,
    CrossReplicaBatchNorm2d,
    EqualizedConv2d,
    MinibatchDiscrimination,
    MinibatchStdDev,
    PixelNorm,
    downsample_average,
    upsample_nearest,
)
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands.describe import describe
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint
from gan_blocks.engine.sampling.trained import load_trained
from recipes import progan
from recipes.families.he_layers import HeLayers
from tests.drawn import draw
from tests.recipes.tiny_progan import TINY, TINY_ARGS, Training, spy_on_discriminator

POSITIONS = [(4, 1.0), (4, 1.0), (8, 0.0), (8, 0.5), (8, 1.0), (8, 1.0), (16, 0.0), (16, 0.5), (16, 1.0), (16, 1.0)]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def training(tiny_data: Path) -> Iterator[Callable[..., Training]]:
    made: list[Training] = []

    def make(**changes) -> Training:
        made.append(Training(tiny_data, dataclasses.replace(TINY, **changes)))
        return made[-1]

    yield make
    for each in made:
        each.source.close()


def table_2_generator() -> list[tuple[int, int, int]]:
    """Channels, size and parameters of its convolutions but toRGB, as the table prints them."""
    widths = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
    rows = [(512, 4, 512 * 512 * 16 + 512), (512, 4, 512 * 512 * 9 + 512)]
    for before, after in pairwise(widths):
        for channels in (widths[before], widths[after]):
            rows.append((widths[after], after, widths[after] * channels * 9 + widths[after]))
    return rows


def test_parameter_counts_are_those_of_table_2():
    config = progan.celebahq_1024()
    with torch.device("meta"):
        generator, discriminator = progan.RECIPE.build_generator(config), progan.RECIPE.build_discriminator(config)
    assert (count(generator), count(discriminator)) == (23_079_115, 23_087_249)
    unused = count(generator.to_rgb[:-1]), count(discriminator.from_rgb[:-1])
    assert (count(generator) - unused[0], count(discriminator) - unused[1]) == (23_071_507, 23_077_137)


def test_describe_lists_every_layer_of_table_2():
    tables = describe(progan.RECIPE, progan.PRESETS["celebahq-1024"]())
    used = [row for row in tables["Generator"] if row.output_shape is not None]
    shown = [(row.output_shape[0], row.output_shape[1], row.parameters) for row in used]
    assert shown == [*table_2_generator(), (3, 1024, 51)]
    used = [row for row in tables["Discriminator"] if row.output_shape is not None]
    by_size = sorted(used, key=lambda row: -row.output_shape[-1] if len(row.output_shape) == 3 else 0)
    assert [(row.output_shape, row.parameters) for row in by_size[:3]] == [
        ((16, 1024, 1024), 64),
        ((16, 1024, 1024), 2_320),
        ((32, 1024, 1024), 4_640),
    ]
    assert [(row.output_shape, row.parameters) for row in used[-3:]] == [
        ((512, 4, 4), 512 * 513 * 9 + 512),
        ((512, 1, 1), 512 * 512 * 16 + 512),
        ((1,), 513),
    ]
    assert sum(row.parameters for row in used) == 23_077_137


@pytest.mark.parametrize("resolution", [8, 16])
def test_growth_is_continuous(resolution: int):
    generator = progan.RECIPE.build_generator(TINY).double()
    discriminator = progan.RECIPE.build_discriminator(TINY).double()
    z, images = draw(4, 6), draw(4, 1, resolution, resolution)
    before, after = generator.generate(z, resolution // 2, 1.0), generator.generate(z, resolution, 1.0)
    assert (generator.generate(z, resolution, 0.0) - upsample_nearest(before)).abs().max() < 1e-6
    nearly = generator.generate(z, resolution, 1 - 1e-9)
    assert (nearly - after).abs().max() < 1e-6
    half = generator.generate(z, resolution, 0.5)
    torch.testing.assert_close(half, (upsample_nearest(before) + after) / 2)

    before = discriminator.judge(downsample_average(images), resolution // 2, 1.0)
    assert (discriminator.judge(images, resolution, 0.0) - before).abs().max() < 1e-6
    after = discriminator.judge(images, resolution, 1.0)
    assert (discriminator.judge(images, resolution, 1 - 1e-9) - after).abs().max() < 1e-6
    assert (before - after).abs().max() > 1e-3


def test_full_alpha_is_the_plain_network():
    generator = progan.RECIPE.build_generator(TINY).double()
    discriminator = progan.RECIPE.build_discriminator(TINY).double()
    z, images = draw(4, 6), draw(4, 1, 16, 16)
    plain = nn.Sequential(generator.stem, *generator.blocks, generator.to_rgb[2])
    torch.testing.assert_close(generator.generate(z, 16, 1.0), plain(z))
    plain = nn.Sequential(discriminator.from_rgb[2], *reversed(discriminator.blocks), discriminator.head)
    torch.testing.assert_close(discriminator.judge(images, 16, 1.0), plain(images))
    torch.testing.assert_close(generator(z, torch.zeros(4)), generator.generate(z, 16, 1.0))  # built fully grown


def test_tanh_comes_after_the_fade():
    """As in the code of the paper's rows a to c."""
    generator = progan.RECIPE.build_generator(dataclasses.replace(TINY, generator_output="relu-tanh")).double()
    z, (to_4, to_8, _) = draw(4, 6), generator.to_rgb
    h = generator.stem(z)
    linear = 0.7 * upsample_nearest(to_4(h)) + 0.3 * to_8(generator.blocks[0](h))
    assert linear.abs().max() > 0.5
    torch.testing.assert_close(generator.generate(z, 8, 0.3), linear.tanh())
    torch.testing.assert_close(generator.generate(z, 4, 1.0), to_4(h).tanh())


def test_both_networks_follow_the_schedule(training: Callable[..., Training]):
    run = training()
    calls = spy_on_discriminator(run.state)
    for step, (resolution, alpha) in enumerate(POSITIONS, start=1):
        calls.clear()
        values = run.step(step)
        assert (values["resolution"].item(), values["alpha"].item()) == (resolution, alpha)
        assert {images.shape for images, _ in calls} == {(8, 1, resolution, resolution)}
        for network in (run.state.generator, run.state.discriminator, run.state.ema.module):
            assert network.position == run.config.position(step)


def test_real_images_are_faded_with_the_same_alpha(training: Callable[..., Training]):
    run = training()
    calls = spy_on_discriminator(run.state)
    for step, (resolution, alpha) in enumerate(POSITIONS, start=1):
        calls.clear()
        run.step(step)
        full = run.real_images(step)
        boxes = full.unfold(2, 16 // resolution, 16 // resolution).unfold(3, 16 // resolution, 16 // resolution)
        wanted = boxes.mean(dim=(-2, -1))
        if alpha < 1:
            wanted = (1 - alpha) * upsample_nearest(downsample_average(wanted)) + alpha * wanted
        torch.testing.assert_close(calls[0][0], wanted)


def test_the_loss_is_a_mean_with_drift_on_real_images_alone_judged_in_a_call_of_their_own(
    training: Callable[..., Training],
):
    run = training(gradient_coefficient=1e-12, drift_coefficient=7.0)
    calls = spy_on_discriminator(run.state)
    losses = run.step(9)
    real, fake = (logits.tolist() for _, logits in calls[:2])
    assert torch.equal(calls[0][0], run.real_images(9))  # reals first, and nothing else in their batch
    assert losses["loss_d"].item() == pytest.approx(sum(fake) / 8 - sum(real) / 8, rel=1e-5)
    assert losses["drift_penalty"].item() == pytest.approx(7.0 * sum(logit**2 for logit in real) / 8, rel=1e-5)


def test_the_gradient_penalty_aims_at_its_target(training: Callable[..., Training]):
    """With a slope far below the target the penalty is lambda, whatever the target."""
    for target in (1e4, 1e5):
        losses = training(gradient_target=target, drift_coefficient=0.0).step(1)
        assert losses["gradient_penalty"].item() == pytest.approx(10, rel=1e-2)
        assert "drift_penalty" not in losses


def test_optimizers_start_anew_where_a_fade_begins_and_ends(training: Callable[..., Training]):
    run = training()
    counters = []
    for step in range(1, len(POSITIONS) + 1):
        run.step(step)
        for optimizer in (run.state.optimizer_g, run.state.optimizer_d):
            (of_all,) = {int(state["step"]) for state in optimizer.state.values()}  # one count for all layers in use
        counters.append(of_all)
    assert counters == [1, 2, 1, 2, 1, 2, 1, 2, 1, 2]


def test_layers_of_higher_resolutions_wait_for_their_turn(training: Callable[..., Training]):
    run = training()
    before = {name: value.clone() for name, value in run.state.generator.named_parameters()}
    run.step(1)
    moved = {name for name, value in run.state.generator.named_parameters() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"stem", "to_rgb"}
    assert not any(name.startswith(("to_rgb.1", "to_rgb.2")) for name in moved)
    for step in range(2, 5):
        run.step(step)
    moved = {name for name, value in run.state.generator.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("blocks.0") for name in moved)
    assert not any(name.startswith("blocks.1") for name in moved)


def test_the_average_is_carried_across_growth(training: Callable[..., Training]):
    """A rebuilt average would equal the generator after the switch, or have lost the past of the old layers."""
    run = training(ema_decay=0.9)
    expected = {name: value.clone() for name, value in run.state.generator.named_parameters()}
    for step in range(1, 9):  # from 4x4 into the last fade
        run.step(step)
        for name, value in run.state.generator.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * value
    for name, value in run.state.ema.module.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    generator = dict(run.state.generator.named_parameters())
    old = "stem.conv2.parametrizations.weight.original"
    assert not torch.equal(dict(run.state.ema.module.named_parameters())[old], generator[old])


def test_batches_follow_the_resolution(training: Callable[..., Training]):
    run = training(batch_sizes=(8, 4, 2), discriminator_steps=2)
    calls = spy_on_discriminator(run.state)
    sizes, seen = [], []
    for step in range(1, 20):
        calls.clear()
        run.step(step)
        sizes.append(calls[0][0].shape[0])
        seen.append(run.config.images_before(step))
    assert sizes == [{4: 8, 8: 4, 16: 2}[run.config.position(step).resolution] for step in range(1, 20)]
    assert [after - before for before, after in pairwise(seen)] == [2 * size for size in sizes[:-1]]
    assert {2, 4, 8} == set(sizes)


def test_resuming_in_the_middle_of_a_fade_equals_the_run_that_was_never_stopped(tiny_data: Path, tmp_path: Path):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--steps"]
    assert progan.RECIPE.main([*args, "9", "--run-dir", str(tmp_path / "whole")]) == 0
    for stop in ("4", "7", "9"):  # within the fade to 8x8; at the first step of the fade to 16x16; after it
        assert progan.RECIPE.main([*args, stop, "--run-dir", str(tmp_path / "parts")]) == 0
    whole, parts = (load_latest_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "parts"))
    assert whole.step == parts.step == 9
    for file, tensors in whole.tensors.items():
        assert tensors.keys() == parts.tensors[file].keys()
        for name, value in tensors.items():
            assert torch.equal(value, parts.tensors[file][name]), (file, name)


def test_it_grows_in_bfloat16(tiny_data: Path, tmp_path: Path):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--precision", "bf16", "--steps", "9"]
    assert progan.RECIPE.main([*args, "--run-dir", str(tmp_path / "run")]) == 0


def test_weights_know_how_far_their_network_has_grown(tiny_data: Path, tmp_path: Path):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--run-dir", str(tmp_path / "run"), "--steps", "4"]
    assert progan.RECIPE.main(args) == 0
    assert (tmp_path / "run" / "samples" / "step_000004.png").exists()
    trained = load_trained(run=tmp_path / "run", weights=None, device=torch.device("cpu"))
    assert trained.average.position == TINY.position(4)
    assert trained.average(torch.zeros(2, 6), torch.zeros(2)).shape == (2, 1, 8, 8)


def test_another_schedule_is_refused_on_resume(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--run-dir", str(tmp_path / "run"), "--steps"]
    assert progan.RECIPE.main([*args, "1"]) == 0
    assert progan.RECIPE.main([*args, "2", "--fade-images", "24"]) == 2
    assert "--fade-images is 24 here, but the run was started with 16." in capsys.readouterr().err


def test_images_smaller_than_the_resolution_are_refused():
    with pytest.raises(ValueError, match=r"must be of at least 16x16 pixels, but got shape \(2, 1, 8, 8\)\.$"):
        progan.real_images_at(torch.zeros(2, 1, 8, 8), 16, 1.0)
    rule = r"^Discriminator: `images` must be of 16x16 pixels, but got shape \(2, 1, 8, 8\)\.$"
    with pytest.raises(ValueError, match=rule):
        progan.RECIPE.build_discriminator(TINY)(torch.zeros(2, 1, 8, 8), torch.zeros(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"resolution": 24},
            "--resolution must be 32, which is 4 doubled once for each of --widths but the first, but got 24.",
        ),
        ({"initial_resolution": 12}, "--initial-resolution must be 0 or one of [4, 8, 16, 32], but got 12."),
        (
            {"batch_sizes": (16, 8)},
            "--batch-sizes must be 4 numbers greater than 0, as many as --widths, or none, but got 16 8.",
        ),
        ({"num_classes": 10}, "--num-classes must be 1 (ProGAN has no classes), but got 10."),
        ({"drift_coefficient": -1.0}, "--drift-coefficient must be at least 0, but got -1.0."),
        ({"gradient_target": 0.0}, "--gradient-target must be greater than 0, but got 0.0."),
        ({"fade_images": 0}, "--fade-images must be greater than 0, but got 0."),
        ({"rampup_images": -1}, "--rampup-images must be at least 0, but got -1."),
        ({"fake_weight": 0.0}, "--fake-weight must be greater than 0, but got 0.0."),
        (
            {"joint_updates": True, "discriminator_steps": 5},
            "--discriminator-steps must be 1 with --joint-updates, but got 5.",
        ),
    ],
)
def test_rejects_a_config_that_cannot_work(change: dict[str, object], message: str):
    with pytest.raises(UserError) as error:
        progan.Config(**change)
    assert str(error.value) == message


def kinds(network: nn.Module) -> set[type[nn.Module]]:
    return {type(module) for module in network.modules()} | {
        kind for module in network.modules() for kind in type(module).__mro__
    }


@pytest.mark.parametrize(
    ("preset", "in_generator", "in_discriminator"),
    [
        ("table1-a", {CrossReplicaBatchNorm2d, nn.Tanh, nn.ReLU}, {nn.GroupNorm}),
        ("table1-b", {CrossReplicaBatchNorm2d, nn.Tanh, nn.ReLU}, {nn.GroupNorm}),
        ("table1-c", {CrossReplicaBatchNorm2d, nn.Tanh, nn.ReLU}, {nn.GroupNorm}),
        ("table1-d", set(), set()),
        ("table1-e-star", set(), {MinibatchDiscrimination}),
        ("table1-e", set(), {MinibatchStdDev}),
        ("table1-f", {EqualizedConv2d}, {EqualizedConv2d, MinibatchStdDev}),
        ("table1-g", {EqualizedConv2d, PixelNorm}, {EqualizedConv2d, MinibatchStdDev}),
        ("table1-h", {EqualizedConv2d, PixelNorm}, {EqualizedConv2d, MinibatchStdDev}),
        ("celebahq-1024", {EqualizedConv2d, PixelNorm}, {EqualizedConv2d, MinibatchStdDev}),
        ("lsgan-1024", {EqualizedConv2d, PixelNorm}, {EqualizedConv2d, MinibatchStdDev, AdaptiveGaussianNoise}),
        ("lsun-256", {EqualizedConv2d, PixelNorm}, {EqualizedConv2d, MinibatchStdDev}),
        ("cifar10-32", {EqualizedConv2d, PixelNorm}, {EqualizedConv2d, MinibatchStdDev}),
        ("fashion-mnist-32", {EqualizedConv2d, PixelNorm}, {EqualizedConv2d, MinibatchStdDev}),
        ("mnist5k-32", {EqualizedConv2d, PixelNorm}, {EqualizedConv2d, MinibatchStdDev}),
    ],
)
def test_presets_hold_the_layers_of_their_row(
    preset: str, in_generator: set[type[nn.Module]], in_discriminator: set[type[nn.Module]]
):
    config = progan.PRESETS[preset]()
    with torch.device("meta"):
        networks = progan.RECIPE.build_generator(config), progan.RECIPE.build_discriminator(config)
        images = networks[0](torch.zeros(2, config.latent_dim), torch.zeros(2))
        assert images.shape == (2, config.image_channels, config.resolution, config.resolution)
        assert networks[1](images, torch.zeros(2)).shape == (2,)
    special = {
        CrossReplicaBatchNorm2d,
        nn.Tanh,
        nn.ReLU,
        nn.GroupNorm,
        MinibatchDiscrimination,
        MinibatchStdDev,
        EqualizedConv2d,
    }
    special |= {PixelNorm, AdaptiveGaussianNoise}
    assert kinds(networks[0]) & special == in_generator
    assert kinds(networks[1]) & special == in_discriminator


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_both_kinds_of_layers_start_at_the_same_scale(gain: float):
    for build in (
        lambda layers: layers.conv2d(64, 64, 3, padding=1, gain=gain),
        lambda layers: layers.linear(256, 128, gain=gain),
        lambda layers: layers.conv_transpose2d(64, 64, 4),
    ):
        equalized, plain = build(HeLayers(equalized=True)), build(HeLayers(equalized=False))
        assert plain.weight.shape == equalized.weight.shape
        assert plain.weight.std().item() == pytest.approx(equalized.weight.std().item(), rel=0.03)
        assert not plain.bias.any()
        assert "weight" in dict(plain.named_parameters())


def test_growing_needs_no_more_than_the_layers_in_use():
    """What makes early steps cheap: at 4x4 no block runs."""
    generator = progan.RECIPE.build_generator(TINY)
    generator.grow(0)
    ran: list[str] = []
    for name, module in generator.named_modules():
        if re.fullmatch(r"blocks\.\d|to_rgb\.\d|stem", name):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    generator(torch.zeros(1, 6), torch.zeros(1))
    assert ran == ["stem", "to_rgb.0"]
