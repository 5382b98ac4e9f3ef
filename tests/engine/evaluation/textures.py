"""Images whose patches can be compared."""

import torch
from torch import Tensor

from gan_blocks.engine.evaluation.patches import box_blurred


def textures(count: int, seed: int) -> Tensor:
    noise = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return (0.7 * box_blurred(noise) + 0.3 * noise).tanh()
