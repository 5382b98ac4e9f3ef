"""Penalties on slopes and outputs of the discriminator, and on generators that ignore their latents.

A slope is the gradient of the sum of a discriminator's logits by one of its images. Penalties on slopes take second
derivatives, and there are two doors to each: :func:`zero_centered_penalty` takes images and the logits that the loss
has made of them, so that the discriminator runs once; :func:`r1_penalty` and :func:`gradient_penalty` take the
discriminator and run it themselves.

Under float16 autocast, slopes are computed some thousand times as large and divided again, since most would be less
than the least number of float16. The gradients of the penalty need a :class:`torch.amp.GradScaler`, as any there do.

Tested in ``tests/losses/test_penalties.py``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gan_blocks._checks import bad_kind, bad_shape, bad_value, check_module, check_positive, check_real_floating
from gan_blocks._transforms import uncompiled

__all__ = [
    "clip_weights_",
    "drift_penalty",
    "gradient_penalty",
    "lazy_coefficient",
    "mode_seeking_penalty",
    "r1_penalty",
    "twice_differentiable",
    "zero_centered_penalty",
]

Discriminator = Callable[[Tensor], Tensor]


def twice_differentiable() -> AbstractContextManager[None]:
    """Let attention take a kernel that has second derivatives, which the CPU's and CUDA's fastest have not.

    A context manager for the forward pass of a discriminator whose slopes are to be penalized:
    :class:`SelfAttention2d`, and whatever else calls :func:`torch.nn.functional.scaled_dot_product_attention`, takes
    the plain kernel inside. It is slower, so that a pass that needs no slopes is better made outside. Compiled models,
    which have first derivatives alone, run uncompiled inside.

    Returns:
        The context manager.

    Example:
        >>> from gan_blocks import SelfAttention2d
        >>> attention = SelfAttention2d(8)
        >>> images = torch.randn(2, 8, 4, 4, requires_grad=True)
        >>> with twice_differentiable():
        ...     logits = attention(images).sum((1, 2, 3))
        >>> zero_centered_penalty(images, logits).requires_grad
        True
    """
    return _plain_kernels()


@contextmanager
def _plain_kernels() -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH), uncompiled():
        yield


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
    _check_gamma(owner, gamma)
    _check_batch(owner, "images", images)
    if gamma == 0:
        return images.new_zeros(())
    scales = [logits] if isinstance(logits, Tensor) else list(logits)
    if not images.requires_grad:
        raise ValueError(
            f"{owner}: `images` must require gradients: call images.requires_grad_() before the discriminator takes "
            "them."
        )
    return gamma / 2 * _slopes(owner, images, scales).square().sum(1).mean()


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
    _check_gamma(owner, gamma)
    _check_batch(owner, "images", images)
    if gamma == 0:
        return images.new_zeros(())
    return gamma / 2 * _slopes_at(owner, discriminator, images).square().sum(1).mean()


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
    if not coefficient >= 0:
        raise bad_value(owner, "coefficient", "at least 0", coefficient)
    if not interval >= 1:
        raise bad_value(owner, "interval", "at least 1", interval)
    if not update >= 0:
        raise bad_value(owner, "update", "at least 0", update)
    return 0.0 if update % interval else coefficient * interval


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
    _check_batch(owner, "real_images", real_images)
    if fake_images.shape != real_images.shape:
        raise bad_shape(owner, "fake_images", str(tuple(real_images.shape)), fake_images)
    if interpolation is None:
        # Wide, since bfloat16 knows only a few hundred numbers between 0 and 1.
        dtype = torch.promote_types(real_images.dtype, torch.float32)
        interpolation = torch.rand(len(real_images), device=real_images.device, dtype=dtype, generator=generator)
    elif interpolation.shape != real_images.shape[:1]:
        raise bad_shape(owner, "interpolation", f"({len(real_images)},)", interpolation)
    shares = interpolation.to(real_images.dtype).reshape(-1, *[1] * (real_images.dim() - 1))
    fakes = fake_images.detach().to(real_images.dtype)  # under autocast a generator's images are narrower
    slopes = _slopes_at(owner, discriminator, torch.lerp(real_images.detach(), fakes, shares))
    lengths: Tensor = torch.linalg.vector_norm(slopes, dim=1)
    return coefficient * (lengths / target - 1).square().mean()


def drift_penalty(*, real_logits: Tensor, coefficient: float = 0.001) -> Tensor:
    r"""Keep the outputs of a Wasserstein critic, whose loss does not know their level, from drifting away from zero.

    .. math:: P = \epsilon_{drift}\, \frac{1}{n}\sum_i D(x_i)^2

    Args:
        real_logits: Outputs of the critic on real images, and on those alone.
        coefficient: The strength :math:`\epsilon_{drift}`, greater than 0.

    Returns:
        The scalar penalty, at least 0, for the critic's loss.

    Shape:
        - real_logits: ``(batch,)``
        - returns: ``()``

    Raises:
        ValueError: If the batch is empty or not one-dimensional, or ``coefficient`` is not greater than 0.

    References:
        Karras et al. 2018, Appendix A.1.

    Example:
        >>> drift_penalty(real_logits=torch.tensor([10.0, 20.0]), coefficient=0.5).item()
        125.0
    """
    check_positive("drift_penalty", coefficient=coefficient)
    if real_logits.dim() != 1 or real_logits.numel() == 0:
        raise bad_shape("drift_penalty", "real_logits", "(batch,) with at least one sample", real_logits)
    return coefficient * real_logits.square().mean()


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
        _check_batch(owner, name, first)
        if first.shape != second.shape:
            raise bad_shape(owner, name, f"twice {tuple(first.shape)}", second)
    if len(fake_images[0]) != len(z[0]):
        raise bad_shape(owner, "z", f"({len(fake_images[0])}, latent_dim)", z[0])
    distances = [(first - second).abs().mean() for first, second in (fake_images, z)]
    return 1 / (distances[0] / distances[1] + eps)


@torch.no_grad()
def clip_weights_(model: nn.Module, *, bound: float = 0.01) -> None:
    r"""Clip every parameter of a critic to an interval around zero, in place, after an update.

    .. math:: w \leftarrow \max(-c, \min(c, w))

    It bounds the critic's slope in the first Wasserstein GAN; :func:`gradient_penalty` is what replaced it. All
    parameters are clipped, biases too. Where a weight is parametrized, that is what the optimizer moves.

    Args:
        model: The critic.
        bound: The bound c, greater than 0.

    Raises:
        ValueError: If ``bound`` is not greater than 0.

    References:
        Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1.

    Example:
        >>> critic = torch.nn.Linear(3, 1)
        >>> clip_weights_(critic, bound=0.01)
        >>> critic.weight.abs().max().item() <= 0.01
        True
    """
    check_module("clip_weights_", "model", model)
    check_positive("clip_weights_", bound=bound)
    for parameter in model.parameters():
        parameter.clamp_(-bound, bound)


def _slopes_at(owner: str, discriminator: Discriminator, images: Tensor) -> Tensor:
    """The slopes at images, from a forward pass of its own."""
    if isinstance(discriminator, type) or not callable(discriminator):
        raise bad_kind(owner, "discriminator", "a module or a function of images", discriminator)
    images = images.detach().requires_grad_()
    with torch.enable_grad(), twice_differentiable():
        logits = discriminator(images)
        return _slopes(owner, images, [logits] if isinstance(logits, Tensor) else list(logits))


def _slopes(owner: str, images: Tensor, logits: Sequence[Tensor]) -> Tensor:
    """The gradient of the sum of the logits by each image, one row each, with a graph for D's weights."""
    for scale in logits:
        if scale.shape[:1] != images.shape[:1]:
            raise bad_shape(owner, "logits", f"({len(images)}, ...)", scale, "Every image has its own.")
    if torch.is_inference_mode_enabled():
        raise RuntimeError(f"{owner}: slopes need autograd, which torch.inference_mode() takes away.")
    used = [scale for scale in logits if scale.requires_grad]
    slopes = None
    for factor in _factors(images, logits) if used else ():
        weights = [torch.full_like(scale, factor) for scale in used]
        (slopes,) = torch.autograd.grad(used, images, weights, create_graph=True, allow_unused=True)
        if slopes is None:
            break
        slopes = slopes.to(torch.promote_types(slopes.dtype, torch.float32)) / factor
        if factor == 1 or slopes.isfinite().all():
            break
    if slopes is None:
        raise ValueError(
            f"{owner}: the logits must have been computed from these images, but they do not depend on them."
        )
    if _without_second_derivative(slopes):
        raise ValueError(
            f"{owner}: the logits must be twice differentiable, but an attention kernel on their way is not: compute "
            "them inside `with gan_blocks.twice_differentiable():`."
        )
    return slopes.flatten(1)


