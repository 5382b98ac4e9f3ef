"""Training steps and samples of published code, at the sizes of ours, on a CPU.

Each function imports the peer from its folder and returns what takes one step (or draws one batch), written as that
code's own training function has it, with the settings of its scripts.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim

from benchmarks.peers.folders import folder_of, imported, quietly
from gan_blocks.engine import TrainingConfig

__all__ = ["biggan_pytorch", "gan_zoo", "mimicry", "pretrained_biggan"]

Taken = Callable[[int], object]


def biggan_pytorch(peers: Path, config: Any, *, deep: bool, full: bool) -> Taken:
    """BigGAN-PyTorch's step, with its EMA and orthogonal regularization if ``full``."""
    name = "BigGANdeep" if deep else "BigGAN"
    unneeded = ["torchvision", "torchvision.transforms", "datasets", "animal_hash"]
    folder = folder_of(peers, "BigGAN-PyTorch")
    model, losses, utils = imported(folder, [name, "losses", "utils"], unneeded=unneeded)
    common = {"resolution": config.resolution, "n_classes": config.num_classes, "SN_eps": 1e-6, "adam_eps": 1e-6}
    of_g = {"G_ch": config.channels, "dim_z": config.latent_dim, "shared_dim": config.embedding_dim, "hier": True}
    of_g |= {"G_attn": "64", "G_shared": True, "G_activation": nn.ReLU(inplace=True), "BN_eps": 1e-5}
    of_d = {"D_ch": config.channels, "D_attn": "64", "D_activation": nn.ReLU(inplace=True)}
    with quietly():
        g, d = model.Generator(**common, **of_g), model.Discriminator(**common, **of_d)
        average = model.Generator(**common, **of_g, skip_init=True, no_optim=True) if full else None
        ema = utils.ema(g, average, 0.9999, 20_000) if full else None
    both = model.G_D(g, d)
    batch, updates = config.batch_size, config.discriminator_steps
    real = torch.rand(updates, batch, 3, config.resolution, config.resolution) * 2 - 1

    def drawn() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(batch, g.dim_z), torch.randint(config.num_classes, (batch,))

    def step(number: int) -> object:
        utils.toggle_grad(d, True)
        utils.toggle_grad(g, False)
        for update in range(updates):
            d.optim.zero_grad()
            z, y = drawn()
            scores = both(z, y, real[update], y, train_G=False)
            sum(losses.discriminator_loss(*scores)).backward()
            d.optim.step()
        utils.toggle_grad(d, False)
        utils.toggle_grad(g, True)
        g.optim.zero_grad()
        loss = losses.generator_loss(both(*drawn(), train_G=True))
        loss.backward()
        if full:
            utils.ortho(g, 1e-4, blacklist=list(g.shared.parameters()))
        g.optim.step()
        if ema is not None:
            ema.update(number)
        return loss.item()

    return step


def gan_zoo(peers: Path, config: Any) -> Taken:
    """The ProGAN of pytorch_GAN_zoo, fully grown, with WGAN-GP and drift."""
    (module,) = imported(folder_of(peers, "pytorch_GAN_zoo"), ["models.progressive_gan"])
    first, *others = config.widths

    class Gan(module.ProgressiveGAN):  # type: ignore[name-defined, misc]
        """With betas that are both floats, which torch asks for today."""

        def getOptimizerD(self) -> optim.Optimizer:  # noqa: N802
            return optim.Adam(self.netD.parameters(), betas=(0.0, 0.99), lr=self.config.learningRate)

        def getOptimizerG(self) -> optim.Optimizer:  # noqa: N802
            return optim.Adam(self.netG.parameters(), betas=(0.0, 0.99), lr=self.config.learningRate)

    gan = Gan(
        dimLatentVector=config.latent_dim,
        depthScale0=first,
        miniBatchStdDev=True,
        lossMode="WGANGP",
        lambdaGP=10.0,
        epsilonD=0.001,
        baseLearningRate=0.001,
        useGPU=False,
    )
    for width in others:
        gan.addScale(width)
    real = torch.rand(config.batch_size, 3, config.resolution, config.resolution) * 2 - 1
    return lambda _number: gan.optimizeParameters(real)


def mimicry(peers: Path, config: TrainingConfig, *, conditional: bool) -> Taken:
    """Mimicry's SN-GAN for 32x32, or its conditional twin with the projection discriminator, which ours is."""
    kind, prefix = ("cgan_pd", "CGANPD") if conditional else ("sngan", "SNGAN")
    bare = ["torch_mimicry", "torch_mimicry.nets", "torch_mimicry.training", f"torch_mimicry.nets.{kind}"]
    names = [f"torch_mimicry.nets.{kind}.{kind}_32", "torch_mimicry.training.metric_log"]
    networks, log = imported(folder_of(peers, "mimicry"), names, bare=bare)
    classes = {"num_classes": config.num_classes} if conditional else {}
    g = getattr(networks, f"{prefix}Generator32")(**classes)
    d = getattr(networks, f"{prefix}Discriminator32")(**classes)
    of_g, of_d = (optim.Adam(network.parameters(), 2e-4, betas=(0.0, 0.9)) for network in (g, d))
    real = torch.rand(config.batch_size, 3, 32, 32) * 2 - 1, torch.arange(config.batch_size) % config.num_classes

    def step(_number: int) -> object:
        for _ in range(config.discriminator_steps):
            d.train_step(real_batch=real, netG=g, optD=of_d, log_data=log.MetricLog(), device="cpu")
        return g.train_step(real_batch=real, netD=d, optG=of_g, log_data=log.MetricLog(), device="cpu")

    return step


def pretrained_biggan(peers: Path, batch: int) -> Taken:
    """Samples of pytorch-pretrained-BigGAN's network for 128x128, with fresh weights."""
    package = "pytorch_pretrained_biggan"
    folder = folder_of(peers, "pytorch-pretrained-BigGAN")
    unneeded = ["boto3", "botocore", "botocore.exceptions", "requests"]
    names = [f"{package}.config", f"{package}.model"]
    config, model = imported(folder, names, unneeded=unneeded, bare=[package])
    network = copy.deepcopy(model.BigGAN(config.BigGANConfig())).eval()
    z = torch.randn(batch, 128)
    labels = torch.eye(1000)[torch.arange(batch)]

    def draw(_number: int) -> object:
        with torch.no_grad():
            return network(z, labels, 1.0)

    return draw
