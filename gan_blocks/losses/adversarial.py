"""Adversarial losses, one generator and one discriminator form each.

Tested in ``tests/losses/test_adversarial.py``.
"""

import torch.nn.functional as F
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value

__all__ = ["hinge_discriminator_loss", "hinge_generator_loss"]


def hinge_discriminator_loss(*, real_logits: Tensor, fake_logits: Tensor, margin: float = 1.0) -> Tensor:
    r"""Hinge loss of the discriminator: push real logits above the margin, generated ones below its negative.

    .. math:: L_D = \frac{1}{n}\sum_i \max(0, m - D(x_i)) + \frac{1}{n'}\sum_j \max(0, m + D(G(z_j)))

    The batches of real and generated images may differ in size; each is averaged on its own.

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images.
        margin: The margin m, greater than 0. Appendix H of the paper tried others than 1 and saw no gain.

    Returns:
        The scalar loss, at least 0.

    Shape:
        - real_logits: ``(batch,)``
        - fake_logits: ``(batch',)``
        - returns: ``()``

    Raises:
        ValueError: If a batch is empty or not one-dimensional, or ``margin`` is not greater than 0.

    References:
        Lim and Ye 2017, "Geometric GAN"; Brock et al. 2018, section 3.

    Example:
        >>> hinge_discriminator_loss(real_logits=torch.tensor([0.5, 3.0]), fake_logits=torch.tensor([-2.0])).item()
        0.25
    """
    owner = "hinge_discriminator_loss"
    if not margin > 0:
        raise bad_value(owner, "margin", "greater than 0", margin)
    _check_logits(owner, real_logits=real_logits, fake_logits=fake_logits)
    return F.relu(margin - real_logits).mean() + F.relu(margin + fake_logits).mean()


def hinge_generator_loss(*, fake_logits: Tensor) -> Tensor:
    r"""Generator's side of the hinge loss: raise the discriminator's output on generated images, without bound.

    .. math:: L_G = -\frac{1}{n}\sum_j D(G(z_j))

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.

    Returns:
        The scalar loss, of any sign.

    Shape:
        - fake_logits: ``(batch,)``
        - returns: ``()``

    Raises:
        ValueError: If the batch is empty or not one-dimensional.

    References:
        Lim and Ye 2017, "Geometric GAN"; Brock et al. 2018, section 3.

    Example:
        >>> hinge_generator_loss(fake_logits=torch.tensor([1.0, 3.0])).item()
        -2.0
    """
    _check_logits("hinge_generator_loss", fake_logits=fake_logits)
    return -fake_logits.mean()


def _check_logits(owner: str, **logits: Tensor) -> None:
    for name, value in logits.items():
        if value.dim() != 1 or value.numel() == 0:
            raise bad_shape(owner, name, "(batch,) with at least one sample", value)