def _factors(images: Tensor, logits: Sequence[Tensor]) -> tuple[float, ...]:
    """By what to multiply slopes while they are computed: powers of 2, the next one where the last overflowed."""
    kind = images.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    narrow = autocast or any(tensor.dtype == torch.float16 for tensor in (images, *logits))
    narrow = narrow or any(node.name() == "ToCopyBackward0" for node in _graph(logits))  # a cast, perhaps from float16
    return (2.0**12, 2.0**4, 1.0) if narrow else (1.0,)


def _without_second_derivative(slopes: Tensor) -> bool:
    """Whether the graph of the slopes has a step that autograd cannot differentiate again."""
    return any(node.name().endswith("::NotImplemented") for node in _graph([slopes]))


def _graph(tensors: Iterable[Tensor]) -> Iterator[torch.autograd.graph.Node]:
    """The steps that tensors were computed by."""
    ahead, seen = [tensor.grad_fn for tensor in tensors], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        yield node
        seen.add(node)
        ahead += [following for following, _ in node.next_functions]


def _check_gamma(owner: str, gamma: float) -> None:
    if not gamma >= 0:
        raise bad_value(owner, "gamma", "at least 0", gamma)


def _check_batch(owner: str, name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise bad_kind(owner, name, "a tensor", value)
    if value.dim() < 2 or value.numel() == 0:
        raise bad_shape(owner, name, "(batch, ...) with at least one sample", value)
    check_real_floating(owner, name, value)
