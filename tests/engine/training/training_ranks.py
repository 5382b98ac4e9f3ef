"""Trainings of biggan_deep on several processes; started by test_distributed_training.py and test_lost_processes.py.

``python -m tests.engine.training.training_ranks together FOLDER`` carries out the scenarios of the one, ``lost FOLDER``
those of the other; each leaves its run and what its ranks say.
"""

import dataclasses
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gan_blocks import hinge_discriminator_loss
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel import processes as distributed
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import BatchSource, PairBatch, StepBatches
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.sampling.samples import draw_samples
from gan_blocks.engine.sampling.trained import load_trained
from gan_blocks.engine.training.updates import score_pair, update_discriminator
from recipes import biggan_deep, dcgan, progan
from tests.conftest import TINY_NETWORK, write_store, write_tiny_data
from tests.recipes.tiny_progan import TINY_ARGS

NEWEST_WEIGHTS = "checkpoints/step_000003/generator.safetensors"

Command = Callable[[list[str]], int]
Trouble = Callable[[int, int, object], None]  # of rank, step and the state before the step


def options(folder: Path, run: str, *more: str) -> list[str]:
    """A tiny network of both kinds of BatchNorm in float64, a whole batch of 12."""
    return [
        *("--data", f"npz:{folder / 'tiny.npz'}", *TINY_NETWORK, "--batch-size", "12", "--discriminator-steps", "1"),
        *("--precision", "fp64", "--threads", "1", "--run-dir", str(folder / run)),
        *("--log-every", "1", "--timeout", "60", "--compare-every", "1", "--sample-every", "0", *more),
    ]


def plain_options(folder: Path, run: str) -> list[str]:
    """A tiny DC-GAN in float64, a whole batch of 12."""
    return [
        *("--data", f"npz:{folder / 'tiny.npz'}", "--resolution", "16", "--widths", "6", "4", "--latent-dim", "5"),
        *("--batch-size", "12", "--precision", "fp64", "--threads", "1", "--run-dir", str(folder / run)),
        *("--planned-steps", "6", "--standing-batches", "2", "--sample-every", "0", "--log-every", "1"),
    ]


def growing_options(folder: Path, run: str) -> list[str]:
    """A tiny ProGAN in float64 with all that it can do to its updates, and a D that looks at each sample alone.

    The noise has its average, but draws nothing yet: it differs between processes.
    """
    return [
        *("--data", f"npz:{folder / 'tiny.npz'}", *TINY_ARGS, "--batch-statistics", "none"),
        *("--loss", "least-squares", "--fake-weight", "0.1", "--joint-updates", "True", "--rampup-images", "40"),
        *("--top-k-gamma", "0.5", "--top-k-decay-images", "16", "--compare-every", "1", "--log-every", "1"),
        *("--precision", "fp64", "--threads", "1", "--run-dir", str(folder / run), "--steps", "6"),
    ]


def train(args: list[str]) -> int:
    """Train biggan_deep, as one_rank has left it."""
    return biggan_deep.RECIPE.main(args)


