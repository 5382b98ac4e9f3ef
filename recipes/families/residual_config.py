"""The fields of a Config whose networks are residual blocks: batch normalization, channel tables and attention."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gan_blocks.engine import Fields, LatentFields, require, require_positive
from recipes.families.attention import fit_stages
from recipes.families.resolution import require_doublings

__all__ = ["BatchNormFields", "ResidualFields"]


@dataclass(frozen=True)
class BatchNormFields(Fields):
    """Batch normalization in G."""

    help_group: ClassVar[str] = "networks"

    bn_eps: float = 1e-4
    """Added to the variance in G's BatchNorm.

    1e-4 in Appendix C. Weights of other code bring their own, and another one draws other images.
    """
    last_bn_eps: float = 1e-4
    """The same in G's last norm."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "bn_eps", "last_bn_eps")


@dataclass(frozen=True)
class ResidualFields(BatchNormFields, LatentFields):
    """Residual networks of SN-GAN's, SA-GAN's and BigGAN's kind."""

    help_group: ClassVar[str] = "networks"
    moved_fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "recipes.studies.appendix_h": {
            "generator_kernel_size": 3,
            "discriminator_kernel_size": 3,
            "generator_dilation": 1,
            "discriminator_dilation": 1,
            "upsampling": "nearest",
            "blocks_per_stage": 1,
            "discriminator_norm": "none",
        }
    }

    channels: int = 16
    """The channel unit ch."""
    generator_widths: tuple[int, ...] = (8, 4, 4, 2)
    """G's widths in ch, at 4x4, 8x8, ..."""
    discriminator_widths: tuple[int, ...] = (2, 4, 8, 8)
    """D's widths in ch, after each block."""
    discriminator_final_size: int = 4
    """Height at which D's blocks stop halving."""
    generator_attention: tuple[int, ...] = (16,)
    """Heights at which G has a non-local block.

    The paper has one: several at 128x128 gained nothing, and 256x256 wants it at 128.
    """
    discriminator_attention: tuple[int, ...] = (16,)
    """Heights at which D has a non-local block.

    The paper has it where G has, or at the largest that fits into memory. A height may be there once for each block
    that ends at it.
    """

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require_positive(self, "channels", "generator_widths", "discriminator_widths", "discriminator_final_size")
        require(self, "channels", self.channels % 8 == 0, "a multiple of 8")
        require_doublings(self, "generator_widths")
        halved = [self.resolution // 2**number for number in range(1, len(self.discriminator_widths) + 1)]
        sizes = [size for size in halved if size > 1]
        last = self.discriminator_final_size
        require(self, "discriminator_final_size", last in sizes, f"one of {sizes}, where its blocks lead")
        for field, heights in (
            ("generator_attention", self.generator_heights),
            ("discriminator_attention", self.discriminator_heights),
        ):
            require(self, field, fit_stages(getattr(self, field), heights), f"some of {list(dict.fromkeys(heights))}")

    @property
    def stages(self) -> int:
        """Changes of resolution in G."""
        return len(self.generator_widths) - 1

    @property
    def generator_heights(self) -> list[int]:
        """Height after each block of G."""
        return [8 * 2**number for number in range(self.stages)]

    @property
    def discriminator_heights(self) -> list[int]:
        """Height after each block of D."""
        halved = [self.resolution // 2**number for number in range(1, len(self.discriminator_widths) + 1)]
        return [max(height, self.discriminator_final_size) for height in halved]
