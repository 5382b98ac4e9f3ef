"""Every recipe on a device: a step, a second one after resuming, compiled networks, a group of one process."""

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.distributed_runs import free_port
from benchmarks.gpu_check.findings import Findings
from benchmarks.steps.training_steps import TINY_SYSTEMS
from gan_blocks import CrossReplicaBatchNorm2d, distributed_top_k
from gan_blocks.engine import Recipe, run_console_command
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.training.agreement import sums_of_bits

__all__ = ["RECIPES", "check_compiled", "check_group", "check_recipes"]

RECIPES = {
    "dcgan": "recipes.dcgan",
    "wgan_gp": "recipes.wgan_gp",
    "sngan": "recipes.sngan",
    "sagan": "recipes.sagan",
    "biggan": "recipes.biggan",
    "biggan_deep": "recipes.biggan_deep",
    "progan": "recipes.progan",
    "stacked_mnist": "recipes.stacked_mnist",
    "appendix_h": "recipes.studies.appendix_h",
    "top_k_players": "recipes.studies.top_k_players",
}
SMALL = ["--batch-size", "8", "--sample-every", "0", "--standing-batches", "2", "--planned-steps", "4"]
CLOSE = 1e-2
"""Kernels of a GPU may add in another order, and Adam's first steps are as large for small gradients as for others."""


def write_images(folder: Path) -> dict[int, Path]:
    """32x32 images of noise in ten classes, by their number of channels."""
    random, labels = np.random.default_rng(0), np.arange(40) % 10
    files = {channels: folder / f"{channels}.npz" for channels in (1, 3)}
    for channels, file in files.items():
        np.savez(file, images=random.integers(0, 256, (40, 32, 32, channels), dtype=np.uint8), labels=labels)
    return files


def check_recipes(findings: Findings, device: torch.device, folder: Path, names: Sequence[str] = ()) -> None:
    """Two steps of every recipe at once and as one and one; samples of the last run."""
    files = write_images(folder)
    run = folder
    for name in names or RECIPES:
        recipe = importlib.import_module(RECIPES[name]).RECIPE
        # The first presets, but for the data.
        words = ["--data", f"npz:{files[3 if name == 'stacked_mnist' else 1]}", "--device", device.type, *SMALL]
        whole, run = folder / f"{name}-whole", folder / name
        resume = ["--resume", str(run), "--steps", "2", "--device", device.type]
        one, two = ([*words, "--run-dir", str(at), "--steps", steps] for at, steps in ((run, "1"), (whole, "2")))
        findings.check(f"{name}, one step", partial(_train, recipe, one))
        findings.check(f"{name}, a step more after resuming", partial(_train, recipe, resume))
        findings.check(f"{name}, two steps", partial(_train, recipe, two))
        findings.check(f"{name}, resumed like two steps", partial(_alike, run, whole))
    words = ["--run", str(run), "--num", "4", "--out", str(folder / "samples.npz"), "--device", device.type]
    findings.check("samples of the last run", partial(_command, "sample", words))


def _train(recipe: Recipe[Any], words: list[str]) -> None:
    if status := recipe.main(words):
        raise RuntimeError(f"ended with status {status}")


def _command(name: str, words: list[str]) -> None:
    if run_console_command(name, words, prog=name):
        raise RuntimeError(f"{name} has failed")


def _alike(run: Path, whole: Path) -> str:
    """How far the averages of two runs are apart."""
    one, other = (_average(folder) for folder in (run, whole))
    difference = max((one[name] - other[name]).abs().max().item() for name in one)
    if not difference <= CLOSE:
        raise ValueError(f"weights are {difference:.1e} apart")
    return "bit for bit" if difference == 0 else f"weights at most {difference:.1e} apart"


def _average(run: Path) -> dict[str, Tensor]:
    file = run / "checkpoints" / "step_000002" / "ema.safetensors"
    return {name: value.float() for name, value in load_file(file).items() if value.numel()}


def check_compiled(findings: Findings, device: torch.device, *, backend: str) -> None:
    """Both networks of BigGAN-deep's demo, compiled without graph breaks, against themselves."""
    recipe, config = TINY_SYSTEMS["demo"]
    torch.manual_seed(0)
    labels = torch.arange(config.batch_size, device=device)
    z = torch.randn(config.batch_size, config.latent_dim, device=device)
    images = torch.randn(config.batch_size, config.image_channels, config.resolution, config.resolution, device=device)
    for name, network, x in (
        ("G", recipe.build_generator(config), z),
        ("D", recipe.build_discriminator(config), images),
    ):
        compare = partial(_compiled_alike, network.to(device), x, labels, backend)
        findings.check(f"{name} of the demo compiled by {backend}", compare)


def _compiled_alike(network: nn.Module, x: Tensor, labels: Tensor, backend: str) -> str:
    gradients = []
    for each in (network, torch.compile(network, backend=backend, fullgraph=True)):
        given = x.clone().requires_grad_()
        each(given, labels).float().square().sum().backward()
        assert given.grad is not None
        gradients.append(given.grad)
    error = ((gradients[1] - gradients[0]).norm() / gradients[0].norm()).item()
    if not error <= 1e-3:
        raise ValueError(f"gradients differ by {error:.1e}")
    return f"gradients differ by {error:.1e}"


def check_group(findings: Findings, device: torch.device, folder: Path) -> None:
    """What blocks and trainings do across processes, in a group of one, and a step under torchrun."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    findings.check(f"a group of one process, {backend}", partial(_in_group, backend, device, folder))
    findings.check("what processes compare of a fresh state", partial(_compared, device))
    findings.check(f"a step under torchrun, {backend}", partial(_launched, device, folder))


def _in_group(backend: str, device: torch.device, folder: Path) -> None:
    dist.init_process_group(backend, init_method=(folder / "group").as_uri(), rank=0, world_size=1)
    try:
        x = torch.randn(4, 3, 5, 5, device=device)
        norm, alone = CrossReplicaBatchNorm2d(3, process_group=dist.group.WORLD), CrossReplicaBatchNorm2d(3)
        torch.testing.assert_close(norm.to(device)(x), alone.to(device)(x))
        value = torch.ones(3, device=device)
        dist.all_reduce(value)
        assert value.sum().item() == 3
        distributed_top_k([x[:, 0, 0, 0]], 2)
    finally:
        dist.destroy_process_group()


def _compared(device: torch.device) -> None:
    recipe, config = TINY_SYSTEMS["demo"]
    parts = build_state(recipe, config, RunOptions(device=device.type)).tensors().values()
    tensors = [tensor for part in parts for tensor in part.values()]
    torch.testing.assert_close(sums_of_bits(tensors), sums_of_bits([tensor.cpu() for tensor in tensors]))


def _launched(device: torch.device, folder: Path) -> None:
    files = write_images(folder)
    words = ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    words += ["-m", RECIPES["biggan_deep"], "--data", f"npz:{files[1]}", *SMALL, "--device", device.type]
    words += ["--run-dir", str(folder / "launched"), "--steps", "1"]
    command = [sys.executable, "-m", "torch.distributed.run", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"status {done.returncode}: {lines[-1]}")
