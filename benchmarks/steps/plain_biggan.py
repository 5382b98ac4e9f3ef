"""BigGAN at 128x128 in plain torch: the weights that benchmarks measure, and a loop that trains them.

Names, shapes and depths are those of the paper's Table 4; the parameter counts are checked by
``benchmarks.parts.singular_values``. It is written without gan_blocks, so that what is measured does not depend on it.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["Discriminator", "Generator", "initialize", "train", "trainer", "weights"]


class ConditionalNorm(nn.Module):
    """BatchNorm over the batch whose gain and bias are projections of the condition."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.gain = nn.Linear(condition, channels, bias=False)
        self.bias = nn.Linear(condition, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalize and modulate."""
        gain, bias = (rearrange(layer(condition), "b c -> b c 1 1") for layer in (self.gain, self.bias))
        y: Tensor = (1 + gain) * F.batch_norm(x, None, None, training=True, eps=1e-4) + bias
        return y


class GeneratorBlock(nn.Module):
    """Residual block that doubles the resolution."""

    def __init__(self, fan_in: int, fan_out: int, condition: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(fan_in, condition)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        self.norm2 = ConditionalNorm(fan_out, condition)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Apply the block."""
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, condition)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        y: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2)
        return y


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the resolution, or keeps it when it is the last."""

    def __init__(self, fan_in: int, fan_out: int, *, first: bool, last: bool) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1)
        self.shortcut = nn.Identity() if last else nn.Conv2d(fan_in, fan_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        y: Tensor = self.shortcut(x)
        return h + y if self.last else F.avg_pool2d(h + y, 2)


class Attention(nn.Module):
    """The non-local block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta, self.phi = (nn.Conv2d(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Add what every place reads from all others."""
        height = x.shape[2]
        query = rearrange(self.theta(x), "b c h w -> b (h w) c")
        key, value = (rearrange(F.max_pool2d(layer(x), 2), "b c h w -> b (h w) c") for layer in (self.phi, self.g))
        key, query = (F.pad(t, (0, value.shape[2] - t.shape[2])) for t in (key, query))
        read = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        y: Tensor = x + self.gamma * self.out(rearrange(read, "b (h w) c -> b c h w", h=height))
        return y


class Generator(nn.Module):
    """BigGAN's generator at 128x128 (Table 4, left)."""

    def __init__(self, channels: int, num_classes: int = 1000) -> None:
        super().__init__()
        widths = [channels * factor for factor in (16, 16, 8, 4, 2, 1)]
        self.embedding = nn.Embedding(num_classes, 128)
        self.linear = nn.Linear(20, 16 * widths[0])
        pairs = list(pairwise(widths))
        self.blocks = nn.ModuleList([GeneratorBlock(i, o, 148) for i, o in pairs])
        self.attention = Attention(widths[4])
        self.norm = nn.BatchNorm2d(widths[5], eps=1e-4, track_running_stats=False)
        self.to_rgb = nn.Conv2d(widths[5], 3, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Draw images for latents (batch, 120) and labels (batch,)."""
        first, *rest = z.chunk(6, 1)
        x = rearrange(self.linear(first), "b (h w c) -> b c h w", h=4, w=4)
        for index, (block, chunk) in enumerate(zip(self.blocks, rest, strict=True)):
            x = block(x, torch.cat([self.embedding(y), chunk], 1))
            x = self.attention(x) if index == 3 else x
        return torch.tanh(self.to_rgb(F.relu(self.norm(x))))


class Discriminator(nn.Module):
    """BigGAN's discriminator at 128x128 (Table 4, right)."""

    def __init__(self, channels: int, num_classes: int = 1000) -> None:
        super().__init__()
        widths = [3, *(channels * factor for factor in (1, 2, 4, 8, 16, 16))]
        pairs = list(pairwise(widths))
        self.blocks = nn.ModuleList(
            [DiscriminatorBlock(i, o, first=n == 0, last=n == 5) for n, (i, o) in enumerate(pairs)]
        )
        self.attention = Attention(widths[1])
        self.linear = nn.Linear(widths[-1], 1)
        self.embedding = nn.Embedding(num_classes, widths[-1])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Judge images (batch, 3, 128, 128) with labels (batch,)."""
        for index, block in enumerate(self.blocks):
            x = block(x)
            x = self.attention(x) if index == 0 else x
        h = reduce(F.relu(x), "b c h w -> b c", "sum")
        logits: Tensor = self.linear(h)[:, 0] + (h * self.embedding(y)).sum(1)
        return logits


def initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Make every weight orthogonal over (out, rest) and normalize it spectrally, but for G's shared embedding."""
    for module in list(model.modules()):
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            continue
        out, rest = module.weight.shape[0], module.weight[0].numel()
        draws = torch.randn(max(out, rest), min(out, rest), generator=generator)
        basis = torch.linalg.qr(draws).Q
        with torch.no_grad():
            module.weight.copy_((basis if out > rest else basis.T).reshape(module.weight.shape))
        if not (isinstance(model, Generator) and isinstance(module, nn.Embedding)):
            spectral_norm(module, eps=1e-4)


def weights(*models: nn.Module) -> dict[str, Tensor]:
    """Return every weight matrix by qualified name, before normalization, first G's, then D's."""
    found = {}
    for model in models:
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                found[f"{type(model).__name__}.{name.replace('parametrizations.weight.original', 'weight')}"] = (
                    parameter
                )
    return {name: weight.detach() for name, weight in found.items()}


def trainer(
    channels: int,
    *,
    batch: int,
    discriminator_steps: int = 2,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> Callable[[int], None]:
    """A function that takes one step of fresh networks."""
    random = torch.Generator().manual_seed(0)
    g, d = Generator(channels), Discriminator(channels)
    initialize(g, random)
    initialize(d, random)
    training = train(g.to(device), d.to(device), batch=batch, discriminator_steps=discriminator_steps, bf16=bf16)

    def step(_number: int) -> None:
        next(training)

    return step


def train(
    g: Generator,
    d: Discriminator,
    *,
    batch: int,
    discriminator_steps: int = 2,
    bf16: bool = False,
    seed: int = 0,
) -> Iterator[int]:
    """Train on smooth random images with the paper's hinge loss and rates; yield each step."""
    random = torch.Generator().manual_seed(seed)
    device = next(g.parameters()).device
    d_optimizer = torch.optim.Adam(d.parameters(), lr=2e-4, betas=(0.0, 0.999), fused=True)
    g_optimizer = torch.optim.Adam(g.parameters(), lr=5e-5, betas=(0.0, 0.999), fused=True)
    step = 0

    def latents() -> tuple[Tensor, Tensor]:
        z, y = torch.randn(batch, 120, generator=random), torch.randint(1000, (batch,), generator=random)
        return z.to(device), y.to(device)

    while True:
        for _ in range(discriminator_steps):
            z, y = latents()
            coarse = torch.randn(batch, 3, 8, 8, generator=random).to(device)
            real = torch.tanh(F.interpolate(coarse, size=128, mode="bicubic"))
            d_optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                with torch.no_grad():
                    fake = g(z, y)
                loss = F.relu(1 - d(real, y)).mean() + F.relu(1 + d(fake, y)).mean()
            loss.backward()
            d_optimizer.step()
        g_optimizer.zero_grad()
        z, y = latents()
        d.requires_grad_(False)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = -d(g(z, y), y).mean()
        loss.backward()
        d.requires_grad_(True)
        g_optimizer.step()
        step += 1
        yield step
