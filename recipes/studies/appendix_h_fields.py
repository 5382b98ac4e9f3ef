"""The options of ``recipes.studies.appendix_h`` but those of singular values, with what the paper saw of each.

Tested in ``tests/recipes/studies/test_appendix_h.py``.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from gan_blocks.engine import Fields, require, require_at_least, require_positive
from recipes.families.regularization import require_coefficients

__all__ = ["NetworkFields", "RegularizerFields"]


@dataclass(frozen=True)
class NetworkFields(Fields):
    """Variants of BigGAN's networks."""

    help_group: ClassVar[str] = "variants of the networks"

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
    generator_norm: Literal["batch", "weight", "none"] = "batch"
    """What G normalizes: features by batch, or only filters, by length or sigma (paper: both cripple training)."""
    embedding_hidden: int = 0
    """Width of a hidden layer between condition and gains or biases (paper: no benefit); 0: a linear projection."""
    share_embedding: bool = False
    """D compares features with a projection of G's embedding (paper: helps at first, scales poorly)."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require_positive(self, "blocks_per_stage")
        require_at_least(self, 0, "embedding_hidden")
        for network in ("generator", "discriminator"):
            kernel, dilation = f"{network}_kernel_size", f"{network}_dilation"
            require(self, kernel, getattr(self, kernel) in (1, 3, 5, 7), "1, 3, 5 or 7")
            require_positive(self, dilation)
            useless = getattr(self, kernel) == 1 and getattr(self, dilation) > 1
            require(self, dilation, not useless, f"1 with --{kernel.replace('_', '-')} 1, which has nothing to spread")


@dataclass(frozen=True)
class RegularizerFields(Fields):
    """Regularizers of weights, gradients and features."""

    help_group: ClassVar[str] = "variants of the regularizers"

    orthogonal_equation: Literal[2, 3] = 3
    """3 makes filters orthogonal; 2 also holds their length at 1 (paper: often too limiting)."""
    discriminator_orthogonal_penalty: float = 0.0
    """Coefficient of the orthogonal penalty in D's loss (paper: stabilizes at a substantial cost); 0: none."""
    discriminator_l2_penalty: float = 0.0
    """Coefficient of half D's squared parameters in its loss (paper: enough of it stabilizes, at a cost); 0: none."""
    discriminator_dropout: float = 0.0
    """Share of D's last features dropped in training (paper: 0.2 stabilizes, but the Inception Score ends at 70)."""
    embedding_weight_decay: float = 0.0
    """Coefficient of half G's squared class embeddings in its loss (paper: 1e-6 hurts, 1e-8 does nothing); 0: none."""
    gradient_clip: float = 0.0
    """Shorten gradients to this norm at most (paper: does not alleviate instability); 0: no clipping."""
    gradient_clip_scope: Literal["network", "parameter"] = "network"
    """What has that norm: the gradient of a whole network, or that of each parameter."""
    hinge_margin: float = 1.0
    """Margin of D's hinge loss (paper: half of 1 hurts, up to 3 prevents no collapse, more is unstable)."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require(self, "hinge_margin", 0 < self.hinge_margin < math.inf, "a finite number greater than 0")
        numbers = ("discriminator_orthogonal_penalty", "discriminator_l2_penalty", "embedding_weight_decay")
        require_coefficients(self, *numbers, "gradient_clip")
        clips = self.gradient_clip_scope == "network" or self.gradient_clip > 0
        require(self, "gradient_clip_scope", clips, "network without --gradient-clip")
        require(self, "discriminator_dropout", 0 <= self.discriminator_dropout < 1, "at least 0 and less than 1")
