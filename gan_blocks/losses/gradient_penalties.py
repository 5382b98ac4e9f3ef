"""Penalties on the slopes of the discriminator.

There are two doors to each: :func:`zero_centered_penalty` takes images and the logits that the loss has made of them,
so that the discriminator runs once; :func:`r1_penalty` and :func:`gradient_penalty` take the discriminator and run it
themselves. All take second derivatives. Under float16 autocast, their gradients need a :class:`torch.amp.GradScaler`,
as any there do.

Tested in ``tests/losses/test_gradient_penalties.py``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value, check_at_least_0, check_batch, check_positive
from gan_blocks._precision import wide_dtype
from gan_blocks.losses.slopes import Discriminator, slopes_at, slopes_of

__all__ = ["gradient_penalty", "lazy_coefficient", "r1_penalty", "zero_centered_penalty"]


def zero_centered_penalty(images: Tensor, logits: Tensor | Sequence[Tensor], gamma: float = 10.0) -> Tensor:
    r"""Penalize the slope of the discriminator at images whose logits are at hand: R1 at real ones, R2 at generated.

    .. math:: R = \frac{\gamma}{2}\, \frac{1}{n}\sum_i \|\nabla_x D(x_i)\|^2

    The logits are those of the loss itself, so that the discriminator runs once for both::

        real_images.requires_grad_()
        with twice_differentiable():
            real_logits = discriminator(real_images)
        loss = hinge_discriminator_loss(real_logits=real_logits, fake_logits=discriminator(fake_images))
        loss = loss + zero_centered_penalty(real_images, real_logits, gamma=10.0)

    No logit may depend on another image. What the paper saw of it is told of :func:`r1_penalty`.

    Args:
        images: The images, or data of any other shape, as the discriminator took them; they require gradients.
        logits: What it made of them, of any shape, such as a map of patches, or one tensor for each scale.
        gamma: The strength :math:`\gamma`, at least 0; with 0 nothing is computed. Half of it multiplies the mean.

    Returns:
        The scalar penalty, at least 0, for the discriminator's loss.

    Shape:
        - images: ``(batch, ...)``
        - logits: ``(batch, ...)``, or a sequence of such tensors
        - returns: ``()``

    Raises:
        ValueError: If the batch is empty, ``images`` do not require gradients, ``logits`` were not computed from them
            or have no second derivative, or ``gamma`` is negative.

    References:
        Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", section 4.1, for both.

    Example:
        >>> images = torch.zeros(4, 2, requires_grad=True)
        >>> zero_centered_penalty(images, logits=3 * images.sum(1), gamma=1.0).item()  # 2 * 9 / 2
        9.0
    """
    owner = "zero_centered_penalty"
    check_at_least_0(owner, gamma=gamma)
    check_batch(owner, "images", images)
    if gamma == 0:
        return images.new_zeros(())
    scales = [logits] if isinstance(logits, Tensor) else list(logits)
    if not images.requires_grad:
        raise ValueError(
            f"{owner}: `images` must require gradients: call images.requires_grad_() before the discriminator takes "
            "them."
        )
    return gamma / 2 * slopes_of(owner, images, scales).square().sum(1).mean()


def r1_penalty(discriminator: Discriminator, images: Tensor, gamma: float = 10.0) -> Tensor:
    r"""R1: penalize the slope of the discriminator at real images, in a forward pass of its own.

    .. math:: R_1 = \frac{\gamma}{2}\, \frac{1}{n}\sum_i \|\nabla_x D(x_i)\|^2

    :func:`zero_centered_penalty` is the same for logits that are at hand, and saves that pass. Either costs the
    discriminator's update a second derivative; :func:`lazy_coefficient` spreads that over several updates. No logit may
    depend on another image.

    **What the paper saw.** With 10 training was stable and spectra smooth, but the Inception Score fell by 45%; with
    1, the least that kept training from collapsing suddenly, by 20% (Brock et al. 2018, section 4.2).

    Args:
        discriminator: The discriminator as a function of images alone, such as ``lambda x: discriminator(x, labels)``.
        images: Real images, or data of any other shape; their own history is cut.
        gamma: The strength :math:`\gamma`, at least 0; with 0 nothing is computed. Half of it multiplies the mean.

    Returns:
        The scalar penalty, at least 0, for the discriminator's loss.

    Shape:
        - images: ``(batch, ...)``
        - returns: ``()``

    Raises:
        ValueError: If the batch is empty, ``discriminator`` gives not every image its own logits, computed from it, or
            ``gamma`` is negative.
        TypeError: If ``images`` are no tensor of a real floating dtype.

    References:
        Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?"; Brock et al. 2018, equation 5.

    Example:
        >>> r1_penalty(lambda x: 3 * x.sum(1), torch.zeros(4, 2), gamma=1.0).item()  # 2 * 9 / 2
        9.0
    """
    owner = "r1_penalty"
    check_at_least_0(owner, gamma=gamma)
    check_batch(owner, "images", images)
    if gamma == 0:
        return images.new_zeros(())
    return gamma / 2 * slopes_at(owner, discriminator, images).square().sum(1).mean()


def gradient_penalty(
    discriminator: Discriminator,
    *,
    real_images: Tensor,
    fake_images: Tensor,
    coefficient: float = 10.0,
    target: float = 1.0,
    interpolation: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""WGAN-GP: hold the slope of a discriminator near a target, on the lines between real and generated images.

    .. math:: P = \frac{\lambda}{n}\sum_i \frac{\big(\|\nabla D(\hat x_i)\| - \gamma\big)^2}{\gamma^2}, \qquad
        \hat x_i = x_i + t_i\, (G(z_i) - x_i), \qquad t_i \sim U[0, 1]

    Each pair of a real and a generated image has one t for all of its pixels. The slope is that of the sum of the
    outputs: a discriminator with batch normalization does not fit. One with minibatch statistics does as in the ProGAN
    paper, whose slope includes what a sample does to the others' outputs.

    Args:
        discriminator: The discriminator as a function of images alone, such as ``lambda x: discriminator(x, labels)``.
        real_images: Real images, or data of any other shape; their history is cut, as is that of the others.
        fake_images: As many generated ones.
        coefficient: The strength :math:`\lambda`, greater than 0.
        target: The slope :math:`\gamma`, greater than 0: 1, or 750 as ProGAN has it for CIFAR-10.
        interpolation: The shares t of the generated images, one per pair; None draws them.
        generator: Source of that draw, on the device of the images; None takes torch's global one.

    Returns:
        The scalar penalty, at least 0, for the discriminator's loss.

    Shape:
        - real_images: ``(batch, ...)``
        - fake_images: same as ``real_images``
        - interpolation: ``(batch,)``
        - returns: ``()``

    Raises:
        ValueError: If shapes differ, the batch is empty, ``discriminator`` gives not every image its own logits,
            computed from it, or a number is not greater than 0.

    References:
        Gulrajani et al. 2017, "Improved Training of Wasserstein GANs"; Karras et al. 2018, section 6.5, for the target.

    Example:
        >>> images = {"real_images": torch.zeros(4, 1), "fake_images": torch.ones(4, 1)}
        >>> gradient_penalty(lambda x: 3 * x.sum(1), **images).item()  # 10 * (3 - 1)^2
        40.0
    """
    owner = "gradient_penalty"
    check_positive(owner, coefficient=coefficient, target=target)
    check_batch(owner, "real_images", real_images)
    if fake_images.shape != real_images.shape:
        raise bad_shape(owner, "fake_images", str(tuple(real_images.shape)), fake_images)
    if interpolation is None:
        # Wide, since bfloat16 knows only a few hundred numbers between 0 and 1.
        dtype = wide_dtype(real_images)
        interpolation = torch.rand(len(real_images), device=real_images.device, dtype=dtype, generator=generator)
    elif interpolation.shape != real_images.shape[:1]:
        raise bad_shape(owner, "interpolation", f"({len(real_images)},)", interpolation)
    shares = interpolation.to(real_images.dtype).reshape(-1, *[1] * (real_images.dim() - 1))
    fakes = fake_images.detach().to(real_images.dtype)  # under autocast a generator's images are narrower
    slopes = slopes_at(owner, discriminator, torch.lerp(real_images.detach(), fakes, shares))
    lengths: Tensor = torch.linalg.vector_norm(slopes, dim=1)
    return coefficient * (lengths / target - 1).square().mean()


