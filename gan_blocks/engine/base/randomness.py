"""Random numbers as a function of (seed, step, purpose), so that a resumed run needs no history.

Tested in ``tests/engine/base/test_randomness.py``.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from operator import index

import torch
from torch import Tensor

__all__ = ["random_stream", "sample_indices", "seeded_construction", "seeded_noise"]


def random_stream(seed: int, *key: int | str, device: torch.device | str | None = None) -> torch.Generator:
    """Return a fresh generator that is a pure function of the seed and the key.

    The key says what the numbers are for, such as ``("latents", step)``. Keys that differ in a value, in a type
    (``1`` and ``"1"``), in order or in length give unrelated streams. Never change a key that a published run used.

    torch's CPU generator keeps 32 of the 64 bits of a seed: among a million steps of one purpose about a hundred
    pairs share their numbers, which repeats a draw and does no harm. The generator of a GPU keeps all 64.

    Args:
        seed: The seed of the run, any integer.
        key: Integers and strings that name the purpose.
        device: Where the numbers will be drawn; the CPU by default. Devices do not agree on the numbers.

    Returns:
        A generator that the caller owns.

    Raises:
        TypeError: If a part of the key is neither an integer nor a string.

    Example:
        >>> first, again = (torch.rand(2, generator=random_stream(0, "latents", 7)) for _ in range(2))
        >>> torch.equal(first, again)
        True
    """
    generator = torch.Generator(device=torch.device("cpu") if device is None else device)
    return generator.manual_seed(_hash((seed, *key)))


@contextmanager
def seeded_construction(seed: int, *key: int | str) -> Iterator[None]:
    """Build modules in the ``with`` block from initial weights that are a function of the seed and the key.

    torch's layers draw their weights from the global generator of the CPU: it is seeded on entry and as it was before
    on exit, so nothing else can tell.

    Args:
        seed: The seed of the run.
        key: Integers and strings that name what is built, such as ``"generator"``.

    Raises:
        TypeError: If a part of the key is neither an integer nor a string.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_hash((seed, "construction", *key)))
        yield


@contextmanager
def seeded_noise(seed: int, *key: int | str, device: torch.device) -> Iterator[None]:
    """Run networks in the ``with`` block so that their noise, such as dropout, is a function of the seed and the key.

    It comes from the global generators of the CPU and of the device, seeded on entry and as before on exit.

    Args:
        seed: The seed of the run.
        key: Integers and strings that name the pass, such as ``("generator", step)``.
        device: Where the networks are.

    Raises:
        TypeError: If a part of the key is neither an integer nor a string.
    """
    hashed = _hash((seed, "noise", *key))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(hashed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(hashed)
        yield


def sample_indices(seed: int, num_images: int, start: int, count: int, purpose: str = "") -> Tensor:
    """Return which images are samples ``start`` to ``start + count`` of an endless sequence of shuffled epochs.

    Sample s belongs to epoch s // num_images; an epoch holds each image once, in an order that depends on the seed and
    the epoch alone. Any batch is found without going through the ones before it, and no image is left out between
    epochs: a batch may hold the end of one and the start of the next.

    Args:
        seed: The seed of the run.
        num_images: Number of images, at least 1.
        start: Number of samples before the first one wanted, at least 0.
        count: How many are wanted, at least 0.
        purpose: Sequences of other purposes are unrelated.

    Returns:
        The int64 indices, each from 0 to num_images - 1.

    Shape:
        - returns: ``(count,)``

    Raises:
        ValueError: If ``num_images`` is less than 1, or ``start`` or ``count`` is negative.

    Example:
        >>> sample_indices(0, num_images=4, start=0, count=8).sort().values.tolist()
        [0, 0, 1, 1, 2, 2, 3, 3]
    """
    for name, value, least in (("num_images", num_images, 1), ("start", start, 0), ("count", count, 0)):
        if value < least:
            raise ValueError(f"sample_indices: `{name}` must be at least {least}, but got {name}={value}.")
    pieces = [torch.empty(0, dtype=torch.int64)]
    stop = start + count
    for epoch in range(start // num_images, -(-stop // num_images)):
        first = epoch * num_images
        pieces.append(_epoch_order(seed, num_images, epoch, purpose)[max(start - first, 0) : stop - first])
    return torch.cat(pieces)


# A batch reads at most two neighboring epochs; shuffling a large set anew for every batch would cost more than a step.
@lru_cache(maxsize=4)
def _epoch_order(seed: int, num_images: int, epoch: int, purpose: str) -> Tensor:
    key = ("epoch", purpose, epoch) if purpose else ("epoch", epoch)
    return torch.randperm(num_images, generator=random_stream(seed, *key))


def _hash(parts: tuple[int | str, ...]) -> int:
    # index() maps the integers of numpy and torch to Python's, and refuses floats; repr tells "1" from 1 and
    # quotes strings, so that no two keys share an encoding.
    plain = tuple(part if isinstance(part, str) else index(part) for part in parts)
    digest = hashlib.blake2b(repr(plain).encode(), digest_size=8, person=b"gan_blocks").digest()
    return int.from_bytes(digest, "little")
