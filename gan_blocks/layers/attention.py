"""The non-local block of SA-GAN and BigGAN.

Tested in ``tests/layers/test_attention.py``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, bad_value, check_factories, check_whole
from gan_blocks.layers._placing import placed
from gan_blocks.layers.attention_products import attend_by_products, products_are_faster

__all__ = ["SelfAttention2d"]


class SelfAttention2d(nn.Module):
    r"""Let every pixel gather features from the whole map, added to it with a learned weight.

    With f(x) the 1x1 convolutions theta, phi (to C/8 channels), g (to C/2) and out (back to C), none with a bias, and
    pool the 2x2 maximum,

    .. math::

        a_{ij} &= \operatorname{softmax}_j\bigl(\theta(x)_i^\top \,\text{pool}(\phi(x))_j\bigr) \\
        y_i &= \gamma \,\text{out}\Bigl(\textstyle\sum_j a_{ij}\,\text{pool}(g(x))_j\Bigr) + x_i

    where i runs over all pixels and j over the pooled ones. The scores are not divided by the root of their size.
    The scalar gamma starts at 0, so that the block starts as the identity. Train and eval mode do the same, unless
    the convolutions differ.

    Args:
        channels: Number of channels C, a positive multiple of 8.
        conv_layer: Makes the convolutions; called as ``conv_layer(in_channels, out_channels, 1, bias=False)``.
        device: Device of all parameters.
        dtype: Dtype of all parameters.

    Shape:
        - x: ``(batch, channels, height, width)`` with even height and width
        - returns: same as ``x``

    Raises:
        ValueError: If ``channels`` is not a positive multiple of 8, or the input is not of the shape above.

    Second derivatives, as penalties on slopes take them, need the forward pass inside :func:`twice_differentiable`:
    torch's fast kernels have only the first ("derivative for
    aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented").

    References:
        Wang et al. 2018, "Non-local Neural Networks"; Zhang et al. 2018, "Self-Attention GAN", section 3;
        Brock et al. 2018, Appendix B, Tables 4 to 9.

    Example:
        >>> attention = SelfAttention2d(8)
        >>> x = torch.randn(2, 8, 4, 4)
        >>> torch.equal(attention(x), x)  # gamma = 0
        True
    """

    def __init__(
        self,
        channels: int,
        *,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_factories("SelfAttention2d", conv_layer=conv_layer)
        check_whole("SelfAttention2d", channels=channels)
        if channels <= 0 or channels % 8:
            raise bad_value("SelfAttention2d", "channels", "a positive multiple of 8", channels)
        self.channels = channels
        self.theta = placed(conv_layer(channels, channels // 8, 1, bias=False), device, dtype)
        self.phi = placed(conv_layer(channels, channels // 8, 1, bias=False), device, dtype)
        self.g = placed(conv_layer(channels, channels // 2, 1, bias=False), device, dtype)
        self.out = placed(conv_layer(channels // 2, channels, 1, bias=False), device, dtype)
        self.gamma = nn.Parameter(torch.empty((), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make gamma zero; the convolutions have a method of their own."""
        nn.init.zeros_(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        """Add ``gamma`` times what the pixels of ``x`` gather from one another to ``x``."""
        if x.dim() != 4 or x.shape[1] != self.channels or any(size % 2 or not size for size in x.shape[2:]):
            pattern = f"(batch, {self.channels}, height, width) with even height and width"
            raise bad_shape("SelfAttention2d", "x", pattern, x)
        query: Tensor = self.theta(x)
        key = F.max_pool2d(self.phi(x), kernel_size=2)
        value = F.max_pool2d(self.g(x), kernel_size=2)
        gathered = _attend(*(rearrange(f, "b c h w -> b (h w) c") for f in (query, key, value)))
        out: Tensor = self.out(rearrange(gathered, "b (h w) c -> b c h w", h=x.shape[2]))
        # x comes first, because the sum takes its memory format from the first operand.
        return x + self.gamma * out

    def extra_repr(self) -> str:
        """Return the channel count as ``repr`` shows it."""
        return str(self.channels)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over (batch, pixel, channel), without the usual scale."""
    if products_are_faster(query, key, value):
        return attend_by_products(query, key, value)
    # The CPU's flash kernel wants contiguous operands of one head size and silently leaves the field to the slow path
    # otherwise. Zeros add nothing to the scores. Other devices have kernels for unequal sizes (untested here).
    if query.device.type == "cpu":
        missing = value.shape[-1] - query.shape[-1]
        query, key, value = (f.contiguous() for f in (F.pad(query, (0, missing)), F.pad(key, (0, missing)), value))
    query, key, value = (f.unsqueeze(1) for f in (query, key, value))  # one head
    return F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)
