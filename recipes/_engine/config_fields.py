"""Fields that the Configs of several recipes share, as frozen dataclasses to inherit from, with their checks.

A recipe's Config inherits the groups that its system has and adds its networks. The defaults are those of the small
presets; a preset states what it needs otherwise.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from recipes._engine.config_checks import require, require_positive, require_within

__all__ = ["AdamFields", "ImageFields", "TopKPlayers", "TrainingFields"]

TopKPlayers = Literal["generator", "discriminator", "both"]


@dataclass(frozen=True)
class ImageFields:
    """The images to learn."""

    data: str = "mnist5k"
    """Training images: mnist5k, stacked-mnist5k, fashion-mnist, npz:PATH, folder:PATH, shards:PATH or cifar10:PATH."""
    resolution: int = 32
    """Height and width of the images in pixels: 4 doubled once per stage of the generator."""
    image_channels: int = 1
    """1 for grey images, 3 for RGB."""
    num_classes: int = 10
    """Number of classes; labels run from 0 to this less one. 1: the classes of the data are taken as one."""
    mirror: bool = False
    """Show each real image as it is and mirrored, left to right, which doubles the data."""

    def check_image_fields(self) -> None:
        """Reject what cannot work; for ``__post_init__``."""
        require_positive(self, "num_classes")
        require(self, "image_channels", self.image_channels in (1, 3), "1 or 3")


@dataclass(frozen=True)
class AdamFields:
    """One Adam optimizer for each network, at a constant rate."""

    generator_lr: float = 1.5e-3
    """Adam's learning rate for G, constant."""
    discriminator_lr: float = 1e-3
    """Adam's learning rate for D, constant."""
    adam_beta1: float = 0.0
    """Adam's decay rate of the mean of gradients, for both networks."""
    adam_beta2: float = 0.999
    """Adam's decay rate of the mean of squared gradients, for both networks."""

    def check_adam_fields(self) -> None:
        """Reject what cannot work; for ``__post_init__``."""
        require_positive(self, "generator_lr", "discriminator_lr")
        require_within(self, 0, 1, "adam_beta1", "adam_beta2")


@dataclass(frozen=True)
class TrainingFields:
    """The course of a training: batches, updates, averaging, length."""

    batch_size: int = 16
    """Images in a batch, over all micro-batches."""
    discriminator_steps: int = 2
    """Updates of D for each update of G (the paper found 2 best for ImageNet; with 1, digits of a class look alike)."""
    top_k_gamma: float = 1.0
    """Top-k training: G learns from the k best-scored samples, k times this after each epoch; 1: from all."""
    top_k_floor: float = 0.5
    """Least k of top-k training: a share of the batch up to 1, or else a number of images."""
    top_k_decay_images: int = 0
    """Real images shown to D between two decays of k; 0: those of an epoch, as in the paper."""
    top_k_players: TopKPlayers = "generator"
    """Whose loss sees the k best samples alone; top-k training is the generator's, all else breaks it (Table 5)."""
    ema_decay: float = 0.98
    """Decay of the moving average of G that samples are drawn from."""
    ema_start: int = 100
    """The average follows G without delay for this many steps."""
    standing_batches: int = 50
    """Batches whose pooled statistics BatchNorm uses for samples (Appendix C.1)."""
    planned_steps: int = 1500
    """Length of the run, in updates of G, unless --steps says otherwise."""
    seed: int = 0
    """All randomness is a function of this, the step and the purpose."""

    def check_training_fields(self) -> None:
        """Reject what cannot work; for ``__post_init__``."""
        require_positive(self, "batch_size", "discriminator_steps", "standing_batches", "planned_steps")
        require(self, "top_k_gamma", 0 < self.top_k_gamma <= 1, "greater than 0 and at most 1")
        floor, most = self.top_k_floor, self.batch_size
        whole = float(floor).is_integer() and 1 < floor <= most
        rule = f"a share greater than 0 and at most 1, or a whole number up to the batch of {most}"
        require(self, "top_k_floor", 0 < floor <= 1 or whole, rule)
        require(self, "top_k_decay_images", self.top_k_decay_images >= 0, "at least 0")
        players = get_args(TopKPlayers)
        require(self, "top_k_players", self.top_k_players in players, f"one of {', '.join(players)}")
        require_within(self, 0, 1, "ema_decay")
        require_within(self, 0, 2**63 - 1, "ema_start", "seed")

    def batch_size_at(self, step: int) -> int:  # noqa: ARG002
        """Images in a batch at a step, counted from 1; it may change in a network that grows."""
        return self.batch_size

    def all_batch_sizes(self) -> tuple[int, ...]:
        """The sizes of all batches that a run may have."""
        return (self.batch_size,)

    def images_before(self, step: int) -> int:
        """Real images that D has seen before a step, counted from 1."""
        return (step - 1) * self.discriminator_steps * self.batch_size_at(step)
