"""Adversarial losses, one generator and one discriminator form each; minimax and non-saturating share the latter.

All take raw logits. Where a paper writes a probability, it is the logistic function of the logit; the loss is computed
without forming it, so that no logit is too large.

Tested in ``tests/losses/test_adversarial.py``.
"""

import torch.nn.functional as F
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value

__all__ = [
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "minimax_generator_loss",
    "non_saturating_discriminator_loss",
    "non_saturating_generator_loss",
    "wasserstein_discriminator_loss",
    "wasserstein_generator_loss",
]


def hinge_discriminator_loss(*, real_logits: Tensor, fake_logits: Tensor, margin: float = 1.0) -> Tensor:
    r"""Hinge loss of the discriminator: push real logits above the margin, generated ones below its negative.

    .. math:: L_D = \frac{1}{n}\sum_i \max(0, m - D(x_i)) + \frac{1}{n'}\sum_j \max(0, m + D(G(z_j)))

    The batches of real and generated images may differ in size; each is averaged on its own.

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images.
        margin: The margin m, greater than 0. The paper saw half of 1 hurt, up to 3 neither help nor harm, and more
            make training unstable (Appendix G.2).

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


def minimax_generator_loss(*, fake_logits: Tensor) -> Tensor:
    r"""Generator's side of the minimax game: lower the probability of being recognized.

    .. math:: L_G = \frac{1}{n}\sum_j \log\big(1 - s(D(G(z_j)))\big), \qquad s(a) = \frac{1}{1 + e^{-a}}

    Its gradient vanishes where the discriminator is sure that an image is generated, which is where the generator
    needs one most: :func:`non_saturating_generator_loss` is what one trains with. The discriminator's side of the
    game is :func:`non_saturating_discriminator_loss`.

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.

    Returns:
        The scalar loss, at most 0.

    Shape:
        - fake_logits: ``(batch,)``
        - returns: ``()``

    Raises:
        ValueError: If the batch is empty or not one-dimensional.

    References:
        Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1.

    Example:
        >>> minimax_generator_loss(fake_logits=torch.zeros(1)).item()
        -0.6931471824645996
    """
    _check_logits("minimax_generator_loss", fake_logits=fake_logits)
    return -F.softplus(fake_logits).mean()


def non_saturating_discriminator_loss(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Cross-entropy of the discriminator, which tells real images from generated ones; minimax games have the same.

    .. math:: L_D = -\frac{1}{n}\sum_i \log s(D(x_i)) - \frac{1}{n'}\sum_j \log\big(1 - s(D(G(z_j)))\big), \qquad
        s(a) = \frac{1}{1 + e^{-a}}

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images; their number may differ.

    Returns:
        The scalar loss, at least 0; 2 log 2 where all logits are 0.

    Shape:
        - real_logits: ``(batch,)``
        - fake_logits: ``(batch',)``
        - returns: ``()``

    Raises:
        ValueError: If a batch is empty or not one-dimensional.

    References:
        Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1.

    Example:
        >>> non_saturating_discriminator_loss(real_logits=torch.zeros(1), fake_logits=torch.zeros(1)).item()
        1.3862943649291992
    """
    _check_logits("non_saturating_discriminator_loss", real_logits=real_logits, fake_logits=fake_logits)
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def non_saturating_generator_loss(*, fake_logits: Tensor) -> Tensor:
    r"""Generator's loss with a gradient where it fails: raise the probability of passing for real.

    .. math:: L_G = -\frac{1}{n}\sum_j \log s(D(G(z_j))), \qquad s(a) = \frac{1}{1 + e^{-a}}

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.

    Returns:
        The scalar loss, at least 0.

    Shape:
        - fake_logits: ``(batch,)``
        - returns: ``()``

    Raises:
        ValueError: If the batch is empty or not one-dimensional.

    References:
        Goodfellow et al. 2014, "Generative Adversarial Nets", section 3.

    Example:
        >>> non_saturating_generator_loss(fake_logits=torch.zeros(1)).item()
        0.6931471824645996
    """
    _check_logits("non_saturating_generator_loss", fake_logits=fake_logits)
    return F.softplus(-fake_logits).mean()


