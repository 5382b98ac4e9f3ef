"""What a training step keeps in memory and what its processes exchange, computed from the networks of a Config.

Tested in ``tests/engine/commands/test_describe.py``.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.inspection.activation_memory import activation_bytes
from gan_blocks.engine.recipe.config import TrainingConfig

__all__ = ["StepCosts", "step_costs"]

FLOAT = 4  # bytes: weights, gradients and statistics are float32, under bf16 autocast too
KIBIBYTE, MEBIBYTE = 2**10, 2**20


class StepCosts(NamedTuple):
    """Of one training step and one process, in float32, without micro-batches."""

    num_processes: int
    samples: int
    """Images of a batch in each process, at the end of a training that changes it."""
    state_bytes: int
    """Weights of G, its average and D, and a gradient and two moments of Adam for those of G and D."""
    activations_g: int
    """Bytes of G's activations that autograd keeps, for each image."""
    activations_d: int
    """Bytes of D's."""
    gradient_bytes: int
    """Gradients that are added up over all processes: D's at each of its updates, and G's."""
    norm_messages: int
    """Collective operations of G's BatchNorm: forward at each update of D, forward and backward at that of G."""
    norm_bytes: int
    """What a process contributes to them: count, mean and centered squares forward, two sums a channel backward."""

    @property
    def update_bytes(self) -> tuple[int, int]:
        """Activations of an update of G, whose images go through D, and of D, on as many real and generated images.

        A penalty on D's gradients keeps more.
        """
        return self.samples * (self.activations_g + self.activations_d), self.samples * 2 * self.activations_d

    def lines(self) -> list[str]:
        """Render for a console."""
        per_image = " and ".join(f"{size / MEBIBYTE:,.1f}" for size in (self.activations_g, self.activations_d))
        per_update = " and ".join(f"{size / MEBIBYTE:,.1f}" for size in self.update_bytes)
        lines = [
            f"One step in float32, {self.samples:,} images a process, without micro-batches or gradient penalties:",
            f"  weights, gradients, average and Adam         {self.state_bytes / MEBIBYTE:,.1f} MiB",
            f"  activations kept for each image, G and D     {per_image} MiB",
            f"  activations kept in an update of G, and of D {per_update} MiB",
        ]
        if self.num_processes > 1:
            lines += [
                f"  gradients summed over {self.num_processes:,} processes: {self.gradient_bytes / MEBIBYTE:,.1f} MiB",
                f"  messages of BatchNorm: {self.norm_messages:,}, of {self.norm_bytes / KIBIBYTE:,.1f} KiB in all",
            ]
        return lines


def step_costs(
    config: TrainingConfig,
    networks: tuple[nn.Module, nn.Module],
    inputs: tuple[tuple[Tensor, ...], tuple[Tensor, ...]],
    num_processes: int,
) -> StepCosts:
    """Count for networks on the meta device.

    Args:
        config: Says how large a batch is, and how many updates of D there are.
        networks: G and D.
        inputs: What each of them takes, for one image.
        num_processes: How many share a batch.

    Raises:
        UserError: If the processes cannot share a batch evenly.
    """
    batch_size = config.batch_size_at(config.planned_steps)
    if num_processes < 1 or batch_size % num_processes:
        raise UserError(f"--world-size must be a divisor of the batch of {batch_size}, but got {num_processes}.")
    of_g, of_d = (sum(p.numel() for p in network.parameters()) for network in networks)
    updates = config.discriminator_steps
    sharing: list[Any] = [module for module in networks[0].modules() if hasattr(module, "exchanged_floats")]
    exchanged = [module.exchanged_floats for module in sharing]
    forward = sum(ahead for ahead, _ in exchanged) * (updates + 1)
    backward = sum(back for _, back in exchanged)
    activations = [activation_bytes(network, one) for network, one in zip(networks, inputs, strict=True)]
    return StepCosts(
        num_processes,
        samples=batch_size // num_processes,
        state_bytes=FLOAT * (5 * of_g + 4 * of_d),
        activations_g=activations[0],
        activations_d=activations[1],
        gradient_bytes=FLOAT * (of_g + updates * of_d),
        norm_messages=len(exchanged) * (updates + 2),
        norm_bytes=FLOAT * (forward + backward),
    )
