"""ProGAN: two networks that grow from 4x4 pixels upwards while they train (Karras et al. 2018, Table 2, Appendix A).

Each doubling of the resolution adds a block to both networks and fades it in; real images fade with the same alpha. The
generator normalizes every pixel's features and works on latents of a hypersphere; the discriminator sees how much its
batch varies. All weights learn at one speed. The loss is WGAN-GP with a drift term, or least squares with noise
in the discriminator that grows as it gets surer (Appendix B).

Where the paper is silent, this follows its published code:

* The first 4x4 layer is normalized like every other, which section 4.2 says and Appendix A.1 does not.
* Gains of the equalized learning rate: 1 for toRGB and D's last layer, a fan-in of 512 * 16 for the first 4x4 layer.
* Both optimizers start anew when a fade begins and when it ends.
* The noise of Appendix B: its axes, its size and what it follows (see gan_blocks.AdaptiveGaussianNoise).

A preset that is named after a table or a data set of the paper is as that code, which made the numbers, has it; what
the text says otherwise stands below the preset's name here and, setting by setting, in docs/progan.md.

Differences from the paper:

* The presets for digits and clothes are ours; their minibatch statistics are over groups of up to four samples.
* Row a of Table 1 has the channel table and the first layer of the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from gan_blocks import (
    NormalPrior,
    Prior,
    SphericalPrior,
    drift_penalty,
    gradient_penalty,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    update_adaptive_noise,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)
from gan_blocks.engine import (
    FakeBatch,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingState,
    fake_images_of,
    require,
    require_at_least,
    require_positive,
    score_fake,
    update_discriminator,
    update_generator,
)
from recipes.families.growing import (
    GrowingDiscriminator,
    GrowingGenerator,
    grow_networks,
    log_of_schedules,
    real_images_at,
)
from recipes.families.growing_config import GrowingFields

__all__ = ["PRESETS", "RECIPE", "Config"]


@dataclass(frozen=True)
class Config(GrowingFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    loss: Literal["wasserstein", "least-squares"] = "wasserstein"
    """WGAN-GP, or least squares with adaptive noise in D (Appendix B)."""
    fake_weight: float = 1.0
    """Weight of generated images in D's least squares."""
    gradient_coefficient: float = 10.0
    """Coefficient lambda of WGAN-GP's gradient penalty."""
    gradient_target: float = 1.0
    """Slope gamma that it aims at (CIFAR-10: 750)."""
    drift_coefficient: float = 0.001
    """Drift term's coefficient (real images); 0: none."""

    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    adam_beta2: float = 0.99
    discriminator_steps: int = 1
    joint_updates: bool = False
    """Update both at once, from the weights before."""
    ema_decay: float = 0.999
    """Decay of G's average, carried across growth."""
    ema_start: int = 0
    planned_steps: int = 6250

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "gradient_coefficient", "gradient_target")
        require_at_least(self, 0, "drift_coefficient")
        require_positive(self, "fake_weight")
        steps = self.discriminator_steps
        require(self, "discriminator_steps", steps == 1 or not self.joint_updates, "1 with --joint-updates")