def wasserstein_discriminator_loss(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Loss of a Wasserstein critic: raise its output on real images above that on generated ones.

    .. math:: L_D = \frac{1}{n'}\sum_j D(G(z_j)) - \frac{1}{n}\sum_i D(x_i)

    Its negative estimates a distance only for a critic whose slope is bounded: by :func:`gradient_penalty`, by
    :func:`clip_weights_`, or by spectral norm. BigGANs trained with it were stable for no more than a few thousand
    steps, even with gradient penalties (Brock et al. 2018, Appendix G.2).

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images; their number may differ.

    Returns:
        The scalar loss, of any sign.

    Shape:
        - real_logits: ``(batch,)``
        - fake_logits: ``(batch',)``
        - returns: ``()``

    Raises:
        ValueError: If a batch is empty or not one-dimensional.

    References:
        Arjovsky et al. 2017, "Wasserstein GAN"; Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".

    Example:
        >>> wasserstein_discriminator_loss(
        ...     real_logits=torch.tensor([3.0]), fake_logits=torch.tensor([1.0])
        ... ).item()
        -2.0
    """
    _check_logits("wasserstein_discriminator_loss", real_logits=real_logits, fake_logits=fake_logits)
    return fake_logits.mean() - real_logits.mean()


def wasserstein_generator_loss(*, fake_logits: Tensor) -> Tensor:
    r"""Generator's side of the Wasserstein loss: raise the critic's output on generated images.

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
        Arjovsky et al. 2017, "Wasserstein GAN"; Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".

    Example:
        >>> wasserstein_generator_loss(fake_logits=torch.tensor([1.0, 3.0])).item()
        -2.0
    """
    _check_logits("wasserstein_generator_loss", fake_logits=fake_logits)
    return -fake_logits.mean()


def least_squares_discriminator_loss(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Squared distances of the discriminator's outputs from 1 for real images, 0 for generated ones.

    .. math:: L_D = \frac{1}{2n}\sum_i (D(x_i) - 1)^2 + \frac{1}{2n'}\sum_j D(G(z_j))^2

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images; their number may differ.

    Returns:
        The scalar loss, at least 0.

    Shape:
        - real_logits: ``(batch,)``
        - fake_logits: ``(batch',)``
        - returns: ``()``

    Raises:
        ValueError: If a batch is empty or not one-dimensional.

    References:
        Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9; Karras et al. 2018, Appendix B.

    Example:
        >>> least_squares_discriminator_loss(
        ...     real_logits=torch.tensor([3.0]), fake_logits=torch.tensor([1.0])
        ... ).item()
        2.5
    """
    _check_logits("least_squares_discriminator_loss", real_logits=real_logits, fake_logits=fake_logits)
    return ((real_logits - 1).square().mean() + fake_logits.square().mean()) / 2


def least_squares_generator_loss(*, fake_logits: Tensor) -> Tensor:
    r"""Generator's side of the least squares loss: bring the outputs on generated images to 1.

    .. math:: L_G = \frac{1}{2n}\sum_j (D(G(z_j)) - 1)^2

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.

    Returns:
        The scalar loss, at least 0.

    Shape:
        - fake_logits: ``(batch,)``
        - returns: ``()``

    Raises:
        ValueError: If the batch is empty or not one-dimensional.

    References:
        Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9; Karras et al. 2018, Appendix B.

    Example:
        >>> least_squares_generator_loss(fake_logits=torch.tensor([1.0, 3.0])).item()
        1.0
    """
    _check_logits("least_squares_generator_loss", fake_logits=fake_logits)
    return (fake_logits - 1).square().mean() / 2


def _check_logits(owner: str, **logits: Tensor) -> None:
    for name, value in logits.items():
        if value.dim() != 1 or value.numel() == 0:
            raise bad_shape(owner, name, "(batch,) with at least one sample", value)