def lazy_coefficient(coefficient: float, *, interval: int, update: int) -> float:
    r"""Coefficient of a penalty that is computed every few updates only, and is stronger for it.

    .. math:: \gamma_t = N \gamma \;\text{ if } N \text{ divides } t, \;\text{ else } 0

    The mean over the updates is :math:`\gamma`. Where it is 0, leave the penalty out::

        if gamma := lazy_coefficient(10.0, interval=16, update=update):
            loss = loss + r1_penalty(discriminator, images, gamma)

    Args:
        coefficient: The strength :math:`\gamma` that an update would have had, at least 0.
        interval: The interval N in updates, at least 1; 1 is every update.
        update: The number t of the update, at least 0. The first one, 0, has the penalty.

    Returns:
        The coefficient for this update.

    Raises:
        ValueError: If an argument is outside its range.

    References:
        Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix B, which chooses 16.

    Example:
        >>> [lazy_coefficient(10.0, interval=4, update=update) for update in range(6)]
        [40.0, 0.0, 0.0, 0.0, 40.0, 0.0]
    """
    owner = "lazy_coefficient"
    check_at_least_0(owner, coefficient=coefficient, update=update)
    if not interval >= 1:
        raise bad_value(owner, "interval", "at least 1", interval)
    return 0.0 if update % interval else coefficient * interval
