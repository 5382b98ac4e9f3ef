"""What training on several processes exchanges and keeps in memory, computed from the networks of a Config.

Tested in ``tests/recipes/test_describe.py``.
"""

from typing import NamedTuple

from torch import nn

from gan_blocks import BatchNorm2d
from recipes._engine.errors import UserError
from recipes._engine.recipe import RecipeConfig

__all__ = ["Communication", "communication"]

FLOAT = 4  # bytes: weights, gradients and statistics are float32, under bf16 autocast too


class Communication(NamedTuple):
    """Of one training step and one process, in float32."""

    num_processes: int
    samples: int
    """Images of a batch in each process."""
    gradient_bytes: int
    """Gradients that are added up over all processes: D's at each of its updates, and G's."""
    norm_messages: int
    """Collective operations of G's BatchNorm: forward at each update of D, forward and backward at that of G."""
    norm_bytes: int
    """What a process contributes to them: count, mean and centred squares forward, two sums a channel backward."""
    state_bytes: int
    """Weights of G, its average and D, and a gradient and two moments of Adam for those of G and D."""

    def lines(self) -> list[str]:
        """Render for a console."""
        mebibyte = 2**20
        return [
            f"One step on {self.num_processes} processes, in float32, without micro-batches:",
            f"  batch per process   {self.samples:>10,} images",
            f"  gradients summed    {self.gradient_bytes / mebibyte:>10,.1f} MiB",
            f"  BatchNorm messages  {self.norm_messages:>10,} of {self.norm_bytes / 1024:,.1f} KiB in all",
            f"  weights, gradients, average and Adam {self.state_bytes / mebibyte:,.1f} MiB in each process",
        ]


def communication(
    config: RecipeConfig, generator: nn.Module, discriminator: nn.Module, num_processes: int
) -> Communication:
    """Count for networks on any device, the meta device too.

    Raises:
        UserError: If the processes cannot share a batch evenly.
    """
    if num_processes < 1 or config.batch_size % num_processes:
        rule = f"a divisor of the batch of {config.batch_size}"
        raise UserError(f"--world-size must be {rule}, but got {num_processes}.")
    of_g, of_d = (sum(p.numel() for p in network.parameters()) for network in (generator, discriminator))
    updates = config.discriminator_steps
    channels = [module.num_features for module in generator.modules() if isinstance(module, BatchNorm2d)]
    forward = sum(1 + 2 * count for count in channels) * (updates + 1)
    backward = sum(2 * count for count in channels)
    return Communication(
        num_processes,
        samples=config.batch_size // num_processes,
        gradient_bytes=FLOAT * (of_g + updates * of_d),
        norm_messages=len(channels) * (updates + 2),
        norm_bytes=FLOAT * (forward + backward),
        state_bytes=FLOAT * (5 * of_g + 4 * of_d),
    )
