"""One rank of three whose batch top-k chooses from; run as a process of its own by test_top_k_global.py.

``python -m tests.losses.top_k_ranks RANK RENDEZVOUS_FILE`` prints this rank's results as JSON.
"""

import json
import math
import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gan_blocks import distributed_top_k, hinge_generator_loss

SIZES = ((4, 3), (2, 4), (1, 3))  # of the micro-batches of each rank: unequal
BATCH = sum(map(sum, SIZES))
K = 7
TIED = [1.0, 0.0, 2.0, math.nan, 1.0, 1.0, 0.0, 3.0, 1.0, 1.0, math.nan, 1.0, 1.0, -1.0, 1.0, 2.0, 1.0]


def networks() -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator in float64, the same in every process."""
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    discriminator = nn.Sequential(nn.Linear(5, 8), nn.Softplus(), nn.Linear(8, 1), nn.Flatten(0)).double()
    return generator, discriminator


def latents() -> Tensor:
    return torch.randn(BATCH, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def own_parts(values: Tensor, rank: int) -> list[Tensor]:
    mine = values.split([sum(sizes) for sizes in SIZES])[rank]
    return list(mine.split(SIZES[rank]))


def gradient_of_the_whole_batch(rank: int) -> tuple[list[float], list[int]]:
    """Each part's share of the gradient, summed over the parts; and how many samples each of this rank's parts kept."""
    generator, discriminator = networks()
    parts = own_parts(latents(), rank)
    with torch.no_grad():
        selections = distributed_top_k([discriminator(generator(z)) for z in parts], K)
    for z, selection in zip(parts, selections, strict=True):
        if selection.share:
            fake_logits = discriminator(generator(z)[selection.mask])
            (selection.share * hinge_generator_loss(fake_logits=fake_logits)).backward()
    gradient = torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in generator.parameters()]
    )
    dist.all_reduce(gradient)
    return gradient.tolist(), [int(selection.mask.sum()) for selection in selections]


def main(rank: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=len(SIZES))
    gradient, kept = gradient_of_the_whole_batch(rank)
    tied = distributed_top_k(own_parts(torch.tensor(TIED), rank), K)
    try:
        distributed_top_k(own_parts(torch.tensor(TIED), rank), BATCH + 1)
        error = ""
    except ValueError as wrong:
        error = str(wrong)
    report = {
        "gradient": gradient,
        "kept": kept,
        "tied": [flag for selection in tied for flag in selection.mask.tolist()],
        "num_nan": tied[0].num_nan,
        "error": error,
    }
    sys.stdout.write(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
