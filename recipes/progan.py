"""ProGAN: two networks that grow from 4x4 pixels upwards while they train (Karras et al. 2018, Table 2, Appendix A).

Each doubling of the resolution adds a block to both networks and fades it in; real images fade with the same alpha. The
generator normalises every pixel's features and works on latents of a hypersphere; the discriminator sees how much its
batch varies. All weights learn at one speed. The loss is WGAN-GP with a drift term, or least squares with noise
in the discriminator that grows as it gets surer (Appendix B).

Where the paper is silent, this follows its published code:

* The first 4x4 layer is normalised like every other, which section 4.2 says and Appendix A.1 does not.
* Gains of the equalised learning rate: 1 for toRGB and D's last layer, a fan-in of 512 * 16 for the first 4x4 layer.
* Minibatch statistics over groups of up to four samples, formed by a stride over the batch.
* Both optimisers start anew when a fade begins and when it ends.

Differences from the paper:

* The presets for digits and clothes are ours.
* What the noise of Appendix B follows, and its axes, are our reading (see gan_blocks.AdaptiveGaussianNoise).
* Row a of Table 1 has the channel table and the first layer of the others.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from gan_blocks import (
    AdaptiveGaussianNoise,
    BatchNorm2d,
    FromRGB,
    GrowthPosition,
    GrowthSchedule,
    MinibatchDiscrimination,
    MinibatchStdDev,
    NormalPrior,
    PixelNorm,
    Prior,
    ProgressiveDiscriminatorBlock,
    ProgressiveDiscriminatorHead,
    ProgressiveGeneratorBlock,
    ProgressiveGeneratorStem,
    SphericalPrior,
    ToRGB,
    downsample_average,
    drift_penalty,
    fade_images,
    fade_in,
    gradient_penalty,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    update_adaptive_noise,
    upsample_nearest,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)
from recipes._engine.batches import FakeBatch, PairBatch, StepBatches
from recipes._engine.config_checks import require, require_positive
from recipes._engine.config_fields import AdamFields, ImageFields, TrainingFields
from recipes._engine.he_layers import EqualizedLayers, HeLayers, HeNormalLayers
from recipes._engine.loop import train
from recipes._engine.state import TrainingState
from recipes._engine.updates import adam_optimizers, judge_fake, update_discriminator, update_generator

__all__ = ["PRESETS", "Config", "build_discriminator", "build_generator", "build_optimizers", "build_prior", "main"]

ConvLayer: TypeAlias = Callable[..., nn.Module]  # called like nn.Conv2d


@dataclass(frozen=True)
class Config(AdamFields, TrainingFields, ImageFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    num_classes: int = 1
    """1: ProGAN has no classes; those of the data are taken as one."""
    widths: tuple[int, ...] = (128, 128, 64, 32)
    """Channels of both networks at 4x4, 8x8, ... up to the full resolution."""
    latent: Literal["spherical", "normal"] = "spherical"
    """What z is drawn from: the hypersphere, or N(0, I)."""
    latent_dim: int = 128
    """Dimension of z."""

    initial_resolution: int = 4
    """Height and width that training starts with; the full resolution: no growth."""
    stabilize_images: int = 20_000
    """Real images shown at each resolution before the next one fades in."""
    fade_images: int = 20_000
    """Real images shown while a resolution fades in."""
    batch_sizes: tuple[int, ...] = ()
    """Images in a batch at 4x4, 8x8, ..., one number a resolution; none: --batch-size for all."""

    generator_norm: Literal["pixel", "batch", "none"] = "pixel"
    """Norm in G: of a pixel's features after the activation, over the batch before it, or none."""
    discriminator_norm: Literal["none", "layer"] = "none"
    """Norm in D before the activations that follow a 3x3 or 4x4 convolution."""
    batch_statistics: Literal["stddev", "discrimination", "none"] = "stddev"
    """What D sees of the other samples: their standard deviation, Salimans' minibatch discrimination, or nothing."""
    equalized: bool = True
    """Scale weights at run time (equalised learning rate); else once, by He's initialiser."""
    generator_output: Literal["leaky-linear", "relu-tanh"] = "leaky-linear"
    """G's activations: leaky ReLU and linear images, or ReLU and tanh."""

    loss: Literal["wasserstein", "least-squares"] = "wasserstein"
    """WGAN-GP, or least squares with adaptive noise in D (Appendix B)."""
    gradient_coefficient: float = 10.0
    """Coefficient lambda of WGAN-GP's gradient penalty."""
    gradient_target: float = 1.0
    """Slope gamma that it aims at (CIFAR-10: 750)."""
    drift_coefficient: float = 0.001
    """Coefficient of the drift term, on real images only; 0: none."""

    generator_lr: float = 1e-3
    """Adam's learning rate for G, constant."""
    discriminator_lr: float = 1e-3
    """Adam's learning rate for D, constant."""
    adam_beta2: float = 0.99
    """Adam's decay rate of the mean of squared gradients, for both networks."""
    discriminator_steps: int = 1
    """Updates of D for each update of G."""
    ema_decay: float = 0.999
    """Decay of the moving average of G that samples are drawn from; it is carried across growth."""
    ema_start: int = 0
    """The average follows G without delay for this many steps."""
    planned_steps: int = 12_500
    """Length of the run, in updates of G, unless --steps says otherwise."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        self.check_image_fields()
        self.check_training_fields()
        self.check_adam_fields()
        require(self, "num_classes", self.num_classes == 1, "1 (ProGAN has no classes)")
        require(self, "top_k_gamma", self.top_k_gamma == 1, "1 (batches change while the networks grow)")
        require_positive(self, "latent_dim", "stabilize_images", "fade_images", "widths")
        require_positive(self, "gradient_coefficient", "gradient_target")
        require(self, "drift_coefficient", self.drift_coefficient >= 0, "at least 0")
        size = 4 * 2 ** (len(self.widths) - 1)
        rule = f"{size}, which is 4 doubled once for each of --widths but the first"
        require(self, "resolution", self.resolution == size, rule)
        starts = [4 * 2**number for number in range(len(self.widths))]
        require(self, "initial_resolution", self.initial_resolution in starts, f"one of {starts}")
        fits = not self.batch_sizes or (len(self.batch_sizes) == len(self.widths) and min(self.batch_sizes) > 0)
        require(self, "batch_sizes", fits, f"{len(self.widths)} numbers greater than 0, as many as --widths, or none")

    @property
    def schedule(self) -> GrowthSchedule:
        """How the networks grow."""
        sizes = self.batch_sizes or (self.batch_size,) * len(self.widths)
        return GrowthSchedule(
            self.resolution,
            initial_resolution=self.initial_resolution,
            stabilize_images=self.stabilize_images,
            fade_images=self.fade_images,
            batch_sizes=tuple((4 * 2**number, size) for number, size in enumerate(sizes)),
        )

    def batch_size_at(self, step: int) -> int:
        """Images in a batch at a step, counted from 1."""
        return self.position(step).batch_size

    def images_before(self, step: int) -> int:
        """Real images that D has seen before a step, counted from 1."""
        return self.schedule.images_before(step, batches_per_step=self.discriminator_steps)

    def position(self, step: int) -> GrowthPosition:
        """Where the growth stands at a step, counted from 1."""
        return self.schedule.at(self.images_before(step))

    def lasting(self, images: int) -> "Config":
        """The same Config, planned until D has seen so many real images."""
        steps = bisect.bisect_left(range(images), images, key=lambda steps: self.images_before(steps + 1))
        return replace(self, planned_steps=steps)


def fashion_mnist_32() -> Config:
    """Fashion-MNIST in minutes: narrow networks, short phases; needs the data of Debian's dataset-fashion-mnist."""
    return Config(data="fashion-mnist").lasting(200_000)


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, with the networks for clothes."""
    return Config().lasting(200_000)


FULL_WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)  # Table 2
FULL_BATCHES = (16, 16, 16, 16, 16, 16, 14, 6, 3)  # Appendix A.1


def _full(resolution: int) -> Config:
    """Table 2 without its last blocks, and its schedule (Appendix A)."""
    schedule, number = GrowthSchedule.published(resolution), resolution.bit_length() - 2
    return Config(
        resolution=resolution,
        image_channels=3,
        widths=FULL_WIDTHS[:number],
        latent_dim=512,
        stabilize_images=schedule.stabilize_images,
        fade_images=schedule.fade_images,
        batch_sizes=FULL_BATCHES[:number],
    )


def celebahq_1024() -> Config:
    """CelebA-HQ at 1024x1024: Table 2 and Appendix A.1; give --data folder:PATH."""
    return replace(_full(1024), data="folder:data/celeba-hq", mirror=True).lasting(12_000_000)


def lsgan_1024() -> Config:
    """The same with least squares and adaptive noise (Appendix B)."""
    return replace(celebahq_1024(), loss="least-squares")


def lsun_256() -> Config:
    """One LSUN category at 256x256 (Appendix G; mirrored but for bedrooms and dogs); give --data folder:PATH."""
    return replace(_full(256), data="folder:data/lsun", mirror=True).lasting(12_000_000)


def cifar10_32() -> Config:
    """CIFAR-10 without labels and with fast transitions (section 6.5); give --data cifar10:PATH."""
    config = replace(_full(32), data="cifar10:data/cifar-10-binary.tar.gz", gradient_target=750.0)
    return config.lasting(12_000_000)


def table1_h() -> Config:
    """Row h of Table 1, converged: full capacity at 128x128; give --data folder:PATH."""
    return replace(_full(128), data="folder:data/celeba-128", mirror=True).lasting(12_000_000)


def table1_g() -> Config:
    """Row g, + pixelwise normalisation: all contributions in networks of low capacity (Appendix A.2)."""
    return replace(table1_h(), widths=(512, 512, 256, 128, 64, 32)).lasting(10_000_000)


def table1_f() -> Config:
    """Row f, + equalised learning rate."""
    return replace(table1_g(), generator_norm="none")


def table1_e() -> Config:
    """Row e, + minibatch standard deviation."""
    return replace(table1_f(), equalized=False)


def table1_e_star() -> Config:
    """Row e*, minibatch discrimination in its place."""
    return replace(table1_e(), batch_statistics="discrimination")


def table1_d() -> Config:
    """Row d, + revised training parameters, without batch and layer normalisation."""
    return replace(table1_e(), batch_statistics="none")


def table1_c() -> Config:
    """Row c, + small minibatch: 16 instead of 64."""
    return replace(table1_b(), batch_size=16).lasting(10_000_000)


def table1_b() -> Config:
    """Row b, + progressive growing."""
    return replace(table1_a(), initial_resolution=4).lasting(10_000_000)


def table1_a() -> Config:
    """Row a, the baseline of Gulrajani et al. 2017 as Appendix A.2 sets it up: full resolution from the start."""
    config = replace(
        table1_d(),
        initial_resolution=128,
        latent="normal",
        latent_dim=128,
        batch_sizes=(),
        batch_size=64,
        generator_norm="batch",
        discriminator_norm="layer",
        generator_output="relu-tanh",
        drift_coefficient=0.0,
        generator_lr=1e-4,
        discriminator_lr=1e-4,
        adam_beta2=0.9,
        discriminator_steps=5,
    )
    return config.lasting(10_000_000)


PRESETS = {
    "fashion-mnist-32": fashion_mnist_32,
    "mnist5k-32": mnist5k_32,
    "celebahq-1024": celebahq_1024,
    "lsgan-1024": lsgan_1024,
    "lsun-256": lsun_256,
    "cifar10-32": cifar10_32,
    "table1-a": table1_a,
    "table1-b": table1_b,
    "table1-c": table1_c,
    "table1-d": table1_d,
    "table1-e-star": table1_e_star,
    "table1-e": table1_e,
    "table1-f": table1_f,
    "table1-g": table1_g,
    "table1-h": table1_h,
}


class GrowingNetwork(nn.Module):
    """A network that knows how far it has grown; it is built fully grown.

    The images seen are a buffer, so that weights tell by themselves which of their layers are in use.
    """

    images_seen: Tensor

    def __init__(self, schedule: GrowthSchedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.register_buffer("images_seen", torch.tensor(schedule.growth_images))
        self.position = schedule.at(schedule.growth_images)

    def grow(self, images_seen: int) -> None:
        """Take the resolution and alpha that the schedule has after so many real images."""
        self.images_seen.fill_(images_seen)
        self.position = self.schedule.at(images_seen)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if not self.images_seen.is_meta:
            self.position = self.schedule.at(int(self.images_seen))


class Generator(GrowingNetwork):
    """G of Table 2: from z to images of the current resolution.

    Shape:
        - z: ``(batch, latent_dim)``, on the hypersphere of the paper
        - labels: ``(batch,)``, not looked at
        - returns: ``(batch, image_channels, size, size)``
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config.schedule)
        layers = _layers(config)
        conv: ConvLayer = layers.conv2d
        first: ConvLayer = layers.conv_transpose2d
        to_image: ConvLayer = partial(layers.conv2d, gain=1.0)
        act: Callable[[], nn.Module] = partial(nn.LeakyReLU, 0.2)
        norm: Callable[[int], nn.Module] = nn.Identity
        if config.generator_norm == "pixel":
            norm = _pixel_norm
        elif config.generator_norm == "batch":  # before the activation
            conv, first = _followed_by(conv, BatchNorm2d), _followed_by(first, BatchNorm2d)
        if config.generator_output == "relu-tanh":
            act, to_image = nn.ReLU, _followed_by(to_image, _tanh)
        self.stem = ProgressiveGeneratorStem(
            config.latent_dim,
            config.widths[0],
            conv_layer=conv,
            conv_transpose_layer=first,
            act_layer=act,
            norm_layer=norm,
        )
        self.blocks = nn.ModuleList(  # block i makes features of 8 * 2^i pixels from half of that
            ProgressiveGeneratorBlock(before, after, conv_layer=conv, act_layer=act, norm_layer=norm)
            for before, after in pairwise(config.widths)
        )
        self.to_rgb = nn.ModuleList(ToRGB(width, config.image_channels, conv_layer=to_image) for width in config.widths)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Generate one image for each row of ``z``, at the current resolution and alpha."""
        return self.generate(z, self.position.resolution, self.position.alpha)

    def generate(self, z: Tensor, resolution: int, alpha: float) -> Tensor:
        """Generate at any resolution, of which the last block has a share alpha."""
        level = _level(resolution)
        h: Tensor = self.stem(z)
        for block in self.blocks[: max(level - 1, 0)]:
            h = block(h)
        if level == 0:
            image: Tensor = self.to_rgb[0](h)
            return image
        image = self.to_rgb[level](self.blocks[level - 1](h))
        return image if alpha == 1 else fade_in(upsample_nearest(self.to_rgb[level - 1](h)), image, alpha)


class Discriminator(GrowingNetwork):
    """D of Table 2: from images of the current resolution to logits, larger for more real.

    Shape:
        - images: ``(batch, image_channels, size, size)``
        - labels: ``(batch,)``, not looked at
        - returns: ``(batch,)``
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config.schedule)
        layers = _layers(config)
        conv: ConvLayer = layers.conv2d
        if config.discriminator_norm == "layer":
            conv = _followed_by(conv, partial(nn.GroupNorm, 1))  # one group: all channels and pixels of a sample
        if config.loss == "least-squares":
            conv = _after_noise(conv)
        self.from_rgb = nn.ModuleList(
            FromRGB(width, config.image_channels, conv_layer=layers.conv2d) for width in config.widths
        )
        self.blocks = nn.ModuleList(  # block i takes features of 8 * 2^i pixels to half of that
            ProgressiveDiscriminatorBlock(after, before, conv_layer=conv) for before, after in pairwise(config.widths)
        )

        def score(features: int, outputs: int) -> nn.Module:
            if config.batch_statistics != "discrimination":
                return layers.linear(features, outputs)
            statistics = MinibatchDiscrimination(features, linear_layer=layers.linear)
            return nn.Sequential(statistics, layers.linear(features + statistics.num_kernels, outputs))

        self.head = ProgressiveDiscriminatorHead(
            config.widths[0],
            config.widths[0],
            stddev_layer=MinibatchStdDev if config.batch_statistics == "stddev" else None,
            conv_layer=conv,
            linear_layer=score,
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Judge each image, at the current resolution and alpha."""
        return self.judge(images, self.position.resolution, self.position.alpha)

    def judge(self, images: Tensor, resolution: int, alpha: float) -> Tensor:
        """Judge at any resolution, of which the first block has a share alpha.

        Raises:
            ValueError: If the images are of another resolution.
        """
        if images.shape[2:] != (resolution, resolution):
            got = tuple(images.shape)
            raise ValueError(
                f"Discriminator: `images` must be of {resolution}x{resolution} pixels, but got shape {got}."
            )
        level = _level(resolution)
        h: Tensor = self.from_rgb[level](images)
        if level > 0:
            h = self.blocks[level - 1](h)
            if alpha < 1:
                h = fade_in(self.from_rgb[level - 1](downsample_average(images)), h, alpha)
            for number in reversed(range(level - 1)):
                h = self.blocks[number](h)
        logits: Tensor = self.head(h)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))  # losses are averaged in float32


def _level(resolution: int) -> int:
    """How often 4 is doubled."""
    return resolution.bit_length() - 3


def _layers(config: Config) -> HeLayers:
    return EqualizedLayers() if config.equalized else HeNormalLayers()


def _pixel_norm(_channels: int) -> nn.Module:
    return PixelNorm()


def _tanh(_channels: int) -> nn.Module:
    return nn.Tanh()


def _followed_by(conv_layer: ConvLayer, last_layer: Callable[[int], nn.Module]) -> ConvLayer:
    """A factory of convolutions with a layer behind each, which is told the number of channels."""

    def build(in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> nn.Module:
        convolution = conv_layer(in_channels, out_channels, kernel_size, padding=padding)
        return nn.Sequential(convolution, last_layer(out_channels))

    return build


def _after_noise(conv_layer: ConvLayer) -> ConvLayer:
    """A factory of convolutions whose input is noisy (Appendix B)."""

    def build(in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> nn.Module:
        return nn.Sequential(
            AdaptiveGaussianNoise(), conv_layer(in_channels, out_channels, kernel_size, padding=padding)
        )

    return build


def build_generator(config: Config) -> Generator:
    """G with fresh weights from the global random state, fully grown."""
    return Generator(config)


def build_discriminator(config: Config) -> Discriminator:
    """D with fresh weights from the global random state, fully grown."""
    return Discriminator(config)


def build_prior(config: Config) -> Prior:
    """What z is drawn from."""
    return (SphericalPrior if config.latent == "spherical" else NormalPrior)(config.latent_dim)


build_optimizers = adam_optimizers


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """One step: grow, then ``discriminator_steps`` updates of D, and one of G and of its average."""
    position = _grow(state, config, batches.step)
    real_outputs: list[Tensor] = []

    def discriminator_loss(part: PairBatch) -> Tensor:
        real_images = real_images_at(part.real_images, position.resolution, position.alpha)
        with torch.no_grad():
            fake_images = state.generator(part.fake.z, part.fake.labels)
        critic = partial(state.discriminator, labels=part.real_labels)
        # Separate calls: the statistics across a batch of both would give the fakes away, and the reals too.
        real_logits, fake_logits = critic(real_images), critic(fake_images)
        real_outputs.append(real_logits.detach())
        if config.loss == "least-squares":
            return least_squares_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        loss = wasserstein_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        loss = loss + gradient_penalty(
            critic,
            real_images=real_images,
            fake_images=fake_images,
            coefficient=config.gradient_coefficient,
            target=config.gradient_target,
        )
        if config.drift_coefficient > 0:
            loss = loss + drift_penalty(real_logits=real_logits, coefficient=config.drift_coefficient)
        return loss

    def tell_noise(discriminator: nn.Module) -> None:
        update_adaptive_noise(discriminator, real_logits=torch.cat(real_outputs))
        real_outputs.clear()

    def generator_loss(fake: FakeBatch) -> Tensor:
        loss = least_squares_generator_loss if config.loss == "least-squares" else wasserstein_generator_loss
        return loss(fake_logits=judge_fake(state, fake))

    loss_d = update_discriminator(state, batches, config, discriminator_loss, before_step=tell_noise)
    loss_g = update_generator(state, batches, config, generator_loss)
    growth = {
        "resolution": torch.tensor(position.resolution),
        "alpha": torch.tensor(position.alpha, dtype=torch.float64),
    }
    return {"loss_d": loss_d, "loss_g": loss_g, **growth}


def _grow(state: TrainingState, config: Config, step: int) -> GrowthPosition:
    """Bring all networks to where the schedule is at a step, and let the optimisers start anew with a new phase."""
    images_seen, position = config.images_before(step), config.position(step)
    for network in (state.generator, state.discriminator, state.ema.module):
        assert isinstance(network, GrowingNetwork)
        network.grow(images_seen)
    if step > 1 and config.position(step - 1).phase != position.phase:
        for optimizer in (state.optimizer_g, state.optimizer_d):
            optimizer.state.clear()
    return position


def real_images_at(images: Tensor, resolution: int, alpha: float) -> Tensor:
    """Real images shrunk to a resolution by averaging, and faded with its half as the generator's are.

    Raises:
        ValueError: If the images are smaller, or their size is no doubling of the resolution.
    """
    if images.shape[-1] < resolution:
        rule = f"of at least {resolution}x{resolution} pixels"
        raise ValueError(f"real_images_at: `images` must be {rule}, but got shape {tuple(images.shape)}.")
    while images.shape[-1] > resolution:
        images = downsample_average(images)
    return images if alpha == 1 else fade_images(images, alpha)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or continue a run; see ``python -m recipes.progan --help``."""
    return train("progan", argv)


if __name__ == "__main__":
    raise SystemExit(main())
