"""A penalty on generators that ignore their latents.

Tested in ``tests/losses/test_mode_seeking.py``.
"""

from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value, check_batch, check_positive

__all__ = ["mode_seeking_penalty"]


def mode_seeking_penalty(*, fake_images: tuple[Tensor, Tensor], z: tuple[Tensor, Tensor], eps: float = 1e-5) -> Tensor:
    r"""MSGAN: penalize a generator that draws like images from unlike latents.

    .. math:: P = \Big(\frac{d_I}{d_z} + \epsilon\Big)^{-1}, \qquad
        d_I = \overline{|G(z_1, y) - G(z_2, y)|}, \quad d_z = \overline{|z_1 - z_2|}

    The means run over all components of the whole batch: so the penalty of a batch is not the mean of those of its
    parts, and where one is accumulated each part counts for itself. The paper's formula is a ratio of distances; means
    of absolute differences, and the reciprocal, are its released code's. Add it to the generator's loss with weight 1.

    Args:
        fake_images: Images generated from ``z[0]`` and from ``z[1]``, pairwise with the same labels.
        z: Two batches of latents; they must not be equal.
        eps: Added to the ratio, greater than 0: the largest penalty is its reciprocal.

    Returns:
        The scalar penalty, greater than 0, for the generator's loss.

    Shape:
        - fake_images: twice ``(batch, ...)``
        - z: twice ``(batch, latent_dim)``
        - returns: ``()``

    Raises:
        ValueError: If the two tensors of a pair differ in shape, the batch sizes differ or are zero, or ``eps`` is not
            greater than 0.

    References:
        Mao et al. 2019, "Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis", equation 2.

    Example:
        >>> z = torch.zeros(2, 3), torch.ones(2, 3)
        >>> mode_seeking_penalty(fake_images=(torch.zeros(2, 5), torch.full((2, 5), 0.5)), z=z, eps=0.5).item()
        1.0
    """
    owner = "mode_seeking_penalty"
    check_positive(owner, eps=eps)
    for name, pair in (("fake_images", fake_images), ("z", z)):
        if len(pair) != 2:
            raise bad_value(owner, name, "two tensors", pair)
        first, second = pair
        check_batch(owner, name, first)
        if first.shape != second.shape:
            raise bad_shape(owner, name, f"twice {tuple(first.shape)}", second)
    if len(fake_images[0]) != len(z[0]):
        raise bad_shape(owner, "z", f"({len(fake_images[0])}, latent_dim)", z[0])
    distances = [(first - second).abs().mean() for first, second in (fake_images, z)]
    return 1 / (distances[0] / distances[1] + eps)