def fashion_mnist_32() -> Config:
    """Fashion-MNIST in minutes: narrow networks, short phases; needs the data of Debian's dataset-fashion-mnist."""
    return replace(mnist5k_32(), data="fashion-mnist")


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, with the networks for clothes."""
    return replace(Config(), ema_decay=0.99).lasting(100_000)  # the average of a short run must not lag far behind


FULL_WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)  # Table 2
FULL_BATCHES = (16, 16, 16, 16, 16, 16, 14, 6, 3)  # Appendix A.1


def _full(resolution: int) -> Config:
    """Table 2 without its last blocks, batches of 16, and phases of 800,000 images (Appendix A.2)."""
    return Config(
        resolution=resolution,
        image_channels=3,
        widths=FULL_WIDTHS[: resolution.bit_length() - 2],
        latent_dim=512,
        stabilize_images=800_000,
        fade_images=800_000,
        batch_size=16,
        stddev_group_size=0,
    )


def celebahq_1024() -> Config:
    """CelebA-HQ at 1024x1024 (Table 2, Appendix A.1); give --data folder:PATH.

    The paper's text: phases of 600,000 images, no rise of the learning rates, no length.
    """
    config = replace(_full(1024), data="folder:data/celeba-hq", mirror=True, batch_sizes=FULL_BATCHES)
    return replace(config, rampup_images=40_000).lasting(19_000_000)


def lsgan_1024() -> Config:
    """The same with least squares and adaptive noise (Appendix B), which its code has, though no settings of this run.

    The paper's text: no weight of generated images in D's loss, and no noise that grows with a layer's width.
    """
    return replace(celebahq_1024(), loss="least-squares", fake_weight=0.1)


def lsun_256() -> Config:
    """One LSUN category at 256x256 (Appendix G); give --data folder:PATH, and --no-mirror for bedrooms and dogs.

    The paper's text: batches of 14 at 256x256, no rise of the learning rates, no length.
    """
    config = replace(_full(256), data="folder:data/lsun", mirror=True, rampup_images=40_000)
    return config.lasting(20_000_000)


def cifar10_32() -> Config:
    """CIFAR-10 without labels and with fast transitions (section 6.5, Appendix D); give --data cifar10:PATH.

    The paper's text: "the same as for CelebA" but for gamma, that is 512 channels and latents, phases of 800,000
    images and updates in turn; no length.
    """
    config = replace(
        _full(32),
        data="cifar10:data/cifar-10-binary.tar.gz",
        widths=(128, 128, 128, 128),
        latent_dim=128,
        stabilize_images=400_000,
        fade_images=400_000,
        gradient_target=750.0,
        joint_updates=True,
    )
    return config.lasting(20_000_000)


def table1_h() -> Config:
    """Row h of Table 1, converged: full capacity at 128x128; give --data folder:PATH, and --no-mirror for bedrooms.

    Neither the text nor its code says how long; 12 million images are ours.
    """
    return replace(_full(128), data="folder:data/celeba-128", mirror=True).lasting(12_000_000)


def table1_g() -> Config:
    """Row g, + pixelwise normalization: all contributions in networks of low capacity (Appendix A.2)."""
    return replace(table1_h(), widths=(512, 512, 256, 128, 64, 32)).lasting(10_000_000)


def table1_f() -> Config:
    """Row f, + equalized learning rate, with which the rates are 1e-3, and no longer 1e-4."""
    return replace(table1_g(), generator_norm="none")


def table1_e() -> Config:
    """Row e, + minibatch standard deviation."""
    return replace(table1_f(), equalized=False, generator_lr=1e-4, discriminator_lr=1e-4)


def table1_e_star() -> Config:
    """Row e*, minibatch discrimination in its place."""
    return replace(table1_e(), batch_statistics="discrimination")


def table1_d() -> Config:
    """Row d, + revised training parameters, without batch and layer normalization.

    The paper's text has a learning rate of 1e-4 only in row a; it stays that low up to row e.
    """
    return replace(table1_e(), batch_statistics="none")


def table1_c() -> Config:
    """Row c, + small minibatch: 16 instead of 64."""
    return replace(table1_b(), batch_size=16, ema_decay=0.999**5).lasting(10_000_000)


def table1_b() -> Config:
    """Row b, + progressive growing."""
    return replace(table1_a(), initial_resolution=4).lasting(10_000_000)


def table1_a() -> Config:
    """Row a, the baseline of Gulrajani et al. 2017 as Appendix A.2 sets it up: full resolution from the start.

    The paper's text has one decay of G's average, 0.999. Here rows a to c forget as fast as that in images.
    """
    config = replace(
        table1_d(),
        initial_resolution=128,
        latent="normal",
        latent_dim=128,
        batch_size=64,
        generator_norm="batch",
        discriminator_norm="layer",
        generator_output="relu-tanh",
        drift_coefficient=0.0,
        adam_beta2=0.9,
        discriminator_steps=5,
        ema_decay=0.999**20,  # of 0.999 for every 16 images of D, which an update of G has 320 of
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


def build_discriminator(config: Config) -> GrowingDiscriminator:
    """D with fresh weights from the global random state, fully grown."""
    return GrowingDiscriminator(config, noisy=config.loss == "least-squares")


def build_prior(config: Config) -> Prior:
    """What z is drawn from."""
    return (SphericalPrior if config.latent == "spherical" else NormalPrior)(config.latent_dim)


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """One step: grow, then ``discriminator_steps`` updates of D, and one of G and of its average."""
    position = grow_networks(state, config, batches.step)
    fake_outputs: dict[int, list[Tensor]] = {}  # of each update of D, by its number

    def discriminator_loss(part: PairBatch) -> dict[str, Tensor]:
        real_images = real_images_at(part.real_images, position.resolution, position.alpha)
        fake_images = fake_images_of(state, part)
        discriminator = partial(state.discriminator, labels=part.real_labels)
        # Separate calls: the statistics across a batch of both would give the fakes away, and the reals too.
        real_logits, fake_logits = discriminator(real_images), discriminator(fake_images)
        if config.loss == "least-squares":
            fake_outputs.setdefault(part.update, []).append(fake_logits.detach())
            loss = least_squares_discriminator_loss(
                real_logits=real_logits, fake_logits=fake_logits, fake_weight=config.fake_weight
            )
            return {"loss_d": loss}
        terms = {"loss_d": wasserstein_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)}
        terms["gradient_penalty"] = gradient_penalty(
            discriminator,
            real_images=real_images,
            fake_images=fake_images,
            coefficient=config.gradient_coefficient,
            target=config.gradient_target,
        )
        if config.drift_coefficient > 0:
            terms["drift_penalty"] = drift_penalty(real_logits=real_logits, coefficient=config.drift_coefficient)
        return terms

    def generator_loss(fake: FakeBatch) -> dict[str, Tensor]:
        loss = least_squares_generator_loss if config.loss == "least-squares" else wasserstein_generator_loss
        return {"loss_g": loss(fake_logits=score_fake(state, fake))}

    if config.joint_updates:
        losses = _update_together(state, batches, config, discriminator_loss, generator_loss)
    else:
        losses = update_discriminator(state, batches, config, discriminator_loss)
        losses |= update_generator(state, batches, config, generator_loss)
    if config.loss == "least-squares":
        update_adaptive_noise(state.discriminator, fake_logits=torch.cat(fake_outputs[max(fake_outputs)]))
    return losses | log_of_schedules(config, position)


def _update_together(
    state: TrainingState,
    batches: StepBatches,
    config: Config,
    discriminator_loss: Callable[[PairBatch], dict[str, Tensor]],
    generator_loss: Callable[[FakeBatch], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Both updates from the weights before the step and from the same generated images.

    G is updated while D's gradients, complete, wait for D's step: neither has seen the other move.
    """
    shared, of_g = batches.with_shared_latents(), dict[str, Tensor]()

    def update_g(_discriminator: nn.Module) -> None:
        of_g.update(update_generator(state, shared, config, generator_loss))

    return update_discriminator(state, shared, config, discriminator_loss, before_step=update_g) | of_g


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=GrowingGenerator,
    build_discriminator=build_discriminator,
    train_step=train_step,
    build_prior=build_prior,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