def launch(
    folder: Path,
    name: str,
    size: int,
    args: list[str],
    trouble: Trouble | None = None,
    command: Command = train,
) -> None:
    """Run the command in ``size`` processes as torchrun would, and record how each ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    arguments = [(folder / f"{name}_{rank}.txt", rank, size, port, args, trouble, command) for rank in range(size)]
    processes = [fork.Process(target=one_rank, args=each) for each in arguments]
    for process in processes:
        process.start()
    frozen = {stop_answering: 1, stop_serving: 0}.get(trouble)
    for rank, process in enumerate(processes):
        if rank != frozen:
            process.join()
    if frozen is not None:
        processes[frozen].kill()
        processes[frozen].join()
    (folder / f"{name}_status.json").write_text(json.dumps([process.exitcode for process in processes]))


def one_rank(
    output: Path, rank: int, size: int, port: int, args: list[str], trouble: Trouble | None, command: Command
) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.stderr = output.open("w")
    distributed.GRACE_SECONDS = 1.0
    train_step = biggan_deep.RECIPE.train_step

    def troubled_step(state: TrainingState, batches: StepBatches, config: biggan_deep.Config) -> dict[str, Tensor]:
        if trouble is not None:
            trouble(rank, batches.step, state)
        return train_step(state, batches, config)

    biggan_deep.RECIPE = dataclasses.replace(biggan_deep.RECIPE, train_step=troubled_step)
    status = command(args if rank == 0 or trouble is not another_batch else [*args, "--batch-size", "16"])
    sys.stderr.flush()
    sys.exit(status)


def train_at_own_place(args: list[str]) -> int:
    """Train in a folder of each rank, where one path leads to different files."""
    os.chdir(Path(args[0]) / os.environ["RANK"])
    return train(args[1:])


def spread(folder: Path, name: str, *, without: str) -> list[str]:
    """Options to continue a run of two processes, which rank 1 finds without a part of it."""
    for rank in range(2):
        shutil.copytree(folder / "killed", folder / name / str(rank) / "run")
    hidden = folder / name / "1" / "run" / without
    if hidden.is_file():
        hidden.write_bytes(b"damaged")
    else:
        shutil.rmtree(hidden)
    return [str(folder / name), *options(folder, "killed", "--steps", "4"), "--run-dir", "run"]


def change_a_pixel(folder: Path) -> None:
    """Make a copy of the data for each rank; those of rank 1 differ by a level of one pixel."""
    with np.load(folder / "tiny.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    for rank in range(2):
        (folder / "data" / str(rank)).mkdir(parents=True)
        images[41, 3, 11, 0] ^= rank
        np.savez(folder / "data" / str(rank) / "tiny.npz", images=images, labels=labels)


def draw(args: list[str]) -> int:
    """Save seven samples of a run, over three batches of standing statistics, as this rank has them."""
    run, path = args
    with distributed.joined_processes("cpu", timeout=60):
        images, _ = draw_samples(load_trained(run=Path(run), weights=None, device=torch.device("cpu")), 7, seed=0)
        torch.save(images, f"{path}_{distributed.current_world().rank}.pt")
    return 0


def save_discriminator_gradients(args: list[str]) -> int:
    """Save D's gradients in its first update, of the small preset with a batch of 12 in float64.

    G is in eval mode, because its BatchNorm would see micro-batches, and D be given other images.
    """
    path, parts = args
    config = dataclasses.replace(biggan_deep.Config(), batch_size=12)
    options = RunOptions(device="cpu", precision="fp64", accumulate=int(parts))
    with distributed.joined_processes("cpu", timeout=60):
        state = build_state(biggan_deep.RECIPE, config, options)
        state.generator.eval()
        state.discriminator.attention.gamma.data.fill_(0.5)  # from 0, no gradient reaches the block
        images = load_images(config.data, resolution=config.resolution, channels=1, num_classes=config.num_classes)
        source = BatchSource(images, biggan_deep.RECIPE.build_prior(config), config, options)

        def loss(part: PairBatch) -> Tensor:
            real_logits, fake_logits = score_pair(state, part)
            return hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)

        gradients = {}

        def keep(discriminator: nn.Module) -> None:
            if not gradients:
                gradients.update({name: p.grad.clone() for name, p in discriminator.named_parameters()})

        update_discriminator(state, source.step(1), config, loss, before_step=keep)
        source.close()
        torch.save(gradients, f"{path}_{distributed.current_world().rank}.pt")
    return 0


def another_batch(rank: int, step: int, state: object) -> None:
    """Nothing at a step: rank 1 is started with another option."""


def die(rank: int, step: int, state: object) -> None:
    if (rank, step) == (1, 3):
        os.kill(os.getpid(), signal.SIGKILL)


def stop_answering(rank: int, step: int, state: object) -> None:
    if (rank, step) == (1, 2):
        os.kill(os.getpid(), signal.SIGSTOP)


def stop_serving(rank: int, step: int, state: object) -> None:
    if (rank, step) == (0, 2):
        os.kill(os.getpid(), signal.SIGSTOP)


def die_first(rank: int, step: int, state: object) -> None:
    if (rank, step) == (0, 2):
        os.kill(os.getpid(), signal.SIGKILL)


def fail(rank: int, step: int, state: object) -> None:
    if (rank, step) == (0, 2):
        raise UserError("log.jsonl was not written: Read-only file system.")


def be_slow(rank: int, step: int, state: object) -> None:
    if (rank, step) == (1, 2):
        time.sleep(6)


def be_asked_to_stop(rank: int, step: int, state: object) -> None:
    if (rank, step) == (1, 2):
        os.kill(os.getpid(), signal.SIGTERM)


def drift(rank: int, step: int, state: object) -> None:
    if (rank, step) == (1, 2):
        state.generator.norm.running_var[0] += 1e-15


def train_together(folder: Path) -> None:
    """What several processes train, as one does."""
    for size in (1, 2, 3):
        launch(folder, f"split_{size}", size, options(folder, f"split_{size}", "--steps", "3"))
    for size in (1, 2):
        more = ("--steps", "2", "--accumulate", "2")
        launch(folder, f"accumulated_{size}", size, options(folder, f"accumulated_{size}", *more))
    for size in (1, 3):
        more = ("--steps", "6", "--top-k-gamma", "0.1", "--top-k-floor", "0.25")
        launch(folder, f"top_k_{size}", size, options(folder, f"top_k_{size}", *more))
    for size in (1, 2):
        launch(folder, f"growing_{size}", size, growing_options(folder, f"growing_{size}"), command=progan.RECIPE.main)
    saving = ("--steps", "3", "--checkpoint-every", "1")
    launch(folder, "killed", 2, options(folder, "killed", *saving), die)
    launch(folder, "restarted", 2, options(folder, "killed", *saving))
    launch(folder, "silent", 2, options(folder, "silent", "--steps", "3", "--timeout", "4"), stop_answering)
    args = [str(folder / "data"), *options(folder, "other_data", "--data", "npz:tiny.npz")]
    change_a_pixel(folder)
    launch(folder, "other_data", 2, args, command=train_at_own_place)
    launch(folder, "stopped", 2, options(folder, "stopped", "--steps", "9"), be_asked_to_stop)
    launch(folder, "drifted", 2, options(folder, "drifted", "--steps", "3"), drift)
    launch(folder, "unlike", 2, options(folder, "unlike", "--steps", "3"), another_batch)


def train_further(folder: Path) -> None:
    """More of what several processes train and draw, as one does."""
    for size in (1, 2, 4):
        launch(folder, f"split_{size}", size, options(folder, f"split_{size}", "--steps", "3"))
    for size in (1, 2):
        name = f"recomputed_{size}"
        launch(folder, name, size, options(folder, name, "--steps", "3", "--checkpoint-activations", "True"))
    for size, parts in ((1, 1), (1, 2), (2, 1), (2, 2), (1, 12)):
        name = f"gradients_{size}_{parts}"
        launch(folder, name, size, [str(folder / name), str(parts)], command=save_discriminator_gradients)
    for size in (1, 3):  # D has batch norm, so that a sample's logit depends on those of the other processes
        args = [*plain_options(folder, f"plain_{size}"), "--top-k-gamma", "0.1", "--top-k-floor", "0.25"]
        launch(folder, f"plain_{size}", size, args, command=dcgan.RECIPE.main)
    for size in (1, 2):
        shutil.copytree(folder / "split_4", folder / f"continued_{size}")
        launch(folder, f"continued_{size}", size, options(folder, f"continued_{size}", "--steps", "5"))
    launch(folder, "whole", 1, options(folder, "whole", "--steps", "5"))
    with np.load(folder / "tiny.npz") as arrays:
        write_store(folder / "store", arrays["images"], arrays["labels"].tolist(), shard_images=7)
    for size, steps in ((2, "2"), (1, "5")):  # 24 of the 60 images have been shown when one process takes over
        more = ("--steps", steps, "--data", f"shards:{folder / 'store'}")
        launch(folder, f"sharded_{size}", size, options(folder, "sharded", *more))
    for size in (1, 2, 4):
        name = f"drawn_{size}"
        launch(folder, name, size, [str(folder / "split_1"), str(folder / name)], command=draw)


def lose_each_other(folder: Path) -> None:
    """What becomes of processes of which one is gone, late, or finds other files."""
    launch(folder, "killed", 2, options(folder, "killed", "--steps", "3", "--checkpoint-every", "1"))
    launch(folder, "unserved", 3, options(folder, "unserved", "--steps", "3", "--timeout", "4"), stop_serving)
    launch(folder, "headless", 3, options(folder, "headless", "--steps", "3"), die_first)
    launch(folder, "failed", 3, options(folder, "failed", "--steps", "3"), fail)
    launch(folder, "slow", 2, options(folder, "slow", "--steps", "3", "--timeout", "2"), be_slow)
    for name, without in (("no_run", "."), ("no_steps", "checkpoints"), ("damaged", NEWEST_WEIGHTS)):
        launch(folder, name, 2, spread(folder, name, without=without), command=train_at_own_place)
    (folder / "origin" / "1").mkdir(parents=True)
    shutil.copytree(folder / "killed", folder / "origin" / "0" / "run")
    args = [str(folder / "origin"), *options(folder, "started", "--init-from", "run", "--steps", "1")]
    launch(folder, "no_origin", 2, args, command=train_at_own_place)


def main(scenarios: str, folder: Path) -> None:
    torch.set_num_threads(1)
    # Optimizers import the compiler, which takes longer than a training here: once, before processes are forked.
    importlib.import_module("torch._dynamo")
    write_tiny_data(folder)
    {"together": train_together, "further": train_further, "lost": lose_each_other}[scenarios](folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
