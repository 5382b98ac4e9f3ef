"""Adversarial losses, one generator and one discriminator form each; minimax and non-saturating share the latter.

All take raw logits, of any shape: one an image, a map of patches, or a sequence of tensors from discriminators of
several scales, whose losses are added. Losses are computed in float32, or the dtype of wider logits. Where a paper
writes a probability, it is the logistic function of the logit; the loss is computed without forming it, so no logit is
too large.

Tested in ``tests/losses/test_adversarial.py``.
"""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value, check_positive
from gan_blocks.losses._logits import Logits, wide_scales_of

__all__ = [
    "bce_discriminator_loss",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "minimax_generator_loss",
    "non_saturating_generator_loss",
    "wasserstein_discriminator_loss",
    "wasserstein_generator_loss",
]

Reduction = Literal["mean", "sum", "none"]


def hinge_discriminator_loss(
    *, real_logits: Logits, fake_logits: Logits, margin: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Hinge loss of the discriminator: push real logits above the margin, generated ones below its negative.

    .. math:: L_D = \frac{1}{n}\sum_i \max(0, m - D(x_i)) + \frac{1}{n'}\sum_j \max(0, m + D(G(z_j)))

    The batches of real and generated images may differ in size; each is averaged on its own.

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images.
        margin: The margin m, greater than 0. The paper saw half of 1 hurt, up to 3 not prevent collapse, and more
            make training unstable (Appendix G.2).
        reduction: ``"mean"`` over each batch, ``"sum"``, or ``"none"`` for the loss of every pair of logits.

    Returns:
        The loss, at least 0.

    Shape:
        - real_logits: ``(...)``, or several of any shape
        - fake_logits: the same, of a size of its own
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If a batch is empty, the two differ in their number of scales or, where nothing is reduced, in
            shape, ``reduction`` is none of the three, or ``margin`` is not greater than 0.

    References:
        Lim and Ye 2017, "Geometric GAN"; Brock et al. 2018, section 3.

    Example:
        >>> hinge_discriminator_loss(real_logits=torch.tensor([0.5, 3.0]), fake_logits=torch.tensor([-2.0])).item()
        0.25
    """
    owner = "hinge_discriminator_loss"
    if not margin > 0:
        raise bad_value(owner, "margin", "greater than 0", margin)
    return _of_pairs(
        owner,
        real_logits,
        fake_logits,
        reduction,
        lambda real: F.relu(margin - real),
        lambda fake: F.relu(margin + fake),
    )


def hinge_generator_loss(*, fake_logits: Logits, reduction: Reduction = "mean") -> Tensor:
    r"""Generator's side of the hinge loss: raise the discriminator's output on generated images, without bound.

    .. math:: L_G = -\frac{1}{n}\sum_j D(G(z_j))

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one loss a logit.

    Returns:
        The loss, of any sign.

    Shape:
        - fake_logits: ``(...)``, or several of any shape
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If the batch is empty, or ``reduction`` is none of the three.

    References:
        Lim and Ye 2017, "Geometric GAN"; Brock et al. 2018, section 3.

    Example:
        >>> hinge_generator_loss(fake_logits=torch.tensor([1.0, 3.0])).item()
        -2.0
    """
    return _of_each("hinge_generator_loss", fake_logits, reduction, lambda fake: -fake)


def minimax_generator_loss(*, fake_logits: Logits, reduction: Reduction = "mean") -> Tensor:
    r"""Generator's side of the minimax game: lower the probability of being recognized.

    .. math:: L_G = \frac{1}{n}\sum_j \log\big(1 - s(D(G(z_j)))\big), \qquad s(a) = \frac{1}{1 + e^{-a}}

    Its gradient vanishes where the discriminator is sure that an image is generated, which is where the generator
    needs one most: :func:`non_saturating_generator_loss` is what one trains with. The discriminator's side of the
    game is :func:`bce_discriminator_loss`.

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one loss a logit.

    Returns:
        The loss, at most 0.

    Shape:
        - fake_logits: ``(...)``, or several of any shape
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If the batch is empty, or ``reduction`` is none of the three.

    References:
        Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1.

    Example:
        >>> minimax_generator_loss(fake_logits=torch.zeros(1)).item()
        -0.6931471824645996
    """
    return _of_each("minimax_generator_loss", fake_logits, reduction, lambda fake: -F.softplus(fake))


def bce_discriminator_loss(*, real_logits: Logits, fake_logits: Logits, reduction: Reduction = "mean") -> Tensor:
    r"""Cross-entropy of the discriminator, which tells real images from generated ones; minimax games have the same.

    .. math:: L_D = -\frac{1}{n}\sum_i \log s(D(x_i)) - \frac{1}{n'}\sum_j \log\big(1 - s(D(G(z_j)))\big), \qquad
        s(a) = \frac{1}{1 + e^{-a}}

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images; their number may differ.
        reduction: ``"mean"`` over each batch, ``"sum"``, or ``"none"`` for the loss of every pair of logits.

    Returns:
        The loss, at least 0; 2 log 2 where all logits are 0.

    Shape:
        - real_logits: ``(...)``, or several of any shape
        - fake_logits: the same, of a size of its own
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If a batch is empty, the two differ in their number of scales or, where nothing is reduced, in
            shape, or ``reduction`` is none of the three.

    References:
        Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1.

    Example:
        >>> bce_discriminator_loss(real_logits=torch.zeros(1), fake_logits=torch.zeros(1)).item()
        1.3862943649291992
    """
    owner = "bce_discriminator_loss"
    return _of_pairs(owner, real_logits, fake_logits, reduction, lambda real: F.softplus(-real), F.softplus)


def non_saturating_generator_loss(*, fake_logits: Logits, reduction: Reduction = "mean") -> Tensor:
    r"""Generator's loss with a gradient where it fails: raise the probability of passing for real.

    .. math:: L_G = -\frac{1}{n}\sum_j \log s(D(G(z_j))), \qquad s(a) = \frac{1}{1 + e^{-a}}

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one loss a logit.

    Returns:
        The loss, at least 0.

    Shape:
        - fake_logits: ``(...)``, or several of any shape
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If the batch is empty, or ``reduction`` is none of the three.

    References:
        Goodfellow et al. 2014, "Generative Adversarial Nets", section 3.

    Example:
        >>> non_saturating_generator_loss(fake_logits=torch.zeros(1)).item()
        0.6931471824645996
    """
    return _of_each("non_saturating_generator_loss", fake_logits, reduction, lambda fake: F.softplus(-fake))


def wasserstein_discriminator_loss(
    *, real_logits: Logits, fake_logits: Logits, reduction: Reduction = "mean"
) -> Tensor:
    r"""Loss of a Wasserstein critic: raise its output on real images above that on generated ones.

    .. math:: L_D = \frac{1}{n'}\sum_j D(G(z_j)) - \frac{1}{n}\sum_i D(x_i)

    Its negative estimates a distance only for a critic whose slope is bounded: by :func:`gradient_penalty`, by
    :func:`clip_weights_`, or by spectral norm. BigGANs trained with it were stable for no more than a few thousand
    steps, even with gradient penalties (Brock et al. 2018, Appendix G.2).

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images; their number may differ.
        reduction: ``"mean"`` over each batch, ``"sum"``, or ``"none"`` for the loss of every pair of logits.

    Returns:
        The loss, of any sign.

    Shape:
        - real_logits: ``(...)``, or several of any shape
        - fake_logits: the same, of a size of its own
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If a batch is empty, the two differ in their number of scales or, where nothing is reduced, in
            shape, or ``reduction`` is none of the three.

    References:
        Arjovsky et al. 2017, "Wasserstein GAN"; Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".

    Example:
        >>> wasserstein_discriminator_loss(
        ...     real_logits=torch.tensor([3.0]), fake_logits=torch.tensor([1.0])
        ... ).item()
        -2.0
    """
    owner = "wasserstein_discriminator_loss"
    return _of_pairs(owner, real_logits, fake_logits, reduction, lambda real: -real, lambda fake: fake)


def wasserstein_generator_loss(*, fake_logits: Logits, reduction: Reduction = "mean") -> Tensor:
    r"""Generator's side of the Wasserstein loss: raise the critic's output on generated images.

    .. math:: L_G = -\frac{1}{n}\sum_j D(G(z_j))

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one loss a logit.

    Returns:
        The loss, of any sign.

    Shape:
        - fake_logits: ``(...)``, or several of any shape
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If the batch is empty, or ``reduction`` is none of the three.

    References:
        Arjovsky et al. 2017, "Wasserstein GAN"; Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".

    Example:
        >>> wasserstein_generator_loss(fake_logits=torch.tensor([1.0, 3.0])).item()
        -2.0
    """
    return _of_each("wasserstein_generator_loss", fake_logits, reduction, lambda fake: -fake)


def least_squares_discriminator_loss(
    *, real_logits: Logits, fake_logits: Logits, fake_weight: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Squared distances of the discriminator's outputs from 1 for real images, 0 for generated ones.

    .. math:: L_D = \frac{1}{2n}\sum_i (D(x_i) - 1)^2 + \frac{w}{2n'}\sum_j D(G(z_j))^2

    Args:
        real_logits: Outputs of the discriminator on real images, any real values; larger means more real.
        fake_logits: Its outputs on generated images; their number may differ.
        fake_weight: The weight w of the second term, greater than 0; 0.1 in ProGAN's published code.
        reduction: ``"mean"`` over each batch, ``"sum"``, or ``"none"`` for the loss of every pair of logits.

    Returns:
        The loss, at least 0.

    Shape:
        - real_logits: ``(...)``, or several of any shape
        - fake_logits: the same, of a size of its own
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If a batch is empty, the two differ in their number of scales or, where nothing is reduced, in
            shape, ``reduction`` is none of the three, or ``fake_weight`` is not greater than 0.

    References:
        Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9; Karras et al. 2018, Appendix B.

    Example:
        >>> least_squares_discriminator_loss(
        ...     real_logits=torch.tensor([3.0]), fake_logits=torch.tensor([1.0])
        ... ).item()
        2.5
    """
    owner = "least_squares_discriminator_loss"
    check_positive(owner, fake_weight=fake_weight)
    return _of_pairs(
        owner,
        real_logits,
        fake_logits,
        reduction,
        lambda real: (real - 1).square() / 2,
        lambda fake: fake.square() * (fake_weight / 2),
    )


def least_squares_generator_loss(*, fake_logits: Logits, reduction: Reduction = "mean") -> Tensor:
    r"""Generator's side of the least squares loss: bring the outputs on generated images to 1.

    .. math:: L_G = \frac{1}{2n}\sum_j (D(G(z_j)) - 1)^2

    Args:
        fake_logits: Outputs of the discriminator on generated images, any real values; larger means more real.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one loss a logit.

    Returns:
        The loss, at least 0.

    Shape:
        - fake_logits: ``(...)``, or several of any shape
        - returns: ``()``; the shape of the logits if nothing is reduced

    Raises:
        ValueError: If the batch is empty, or ``reduction`` is none of the three.

    References:
        Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9; Karras et al. 2018, Appendix B.

    Example:
        >>> least_squares_generator_loss(fake_logits=torch.tensor([1.0, 3.0])).item()
        1.0
    """
    return _of_each("least_squares_generator_loss", fake_logits, reduction, lambda fake: (fake - 1).square() / 2)


def _of_pairs(
    owner: str,
    real_logits: Logits,
    fake_logits: Logits,
    reduction: Reduction,
    on_real: Callable[[Tensor], Tensor],
    on_fake: Callable[[Tensor], Tensor],
) -> Tensor:
    """The discriminator's loss: the sum of a function of its logits on real images and of one on generated images."""
    real, fake = wide_scales_of(owner, "real_logits", real_logits), wide_scales_of(owner, "fake_logits", fake_logits)
    if len(real) != len(fake):
        raise bad_value(owner, "fake_logits", f"as many tensors as `real_logits`, {len(real)}", len(fake))
    if reduction == "none" and real[0].shape != fake[0].shape:
        raise bad_shape(owner, "fake_logits", f'{tuple(real[0].shape)} with reduction="none"', fake[0])
    of_real, of_fake = (
        [_reduce(owner, function(scale), reduction, len(scales)) for scale in scales]
        for function, scales in ((on_real, real), (on_fake, fake))
    )
    return _total([one + other for one, other in zip(of_real, of_fake, strict=True)])


def _of_each(owner: str, fake_logits: Logits, reduction: Reduction, on_fake: Callable[[Tensor], Tensor]) -> Tensor:
    """The generator's loss: the sum of a function of the logits on generated images."""
    scales = wide_scales_of(owner, "fake_logits", fake_logits)
    return _total([_reduce(owner, on_fake(scale), reduction, len(scales)) for scale in scales])


def _reduce(owner: str, losses: Tensor, reduction: Reduction, num_scales: int) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction != "none" or num_scales > 1:
        rule = "mean or sum of several scales" if num_scales > 1 else "mean, sum or none"
        raise bad_value(owner, "reduction", rule, reduction)
    return losses


def _total(losses: list[Tensor]) -> Tensor:
    first, *others = losses
    return sum(others, first)
