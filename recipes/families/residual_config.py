"""The fields of a Config whose networks are residual blocks: channel tables, attention, variants of Appendix H."""

from dataclasses import dataclass
from typing import Literal

from gan_blocks.engine import LatentFields, require, require_positive

__all__ = ["ResidualFields"]


@dataclass(frozen=True)
class ResidualFields(LatentFields):
    """Residual networks of SN-GAN's, SA-GAN's and BigGAN's kind; the last seven fields are results of Appendix H."""

    channels: int = 16
    """The channel unit ch."""
    generator_widths: tuple[int, ...] = (8, 4, 4, 2)
    """Generator's widths in units of ch, at 4x4, 8x8, ... up to the full resolution."""
    discriminator_widths: tuple[int, ...] = (2, 4, 8, 8)
    """Discriminator's widths in units of ch, after each block."""
    discriminator_final_size: int = 4
    """The discriminator's blocks halve the image until it has this height and width; later blocks keep it."""
    generator_attention: tuple[int, ...] = (16,)
    """Heights at which G has a non-local block (paper: one; several at 128x128 gain nothing, 256x256 wants 128)."""
    discriminator_attention: tuple[int, ...] = (16,)
    """Heights at which D has one (paper: as in G, or the largest that fits into memory)."""

    generator_kernel_size: int = 3
    """Filters of G's blocks (paper: 5 helps a little at a cost that is not justified, 7 hurts)."""
    discriminator_kernel_size: int = 3
    """Filters of D's blocks (paper: 5 and 7 hurt)."""
    generator_dilation: int = 1
    """Dilation of G's filters (paper: any hurts)."""
    discriminator_dilation: int = 1
    """Dilation of D's filters (paper: any hurts)."""
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    """How G doubles the resolution (paper: bilinear hurts)."""
    blocks_per_stage: int = 1
    """Blocks after each change of resolution, in both networks (paper: 2, the doubled depth, hurts)."""
    discriminator_norm: Literal["none", "batch"] = "none"
    """Norm before each activation in D's blocks, over real and fake images together (paper: cripples training)."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require_positive(self, "channels", "generator_widths", "discriminator_widths", "discriminator_final_size")
        require_positive(self, "blocks_per_stage")
        require(self, "channels", self.channels % 8 == 0, "a multiple of 8")
        size = 4 * 2**self.stages
        doubled = f"{size}, which is 4 doubled by {self.stages} generator stages"
        require(self, "resolution", self.resolution == size, doubled)
        halved = [self.resolution // 2**number for number in range(1, len(self.discriminator_widths) + 1)]
        sizes = [size for size in halved if size > 1]
        last = self.discriminator_final_size
        require(self, "discriminator_final_size", last in sizes, f"one of {sizes}, where its blocks lead")
        of_g = [8 * 2**number for number in range(self.stages)]
        for field, places in (
            ("generator_attention", of_g),
            ("discriminator_attention", [size for size in sizes if size >= last]),
        ):
            asked = getattr(self, field)
            require(self, field, set(asked) <= set(places) and len(set(asked)) == len(asked), f"some of {places}")
        for network in ("generator", "discriminator"):
            kernel, dilation = f"{network}_kernel_size", f"{network}_dilation"
            require(self, kernel, getattr(self, kernel) in (1, 3, 5, 7), "1, 3, 5 or 7")
            require_positive(self, dilation)
            useless = getattr(self, kernel) == 1 and getattr(self, dilation) > 1
            require(self, dilation, not useless, f"1 with --{kernel.replace('_', '-')} 1, which has nothing to spread")

    @property
    def stages(self) -> int:
        """Changes of resolution in G."""
        return len(self.generator_widths) - 1
